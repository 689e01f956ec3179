//! The cases that were got wrong once, each as a script that is compared with a plain process, and what
//! cannot be compared: shared and file memory, threads, a full address space.

use std::thread;

use libc::c_int;
use mitosis::descriptor::SiteKind;

use crate::duel::{self, script};
use crate::op::{Op, Place};
use crate::player::{advise, exit, remap, wait};
use crate::registers;
use crate::stand_in::{self, PAGE, Snapshot, StandIn, map, read};

const DONTNEED: c_int = 4;
const FREE: c_int = 8;
const REMOVE: c_int = 9;
const DONTFORK: c_int = 10;
const DOFORK: c_int = 11;
const WIPEONFORK: c_int = 18;
const DONTNEED_LOCKED: c_int = 24;
const GUARD_INSTALL: c_int = 102;
const GUARD_REMOVE: c_int = 103;

pub(crate) const ALL: &[(&str, fn())] = &[
    ("libc_has_its_four_sites", libc_has_its_four_sites),
    ("an_unpatched_child_is_caught", an_unpatched_child_is_caught),
    ("discards", discards),
    ("advice_that_stays_on_memory", advice_that_stays_on_memory),
    ("locked_memory", locked_memory),
    ("guards", guards),
    ("growth", growth),
    ("moves", moves),
    ("more_moves_than_the_table_holds", more_moves_than_the_table_holds),
    ("the_break", the_break),
    ("registers_are_kept", registers::registers_are_kept),
    ("the_stack_is_used_sparingly", registers::the_stack_is_used_sparingly),
    ("shared_memory_keeps_its_bytes", shared_memory_keeps_its_bytes),
    ("a_carried_file_is_the_kernels", a_carried_file_is_the_kernels),
    ("threads_discard_side_by_side", threads_discard_side_by_side),
    ("without_vmas_left_zeros_are_written", without_vmas_left_zeros_are_written),
    ("without_proc_there_is_an_error", without_proc_there_is_an_error),
];

fn at(page: u64) -> Place {
    Place { window: 0, offset: page * PAGE }
}

fn advice(page: u64, pages: u64, advice: c_int) -> Op {
    Op::Advise { at: at(page), len: pages * PAGE, advice, by_number: page % 2 == 1 }
}

fn moving(page: u64, pages: u64, new_pages: u64, flags: c_int, to: u64) -> Op {
    let (len, new_len) = (pages * PAGE, new_pages * PAGE);
    Op::Remap { at: at(page), len, new_len, flags, to: at(to), by_number: page % 2 == 1 }
}

fn protect(page: u64, pages: u64, prot: c_int) -> Op {
    Op::Protect { at: at(page), len: pages * PAGE, prot }
}

fn write(page: u64, pages: u64) -> Op {
    Op::Write { at: at(page), len: pages * PAGE, byte: 0x35 }
}

fn lock(page: u64, pages: u64) -> Op {
    Op::Lock { at: at(page), len: pages * PAGE, lock: true }
}

fn unmap(page: u64, pages: u64) -> Op {
    Op::Unmap { at: at(page), len: pages * PAGE }
}

fn same(ops: &[Op]) {
    if let Err(difference) = script(ops) {
        panic!("{difference}");
    }
}

fn libc_has_its_four_sites() {
    let (_, sites) = stand_in::libc_sites();
    for kind in [SiteKind::Madvise, SiteKind::Mremap, SiteKind::Generic] {
        assert!(sites.iter().any(|site| site.kind == kind), "{kind:?} in {sites:x?}");
    }
    assert!(sites.len() < 10, "{sites:x?}");
}

/// What is compared can differ at all.
fn an_unpatched_child_is_caught() {
    let ops = [(advice(20, 4, DONTNEED), true)];
    let unpatched = duel::unpatched(&ops);
    assert!(unpatched.is_err_and(|why| why.contains("window 0 page 0x14")));
    let ops = [(moving(20, 4, 6, 1, 0), true)];
    assert!(duel::unpatched(&ops).is_err(), "a grown file mapping went unnoticed");
}

fn discards() {
    same(&[
        advice(20, 3, DONTNEED),
        protect(30, 2, libc::PROT_READ),
        protect(32, 2, libc::PROT_NONE),
        advice(29, 6, DONTNEED),
        write(40, 2),
        advice(39, 4, FREE),
        write(40, 1),
        advice(39, 4, FREE),
        advice(44, 2, REMOVE),
        unmap(50, 2),
        advice(48, 6, DONTNEED),
        advice(8, 12, DONTNEED),
        Op::Advise {
            at: Place { window: 0, offset: 60 * PAGE + 7 },
            len: PAGE,
            advice: 4,
            by_number: false,
        },
        Op::Advise { at: at(60), len: 5000, advice: DONTNEED, by_number: true },
        Op::Advise { at: at(64), len: 0, advice: DONTNEED, by_number: true },
        Op::Advise {
            at: at(64),
            len: 0_u64.wrapping_sub(PAGE),
            advice: DONTNEED,
            by_number: false,
        },
        advice(66, 1, 999),
        Op::ForkAside { at: at(70), len: 8 * PAGE },
        Op::Fork,
        advice(70, 4, DONTNEED),
        advice(16, 96, DONTNEED),
        write(16, 2),
        advice(16, 96, DONTNEED),
    ]);
}

