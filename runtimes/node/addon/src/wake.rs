//! Telling JavaScript, on each of its threads, that it runs in a child now.
//!
//! The thread that called prepare() knows. Every other one that has loaded the package (workers; the main
//! thread, where a preloaded library has prepared the process from outside) is told through its own loop.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mitosis::wire::local::FailureKind;
use napi_sys as sys;

use crate::failure::Failure;
use crate::js::{self, Env, MAX_ARGS, Raised, Value};

/// A thread of JavaScript's that wants to be told.
struct Listener {
    env: sys::napi_env,
    function: sys::napi_threadsafe_function,
}

// SAFETY: node's thread-safe function may be called on any thread; the environment is compared alone.
unsafe impl Send for Listener {}

static LISTENERS: Mutex<Vec<Listener>> = Mutex::new(Vec::new());

fn listeners() -> MutexGuard<'static, Vec<Listener>> {
    LISTENERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// (callback): calls it on this thread whenever another one says [`wake_others`]. Does not keep the loop alive.
pub(crate) fn on_wake<'s>(env: Env<'s>, args: &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised> {
    let name = js::resource_name(env, c"mitosis.wake")?;
    let mut function = ptr::null_mut();
    // SAFETY: env and values live; `gone` takes the listener away before the function goes.
    let made = unsafe {
        sys::napi_create_threadsafe_function(
            env.raw(),
            args[0].raw(),
            ptr::null_mut(),
            name,
            0,
            1,
            env.raw().cast(),
            Some(gone),
            ptr::null_mut(),
            None,
            &raw mut function,
        )
    };
    if made != sys::Status::napi_ok {
        return Err(Failure::of(FailureKind::Limit, "node's loop takes no more listeners").into());
    }
    // SAFETY: made above, on this thread.
    unsafe { sys::napi_unref_threadsafe_function(env.raw(), function) };
    listeners().push(Listener { env: env.raw(), function });
    env.undefined()
}

/// (): calls the callbacks of all other threads, each on its own.
pub(crate) fn wake_others<'s>(
    env: Env<'s>,
    _: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    tell(|listener| listener.env != env.raw());
    env.undefined()
}

fn tell(whom: impl Fn(&Listener) -> bool) {
    for listener in listeners().iter().filter(|listener| whom(listener)) {
        // SAFETY: it lives while it is in the list.
        unsafe {
            sys::napi_call_threadsafe_function(
                listener.function,
                ptr::null_mut(),
                sys::ThreadsafeFunctionCallMode::nonblocking,
            );
        }
    }
}

unsafe extern "C" fn gone(_: sys::napi_env, env: *mut c_void, _: *mut c_void) {
    listeners().retain(|listener| listener.env.cast() != env);
}
