//! What stands between C and Rust: panics and errors become codes and a message for this thread.

use std::any::Any;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr::NonNull;

use crate::error::{Failed, MitosisErr, remember};
use crate::process::Process;

/// The pointer if it is not null, else the function fails with `MITOSIS_ERR_NULL` and the argument's name.
macro_rules! not_null {
    ($pointer:ident) => {
        $crate::boundary::checked($pointer, stringify!($pointer))?
    };
}
pub(crate) use not_null;

/// For [`not_null`].
pub(crate) fn checked<T>(pointer: *const T, name: &str) -> Result<NonNull<T>, Failed> {
    NonNull::new(pointer.cast_mut()).ok_or_else(|| Failed::null(name))
}

/// Runs the body of a function; what fails is remembered for `mitosis_last_error_message`.
pub(crate) fn guard<T>(body: impl FnOnce() -> Result<T, Failed>) -> Result<T, MitosisErr> {
    caught(body).map_err(remember)
}

/// [`guard`] for functions that return a code.
pub(crate) fn boundary(body: impl FnOnce() -> Result<c_int, Failed>) -> c_int {
    guard(body).unwrap_or_else(MitosisErr::number)
}

/// [`boundary`] for functions that return twice. In the child a failure ends the process: with a negative
/// code it would go on as a second parent.
pub(crate) fn fork_boundary(body: impl FnOnce() -> Result<c_int, Failed>) -> c_int {
    let caller = Process::current();
    match caught(body) {
        Ok(value) => value,
        Err(failed) if Process::current() == caller => remember(failed).number(),
        Err(failed) => {
            eprintln!("mitosis: this child cannot go on: {}", failed.message);
            std::process::abort()
        }
    }
}

fn caught<T>(body: impl FnOnce() -> Result<T, Failed>) -> Result<T, Failed> {
    // Unwind safe: bodies change nothing of C's before they have succeeded, but for out-arguments that
    // they have set to null.
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let message = format!("libmitosis has a defect, please report it: {}", text_of(&*panic));
        // Whatever it is, its destructor might panic, too.
        std::mem::forget(panic);
        Err(Failed::new(MitosisErr::Panic, message))
    })
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::last_message;

    #[test]
    fn a_panic_becomes_a_code_and_its_text() {
        assert_eq!(boundary(|| panic!("the {} broke", "gear")), MitosisErr::Panic.number());
        assert!(last_message().contains("the gear broke"), "{}", last_message());
        assert_eq!(boundary(|| panic!("plain")), MitosisErr::Panic.number());
        assert!(last_message().contains("plain"), "{}", last_message());
        assert_eq!(boundary(|| std::panic::panic_any(7)), MitosisErr::Panic.number());
        assert_eq!(boundary(|| Ok(3)), 3);
    }

    #[test]
    fn a_destructor_that_panics_does_not_cross_either() {
        struct Bomb;
        impl Drop for Bomb {
            fn drop(&mut self) {
                panic!("in drop");
            }
        }
        assert_eq!(boundary(|| std::panic::panic_any(Bomb)), MitosisErr::Panic.number());
    }

    /// Runs `body` in a copy of this test program that runs this test alone, on its only thread: a fork
    /// beside other tests would copy their locks.
    fn alone(test: &str, body: impl FnOnce()) {
        const ALONE: &str = "MITOSIS_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            // SAFETY: a hanging test is ended by the signal.
            unsafe { libc::alarm(20) };
            return body();
        }
        let name = format!("boundary::tests::{test}");
        let copy = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--test-threads=1", "--nocapture"])
            .env(ALONE, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&copy.stdout);
        assert!(copy.status.success() && said.contains("1 passed"), "{copy:?}");
    }

    /// The status of a child that `body` is run in, inside the boundary, and that ends with what the
    /// boundary returned; the parent must be told 1.
    fn status_of_child(body: impl FnOnce(i32) -> Result<c_int, Failed>) -> i32 {
        let before = std::process::id();
        let mut pid = 0;
        let returned = fork_boundary(|| {
            // SAFETY: this is the only thread.
            pid = unsafe { libc::fork() };
            assert!(pid >= 0, "fork failed");
            body(pid)
        });
        if std::process::id() != before {
            // SAFETY: ends the process without the test harness's destructors.
            unsafe { libc::_exit(returned) };
        }
        assert_eq!(returned, 1);
        let mut status = 0;
        // SAFETY: waits for the child above.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        status
    }

    #[test]
    fn a_fork_returns_twice_through_the_boundary() {
        alone("a_fork_returns_twice_through_the_boundary", || {
            let status = status_of_child(|pid| {
                let side = c_int::from(pid != 0);
                // The child's unwinding machinery works as well.
                let inner = boundary(|| if side == 0 { panic!("inside") } else { Ok(0) });
                Ok(if side == 0 && inner == MitosisErr::Panic.number() { 42 } else { side })
            });
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 42, "{status:#x}");
        });
    }

    #[test]
    fn a_child_that_fails_does_not_go_on_as_a_parent() {
        alone("a_child_that_fails_does_not_go_on_as_a_parent", || {
            for panics in [true, false] {
                let status = status_of_child(|pid| {
                    assert!(pid != 0 || !panics, "in the child");
                    if pid == 0 { Err(Failed::new(MitosisErr::Internal, "no")) } else { Ok(1) }
                });
                assert!(libc::WIFSIGNALED(status), "{status:#x}");
                assert_eq!(libc::WTERMSIG(status), libc::SIGABRT);
            }
        });
    }

    #[test]
    fn a_parent_that_fails_gets_its_code() {
        assert_eq!(fork_boundary(|| panic!("before the fork")), MitosisErr::Panic.number());
    }
}
