//! A resume on this host: one hosted seed, `count` children, their events.

use std::fs::File;
use std::net::IpAddr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::Arc;

use crossbeam_channel::{Receiver, bounded};

use super::Agent;
use super::children::{ChildEvent, NewChild, Teller};
use super::failure::fail;
use super::hosted::{Hosted, Start};
use super::surroundings::Surroundings;
use crate::halt;
use crate::id::ChildId;
use crate::prepare::{MAX_MAIL_BYTES, ROLE_CHILD};
use crate::sys::event::Bell;
use crate::sys::{self, clock, poll};
use crate::wire::listen::MAX_CHOICES;
use crate::wire::local::{
    Clock, Failure, FailureKind, MAX_COUNT, MAX_HOSTNAME_BYTES, ResumeRequest, StartReport,
    StartedChild, argv_bytes,
};

/// Children that were started, and where their ends are told.
#[derive(Debug)]
pub struct Started {
    /// In order.
    pub children: Vec<StartedChild>,
    /// How it went.
    pub report: StartReport,
    /// One event for each child.
    pub events: Receiver<ChildEvent>,
}

/// Who has asked for children.
#[derive(Clone, Copy, Debug)]
pub enum StartedBy {
    /// A user of this host.
    User(u32),
    /// Another host, for which they count; they are the agent's own user's here.
    Peer(IpAddr),
}

