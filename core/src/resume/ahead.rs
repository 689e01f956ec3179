//! Children that are cloned ahead: laid out, their warm pages in their page tables, stopped before their
//! tails. The next start of a child is one message to one of them.
//!
//! ```text
//!  Template::clone_ahead --> cloned --warms itself--> WARM --Template::child--> runs
//!                               \---- its socket closed, or its template dropped ----> exits
//! ```
//! One that is not warm yet is passed over, for its pages may have to come from afar.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use super::abi::{Reply, WARM};
use super::calls;
use super::program::{Expect, Program};
use super::template::{NewProcess, parse_reply};
use crate::descriptor::{Descriptor, SeedRange, Vma, VmaKind};
use crate::sys::socket;

const READ: u8 = 1;
const WRITE: u8 = 2;

/// A process that becomes the next child.
#[derive(Debug)]
pub(super) struct Ahead {
    pub(super) process: NewProcess,
    socket: UnixStream,
}

impl Ahead {
    /// The socket of one that is about to be cloned, and the end that goes along with the command.
    pub(super) fn socket() -> io::Result<(UnixStream, OwnedFd)> {
        let (ours, theirs) = UnixStream::pair()?;
        Ok((ours, theirs.into()))
    }

    /// One that was cloned, with the other end of `socket`.
    pub(super) fn new(process: NewProcess, socket: UnixStream) -> Self {
        Ahead { process, socket }
    }

    /// Whether it waits for nothing but its command. Does not wait; an error means that it has ended.
    ///
    /// What it said stays where it is: taken, it would wake the child, which waits for its command on the same socket.
    pub(super) fn is_warm(&self) -> io::Result<bool> {
        let mut bytes = [0u8; size_of::<Reply>()];
        match socket::peek_now(&self.socket, &mut bytes) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            // It says all of it at once.
            Ok(got) if got == bytes.len() && parse_reply(&bytes).kind == WARM => Ok(true),
            Ok(_) => Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where its command goes.
    pub(super) fn command_socket(&self) -> &UnixStream {
        &self.socket
    }
}

/// What warms a child of `desc`: its warm pages by madvise(2), those that it writes copied, those that it
/// reads mapped. Each step is a courtesy.
pub fn warming(desc: &Descriptor) -> Program {
    let mut program = Program::default();
    let mut push = |range: SeedRange, advice: i32| {
        program.ops.push(calls::madvise(range.start.0, range.len(), advice, Expect::Ignored));
    };
    for run in desc.warm.runs() {
        for vma in overlapping(&desc.vmas, run.range) {
            let range = vma.range.intersect(run.range);
            // Shared memory may be a file of this host's by now, and no child has written to it yet.
            let is_own = vma.kind != VmaKind::Shared;
            if run.is_written && is_own && vma.prot & WRITE != 0 {
                push(range, libc::MADV_POPULATE_WRITE);
            } else if vma.prot & READ != 0 {
                push(range, libc::MADV_POPULATE_READ);
            }
        }
    }
    program
}

fn overlapping(vmas: &[Vma], range: SeedRange) -> impl Iterator<Item = &Vma> {
    let first = vmas.partition_point(|vma| vma.range.end <= range.start);
    vmas[first..].iter().take_while(move |vma| vma.range.start < range.end)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::super::entering::Entering;
    use super::super::template::reply_bytes;
    use super::*;
    use crate::descriptor::{VmaFlags, WarmSet};
    use crate::resume::compile::tests::descriptor;
    use crate::resume::program::Op;

    #[test]
    fn each_part_of_a_vma_is_warmed_as_it_was_touched_and_may_be() {
        let mut desc = descriptor();
        let vma = |start, end, prot| Vma {
            range: SeedRange::new(start, end),
            prot,
            kind: VmaKind::Anonymous,
            flags: VmaFlags::default(),
        };
        desc.vmas = vec![
            vma(0x1000, 0x4000, READ),
            vma(0x4000, 0x8000, READ | WRITE),
            Vma { kind: VmaKind::Shared, ..vma(0xb000, 0xc000, READ | WRITE) },
        ];
        let shared = SeedRange::new(0xb000, 0xc000);
        let touched = [SeedRange::new(0x2000, 0x5000), SeedRange::new(0x9000, 0xa000), shared];
        desc.warm = WarmSet::new(&touched, &[SeedRange::new(0x3000, 0x5000), shared]);
        let said: Vec<String> = warming(&desc).ops.iter().map(Op::to_string).collect();
        let advise = |start: u64, len: u64, advice| {
            calls::madvise(start, len, advice, Expect::Ignored).to_string()
        };
        assert_eq!(
            said,
            [
                advise(0x2000, 0x1000, libc::MADV_POPULATE_READ),
                advise(0x3000, 0x1000, libc::MADV_POPULATE_READ),
                advise(0x4000, 0x1000, libc::MADV_POPULATE_WRITE),
                advise(0xb000, 0x1000, libc::MADV_POPULATE_READ),
            ]
        );
    }

    /// What it says is told again and again, and stays.
    #[test]
    fn one_that_is_warm_is_so_until_it_ends() {
        let (ours, theirs) = Ahead::socket().unwrap();
        let process =
            NewProcess { pid: 1, init: None, renumbered: None, entering: Entering::default() };
        let mut ahead = Ahead::new(process, ours);
        let mut theirs = UnixStream::from(theirs);
        let warm = Reply { kind: WARM, step: 0, value: 0, child: 3 };
        theirs.write_all(&reply_bytes(warm)).unwrap();
        for _ in 0..2 {
            assert!(ahead.is_warm().unwrap());
        }
        assert_eq!(ahead.socket.read(&mut [0; 64]).unwrap(), size_of::<Reply>());
        assert!(!ahead.is_warm().unwrap());
        theirs.write_all(&reply_bytes(Reply { kind: WARM + 1, ..warm })).unwrap();
        assert!(ahead.is_warm().is_err());
    }

    #[test]
    fn one_that_has_ended_is_not_waited_for() {
        let (ours, theirs) = Ahead::socket().unwrap();
        let process =
            NewProcess { pid: 1, init: None, renumbered: None, entering: Entering::default() };
        let ahead = Ahead::new(process, ours);
        assert!(!ahead.is_warm().unwrap());
        drop(theirs);
        assert!(ahead.is_warm().is_err());
    }
}
