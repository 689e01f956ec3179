//! `mitosis prepare PID`: a signal, and a talk over a socket (`mitosis::wire::preload`).
//!
//! All of it runs in the handler, on whichever thread took the signal: in whole-process mode that thread's
//! context is as good as any other's, in children it returns from this handler as it does here.
#![allow(unsafe_code)]

use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::{Duration, Instant};

use mitosis::client::{AgentAddress, may_ask};
use mitosis::prepare::Refuse;
use mitosis::wire::frame;
use mitosis::wire::preload::{Answer, Ask, Heard, MAGIC, VERSION, socket_name};

use crate::preparing::{Outcome, Wanted, whole_process};
use crate::program::resumed_from_outside;
use crate::{raw, stack};

/// Who asks is there already: this bounds a stopped one.
const TALK_PATIENCE: Duration = Duration::from_secs(1);

/// What stood before the handler: SIG_DFL or SIG_IGN.
static BEFORE: AtomicUsize = AtomicUsize::new(libc::SIG_DFL);

/// Listens to `signal`, unless somebody does already.
pub(crate) fn listen_to(signal: i32) -> bool {
    // SAFETY: sigaction is plain data; the handler may run at any moment, see below.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        if libc::sigaction(signal, std::ptr::null(), &raw mut old) != 0
            || ![libc::SIG_DFL, libc::SIG_IGN].contains(&old.sa_sigaction)
        {
            return false;
        }
        BEFORE.store(old.sa_sigaction, SeqCst);
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = on_signal as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        libc::sigfillset(&raw mut action.sa_mask);
        libc::sigaction(signal, &raw const action, std::ptr::null_mut()) == 0
    }
}

extern "C" fn on_signal(signal: i32, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    let _errno = raw::Errno::keep();
    // SAFETY: the kernel's siginfo of this signal; a queued one has a value.
    let (code, value) = unsafe { ((*info).si_code, (*info).si_value().sival_ptr as usize as u64) };
    if code != libc::SI_QUEUE || value >> 32 != u64::from(MAGIC) {
        return as_before(signal);
    }
    let nonce = u32::try_from(value & u64::from(u32::MAX)).unwrap_or(0);
    // Without memory for a stack nobody answers; the asker's deadline tells.
    let _ = stack::run_apart(|| {
        // Who asked has gone, or is not allowed to: then nothing happens.
        let _ = serve(nonce);
    });
}

/// A signal that is not meant for us does what it would have done.
fn as_before(signal: i32) {
    if BEFORE.load(SeqCst) != libc::SIG_DFL {
        return;
    }
    // SAFETY: the default action, as if we had never been here; it takes effect when this handler returns.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::syscall(libc::SYS_tgkill, raw::process_id(), libc::gettid(), signal);
    }
}

fn serve(nonce: u32) -> io::Result<()> {
    let began = Instant::now();
    let mut stream = connect(nonce)?;
    frame::write(&mut stream, &Heard { version: VERSION }).map_err(io::Error::other)?;
    let ask: Ask = frame::read(&mut stream).map_err(io::Error::other)?;
    // Not open while the process is copied.
    drop(stream);
    let wanted = Wanted {
        agent: AgentAddress(ask.agent.into()),
        shared_copy_limit: ask.shared_copy_limit,
        stop_threads: Duration::from_millis(ask.stop_threads_ms),
        refuse: Refuse::from_bits(ask.refuse).ok_or(io::ErrorKind::InvalidData)?,
    };
    let answer = match whole_process(&wanted) {
        Ok(Outcome::Child(resumed)) => {
            resumed_from_outside(resumed);
            return Ok(());
        }
        Ok(Outcome::Parent(seed)) => {
            let taken_ns = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            Answer::Prepared { token: *seed.token(), taken_ns }
        }
        Err(failure) => Answer::Failed(failure),
    };
    frame::write(&mut connect(nonce)?, &answer).map_err(io::Error::other)
}

fn connect(nonce: u32) -> io::Result<UnixStream> {
    let stream = UnixStream::connect_addr(&SocketAddr::from_abstract_name(socket_name(nonce))?)?;
    if !may_ask(&stream) {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    stream.set_read_timeout(Some(TALK_PATIENCE))?;
    stream.set_write_timeout(Some(TALK_PATIENCE))?;
    Ok(stream)
}
