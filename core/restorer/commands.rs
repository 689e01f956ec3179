//! The template's life: a command comes, a child goes. Ends with the socket.
//!
//! ```text
//! agent:     Command with descriptors on its first byte, then mail_len bytes
//! template:  Reply STARTED { pid, init } or CLONE_FAILED { -errno }
//! child:     Reply TAIL_FAILED { step, result } if its tail breaks
//! ```
//! A child that is cloned ahead warms itself, says WARM on a socket of its own and waits there for the
//! command that it runs by. What it has faulted in by then is no fault of its start.
//!
//! A command that breaks the protocol ends the template: the agent is its only author.

use core::ptr;

use crate::abi::{
    CLONE_FAILED, COMMAND_MAGIC, Command, MAX_COMMAND_FDS, Params, RawOp, Reply, STARTED,
    TAIL_FAILED, WARM,
};
use crate::namespace::{self, Cloned};
use crate::region::Region;
use crate::runner::Context;
use crate::{EXIT_BROKEN, runner, syscall};

/// Makes children until the agent closes the socket.
pub fn serve(region: &Region, params: &Params) -> ! {
    loop {
        let command = next_command(region, params.command_fd);
        let about = Reply { child: command.child, ..Reply::default() };
        match namespace::clone_child(region, params, &command) {
            Cloned::Child { has_own_ids } => {
                let context = Context { region: *region, child: command.child, has_own_ids };
                if command.ahead != 0 {
                    wait_ahead(params, command, context);
                }
                become_child(params, command, &context)
            }
            Cloned::Parent { pid, init, refused } => {
                let value = pid as i64 | (init as i64) << 32;
                reply(params, Reply { kind: STARTED, step: refused, value, ..about });
            }
            Cloned::Failed(error) => {
                reply(params, Reply { kind: CLONE_FAILED, value: error, ..about });
            }
        }
        syscall::close_from(params.command_fd + 1);
    }
}

/// Answers the agent.
pub fn reply(params: &Params, reply: Reply) {
    syscall::send(params.command_fd, &reply);
}

/// Warms this process and waits until it is a child.
fn wait_ahead(params: &Params, command: Command, context: Context) -> ! {
    let own_socket = params.command_fd + 1;
    let region = context.region;
    // What cannot be warmed is faulted in when it is touched, and fails no op; what can fail is a thread.
    let mail = region.mail().cast::<RawOp>();
    // SAFETY: the mail begins with `ops` ops, which `next_command` has checked to be inside.
    if unsafe { runner::run(mail, command.ops, &context, &mut 0) }.is_err() {
        syscall::exit(EXIT_BROKEN);
    }
    syscall::send(own_socket, &Reply { kind: WARM, child: command.child, ..Reply::default() });
    let command = next_command(&region, own_socket);
    become_child(params, command, &Context { child: command.child, ..context })
}

/// Runs the tail; coming back from it is a failure, for its last op leaves for the seed's own code.
fn become_child(params: &Params, command: Command, context: &Context) -> ! {
    let mut line = params.command_fd;
    let mail = context.region.mail().cast::<RawOp>();
    // SAFETY: the mail begins with `ops` ops, which `next_command` has checked to be inside.
    if let Err(failure) = unsafe { runner::run(mail, command.ops, context, &mut line) } {
        let reply = Reply { kind: TAIL_FAILED, child: command.child, ..failure.reply() };
        syscall::send(line, &reply);
    }
    syscall::exit(EXIT_BROKEN)
}

/// The next command, its mail in the mailbox, its descriptors open under the lowest free numbers.
fn next_command(region: &Region, socket: u64) -> Command {
    let mut command = Command::default();
    let into = ptr::from_mut(&mut command).cast::<u8>();
    // SAFETY: a `Command` is plain numbers: any bytes are one.
    let fds = unsafe { receive_all(socket, into, size_of::<Command>()) };
    let sound = command.magic == COMMAND_MAGIC
        && command.fd_count <= MAX_COMMAND_FDS
        && command.fd_count == fds
        && Region::holds_mail(command.ops, command.mail_len);
    if !sound {
        syscall::exit(EXIT_BROKEN);
    }
    // SAFETY: the mailbox holds `mail_len` bytes and is this process's own.
    unsafe { receive_all(socket, region.mail(), command.mail_len as usize) };
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
