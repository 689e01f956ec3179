//! Functions that run around a prepare and in each child.
//!
//! ```text
//! mitosis_prepare()  before_prepare, last first > prepare > after_prepare, in order > MITOSIS_PARENT
//! child              prepare returns > after_resume, in order > MITOSIS_CHILD
//! rehearsal          prepare returns > rehearse, in order > its end
//! ```
//!
//! Nothing here takes a lock: a child may be the copy of a process of which another thread was about to register a
//! hook, and would wait for that thread, which it has not.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{fmt, mem};

use mitosis_core::client::Seed;
use mitosis_core::prepare::{
    HOOK_LIMIT, PrepareOptions, Prepared, STATUS_HALF_CHILD, Threads, Watchdog, end_rehearsal,
    prepare,
};
use mitosis_core::sys::openssl::OpenSsl;

use crate::boundary::boundary;
use crate::error::{Failed, MITOSIS_OK, MitosisErr};
use crate::resumed;

/// A function that runs around a prepare or in a child. data is what it was registered with.
///
/// RETURN VALUE: 0 to go on; anything else is a failure.
pub type Hook = Option<unsafe extern "C" fn(data: *mut c_void) -> c_int>;

/// For the timeout_ms of a hook: it may take as long as it will.
pub const MITOSIS_HOOK_NO_TIMEOUT: c_uint = 0xffff_ffff;

/// Named, so that C's mistakes are found before there are many.
const MAX_HOOKS: usize = 1024;

#[derive(Clone, Copy)]
enum Kind {
    BeforePrepare,
    AfterPrepare,
    AfterResume,
    Rehearse,
}

impl Kind {
    const fn name(self) -> &'static str {
        ["before_prepare", "after_prepare", "after_resume", "rehearse"][self as usize]
    }
}

#[derive(Clone, Copy)]
struct Registered {
    kind: Kind,
    function: unsafe extern "C" fn(*mut c_void) -> c_int,
    data: *mut c_void,
    limit: Option<Duration>,
}

// SAFETY: data is C's, which lets whoever prepares use it; see the functions that register.
unsafe impl Send for Registered {}
// SAFETY: as above; nobody changes one.
unsafe impl Sync for Registered {}

/// Places for hooks, in the order of registration.
struct Hooks<const N: usize> {
    /// Places that are taken. One may stay empty for good, in a child.
    taken: AtomicUsize,
    places: [OnceLock<Registered>; N],
}

static HOOKS: Hooks<MAX_HOOKS> = Hooks::new();

impl<const N: usize> Hooks<N> {
    const fn new() -> Self {
        Hooks { taken: AtomicUsize::new(0), places: [const { OnceLock::new() }; N] }
    }

    /// A place that is nobody else's; `None` if there is none left.
    fn take(&self) -> Option<&OnceLock<Registered>> {
        let one_more = |taken| (taken < N).then_some(taken + 1);
        let taken = self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        taken.ok().map(|index| &self.places[index])
    }

    fn of(&self, kind: Kind) -> Vec<Registered> {
        let registered = self.places[..self.taken.load(Ordering::SeqCst)].iter();
        let registered = registered.filter_map(OnceLock::get);
        let same = |hook: &&Registered| mem::discriminant(&hook.kind) == mem::discriminant(&kind);
        registered.filter(same).copied().collect()
    }
}

/// Registers a function to run before each mitosis_prepare() and mitosis_fork(), on the thread that calls
/// them, the one that was registered last first. If it fails, nothing is prepared. It is the place to close
/// what must not be copied.
///
/// hook:       what to run. It may call any function of this library but those that register hooks.
/// data:       for it; valid, as hook is, for the life of the process and of all children.
/// timeout_ms: how long it may take; 0: 60 s. C code cannot be ended from outside: when the time is over
///             this is said on standard error, and when it returns at last, nothing is prepared.
///
/// RETURN VALUE: MITOSIS_OK, or a negative code. There is no way to take a hook back.
///
/// ERRORS:
/// MITOSIS_ERR_NULL   hook is NULL.
/// MITOSIS_ERR_LIMIT  1024 are registered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_before_prepare(
    hook: Hook,
    data: *mut c_void,
    timeout_ms: c_uint,
) -> c_int {
    boundary(|| register(Kind::BeforePrepare, hook, data, timeout_ms))
}

/// Registers a function to run after each mitosis_prepare() and mitosis_fork() in the process that called,
/// also where they fail, in the order of registration; all of them, also when one fails. The first failure
/// ends the seed, and the call with MITOSIS_ERR_HOOK.
///
/// hook, data, timeout_ms: as for mitosis_before_prepare().
///
/// RETURN VALUE: MITOSIS_OK, or a negative code. There is no way to take a hook back.
///
/// ERRORS:
/// MITOSIS_ERR_NULL   hook is NULL.
/// MITOSIS_ERR_LIMIT  1024 are registered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_after_prepare(
    hook: Hook,
    data: *mut c_void,
    timeout_ms: c_uint,
) -> c_int {
    boundary(|| register(Kind::AfterPrepare, hook, data, timeout_ms))
}

