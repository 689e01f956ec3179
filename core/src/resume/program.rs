//! The restore program: a list of system calls, as plain data.
//!
//! A [`Program`] is what the freestanding blob runs in a template, or in a child as its *tail*. It can be
//! printed (`mitosis inspect --program`), compared and tested without running. Encoded, it is an array
//! of [`RawOp`] and, behind it, the bytes that ops point to; the encoder knows the address at which
//! both will lie, so the blob relocates nothing.

use std::fmt;

use super::abi::{NumberRange, RawOp, op as raw};

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// A system call; the template ends, naming the step, when the result is not as expected.
    Syscall {
        /// Its name, for people.
        name: &'static str,
        /// Its number.
        number: u32,
        /// Its arguments.
        args: [Arg; 6],
        /// What it must answer.
        expect: Expect,
    },
    /// Copies bytes to an address.
    Store {
        /// Where.
        addr: u64,
        /// What.
        bytes: Vec<u8>,
    },
    /// Copies of a descriptor, closed at exec, take all numbers of ascending ranges, up to the first that it
    /// cannot get.
    Reserve {
        /// The descriptor.
        fd: u32,
        /// The numbers.
        ranges: Vec<NumberRange>,
    },
    /// Makes further threads, see `threads`.
    Threads {
        /// Where their table lies.
        table: u64,
        /// Index of the first.
        first: u64,
        /// How many.
        count: u64,
        /// Goes on when each stands at its gate.
        waits: bool,
    },
    /// Waits while a u32 is 0.
    Gate {
        /// Where it lies.
        addr: u64,
    },
    /// getppid(2) must answer this, or 0 in a pid namespace of the child's own.
    Parent {
        /// The keeper.
        pid: u32,
    },
    /// A system call that answers a descriptor, which goes to a number.
    Open {
        /// Its name, for people.
        name: &'static str,
        /// Its number.
        number: u32,
        /// Its arguments.
        args: [Arg; 5],
        /// The descriptor's number.
        to: u32,
        /// dup3(2)'s.
        flags: u32,
        /// It may fail; the number then stays what it is.
        if_there: bool,
    },
    /// pipe2(2) or socketpair(2), whose descriptors go to numbers.
    Pair {
        /// Its name, for people.
        name: &'static str,
        /// Its number.
        number: u32,
        /// Its first arguments; where its pointer goes, nothing.
        args: [Arg; 3],
        /// The descriptors' numbers.
        to: [u32; 2],
        /// dup3(2)'s, of each.
        flags: [u32; 2],
    },
    /// Uses AMX tiles and lets them go: the kernel has room for them from then on.
    Tiles,
    /// Steps that lie elsewhere, which several programs share.
    All {
        /// Where the first one lies.
        at: u64,
        /// How many.
        count: u64,
    },
    /// A watch of an inotify that waits for nothing yet: the next number but so many, which is nobody's where there is no
    /// such path.
    Watch {
        /// The inotify, which does not wait.
        fd: u32,
        /// What is watched.
        path: String,
        /// Numbers that are passed over.
        between: u32,
        /// What is watched and let go for each of them.
        spare: &'static str,
    },
    /// Signals wait, as in the parent.
    Signals {
        /// Where the first one's siginfo_t lies.
        at: u64,
        /// How many.
        count: u32,
        /// They are the calling thread's own, not the process's.
        to_thread: bool,
    },
    /// The command socket moves.
    CommandAt {
        /// Its number from now on.
        fd: u32,
    },
    /// The end of a tail: `rsp = frame`, `rt_sigreturn`.
    SignalReturn {
        /// Thread::frame.
        frame: u64,
    },
}

/// An argument of a system call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arg {
    /// The call has no such argument.
    Unused,
    /// A number or an address of the child's.
    Value(u64),
    /// The address at which these bytes will lie beside the program.
    Bytes(Vec<u8>),
}

/// What a system call must answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anything but an error.
    Success,
    /// This very value (an address).
    Exactly(u64),
    /// Whatever: the step is a courtesy.
    Ignored,
}

/// A list of steps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Program {
    /// In order.
    pub ops: Vec<Op>,
}

impl Program {
    /// Bytes of [`Self::encode`].
    pub fn encoded_len(&self) -> usize {
        let given = |args: &[Arg]| {
            let bytes = args.iter().map(|arg| match arg {
                Arg::Bytes(bytes) => bytes.len().next_multiple_of(8),
                Arg::Unused | Arg::Value(_) => 0,
            });
            bytes.sum::<usize>()
        };
        let data = |op: &Op| match op {
            Op::Syscall { args, .. } => given(args),
            Op::Open { args, .. } => given(args),
            Op::Pair { args, .. } => given(args),
            Op::Store { bytes, .. } => bytes.len().next_multiple_of(8),
            Op::Reserve { ranges, .. } => size_of_val(ranges.as_slice()),
            Op::Watch { path, spare, .. } => {
                [path.len(), spare.len()].map(|len| (len + 1).next_multiple_of(8)).iter().sum()
            }
            Op::Threads { .. }
            | Op::Gate { .. }
            | Op::Parent { .. }
            | Op::Tiles
            | Op::Signals { .. }
            | Op::All { .. }
            | Op::CommandAt { .. }
            | Op::SignalReturn { .. } => 0,
        };
        self.ops.len() * size_of::<RawOp>() + self.ops.iter().map(data).sum::<usize>()
    }

