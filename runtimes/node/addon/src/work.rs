//! Work that waits, on libuv's thread pool, behind a promise.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

use mitosis::wire::local::FailureKind;
use napi_sys as sys;

use crate::failure::Failure;
use crate::js::{self, Deferred, Env, Raised, Value};

/// What is made of the result on JavaScript's thread.
pub(crate) type Finish<T> = for<'s> fn(Env<'s>, T) -> Result<Value<'s>, Raised>;

struct Task<T> {
    work: Option<Box<dyn FnOnce() -> Result<T, Failure> + Send>>,
    outcome: Option<Result<T, Failure>>,
    finish: Finish<T>,
    deferred: Option<Deferred>,
    handle: sys::napi_async_work,
}

/// A promise for what `finish` makes of the result of `work`, which runs on another thread.
pub(crate) fn promise<'s, T: Send + 'static>(
    env: Env<'s>,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    finish: Finish<T>,
) -> Result<Value<'s>, Raised> {
    let name = js::resource_name(env, c"mitosis")?;
    let (deferred, promise) = env.promise()?;
    let task = Box::into_raw(Box::new(Task {
        work: Some(Box::new(work)),
        outcome: None,
        finish,
        deferred: Some(deferred),
        handle: ptr::null_mut(),
    }));
    // SAFETY: node calls `execute` once on a thread of its pool and then `complete` once on this one; the
    // task is nobody else's from here until `complete` takes it.
    let queued = unsafe {
        let made = sys::napi_create_async_work(
            env.raw(),
            ptr::null_mut(),
            name,
            Some(execute::<T>),
            Some(complete::<T>),
            task.cast(),
            &raw mut (*task).handle,
        );
        made == sys::Status::napi_ok
            && sys::napi_queue_async_work(env.raw(), (*task).handle) == sys::Status::napi_ok
    };
    if !queued {
        // SAFETY: node has not taken it over.
        let mut task = unsafe { Box::from_raw(task) };
        let failure = Failure::of(FailureKind::Limit, "node takes no more work: it is ending");
        if let Some(deferred) = task.deferred.take() {
            deferred.settle(env, Err(failure.into()));
        }
    }
    Ok(promise)
}

unsafe extern "C" fn execute<T>(_: sys::napi_env, data: *mut c_void) {
    // SAFETY: see `promise`.
    let task = unsafe { &mut *data.cast::<Task<T>>() };
    let work = task.work.take();
    let outcome = catch_unwind(AssertUnwindSafe(|| work.map(|work| work())));
    task.outcome = outcome.unwrap_or(None);
}

unsafe extern "C" fn complete<T>(env: sys::napi_env, _: sys::napi_status, data: *mut c_void) {
    // SAFETY: see `promise`.
    let mut task = unsafe { Box::from_raw(data.cast::<Task<T>>()) };
    let (outcome, deferred, finish) = (task.outcome.take(), task.deferred.take(), task.finish);
    let ended = || Failure::of(FailureKind::Internal, "the work was not done: node is ending");
    // SAFETY: node calls on its own thread, with its own env.
    unsafe {
        js::enter(env, |env| {
            let outcome = outcome.ok_or_else(ended).and_then(|outcome| outcome);
            let value = outcome.map_err(Raised::from).and_then(|value| finish(env, value));
            if let Some(deferred) = deferred {
                deferred.settle(env, value);
            }
        });
        sys::napi_delete_async_work(env, task.handle);
    }
}