/// Registers a function to run in each child before mitosis_prepare() or mitosis_fork() returns there, in
/// the order of registration. It may ask mitosis_payload(), mitosis_generation() and mitosis_child_index(). If
/// it fails, the child says so on standard error and ends with status 70: no half child goes on. So does a
/// child whose hook has not returned in time, wherever it hangs. It is the place to connect again, and to
/// give new state to random generators of your own.
///
/// With MITOSIS_PREPARE_ALL_THREADS the other threads run again by then.
///
/// hook, data, timeout_ms: as for mitosis_before_prepare(), but for what the end of the time brings.
///
/// RETURN VALUE: MITOSIS_OK, or a negative code. There is no way to take a hook back.
///
/// ERRORS:
/// MITOSIS_ERR_NULL   hook is NULL.
/// MITOSIS_ERR_LIMIT  1024 are registered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_after_resume(
    hook: Hook,
    data: *mut c_void,
    timeout_ms: c_uint,
) -> c_int {
    boundary(|| register(Kind::AfterResume, hook, data, timeout_ms))
}

/// Registers a function to run in the rehearsal: a child on this host that is thrown away before any other one is
/// started, and whose memory, as far as it has touched it, children are given ahead. A server that serves itself a call
/// there answers a child's first one sooner. Functions of mitosis_after_resume() do not run in it, standard
/// output and error are /dev/null, standard input is Mitosis's own, and other threads stand still.
///
/// hook: what to run, in the order of registration; the first that fails is the last. All of them have some
///       2 s. It must change nothing outside of its process.
/// data: as for mitosis_before_prepare().
///
/// RETURN VALUE: MITOSIS_OK, or a negative code. There is no way to take a hook back.
///
/// ERRORS:
/// MITOSIS_ERR_NULL   hook is NULL.
/// MITOSIS_ERR_LIMIT  1024 are registered.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mitosis_rehearse(hook: Hook, data: *mut c_void) -> c_int {
    boundary(|| register(Kind::Rehearse, hook, data, MITOSIS_HOOK_NO_TIMEOUT))
}

fn register(
    kind: Kind,
    hook: Hook,
    data: *mut c_void,
    timeout_ms: c_uint,
) -> Result<c_int, Failed> {
    let function = hook.ok_or_else(|| Failed::null("hook"))?;
    let limit = match timeout_ms {
        0 => Some(HOOK_LIMIT),
        MITOSIS_HOOK_NO_TIMEOUT => None,
        ms => Some(Duration::from_millis(ms.into())),
    };
    let place = HOOKS.take().ok_or_else(|| {
        let text = format!("{MAX_HOOKS} hooks are registered: is one registered in a loop?");
        Failed::new(MitosisErr::Limit, text)
    })?;
    place.get_or_init(|| Registered { kind, function, data, limit });
    Ok(MITOSIS_OK)
}

/// prepare(), with all hooks; `None` in a child, when it is whole.
pub(crate) fn prepare_with_hooks(options: &PrepareOptions) -> Result<Option<Seed>, Failed> {
    // Those of before the fork, whatever other threads of a child register meanwhile.
    let in_child = HOOKS.of(Kind::AfterResume);
    let rehearsed = HOOKS.of(Kind::Rehearse);
    let options = &PrepareOptions { rehearsal_returns: !rehearsed.is_empty(), ..options.clone() };
    // Children of one thread have process ids of their own, by which OpenSSL notices the fork.
    let openssl = (options.threads == Threads::All).then(OpenSsl::find).flatten();
    match run_before().and_then(|()| Ok(prepare(options)?)) {
        Ok(Prepared::Child(resumed)) => {
            if resumed.rehearsal {
                rehearse(&rehearsed);
            }
            if let Some(openssl) = openssl
                && let Err(error) = openssl.renew()
            {
                end_this_child(&format!(
                    "mitosis: this child ends: the kernel's random generator does not answer: {error}\n"
                ));
            }
            resumed::store(resumed);
            run_in_child(&in_child);
            Ok(None)
        }
        Ok(Prepared::Parent(seed)) => match run_after() {
            Ok(()) => Ok(Some(seed)),
            Err(failed) => {
                seed.discard();
                Err(failed)
            }
        },
        Err(failed) => {
            // The first failure is the one that is told.
            let _ = run_after();
            Err(failed)
        }
    }
}

fn run_before() -> Result<(), Failed> {
    HOOKS.of(Kind::BeforePrepare).iter().rev().try_for_each(|hook| hook.run_in_caller())
}

fn run_after() -> Result<(), Failed> {
    let ran: Vec<_> =
        HOOKS.of(Kind::AfterPrepare).iter().map(|hook| hook.run_in_caller()).collect();
    ran.into_iter().collect()
}

