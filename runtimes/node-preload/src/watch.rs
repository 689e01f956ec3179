//! Preparing at a moment that was named at start (`MITOSIS_PREPARE_WHEN`): a thread waits for it, prepares
//! and ends, in the program as in children. There is none where no moment was named, nor in what the program
//! forks.
#![allow(unsafe_code)]

use std::env;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::path::PathBuf;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use mitosis::client::{ClientError, When};

use crate::preparing::{Outcome, Wanted, whole_process};
use crate::program::resumed_from_outside;
use crate::{raw, seccomp, told};

/// Between looks for a file or a port.
const PAUSE: Duration = Duration::from_millis(20);
/// After listen(2): a runtime tells its program that it listens, and may bind a second socket.
const SETTLE: Duration = Duration::from_millis(100);
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);
/// The deepest that anything of ours goes is one prepare.
const STACK_BYTES: usize = 512 << 10;

/// The process that waits for its first listen(2); 0: none.
static WAITS_TO_LISTEN: AtomicI32 = AtomicI32::new(0);
/// Set by [`on_signal`]; a futex.
static SIGNALLED: AtomicU32 = AtomicU32::new(0);

/// Prepares this process at that moment.
pub(crate) fn wait_for(when: When) {
    match when {
        // The thread starts when it has something to do.
        When::Listen => WAITS_TO_LISTEN.store(raw::process_id(), SeqCst),
        When::File(path) => start(move || until(|| fs::metadata(&path).is_ok())),
        When::Port(port) => start(move || until(|| answers(port))),
        When::Signal(signal) if catches(signal) => start(wait_for_signal),
        When::Signal(signal) => told::line(&format!(
            "signal {signal} is in use already; the program is not prepared by it"
        )),
    }
}

/// The program has called listen(2).
pub(crate) fn has_listened() {
    let own = raw::process_id();
    if WAITS_TO_LISTEN.compare_exchange(own, 0, SeqCst, SeqCst).is_ok() {
        start(|| thread::sleep(SETTLE));
    }
}

/// A thread that waits, prepares and ends. No signal of the program's is ever taken by it.
fn start(wait: impl FnOnce() + Send + 'static) {
    let _errno = raw::Errno::keep();
    let _held = raw::Held::all();
    let work = move || {
        wait();
        prepare();
    };
    let builder = thread::Builder::new().name("mitosis".to_owned()).stack_size(STACK_BYTES);
    if let Err(error) = builder.spawn(work) {
        told::line(&format!("the program is not prepared, as no thread can be started ({error})"));
    }
}

fn prepare() {
    let file = env::var_os(told::HANDLE_FILE_VARIABLE).filter(|file| !file.is_empty());
    let file = file.map(PathBuf::from);
    if let Some(why) = seccomp::in_the_way() {
        return told::line(&why);
    }
    let failed = |why: &dyn std::fmt::Display| {
        told::line(&format!("the program goes on unprepared: {why}"));
    };
    match whole_process(&Wanted::here()) {
        Ok(Outcome::Child(resumed)) => resumed_from_outside(resumed),
        Ok(Outcome::Parent(seed)) => match seed.handle() {
            Ok(handle) => told::handle(&handle, file.as_deref()),
            Err(ClientError::Failed(failure)) => failed(&failure),
            Err(error) => failed(&error),
        },
        Err(failure) => failed(&failure),
    }
}

fn until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        thread::sleep(PAUSE);
    }
}

/// A connection to a port that nobody has may be given that port itself, and then is its own peer.
fn answers(port: u16) -> bool {
    let here = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()];
    let other = |stream: TcpStream| stream.local_addr().is_ok_and(|own| own.port() != port);
    here.iter()
        .any(|address| TcpStream::connect_timeout(address, CONNECT_PATIENCE).is_ok_and(other))
}

/// Takes `signal` unless the program was started with an action for it.
fn catches(signal: i32) -> bool {
    // SAFETY: sigaction is plain data; the handler wakes a futex and touches nothing else.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, ptr::null(), &raw mut old) != 0
            || old.sa_sigaction != libc::SIG_DFL
        {
            return false;
        }
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigaction(signal, &raw const action, ptr::null_mut()) == 0
    }
}

extern "C" fn on_signal(_: i32) {
    let _errno = raw::Errno::keep();
    SIGNALLED.store(1, SeqCst);
    // SAFETY: a live word; waking nobody does no harm.
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            SIGNALLED.as_ptr(),
            libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG,
            1,
        )
    };
}

/// One prepare for all signals until it is done.
fn wait_for_signal() {
    while SIGNALLED.swap(0, SeqCst) == 0 {
        let none = ptr::null::<libc::timespec>();
        let wait = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
        // SAFETY: a live word, no time limit.
        unsafe { libc::syscall(libc::SYS_futex, SIGNALLED.as_ptr(), wait, 0, none) };
    }
}
