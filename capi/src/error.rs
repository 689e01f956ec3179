//! Error numbers, their short texts, and the message of a thread's last failure.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int};

use mitosis_core::client::{ClientError, ForkError};
use mitosis_core::id::HandleError;
use mitosis_core::prepare::PrepareError;
use mitosis_core::wire::local::FailureKind;

use crate::text::for_c;

/// What a function returns that has nothing else to tell.
pub const MITOSIS_OK: c_int = 0;

/// What a function that fails returns. A number keeps its meaning for ever; later versions add numbers,
/// so treat one that you do not know as a failure of its own kind.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MitosisErr {
    /// A defect of libmitosis: please report it with its message. Any function may return it.
    Panic = -1,
    /// A pointer that must not be NULL is NULL; the message names it.
    Null = -2,
    /// An argument cannot be right; the message says which and why.
    Argument = -3,
    /// The text is no handle: it must read `mitosis://HOST:PORT/SEED#KEY`.
    Handle = -4,
    /// The object was made by another process, of which this one is a fork.
    OtherProcess = -5,
    /// The time is over; nothing has happened.
    Timeout = -6,
    /// Something else, in an agent as a rule; the message tells. Any function that asks an agent may return it.
    Internal = -7,

    /// No agent listens on this host: start one with `mitosis agent`, or set MITOSIS_AGENT to its socket.
    NoAgent = -20,
    /// The agent closed the connection: it was stopped, or its log says why.
    AgentClosed = -21,
    /// The agent did not answer in time: its log may say why.
    AgentSilent = -22,
    /// No agent of this process's own could be started; the message repeats what it said.
    AgentStart = -23,
    /// The connection to the agent failed otherwise (descriptors or memory exhausted).
    Connection = -24,
    /// Agent and library, or the two agents, are of versions that do not understand each other.
    Protocol = -25,

    /// The seed is gone: dropped, ended, or never there.
    SeedGone = -40,
    /// The key of the handle is wrong or missing: copy the handle whole. Or the agent does not do that
    /// for this user; the message says what.
    KeyRefused = -41,
    /// This process cannot be a seed; the message names what stands in the way.
    NotForkable = -42,
    /// The host cannot run the seed: another architecture, fewer CPU features, a file that differs.
    HostUnfit = -43,
    /// The other host does not answer.
    Unreachable = -44,
    /// The cluster secret is missing on one host, or differs.
    Secret = -45,
    /// A limit is reached; the message names it.
    Limit = -46,
    /// The host lacks /dev/fuse, a capability or a kernel feature.
    Missing = -47,
    /// The child is gone.
    ChildGone = -48,

    /// Another thread has been preparing for too long: a fork handler of some library hangs.
    Busy = -60,
    /// The kernel offers no syscall user dispatch: allow it, or set MITOSIS_PREPARE_ALLOW_VISIBLE_SEED.
    NoDispatch = -61,
    /// A library's fork handler kept the seed from being hidden from wait(2).
    SeedVisible = -62,
    /// Shared memory that cannot be copied; the message names the mapping.
    SharedMemory = -63,
    /// No memory for the seed's description.
    NoMemory = -64,
    /// fork(2) failed.
    Fork = -65,
    /// libc has no memory to register fork handlers.
    ForkHandlers = -66,
    /// The other threads could not be stopped, for MITOSIS_PREPARE_ALL_THREADS; the message names the thread.
    Threads = -67,
    /// A function of mitosis_before_prepare() or mitosis_after_prepare() failed; the message names it.
    Hook = -68,
}

use MitosisErr as Code;

impl Code {
    const ALL: [Code; 31] = [
        Code::Panic,
        Code::Null,
        Code::Argument,
        Code::Handle,
        Code::OtherProcess,
        Code::Timeout,
        Code::Internal,
        Code::NoAgent,
        Code::AgentClosed,
        Code::AgentSilent,
        Code::AgentStart,
        Code::Connection,
        Code::Protocol,
        Code::SeedGone,
        Code::KeyRefused,
        Code::NotForkable,
        Code::HostUnfit,
        Code::Unreachable,
        Code::Secret,
        Code::Limit,
        Code::Missing,
        Code::ChildGone,
        Code::Busy,
        Code::NoDispatch,
        Code::SeedVisible,
        Code::SharedMemory,
        Code::NoMemory,
        Code::Fork,
        Code::ForkHandlers,
        Code::Threads,
        Code::Hook,
    ];

