//! Memory that a fork leaves out, and memory that others share.

use std::fs;

use mitosis::prepare::PrepareOptions;

use super::cases::{
    MARKED_AT, PAGE, SHARED_AT, all_masks, end, keep, options, seed, seed_with, soon_as_before,
};
use super::threads::{Crew, Kind};

/// Nothing else is there.
unsafe fn map(at: u64, pages: usize, flags: i32) -> &'static mut [u8] {
    let (prot, len) = (libc::PROT_READ | libc::PROT_WRITE, pages * PAGE);
    let flags = flags | libc::MAP_ANONYMOUS | libc::MAP_FIXED_NOREPLACE;
    // SAFETY: the caller's.
    unsafe {
        let at = usize::try_from(at).unwrap() as *mut libc::c_void;
        assert_eq!(libc::mmap(at, len, prot, flags, -1, 0), at);
        std::slice::from_raw_parts_mut(at.cast(), len)
    }
}

/// Whether a fork's child has byte `at`.
fn a_fork_has(at: u64) -> bool {
    // SAFETY: the child asks the kernel and ends.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            let mut resident = 0u8;
            let at = usize::try_from(at).unwrap() as *mut libc::c_void;
            let there = libc::mincore(at, 1, &raw mut resident) == 0;
            libc::_exit(i32::from(there));
        }
        let mut status = 0;
        assert_eq!(libc::waitpid(pid, &raw mut status, 0), pid);
        libc::WEXITSTATUS(status) == 1
    }
}

pub(crate) fn memory_that_is_not_to_be_forked() {
    // SAFETY: nothing else is there.
    let memory = unsafe { map(MARKED_AT, 16, libc::MAP_PRIVATE) };
    memory.fill(7);
    let page = |number: usize| (&raw const memory[number * PAGE]).cast_mut().cast::<libc::c_void>();
    // SAFETY: our own mapping.
    unsafe {
        assert_eq!(libc::madvise(page(0), 12 * PAGE, libc::MADV_DONTFORK), 0);
        assert_eq!(libc::mprotect(page(4), PAGE, libc::PROT_READ), 0);
    }
    let crew = Crew::of([Kind::Futex, Kind::Spin]);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let near = |maps: &str| -> Vec<String> {
        maps.lines().filter(|line| line.starts_with("10000")).map(str::to_owned).collect()
    };
    let seed = seed();
    assert_eq!(near(&fs::read_to_string("/proc/self/maps").unwrap()), near(&maps));
    for (number, has) in [(0, false), (4, false), (11, false), (12, true), (15, true)] {
        assert_eq!(a_fork_has(page(number) as usize as u64), has, "page {number}");
    }
    memory[12 * PAGE..].fill(9);
    memory[..4 * PAGE].fill(9);
    keep(seed);
    crew.end();
}

pub(crate) fn shared_memory_is_copied() {
    // SAFETY: nothing else is there.
    let memory = unsafe { map(SHARED_AT, 100, libc::MAP_SHARED) };
    (memory[0], memory[99 * PAGE]) = (5, 6);
    let crew = Crew::of([Kind::Futex]);
    let seed = seed();
    (memory[0], memory[3 * PAGE], memory[99 * PAGE]) = (1, 1, 1);
    keep(seed);
    crew.end();
}

pub(crate) fn shared_memory_above_the_limit_is_refused_by_name() {
    // SAFETY: nothing else is there.
    let memory = unsafe { map(SHARED_AT, 3, libc::MAP_SHARED) };
    memory.fill(1);
    let crew = Crew::new(10);
    let masks = all_masks();
    let few = PrepareOptions { shared_copy_limit: 2 * PAGE as u64, ..options() };
    let error = seed_with(&few).unwrap_err().to_string();
    assert!(error.contains("/dev/zero") && error.contains("shared_copy_limit"), "{error}");
    soon_as_before(&masks, all_masks);
    end(seed());
    crew.end();
}
