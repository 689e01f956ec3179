//! Sockets that children listen on, bound before any of them is started: a port that is taken is said, and
//! nothing has begun.

use std::fmt;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use super::failure::fail;
use crate::descriptor::CarriedFiles;
use crate::descriptor::carried::Listening;
use crate::resume::files::MAX_LISTENERS;
use crate::sys::listening::{self, ListenOptions};
use crate::wire::listen::Listen;
use crate::wire::local::{Failure, FailureKind};

/// Where a seed's sockets listen, by the index of their records.
#[derive(Clone, Debug, Default)]
pub(super) struct SeedListeners {
    all: Vec<(u32, Listening, Place)>,
    /// Its files are carried.
    is_carried: bool,
}

/// An address, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Inet(SocketAddr),
    /// A path.
    Unix(String),
    /// An abstract name, or none.
    Unnamed,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Inet(address) => write!(f, "{address}"),
            Place::Unix(path) => write!(f, "unix:{path}"),
            Place::Unnamed => f.write_str("an abstract unix socket"),
        }
    }
}

/// The sockets of all children of one resume.
#[derive(Debug, Default)]
pub(super) struct Bound {
    /// For each child, or for all of them alike: record and socket.
    children: Vec<Vec<(u32, Arc<OwnedFd>)>>,
}

impl Bound {
    /// Those of one child.
    pub(super) fn of(&self, index: u32) -> Vec<(u32, BorrowedFd<'_>)> {
        let own = self.children.get(index as usize).or(self.children.last());
        let own = own.into_iter().flatten();
        own.map(|(record, socket)| (*record, socket.as_fd())).collect()
    }
}

impl SeedListeners {
    pub(super) fn of(carried: Option<&CarriedFiles>) -> Self {
        let known = carried.into_iter().flat_map(CarriedFiles::listeners);
        let all = known.map(|(index, listening)| (index, listening.clone(), place(listening)));
        SeedListeners { all: all.collect(), is_carried: carried.is_some() }
    }

    /// Binds what a resume of `count` children asks for.
    ///
    /// # Errors
    /// An address that cannot be had, or a choice that fits no socket of the seed's.
    pub(super) fn bind(&self, choices: &[Listen], count: u32) -> Result<Bound, Failure> {
        if choices.is_empty() {
            return Ok(Bound::default());
        }
        let wanted = self.wanted(choices)?;
        if wanted.len() > MAX_LISTENERS {
            let text =
                format!("{} sockets are to listen, {MAX_LISTENERS} is the limit", wanted.len());
            return Err(fail(FailureKind::Limit, text));
        }
        check_room(&wanted, count)?;
        let mut children: Vec<Vec<(u32, Arc<OwnedFd>)>> = Vec::new();
        for child in 0..count as usize {
            let mut own = Vec::with_capacity(wanted.len());
            for (at, (index, listening, place)) in wanted.iter().enumerate() {
                let first = children.first().map(|first: &Vec<(u32, Arc<OwnedFd>)>| &first[at].1);
                let socket = match (place, first) {
                    // A path is one socket, whose connections all children share.
                    (Place::Unix(_) | Place::Unnamed, Some(first)) => first.clone(),
                    _ => Arc::new(bind_one(listening, place, count > 1)?),
                };
                own.push((*index, socket));
            }
            let is_alike =
                child == 0 && wanted.iter().all(|(_, _, place)| !matches!(place, Place::Inet(_)));
            children.push(own);
            if is_alike {
                break;
            }
        }
        Ok(Bound { children })
    }

    fn wanted(&self, choices: &[Listen]) -> Result<Vec<(u32, &Listening, Place)>, Failure> {
        let mut wanted: Vec<(u32, &Listening, Place)> = Vec::new();
        for choice in choices {
            let mut is_met = false;
            for (index, listening, was) in &self.all {
                let is_chance = *choice == Listen::All && may_be_kernels_choice(listening, was);
                let Some(now) = chosen(choice, was).filter(|_| !is_chance) else { continue };
                is_met = true;
                match wanted.iter_mut().find(|(known, ..)| known == index) {
                    Some(known) => known.2 = now,
                    None => wanted.push((*index, listening, now)),
                }
            }
            if !is_met {
                return Err(fail(FailureKind::Argument, self.unmet(choice)));
            }
        }
        Ok(wanted)
    }

