//! Traces: what images of this host do, told to who watches a child.
//!
//! ```text
//!  Trace ---> Tracing ---> (the caller resumes by another connection) ---> EOF ---> Traced
//!    |                                                                      ^
//!    `-- an image that is here records from now on;                         `-- closed: forgotten
//!        one that is built meanwhile from its first page on
//! ```

use std::collections::HashMap;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;

use super::Agent;
use super::callers::Caller;
use super::failure::fail;
use super::hosted::Hosted;
use crate::descriptor::{Descriptor, SeedRange, Vma};
use crate::id::{ForkKey, Handle, SeedId};
use crate::image::Recording;
use crate::wire::frame::{self, FrameError};
use crate::wire::local::{Failure, FailureKind, LocalReply};
use crate::wire::traced::{MAX_TRACES, TraceOf, Traced, TracedVma};

/// The seeds of which somebody watches the image.
#[derive(Debug, Default)]
pub(super) struct Traces {
    table: Mutex<HashMap<SeedId, Arc<Watched>>>,
}

/// An image that somebody watches, or will as soon as it is there.
#[derive(Debug)]
pub(super) struct Watched {
    /// Shown by who watches: who had another one would see what is not his.
    key: ForkKey,
    recording: Arc<Recording>,
    vmas: OnceLock<Vec<TracedVma>>,
}

impl Watched {
    fn of(hosted: &Hosted) -> Self {
        let vmas = OnceLock::from(names(hosted.descriptor()));
        let recording = hosted.image().recording().clone();
        Watched { key: hosted.key.clone(), recording, vmas }
    }

    /// What its image records into, once it is known what this is made of.
    pub(super) fn recording(&self, descriptor: &Descriptor) -> Arc<Recording> {
        let _ = self.vmas.set(names(descriptor));
        self.recording.clone()
    }

    /// What was recorded, with the VMAs in which it lies.
    fn take(&self) -> Traced {
        let mut traced = self.recording.take();
        let mut touched: Vec<SeedRange> = traced.events.iter().map(|event| event.range).collect();
        touched.sort_unstable();
        let vmas = self.vmas.get().map_or(&[][..], Vec::as_slice).iter();
        let is_touched = |vma: &&TracedVma| {
            let behind = touched.partition_point(|range| range.end <= vma.range.start);
            touched.get(behind).is_some_and(|range| range.start < vma.range.end)
        };
        traced.vmas = vmas.filter(is_touched).cloned().collect();
        traced
    }
}

impl Traces {
    /// Who watches the image of this seed for whoever shows its key.
    pub(super) fn watched(&self, handle: &Handle) -> Option<Arc<Watched>> {
        let table = self.table.lock();
        table.get(&handle.seed).filter(|watched| watched.key == handle.key).cloned()
    }

    fn begin(&self, seed: SeedId, watched: Watched) -> Result<Watch<'_>, Failure> {
        let mut table = self.table.lock();
        if table.contains_key(&seed) {
            let text = format!("seed {seed} is traced here already: wait until that trace ends");
            return Err(fail(FailureKind::Limit, text));
        }
        if table.len() >= MAX_TRACES {
            let text = format!("this host already has {MAX_TRACES} traces: wait until one ends");
            return Err(fail(FailureKind::Limit, text));
        }
        let watched = Arc::new(watched);
        table.insert(seed, watched.clone());
        watched.recording.start();
        Ok(Watch { traces: self, seed, watched })
    }
}

/// Somebody watches.
#[derive(Debug)]
struct Watch<'a> {
    traces: &'a Traces,
    seed: SeedId,
    watched: Arc<Watched>,
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        // In this order, and at once: who traces the same seed next records into the same place.
        let mut table = self.traces.table.lock();
        drop(self.watched.recording.take());
        table.remove(&self.seed);
    }
}

impl Agent {
    /// Records until the caller says that it is enough, or has gone.
    ///
    /// # Errors
    /// The caller's connection's.
    pub(super) fn trace(
        &self,
        caller: Caller,
        mut stream: UnixStream,
        of: &TraceOf,
    ) -> Result<(), FrameError> {
        let begun = self.what_to_watch(caller, of).and_then(|(seed, was_here, watched)| {
            self.traces.begin(seed, watched).map(|watch| (was_here, watch))
        });
        let (was_here, watch) = match begun {
            Ok(begun) => begun,
            Err(failure) => return frame::write(&mut stream, &LocalReply::Failed(failure)),
        };
        frame::write(&mut stream, &LocalReply::Tracing { was_here })?;
        // It has nothing to say: whatever comes, it is the end.
        let _ = stream.read(&mut [0]);
        let traced = watch.watched.take();
        // Before the answer: who has it may trace again.
        drop(watch);
        frame::write(&mut stream, &LocalReply::Traced(traced))
    }

    fn what_to_watch(
        &self,
        caller: Caller,
        of: &TraceOf,
    ) -> Result<(SeedId, bool, Watched), Failure> {
        let handle = match of {
            TraceOf::Child(child) => {
                self.check_starter(caller, *child)?;
                let hosted = self.children.hosted(*child)?;
                return Ok((hosted.seed, true, Watched::of(&hosted)));
            }
            TraceOf::Seed(handle) => handle,
        };
        if self.is_own(handle.agent.as_deref()) {
            self.fetch_own(handle)?;
            self.check_owner(caller, handle.seed)?;
        } else {
            caller.must_be_trusted("trace seeds of other hosts")?;
        }
        let hosted = self.hosting.hosted(handle.seed).filter(|hosted| hosted.key == handle.key);
        let watched = hosted.as_deref().map_or_else(
            || Watched {
                key: handle.key.clone(),
                recording: Arc::default(),
                vmas: OnceLock::new(),
            },
            Watched::of,
        );
        Ok((handle.seed, hosted.is_some(), watched))
    }
}

fn names(descriptor: &Descriptor) -> Vec<TracedVma> {
    let named = |vma: &Vma| TracedVma { range: vma.range, name: descriptor.name_of(vma) };
    descriptor.vmas.iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn watched(key: &ForkKey) -> Watched {
        Watched { key: key.clone(), recording: Arc::default(), vmas: OnceLock::new() }
    }

    #[test]
    fn a_seed_is_traced_once_at_a_time_and_for_whoever_has_its_key() {
        let traces = Traces::default();
        let (key, seed) = (ForkKey::random(), SeedId(7));
        let handle = |key| Handle { agent: None, seed, key };
        let watch = traces.begin(seed, watched(&key)).unwrap();
        assert!(watch.watched.recording.is_on());
        assert!(traces.watched(&handle(key.clone())).is_some());
        assert!(traces.watched(&handle(ForkKey::random())).is_none());
        let again = traces.begin(seed, watched(&key)).unwrap_err();
        assert_eq!(again.kind, FailureKind::Limit);
        let recording = watch.watched.recording.clone();
        drop(watch);
        assert!(!recording.is_on(), "nobody watches any more");
        assert!(traces.watched(&handle(key.clone())).is_none());
        traces.begin(seed, watched(&key)).unwrap();
    }

    #[test]
    fn a_host_has_a_limit_of_traces() {
        let traces = Traces::default();
        let key = ForkKey::random();
        let begin = |seed| traces.begin(SeedId(seed), watched(&key));
        let watches: Vec<_> = (0..MAX_TRACES as u64).map(|seed| begin(seed).unwrap()).collect();
        assert_eq!(begin(99).unwrap_err().kind, FailureKind::Limit);
        drop(watches);
        begin(99).unwrap();
    }
}
