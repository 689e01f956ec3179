//! The rehearsal: a first child, here, that runs until prepare() would return. What it misses is what other
//! hosts are pushed; what it touches is what children are given ahead.
//!
//! ```text
//!  child: start ... at-fork handlers ... where prepare() returns --"REHEARSED"--> looked at, killed
//! ```
//! It does what it would do on a host that has nothing of the seed's: its image is one of its own, no file
//! is mapped from this host, each miss is one page. Nothing of it is kept.

use std::fs::{self, File};
use std::io::{self, Read};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Agent;
use super::children::{NewChild, Teller};
use super::failure::fail;
use super::hosted::Start;
use super::hosting::Hosting;
use super::seeds::SeedRecord;
use super::starting::told_environment;
use crate::descriptor::{
    BENEATH, Descriptor, PageTable, Run, SeedAddr, SeedRange, Source, WarmSet,
};
use crate::id::ChildId;
use crate::prepare::{REHEARSED, ROLE_REHEARSAL};
use crate::resume::Enters;
use crate::sys::arch::USER_END;
use crate::sys::pagemap;
use crate::wire::local::{Failure, FailureKind};

/// How long a rehearsal may take; it takes some milliseconds. Of one that hangs is published what it has touched by then.
const DEADLINE: Duration = Duration::from_secs(2);
/// How often it is looked whether it hangs. Twice in a row, as threads are looked at one after the other.
const LOOK: Duration = Duration::from_millis(25);
/// A signal frame without its extended state: return address, ucontext, siginfo, alignment.
const FRAME_BYTES: u64 = 1024;
/// Of a thread's stack above its frame, and of its thread-local storage to either side of the thread pointer:
/// one page each.
const STACK_IN_USE: u64 = 2048;

/// What a rehearsal showed.
#[derive(Debug)]
pub(super) struct Rehearsed {
    /// What is pushed, by first touch: pages that it missed and that the seed owns.
    pub(super) hot: Vec<SeedRange>,
    /// What it touched.
    pub(super) warm: WarmSet,
}

impl Agent {
    /// Runs a child here until prepare() would return, and tells what it touched.
    pub(super) fn rehearse(
        self: &Arc<Self>,
        record: &Arc<SeedRecord>,
        descriptor: &Descriptor,
        bytes: u64,
    ) -> Result<Rehearsed, Failure> {
        let handle = self.seeds.handle(record, self.config.advertise.as_deref());
        let mut places = self.children.admit(1, &[])?;
        let hosted = Hosting::rehearse(self, &handle, descriptor.clone(), bytes)?;
        let missing = |error: io::Error| fail(FailureKind::Missing, format!("/dev/null: {error}"));
        let null = File::options().read(true).write(true).open("/dev/null").map_err(missing)?;
        let (mut line, theirs) = end_line()
            .map_err(|error| fail(FailureKind::Limit, format!("no socket is left: {error}")))?;
        let child = ChildId::random();
        let process = hosted.start(&Start {
            role: ROLE_REHEARSAL,
            index: 0,
            child,
            payload: &[],
            // As a child would be told, for what that touches: 50 misses of a CPython.
            environment: &told_environment(descriptor.generation, 0, b"text"),
            stdio: [theirs.as_fd(), null.as_fd(), null.as_fd()],
            new_ids: false,
            listeners: &[],
            cwd: None,
            hostname: None,
            argv: &[],
            id_map: &[],
            enters: Enters::default(),
        })?;
        drop(theirs);
        let (events, ended) = crossbeam_channel::bounded(1);
        let (stderr, begun) = (Arc::new(null), Instant::now());
        let (seed, living_on) = (record.id, hosted.clone());
        let pid = process.pid;
        places.take(NewChild {
            child,
            seed,
            process,
            teller: Teller::new(events, None),
            hosted: living_on,
            template: None,
            hold: None,
            stderr,
            user: crate::sys::user_id(),
        });
        let mut written = looked_at(&mut line, pid, descriptor).unwrap_or_else(|error| {
            tracing::info!(
                seed = %record.id, %error,
                "a rehearsal ended too soon: children cloned ahead are given no memory of their own"
            );
            Vec::new()
        });
        let _ = self.children.kill(child, libc::SIGKILL);
        let outcome = ended.recv_timeout(DEADLINE);
        let mut touched = standing(descriptor);
        written.extend_from_slice(&touched);
        // What was discarded is not what the next child needs, and no memory of the seed's.
        let is_own = |range: &SeedRange| range.start.0 < BENEATH;
        touched.extend(hosted.image().trace_take().into_iter().filter(is_own));
        let hot = pushable(&touched, &descriptor.page_table);
        let warm = WarmSet::new(&touched, &written);
        let took_us = begun.elapsed().as_micros();
        tracing::debug!(seed = %record.id, ?outcome, took_us, runs = hot.len(), ?warm, "rehearsed");
        Ok(Rehearsed { hot, warm })
    }
}

/// A child's standard input, on which it may say one thing and reads the end of the file, and our end.
fn end_line() -> io::Result<(UnixStream, UnixStream)> {
    let (ours, theirs) = UnixStream::pair()?;
    ours.shutdown(Shutdown::Write)?;
    ours.set_read_timeout(Some(LOOK))?;
    Ok((ours, theirs))
}