    /// The program as it must lie at address `base`: ops, then bytes (each 8-aligned).
    pub fn encode(&self, base: u64) -> Vec<u8> {
        let ops_len = self.ops.len() * size_of::<RawOp>();
        let mut ops = Vec::with_capacity(ops_len);
        let mut data = Vec::new();
        let place = |bytes: &[u8], data: &mut Vec<u8>| {
            let at = base + (ops_len + data.len()) as u64;
            data.extend_from_slice(bytes);
            data.resize(data.len().next_multiple_of(8), 0);
            at
        };
        let value = |arg: &Arg, data: &mut Vec<u8>| match arg {
            Arg::Unused => 0,
            Arg::Value(value) => *value,
            Arg::Bytes(bytes) => place(bytes, data),
        };
        for op in &self.ops {
            let raw = match op {
                Op::Syscall { number, args, expect, .. } => {
                    let (kind, expect) = match *expect {
                        Expect::Success => (raw::SYSCALL, 0),
                        Expect::Exactly(value) => (raw::SYSCALL_EXACT, value),
                        Expect::Ignored => (raw::SYSCALL_IGNORED, 0),
                    };
                    let args = std::array::from_fn(|i| value(&args[i], &mut data));
                    RawOp { kind, number: *number, args, expect }
                }
                Op::Store { addr, bytes } => {
                    let from = place(bytes, &mut data);
                    let args = [*addr, from, bytes.len() as u64, 0, 0, 0];
                    RawOp { kind: raw::STORE, args, ..RawOp::default() }
                }
                Op::Reserve { fd, ranges } => {
                    let numbers = ranges.iter().flat_map(|range| [range.first, range.last]);
                    let bytes: Vec<u8> = numbers.flat_map(u32::to_le_bytes).collect();
                    let from = place(&bytes, &mut data);
                    let args = [(*fd).into(), from, ranges.len() as u64, 0, 0, 0];
                    RawOp { kind: raw::RESERVE, args, ..RawOp::default() }
                }
                Op::Threads { table, first, count, waits } => {
                    let waits = if *waits { raw::THREADS_WAIT } else { 0 };
                    let args = [*table, *first, *count, waits, 0, 0];
                    RawOp { kind: raw::THREADS, args, ..RawOp::default() }
                }
                Op::Gate { addr } => {
                    RawOp { kind: raw::GATE, args: [*addr, 0, 0, 0, 0, 0], ..RawOp::default() }
                }
                Op::Parent { pid } => {
                    let args = [(*pid).into(), 0, 0, 0, 0, 0];
                    RawOp { kind: raw::PARENT, args, ..RawOp::default() }
                }
                Op::Open { number, args, to, flags, if_there, .. } => {
                    let given = args.each_ref().map(|arg| value(arg, &mut data));
                    let kind = if *if_there { raw::OPEN_IF_THERE } else { raw::OPEN };
                    let [a, b, c, d, e] = given;
                    let args = [a, b, c, d, e, u64::from(*to)];
                    RawOp { kind, number: *number, args, expect: (*flags).into() }
                }
                Op::Pair { number, args, to, flags, .. } => {
                    let [a, b, c] = args.each_ref().map(|arg| value(arg, &mut data));
                    let args = [a, b, c, 0, u64::from(to[0]), u64::from(to[1])];
                    let expect = u64::from(flags[0]) | u64::from(flags[1]) << 32;
                    RawOp { kind: raw::PAIR, number: *number, args, expect }
                }
                Op::Watch { fd, path, between, spare } => {
                    let text = |path: &str| [path.as_bytes(), b"\0"].concat();
                    let (path, spare) =
                        (place(&text(path), &mut data), place(&text(spare), &mut data));
                    let args = [(*fd).into(), path, (*between).into(), spare, 0, 0];
                    RawOp { kind: raw::WATCH, args, ..RawOp::default() }
                }
                Op::All { at, count } => {
                    let args = [*at, *count, 0, 0, 0, 0];
                    RawOp { kind: raw::ALL, args, ..RawOp::default() }
                }
                Op::Signals { at, count, to_thread } => {
                    let args = [*at, (*count).into(), (*to_thread).into(), 0, 0, 0];
                    RawOp { kind: raw::SIGNALS, args, ..RawOp::default() }
                }
                Op::Tiles => RawOp { kind: raw::TILES, ..RawOp::default() },
                Op::CommandAt { fd } => {
                    let args = [u64::from(*fd), 0, 0, 0, 0, 0];
                    RawOp { kind: raw::COMMAND_AT, args, ..RawOp::default() }
                }
                Op::SignalReturn { frame } => {
                    let args = [*frame, 0, 0, 0, 0, 0];
                    RawOp { kind: raw::SIGNAL_RETURN, args, ..RawOp::default() }
                }
            };
            append(&raw, &mut ops);
        }
        ops.extend_from_slice(&data);
        ops
    }
}

