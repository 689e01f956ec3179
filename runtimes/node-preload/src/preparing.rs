//! One prepare of this process, whoever asked for it.

use std::sync::atomic::{AtomicI32, Ordering::SeqCst};
use std::time::Duration;

use mitosis::client::{AgentAddress, Seed};
use mitosis::prepare::{
    Files, PrepareOptions, Prepared, Refuse, Resumed, SHARED_COPY_LIMIT_BYTES, STOP_THREADS,
    Threads, prepare, release_threads,
};
use mitosis::wire::local::{Failure, FailureKind};

use crate::{openssl, raw};

/// The process in which a prepare runs; 0: none. Not a flag: a fork by another thread copies it.
static BUSY: AtomicI32 = AtomicI32::new(0);

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) agent: AgentAddress,
    pub(crate) shared_copy_limit: u64,
    pub(crate) stop_threads: Duration,
    pub(crate) refuse: Refuse,
}

impl Wanted {
    /// The defaults, with the agent that is found. It reads the environment: not in a handler.
    pub(crate) fn here() -> Self {
        Wanted {
            agent: AgentAddress::find(),
            shared_copy_limit: SHARED_COPY_LIMIT_BYTES,
            stop_threads: STOP_THREADS,
            refuse: Refuse::UNLESS_TOLD,
        }
    }
}

/// What prepare has returned.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// In this process.
    Parent(Seed),
    /// In a child, all of whose threads run.
    Child(Resumed),
}

/// Prepares the whole process.
///
/// # Errors
/// There is no seed; nothing has changed.
pub(crate) fn whole_process(wanted: &Wanted) -> Result<Outcome, Failure> {
    let Some(_turn) = Turn::take() else {
        let message =
            "the process is being prepared already: try again when that is done".to_owned();
        return Err(Failure { kind: FailureKind::Limit, message });
    };
    let options = PrepareOptions {
        agent: Some(wanted.agent.clone()),
        shared_copy_limit: wanted.shared_copy_limit,
        threads: Threads::All,
        holds_threads: true,
        tells_environment: false,
        files: Files::Carried,
        stop_threads: wanted.stop_threads,
        refuse: wanted.refuse,
        ..PrepareOptions::default()
    };
    match prepare(&options) {
        Ok(Prepared::Parent(seed)) => Ok(Outcome::Parent(seed)),
        Ok(Prepared::Child(resumed)) => {
            openssl::become_another();
            release_threads();
            Ok(Outcome::Child(resumed))
        }
        Err(error) => Err(Failure { kind: error.kind(), message: error.to_string() }),
    }
}

/// The right to prepare, given back in a child as in the parent.
struct Turn;

impl Turn {
    fn take() -> Option<Self> {
        let own = raw::process_id();
        let taken = BUSY.fetch_update(SeqCst, SeqCst, |busy| (busy != own).then_some(own));
        taken.is_ok().then_some(Turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        BUSY.store(0, SeqCst);
    }
}
