//! Waiting for several descriptors with a deadline (ppoll(2)) or for the same ones again and again
//! (epoll(7)), a bell to be woken by (eventfd(2)), and an alarm clock (timerfd_create(2)).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

/// A bell: rung by any thread, heard by whoever polls it.
#[derive(Debug)]
pub struct Bell(OwnedFd);

impl Bell {
    /// A silent bell.
    ///
    /// # Errors
    /// eventfd(2)'s: no descriptors left.
    pub fn new() -> io::Result<Bell> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just made this descriptor, and nobody else knows it.
        Ok(Bell(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Makes the descriptor readable.
    pub fn ring(&self) {
        let one = 1u64.to_ne_bytes();
        // SAFETY: `one` holds eight bytes. The only failure is a full counter, which is readable already.
        let _ = unsafe { libc::write(self.0.as_raw_fd(), one.as_ptr().cast(), one.len()) };
    }

    /// Makes it unreadable until the next ring.
    pub fn hush(&self) {
        let mut count = [0u8; 8];
        // SAFETY: `count` holds eight bytes. The only failure is a bell that has not rung.
        let _ = unsafe { libc::read(self.0.as_raw_fd(), count.as_mut_ptr().cast(), count.len()) };
    }
}

impl AsRawFd for Bell {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// An alarm clock: set by any thread, which wakes nobody; whoever sleeps by it wakes at that moment.
#[derive(Debug)]
pub struct Alarm(OwnedFd);

impl Alarm {
    /// One that is not set.
    ///
    /// # Errors
    /// timerfd_create(2)'s: no descriptors left.
    pub fn new() -> io::Result<Alarm> {
        // SAFETY: no memory is passed.
        let fd = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just made this descriptor, and nobody else knows it.
        Ok(Alarm(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// It goes off so much later, in place of when it was to before.
    pub fn set(&self, after: Duration) {
        // All zeros would stop it.
        let after = after.max(Duration::from_nanos(1));
        let value = libc::timespec {
            tv_sec: i64::try_from(after.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(after.subsec_nanos()),
        };
        let once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = libc::itimerspec { it_interval: once, it_value: value };
        // SAFETY: `setting` lives through the call. A timer's descriptor and a sound time are refused nothing.
        let _ = unsafe {
            libc::timerfd_settime(self.0.as_raw_fd(), 0, &raw const setting, std::ptr::null_mut())
        };
    }

    /// Sleeps until it goes off.
    ///
    /// # Errors
    /// read(2)'s, but EINTR.
    pub fn sleep(&self) -> io::Result<()> {
        let mut count = [0u8; 8];
        loop {
            let (into, len) = (count.as_mut_ptr().cast(), count.len());
            // SAFETY: `count` holds eight bytes.
            if unsafe { libc::read(self.0.as_raw_fd(), into, len) } >= 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }
}

/// A list of descriptors to wait for; kept, so that waiting allocates nothing once it has grown.
#[derive(Debug, Default)]
pub struct Poller {
    fds: Vec<libc::pollfd>,
}

impl Poller {
    /// Room for `capacity` descriptors.
    pub fn with_capacity(capacity: usize) -> Self {
        Poller { fds: Vec::with_capacity(capacity) }
    }

    /// Forgets all descriptors.
    pub fn clear(&mut self) {
        self.fds.clear();
    }

    /// Adds one, to be waited for until it is readable.
    pub fn add(&mut self, fd: RawFd) {
        self.fds.push(libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
    }

    /// Waits until one is readable (or has failed), a signal comes, or the time is over. `None` waits
    /// for ever.
    ///
    /// # Errors
    /// ppoll(2)'s, but EINTR.
    pub fn wait(&mut self, limit: Option<Duration>) -> io::Result<()> {
        let limit = limit.map(|limit| libc::timespec {
            tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(limit.subsec_nanos()),
        });
        let limit = limit.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
        let count = self.fds.len() as libc::nfds_t;
        // SAFETY: `fds` holds `count` entries; `limit` is null or points to a timespec that lives on.
        let ready = unsafe { libc::ppoll(self.fds.as_mut_ptr(), count, limit, std::ptr::null()) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
            self.fds.iter_mut().for_each(|fd| fd.revents = 0);
        }
        Ok(())
    }

    /// Whether the `index`th descriptor was ready in the last wait.
    pub fn is_ready(&self, index: usize) -> bool {
        self.fds.get(index).is_some_and(|fd| fd.revents != 0)
    }
}

/// Descriptors that are waited for again and again: the kernel keeps the list, which makes each wait
/// cheaper than a [`Poller`]'s.
#[derive(Debug)]
pub struct Watch(OwnedFd);

/// Descriptors of one [`Watch`].
const MAX_WATCHED: usize = 8;

impl Watch {
    /// Watches `fds`, which must stay open as long as it lives, for being readable.
    ///
    /// # Errors
    /// epoll_create1(2)'s and epoll_ctl(2)'s: no descriptors or watches left.
    pub fn new(fds: &[RawFd]) -> io::Result<Watch> {
        // SAFETY: no memory is passed.
        let epoll = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if epoll < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call has just made this descriptor, and nobody else knows it.
        let watch = Watch(unsafe { OwnedFd::from_raw_fd(epoll) });
        for (&fd, index) in fds.iter().zip(0u64..MAX_WATCHED as u64) {
            let mut event = libc::epoll_event { events: libc::EPOLLIN.cast_unsigned(), u64: index };
            // SAFETY: `event` lives across the call.
            if unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, fd, &raw mut event) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(watch)
    }

    /// Waits until one is readable or has failed, or a signal comes; a bit for each that is ready.
    ///
    /// # Errors
    /// epoll_wait(2)'s, but EINTR.
    pub fn wait(&self) -> io::Result<u64> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; MAX_WATCHED];
        let room = libc::c_int::try_from(events.len()).unwrap_or(libc::c_int::MAX);
        // SAFETY: `events` has room for as many as are said.
        let ready = unsafe { libc::epoll_wait(self.0.as_raw_fd(), events.as_mut_ptr(), room, -1) };
        match usize::try_from(ready) {
            Ok(ready) => Ok(events[..ready].iter().fold(0, |mask, event| mask | 1 << event.u64)),
            Err(_) => match io::Error::last_os_error() {
                error if error.kind() == io::ErrorKind::Interrupted => Ok(0),
                error => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watch_tells_which_one_is_ready_each_time() {
        let bells = [Bell::new().unwrap(), Bell::new().unwrap()];
        let watch = Watch::new(&[bells[0].as_raw_fd(), bells[1].as_raw_fd()]).unwrap();
        bells[1].ring();
        assert_eq!(watch.wait().unwrap(), 0b10);
        bells[0].ring();
        assert_eq!(watch.wait().unwrap(), 0b11);
        bells[1].hush();
        assert_eq!(watch.wait().unwrap(), 0b01);
    }

    #[test]
    fn an_alarm_goes_off_when_it_was_last_set_to() {
        let alarm = Alarm::new().unwrap();
        let begun = std::time::Instant::now();
        alarm.set(Duration::from_secs(3600));
        alarm.set(Duration::from_millis(20));
        alarm.sleep().unwrap();
        assert!(begun.elapsed() >= Duration::from_millis(20));
        alarm.set(Duration::ZERO);
        alarm.sleep().unwrap();
    }

    #[test]
    fn a_bell_is_heard_once_per_hush() {
        let bell = Bell::new().unwrap();
        let mut poller = Poller::default();
        poller.add(bell.as_raw_fd());
        poller.wait(Some(Duration::ZERO)).unwrap();
        assert!(!poller.is_ready(0));
        bell.ring();
        bell.ring();
        poller.wait(None).unwrap();
        assert!(poller.is_ready(0));
        bell.hush();
        poller.wait(Some(Duration::from_micros(10))).unwrap();
        assert!(!poller.is_ready(0));
    }
}
