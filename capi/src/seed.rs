//! The seed as C holds it.

use std::ffi::{c_char, c_int};
use std::mem;
use std::sync::OnceLock;

use mitosis_core::client::{self, ClientError};
use mitosis_core::wire::local::{DropMode, FailureKind};
use zeroize::Zeroizing;

use crate::boundary::{boundary, not_null};
use crate::error::{Failed, MITOSIS_OK, MitosisErr};
use crate::process::Process;

/// A seed: a frozen copy of this process, which outlives this object.
#[derive(Debug)]
pub struct Seed {
    /// `None` once it is dropped.
    seed: Option<client::Seed>,
    /// With its zero byte; wiped when freed, for it holds the key.
    handle: OnceLock<Zeroizing<Vec<u8>>>,
    maker: Process,
}

impl Seed {
    pub(crate) fn for_c(seed: client::Seed) -> *mut Seed {
        let maker = Process::current();
        Box::into_raw(Box::new(Seed { seed: Some(seed), handle: OnceLock::new(), maker }))
    }

    fn live(&self) -> Result<&client::Seed, Failed> {
        self.maker.check("seed")?;
        self.seed.as_ref().ok_or_else(dropped)
    }
}

fn dropped() -> Failed {
    Failed::new(MitosisErr::SeedGone, "this seed has been dropped: free it and prepare another")
}

/// How mitosis_seed_drop() ends a seed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub enum MitosisDrop {
    /// No new children; the seed ends after its last one.
    AfterChildren = 0,
    /// The seed's pages cannot be had from now on; children that touch a missing one get SIGBUS.
    Revoke = 1,
}

/// Waits until the agent has published the seed, and tells its handle.
///
/// The handle gives the right to fork this process: hand it on as you would a password. Several threads
/// may ask at once.
///
/// seed:   from mitosis_prepare(), in the process that called it.
/// handle: receives text that belongs to the seed and is valid until mitosis_seed_free().
///
/// RETURN VALUE: MITOSIS_OK, or a negative code.
///
/// ERRORS:
/// MITOSIS_ERR_NULL           seed or handle is NULL.
/// MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that called mitosis_prepare().
/// MITOSIS_ERR_NOT_FORKABLE   the process cannot be a seed; the message names what stands in the way.
/// MITOSIS_ERR_SEED_GONE      the seed has been dropped, or has ended.
/// MITOSIS_ERR_LIMIT          a limit is reached.
/// MITOSIS_ERR_NO_AGENT, MITOSIS_ERR_AGENT_CLOSED, MITOSIS_ERR_AGENT_SILENT, MITOSIS_ERR_CONNECTION,
/// MITOSIS_ERR_PROTOCOL       the agent could not be asked.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_seed_handle(
    seed: *const Seed,
    handle: *mut *const c_char,
) -> c_int {
    boundary(|| {
        let (seed, handle) = (not_null!(seed), not_null!(handle));
        // SAFETY: C's: a seed of ours that no other thread drops or frees meanwhile.
        let seed: &Seed = unsafe { seed.as_ref() };
        let live = seed.live()?;
        let text = match seed.handle.get() {
            Some(text) => text,
            None => {
                let mut text = live.handle()?.reveal().into_bytes();
                text.push(0);
                seed.handle.get_or_init(|| Zeroizing::new(text))
            }
        };
        // SAFETY: C's: a place for one pointer.
        unsafe { handle.write(text.as_ptr().cast()) };
        Ok(MITOSIS_OK)
    })
}