    pub(crate) fn number(self) -> c_int {
        self as c_int
    }

    fn text(self) -> &'static CStr {
        match self {
            Code::Panic => c"libmitosis has a defect",
            Code::Null => c"a pointer is NULL",
            Code::Argument => c"an argument cannot be right",
            Code::Handle => c"the text is no handle",
            Code::OtherProcess => c"the object was made by another process",
            Code::Timeout => c"the time is over",
            Code::Internal => c"something else failed",
            Code::NoAgent => c"no mitosis agent listens on this host",
            Code::AgentClosed => c"the mitosis agent closed the connection",
            Code::AgentSilent => c"the mitosis agent did not answer in time",
            Code::AgentStart => c"no mitosis agent could be started",
            Code::Connection => c"the connection to the mitosis agent failed",
            Code::Protocol => c"versions do not understand each other",
            Code::SeedGone => c"the seed is gone",
            Code::KeyRefused => c"the key of the handle is wrong",
            Code::NotForkable => c"this process cannot be a seed",
            Code::HostUnfit => c"the host cannot run the seed",
            Code::Unreachable => c"the other host does not answer",
            Code::Secret => c"the cluster secret is missing or differs",
            Code::Limit => c"a limit is reached",
            Code::Missing => c"the host lacks something that mitosis needs",
            Code::ChildGone => c"the child is gone",
            Code::Busy => c"another thread is preparing",
            Code::NoDispatch => c"the kernel offers no syscall user dispatch",
            Code::SeedVisible => c"the seed could not be hidden from wait()",
            Code::SharedMemory => c"shared memory cannot be copied",
            Code::NoMemory => c"no memory for the seed's description",
            Code::Fork => c"fork() failed",
            Code::ForkHandlers => c"fork handlers could not be registered",
            Code::Threads => c"the other threads could not be stopped",
            Code::Hook => c"a hook failed",
        }
    }
}

/// Why a function fails.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) code: Code,
    pub(crate) message: String,
}

impl Failed {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Failed { code, message: message.into() }
    }

    pub(crate) fn null(argument: &str) -> Self {
        Failed::new(Code::Null, format!("the argument '{argument}' must not be NULL"))
    }
}

impl From<FailureKind> for Code {
    fn from(kind: FailureKind) -> Self {
        match kind {
            FailureKind::SeedGone => Code::SeedGone,
            FailureKind::KeyRefused => Code::KeyRefused,
            FailureKind::NotForkable => Code::NotForkable,
            FailureKind::HostUnfit => Code::HostUnfit,
            FailureKind::Unreachable => Code::Unreachable,
            FailureKind::Secret => Code::Secret,
            FailureKind::Protocol => Code::Protocol,
            FailureKind::Argument => Code::Argument,
            FailureKind::Limit => Code::Limit,
            FailureKind::Missing => Code::Missing,
            FailureKind::ChildGone => Code::ChildGone,
            _ => Code::Internal,
        }
    }
}

fn client_code(error: &ClientError) -> Code {
    match error {
        ClientError::NoAgent { .. } => Code::NoAgent,
        ClientError::Closed { .. } => Code::AgentClosed,
        ClientError::Silent { .. } => Code::AgentSilent,
        ClientError::Embedded(_) => Code::AgentStart,
        ClientError::Io(_) => Code::Connection,
        // The agent's own word on it, and kinds that a later core adds.
        other => other.kind().into(),
    }
}

fn prepare_code(error: &PrepareError) -> Code {
    match error {
        PrepareError::Agent(error) => client_code(error),
        PrepareError::Busy => Code::Busy,
        PrepareError::NoDispatch => Code::NoDispatch,
        PrepareError::SeedVisible(_) => Code::SeedVisible,
        PrepareError::SharedMemory(_) => Code::SharedMemory,
        PrepareError::Scratch(_) => Code::NoMemory,
        PrepareError::Fork(_) => Code::Fork,
        PrepareError::Register => Code::ForkHandlers,
        PrepareError::Stop(_) => Code::Threads,
        other => other.kind().into(),
    }
}

impl From<ClientError> for Failed {
    fn from(error: ClientError) -> Self {
        Failed::new(client_code(&error), error.to_string())
    }
}