fn advice_that_stays_on_memory() {
    same(&[
        advice(20, 4, WIPEONFORK),
        advice(30, 4, DONTFORK),
        advice(32, 4, DONTNEED),
        protect(40, 2, libc::PROT_NONE),
        advice(39, 4, WIPEONFORK),
        write(20, 1),
        Op::Fork,
        advice(50, 4, DONTFORK),
        advice(50, 2, DOFORK),
        Op::Fork,
    ]);
}

fn locked_memory() {
    same(&[
        lock(20, 4),
        advice(18, 6, DONTNEED),
        advice(20, 2, FREE),
        advice(18, 4, DONTNEED_LOCKED),
        advice(18, 4, DONTNEED),
        advice(22, 2, WIPEONFORK),
        lock(40, 4),
        moving(40, 4, 8, 1, 60),
        moving(41, 3, 6, 3, 120),
        Op::Fork,
        advice(20, 4, DONTNEED),
    ]);
}

fn guards() {
    same(&[
        advice(20, 4, GUARD_INSTALL),
        advice(21, 2, GUARD_REMOVE),
        advice(20, 4, DONTNEED),
        advice(20, 4, GUARD_REMOVE),
        lock(30, 2),
        advice(30, 2, GUARD_INSTALL),
    ]);
}

fn growth() {
    same(&[
        // The end of what is mapped: grows in place.
        moving(108, 4, 8, 0, 0),
        advice(114, 4, DONTNEED),
        moving(108, 8, 12, 1, 0),
        // In the middle: must move, or fails.
        moving(40, 4, 6, 0, 0),
        moving(40, 4, 12, 1, 120),
        advice(118, 6, DONTNEED),
        // Of one page image, of one page fresh.
        advice(60, 1, DONTNEED),
        moving(60, 2, 5, 1, 130),
        moving(70, 8, 2, 0, 0),
        moving(80, 8, 2, 3, 136),
    ]);
}

fn moves() {
    same(&[
        advice(22, 2, DONTNEED),
        moving(20, 8, 8, 3, 120),
        advice(120, 1, DONTNEED),
        moving(120, 8, 8, 3, 20),
        advice(20, 8, DONTNEED),
        moving(30, 4, 4, 5, 0),
        moving(40, 4, 4, 7, 130),
        write(40, 1),
        advice(40, 4, DONTNEED),
        advice(130, 4, DONTNEED),
        protect(52, 2, libc::PROT_READ),
        moving(50, 6, 6, 1, 0),
        moving(50, 6, 8, 3, 140),
        moving(50, 6, 6, 3, 140),
        unmap(62, 1),
        moving(60, 6, 6, 3, 148),
        moving(70, 4, 4, 3, 72),
        Op::Fork,
        advice(140, 14, DONTNEED),
    ]);
}

fn more_moves_than_the_table_holds() {
    let mut ops: Vec<Op> = Vec::new();
    for page in 0..80 {
        ops.push(moving(16 + page, 1, 1, 3, if page % 2 == 0 { 120 } else { 122 }));
        ops.push(moving(if page % 2 == 0 { 120 } else { 122 }, 1, 1, 3, 16 + page));
    }
    ops.push(advice(16, 96, DONTNEED));
    same(&ops);
}

fn the_break() {
    let heap = |page: u64| Place { window: 1, offset: page * PAGE };
    same(&[
        Op::Break { pages: 12 },
        Op::Break { pages: 30 },
        Op::Write { at: heap(20), len: 5 * PAGE, byte: 7 },
        Op::Advise { at: heap(8), len: 16 * PAGE, advice: DONTNEED, by_number: false },
        Op::Break { pages: 4 },
        Op::Break { pages: 24 },
        Op::Deepen { len: 300 << 10 },
    ]);
}

/// Runs `test` in a process of its own, which may change itself for good.
pub(crate) fn alone(test: impl FnOnce()) {
    // SAFETY: this process has one thread.
    match unsafe { libc::fork() } {
        0 => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(test));
            exit(i32::from(done.is_err()))
        }
        child => assert_eq!(wait(child), 0, "see above"),
    }
}