/// Tells how long the other threads of this process stood still for the seed.
///
/// seed:       from mitosis_prepare() with MITOSIS_PREPARE_ALL_THREADS, in the process that called it.
/// whole_ns:   receives nanoseconds from the first thread that was asked until all were let go; or NULL.
/// parking_ns: receives how many of these passed until the last thread stood; or NULL.
///
/// RETURN VALUE: MITOSIS_OK, or a negative code.
///
/// ERRORS:
/// MITOSIS_ERR_NULL           seed is NULL.
/// MITOSIS_ERR_ARGUMENT       no thread stood still: the seed is of the caller's alone.
/// MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that called mitosis_prepare().
/// MITOSIS_ERR_SEED_GONE      the seed has been dropped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_seed_pause(
    seed: *const Seed,
    whole_ns: *mut u64,
    parking_ns: *mut u64,
) -> c_int {
    boundary(|| {
        let seed = not_null!(seed);
        // SAFETY: C's: a seed of ours that no other thread drops or frees meanwhile.
        let seed: &Seed = unsafe { seed.as_ref() };
        let Some(pause) = seed.live()?.pause() else {
            let message = "no thread stood still: prepare with MITOSIS_PREPARE_ALL_THREADS";
            return Err(Failed::new(MitosisErr::Argument, message.to_owned()));
        };
        for (place, time) in [(whole_ns, pause.whole), (parking_ns, pause.parking)] {
            if !place.is_null() {
                // SAFETY: C's: a place for one u64.
                unsafe { place.write(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)) };
            }
        }
        Ok(MITOSIS_OK)
    })
}

/// Ends the seed. Once it has returned MITOSIS_OK or MITOSIS_ERR_SEED_GONE, only mitosis_seed_free() is of use;
/// after any other code the seed is as before. No other thread may use the seed at the same time.
///
/// seed: from mitosis_prepare(), in the process that called it.
/// how:  MITOSIS_DROP_AFTER_CHILDREN or MITOSIS_DROP_REVOKE.
///
/// RETURN VALUE: MITOSIS_OK, or a negative code.
///
/// ERRORS:
/// MITOSIS_ERR_NULL           seed is NULL.
/// MITOSIS_ERR_ARGUMENT       how is neither.
/// MITOSIS_ERR_OTHER_PROCESS  this process is a fork of the one that called mitosis_prepare().
/// MITOSIS_ERR_SEED_GONE      it has been dropped before, or has ended.
/// MITOSIS_ERR_NO_AGENT, MITOSIS_ERR_AGENT_CLOSED
///                            the agent is gone; the next one may have the seed: drop it again.
/// MITOSIS_ERR_AGENT_SILENT, MITOSIS_ERR_CONNECTION, MITOSIS_ERR_PROTOCOL
///                            the agent could not be asked: the seed may live on; drop it again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_seed_drop(seed: *mut Seed, how: c_int) -> c_int {
    const AFTER_CHILDREN: c_int = MitosisDrop::AfterChildren as c_int;
    const REVOKE: c_int = MitosisDrop::Revoke as c_int;
    boundary(|| {
        let mut seed = not_null!(seed);
        // SAFETY: C's: a seed of ours that no other thread uses.
        let seed: &mut Seed = unsafe { seed.as_mut() };
        seed.maker.check("seed")?;
        let how = match how {
            AFTER_CHILDREN => DropMode::AfterChildren,
            REVOKE => DropMode::Revoke,
            other => {
                let message = format!("{other} is no way to drop a seed: see MITOSIS_DROP_*");
                return Err(Failed::new(MitosisErr::Argument, message));
            }
        };
        let outcome = seed.seed.as_ref().ok_or_else(dropped)?.drop_seed(how);
        let is_gone = |error: &ClientError| error.kind() == FailureKind::SeedGone;
        if outcome.as_ref().err().is_none_or(is_gone) {
            seed.seed = None;
        }
        outcome?;
        Ok(MITOSIS_OK)
    })
}

/// Frees the object. The seed itself lives on unless it was dropped. Allowed in a fork of the process
/// that made it, too.
///
/// seed: NULL does nothing. A pointer that has been freed must not be freed again, as with free(3).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_seed_free(seed: *mut Seed) {
    boundary(|| {
        let Some(seed) = std::ptr::NonNull::new(seed) else { return Ok(0) };
        // SAFETY: C's: it came from `for_c` and is not used again.
        let seed = unsafe { Box::from_raw(seed.as_ptr()) };
        if !seed.maker.shares_descriptors() {
            mem::forget(seed);
        }
        Ok(0)
    });
}
