//! Waiting for a descriptor in node's own loop: no thread stands still for it.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::os::fd::RawFd;
use std::ptr;

use mitosis::wire::local::FailureKind;
use napi_sys as sys;

use crate::failure::Failure;
use crate::js::{self, Env, Raised, Value};

/// uv_handle_type of uv.h, the same in all of libuv 1.
const UV_POLL: c_int = 8;
/// uv_poll_event of uv.h.
const UV_READABLE: c_int = 1;

#[repr(C)]
struct UvPoll {
    /// The first member of every handle, and the caller's.
    data: *mut c_void,
}

// From uv.h; node exports its libuv to addons.
unsafe extern "C" {
    fn uv_handle_size(kind: c_int) -> usize;
    fn uv_poll_init(uv_loop: *mut c_void, handle: *mut UvPoll, fd: c_int) -> c_int;
    fn uv_poll_start(
        handle: *mut UvPoll,
        events: c_int,
        callback: unsafe extern "C" fn(*mut UvPoll, c_int, c_int),
    ) -> c_int;
    fn uv_close(handle: *mut UvPoll, callback: unsafe extern "C" fn(*mut UvPoll));
}

/// What lives from [`readable`] until libuv has let go of the handle.
struct Watch {
    env: sys::napi_env,
    callback: sys::napi_ref,
    /// What owns the descriptor.
    keeps: sys::napi_ref,
    context: sys::napi_async_context,
    handle: *mut UvPoll,
}

/// Calls `callback` whenever `fd` is readable, until it returns true. `keeps` is kept from the collector
/// so long; it owns the descriptor.
pub(crate) fn readable<'s>(
    env: Env<'s>,
    fd: RawFd,
    keeps: Value<'s>,
    callback: Value<'s>,
) -> Result<(), Raised> {
    let name = js::resource_name(env, c"mitosis.Child")?;
    let mut watch = Box::new(Watch {
        env: env.raw(),
        callback: ptr::null_mut(),
        keeps: ptr::null_mut(),
        context: ptr::null_mut(),
        handle: ptr::null_mut(),
    });
    let mut uv_loop: *mut sys::uv_loop_s = ptr::null_mut();
    // SAFETY: env and values live; the handle's memory is zeroed, of libuv's size, aligned as malloc's, and
    // is freed by `closed` alone once libuv is done with it.
    unsafe {
        sys::napi_get_uv_event_loop(env.raw(), &raw mut uv_loop);
        watch.handle = libc::calloc(1, uv_handle_size(UV_POLL)).cast::<UvPoll>();
        if watch.handle.is_null() {
            return Err(Failure::of(FailureKind::Limit, "no memory to wait for a child").into());
        }
        let error = uv_poll_init(uv_loop.cast(), watch.handle, fd);
        if error != 0 {
            libc::free(watch.handle.cast());
            let why = std::io::Error::from_raw_os_error(-error);
            let message = format!("node's loop cannot wait for this child: {why}");
            return Err(Failure::of(FailureKind::Limit, message).into());
        }
        sys::napi_create_reference(env.raw(), callback.raw(), 1, &raw mut watch.callback);
        sys::napi_create_reference(env.raw(), keeps.raw(), 1, &raw mut watch.keeps);
        sys::napi_async_init(env.raw(), ptr::null_mut(), name, &raw mut watch.context);
        let handle = watch.handle;
        let watch = Box::into_raw(watch);
        (*handle).data = watch.cast();
        sys::napi_add_env_cleanup_hook(env.raw(), Some(ending), watch.cast());
        uv_poll_start(handle, UV_READABLE, polled);
    }
    Ok(())
}

unsafe extern "C" fn polled(handle: *mut UvPoll, _status: c_int, _events: c_int) {
    // SAFETY: `readable` put it there, and `close` has not been called, or libuv would not call.
    let watch = unsafe { &*(*handle).data.cast::<Watch>() };
    // SAFETY: libuv calls on node's own thread, with nothing of JavaScript on the stack.
    unsafe {
        js::enter(watch.env, |env| {
            if asked(env, watch) {
                sys::napi_remove_env_cleanup_hook(watch.env, Some(ending), (*handle).data);
                close(handle);
            }
        });
    }
}

/// Calls back; whether that was all.
fn asked(env: Env<'_>, watch: &Watch) -> bool {
    let (mut callback, mut this, mut said) = (ptr::null_mut(), ptr::null_mut(), ptr::null_mut());
    let mut done = true;
    // SAFETY: env and references live. An exception goes to node, as that of any callback.
    unsafe {
        sys::napi_get_reference_value(env.raw(), watch.callback, &raw mut callback);
        sys::napi_get_reference_value(env.raw(), watch.keeps, &raw mut this);
        let called = sys::napi_make_callback(
            env.raw(),
            watch.context,
            this,
            callback,
            0,
            ptr::null(),
            &raw mut said,
        );
        if called == sys::Status::napi_ok {
            sys::napi_get_value_bool(env.raw(), said, &raw mut done);
        }
    }
    done
}

/// Node's environment ends, and the wait with it.
unsafe extern "C" fn ending(data: *mut c_void) {
    // SAFETY: the hook is removed before the watch goes.
    unsafe { close((*data.cast::<Watch>()).handle) };
}

/// # Safety
/// Once for each handle.
unsafe fn close(handle: *mut UvPoll) {
    // SAFETY: the handle is open; `watch` is freed here, and libuv frees the handle by `closed`.
    unsafe {
        let watch = Box::from_raw((*handle).data.cast::<Watch>());
        sys::napi_delete_reference(watch.env, watch.callback);
        sys::napi_delete_reference(watch.env, watch.keeps);
        sys::napi_async_destroy(watch.env, watch.context);
        uv_close(handle, closed);
    }
}

unsafe extern "C" fn closed(handle: *mut UvPoll) {
    // SAFETY: calloc's, and libuv has let go of it.
    unsafe { libc::free(handle.cast()) };
}
