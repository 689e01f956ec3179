//! How a stream begins: a greeting of either kind, the token that it is opened by, a place, and the welcome.

use std::io::{self, Read, Write};
use std::net::{IpAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{GREETING_TIMEOUT, IDLE_TIMEOUT, MAX_STREAMS, PageService, SEND_TIMEOUT};
use crate::sys::socket;
use crate::tally::Counted;
use crate::wire::read::{self, Status};
use crate::wire::read_stream::ReadStream;
use crate::wire::seal::{self, Encryption, Seal};

const MAGIC_LEN: usize = read::MAGIC.len();

/// One of the streams; counted until dropped.
#[derive(Debug)]
pub(super) struct Slot {
    service: Arc<PageService>,
    /// Whose it is; `None`: it has no address.
    pub(super) from: Option<IpAddr>,
    is_encrypted: bool,
    _place: Option<Counted<IpAddr>>,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.service.streams.fetch_sub(1, Ordering::Relaxed);
        self.service.encrypted.fetch_sub(usize::from(self.is_encrypted), Ordering::Relaxed);
    }
}

/// What a greeting has come to.
enum Greeted {
    Plain(Slot),
    /// With the message behind the welcome.
    Encrypted(Slot, Seal, [u8; seal::HANDSHAKE_LEN]),
    Refused(Status, &'static str),
}

impl PageService {
    /// Reads the greeting and answers it; `None` if the stream is refused.
    pub(super) fn welcome(
        self: &Arc<Self>,
        mut tcp: TcpStream,
    ) -> io::Result<Option<(ReadStream, Slot)>> {
        tcp.set_nonblocking(false)?;
        socket::answer_at_once(&tcp);
        if let Err(error) = socket::follow_acknowledgements(&tcp) {
            tracing::debug!(%error, "a READ stream keeps the host's congestion control");
        }
        tcp.set_read_timeout(Some(GREETING_TIMEOUT))?;
        tcp.set_write_timeout(Some(SEND_TIMEOUT))?;
        let from = tcp.peer_addr().ok().map(|peer| peer.ip().to_canonical());
        let (slot, seal) = match self.greeted(&tcp, from)? {
            Greeted::Plain(slot) => {
                tcp.write_all(&read::encode_welcome(Status::Ok))?;
                (slot, None)
            }
            Greeted::Encrypted(slot, seal, message) => {
                let mut answer = [0; read::WELCOME_LEN + seal::HANDSHAKE_LEN];
                answer[..read::WELCOME_LEN].copy_from_slice(&read::encode_welcome(Status::Ok));
                answer[read::WELCOME_LEN..].copy_from_slice(&message);
                tcp.write_all(&answer)?;
                (slot, Some(seal))
            }
            Greeted::Refused(status, why) => {
                // Its peer opens another at once.
                match status {
                    Status::Encrypt => {
                        tracing::debug!(why, peer = ?from, "a READ stream was refused")
                    }
                    _ => tracing::warn!(why, peer = ?from, "a READ stream was refused"),
                }
                tcp.write_all(&read::encode_welcome(status))?;
                return Ok(None);
            }
        };
        tcp.set_read_timeout(Some(IDLE_TIMEOUT))?;
        Ok(Some((ReadStream::new(tcp, seal), slot)))
    }

    fn greeted(self: &Arc<Self>, mut tcp: &TcpStream, from: Option<IpAddr>) -> io::Result<Greeted> {
        let mut magic = [0; MAGIC_LEN];
        tcp.read_exact(&mut magic)?;
        if magic == seal::MAGIC {
            return Ok(self.greeted_encrypted(whole(tcp, magic)?, from));
        }
        Ok(self.greeted_plain(whole(tcp, magic)?, from))
    }

    fn greeted_plain(
        self: &Arc<Self>,
        greeting: [u8; read::GREETING_LEN],
        from: Option<IpAddr>,
    ) -> Greeted {
        let Ok(token) = read::parse_greeting(&greeting) else {
            return Greeted::Refused(Status::Protocol, "it speaks another protocol");
        };
        // Used up in either case: it has crossed the network in plain.
        if let Err(why) = self.redeem(&token, from) {
            return Greeted::Refused(Status::Revoked, why);
        }
        if self.encryption == Encryption::Demanded {
            let why = "it is not encrypted, and this host serves no others (encrypt_reads)";
            return Greeted::Refused(Status::Encrypt, why);
        }
        self.slot(from).map_or_else(|why| Greeted::Refused(Status::Busy, why), Greeted::Plain)
    }

    fn greeted_encrypted(
        self: &Arc<Self>,
        greeting: [u8; seal::GREETING_LEN],
        from: Option<IpAddr>,
    ) -> Greeted {
        let Ok(greeting) = seal::Greeting::parse(&greeting) else {
            return Greeted::Refused(Status::Protocol, "it speaks another protocol");
        };
        let token = match self.tokens.redeem_id(greeting.token_id(), from) {
            Ok(token) => token,
            Err(why) => return Greeted::Refused(Status::Revoked, why),
        };
        let Ok((seal, message)) = greeting.accept(&token) else {
            return Greeted::Refused(Status::Revoked, "it does not prove that it knows its token");
        };
        match self.slot(from) {
            Ok(mut slot) => {
                slot.is_encrypted = true;
                self.encrypted.fetch_add(1, Ordering::Relaxed);
                Greeted::Encrypted(slot, seal, message)
            }
            Err(why) => Greeted::Refused(Status::Busy, why),
        }
    }

    pub(super) fn slot(self: &Arc<Self>, from: Option<IpAddr>) -> Result<Slot, &'static str> {
        let most = self.limits.streams;
        let place = from.map(|peer| self.streams_of_peers.enter(peer, 1, most));
        if let Some(None) = place {
            return Err("its peer has as many as one may have (max_streams_of_peer)");
        }
        let (service, _place) = (Arc::clone(self), place.flatten());
        let slot = Slot { service, from, is_encrypted: false, _place };
        match self.streams.fetch_add(1, Ordering::Relaxed) < MAX_STREAMS {
            true => Ok(slot),
            false => Err("there are as many as this host serves"),
        }
    }
}

/// A greeting whose first bytes are here.
fn whole<const N: usize>(mut tcp: &TcpStream, magic: [u8; MAGIC_LEN]) -> io::Result<[u8; N]> {
    let mut greeting = [0; N];
    greeting[..MAGIC_LEN].copy_from_slice(&magic);
    tcp.read_exact(&mut greeting[MAGIC_LEN..])?;
    Ok(greeting)
}
