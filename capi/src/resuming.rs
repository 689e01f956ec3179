//! Children of a seed, for programs that have an event loop: asked for, waited for by a descriptor, taken.

use std::ffi::{c_char, c_int};
use std::mem;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::{self, NonNull};
use std::time::Duration;

use mitosis_core::client::{self, resume_start};

use crate::boundary::{boundary, not_null};
use crate::child::Child;
use crate::error::{Failed, MITOSIS_OK, MitosisErr};
use crate::process::Process;
use crate::resume::{ResumeOptions, asked, clear, hand_over};

/// A resume that is under way. One thread uses it at a time.
#[derive(Debug)]
pub struct Resuming {
    /// Until it is finished.
    resuming: Option<client::Resuming>,
    count: u32,
    maker: Process,
}

/// Asks for children of a seed and does not wait for them. It tells the agent of this host, which takes some microseconds
/// unless that agent has been stopped.
///
/// Poll mitosis_resume_fd(), then call mitosis_resume_finish(), then mitosis_resume_free().
///
/// handle:   of the seed, from mitosis_seed_handle().
/// options:  NULL for the defaults.
/// count:    how many children, 1 to 10,000.
/// resuming: receives the resume, or NULL on failure.
///
/// RETURN VALUE: MITOSIS_OK, or a negative code.
///
/// ERRORS:
/// MITOSIS_ERR_NULL           handle or resuming is NULL, or payload is with a payload_size.
/// MITOSIS_ERR_HANDLE         handle is no handle.
/// MITOSIS_ERR_ARGUMENT       as of mitosis_resume(), but for places to listen.
/// MITOSIS_ERR_NO_AGENT, MITOSIS_ERR_CONNECTION
///                            the agent of this host could not be asked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_resume_start(
    handle: *const c_char,
    options: *const ResumeOptions,
    count: u32,
    resuming: *mut *mut Resuming,
) -> c_int {
    boundary(|| {
        let resuming = not_null!(resuming);
        // SAFETY: C's: a place for a pointer.
        unsafe { resuming.write(ptr::null_mut()) };
        // SAFETY: C's, for each pointer.
        let (agent, options) = unsafe { asked(handle, options, count)? };
        let started = Some(resume_start(&agent, options)?);
        let made = Resuming { resuming: started, count, maker: Process::current() };
        // SAFETY: as above.
        unsafe { resuming.write(Box::into_raw(Box::new(made))) };
        Ok(MITOSIS_OK)
    })
}

/// A descriptor for poll(2) and its like, which becomes readable (POLLIN) when mitosis_resume_finish() need not wait.
///
/// resuming: from mitosis_resume_start(), in the process that called it, not finished yet.
///
/// RETURN VALUE: a descriptor that belongs to the resume (do not read or close it) until mitosis_resume_finish() has
/// answered for it or mitosis_resume_free(), or a negative code.
///
/// ERRORS:
/// MITOSIS_ERR_NULL           resuming is NULL.
/// MITOSIS_ERR_ARGUMENT       it is finished.
/// MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that started it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_resume_fd(resuming: *const Resuming) -> c_int {
    boundary(|| {
        let resuming = not_null!(resuming);
        // SAFETY: C's: one of ours that no other thread uses.
        let resuming: &Resuming = unsafe { resuming.as_ref() };
        Ok(resuming.under_way()?.as_fd().as_raw_fd())
    })
}

/// Takes the children of a resume, or the reason why there are none. All of them are started, or none.
///
/// resuming:   from mitosis_resume_start(), in the process that called it, not finished yet.
/// timeout_ms: how long to wait at most for an answer; 0: not at all; negative: as long as the agent may take.
/// children:   an array with room for as many pointers as children were asked for, which receives them in the order of
///             their mitosis_child_index(), or NULLs on failure. Free each with mitosis_child_free().
///
/// RETURN VALUE: MITOSIS_OK, or a negative code. But for MITOSIS_ERR_TIMEOUT, MITOSIS_ERR_NULL and
/// MITOSIS_ERR_OTHER_PROCESS the resume is finished then, and good for mitosis_resume_free() alone.
///
/// ERRORS:
/// MITOSIS_ERR_TIMEOUT        there is no answer yet.
/// MITOSIS_ERR_NULL           resuming or children is NULL.
/// MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that started it.
/// MITOSIS_ERR_ARGUMENT       it was finished before; a place to listen that the seed has not or that is taken.
/// MITOSIS_ERR_AGENT_CLOSED, MITOSIS_ERR_AGENT_SILENT, MITOSIS_ERR_CONNECTION
///                            the agent of this host has not answered.
/// MITOSIS_ERR_SEED_GONE, MITOSIS_ERR_KEY_REFUSED, MITOSIS_ERR_HOST_UNFIT, MITOSIS_ERR_UNREACHABLE, MITOSIS_ERR_SECRET,
/// MITOSIS_ERR_PROTOCOL, MITOSIS_ERR_LIMIT, MITOSIS_ERR_MISSING
///                            as of mitosis_resume().
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_resume_finish(
    resuming: *mut Resuming,
    timeout_ms: i64,
    children: *mut *mut Child,
) -> c_int {
    boundary(|| {
        let (mut resuming, children) = (not_null!(resuming), not_null!(children));
        // SAFETY: C's: one of ours that no other thread uses.
        let resuming: &mut Resuming = unsafe { resuming.as_mut() };
        // SAFETY: C's: room for that many pointers.
        unsafe { clear(children, resuming.count) };
        let under_way = resuming.under_way()?;
        if let Ok(ms) = u64::try_from(timeout_ms)
            && !under_way.is_answered(Duration::from_millis(ms)).map_err(client::ClientError::Io)?
        {
            let message = format!("the resume has not been answered within {timeout_ms} ms");
            return Err(Failed::new(MitosisErr::Timeout, message));
        }
        let answered = resuming.resuming.take().ok_or_else(finished)?;
        // SAFETY: as above.
        unsafe { hand_over(answered.finish()?, children, resuming.count) }
    })
}

/// Frees the object. If it is not finished the resume is given up: children that this host has not started then are
/// not started any more, and those that are go on; another host may start them still. Allowed in a fork of the process that made it, too.
///
/// resuming: NULL does nothing. A pointer that has been freed must not be freed again, as with free(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_resume_free(resuming: *mut Resuming) {
    boundary(|| {
        let Some(resuming) = NonNull::new(resuming) else { return Ok(0) };
        // SAFETY: C's: it came from mitosis_resume_start and is not used again.
        let resuming = unsafe { Box::from_raw(resuming.as_ptr()) };
        if !resuming.maker.shares_descriptors() {
            // Closing its descriptor would close another file.
            mem::forget(resuming);
        }
        Ok(0)
    });
}

impl Resuming {
    fn under_way(&self) -> Result<&client::Resuming, Failed> {
        self.maker.check("resume")?;
        self.resuming.as_ref().ok_or_else(finished)
    }
}

fn finished() -> Failed {
    Failed::new(MitosisErr::Argument, "this resume is finished: free it")
}
