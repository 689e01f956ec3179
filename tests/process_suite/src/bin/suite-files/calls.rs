//! System calls with descriptors, each a line where it is used.

use std::ffi::CString;
use std::io;

/// What a call answered, or its error's number, negative.
pub fn answer(result: i64) -> i64 {
    match result {
        -1 => -i64::from(io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO)),
        result => result,
    }
}

/// A call of plain numbers and pointers to what lives.
macro_rules! sys {
    ($name:ident $(, $arg:expr)* $(,)?) => {{
        // SAFETY: numbers, and pointers to what lives through the call.
        $crate::calls::answer(i64::from(unsafe { libc::$name($($arg),*) } as isize as i64))
    }};
}
pub(crate) use sys;

/// A descriptor moved to a number, with its FD_CLOEXEC: which numbers this process inherited makes no difference.
pub fn at(fd: i64, number: i32) -> i32 {
    let fd = i32::try_from(fd).unwrap_or(-1);
    assert!(fd >= 0, "no descriptor for {number}: {fd}");
    if fd != number {
        let flags = if closes_at_exec(fd) { libc::O_CLOEXEC } else { 0 };
        assert!(sys!(dup3, fd, number, flags) >= 0);
        sys!(close, fd);
    }
    number
}

/// Two descriptors moved to numbers.
pub fn both(made: i64, ends: [i32; 2], numbers: [i32; 2]) {
    assert!(made == 0, "{made}");
    // Far from all numbers that are wanted.
    let far = ends.map(|fd| {
        let command = if closes_at_exec(fd) { libc::F_DUPFD_CLOEXEC } else { libc::F_DUPFD };
        let moved = sys!(fcntl, fd, command, 900);
        sys!(close, fd);
        moved
    });
    for (fd, number) in far.into_iter().zip(numbers) {
        at(fd, number);
    }
}

/// open(2).
pub fn open(path: &str, flags: i32, number: i32) -> i32 {
    let path = CString::new(path).unwrap_or_default();
    at(sys!(open, path.as_ptr(), flags, 0o644), number)
}

/// What read(2) brings: bytes, or an error's number.
pub fn read(fd: i32) -> Result<Vec<u8>, i32> {
    let mut bytes = vec![0u8; 4096];
    let got = sys!(read, fd, bytes.as_mut_ptr().cast(), bytes.len());
    let len = usize::try_from(got).map_err(|_| i32::try_from(-got).unwrap_or(0))?;
    bytes.truncate(len);
    Ok(bytes)
}

/// write(2).
pub fn write(fd: i32, bytes: &[u8]) -> i64 {
    sys!(write, fd, bytes.as_ptr().cast(), bytes.len())
}

/// A u64 that is read, of an eventfd or a timerfd.
pub fn number(fd: i32) -> Result<u64, i32> {
    let bytes = read(fd)?;
    bytes.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes)).ok_or(0)
}

/// FD_CLOEXEC.
pub fn closes_at_exec(fd: i32) -> bool {
    sys!(fcntl, fd, libc::F_GETFD) & i64::from(libc::FD_CLOEXEC) != 0
}

/// F_GETFL.
pub fn flags(fd: i32) -> i32 {
    i32::try_from(sys!(fcntl, fd, libc::F_GETFL)).unwrap_or(-1)
}

/// Events that an epoll has at once: their data, sorted.
pub fn events(epoll: i32) -> Vec<u64> {
    // SAFETY: an event is plain numbers.
    let mut events: [libc::epoll_event; 16] = unsafe { std::mem::zeroed() };
    let got = sys!(epoll_wait, epoll, events.as_mut_ptr(), 16, 0);
    let mut data: Vec<u64> =
        events.iter().take(usize::try_from(got).unwrap_or(0)).map(|event| event.u64).collect();
    data.sort_unstable();
    data
}

/// Has an epoll watch a descriptor.
pub fn watch(epoll: i32, fd: i32, events: i32, data: u64) {
    let mut event = libc::epoll_event { events: events.cast_unsigned(), u64: data };
    assert_eq!(sys!(epoll_ctl, epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event), 0);
}