impl From<PrepareError> for Failed {
    fn from(error: PrepareError) -> Self {
        Failed::new(prepare_code(&error), error.to_string())
    }
}

impl From<ForkError> for Failed {
    fn from(error: ForkError) -> Self {
        let code = match &error {
            ForkError::Prepare(error) => prepare_code(error),
            ForkError::Client(error) => client_code(error),
            other => other.kind().into(),
        };
        Failed::new(code, error.to_string())
    }
}

impl From<HandleError> for Failed {
    fn from(error: HandleError) -> Self {
        Failed::new(Code::Handle, error.to_string())
    }
}

thread_local! {
    static LAST: RefCell<CString> = RefCell::default();
}

/// Keeps the message for this thread. It is lost where a thread is so far gone that it has no locals.
pub(crate) fn remember(failed: Failed) -> Code {
    let message = for_c(failed.message);
    let _ = LAST.try_with(|last| last.replace(message));
    failed.code
}

#[cfg(test)]
pub(crate) fn last_message() -> String {
    LAST.with(|last| last.borrow().to_string_lossy().into_owned())
}

/// The message of this thread's last failure.
///
/// RETURN VALUE: UTF-8 text without a newline at its end: what failed, on what, and what to do. "" if no
/// function has failed on this thread. Never NULL. Valid until the next function fails on this thread, or
/// the thread ends. It is not cleared by success: look at it after a failure only.
#[unsafe(no_mangle)]
pub extern "C" fn mitosis_last_error_message() -> *const c_char {
    // No boundary: it would itself change the message, and nothing here panics.
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// The short text of an error number.
///
/// code: what a function has returned.
///
/// RETURN VALUE: static text, never NULL; "unknown error" for a number that this version does not know.
#[unsafe(no_mangle)]
pub extern "C" fn mitosis_strerror(code: c_int) -> *const c_char {
    if code == MITOSIS_OK {
        return c"no error".as_ptr();
    }
    let known = Code::ALL.into_iter().find(|known| known.number() == code);
    known.map_or(c"unknown error", Code::text).as_ptr()
}

/// The version of the library.
///
/// RETURN VALUE: static text "MAJOR.MINOR.PATCH", never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn mitosis_version() -> *const c_char {
    const VERSION: &CStr =
        match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(version) => version,
            Err(_) => c"",
        };
    VERSION.as_ptr()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::io;

    use mitosis_core::wire::local::Failure;

    use super::*;

    #[test]
    fn numbers_are_fixed() {
        let expected: Vec<c_int> =
            (-7..=-1).chain(-25..=-20).chain(-48..=-40).chain(-68..=-60).collect();
        let mut numbers: Vec<c_int> = Code::ALL.map(Code::number).into();
        numbers.sort_unstable();
        let mut sorted = expected.clone();
        sorted.sort_unstable();
        assert_eq!(numbers, sorted);
        assert_eq!(Code::Panic.number(), -1);
        assert_eq!(Code::NoAgent.number(), -20);
        assert_eq!(Code::Protocol.number(), -25);
        assert_eq!(Code::SeedGone.number(), -40);
        assert_eq!(Code::ChildGone.number(), -48);
        assert_eq!(Code::Busy.number(), -60);
        assert_eq!(Code::ForkHandlers.number(), -66);
        assert_eq!(Code::Threads.number(), -67);
        assert_eq!(Code::Hook.number(), -68);
        let texts: HashSet<&CStr> = Code::ALL.map(Code::text).into_iter().collect();
        assert_eq!(texts.len(), Code::ALL.len());
    }

    #[test]
    fn the_agents_word_keeps_its_kind_through_fork() {
        let failure = Failure { kind: FailureKind::KeyRefused, message: "wrong key".to_owned() };
        let failed = Failed::from(ForkError::Client(ClientError::Failed(failure)));
        assert_eq!((failed.code, &*failed.message), (Code::KeyRefused, "wrong key"));
        let error = io::Error::from_raw_os_error(libc::EAGAIN);
        assert_eq!(Failed::from(ForkError::Prepare(PrepareError::Fork(error))).code, Code::Fork);
        let none =
            ClientError::NoAgent { path: "/x".into(), error: io::ErrorKind::NotFound.into() };
        assert_eq!(Failed::from(PrepareError::Agent(none)).code, Code::NoAgent);
    }
}