    fn unmet(&self, choice: &Listen) -> String {
        if !self.is_carried {
            return format!(
                "nothing of this seed can listen ({choice}): its files are not carried; prepare it with files \
                 carried"
            );
        }
        let places: Vec<String> = self.all.iter().map(|(_, _, place)| place.to_string()).collect();
        match places.is_empty() {
            true => format!("no socket of this seed listens, so none can be told to: {choice}"),
            false => format!(
                "no socket of this seed listens at {choice}; it listens at {}",
                places.join(", ")
            ),
        }
    }
}

/// Where a socket goes by this choice, if it is meant.
fn chosen(choice: &Listen, was: &Place) -> Option<Place> {
    match (choice, was) {
        (Listen::All, Place::Inet(_) | Place::Unix(_)) => Some(was.clone()),
        (Listen::Port { was: port, now }, Place::Inet(address)) if address.port() == *port => {
            let mut address = *address;
            address.set_port(*now);
            Some(Place::Inet(address))
        }
        (Listen::Unix { was: path, now }, Place::Unix(known)) if known == path => {
            Some(Place::Unix(now.clone()))
        }
        _ => None,
    }
}

/// Whether the kernel may have chosen a port when a socket's first datagram was sent. The kernel does not tell;
/// whoever asks it to choose by bind(2) names an address, and whoever shares a port has chosen it.
fn may_be_kernels_choice(listening: &Listening, place: &Place) -> bool {
    /// Where the kernel does not tell: its own default.
    const PORTS: (u16, u16) = (32_768, 60_999);
    let Place::Inet(address) = place else { return false };
    let is_datagram = listening.socket_type == libc::SOCK_DGRAM.cast_unsigned();
    if !is_datagram || listening.reuse_address || listening.reuse_port {
        return false;
    }
    let told = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let told = told.ok().and_then(|text| {
        let mut words = text.split_ascii_whitespace().map(str::parse::<u16>);
        Some((words.next()?.ok()?, words.next()?.ok()?))
    });
    let (first, last) = told.unwrap_or(PORTS);
    address.ip().is_unspecified() && (first..=last).contains(&address.port())
}

/// Whether all sockets of a resume can be open at once.
fn check_room(wanted: &[(u32, &Listening, Place)], count: u32) -> Result<(), Failure> {
    let limits = crate::sys::limits::of(std::process::id());
    let limits = limits.map_err(|error| fail(FailureKind::Missing, error.to_string()))?;
    let (soft, _) = limits[libc::RLIMIT_NOFILE as usize];
    let sockets = sockets(wanted, count);
    if sockets < soft {
        return Ok(());
    }
    let text = format!(
        "no child was started: {count} children would listen on {sockets} sockets, and this agent may have only \
         {soft} files open: resume fewer at once, or raise its limit (ulimit -n, LimitNOFILE=)"
    );
    Err(fail(FailureKind::Limit, text))
}

/// How many sockets are bound: of each port one for each child.
fn sockets(wanted: &[(u32, &Listening, Place)], count: u32) -> u64 {
    let each = |place: &Place| if matches!(place, Place::Inet(_)) { u64::from(count) } else { 1 };
    wanted.iter().map(|(_, _, place)| each(place)).sum()
}

fn bind_one(listening: &Listening, place: &Place, is_shared: bool) -> Result<OwnedFd, Failure> {
    let options = ListenOptions {
        domain: listening.domain,
        socket_type: listening.socket_type,
        protocol: listening.protocol,
        backlog: listening.backlog,
        reuse_address: listening.reuse_address,
        reuse_port: listening.reuse_port || (is_shared && matches!(place, Place::Inet(_))),
        v6_only: listening.v6_only,
        no_delay: listening.no_delay,
        keep_alive: listening.keep_alive,
    };
    let bound = match place {
        Place::Inet(address) => listening::at(&options, &sockaddr(address)),
        Place::Unix(path) => {
            listening::remove_stale(path);
            listening::at(&options, &sockaddr_unix(path))
        }
        Place::Unnamed => Err(io::ErrorKind::Unsupported.into()),
    };
    bound.map_err(|error| {
        let remedy = match error.raw_os_error() {
            Some(libc::EADDRINUSE) => {
                "; something listens there already: end it, or choose another one (--listen PORT=PORT)"
            }
            Some(libc::EMFILE) => {
                "; resume fewer children at once, or raise the agent's limit (ulimit -n, LimitNOFILE=)"
            }
            Some(libc::EACCES) => "; the agent may not: choose a port above 1023",
            _ => "",
        };
        let text = format!("no child was started: cannot listen at {place}: {error}{remedy}");
        fail(FailureKind::Argument, text)
    })
}

