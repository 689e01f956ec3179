//! When the program is to be prepared, as it is seen from outside: nothing of this runs in it.

use std::collections::BTreeSet;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use mitosis::client::When;

/// Between looks, at least; and so many times as long as a look takes.
const PAUSE: Duration = Duration::from_millis(20);
const PAUSE_FACTOR: u32 = 5;
/// After listen(2): a runtime tells its program that it listens, and may bind a second socket.
const SETTLE: Duration = Duration::from_millis(100);
const CONNECT_PATIENCE: Duration = Duration::from_millis(500);
/// A program starts few others before it listens (a shell, npm); beyond, nobody looks.
const MAX_FAMILY: usize = 256;

/// The moment of one program.
#[derive(Debug)]
pub struct Moment {
    when: When,
    pid: u32,
    signalled: Arc<AtomicBool>,
}

impl Moment {
    /// `signalled` is set when the signal of [`When::Signal`] has come.
    pub fn new(when: When, pid: u32, signalled: Arc<AtomicBool>) -> Self {
        Moment { when, pid, signalled }
    }

    /// Waits for it; the process that is to be prepared: the program, or one that it has started.
    pub fn wait(&self) -> u32 {
        loop {
            let began = Instant::now();
            if let Some(pid) = self.look() {
                return pid;
            }
            thread::sleep(PAUSE.max(began.elapsed() * PAUSE_FACTOR));
        }
    }

    /// Lets the program end what it was doing at that moment.
    pub fn settle(&self) {
        if matches!(self.when, When::Listen | When::Port(_)) {
            thread::sleep(SETTLE);
        }
    }

    fn look(&self) -> Option<u32> {
        match &self.when {
            When::Listen => listener(self.pid, None),
            When::Port(port) => {
                let pid = |()| listener(self.pid, Some(*port)).unwrap_or(self.pid);
                answers(*port).then_some(()).map(pid)
            }
            When::File(path) => path.exists().then_some(self.pid),
            When::Signal(_) => self.signalled.load(SeqCst).then_some(self.pid),
        }
    }
}

/// A connection to a port that nobody has may be given that port itself, and then is its own peer.
fn answers(port: u16) -> bool {
    let here = [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()];
    let other = |stream: TcpStream| stream.local_addr().is_ok_and(|own| own.port() != port);
    here.iter()
        .any(|address| TcpStream::connect_timeout(address, CONNECT_PATIENCE).is_ok_and(other))
}

/// The first process of `pid`'s family that holds a listening socket.
fn listener(pid: u32, port: Option<u16>) -> Option<u32> {
    let read =
        |name: &str| fs::read_to_string(format!("/proc/{pid}/net/{name}")).unwrap_or_default();
    let mut sockets = listening_tcp(&read("tcp"), port);
    sockets.extend(listening_tcp(&read("tcp6"), port));
    if port.is_none() {
        sockets.extend(listening_unix(&read("unix")));
    }
    family(pid).into_iter().find(|pid| holds_one_of(*pid, &sockets))
}

/// Inodes of listening sockets, of proc_pid_net(5)'s tcp.
fn listening_tcp(text: &str, port: Option<u16>) -> BTreeSet<u64> {
    const LISTENS: &str = "0A";
    let inode = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, state) = (fields.next()?, fields.nth(1)?);
        let own = u16::from_str_radix(local.rsplit(':').next()?, 16).ok()?;
        let is_it = state == LISTENS && port.is_none_or(|port| port == own);
        fields.nth(5)?.parse().ok().filter(|_| is_it)
    };
    text.lines().skip(1).filter_map(inode).collect()
}

/// Likewise of its unix.
fn listening_unix(text: &str) -> BTreeSet<u64> {
    /// SO_ACCEPTCON of net.h.
    const ACCEPTS: &str = "00010000";
    let inode = |line: &str| {
        let mut fields = line.split_ascii_whitespace().skip(3);
        let flags = fields.next()?;
        fields.nth(2)?.parse().ok().filter(|_| flags == ACCEPTS)
    };
    text.lines().skip(1).filter_map(inode).collect()
}

/// The process and all that come from it, elders first.
fn family(pid: u32) -> Vec<u32> {
    let mut family = vec![pid];
    let mut next = 0;
    while next < family.len() && family.len() < MAX_FAMILY {
        let threads = fs::read_dir(format!("/proc/{}/task", family[next]));
        for thread in threads.into_iter().flatten().flatten() {
            let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
            family.extend(
                children.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
        next += 1;
    }
    family
}

fn holds_one_of(pid: u32, sockets: &BTreeSet<u64>) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    targets.any(|target| {
        let target = target.to_string_lossy();
        let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        inode.and_then(|inode| inode.parse().ok()).is_some_and(|inode| sockets.contains(&inode))
    })
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;
    use std::process::Command;

    use super::*;

    fn moment(when: &str) -> Moment {
        Moment::new(when.parse().unwrap(), std::process::id(), Arc::default())
    }

    #[test]
    fn a_listening_socket_is_seen() {
        let own = std::process::id();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = tcp.local_addr().unwrap().port();
        assert_eq!(listener(own, Some(port)), Some(own));
        assert_eq!(moment(&format!("port:{port}")).look(), Some(own));
        assert_eq!(moment("listen").look(), Some(own));
        drop(tcp);
        assert_eq!(listener(own, Some(port)), None);
        assert_eq!(moment(&format!("port:{port}")).look(), None);
        let folder = tempfile::tempdir().unwrap();
        let _unix = UnixListener::bind(folder.path().join("a.sock")).unwrap();
        assert_eq!(moment("listen").look(), Some(own));
    }

    #[test]
    fn a_file_and_a_signal_are_seen() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ready");
        let own = std::process::id();
        let by_file = moment(&format!("file:{}", file.display()));
        assert_eq!(by_file.look(), None);
        fs::write(file, "").unwrap();
        assert_eq!(by_file.look(), Some(own));
        let by_signal = moment("signal:USR2");
        assert_eq!(by_signal.look(), None);
        by_signal.signalled.store(true, SeqCst);
        assert_eq!(by_signal.look(), Some(own));
    }

    #[test]
    fn what_a_program_starts_is_of_its_family() {
        let mut sleep = Command::new("sleep").arg("30").spawn().unwrap();
        assert!(family(std::process::id()).contains(&sleep.id()));
        assert_eq!(family(sleep.id()), [sleep.id()]);
        sleep.kill().unwrap();
        sleep.wait().unwrap();
    }

    #[test]
    fn tables_of_sockets_are_read() {
        let tcp = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 f 100\n\
            1: 0100007F:1F91 0100007F:9999 01 00000000:00000000 00:00000000 00000000     0        0 4712 1 f 100\n";
        assert_eq!(listening_tcp(tcp, None), [4711].into());
        assert_eq!(listening_tcp(tcp, Some(8080)), [4711].into());
        assert_eq!(listening_tcp(tcp, Some(8081)), [].into());
        let unix = "Num       RefCount Protocol Flags    Type St Inode Path\n\
            ffff: 00000002 00000000 00010000 0001 01 815 /run/a.sock\n\
            fffe: 00000003 00000000 00000000 0001 03 816\n";
        assert_eq!(listening_unix(unix), [815].into());
    }
}
