//! What a program may call that knows of the library: include/mitosis_preload.h.
#![allow(unsafe_code)]

use std::ffi::{CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use mitosis::client::{ClientError, Seed};
use mitosis::prepare::{self, Resumed};

use crate::preparing::{Outcome, Wanted, whole_process};
use crate::{raw, seccomp};

const PARENT: c_int = 1;
const CHILD: c_int = 0;
const FAILED: c_int = -1;
const TOO_SMALL: c_int = -2;
const NOT_PREPARED: c_int = -3;

/// Between prepares.
#[derive(Default)]
struct State {
    seed: Option<Seed>,
    resumed: Option<Resumed>,
    error: CString,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

fn with_state<T>(work: impl FnOnce(&mut State) -> T) -> T {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    work(state.get_or_insert_default())
}

/// Who is told in a child that was prepared from outside: a function of C's and what it is called with.
static ON_RESUME: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static ON_RESUME_CONTEXT: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());

type OnResume = unsafe extern "C" fn(*mut c_void);

/// See the header.
#[unsafe(no_mangle)]
extern "C" fn mitosis_preload_on_resume(function: Option<OnResume>, context: *mut c_void) {
    ON_RESUME_CONTEXT.store(context, SeqCst);
    let function = function.map_or(ptr::null_mut(), |function| function as *mut c_void);
    ON_RESUME.store(function, SeqCst);
}

/// In a child that was prepared from outside, in whatever handler that was: keeps what it was given, and tells
/// who has asked to be told.
pub(crate) fn resumed_from_outside(resumed: Resumed) {
    // Held only if this thread stood in a function of the header: then that program learns nothing.
    if let Ok(mut state) = STATE.try_lock() {
        let state = state.get_or_insert_default();
        // The seed is the parent's.
        std::mem::forget(state.seed.take());
        state.resumed = Some(resumed);
    }
    let function = ON_RESUME.load(SeqCst);
    if !function.is_null() {
        // SAFETY: `mitosis_preload_on_resume` was given it, which says how and where it is called.
        unsafe {
            std::mem::transmute::<*mut c_void, OnResume>(function)(ON_RESUME_CONTEXT.load(SeqCst))
        };
    }
}

/// Keeps why, for mitosis_preload_error().
fn fail(code: c_int, why: &str) -> c_int {
    let text = CString::new(why.replace('\0', " ")).unwrap_or_default();
    with_state(|state| state.error = text);
    code
}

/// See the header. No signal of the program's runs on this thread meanwhile.
#[unsafe(no_mangle)]
extern "C" fn mitosis_preload_prepare() -> c_int {
    let _errno = raw::Errno::keep();
    let _held = raw::Held::all();
    let work = || {
        if let Some(why) = seccomp::in_the_way() {
            return fail(FAILED, &why);
        }
        match whole_process(&Wanted::here()) {
            Ok(Outcome::Parent(seed)) => {
                with_state(|state| (state.seed, state.resumed) = (Some(seed), None));
                PARENT
            }
            Ok(Outcome::Child(resumed)) => {
                with_state(|state| {
                    // The seed is the parent's.
                    std::mem::forget(state.seed.take());
                    state.resumed = Some(resumed);
                });
                CHILD
            }
            Err(failure) => fail(FAILED, &failure.message),
        }
    };
    bounded(work)
}

/// A panic must not reach C; it has been printed.
fn bounded(work: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(FAILED)
}

/// See the header.
#[unsafe(no_mangle)]
unsafe extern "C" fn mitosis_preload_handle(text: *mut c_char, size: usize) -> c_int {
    let _errno = raw::Errno::keep();
    let work = || {
        // Not under the lock: publishing takes a while.
        let asked = with_state(|state| {
            state.seed.as_ref().map(|seed| (seed.agent().clone(), *seed.token()))
        });
        let Some((agent, token)) = asked else {
            return fail(NOT_PREPARED, "no seed was prepared by mitosis_preload_prepare()");
        };
        match mitosis::client::published(&agent, token) {
            // SAFETY: C's: null, or `size` bytes.
            Ok(handle) => unsafe { give(&handle.reveal(), text, size) },
            Err(ClientError::Failed(failure)) => fail(FAILED, &failure.message),
            Err(error) => fail(FAILED, &error.to_string()),
        }
    };
    bounded(work)
}

/// # Safety
/// `place` is null, or `size` bytes that nobody else uses.
unsafe fn give(text: &str, place: *mut c_char, size: usize) -> c_int {
    if place.is_null() || size <= text.len() {
        return fail(TOO_SMALL, &format!("the handle takes {} bytes", text.len() + 1));
    }
    // SAFETY: there is room for the text and its zero byte.
    unsafe {
        ptr::copy_nonoverlapping(text.as_ptr().cast(), place, text.len());
        place.add(text.len()).write(0);
    }
    0
}

/// See the header.
#[unsafe(no_mangle)]
extern "C" fn mitosis_preload_error() -> *const c_char {
    with_state(|state| state.error.as_ptr())
}

/// See the header.
#[unsafe(no_mangle)]
extern "C" fn mitosis_preload_generation() -> u64 {
    prepare::generation()
}

/// See the header.
#[unsafe(no_mangle)]
extern "C" fn mitosis_preload_child_index() -> c_int {
    let index = with_state(|state| state.resumed.as_ref().map(|resumed| resumed.index));
    index.and_then(|index| c_int::try_from(index).ok()).unwrap_or(-1)
}

/// See the header.
#[unsafe(no_mangle)]
unsafe extern "C" fn mitosis_preload_payload(size: *mut usize) -> *const u8 {
    let (at, bytes) = with_state(|state| {
        state
            .resumed
            .as_ref()
            .map_or((ptr::null(), 0), |it| (it.payload.as_ptr(), it.payload.len()))
    });
    if !size.is_null() {
        // SAFETY: C's: a place for one number.
        unsafe { size.write(bytes) };
    }
    at
}