/// A `struct sockaddr`, as bytes.
fn place(listening: &Listening) -> Place {
    let address = &listening.address;
    let port =
        address.get(2..4).and_then(<[u8]>::first_chunk).map(|port| u16::from_be_bytes(*port));
    match (i32::try_from(listening.domain), port) {
        (Ok(libc::AF_INET), Some(port)) => {
            let ip = address.get(4..8).and_then(<[u8]>::first_chunk::<4>);
            ip.map_or(Place::Unnamed, |ip| Place::Inet((Ipv4Addr::from(*ip), port).into()))
        }
        (Ok(libc::AF_INET6), Some(port)) => {
            let ip = address.get(8..24).and_then(<[u8]>::first_chunk::<16>);
            let scope = address.get(24..28).and_then(<[u8]>::first_chunk::<4>);
            let scope = scope.map_or(0, |scope| u32::from_ne_bytes(*scope));
            ip.map_or(Place::Unnamed, |ip| {
                Place::Inet(SocketAddrV6::new(Ipv6Addr::from(*ip), port, 0, scope).into())
            })
        }
        (Ok(libc::AF_UNIX), _) => {
            let path = address.get(2..).unwrap_or(&[]);
            let end = path.iter().position(|byte| *byte == 0).unwrap_or(path.len());
            match std::str::from_utf8(&path[..end]) {
                Ok(path) if path.starts_with('/') => Place::Unix(path.to_owned()),
                _ => Place::Unnamed,
            }
        }
        _ => Place::Unnamed,
    }
}

fn sockaddr(address: &SocketAddr) -> Vec<u8> {
    let family = |family: i32| u16::try_from(family).unwrap_or(0).to_ne_bytes();
    match address {
        SocketAddr::V4(v4) => sockaddr_v4(family(libc::AF_INET), v4),
        SocketAddr::V6(v6) => sockaddr_v6(family(libc::AF_INET6), v6),
    }
}

fn sockaddr_v4(family: [u8; 2], address: &SocketAddrV4) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    [&family[..], &port, &address.ip().octets(), &[0; 8]].concat()
}

fn sockaddr_v6(family: [u8; 2], address: &SocketAddrV6) -> Vec<u8> {
    let port = address.port().to_be_bytes();
    let scope = address.scope_id().to_ne_bytes();
    [&family[..], &port, &[0; 4], &address.ip().octets(), &scope].concat()
}

