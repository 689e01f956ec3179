//! The template's life: a command comes, a child goes. Ends with the socket.
//!
//! ```text
//! agent:     Command with descriptors on its first byte, then mail_len bytes
//! template:  Reply STARTED { pid } or CLONE_FAILED { -errno }
//! child:     Reply TAIL_FAILED { step, result } if its tail breaks
//! ```
//! A command that breaks the protocol ends the template: the agent is its only author.

use core::ptr;

use crate::abi::{
    CLONE_FAILED, COMMAND_MAGIC, Command, MAX_COMMAND_FDS, Params, RawOp, Reply, STARTED,
    TAIL_FAILED,
};
use crate::region::Region;
use crate::{EXIT_BROKEN, runner, syscall};

/// Makes children until the agent closes the socket.
pub fn serve(region: &Region, params: &Params) -> ! {
    loop {
        let command = next_command(params.command_fd);
        if !Region::holds_mail(command.ops, command.mail_len) {
            syscall::exit(EXIT_BROKEN);
        }
        // SAFETY: the mailbox holds `mail_len` bytes and is this process's own.
        unsafe { receive_all(params.command_fd, region.mail(), command.mail_len as usize) };
        let about = Reply { child: command.child, ..Reply::default() };
        match syscall::clone_sibling(command.clone_flags, params.tid_address) {
            0 => become_child(region, params, command),
            pid @ 1.. => reply(params, Reply { kind: STARTED, value: pid, ..about }),
            error => reply(params, Reply { kind: CLONE_FAILED, value: error, ..about }),
        }
        syscall::close_from(params.command_fd + 1);
    }
}

/// Answers the agent.
pub fn reply(params: &Params, reply: Reply) {
    syscall::send(params.command_fd, &reply);
}

/// Runs the tail; coming back from it is a failure, for its last op leaves for the seed's own code.
fn become_child(region: &Region, params: &Params, command: Command) -> ! {
    // SAFETY: the mail begins with `ops` ops, which `holds_mail` has checked to be inside.
    if let Err(failure) = unsafe { runner::run(region.mail().cast::<RawOp>(), command.ops) } {
        reply(params, Reply { kind: TAIL_FAILED, child: command.child, ..failure.reply() });
    }
    syscall::exit(EXIT_BROKEN)
}

/// The next command, its descriptors open from `command_fd + 1` on.
fn next_command(socket: u64) -> Command {
    let mut command = Command::default();
    let into = ptr::from_mut(&mut command).cast::<u8>();
    // SAFETY: a `Command` is plain numbers: any bytes are one.
    let fds = unsafe { receive_all(socket, into, size_of::<Command>()) };
    let sound = command.magic == COMMAND_MAGIC
        && command.fd_count <= MAX_COMMAND_FDS
        && command.fd_count == fds;
    if !sound {
        syscall::exit(EXIT_BROKEN);
    }
    command
}

/// Receives `len` bytes; answers how many descriptors came along. The end of the stream before the first
/// byte is the template's regular end.
///
/// # Safety
/// `len` bytes at `into` are writable and no one else's.
unsafe fn receive_all(socket: u64, into: *mut u8, len: usize) -> u64 {
    let mut got = 0;
    let mut fds = 0;
    while got < len {
        // SAFETY: `got < len`.
        let received = unsafe { syscall::receive(socket, into.add(got), len - got) };
        match received {
            syscall::Received { bytes: 0, .. } => syscall::exit(0),
            syscall::Received { fds: None, .. } => syscall::exit(EXIT_BROKEN),
            syscall::Received { bytes, fds: Some(more) } => {
                got += bytes;
                fds += more;
            }
        }
    }
    fds
}
