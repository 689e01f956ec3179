//! A child with a process id of its own choice: in a pid namespace of its own.
//!
//! ```text
//!  keeper ---- template --clone3(NEWPID, VM)--> init, id 1: reaps orphans, ends with the last process
//!     \           | setns(its namespace)
//!      \--------- | --clone3(set_tid)--------> child, a sibling of the template's as ever
//! ```
//! The child's parent is the keeper, which sees how it ends; the init has no say in it. The init shares the
//! template's memory and uses none of it but a word: it costs no page and needs no stack. It waits until
//! the child has ended and then until nothing is left in the namespace.
//!
//! Its /proc is then mounted anew, in a mount namespace of its own: with the host's, no number that it knows of
//! itself would be one there.
//!
//! What the kernel refuses (it takes CAP_SYS_ADMIN, and an id below its `pid_max`), the child does without:
//! its ids are new ones.

use crate::abi::{Command, InitShared, Params};
use crate::region::Region;
use crate::{EXIT_BROKEN, syscall};

const POLLIN: u32 = 1;
/// Number of the child's pidfd in the init, which has nothing but the pipe's end as 0.
const INIT_PIDFD: u32 = 1;

/// Which side of a clone this is.
pub enum Cloned {
    /// The child.
    Child {
        /// In a namespace of its own.
        has_own_ids: bool,
    },
    /// The template.
    Parent {
        /// The child's pid.
        pid: u64,
        /// Its namespace's init, if it has one.
        init: u64,
        /// Why it has none, though one was wanted.
        refused: u32,
    },
    /// There is no child: `-errno`.
    Failed(i64),
}

/// Clones this process as `command` says.
pub fn clone_child(region: &Region, params: &Params, command: &Command) -> Cloned {
    let refused = match command.own_pid {
        0 => 0,
        _ => match clone_inside(region, params, command) {
            Ok(cloned) => return cloned,
            Err(error) => {
                close_all_but(params, command);
                error.unsigned_abs() as u32
            }
        },
    };
    match syscall::clone_sibling(command.clone_flags, params.tid_address, 0) {
        0 => Cloned::Child { has_own_ids: false },
        pid @ 1.. => Cloned::Parent { pid: pid as u64, init: 0, refused },
        error => Cloned::Failed(error),
    }
}

/// The child in a namespace of its own; `-errno` where that cannot be.
fn clone_inside(region: &Region, params: &Params, command: &Command) -> Result<Cloned, i64> {
    let own_pid = command.own_pid as u32;
    let own = syscall::error_or(syscall::own_pidfd())?;
    // Where the way back is refused, as to an agent in a user namespace that its pid namespace is not of, none goes in.
    syscall::error_or(syscall::clone_into_namespace_of(own as i32))?;
    let [go, said] = syscall::pipe()?;
    let shared = region.init_shared();
    // SAFETY: the region's; inits of other children read the same from it.
    unsafe { shared.write(InitShared { byte: 0, poll_fd: INIT_PIDFD, poll_events: POLLIN }) };
    // SAFETY: the region outlives every user of this memory.
    let (init, pidfd) = unsafe { syscall::clone_init(go, own_pid, shared) };
    syscall::error_or(init)?;
    // An init that is not told that there is a child ends with the pipe.
    syscall::error_or(syscall::clone_into_namespace_of(pidfd))?;
    let pid = syscall::clone_sibling(command.clone_flags, params.tid_address, own_pid);
    if pid == 0 {
        close_all_but(params, command);
        if command.own_proc != 0 {
            // Refused, it has the host's as before.
            let _ = syscall::mount_own_proc();
        }
        return Ok(Cloned::Child { has_own_ids: true });
    }
    if syscall::clone_into_namespace_of(own as i32) < 0 {
        syscall::exit(EXIT_BROKEN);
    }
    syscall::error_or(pid)?;
    syscall::write_byte(said);
    Ok(Cloned::Parent { pid: pid as u64, init: init as u64, refused: 0 })
}

/// Closes what making a namespace opened. Of this command a child has its descriptors alone: it counts on the
/// numbers behind them. In a template it also ends an init that was told of no child.
fn close_all_but(params: &Params, command: &Command) {
    syscall::close_from(params.command_fd + 1 + command.fd_count);
}
