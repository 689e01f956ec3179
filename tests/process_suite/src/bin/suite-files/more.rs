//! Files that few programs have: places, fifos, terminals, pidfds, bound datagram sockets, locks, files that are mapped.

use std::ffi::CString;
use std::fs;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use crate::Where;
use crate::calls::{at, open as open_at, read, sys, write};
use crate::kinds::{APPENDED, Look};

const PLACE: i32 = 30;
const LINK: i32 = 31;
const FIFO: i32 = 32;
const MASTER: i32 = 33;
/// Below its master's number.
const SLAVE: i32 = 29 + 34;
const OWN_PROCESS: i32 = 34;
/// Bound to a port of the kernel's choice.
const BOUND: i32 = 35;
const LOCKED: i32 = 36;
const MAPPED: i32 = 37;

const MAPPED_BYTES: usize = 8192;
const FIRST: u64 = 0x1111_2222_3333_4444;
const SECOND: u64 = 0x5555_6666_7777_8888;

/// Where [`MAPPED`] is mapped, twice.
static VIEWS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

pub fn open(folder: &str) {
    open_at(&format!("{folder}/kept"), libc::O_PATH, PLACE);
    let link = format!("{folder}/link");
    let _ = fs::remove_file(&link);
    std::os::unix::fs::symlink("kept", &link).unwrap();
    open_at(&link, libc::O_PATH | libc::O_NOFOLLOW, LINK);
    let fifo = format!("{folder}/fifo");
    let _ = fs::remove_file(&fifo);
    let path = CString::new(fifo.clone()).unwrap();
    assert_eq!(sys!(mkfifo, path.as_ptr(), 0o600), 0);
    open_at(&fifo, libc::O_RDWR | libc::O_NONBLOCK, FIFO);
    assert_eq!(write(FIFO, b"in the fifo"), 11);
    terminal();
    at(sys!(syscall, libc::SYS_pidfd_open, std::process::id(), 0), OWN_PROCESS);
    // A port of the kernel's own, as of a socket that was never bound.
    let datagrams = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    crate::say(&format!("datagrams {}", datagrams.local_addr().unwrap().port()));
    at(std::os::fd::IntoRawFd::into_raw_fd(datagrams).into(), BOUND);
    open_at(&format!("{folder}/kept"), libc::O_RDWR, LOCKED);
    assert_eq!(sys!(flock, LOCKED, libc::LOCK_EX), 0);
    // SAFETY: all of it is plain numbers.
    let mut whole: libc::flock = unsafe { std::mem::zeroed() };
    whole.l_type = 1;
    assert_eq!(sys!(fcntl, APPENDED, libc::F_SETLK, &raw const whole), 0);
    mapped();
}

/// A pseudo-terminal of 33 rows, without echo.
fn terminal() {
    at(sys!(posix_openpt, libc::O_RDWR | libc::O_NOCTTY), MASTER);
    assert_eq!((sys!(grantpt, MASTER), sys!(unlockpt, MASTER)), (0, 0));
    let mut name = [0; 64];
    assert_eq!(sys!(ptsname_r, MASTER, name.as_mut_ptr(), name.len()), 0);
    at(sys!(open, name.as_ptr(), libc::O_RDWR | libc::O_NOCTTY), SLAVE);
    let size = libc::winsize { ws_row: 33, ws_col: 99, ws_xpixel: 0, ws_ypixel: 0 };
    assert_eq!(sys!(ioctl, MASTER, libc::TIOCSWINSZ, &raw const size), 0);
    let mut settings = settings();
    settings.c_lflag &= !(libc::ECHO | libc::ICANON);
    assert_eq!(sys!(tcsetattr, SLAVE, libc::TCSANOW, &raw const settings), 0);
}

fn settings() -> libc::termios {
    // SAFETY: plain numbers, which the kernel fills in.
    let mut settings: libc::termios = unsafe { std::mem::zeroed() };
    sys!(tcgetattr, SLAVE, &raw mut settings);
    settings
}

/// A file of memory that is mapped twice.
fn mapped() {
    at(sys!(memfd_create, c"mapped".as_ptr(), 0), MAPPED);
    assert_eq!(sys!(ftruncate, MAPPED, MAPPED_BYTES as i64), 0);
    for view in &VIEWS {
        let access = libc::PROT_READ | libc::PROT_WRITE;
        let none = std::ptr::null_mut();
        // SAFETY: new memory.
        let at = unsafe { libc::mmap(none, MAPPED_BYTES, access, libc::MAP_SHARED, MAPPED, 0) };
        assert!(at != libc::MAP_FAILED);
        view.store(at as u64, SeqCst);
    }
    set(0, FIRST);
}

