//! Telling JavaScript, on each of its threads, that it runs in a child now.
//!
//! The thread that called prepare() knows. Workers that have loaded the package are told by it; the main
//! thread is told by the preloaded library where that has prepared the process from outside.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::mem::transmute;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::SeqCst};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use crate::js::{Env, MAX_ARGS, Raised, Value, exact};
use crate::unique::{Isolate, symbol};
use crate::uv::{self, Handle};

/// A worker that wants to be told.
struct Listener {
    handle: *mut Handle,
    isolate: Option<Isolate>,
}

// SAFETY: the handle is only woken, and the isolate interrupted, which any thread may do, while it stands in the
// list.
unsafe impl Send for Listener {}

static WORKERS: Mutex<Vec<Listener>> = Mutex::new(Vec::new());
/// The main thread's; null while it does not ask.
static MAIN: AtomicPtr<Handle> = AtomicPtr::new(ptr::null_mut());

fn workers() -> MutexGuard<'static, Vec<Listener>> {
    WORKERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// (callback): on a worker, calls it whenever the main thread says [`wake_workers`].
pub(crate) fn on_wake<'s>(env: Env<'s>, args: &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised> {
    let gone = |handle| workers().retain(|listener| listener.handle != handle);
    let handle = uv::wakeable(env, args[0], gone)?;
    workers().push(Listener { handle, isolate: Isolate::current() });
    env.undefined()
}

/// As soon as a child's threads run: whatever a worker is called for next, V8 resets its `Math.random` before.
pub(crate) fn reset_workers() {
    for isolate in workers().iter().filter_map(|listener| listener.isolate) {
        // SAFETY: it has not ended while it stands in the list.
        unsafe { isolate.reset_soon() };
    }
}

/// (): calls the callbacks of all workers, each on its own thread.
pub(crate) fn wake_workers<'s>(
    env: Env<'s>,
    _: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    for listener in workers().iter() {
        // SAFETY: it has not ended while it stands in the list.
        unsafe { uv::wake(listener.handle) };
    }
    env.undefined()
}

/// (callback): on the main thread, calls it when a preloaded library has prepared this process and it runs in
/// a child; false where there is no such library.
pub(crate) fn on_outside<'s>(
    env: Env<'s>,
    args: &[Value<'s>; MAX_ARGS],
) -> Result<Value<'s>, Raised> {
    let Some(on_resume) = symbol(c"mitosis_preload_on_resume") else { return env.boolean(false) };
    let ended = |_| MAIN.store(ptr::null_mut(), SeqCst);
    MAIN.store(uv::wakeable(env, args[0], ended)?, SeqCst);
    // SAFETY: mitosis_preload.h: `void mitosis_preload_on_resume(void (*)(void *), void *)`.
    unsafe {
        type OnResume = unsafe extern "C" fn(unsafe extern "C" fn(*mut c_void), *mut c_void);
        transmute::<*mut c_void, OnResume>(on_resume)(resumed_from_outside, ptr::null_mut());
    }
    env.boolean(true)
}

/// Called in a child, in a signal handler.
unsafe extern "C" fn resumed_from_outside(_: *mut c_void) {
    let handle = MAIN.load(SeqCst);
    if !handle.is_null() {
        // SAFETY: `on_outside` takes it away before it ends.
        unsafe { uv::wake(handle) };
    }
}

/// Forks between this process and the first one, those from outside included, which a library of their own counts.
pub(crate) fn generation() -> u64 {
    type Count = unsafe extern "C" fn() -> u64;
    // Asked for at each draw of a random number, by JavaScript.
    static OUTSIDE: OnceLock<Option<Count>> = OnceLock::new();
    let outside = OUTSIDE.get_or_init(|| {
        let count = symbol(c"mitosis_preload_generation")?;
        // SAFETY: mitosis_preload.h says the type.
        Some(unsafe { transmute::<*mut c_void, Count>(count) })
    });
    // SAFETY: it takes nothing.
    mitosis::prepare::generation() + outside.map_or(0, |count| unsafe { count() })
}

/// (): what the preloaded library says of this child: `{index, generation, payload}`; null where it says nothing.
pub(crate) fn outside<'s>(env: Env<'s>, _: &[Value<'s>; MAX_ARGS]) -> Result<Value<'s>, Raised> {
    let symbols = (symbol(c"mitosis_preload_child_index"), symbol(c"mitosis_preload_payload"));
    let (Some(index), Some(payload)) = symbols else { return env.null() };
    // SAFETY: mitosis_preload.h says these types; the payload lives until the next prepare.
    let (index, payload) = unsafe {
        type Payload = unsafe extern "C" fn(*mut usize) -> *const u8;
        let index = transmute::<*mut c_void, unsafe extern "C" fn() -> i32>(index)();
        let mut bytes = 0usize;
        let at = transmute::<*mut c_void, Payload>(payload)(&raw mut bytes);
        let payload = if at.is_null() { &[][..] } else { std::slice::from_raw_parts(at, bytes) };
        (index, payload.to_vec())
    };
    let told = env.object()?;
    told.set(env, "index", env.number(f64::from(index.max(0)))?)?;
    told.set(env, "generation", env.number(exact(generation()))?)?;
    told.set(env, "payload", env.buffer(&payload)?)?;
    place(env, told)?;
    Ok(told)
}

/// Says in `told` where this child is: what node keeps of that.
pub(crate) fn place<'s>(env: Env<'s>, told: Value<'s>) -> Result<(), Raised> {
    told.set(env, "pid", env.number(f64::from(std::process::id()))?)?;
    // One that is gone, or that has no name of characters, stays what it was.
    let cwd =
        std::env::current_dir().ok().and_then(|path| path.into_os_string().into_string().ok());
    told.set(env, "cwd", cwd.map_or_else(|| env.null(), |cwd| env.string(&cwd))?)
}