/// In a rehearsal, where other threads stand: what they hold must not be waited for.
fn rehearse(hooks: &[Registered]) -> ! {
    for hook in hooks {
        // SAFETY: C's: a function of this type, and its data.
        if unsafe { (hook.function)(hook.data) } != 0 {
            break;
        }
    }
    end_rehearsal()
}

fn run_in_child(hooks: &[Registered]) {
    for hook in hooks {
        if let Err(why) = hook.run_in_child() {
            end_this_child(&format!("mitosis: this child ends: {why}\n"));
        }
    }
}

/// Without what takes locks, which threads may hold that are not here; and without destructors and functions of
/// atexit(3), as the program is not whole.
fn end_this_child(text: &str) -> ! {
    // SAFETY: a live buffer.
    unsafe {
        libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
        libc::_exit(STATUS_HALF_CHILD)
    }
}

impl Registered {
    fn run_in_caller(&self) -> Result<(), Failed> {
        let began = Instant::now();
        let late = self.limit.map(|limit| format!("{self} has not returned after {limit:?}"));
        let dog = self.limit.zip(late.clone()).map(|(limit, late)| {
            Watchdog::start(limit, move || {
                eprintln!("mitosis: {late}, and C code cannot be ended");
                None
            })
        });
        let dog = dog.transpose().map_err(|error| self.failed(&self.unbounded(&error)))?;
        // SAFETY: C's: a function of this type, and its data.
        let answer = unsafe { (self.function)(self.data) };
        drop(dog);
        if answer != 0 {
            return Err(self.failed(&format!("{self} returned {answer}")));
        }
        match (self.limit, late) {
            (Some(limit), Some(late)) if began.elapsed() > limit => Err(self.failed(&late)),
            _ => Ok(()),
        }
    }

    fn run_in_child(&self) -> Result<(), String> {
        let late =
            |limit| format!("mitosis: this child ends: {self} has not returned after {limit:?}\n");
        let dog = self.limit.map(|limit| Watchdog::ending_this_child(limit, late(limit)));
        let dog = dog.transpose().map_err(|error| self.unbounded(&error))?;
        // SAFETY: as above.
        let answer = unsafe { (self.function)(self.data) };
        drop(dog);
        if answer == 0 { Ok(()) } else { Err(format!("{self} returned {answer}")) }
    }

    fn failed(&self, what: &str) -> Failed {
        Failed::new(MitosisErr::Hook, format!("{what}: no seed was made"))
    }

    fn unbounded(&self, error: &std::io::Error) -> String {
        format!(
            "no thread can be started to bound the time of {self}: {error}; raise the process limit (ulimit \
             -u, pids.max), or register it with MITOSIS_HOOK_NO_TIMEOUT"
        )
    }
}

/// "the before_prepare hook close_all (+0x0)", or its address in a file that has no name for it.
impl fmt::Display for Registered {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let address = self.function as *const c_void;
        write!(out, "the {} hook ", self.kind.name())?;
        // SAFETY: all zero is a valid value, and dladdr fills it where it answers other than 0. What it points
        // to lives as long as the object that the function lies in.
        let (symbol, file) = unsafe {
            let mut info: libc::Dl_info = mem::zeroed();
            if libc::dladdr(address, &raw mut info) == 0 {
                return write!(out, "at {address:p}");
            }
            let text = |at: *const libc::c_char| (!at.is_null()).then(|| CStr::from_ptr(at));
            let exact = info.dli_saddr.cast_const() == address;
            (text(info.dli_sname).filter(|_| exact), text(info.dli_fname))
        };
        match (symbol, file) {
            (Some(symbol), _) => out.write_str(&symbol.to_string_lossy()),
            (None, Some(file)) => write!(out, "at {address:p} of {}", file.to_string_lossy()),
            (None, None) => write!(out, "at {address:p}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    extern "C" fn nothing(_: *mut c_void) -> c_int {
        0
    }

    fn hook(kind: Kind, data: usize) -> Registered {
        let data = std::ptr::without_provenance_mut(data);
        Registered { kind, function: nothing, data, limit: None }
    }

    #[test]
    fn a_place_that_a_thread_took_and_never_filled_holds_up_nobody() {
        let hooks = Hooks::<4>::new();
        let fill = |kind, data| hooks.take().unwrap().set(hook(kind, data)).ok().unwrap();
        fill(Kind::AfterResume, 1);
        // Its thread is not in this process any more.
        let _ = hooks.take().unwrap();
        fill(Kind::BeforePrepare, 2);
        fill(Kind::AfterResume, 3);
        assert!(hooks.take().is_none(), "that is the limit");
        let data = |kind| hooks.of(kind).iter().map(|hook| hook.data.addr()).collect::<Vec<_>>();
        assert_eq!(data(Kind::AfterResume), [1, 3]);
        assert_eq!(data(Kind::BeforePrepare), [2]);
        assert!(data(Kind::AfterPrepare).is_empty());
    }
}
