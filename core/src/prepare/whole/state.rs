//! What a thread is beside its registers: asked by the thread itself, with raw system calls.

use super::table::Table;
use crate::descriptor::{self, Sched};
use crate::prepare::report::{ReportWriter, tag};
use crate::prepare::{credentials, kept};
use crate::sys::rawcall::rawcall;

const PR_GET_TID_ADDRESS: i32 = 40;
const ARCH_GET_FS: i32 = 0x1003;
const ARCH_GET_GS: i32 = 0x1004;
const RSEQ_FLAG_UNREGISTER: i32 = 1;
const RSEQ_SIGNATURE: u32 = 0x5305_3053;

/// One thread.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(in crate::prepare) struct ThreadState {
    tid: u64,
    tid_address: u64,
    frame: u64,
    fs_base: u64,
    gs_base: u64,
    robust: [u64; 2],
    /// Address and length; zeros: none.
    rseq: [u64; 2],
    /// Base, flags, size.
    alt_stack: [u64; 3],
    sched: Sched,
    kept: descriptor::ThreadState,
    /// PR_SET_TSC, which is not carried.
    pub(super) faults_on_time_stamps: bool,
    /// Signals that are pending for it or its process.
    pub(super) pending: u64,
    /// Those that it blocks.
    pub(super) blocked: u64,
    /// Equal for threads of the same credentials.
    credentials: u64,
    name: [u8; 16],
}

impl ThreadState {
    /// Of the calling thread, whose signal frame is `context`; null: it has none yet.
    ///
    /// # Safety
    /// `context` is null or what the kernel gave a handler of this thread.
    pub(super) unsafe fn of_this_thread(table: &Table, context: *const libc::ucontext_t) -> Self {
        let (mut fs_base, mut gs_base, mut tid_address) = (0u64, 0u64, 0u64);
        let mut robust = [0u64; 2];
        let mut name = [0u8; 16];
        // SAFETY: a frame is the caller's, and its mask has eight bytes at least.
        let blocked = unsafe {
            context
                .as_ref()
                .map_or(0, |context| (&raw const context.uc_sigmask).cast::<u64>().read())
        };
        // SAFETY: each call writes to a live local of the size that it expects; a frame is the caller's.
        let (tid, alt) = unsafe {
            let [head, len_of] = robust.each_mut().map(|word| &raw mut *word);
            rawcall!(libc::SYS_arch_prctl, ARCH_GET_FS, &raw mut fs_base);
            rawcall!(libc::SYS_arch_prctl, ARCH_GET_GS, &raw mut gs_base);
            rawcall!(libc::SYS_prctl, PR_GET_TID_ADDRESS, &raw mut tid_address);
            rawcall!(libc::SYS_get_robust_list, 0, head, len_of);
            rawcall!(libc::SYS_prctl, libc::PR_GET_NAME, name.as_mut_ptr());
            let alt = match context.as_ref() {
                // What stood before the kernel took it for this handler.
                Some(context) => context.uc_stack,
                None => {
                    let mut alt: libc::stack_t = std::mem::zeroed();
                    rawcall!(libc::SYS_sigaltstack, 0, &raw mut alt);
                    alt
                }
            };
            (rawcall!(libc::SYS_gettid), alt)
        };
        ThreadState {
            tid: tid.unsigned_abs() as u64,
            tid_address,
            frame: context as usize as u64,
            fs_base,
            gs_base,
            robust,
            rseq: rseq(table, fs_base),
            alt_stack: [
                alt.ss_sp as usize as u64,
                u64::from(alt.ss_flags.cast_unsigned()),
                alt.ss_size as u64,
            ],
            sched: kept::sched_of_this_thread(),
            kept: descriptor::ThreadState {
                // SAFETY: a frame is the caller's.
                has_tiles: match unsafe { context.as_ref() } {
                    // SAFETY: the same.
                    Some(context) => unsafe { kept::has_tiles(context) },
                    None => kept::may_use_tiles(),
                },
                ..kept::of_this_thread()
            },
            faults_on_time_stamps: kept::faults_on_time_stamps(),
            pending: pending(),
            blocked,
            credentials: credentials::digest(),
            name,
        }
    }

    /// Its id.
    pub(in crate::prepare) fn tid(&self) -> u64 {
        self.tid
    }

    /// Whether it may do what `other` may.
    pub(in crate::prepare) fn is_as(&self, other: &ThreadState) -> bool {
        self.credentials == other.credentials
    }

    /// Its two records; `frame` if it is not known yet.
    pub(in crate::prepare) fn report(&self, writer: &mut ReportWriter<'_>, frame: Option<u64>) {
        let [alt_base, alt_flags, alt_size] = self.alt_stack;
        let signature = if self.rseq[0] == 0 { 0 } else { u64::from(RSEQ_SIGNATURE) };
        let numbers = [
            self.tid,
            self.tid_address,
            frame.unwrap_or(self.frame),
            self.fs_base,
            self.gs_base,
            self.robust[0],
            self.robust[1],
            self.rseq[0],
            self.rseq[1],
            signature,
            alt_base,
            alt_flags,
            alt_size,
            0,
        ];
        let len = self.name.iter().position(|byte| *byte == 0).unwrap_or(self.name.len());
        writer.record(tag::THREAD, &numbers, &self.name[..len]);
        let Sched { policy, priority, nice, flags } = self.sched;
        let nice = i64::from(nice).cast_unsigned();
        let numbers = [self.tid, u64::from(policy), u64::from(priority), nice, flags];
        writer.record(tag::SCHED, &numbers, &[]);
        kept::report_thread(writer, self.kept);
    }
}

/// What is pending for the calling thread or its process.
pub(super) fn pending() -> u64 {
    let mut set = 0u64;
    // SAFETY: the kernel fills eight bytes.
    unsafe { rawcall!(libc::SYS_rt_sigpending, &raw mut set, 8usize) };
    set
}

/// The registration of this thread: the kernel is asked to end it with a wrong signature, which it refuses
/// as EPERM where everything else is right, and changes nothing.
fn rseq(table: &Table, fs_base: u64) -> [u64; 2] {
    use std::sync::atomic::Ordering::SeqCst;
    let offset = table.rseq_offset.load(SeqCst);
    if offset == 0 {
        return [0; 2];
    }
    let area = fs_base.wrapping_add_signed(offset);
    for len in &table.rseq_lengths {
        let len = len.load(SeqCst);
        let (how, signature) = (RSEQ_FLAG_UNREGISTER, !RSEQ_SIGNATURE);
        // SAFETY: refused whatever is registered.
        let answer = unsafe { rawcall!(libc::SYS_rseq, area, len, how, signature) };
        if len != 0 && answer == -(libc::EPERM as isize) {
            return [area, u64::from(len)];
        }
    }
    [0; 2]
}
