//! Memory, private and shared.

use std::io::Write;
use std::os::fd::AsRawFd;

use super::*;

pub(crate) const SHARED_AT: u64 = 0x11_0000_0000;
pub(crate) const MEMFD_AT: u64 = 0x12_0000_0000;
pub(crate) const MEMFD_VIEW_AT: u64 = 0x13_0000_0000;
pub(crate) const READ_ONLY_FILE_AT: u64 = 0x14_0000_0000;

/// # Safety
/// `at..at + pages` is free.
pub(crate) unsafe fn map(at: u64, pages: usize, flags: i32, fd: i32) -> &'static mut [u8] {
    // SAFETY: the caller's.
    unsafe { map_as(at, pages, flags, fd, libc::PROT_READ | libc::PROT_WRITE) }
}

unsafe fn map_as(at: u64, pages: usize, flags: i32, fd: i32, prot: i32) -> &'static mut [u8] {
    // SAFETY: MAP_FIXED_NOREPLACE replaces nothing.
    unsafe {
        let (at, len) = (at as *mut libc::c_void, pages * PAGE);
        let got = libc::mmap(at, len, prot, flags | libc::MAP_FIXED_NOREPLACE, fd, 0);
        assert_eq!(got, at, "{}", std::io::Error::last_os_error());
        std::slice::from_raw_parts_mut(at.cast(), len)
    }
}

pub(crate) fn memory_contents() {
    // SAFETY: nothing else is there.
    let memory = unsafe { map(PRIVATE_AT, 64, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1) };
    for (i, byte) in memory.iter_mut().enumerate() {
        *byte = u8::try_from(i % 251).unwrap();
    }
    let before = memory.to_vec();
    let seed = seed();
    assert!(memory == before.as_slice());
    // What the parent writes now is not the seed's.
    memory.fill(0xee);
    seed.handle().unwrap();
    assert!(memory.iter().all(|byte| *byte == 0xee));
}

pub(crate) fn mappings_are_left_as_they_were() {
    // SAFETY: nothing else is there.
    unsafe { map(SHARED_AT, 64, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1).fill(1) };
    drop_and_reap(seed());
    unchanged(mappings);
}

fn memfd(name: &std::ffi::CStr, pages: usize) -> i32 {
    // SAFETY: a new descriptor.
    unsafe {
        let fd = libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC);
        assert_eq!(libc::ftruncate(fd, (pages * PAGE) as i64), 0);
        fd
    }
}

pub(crate) fn shared_memory_is_copied() {
    let fd = memfd(c"pool", 8);
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&[4; PAGE]).unwrap();
    // SAFETY: nothing else is there.
    unsafe {
        let anonymous = map(SHARED_AT, 1000, libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1);
        let pool = map(MEMFD_AT, 8, libc::MAP_SHARED, fd);
        map_as(MEMFD_VIEW_AT, 8, libc::MAP_SHARED, fd, libc::PROT_READ);
        let flags = libc::MAP_SHARED;
        map_as(READ_ONLY_FILE_AT, 1, flags, file.as_raw_fd(), libc::PROT_READ);
        anonymous[500 * PAGE] = 1;
        pool[3 * PAGE] = 2;
        let seed = seed();
        // As a server's other requests would: the seed must not see it.
        anonymous[500 * PAGE] = 0xff;
        anonymous[501 * PAGE] = 0xff;
        pool[3 * PAGE] = 0xff;
        seed.handle().unwrap();
        assert_eq!((anonymous[500 * PAGE], pool[3 * PAGE]), (0xff, 0xff));
    }
}

pub(crate) fn shared_memory_above_the_limit_is_refused_by_name() {
    let before = (fds(), mappings());
    let fd = memfd(c"big-pool", 64);
    // SAFETY: nothing else is there.
    let pool = unsafe { map(MEMFD_AT, 64, libc::MAP_SHARED, fd) };
    pool[..32 * PAGE].fill(1);
    let limit = |pages: usize| PrepareOptions {
        shared_copy_limit: (pages * PAGE) as u64,
        ..PrepareOptions::default()
    };
    let text = seed_with(&limit(31)).unwrap_err().to_string();
    assert!(text.contains("/memfd:big-pool") && text.contains("1200000000"), "{text}");
    // At the limit it is fine.
    drop_and_reap(seed_with(&limit(32)).unwrap());
    // SAFETY: ours, and no longer used.
    unsafe {
        libc::munmap(MEMFD_AT as *mut _, 64 * PAGE);
        libc::close(fd);
    }
    assert_eq!((fds(), mappings()), before);
}