/// The pages that a rehearsal has written when it has come to its end or its time is over: of one that hangs (its other
/// threads stand, and it may wait for one of them) what it has done by then.
///
/// # Errors
/// It has ended.
fn looked_at(
    line: &mut UnixStream,
    pid: u32,
    descriptor: &Descriptor,
) -> io::Result<Vec<SeedRange>> {
    let mut said = [0u8; REHEARSED.len()];
    let until = Instant::now() + DEADLINE;
    let mut hung = false;
    loop {
        match line.read_exact(&mut said) {
            Ok(()) if said == REHEARSED => break,
            Ok(()) => return Err(io::ErrorKind::InvalidData.into()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let hangs = hangs(pid);
                if hung && hangs || Instant::now() >= until {
                    tracing::info!(seed = %descriptor.seed, hangs, "a rehearsal has not come to its end in time");
                    break;
                }
                hung = hangs;
            }
            Err(error) => return Err(error),
        }
    }
    written(pid, descriptor)
}

/// Whether each thread of a process waits for ever, for another one to wake it.
fn hangs(pid: u32) -> bool {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return false };
    threads.flatten().all(|thread| {
        fs::read_to_string(thread.path().join("syscall")).is_ok_and(|call| waits_for_ever(&call))
    })
}

/// Whether /proc/PID/syscall is that of a thread in a futex(2) that waits, without a limit in time.
fn waits_for_ever(call: &str) -> bool {
    let mut words = call.split_ascii_whitespace();
    let is_futex = words.next().and_then(|word| word.parse().ok()) == Some(libc::SYS_futex);
    let mut argument = |skipped| {
        let word = words.nth(skipped)?.strip_prefix("0x")?;
        u64::from_str_radix(word, 16).ok()
    };
    let (Some(operation), Some(timeout)) = (argument(1), argument(1)) else { return false };
    let command = i32::try_from(operation).unwrap_or(-1) & libc::FUTEX_CMD_MASK;
    is_futex && timeout == 0 && [libc::FUTEX_WAIT, libc::FUTEX_WAIT_BITSET].contains(&command)
}

/// The pages that a child here has written.
fn written(pid: u32, descriptor: &Descriptor) -> io::Result<Vec<SeedRange>> {
    let map = File::open(format!("/proc/{pid}/pagemap"))?;
    let mut written = Vec::new();
    for vma in &descriptor.vmas {
        written.extend(pagemap::copied_pages(&map, vma.range, descriptor.page_size())?);
    }
    Ok(written)
}

/// What the threads of a whole process touch first, and have not touched in a rehearsal, which ends before
/// they go on: their frames with the stack above, their thread-local storage and what libc keeps beside it.
fn standing(descriptor: &Descriptor) -> Vec<SeedRange> {
    let page = descriptor.page_size();
    let mut ranges = Vec::new();
    // The numbers are the seed's own words, which may be anything.
    let mut add = |start: u64, end: u64| {
        let end = end.min(USER_END).next_multiple_of(page);
        let around = SeedRange::new(end.min(start & !(page - 1)), end);
        let vmas = &descriptor.vmas;
        let first = vmas.partition_point(|vma| vma.range.end <= around.start);
        let inside = vmas[first..].iter().map(|vma| vma.range.intersect(around));
        ranges.extend(inside.take_while(|part| !part.is_empty()));
    };
    for thread in descriptor.threads.iter().skip(1) {
        let frame_bytes = FRAME_BYTES + u64::from(descriptor.needs.xsave_size);
        add(thread.frame.0, thread.frame.0.saturating_add(frame_bytes + STACK_IN_USE));
        let tls = thread.fs_base;
        add(tls.saturating_sub(STACK_IN_USE), tls.saturating_add(STACK_IN_USE));
        let (robust, _) = thread.robust_list;
        let words = [Some(thread.tid_address), Some(robust), thread.rseq.map(|rseq| rseq.addr)];
        for SeedAddr(word) in words.into_iter().flatten() {
            add(word, word.saturating_add(8));
        }
    }
    super::publish::joined(ranges)
}

