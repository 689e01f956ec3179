//! The restorer: what runs in a process while it has no libc, no stack of its own and no memory but
//! this blob's region (see `abi`).
//!
//! ```text
//!  keeper's child --jump--> start --> run the program --> READY --> wait for a Command <-----+
//!                                        | an op fails                   | clone3           |
//!                                        v                               +-- parent: STARTED +
//!                                     FAILED, exit                       |
//!                                                                        +-- child: run its tail,
//!                                                                            which ends in rt_sigreturn
//! ```
//!
//! Built by `build.rs` as a position-independent image without relocations or writable data, so that it
//! runs wherever it is mapped. Nothing here can panic, allocate or touch memory of the seed: what a
//! template writes is copied at every clone.
#![no_std]
#![no_main]

#[expect(dead_code, reason = "the agent's half of the agreement")]
mod abi;
mod arch;
mod commands;
mod files;
mod memory;
mod namespace;
mod region;
mod runner;
mod stub;
mod syscall;
mod threads;

use region::Region;
use runner::Context;

/// Exit status of a template or child that could not be made.
const EXIT_BROKEN: u64 = 127;

/// Entered from `arch` on the region's own stack, with the base that the keeper's child put in `rdi`.
extern "C" fn restore(base: u64) -> ! {
    // SAFETY: the keeper's child has mapped a whole region at `base` and jumps here once.
    let region = unsafe { Region::at(base) };
    let params = region.params();
    if params.magic != abi::PARAMS_MAGIC {
        syscall::exit(EXIT_BROKEN);
    }
    let mut line = params.command_fd;
    // SAFETY: the agent wrote `program_ops` ops there, for a process of which nothing else is in use.
    let (ops, context) = (params.program_ops, Context::of_template(region));
    if let Err(failure) = unsafe { runner::run(region.program(), ops, &context, &mut line) } {
        syscall::send(line, &abi::Reply { kind: abi::FAILED, ..failure.reply() });
        syscall::exit(EXIT_BROKEN);
    }
    region.drop_program();
    commands::reply(params, abi::Reply { kind: abi::READY, ..abi::Reply::default() });
    commands::serve(&region, params)
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    syscall::exit(EXIT_BROKEN)
}
