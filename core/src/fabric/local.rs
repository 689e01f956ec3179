//! The `local` fabric: READ of a seed of this very host.
//!
//! A READ is pread(2) on the seed's memory by the pager itself, when it reaps: there is nothing to wait
//! for, and no thread in between.

use std::collections::VecDeque;
use std::io::Write;
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;

use super::{Completion, Fabric, MAX_IN_FLIGHT, PostError, Read, ReadError, ReadQueue};
use crate::descriptor::Export;
use crate::export::{ExportError, Exports};
use crate::wire::read::bytes_of;

/// READs seeds of this host: exports without an agent's address, or with this host's own.
#[derive(Debug)]
pub struct LocalFabric {
    exports: Arc<Exports>,
    own_address: RwLock<Option<String>>,
}

impl LocalFabric {
    /// A fabric that reads from `exports`.
    pub fn new(exports: Arc<Exports>) -> Arc<Self> {
        Arc::new(LocalFabric { exports, own_address: RwLock::default() })
    }

    /// Tells under which "host:port" this host's agent stands in descriptors.
    pub fn set_own_address(&self, agent: String) {
        *self.own_address.write() = Some(agent);
    }
}

impl Fabric for LocalFabric {
    fn name(&self) -> &'static str {
        "local"
    }

    fn serves(&self, export: &Export) -> bool {
        export.tcp().is_some_and(|(agent, _)| {
            agent.is_none() || agent == self.own_address.read().as_deref()
        })
    }

    fn queue(self: Arc<Self>) -> Box<dyn ReadQueue> {
        let ready = always_readable().map_err(|error| {
            tracing::warn!(%error, "a local queue has no descriptor; its READs will fail");
        });
        let posted = VecDeque::with_capacity(MAX_IN_FLIGHT);
        Box::new(LocalQueue { exports: Arc::clone(&self.exports), posted, ready: ready.ok() })
    }
}

/// A descriptor that is readable for good: its other end has written and is closed.
pub(super) fn always_readable() -> std::io::Result<UnixStream> {
    let (mut bell, ear) = UnixStream::pair()?;
    bell.write_all(&[1])?;
    Ok(ear)
}

#[derive(Debug)]
struct LocalQueue {
    exports: Arc<Exports>,
    posted: VecDeque<Read>,
    /// What a pager polls while something is posted.
    ready: Option<UnixStream>,
}

impl LocalQueue {
    fn carry_out(&self, read: &mut Read) -> Result<(), ReadError> {
        if Instant::now() >= read.deadline {
            return Err(ReadError::Unreachable("the READ was posted too late".to_owned()));
        }
        let Some((_, read_key)) = read.export.tcp() else {
            return Err(ReadError::Local("the export is not one of this host".to_owned()));
        };
        let exported = self.exports.open(read.seed, read_key)?;
        let mut rest = &mut read.buffer[..];
        for &(addr, len) in &read.ranges {
            let (into, behind) = rest.split_at_mut(len as usize);
            exported.read(addr, into).map_err(|error: ExportError| ReadError::from(error))?;
            rest = behind;
        }
        Ok(())
    }
}

impl ReadQueue for LocalQueue {
    fn post(&mut self, read: Read) -> Result<(), PostError> {
        match check(&read, self.posted.len()) {
            Ok(()) if self.ready.is_some() => {
                self.posted.push_back(read);
                Ok(())
            }
            Ok(()) => {
                let error = ReadError::Local("the agent is out of descriptors".to_owned());
                Err(PostError { error, read })
            }
            Err(error) => Err(PostError { error, read }),
        }
    }

    fn reap(&mut self, done: &mut dyn FnMut(Completion)) {
        while let Some(mut read) = self.posted.pop_front() {
            let result = self.carry_out(&mut read);
            done(Completion { tag: read.tag, buffer: read.buffer, result });
        }
    }

    fn poll_fds(&self, fds: &mut Vec<RawFd>) {
        if !self.posted.is_empty() {
            fds.extend(self.ready.as_ref().map(AsRawFd::as_raw_fd));
        }
    }

    fn in_flight(&self) -> usize {
        self.posted.len()
    }
}