/// The parts of what a rehearsal touched that the seed owns where the child has them, those that touch as one:
/// zeros and absent pages are never sent. In the order of their first touch: a child runs behind its push.
fn pushable(touched: &[SeedRange], table: &PageTable) -> Vec<SeedRange> {
    let owned = |run: &Run| match run.source {
        Source::Owner { owner, addr } | Source::File { owner, addr, .. } => {
            owner.0 == 0 && addr == run.range.start
        }
        Source::Zero => false,
    };
    let runs = touched.iter().flat_map(|range| table.overlapping(*range));
    let parts: Vec<SeedRange> = runs.filter(owned).map(|run| run.range).collect();
    let joined = super::publish::joined(parts.clone());
    let mut waits = vec![true; joined.len()];
    let in_order = parts.iter().filter_map(|part| {
        let at = joined.partition_point(|whole| whole.end <= part.start);
        std::mem::take(&mut waits[at]).then(|| joined[at])
    });
    in_order.collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::descriptor::{OwnerIndex, Thread, Vma, VmaFlags, VmaKind};
    use crate::resume::compile::tests::descriptor;

    #[test]
    fn who_is_in_a_futex_without_a_limit_in_time_waits_for_ever() {
        let call = |number, operation: i32, timeout: u64| {
            format!(
                "{number} 0x7f00 {operation:#x} 0x2 {timeout:#x} 0x0 0xffffffff 0x7ffe 0x7fb1\n"
            )
        };
        let futex = libc::SYS_futex;
        // As glibc waits for a mutex, and for a condition.
        let (mutex, condition) = (libc::FUTEX_PRIVATE_FLAG, 0x189);
        for waits in [call(futex, mutex, 0), call(futex, condition, 0)] {
            assert!(waits_for_ever(&waits), "{waits}");
        }
        let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
        let others = [
            call(futex, condition, 0x7ffe_1000),
            call(futex, wake, 0),
            call(libc::SYS_read, mutex, 0),
            "running\n".to_owned(),
            "-1 0x7ffe 0x7fb1\n".to_owned(),
            String::new(),
        ];
        for other in others {
            assert!(!waits_for_ever(&other), "{other}");
        }
        assert!(!hangs(std::process::id()), "this thread runs");
        assert!(!hangs(u32::MAX), "nobody");
    }

    #[test]
    fn what_is_touched_first_is_pushed_first_and_nothing_twice() {
        let owned = |start: u64, end: u64| Run {
            range: SeedRange::new(start, end),
            source: Source::Owner { owner: OwnerIndex(0), addr: SeedAddr(start) },
        };
        let zero = Run { range: SeedRange::new(0x6000, 0x7000), source: Source::Zero };
        let table =
            PageTable::new([owned(0x1000, 0x6000), zero, owned(0x7000, 0x9000)], 4096).unwrap();
        let touched = [
            (0x8000, 0x9000),
            (0x3000, 0x4000),
            (0x6000, 0x7000),
            (0x2000, 0x3000),
            (0x8000, 0x9000),
        ];
        let touched = touched.map(|(start, end)| SeedRange::new(start, end));
        let expected = [SeedRange::new(0x8000, 0x9000), SeedRange::new(0x2000, 0x4000)];
        assert_eq!(pushable(&touched, &table), expected);
    }

    #[test]
    fn one_that_hangs_is_looked_at_and_one_that_has_ended_is_not() {
        // Of this process, which is none.
        let memory = vec![1u8; 16 << 12];
        let start = (memory.as_ptr().addr() as u64).next_multiple_of(4096);
        let range = SeedRange::new(start, start + (8 << 12));
        let (prot, kind, flags) = (3, VmaKind::Anonymous, VmaFlags::default());
        let mut desc = descriptor();
        desc.vmas = vec![Vma { range, prot, kind, flags }];
        let pages =
            |ranges: Vec<SeedRange>| ranges.iter().map(|range| range.len() >> 12).sum::<u64>();
        let (mut line, theirs) = end_line().unwrap();
        line.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        assert_eq!(pages(looked_at(&mut line, std::process::id(), &desc).unwrap()), 8);
        (&theirs).write_all(&REHEARSED).unwrap();
        assert_eq!(pages(looked_at(&mut line, std::process::id(), &desc).unwrap()), 8);
        drop(theirs);
        assert!(looked_at(&mut line, std::process::id(), &desc).is_err());
        assert_eq!(memory.len(), 16 << 12);
    }

    #[test]
    fn threads_stand_on_frame_and_storage_so_far_as_they_are_mapped() {
        let mut desc = descriptor();
        assert_eq!(standing(&desc), []);
        let vma = |start: u64, end: u64| Vma {
            range: SeedRange::new(start, end),
            prot: 3,
            kind: VmaKind::Anonymous,
            flags: VmaFlags::default(),
        };
        desc.vmas = vec![vma(0x10_0000, 0x11_0000), vma(0x20_0000, 0x20_1000)];
        desc.needs.xsave_size = 2048;
        desc.threads.push(Thread {
            frame: SeedAddr(0x10_e010),
            fs_base: 0x20_0800,
            robust_list: (SeedAddr(0x10_0008), 24),
            ..Thread::default()
        });
        let expected = [(0x10_0000, 0x10_1000), (0x10_e000, 0x11_0000), (0x20_0000, 0x20_1000)];
        let expected = expected.map(|(start, end)| SeedRange::new(start, end));
        assert_eq!(standing(&desc), expected);
        // What no kernel has said.
        for addr in [u64::MAX, u64::MAX - 8, u64::MAX << 12, USER_END, USER_END - 1, 1 << 63] {
            desc.threads.push(Thread {
                frame: SeedAddr(addr),
                fs_base: addr,
                robust_list: (SeedAddr(addr), 24),
                tid_address: SeedAddr(addr),
                ..Thread::default()
            });
        }
        desc.needs.xsave_size = u32::MAX;
        assert_eq!(standing(&desc), expected);
    }
}
