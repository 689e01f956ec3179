//! Telling JavaScript, on each of its threads, that it runs in a child now.
//!
//! The thread that called prepare() knows. Workers that have loaded the package are told by it; the main
//! thread is told by the preloaded library where that has prepared the process from outside.
#![allow(unsafe_code)]

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::js::{Env, MAX_ARGS, Raised, Value};
use crate::uv::{self, Handle};

/// A worker that wants to be told.
struct Listener(*mut Handle);

// SAFETY: the handle is only woken, which any thread may do, while it stands in the list.
unsafe impl Send for Listener {}

static WORKERS: Mutex<Vec<Listener>> = Mutex::new(Vec::new());

fn workers() -> MutexGuard<'static, Vec<Listener>> {
    WORKERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// (callback): on a worker, calls it whenever the main thread says [`wake_workers`].
pub(crate) fn on_wake<'s>(env: Env<'s>, args: &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised> {
    let gone = |handle| workers().retain(|listener| listener.0 != handle);
    let handle = uv::wakeable(env, args[0], gone)?;
    workers().push(Listener(handle));
    env.undefined()
}

/// (): calls the callbacks of all workers, each on its own thread.
pub(crate) fn wake_workers<'s>(
    env: Env<'s>,
    _: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    for listener in workers().iter() {
        // SAFETY: it has not ended while it stands in the list.
        unsafe { uv::wake(listener.0) };
    }
    env.undefined()
}
