//! Starting a program that is nobody's child: neither wait(2) nor SIGCHLD of the caller ever tell of it.

use std::ffi::CString;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use super::rawcall::{KernelAction, rawcall, set_signal_mask, sigaction};

/// A program to start in a session of its own.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    /// Path, then arguments from `argv[0]` on.
    pub(crate) path: CString,
    pub(crate) args: Vec<CString>,
    pub(crate) environment: Vec<CString>,
    pub(crate) stdin: BorrowedFd<'a>,
    pub(crate) stdout: BorrowedFd<'a>,
    pub(crate) stderr: BorrowedFd<'a>,
}

impl Program<'_> {
    /// Starts it; a pidfd tells when it ends.
    ///
    /// An intermediate process without exit signal forks it and ends, so it belongs to init.
    pub(crate) fn start(&self) -> io::Result<OwnedFd> {
        let pointers = |strings: &[CString]| {
            strings.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>()
        };
        let (args, environment) = (pointers(&self.args), pointers(&self.environment));
        let (mut reader, writer) = io::pipe()?;
        // No handler of the caller's may run in the copies.
        let mask = set_signal_mask(!0);
        // SAFETY: the copies run `between`, which uses raw system calls on its own copy of memory and
        // never returns.
        let pid = unsafe {
            let pid = rawcall!(libc::SYS_clone, 0, 0, 0, 0, 0);
            if pid == 0 {
                self.between(&args, &environment, writer.as_raw_fd());
            }
            pid
        };
        set_signal_mask(mask);
        drop(writer);
        if pid < 0 {
            return Err(io::Error::from_raw_os_error(i32::try_from(-pid).unwrap_or(libc::EIO)));
        }
        // SAFETY: a child of ours without exit signal; nobody else reaps it.
        unsafe { rawcall!(libc::SYS_wait4, pid, 0, libc::__WALL, 0) };
        // First the program's pid, then, if exec failed, errno.
        let mut told = [0u8; 4];
        reader.read_exact(&mut told)?;
        let started = i32::from_le_bytes(told);
        if started < 0 {
            return Err(io::Error::from_raw_os_error(-started));
        }
        // SAFETY: plain numbers; the descriptor is new and ours.
        let watch = unsafe {
            let fd = rawcall!(libc::SYS_pidfd_open, started, 0);
            if fd < 0 {
                return Err(io::Error::other("the agent ended as soon as it was started"));
            }
            OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1))
        };
        match reader.read_exact(&mut told) {
            Ok(()) => Err(io::Error::from_raw_os_error(-i32::from_le_bytes(told))),
            Err(_) => Ok(watch),
        }
    }

    /// In the intermediate process: fork once more, tell the pid, end.
    ///
    /// # Safety
    /// Only in a process made by a raw clone.
    unsafe fn between(
        &self,
        args: &[*const libc::c_char],
        environment: &[*const libc::c_char],
        pipe: i32,
    ) -> ! {
        // SAFETY: all pointers are into this process's own memory.
        unsafe {
            rawcall!(libc::SYS_setsid);
            let pid = rawcall!(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0);
            if pid == 0 {
                self.become_it(args, environment, pipe);
            }
            let told = i32::try_from(pid).unwrap_or(-libc::EIO).to_le_bytes();
            rawcall!(libc::SYS_write, pipe, told.as_ptr(), told.len());
            loop {
                rawcall!(libc::SYS_exit_group, 0);
            }
        }
    }

    /// # Safety
    /// As [`Self::between`].
    unsafe fn become_it(
        &self,
        args: &[*const libc::c_char],
        environment: &[*const libc::c_char],
        pipe: i32,
    ) -> ! {
        const FIRST_FREE: i32 = 10;
        // SAFETY: as in `between`.
        unsafe {
            // First out of the way of 0 to 2, then into place.
            let dup = |fd: i32| rawcall!(libc::SYS_fcntl, fd, libc::F_DUPFD_CLOEXEC, FIRST_FREE);
            let pipe = dup(pipe);
            let fds = [&self.stdin, &self.stdout, &self.stderr].map(|fd| dup(fd.as_raw_fd()));
            for (number, fd) in fds.into_iter().enumerate() {
                rawcall!(libc::SYS_dup3, fd, number, 0);
            }
            // The caller's descriptors stay the caller's.
            const CLOEXEC: u32 = 4;
            rawcall!(libc::SYS_close_range, 3, u32::MAX, CLOEXEC);
            for signal in 1..=64 {
                sigaction(signal, Some(&KernelAction::default()));
            }
            set_signal_mask(0);
            let (path, args) = (self.path.as_ptr(), args.as_ptr());
            let error = rawcall!(libc::SYS_execve, path, args, environment.as_ptr());
            let told = i32::try_from(error).unwrap_or(-libc::EIO).to_le_bytes();
            rawcall!(libc::SYS_write, pipe, told.as_ptr(), told.len());
            loop {
                rawcall!(libc::SYS_exit_group, 127);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::super::readiness::readable;
    use super::*;

    fn program<'a>(path: &str, stdin: &'a OwnedFd, stdout: &'a OwnedFd) -> Program<'a> {
        Program {
            path: CString::new(path).unwrap(),
            args: vec![c"cat".into()],
            environment: vec![c"PATH=/bin:/usr/bin".into()],
            stdin: stdin.as_fd(),
            stdout: stdout.as_fd(),
            stderr: stdout.as_fd(),
        }
    }

    #[test]
    fn a_program_runs_and_its_end_is_seen() {
        let (stdin, to_it) = io::pipe().unwrap();
        let (mut from_it, stdout) = io::pipe().unwrap();
        let (stdin, stdout) = (OwnedFd::from(stdin), OwnedFd::from(stdout));
        let watch = program("/bin/cat", &stdin, &stdout).start().unwrap();
        drop((stdin, stdout));
        let mut to_it = File::from(OwnedFd::from(to_it));
        to_it.write_all(b"through").unwrap();
        assert!(!readable(watch.as_fd(), Some(std::time::Duration::from_millis(20))).unwrap());
        drop(to_it);
        let mut text = String::new();
        from_it.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
        assert!(readable(watch.as_fd(), Some(std::time::Duration::from_secs(5))).unwrap());
    }

    #[test]
    fn a_missing_program_is_an_error() {
        let null = OwnedFd::from(File::open("/dev/null").unwrap());
        let error = program("/nonexistent/mitosis", &null, &null).start().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }
}