fn word(view: usize) -> *mut u64 {
    (VIEWS[view].load(SeqCst) + 4096) as *mut u64
}

fn set(view: usize, value: u64) {
    // SAFETY: a mapped page of ours.
    unsafe { word(view).write_volatile(value) };
}

fn get(view: usize) -> u64 {
    // SAFETY: as above.
    unsafe { word(view).read_volatile() }
}

pub fn as_they_were(place: Where, look: &mut Look<'_>) {
    let path = |fd: i32| {
        // SAFETY: plain numbers, which the kernel fills in.
        let mut stat: libc::stat = unsafe { std::mem::zeroed() };
        sys!(fstat, fd, &raw mut stat);
        (stat.st_mode & libc::S_IFMT, read(fd).err())
    };
    look("place", &path(PLACE), &(libc::S_IFREG, Some(libc::EBADF)));
    let link = match place {
        Where::Plain => (libc::S_IFLNK, Some(libc::EBADF)),
        // It is on the first host alone; the number's holder was opened with O_PATH, too.
        Where::Child => path(LINK),
    };
    look("link", &path(LINK), &link);
    look("fifo", &read(FIFO), &Ok::<_, i32>(b"in the fifo"));
    look("fifo, written", &(write(FIFO, b"x"), read(FIFO)), &(1, Ok::<_, i32>(b"x")));
    look("terminal", &(write(MASTER, b"typed"), read(SLAVE)), &(5, Ok::<_, i32>(b"typed")));
    look("terminal, back", &(write(SLAVE, b"said"), read(MASTER)), &(4, Ok::<_, i32>(b"said")));
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    sys!(ioctl, SLAVE, libc::TIOCGWINSZ, &raw mut size);
    look("terminal, size", &(size.ws_row, size.ws_col), &(33, 99));
    look("terminal, settings", &(settings().c_lflag & (libc::ECHO | libc::ICANON)), &0);
    let signal = |fd: i32| {
        sys!(syscall, libc::SYS_pidfd_send_signal, fd, 0, std::ptr::null::<libc::siginfo_t>(), 0)
    };
    look("own process", &signal(OWN_PROCESS), &0);
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{OWN_PROCESS}")).unwrap_or_default();
    // Of its numbers in all namespaces the last is its own.
    let numbers = info.lines().find_map(|line| line.strip_prefix("NSpid:"));
    let own = numbers.and_then(|numbers| numbers.split_ascii_whitespace().last());
    look("own process", &own, &Some(std::process::id().to_string()));
    bound(look);
    set(0, SECOND);
    look("two views", &(get(1), read_word()), &(SECOND, SECOND));
    // SAFETY: one thread of this program is enough.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        set(1, FIRST);
        std::process::exit(0);
    }
    sys!(waitpid, pid, std::ptr::null_mut(), 0);
    look("shared with a fork", &get(0), &FIRST);
    set(0, FIRST);
}

/// The same word by the file.
fn read_word() -> u64 {
    let mut bytes = [0u8; 8];
    sys!(pread, MAPPED, bytes.as_mut_ptr().cast(), 8, 4096);
    u64::from_ne_bytes(bytes)
}

/// Where it is bound.
pub fn bound_port() -> u16 {
    // SAFETY: the number stays open beyond this.
    let socket = std::mem::ManuallyDrop::new(unsafe {
        <std::net::UdpSocket as std::os::fd::FromRawFd>::from_raw_fd(BOUND)
    });
    socket.local_addr().unwrap().port()
}

/// It takes datagrams, and has a port as soon as it is used.
fn bound(look: &mut Look<'_>) {
    let sender = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    // SAFETY: the number stays open beyond this.
    let socket = std::mem::ManuallyDrop::new(unsafe {
        <std::net::UdpSocket as std::os::fd::FromRawFd>::from_raw_fd(BOUND)
    });
    let sent = socket.send_to(b"data", sender.local_addr().unwrap()).ok();
    let mut bytes = [0; 8];
    let got = sender.recv_from(&mut bytes).map(|(len, _)| len).ok();
    look("bound", &(sent, got), &(Some(4), Some(4)));
}
