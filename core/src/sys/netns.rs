//! Network namespaces: abstract unix sockets are found within one alone.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::thread;

/// A listener of abstract name `name` in the network namespace of process `pid`.
///
/// # Errors
/// bind(2)'s; EPERM where the namespace is another one and this process may not enter it.
pub(crate) fn listen_beside(pid: u32, name: &str) -> io::Result<UnixListener> {
    let path = format!("/proc/{pid}/ns/net");
    if fs::read_link(&path)? == fs::read_link("/proc/self/ns/net")? {
        return listen(name);
    }
    let namespace = File::open(&path)?;
    // A socket stays in the namespace that it was made in: this thread is there for that alone.
    thread::scope(|scope| {
        let there = scope.spawn(|| {
            // SAFETY: no memory is passed; only this thread moves, and it ends at once.
            if unsafe { libc::setns(namespace.as_raw_fd(), libc::CLONE_NEWNET) } != 0 {
                return Err(io::Error::last_os_error());
            }
            listen(name)
        });
        there.join().unwrap_or_else(|_| Err(io::Error::other("the thread in it panicked")))
    })
}

fn listen(name: &str) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::sys::socket::peer;

    #[test]
    fn a_peer_is_who_connected() {
        let name = format!("mitosis-test-{}", std::process::id());
        let listener = listen_beside(std::process::id(), &name).unwrap();
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _there = UnixStream::connect_addr(&address).unwrap();
        let (here, _) = listener.accept().unwrap();
        let peer = peer(&here).unwrap();
        assert_eq!((peer.pid, peer.user), (std::process::id(), crate::sys::user_id()));
    }
}
