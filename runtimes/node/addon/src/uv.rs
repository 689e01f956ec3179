//! libuv's handles that call back into JavaScript: waiting for a descriptor, and being woken by another thread.
//!
//! No thread stands still for either. A handle lives from its start until its callback answers true, or node's
//! environment ends; the memory is libuv's to give back ([`closed`]).
#![allow(unsafe_code)]

use std::ffi::{CStr, c_int, c_void};
use std::os::fd::RawFd;
use std::ptr;

use mitosis::wire::local::FailureKind;
use napi_sys as sys;

use crate::failure::Failure;
use crate::js::{self, Env, Raised, Value};

/// uv_handle_type of uv.h, the same in all of libuv 1.
const UV_ASYNC: c_int = 1;
const UV_POLL: c_int = 8;
/// uv_poll_event of uv.h.
const UV_READABLE: c_int = 1;

/// Any of libuv's handles.
#[repr(C)]
pub(crate) struct Handle {
    /// The first member of every handle, and the caller's: here a [`Callback`].
    data: *mut c_void,
}

type OnPoll = unsafe extern "C" fn(*mut Handle, c_int, c_int);
type OnHandle = unsafe extern "C" fn(*mut Handle);

// From uv.h; node exports its libuv to addons.
unsafe extern "C" {
    fn uv_handle_size(kind: c_int) -> usize;
    fn uv_poll_init(uv_loop: *mut c_void, handle: *mut Handle, fd: c_int) -> c_int;
    fn uv_poll_start(handle: *mut Handle, events: c_int, callback: OnPoll) -> c_int;
    fn uv_async_init(uv_loop: *mut c_void, handle: *mut Handle, callback: OnHandle) -> c_int;
    fn uv_async_send(handle: *mut Handle) -> c_int;
    fn uv_unref(handle: *mut Handle);
    fn uv_close(handle: *mut Handle, callback: OnHandle);
}

/// What a handle calls.
struct Callback {
    env: sys::napi_env,
    function: sys::napi_ref,
    /// What must not be collected meanwhile; `this` of the function.
    keeps: sys::napi_ref,
    context: sys::napi_async_context,
    /// Told when the handle goes.
    ending: fn(*mut Handle),
}

/// Calls `function` whenever `fd` is readable, until it returns true. `keeps` owns the descriptor.
pub(crate) fn readable<'s>(
    env: Env<'s>,
    fd: RawFd,
    keeps: Value<'s>,
    function: Value<'s>,
) -> Result<(), Raised> {
    // SAFETY: the handle is new memory of libuv's size for this kind.
    let handle = start(
        env,
        UV_POLL,
        c"mitosis.Child",
        keeps,
        function,
        |_| {},
        |uv_loop, new| unsafe { uv_poll_init(uv_loop, new, fd) },
    )?;
    // SAFETY: initialised above, on the loop's own thread.
    unsafe { uv_poll_start(handle, UV_READABLE, polled) };
    Ok(())
}

/// Calls `function` after each [`wake`] of the handle, until it returns true; `ending` is told when the handle
/// must not be woken any more. Does not keep node running.
pub(crate) fn wakeable<'s>(
    env: Env<'s>,
    function: Value<'s>,
    ending: fn(*mut Handle),
) -> Result<*mut Handle, Raised> {
    // SAFETY: as above.
    let handle =
        start(env, UV_ASYNC, c"mitosis.wake", function, function, ending, |uv_loop, new| unsafe {
            uv_async_init(uv_loop, new, woken)
        })?;
    // SAFETY: as above.
    unsafe { uv_unref(handle) };
    Ok(handle)
}

/// Wakes a [`wakeable`] handle; any thread may, and a signal handler.
///
/// # Safety
/// The handle has not ended.
pub(crate) unsafe fn wake(handle: *mut Handle) {
    // SAFETY: the caller's.
    unsafe { uv_async_send(handle) };
}

