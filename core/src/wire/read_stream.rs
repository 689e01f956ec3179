//! A READ stream behind its welcome, on a socket: plain bytes, or records of `seal`.
//!
//! Whoever waits for the socket must have asked `receive` until it said `WouldBlock`: what is opened, and records that
//! have come along with others, are here and not there.

use std::io::{self, IoSliceMut, Read as _, Write as _};
use std::net::TcpStream;

use super::seal::{self, HEAD_LEN, MAX_PLAIN, MAX_RECORD, Seal, SealError, TAG_LEN};

/// Records of pages that are sent, or received, by one system call at most: each call may be a sleep on the other side.
const RECORDS_OF_PAGES: usize = 16;
/// Likewise of requests, which are short.
const RECORDS_OF_REQUESTS: usize = 2;

/// See the module's comment.
#[derive(Debug)]
pub struct ReadStream {
    tcp: TcpStream,
    sealed: Option<Box<Sealed>>,
}

/// What encryption takes.
#[derive(Debug)]
struct Sealed {
    seal: Seal,
    /// Records: `out[out_at..]` is still to be sent.
    out: Vec<u8>,
    out_at: usize,
    /// Received, and not opened: `ciphers[at..end]`.
    ciphers: Box<[u8]>,
    at: usize,
    end: usize,
    /// Opened, and not given out: `plain[plain_at..plain_end]`.
    plain: Box<[u8]>,
    plain_at: usize,
    plain_end: usize,
}

impl ReadStream {
    /// A plain one, or one that is encrypted by `seal`.
    pub fn new(tcp: TcpStream, seal: Option<Seal>) -> Self {
        ReadStream { tcp, sealed: seal.map(|seal| Box::new(Sealed::new(seal))) }
    }

    /// The socket, to wait for and for timeouts. Bytes go through this type alone.
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Whether it is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.sealed.is_some()
    }

    /// Takes some of `bytes`, and tells how many; those of an encrypted stream may be on their way only after
    /// [`Self::send_rest`].
    ///
    /// # Errors
    /// send(2)'s; `WouldBlock` where none were taken.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(sealed) = &mut self.sealed else { return self.tcp.write(bytes) };
        sealed.send_rest(&self.tcp)?;
        sealed.seal(bytes)
    }

    /// Sends what [`Self::send`] has taken.
    ///
    /// # Errors
    /// send(2)'s; `WouldBlock` where some is left.
    pub fn send_rest(&mut self) -> io::Result<()> {
        self.sealed.as_mut().map_or(Ok(()), |sealed| sealed.send_rest(&self.tcp))
    }

    /// Sends all of `bytes`, on a socket that blocks.
    ///
    /// # Errors
    /// send(2)'s.
    pub fn send_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        if self.sealed.is_none() {
            return self.tcp.write_all(bytes);
        }
        while !bytes.is_empty() {
            let taken = self.send(bytes)?;
            bytes = &bytes[taken..];
        }
        self.send_rest()
    }

    /// Receives some bytes; none at the stream's end.
    ///
    /// # Errors
    /// recv(2)'s; `InvalidData`, with a [`SealError`] in it, for a record that is none.
    pub fn receive(&mut self, into: &mut [u8]) -> io::Result<usize> {
        self.receive_by(into, |mut tcp, into| tcp.read(into))
    }

    /// As [`Self::receive`], into the first part and what follows into the second. An encrypted stream may give less than
    /// is there.
    ///
    /// # Errors
    /// As there.
    pub fn receive_two(&mut self, first: &mut [u8], second: &mut [u8]) -> io::Result<usize> {
        if self.sealed.is_some() {
            return self.receive(first);
        }
        self.tcp.read_vectored(&mut [IoSliceMut::new(first), IoSliceMut::new(second)])
    }

    /// As [`Self::receive`], with bytes of the socket got by `receive`.
    ///
    /// # Errors
    /// As there.
    pub fn receive_by(
        &mut self,
        into: &mut [u8],
        mut receive: impl FnMut(&TcpStream, &mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        match &mut self.sealed {
            None => receive(&self.tcp, into),
            Some(sealed) => sealed.receive(into, |room| receive(&self.tcp, room)),
        }
    }
}

impl Sealed {
    fn new(seal: Seal) -> Self {
        let records = if seal.is_client() { RECORDS_OF_PAGES } else { RECORDS_OF_REQUESTS };
        Sealed {
            seal,
            out: Vec::new(),
            out_at: 0,
            ciphers: vec![0; records * MAX_RECORD].into(),
            at: 0,
            end: 0,
            plain: vec![0; MAX_PLAIN + TAG_LEN].into(),
            plain_at: 0,
            plain_end: 0,
        }
    }

    /// Makes records of some of `bytes`; all that were made before are sent.
    fn seal(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = &bytes[..bytes.len().min(RECORDS_OF_PAGES * MAX_PLAIN)];
        self.out.clear();
        self.out_at = 0;
        for plain in taken.chunks(MAX_PLAIN) {
            let begin = self.out.len();
            self.out.resize(begin + HEAD_LEN + plain.len() + TAG_LEN, 0);
            self.seal.seal(plain, &mut self.out[begin..]).map_err(broken)?;
        }
        Ok(taken.len())
    }

    fn send_rest(&mut self, mut tcp: &TcpStream) -> io::Result<()> {
        while self.out_at < self.out.len() {
            match tcp.write(&self.out[self.out_at..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(sent) => self.out_at += sent,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Gives what is here, of as many records as there are; only if that is nothing it asks the socket.
    fn receive(
        &mut self,
        into: &mut [u8],
        mut receive: impl FnMut(&mut [u8]) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut filled = 0;
        loop {
            let opened = &self.plain[self.plain_at..self.plain_end];
            let count = opened.len().min(into.len() - filled);
            into[filled..filled + count].copy_from_slice(&opened[..count]);
            self.plain_at += count;
            filled += count;
            if filled == into.len() {
                return Ok(filled);
            }
            match self.open(&mut into[filled..]) {
                Ok(Some(count)) => filled += count,
                // A record that is none is met again by the next call: what stood in front of it is good.
                Ok(None) | Err(_) if filled > 0 => return Ok(filled),
                Err(error) => return Err(broken(error)),
                Ok(None) => {
                    self.ciphers.copy_within(self.at..self.end, 0);
                    (self.at, self.end) = (0, self.end - self.at);
                    match receive(&mut self.ciphers[self.end..])? {
                        0 if self.end == 0 => return Ok(0),
                        // An end in the midst of a record is no peer's own: someone has cut it off.
                        0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                        got => self.end += got,
                    }
                }
            }
        }
    }

    /// Opens the next record straight into `into` if it has room, with its tag, and else aside: then 0. `None`: it has not
    /// come whole.
    fn open(&mut self, into: &mut [u8]) -> Result<Option<usize>, SealError> {
        let Some(ciphertext) = seal::ciphertext_of(&self.ciphers[self.at..self.end])? else {
            return Ok(None);
        };
        let count = if into.len() >= ciphertext.len() {
            self.seal.open(ciphertext, into)?
        } else {
            self.plain_end = self.seal.open(ciphertext, &mut self.plain)?;
            self.plain_at = 0;
            0
        };
        self.at += HEAD_LEN + ciphertext.len();
        Ok(Some(count))
    }
}

fn broken(error: SealError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
#[path = "read_stream_tests.rs"]
mod tests;