/// Whether a queue with `in_flight` READs may take `read`.
pub(super) fn check(read: &Read, in_flight: usize) -> Result<(), ReadError> {
    if in_flight >= MAX_IN_FLIGHT {
        return Err(ReadError::Local(format!("{MAX_IN_FLIGHT} READs are in flight already")));
    }
    let bytes = bytes_of(&read.ranges).map_err(|error| ReadError::Local(error.to_string()))?;
    if bytes > read.buffer.len() {
        let have = read.buffer.len();
        return Err(ReadError::Local(format!("{bytes} bytes do not fit a buffer of {have}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::descriptor::SeedAddr;
    use crate::export::stand_in::{StandIn, expected};
    use crate::fabric::{Buffer, MAX_RANGES};
    use crate::id::{ReadKey, SeedId};

    fn read(seed: SeedId, key: &ReadKey, ranges: &[(u64, u32)]) -> Read {
        Read {
            tag: 1,
            seed,
            export: Export::Tcp { agent: None, read_key: key.clone() },
            arena: None,
            ranges: ranges.iter().map(|&(addr, len)| (SeedAddr(addr), len)).collect(),
            buffer: Buffer::unregistered(vec![0; 1 << 16].into()),
            deadline: Instant::now() + Duration::from_secs(5),
        }
    }

    fn reap(queue: &mut dyn ReadQueue) -> Vec<Completion> {
        let mut all = Vec::new();
        queue.reap(&mut |completion| all.push(completion));
        all
    }

    #[test]
    fn own_and_nameless_agents_are_served() {
        let fabric = LocalFabric::new(Exports::new());
        let export = |agent: Option<&str>| Export::Tcp {
            agent: agent.map(str::to_owned),
            read_key: ReadKey::random(),
        };
        assert!(fabric.serves(&export(None)));
        assert!(!fabric.serves(&export(Some("a:7370"))));
        fabric.set_own_address("a:7370".to_owned());
        assert!(fabric.serves(&export(Some("a:7370"))));
        assert!(fabric.serves(&export(None)));
        assert!(!fabric.serves(&export(Some("b:7370"))));
    }

    #[test]
    fn ranges_stand_one_behind_the_other() {
        let exports = Exports::new();
        let stand_in = StandIn::start(16 * 4096);
        let (seed, key) = stand_in.export(&exports);
        let base = stand_in.range().start.0;
        let mut queue = LocalFabric::new(exports).queue();
        queue.post(read(seed, &key, &[(base + 8192, 4096), (base, 100)])).unwrap();
        let mut fds = Vec::new();
        queue.poll_fds(&mut fds);
        assert_eq!((queue.in_flight(), fds.len()), (1, 1));
        let done = reap(&mut *queue);
        assert_eq!(done[0].result, Ok(()));
        assert_eq!(done[0].buffer[..4096], expected(8192, 4096));
        assert_eq!(done[0].buffer[4096..4196], expected(0, 100));
        fds.clear();
        queue.poll_fds(&mut fds);
        assert_eq!((queue.in_flight(), fds.len()), (0, 0));
    }

    #[test]
    fn limits_of_a_queue() {
        let exports = Exports::new();
        let stand_in = StandIn::start(4096);
        let (seed, key) = stand_in.export(&exports);
        let base = stand_in.range().start.0;
        let mut queue = LocalFabric::new(exports).queue();
        let too_many = vec![(base, 1); MAX_RANGES + 1];
        for bad in [&[][..], &too_many, &[(base, (1 << 16) + 1)], &[(base, 0)]] {
            let refused = queue.post(read(seed, &key, bad)).unwrap_err();
            assert!(matches!(refused.error, ReadError::Local(_)));
        }
        for _ in 0..MAX_IN_FLIGHT {
            queue.post(read(seed, &key, &too_many[1..])).unwrap();
        }
        assert!(queue.post(read(seed, &key, &[(base, 1)])).is_err());
        let done = reap(&mut *queue);
        assert_eq!(done.len(), MAX_IN_FLIGHT);
        assert!(done.iter().all(|completion| completion.result.is_ok()));
    }

    #[test]
    fn a_late_read_and_a_dead_seed_fail() {
        let exports = Exports::new();
        let mut stand_in = StandIn::start(4096);
        let (seed, key) = stand_in.export(&exports);
        let base = stand_in.range().start.0;
        let mut queue = LocalFabric::new(exports).queue();
        let mut late = read(seed, &key, &[(base, 1)]);
        late.deadline = Instant::now();
        queue.post(late).unwrap();
        assert!(matches!(reap(&mut *queue)[0].result, Err(ReadError::Unreachable(_))));
        stand_in.kill();
        queue.post(read(seed, &key, &[(base, 1)])).unwrap();
        assert!(matches!(reap(&mut *queue)[0].result, Err(ReadError::Revoked(_))));
    }
}