/// Pages that hold their number, from an image.
pub(crate) fn numbered(pages: u64, shared: bool, listed: bool) -> (u64, StandIn) {
    let start = map(0, pages * PAGE, 3, 0);
    for page in 0..pages {
        stand_in::fill(start + page * PAGE, PAGE, (page as u8).wrapping_add(1));
    }
    let snapshot = Snapshot { shared, listed, ..Snapshot::anonymous(start, pages * PAGE) };
    (start, StandIn::make(&[snapshot], false))
}

pub(crate) fn assert_page(addr: u64, byte: u8) {
    assert!(read(addr, PAGE).iter().all(|found| *found == byte), "{addr:#x} is not {byte:#x}");
}

fn shared_memory_keeps_its_bytes() {
    alone(|| {
        let (start, _) = numbered(8, true, true);
        stand_in::fill(start, PAGE, 0x77);
        assert_eq!(advise(start, 8 * PAGE, DONTNEED, false), 0);
        assert_page(start, 0x77);
        assert_page(start + PAGE, 2);
        assert_eq!(advise(start, PAGE, FREE, false), -1);
        assert_eq!(advise(start, PAGE, WIPEONFORK, false), -1);
        assert_eq!(advise(start, PAGE, REMOVE, true), 0);
        assert_page(start, 0);
        let target = map(0, 8 * PAGE, 0, 0);
        assert_eq!(remap(start, 8 * PAGE, 8 * PAGE, 3, target, false).cast_unsigned(), target);
        stand_in::fill(target, PAGE, 0x55);
        assert_eq!(advise(target, 8 * PAGE, DONTNEED, false), 0);
        assert_page(target, 0x55);
        assert_page(target + 7 * PAGE, 8);
    });
}

fn a_carried_file_is_the_kernels() {
    alone(|| {
        let (start, _) = numbered(8, false, false);
        stand_in::fill(start, PAGE, 0x77);
        assert_eq!(advise(start, PAGE, DONTNEED, false), 0);
        assert_page(start, 1);
    });
}

fn threads_discard_side_by_side() {
    const THREADS: u64 = 4;
    const PAGES: u64 = 1024;
    alone(|| {
        let start = map(0, PAGES * PAGE, 3, 0);
        stand_in::fill(start, PAGES * PAGE, 0x11);
        let stand_in = StandIn::make(&[Snapshot::anonymous(start, PAGES * PAGE)], false);
        thread::scope(|scope| {
            for thread in 0..THREADS {
                scope.spawn(move || {
                    for page in (thread..PAGES).step_by(THREADS as usize) {
                        let addr = start + page * PAGE;
                        assert_page(addr, 0x11);
                        assert_eq!(advise(addr, PAGE, DONTNEED, page % 8 < 4), 0);
                        assert_page(addr, 0);
                        stand_in::fill(addr, PAGE, thread as u8);
                    }
                });
            }
        });
        for page in 0..PAGES {
            assert_page(start + page * PAGE, (page % THREADS) as u8);
        }
        assert_eq!(stand_in.cleared(), stand_in.chunks(), "a chunk is asked about for ever");
    });
}

fn without_vmas_left_zeros_are_written() {
    alone(|| {
        let (start, _) = numbered(64, false, true);
        // Every second page another protection: one VMA each, until there are no more.
        let len = 70_000 * PAGE;
        let many = map(0, len, 1, libc::MAP_NORESERVE);
        let left = (0..70_000).step_by(2).find(|page| {
            let page = (many + page * PAGE) as *mut libc::c_void;
            // SAFETY: memory of this test.
            (unsafe { libc::mprotect(page, PAGE as usize, 3) }) != 0
        });
        assert!(left.is_some(), "the kernel's vm.max_map_count is above 70,000");
        assert_eq!(advise(start + 8 * PAGE, 4 * PAGE, DONTNEED, false), 0);
        assert_page(start + 7 * PAGE, 8);
        for page in 8..12 {
            assert_page(start + page * PAGE, 0);
        }
        assert_page(start + 12 * PAGE, 13);
    });
}

fn without_proc_there_is_an_error() {
    alone(|| {
        let (start, _) = numbered(8, false, true);
        let none = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
        // SAFETY: a limit of this process alone.
        assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const none) }, 0);
        assert_eq!(advise(start, PAGE, DONTNEED, false), -1);
        assert_eq!(stand_in::errno(), libc::ENOMEM);
        assert_eq!(advise(start, PAGE, FREE, false), -1);
        assert_eq!(stand_in::errno(), libc::EINVAL);
        assert_eq!(remap(start, PAGE, 2 * PAGE, 1, 0, false), -1);
        assert_eq!(stand_in::errno(), libc::ENOMEM);
        assert_page(start, 1);
    });
}