impl Agent {
    /// Starts the children of a request here, at most once, and only if `caller` (its connection, on which
    /// it says nothing more) is still there when the seed is. `bell` is rung behind each event.
    ///
    /// # Errors
    /// The seed cannot be had or run here, or a limit is reached; children that were started before the
    /// failure are killed. The caller has gone, or this request was carried out before.
    pub fn start_here(
        self: &Arc<Self>,
        request: &ResumeRequest,
        stdio: [BorrowedFd<'_>; 3],
        caller: BorrowedFd<'_>,
        bell: Option<Arc<Bell>>,
        by: StartedBy,
    ) -> Result<Started, Failure> {
        let (user, peer) = match by {
            StartedBy::User(user) => (user, None),
            StartedBy::Peer(peer) => (sys::user_id(), Some(peer)),
        };
        let requested_at_ns = clock::realtime_ns();
        let asked = encode_environment(&request.environment)?;
        check(request, &asked)?;
        let once = self.requests.once(request.request_id)?;
        let parties = self.config.limits.of_resume(request.handle.seed, peer);
        let mut places = self.children.admit(request.count, &parties)?;
        let own = self.is_own(request.handle.agent.as_deref());
        // Nothing but places, which are given back, is taken from a seed for whoever does not show its key.
        let hold = if own { Some(Arc::new(self.hold_own(&request.handle)?)) } else { None };
        if own && request.seed_ends_with_children {
            let others = self.seeds.end_with_children(request.handle.seed);
            others.iter().for_each(|lease| lease.tell());
        }
        let ends = request.seed_ends_with_children;
        let (hosted, new_template) = self.hosting.get(self, &request.handle, ends, peer)?;
        if poll::is_readable(caller.as_raw_fd()).unwrap_or(true) {
            let text = "the caller has gone before its children were started: none was";
            return Err(fail(FailureKind::Unreachable, text));
        }
        let frozen = match request.clock {
            Clock::Live => None,
            Clock::Frozen => Some(Arc::new(hosted.frozen_template(&self.keeper)?)),
        };
        let argv = argv_bytes(&request.argv).map_err(|text| fail(FailureKind::Argument, text))?;
        let surroundings = Surroundings::of(request)?;
        surroundings.check(request, hosted.has_own_root(), hosted.maps_shared_files())?;
        let bound = hosted.listeners.bind(&request.listen, request.count)?;
        let stderr = Arc::new(File::from(stdio[2].try_clone_to_owned().map_err(|error| {
            fail(FailureKind::Limit, format!("no descriptor left for a child's stderr: {error}"))
        })?));
        let (sender, events) = bounded(request.count as usize);
        let teller = Teller::new(sender, bell);
        let mut children = Vec::with_capacity(request.count as usize);
        halt::at(halt::Step::Child);
        for index in 0..request.count {
            let child = ChildId::random();
            let listeners = bound.of(index);
            let told = told_environment(hosted.generation, index, &request.payload);
            let environment = joined(told, &asked, request.payload.len());
            let start = Start {
                role: ROLE_CHILD,
                index,
                child,
                payload: &request.payload,
                environment: &environment,
                stdio,
                new_ids: request.new_ids,
                listeners: &listeners,
                cwd: request.cwd.as_deref(),
                hostname: request.hostname.as_deref(),
                argv: &argv,
                id_map: &request.id_map,
                enters: surroundings.enters(),
            };
            let process = match &frozen {
                Some(template) => hosted.start_from(template, &start),
                None => hosted.start(&start),
            };
            let process = match process {
                Ok(process) => process,
                Err(failure) => {
                    self.kill_started(&children);
                    return Err(failure);
                }
            };
            if let Some(why) = &process.renumbered {
                self.counters.count_renumbered(why);
            }
            let pid = process.pid;
            let (teller, stderr) = (teller.clone(), stderr.clone());
            let (seed, hosted, hold) = (hosted.seed, hosted.clone(), hold.clone());
            let template = frozen.clone();
            places.take(NewChild {
                child,
                seed,
                process,
                teller,
                hosted,
                template,
                hold,
                stderr,
                user,
            });
            children.push(StartedChild { child, pid });
        }
        once.done();
        self.ahead.note(&hosted);
        self.counters.count_children(children.len());
        let report = self.start_report(&hosted, requested_at_ns, new_template);
        Ok(Started { children, report, events })
    }

    fn start_report(
        &self,
        hosted: &Hosted,
        requested_at_ns: u64,
        new_template: bool,
    ) -> StartReport {
        StartReport {
            host: self.config.host.clone(),
            requested_at_ns,
            started_at_ns: clock::realtime_ns(),
            descriptor_bytes: hosted.descriptor_bytes,
            pages_total: hosted.pages_total,
            new_template,
        }
    }

    fn kill_started(&self, children: &[StartedChild]) {
        for started in children {
            let _ = self.children.kill(started.child, libc::SIGKILL);
        }
    }
}

fn check(request: &ResumeRequest, environment: &[u8]) -> Result<(), Failure> {
    if request.count == 0 || request.count > MAX_COUNT {
        let text = format!("n must be 1 to {MAX_COUNT}, not {}", request.count);
        return Err(fail(FailureKind::Argument, text));
    }
    if request.listen.len() > MAX_CHOICES {
        let text = format!("{} places to listen are too many: {MAX_CHOICES}", request.listen.len());
        return Err(fail(FailureKind::Limit, text));
    }
    if request.hostname.as_ref().is_some_and(|name| name.len() > MAX_HOSTNAME_BYTES) {
        let text = format!("a host's name has up to {MAX_HOSTNAME_BYTES} bytes");
        return Err(fail(FailureKind::Argument, text));
    }
    let mail = request.payload.len() + environment.len();
    if mail > MAX_MAIL_BYTES {
        let text = format!(
            "payload and environment have {mail} bytes together, above the limit of {MAX_MAIL_BYTES}: put large \
             state into the process before prepare(), its pages travel on touch"
        );
        return Err(fail(FailureKind::Limit, text));
    }
    Ok(())
}

/// A payload of up to so many bytes is told in the environment: programs that a child starts inherit it, and
/// execve(2) takes 128 KiB of one variable and a quarter of the stack's limit of all.
const MAX_TOLD_PAYLOAD_BYTES: usize = 4096;

/// What a child is told in its environment, for programs that it starts and for those without an SDK.
pub(super) fn told_environment(generation: u64, index: u32, payload: &[u8]) -> Vec<u8> {
    let mut told = format!("MITOSIS_GENERATION={generation}\0MITOSIS_CHILD_INDEX={index}\0");
    let text = std::str::from_utf8(payload).ok();
    let fits =
        |text: &&str| (1..=MAX_TOLD_PAYLOAD_BYTES).contains(&text.len()) && !text.contains('\0');
    match text.filter(fits) {
        Some(text) => told.extend(["MITOSIS_PAYLOAD=", text, "\0"]),
        // An ancestor's.
        None => told.push_str("MITOSIS_PAYLOAD\0"),
    }
    told.into_bytes()
}

/// What the resumer asked for comes last, and wins. Mail that is full is not told more.
fn joined(mut told: Vec<u8>, asked: &[u8], payload: usize) -> Vec<u8> {
    if told.len() + asked.len() + payload > MAX_MAIL_BYTES {
        told.clear();
    }
    told.extend_from_slice(asked);
    told
}

/// `NAME=VALUE\0` to set, `NAME\0` to unset.
fn encode_environment(changes: &[(String, Option<String>)]) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    for (name, value) in changes {
        let bad = name.is_empty()
            || name.contains(['=', '\0'])
            || value.as_ref().is_some_and(|value| value.contains('\0'));
        if bad {
            let text = format!(
                "'{name}' cannot be an environment variable's name, or its value holds a NUL"
            );
            return Err(fail(FailureKind::Argument, text));
        }
        bytes.extend_from_slice(name.as_bytes());
        if let Some(value) = value {
            bytes.push(b'=');
            bytes.extend_from_slice(value.as_bytes());
        }
        bytes.push(0);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_tells_what_the_payload_is_where_that_is_text() {
        let told = |payload: &[u8]| told_environment(3, 7, payload);
        assert_eq!(
            told(b"a=b"),
            b"MITOSIS_GENERATION=3\0MITOSIS_CHILD_INDEX=7\0MITOSIS_PAYLOAD=a=b\0"
        );
        let none = b"MITOSIS_GENERATION=3\0MITOSIS_CHILD_INDEX=7\0MITOSIS_PAYLOAD\0";
        assert_eq!(told(b""), none);
        assert_eq!(told(b"\xff"), none);
        assert_eq!(told(b"a\0b"), none);
        let most = vec![b'a'; MAX_TOLD_PAYLOAD_BYTES];
        assert_eq!(told(&most).len(), none.len() + 1 + most.len());
        assert_eq!(told(&[b'a'; MAX_TOLD_PAYLOAD_BYTES + 1]), none);
    }

    #[test]
    fn mail_that_is_full_is_left_as_it_is() {
        assert_eq!(joined(b"A\0".to_vec(), b"B\0", MAX_MAIL_BYTES - 4), b"A\0B\0");
        assert_eq!(joined(b"A\0".to_vec(), b"B\0", MAX_MAIL_BYTES - 3), b"B\0");
    }

    #[test]
    fn environments_are_encoded_and_checked() {
        let set =
            |name: &str, value: Option<&str>| vec![(name.to_owned(), value.map(str::to_owned))];
        assert_eq!(encode_environment(&set("A", Some("b=c"))).unwrap(), b"A=b=c\0");
        assert_eq!(encode_environment(&set("A", None)).unwrap(), b"A\0");
        for (name, value) in
            [("", Some("x")), ("A=B", Some("x")), ("A", Some("x\0y")), ("A\0", None)]
        {
            assert_eq!(
                encode_environment(&set(name, value)).unwrap_err().kind,
                FailureKind::Argument
            );
        }
    }
}