fn append(raw: &RawOp, bytes: &mut Vec<u8>) {
    bytes.extend_from_slice(&raw.kind.to_le_bytes());
    bytes.extend_from_slice(&raw.number.to_le_bytes());
    for arg in raw.args {
        bytes.extend_from_slice(&arg.to_le_bytes());
    }
    bytes.extend_from_slice(&raw.expect.to_le_bytes());
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ops.iter().enumerate().try_for_each(|(i, op)| writeln!(f, "{i:4} {op}"))
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Syscall { name, args, expect, .. } => {
                write!(f, "{name}({})", listed(args))?;
                match expect {
                    Expect::Success => Ok(()),
                    Expect::Exactly(value) => write!(f, " = {value:#x}"),
                    Expect::Ignored => write!(f, " (may fail)"),
                }
            }
            Op::Store { addr, bytes } => write!(f, "store {} bytes at {addr:#x}", bytes.len()),
            Op::Reserve { fd, ranges } => {
                let ranges: Vec<String> = ranges
                    .iter()
                    .map(|NumberRange { first, last }| match first == last {
                        true => first.to_string(),
                        false => format!("{first}-{last}"),
                    })
                    .collect();
                write!(f, "dup3({fd}, {}, O_CLOEXEC) (may fail)", ranges.join(" "))
            }
            Op::Threads { first, count, waits, .. } => {
                let waits = if *waits { ", until each waits" } else { "" };
                write!(f, "clone3 of {count} threads from number {first} on{waits}")
            }
            Op::Gate { addr } => write!(f, "futex wait while {addr:#x} is 0"),
            Op::Parent { pid } => write!(f, "getppid() = {pid}, or 0 in a pid namespace"),
            Op::Open { name, args, to, flags, if_there, .. } => {
                let exec = if *flags == 0 { "" } else { " O_CLOEXEC" };
                let may = if *if_there { " (may fail)" } else { "" };
                write!(f, "{to}{exec} = {name}({}){may}", listed(args))
            }
            Op::Pair { name, args, to, flags, .. } => {
                let exec = flags.map(|flags| if flags == 0 { "" } else { " O_CLOEXEC" });
                write!(f, "{}{}, {}{} = {name}({})", to[0], exec[0], to[1], exec[1], listed(args))
            }
            Op::Tiles => write!(f, "tilezero"),
            Op::Watch { fd, path, between, .. } => {
                write!(
                    f,
                    "inotify_add_watch({fd}, {path}), {between} numbers further on (may fail)"
                )
            }
            Op::All { count, .. } => write!(f, "{count} steps for credentials"),
            Op::Signals { at, count, to_thread } => {
                let call = if *to_thread { "rt_tgsigqueueinfo" } else { "rt_sigqueueinfo" };
                write!(f, "{call} of {count} signals at {at:#x}")
            }
            Op::CommandAt { fd } => write!(f, "the command socket moves to {fd}"),
            Op::SignalReturn { frame } => write!(f, "rt_sigreturn with rsp = {frame:#x}"),
        }
    }
}

/// Arguments as they stand in a call.
fn listed(args: &[Arg]) -> String {
    let args = args.iter().filter(|arg| **arg != Arg::Unused);
    args.map(Arg::to_string).collect::<Vec<_>>().join(", ")
}

impl fmt::Display for Arg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arg::Unused => Ok(()),
            Arg::Value(value) if *value < 4096 => write!(f, "{value}"),
            Arg::Value(u64::MAX) => write!(f, "-1"),
            Arg::Value(value) => write!(f, "{value:#x}"),
            Arg::Bytes(bytes) => write!(f, "<{} bytes>", bytes.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_lie_behind_the_ops_at_the_address_given() {
        let program = Program {
            ops: vec![
                Op::Syscall {
                    name: "chdir",
                    number: 80,
                    args: [
                        Arg::Bytes(b"/tmp\0".to_vec()),
                        Arg::Value(0),
                        Arg::Unused,
                        Arg::Unused,
                        Arg::Unused,
                        Arg::Unused,
                    ],
                    expect: Expect::Success,
                },
                Op::Store { addr: 0x1234, bytes: vec![9; 3] },
            ],
        };
        let bytes = program.encode(0x6000_0000);
        assert_eq!(bytes.len(), program.encoded_len());
        assert_eq!(bytes.len(), 2 * 64 + 8 + 8);
        assert_eq!(&bytes[8..16], &(0x6000_0000u64 + 128).to_le_bytes());
        assert_eq!(&bytes[128..133], b"/tmp\0");
        assert_eq!(&bytes[64 + 16..64 + 24], &(0x6000_0000u64 + 136).to_le_bytes());
    }
}
