//! The next agent's side: finds the heir of the one before and takes what it has.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use super::message::{Kind, Message, SEED_FDS, VERSION};
use crate::sys::{self, local_socket, socket};

/// How long a keeper may take to notice that its agent is gone, and its heir to answer.
const HEIR_PATIENCE: Duration = Duration::from_secs(5);

/// Why nothing was had of an heir.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HeirError {
    /// It is of another version.
    #[error("the agent before was of another version (keeper protocol {0}, this one {VERSION})")]
    Version(u64),
    /// It is another user's.
    #[error("user {0} keeps it")]
    User(u32),
    /// It said something else, or nothing.
    #[error("its keeper did not hand it over ({0})")]
    Io(#[from] io::Error),
}

/// A seed as it was kept.
#[derive(Debug)]
pub struct KeptSeed {
    /// Its id.
    pub seed: u64,
    /// Our end of its connection.
    pub connection: OwnedFd,
    /// Its /proc/PID/mem.
    pub mem: OwnedFd,
    /// What the agent before has written of it.
    pub record: OwnedFd,
}

/// The heir of the agent before.
#[derive(Debug)]
pub struct Heir {
    socket: OwnedFd,
}

impl Heir {
    /// Whoever answers at `path`; `None`: nobody does.
    ///
    /// # Errors
    /// It cannot be understood, or is another user's.
    pub fn find(path: &Path) -> Result<Option<Heir>, HeirError> {
        let Ok(socket) = local_socket::connect_packets(path, HEIR_PATIENCE) else {
            return Ok(None);
        };
        let user = socket::peer(&socket)?.user;
        if user != sys::user_id() {
            return Err(HeirError::User(user));
        }
        let hello = Message::receive(socket.as_fd(), &mut Vec::new())?;
        let Some(Message { kind: Kind::Hello, args: [version, ..], .. }) = hello else {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        };
        let heir = Heir { socket };
        if version != VERSION {
            // Nobody could take its seeds.
            heir.is_relieved();
            return Err(HeirError::Version(version));
        }
        Ok(Some(heir))
    }

    /// The next seed; `None` behind the last one.
    ///
    /// # Errors
    /// It is gone, or this process has no descriptors left.
    pub fn next_seed(&self) -> Result<Option<KeptSeed>, HeirError> {
        let broken = || io::Error::from(io::ErrorKind::InvalidData);
        let mut fds = Vec::with_capacity(SEED_FDS);
        let message = Message::receive(self.socket.as_fd(), &mut fds)?.ok_or_else(broken)?;
        match message.kind {
            Kind::Kept => {
                let [connection, mem, record] = fds.try_into().map_err(|_| broken())?;
                Ok(Some(KeptSeed { seed: message.args[0], connection, mem, record }))
            }
            Kind::End => Ok(None),
            _ => Err(broken().into()),
        }
    }

    /// Everything is in other hands: it ends.
    pub fn is_relieved(&self) {
        let done = Message::new(Kind::Done, 0, [0; 5]);
        // One that is gone keeps nothing.
        let _ = done.send_now(self.socket.as_fd());
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    use std::time::Instant;

    use super::*;
    use crate::keeper::store::{self, Store};

    /// A store with one seed, at whose connection the seed waits.
    fn store(path: &Path, grace: Duration) -> (Store, UnixStream) {
        let mut store = Store::new();
        let (ours, seed) = UnixStream::pair().unwrap();
        let null = || OwnedFd::from(File::open("/dev/null").unwrap());
        let refused = store.keep(7, vec![null()]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::ENOENT), "nothing outlives the agent yet");
        store.outlive(Some(store::listen(path).unwrap()), grace);
        assert!(!path.exists(), "not before all is kept");
        store::settle(path).unwrap();
        store.keep(7, vec![ours.into(), null(), null()]).unwrap();
        (store, seed)
    }

    #[test]
    fn the_next_agent_gets_each_seed_once_and_the_heir_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock.kept");
        let (store, mut seed) = store(&path, Duration::from_secs(60));
        let heir = std::thread::spawn(move || store.wait_for_next_agent());
        // One that goes away in the middle takes nothing along.
        let first = Heir::find(&path).unwrap().unwrap();
        drop(first.next_seed().unwrap().unwrap());
        drop(first);
        let second = Heir::find(&path).unwrap().unwrap();
        let kept = second.next_seed().unwrap().unwrap();
        assert_eq!(kept.seed, 7);
        assert!(second.next_seed().unwrap().is_none());
        second.is_relieved();
        heir.join().unwrap();
        drop(kept.connection);
        assert_eq!(seed.read(&mut [0]).unwrap(), 0, "nobody else holds it");
        assert!(Heir::find(&path).unwrap().is_none());
    }

    #[test]
    fn behind_the_grace_nothing_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock.kept");
        let (store, mut seed) = store(&path, Duration::from_millis(100));
        let begun = Instant::now();
        store.wait_for_next_agent();
        assert!(begun.elapsed() >= Duration::from_millis(100));
        assert_eq!(seed.read(&mut [0]).unwrap(), 0);
        assert!(!path.exists());
    }

    #[test]
    fn a_path_at_which_another_one_listens_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sock.kept");
        let (store, _seed) = store(&path, Duration::ZERO);
        let _next = store::listen(&path).unwrap();
        store::settle(&path).unwrap();
        store.close();
        assert!(path.exists());
    }
}