fn sockaddr_unix(path: &str) -> Vec<u8> {
    let family = u16::try_from(libc::AF_UNIX).unwrap_or(1).to_ne_bytes();
    [&family[..], path.as_bytes(), &[0]].concat()
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::descriptor::{CarriedFile, FileKind, Number};

    fn listening(address: &SocketAddr) -> Listening {
        Listening {
            domain: u32::try_from(if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 })
                .unwrap(),
            socket_type: 1,
            protocol: 0,
            address: sockaddr(address),
            backlog: Some(7),
            reuse_address: false,
            reuse_port: false,
            v6_only: true,
            no_delay: true,
            keep_alive: false,
        }
    }

    fn seed(addresses: &[SocketAddr]) -> SeedListeners {
        let file = |(fd, address): (u32, &SocketAddr)| CarriedFile {
            numbers: vec![Number { fd, close_on_exec: true }],
            flags: 2,
            kind: FileKind::Listener(listening(address)),
        };
        let files: Vec<CarriedFile> = (3u32..).zip(addresses).map(file).collect();
        SeedListeners::of(Some(&CarriedFiles::new(files).unwrap()))
    }

    fn choices(texts: &[&str]) -> Vec<Listen> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn addresses_come_back() {
        for text in ["127.0.0.1:80", "0.0.0.0:65535", "[::1]:8080", "[fe80::1%3]:80"] {
            let address: SocketAddr = text.parse().unwrap();
            assert_eq!(place(&listening(&address)), Place::Inet(address));
        }
    }

    #[test]
    fn a_port_that_is_taken_is_named_and_another_one_can_be_chosen() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let seed = seed(&[address]);
        let failure = seed.bind(&choices(&["all"]), 1).unwrap_err();
        let text = &failure.message;
        assert!(text.contains(&address.to_string()) && text.contains("PORT=PORT"), "{text}");
        let bound = seed.bind(&choices(&[&format!("{}=0", address.port())]), 1).unwrap();
        assert_eq!(bound.of(0).len(), 1);
        assert!(bound.of(0)[0].0 == 0);
    }

    #[test]
    fn children_of_one_resume_share_a_port() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let bound = seed(&[address]).bind(&choices(&["all"]), 3).unwrap();
        let sockets: Vec<_> = (0..3).map(|child| bound.of(child)[0].1).collect();
        assert!(sockets[0].as_raw_fd() != sockets[1].as_raw_fd());
        assert!(sockets[1].as_raw_fd() != sockets[2].as_raw_fd());
    }

    #[test]
    fn children_of_one_resume_have_one_socket_at_a_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        let domain = libc::AF_UNIX.cast_unsigned();
        let address = sockaddr_unix(path.to_str().unwrap());
        let inet = listening(&"127.0.0.1:80".parse().unwrap());
        let listening = Listening { domain, address, no_delay: false, ..inet };
        let number = Number { fd: 3, close_on_exec: true };
        let kind = FileKind::Listener(listening);
        let file = CarriedFile { numbers: vec![number], flags: 2, kind };
        let seed = SeedListeners::of(Some(&CarriedFiles::new(vec![file]).unwrap()));
        let bound = seed.bind(&choices(&["all"]), 3).unwrap();
        assert_eq!(bound.of(0)[0].1.as_raw_fd(), bound.of(2)[0].1.as_raw_fd());
        UnixStream::connect(&path).unwrap();
    }

    #[test]
    fn as_many_sockets_as_files_may_be_open_are_refused_before_one_is_bound() {
        let address = "127.0.0.1:80".parse().unwrap();
        let listening = listening(&address);
        let (port, path) = (Place::Inet(address), Place::Unix("/a".to_owned()));
        let wanted = [(0, &listening, port), (1, &listening, path)];
        assert_eq!(sockets(&wanted, 10), 11);
        let failure = check_room(&wanted, u32::MAX).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Limit);
        assert!(failure.message.contains("LimitNOFILE"), "{}", failure.message);
        assert!(check_room(&wanted, 1).is_ok());
    }

    #[test]
    fn a_choice_that_fits_nothing_is_refused() {
        let address = "127.0.0.1:4711".parse().unwrap();
        let text = seed(&[address]).bind(&choices(&["80"]), 1).unwrap_err().message;
        assert!(text.contains("127.0.0.1:4711"), "{text}");
        let text = SeedListeners::of(None).bind(&choices(&["all"]), 1).unwrap_err().message;
        assert!(text.contains("not carried"), "{text}");
        assert!(SeedListeners::of(None).bind(&[], 1).unwrap().of(0).is_empty());
    }

    #[test]
    fn a_port_that_the_kernel_may_have_chosen_is_taken_by_who_names_it() {
        let told = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
        let mut range = told.split_ascii_whitespace().map(|word| word.parse::<u16>().unwrap());
        let (first, last) = (range.next().unwrap(), range.next().unwrap());
        let udp = |text: &str, port: u16, shares| {
            let mut address: SocketAddr = text.parse().unwrap();
            address.set_port(port);
            let socket_type = libc::SOCK_DGRAM.cast_unsigned();
            let known = listening(&address);
            Listening { socket_type, backlog: None, reuse_address: shares, ..known }
        };
        for (listening, is_meant_by_all) in [
            (udp("0.0.0.0:0", first, false), false),
            (udp("[::]:0", last, false), false),
            (udp("0.0.0.0:0", first, true), true),
            (udp("0.0.0.0:0", first - 1, false), true),
            (udp("127.0.0.1:0", first, false), true),
        ] {
            let place = place(&listening);
            let Place::Inet(address) = &place else { panic!("{place}") };
            let one = SeedListeners { all: vec![(0, listening, place.clone())], is_carried: true };
            let meant = one.wanted(&choices(&["all"]));
            assert_eq!(meant.is_ok(), is_meant_by_all, "{place}");
            assert_eq!(one.wanted(&choices(&[&address.port().to_string()])).unwrap().len(), 1);
        }
    }

    use std::os::fd::AsRawFd;
}
