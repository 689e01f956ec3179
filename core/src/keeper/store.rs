//! What outlives an agent: descriptors of its seeds, held for the next one.
//!
//! ```text
//!  agent --KEEP, FORGET--> keeper --fork, when the agent is gone--> heir --KEPT--> the next agent
//!                            |                                       |
//!              ends, and children with it              ends: all are taken, or the grace is over
//! ```
//!
//! A seed lives for as long as anybody holds our end of its connection. The heir is no parent of anybody, reads none of
//! what it holds, and has nothing but these descriptors and the socket at which the next agent asks; it answers
//! processes of its own user alone.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::message::{Kind, Message, SEED_FDS, VERSION};
use crate::sys::wait::{self, Interest};
use crate::sys::{self, limits, local_socket, lock, socket};

/// The last part of the socket's name.
const KEPT: &str = "kept";
/// Of one that the next agent is not to find yet; as long as the other.
const TO_BE_KEPT: &str = "keep";
/// How long the next agent may take for all that it is given: it makes descriptors anew meanwhile.
const HAND_OVER_PATIENCE: Duration = Duration::from_secs(30);
/// How long another process may hold the folder of the socket locked.
const TURN_PATIENCE: Duration = Duration::from_secs(2);
/// How long it is waited for whoever may listen at the path by now.
const LOOK_PATIENCE: Duration = Duration::from_millis(100);
/// What a keeper itself has open, and some to spare.
const OWN_FDS: usize = 24;
/// Behind a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(10);

/// The descriptors, and for how long they outlive the agent.
#[derive(Debug)]
pub(super) struct Store {
    seeds: BTreeMap<u64, Vec<OwnedFd>>,
    door: Option<Door>,
    /// What a keeper may have open.
    limit: usize,
}

/// Where the next agent asks, and until when.
#[derive(Debug)]
struct Door {
    listener: OwnedFd,
    grace: Duration,
}

impl Store {
    pub(super) fn new() -> Store {
        let soft = limits::of(std::process::id()).map(|all| all[libc::RLIMIT_NOFILE as usize].0);
        let limit = soft.map_or(0, |soft| usize::try_from(soft).unwrap_or(usize::MAX));
        Store { seeds: BTreeMap::new(), door: None, limit }
    }

    /// From now on what is kept outlives the agent, or without a listener nothing does.
    pub(super) fn outlive(&mut self, listener: Option<OwnedFd>, grace: Duration) {
        self.door = listener.map(|listener| Door { listener, grace });
        if self.door.is_none() {
            self.seeds.clear();
        }
    }

    /// Keeps a seed's descriptors.
    ///
    /// # Errors
    /// EMFILE when there are too many; ENOENT when nothing outlives the agent.
    pub(super) fn keep(&mut self, seed: u64, fds: Vec<OwnedFd>) -> io::Result<()> {
        if self.door.is_none() {
            return Err(io::Error::from_raw_os_error(libc::ENOENT));
        }
        if self.seeds.len() >= self.limit / 2 / SEED_FDS {
            return Err(io::Error::from_raw_os_error(libc::EMFILE));
        }
        self.seeds.insert(seed, fds);
        Ok(())
    }

    /// Lets go of seeds until a template's descriptors fit beside the rest: they end with their agent.
    pub(super) fn make_room(&mut self, descriptors: usize) {
        let others = descriptors + OWN_FDS;
        while others + self.seeds.len() * SEED_FDS > self.limit {
            let Some((seed, _)) = self.seeds.pop_first() else { return };
            eprintln!(
                "mitosis keeper: seed {seed:016x} will end with its agent: too few open files are allowed (ulimit -n)"
            );
        }
    }

    pub(super) fn forget(&mut self, seed: u64) {
        self.seeds.remove(&seed);
    }

    /// Whether there is anything that outlives the agent.
    pub(super) fn is_empty(&self) -> bool {
        self.seeds.is_empty() || self.door.is_none()
    }

    /// Takes the socket away, if nothing is to be had there.
    pub(super) fn close(self) {
        if let Some(Door { listener, .. }) = self.door {
            take_away(listener);
        }
    }

    /// Is the heir: waits for the next agent until the grace is over. What is left then ends.
    pub(super) fn wait_for_next_agent(self) {
        let Some(Door { listener, grace }) = self.door else { return };
        let until = Instant::now() + grace;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            let asked = wait::ready([(listener.as_fd(), Interest::Read)], Some(left));
            if !asked.is_ok_and(|[asked]| asked.read) {
                continue;
            }
            let next = local_socket::accept(listener.as_fd(), HAND_OVER_PATIENCE);
            match next.and_then(|next| hand_over(&self.seeds, &next)) {
                // Whatever stands at the path by now is the next agent's.
                Ok(()) => return,
                Err(_) => std::thread::sleep(PAUSE),
            }
        }
        drop(self.seeds);
        take_away(listener);
    }
}

/// Gives all to whoever asks, if that one is of this user; fine once it says that it has them.
fn hand_over(seeds: &BTreeMap<u64, Vec<OwnedFd>>, next: &OwnedFd) -> io::Result<()> {
    if socket::peer(next)?.user != sys::user_id() {
        return Err(io::ErrorKind::PermissionDenied.into());
    }
    let send =
        |kind, args, fds: &[BorrowedFd<'_>]| Message::new(kind, 0, args).send(next.as_fd(), fds);
    send(Kind::Hello, [VERSION, seeds.len() as u64, 0, 0, 0], &[])?;
    for (seed, fds) in seeds {
        let fds: Vec<BorrowedFd<'_>> = fds.iter().map(AsFd::as_fd).collect();
        send(Kind::Kept, [*seed, 0, 0, 0, 0], &fds)?;
    }
    send(Kind::End, [0; 5], &[])?;
    match Message::receive(next.as_fd(), &mut Vec::new())? {
        Some(Message { kind: Kind::Done, .. }) => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Where the next agent asks for what the agent of this socket has left.
pub fn path_beside(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(".");
    path.push(KEPT);
    std::path::absolute(PathBuf::from(&path)).unwrap_or_else(|_| path.into())
}

/// A socket that the next agent is to ask at `path`. It is there once it is [`settle`]d: until then the heir of the agent
/// before is.
///
/// # Errors
/// The folder is locked, or no path can be made.
pub fn listen(path: &Path) -> io::Result<OwnedFd> {
    let _turn = turn(path)?;
    let path = path.with_extension(TO_BE_KEPT);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = local_socket::listen_packets(&path)?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// What was made by [`listen`] stands at `path` from now on.
///
/// # Errors
/// The folder is locked, or rename(2)'s.
pub fn settle(path: &Path) -> io::Result<()> {
    let _turn = turn(path)?;
    fs::rename(path.with_extension(TO_BE_KEPT), path)
}

/// Removes a listener's paths, unless another one listens there by now.
fn take_away(listener: OwnedFd) {
    let Ok(bound) = local_socket::path_of(listener.as_fd()) else { return };
    drop(listener);
    let Ok(_turn) = turn(&bound) else { return };
    for path in [bound.with_extension(KEPT), bound] {
        if local_socket::connect_packets(&path, LOOK_PATIENCE).is_err() {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Of those who make and remove sockets in a folder one does so at a time.
fn turn(path: &Path) -> io::Result<fs::File> {
    lock::turn(path.parent().unwrap_or(Path::new("/")), TURN_PATIENCE)
}