fn start<'s>(
    env: Env<'s>,
    kind: c_int,
    name: &'static CStr,
    keeps: Value<'s>,
    function: Value<'s>,
    ending: fn(*mut Handle),
    init: impl FnOnce(*mut c_void, *mut Handle) -> c_int,
) -> Result<*mut Handle, Raised> {
    let name = js::resource_name(env, name)?;
    let none = ptr::null_mut();
    let mut callback = Box::new(Callback {
        env: env.raw(),
        function: none,
        keeps: none,
        context: ptr::null_mut(),
        ending,
    });
    let mut uv_loop: *mut sys::uv_loop_s = ptr::null_mut();
    // SAFETY: env and values live; the handle's memory is zeroed, of libuv's size and aligned as malloc's.
    unsafe {
        sys::napi_get_uv_event_loop(env.raw(), &raw mut uv_loop);
        let handle = libc::calloc(1, uv_handle_size(kind)).cast::<Handle>();
        if handle.is_null() {
            return Err(Failure::of(FailureKind::Limit, "no memory for a handle of libuv").into());
        }
        let error = init(uv_loop.cast(), handle);
        if error != 0 {
            libc::free(handle.cast());
            let why = std::io::Error::from_raw_os_error(-error);
            let message = format!("node's loop takes no more to wait for: {why}");
            return Err(Failure::of(FailureKind::Limit, message).into());
        }
        sys::napi_create_reference(env.raw(), function.raw(), 1, &raw mut callback.function);
        sys::napi_create_reference(env.raw(), keeps.raw(), 1, &raw mut callback.keeps);
        sys::napi_async_init(env.raw(), ptr::null_mut(), name, &raw mut callback.context);
        (*handle).data = Box::into_raw(callback).cast();
        sys::napi_add_env_cleanup_hook(env.raw(), Some(env_ends), handle.cast());
        Ok(handle)
    }
}

unsafe extern "C" fn polled(handle: *mut Handle, _status: c_int, _events: c_int) {
    // SAFETY: libuv's, see `fire`.
    unsafe { fire(handle) };
}

unsafe extern "C" fn woken(handle: *mut Handle) {
    // SAFETY: libuv's, see `fire`.
    unsafe { fire(handle) };
}

/// # Safety
/// Called by libuv on node's own thread, for a handle that has not been closed.
unsafe fn fire(handle: *mut Handle) {
    // SAFETY: the caller's; nothing of JavaScript is on the stack, and the hook is node's own list.
    unsafe {
        let callback = &*(*handle).data.cast::<Callback>();
        let env = callback.env;
        let mut done = false;
        js::enter(env, |env| done = called(env, callback));
        if done {
            sys::napi_remove_env_cleanup_hook(env, Some(env_ends), handle.cast());
            close(handle);
        }
    }
}

/// Calls back; whether that was all.
fn called(env: Env<'_>, callback: &Callback) -> bool {
    let (mut function, mut this, mut said) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    let mut done = false;
    // SAFETY: env and references live. An exception goes to node, as that of any callback.
    unsafe {
        sys::napi_get_reference_value(env.raw(), callback.function, &raw mut function);
        sys::napi_get_reference_value(env.raw(), callback.keeps, &raw mut this);
        let (context, none) = (callback.context, ptr::null());
        let answered =
            sys::napi_make_callback(env.raw(), context, this, function, 0, none, &raw mut said);
        if answered != sys::Status::napi_ok {
            return true;
        }
        // Whatever is no boolean leaves `done` as it is.
        sys::napi_get_value_bool(env.raw(), said, &raw mut done);
    }
    done
}

/// Node's environment ends, and the handle with it.
unsafe extern "C" fn env_ends(handle: *mut c_void) {
    // SAFETY: the hook is removed before a handle is closed otherwise.
    unsafe { close(handle.cast()) };
}

/// # Safety
/// Once for each handle, on its own thread.
unsafe fn close(handle: *mut Handle) {
    // SAFETY: the handle is open; the callback is freed here, the handle by `closed`.
    unsafe {
        let callback = Box::from_raw((*handle).data.cast::<Callback>());
        (callback.ending)(handle);
        sys::napi_delete_reference(callback.env, callback.function);
        sys::napi_delete_reference(callback.env, callback.keeps);
        sys::napi_async_destroy(callback.env, callback.context);
        uv_close(handle, closed);
    }
}

unsafe extern "C" fn closed(handle: *mut Handle) {
    // SAFETY: calloc's, and libuv has let go of it.
    unsafe { libc::free(handle.cast()) };
}
