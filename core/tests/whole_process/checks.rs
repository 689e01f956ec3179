//! What a whole process's seed must say.

use std::collections::BTreeSet;
use std::os::unix::fs::FileExt;

use mitosis::descriptor::{FileKind, SeedAddr, Source, VmaFlags};

use super::agent::{Agent, Taken};
use super::cases::{MARKED_AT, PAGE, SHARED_AT, WATCHES};

/// Offset of `uc_sigmask` in x86-64's `struct ucontext`.
const MASK_IN_FRAME: u64 = 296;

fn word(taken: &Taken, at: u64) -> u64 {
    let mut bytes = [0; 8];
    taken.mem.read_exact_at(&mut bytes, at).unwrap();
    u64::from_le_bytes(bytes)
}

/// What holds for the seed of any process whose threads have begun.
pub(crate) fn every_seed_is_whole(agent: &Agent) {
    every_seed_has_its_threads(agent);
    for index in 0..agent.seed_count() {
        agent.with_descriptor(index, |descriptor, _| {
            for thread in &descriptor.threads {
                assert_eq!(thread.robust_list.1, 24);
                assert!(thread.rseq.is_some_and(|rseq| rseq.len % 32 == 0), "glibc registers rseq");
                assert!(!thread.name.is_empty());
            }
        });
    }
}

/// What holds for a thread in its first instructions, too, before libc has told the kernel of it.
pub(crate) fn every_seed_has_its_threads(agent: &Agent) {
    assert!(agent.seed_count() > 0);
    for index in 0..agent.seed_count() {
        agent.with_descriptor(index, |descriptor, taken| {
            let whole = descriptor.whole.as_ref().expect("it is a whole process");
            assert_eq!(whole.sched.len(), descriptor.threads.len());
            let vma_of = |addr: SeedAddr| {
                let vma = descriptor.vmas.iter().find(|vma| vma.range.contains(addr));
                vma.unwrap_or_else(|| panic!("{addr} is not carried"))
            };
            assert_eq!(vma_of(whole.gate).prot, 3);
            assert_eq!(word(taken, whole.gate.0) & 0xffff_ffff, 0, "the gate is closed");
            let (mut tids, mut stacks) = (BTreeSet::new(), BTreeSet::new());
            for thread in &descriptor.threads {
                assert!(tids.insert(thread.tid), "{} stands twice", thread.tid);
                assert!(stacks.insert(thread.frame), "{} stands on another's frame", thread.tid);
                vma_of(thread.frame);
                vma_of(SeedAddr(thread.fs_base));
                vma_of(thread.tid_address);
                // glibc's TCB: its own address, and the thread id where the kernel clears it.
                assert_eq!(word(taken, thread.fs_base), thread.fs_base);
                let tid = word(taken, thread.tid_address.0) & 0xffff_ffff;
                assert_eq!(tid, u64::from(thread.tid));
            }
            // Ours blocks everything, libc's nothing.
            assert_eq!(
                descriptor.process.signal_actions[32].mask, 0,
                "signal 33 is not given back"
            );
            assert_eq!(taken.magic, mitosis::prepare::RESUME_MAGIC.to_le_bytes());
            let links = descriptor.open_files.iter().map(|file| file.link.as_str());
            let ours: Vec<_> = links.filter(|link| link.starts_with("/proc/")).collect();
            assert!(ours.is_empty(), "{ours:?}");
        });
    }
}

pub(crate) fn the_masks_are_those_of_the_threads(agent: &Agent) {
    every_seed_is_whole(agent);
    agent.with_descriptor(0, |descriptor, taken| {
        let named = |name: &str| {
            let found = descriptor.threads.iter().find(|thread| thread.name == name.as_bytes());
            found.unwrap_or_else(|| panic!("no thread '{name}'"))
        };
        let mask = |name: &str| word(taken, named(name).frame.0 + MASK_IN_FRAME);
        assert_eq!(mask("AllBlocked") | 1 << 8 | 1 << 18, !0);
        assert_eq!(mask("SigWait"), 1 << (libc::SIGUSR2 - 1));
        assert_eq!(mask("Futex"), 0);
    });
}

pub(crate) fn two_hundred_and_one(agent: &Agent) {
    every_seed_is_whole(agent);
    agent.with_descriptor(0, |descriptor, _| assert_eq!(descriptor.threads.len(), 201));
}

pub(crate) fn a_hundred_seeds(agent: &Agent) {
    assert_eq!(agent.seed_count(), 100);
    for index in [0, 57, 99] {
        agent.with_descriptor(index, |descriptor, _| assert_eq!(descriptor.threads.len(), 11));
    }
}

pub(crate) fn the_caller_comes_first(agent: &Agent) {
    every_seed_is_whole(agent);
    agent.with_descriptor(0, |descriptor, _| {
        assert_eq!(descriptor.threads[0].name, b"caller");
        assert_ne!(descriptor.threads[0].tid, descriptor.process.parent_pid);
        let main = descriptor.threads.iter().find(|t| t.tid == descriptor.process.parent_pid);
        assert!(main.is_some(), "the main thread is there");
    });
}

pub(crate) fn marked_memory_is_carried(agent: &Agent) {
    agent.with_descriptor(0, |descriptor, taken| {
        for page in 0..16u64 {
            let at = MARKED_AT + page * PAGE as u64;
            let vma = descriptor.vmas.iter().find(|vma| vma.range.contains(SeedAddr(at))).unwrap();
            assert_eq!(vma.flags.has(VmaFlags::DONT_FORK), page < 12, "page {page}");
            assert_eq!(word(taken, at) & 0xff, 7, "page {page}");
        }
    });
}

pub(crate) fn the_copy_has_the_old_bytes(agent: &Agent) {
    agent.with_descriptor(0, |descriptor, taken| {
        let run = descriptor.page_table.lookup(SeedAddr(SHARED_AT)).unwrap();
        let Source::Owner { addr, .. } = run.source else { panic!("{run:?}") };
        assert_ne!(addr.0, SHARED_AT);
        let pages: Vec<_> = [0, 3, 99]
            .map(|page| {
                let at = addr.0 + (SHARED_AT - run.range.start.0) + page * PAGE as u64;
                word(taken, at) & 0xff
            })
            .into();
        assert_eq!(pages, [5, 0, 6]);
    });
}

pub(crate) fn every_watch_is_carried(agent: &Agent) {
    agent.with_descriptor(0, |descriptor, _| {
        let files = descriptor.carried.as_ref().expect("files are carried").files();
        let watches = files.iter().find_map(|file| match &file.kind {
            FileKind::Epoll { watches } => Some(watches),
            _ => None,
        });
        let mut data: Vec<u64> =
            watches.unwrap().iter().map(|watch| u64::MAX - watch.data).collect();
        data.sort_unstable();
        assert_eq!(data, (0..u64::from(WATCHES)).collect::<Vec<_>>());
    });
}

pub(crate) fn schedules_are_listed(agent: &Agent) {
    agent.with_descriptor(0, |descriptor, _| {
        let whole = descriptor.whole.as_ref().unwrap();
        let of = |name: &[u8]| {
            let at = descriptor.threads.iter().position(|thread| thread.name == name).unwrap();
            whole.sched[at]
        };
        assert_eq!((of(b"nice").policy, of(b"nice").nice), (0, 7));
        let batch = u32::try_from(libc::SCHED_BATCH).unwrap();
        assert_eq!(of(b"batch").policy, batch);
    });
}
