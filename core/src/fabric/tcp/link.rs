//! One connection's READs in flight. Answers come in the order of the requests, so the front of `sent`
//! is whose bytes are on their way; they are received into its own buffer.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

use super::connector::TcpConnector;
use crate::fabric::queue::{Broken, Link};
use crate::fabric::{Completion, MAX_IN_FLIGHT, Read, ReadError};
use crate::wire::read::{self, ANSWER_LEN, Status};
use crate::wire::read_stream::ReadStream;

/// Bytes of requests that are on their way at most: they fit any socket's buffer at once. So bytes that
/// are not sent yet imply an answer to come, and the socket becomes readable.
const WINDOW_BYTES: usize = 16 << 10;

const _: () = assert!(WINDOW_BYTES >= read::MAX_REQUEST_LEN);

/// The READs of one queue to one peer that are not answered.
#[derive(Debug)]
pub(super) struct TcpLink {
    /// READs whose requests are on their way.
    sent: VecDeque<Sent>,
    /// Requests: `out[out_at..]` is still to be written.
    out: Vec<u8>,
    out_at: usize,
    /// Bytes of the requests in `sent`.
    window: usize,
    next_tag: u32,
    header: [u8; ANSWER_LEN],
    header_have: usize,
    /// Bytes of the front's buffer that are filled.
    filled: usize,
}

#[derive(Debug)]
struct Sent {
    read: Read,
    tag: u32,
    request_len: usize,
    /// Bytes that a good answer has.
    bytes: usize,
}

impl Link for TcpLink {
    type Connector = TcpConnector;
    type Aim = ();
    /// There is no other way behind it.
    const WAITS: bool = true;

    fn new() -> Self {
        TcpLink {
            sent: VecDeque::with_capacity(MAX_IN_FLIGHT),
            out: Vec::with_capacity(WINDOW_BYTES),
            out_at: 0,
            window: 0,
            next_tag: 0,
            header: [0; ANSWER_LEN],
            header_have: 0,
            filled: 0,
        }
    }

    fn aim<'read>(_: &TcpConnector, read: &'read Read) -> Result<(&'read str, ()), ReadError> {
        let agent = read.export.tcp().and_then(|(agent, _)| agent);
        let nobody = || ReadError::Local("the export names nobody to connect to".to_owned());
        Ok((agent.ok_or_else(nobody)?, ()))
    }

    fn is_idle(&self) -> bool {
        self.sent.is_empty()
    }

    fn has_room(&self, read: &Read) -> bool {
        self.sent.is_empty() || self.window + request_len(read) <= WINDOW_BYTES
    }

    /// Encodes the request.
    fn push(&mut self, read: Read, (): ()) {
        let Some((_, read_key)) = read.export.tcp() else { return };
        let tag = self.next_tag;
        self.next_tag = tag.wrapping_add(1);
        if self.out_at == self.out.len() {
            self.out.clear();
            self.out_at = 0;
        }
        read::encode_read(&mut self.out, tag, read.seed, read_key, &read.ranges);
        let bytes = read.ranges.iter().map(|&(_, len)| len as usize).sum();
        let request_len = request_len(&read);
        self.window += request_len;
        self.sent.push_back(Sent { read, tag, request_len, bytes });
    }

    /// Sends what the socket takes.
    fn flush(&mut self, stream: &mut ReadStream) -> Result<(), Broken> {
        let mut send = || {
            while self.out_at < self.out.len() {
                match stream.send(&self.out[self.out_at..]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(sent) => self.out_at += sent,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            stream.send_rest()
        };
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WriteZero => {
                Err(Broken::Lost("the connection takes no bytes".to_owned()))
            }
            sent => sent.map_err(|error| Broken::Lost(error.to_string())),
        }
    }

    /// Receives what is there; gives each READ that ends to `done`.
    fn receive(
        &mut self,
        stream: &mut ReadStream,
        done: &mut dyn FnMut(Completion),
    ) -> Result<(), Broken> {
        while !self.sent.is_empty() {
            if self.header_have < ANSWER_LEN {
                let Some(behind) = self.receive_header(stream)? else { return Ok(()) };
                if self.header_have < ANSWER_LEN {
                    continue;
                }
                match (self.parse_header()?, behind) {
                    (Status::Ok, _) => self.filled = behind,
                    (status, 0) => {
                        self.complete(Err(refusal(status)), done);
                        continue;
                    }
                    _ => return Err(Broken::Protocol("bytes behind a refusal".to_owned())),
                }
            }
            let Some(front) = self.sent.front_mut() else { return Ok(()) };
            let wanted = &mut front.read.buffer[self.filled..front.bytes];
            let wanted_len = wanted.len();
            if wanted_len == 0 {
                self.complete(Ok(()), done);
                continue;
            }
            let Some(got) = receive_some(stream, wanted)? else { return Ok(()) };
            self.filled += got;
            if got == wanted_len {
                self.complete(Ok(()), done);
            } else if !stream.is_encrypted() {
                // The socket was drained: it becomes readable again. Records may have come with others.
                return Ok(());
            }
        }
        Ok(())
    }

    fn is_late(&self, now: Instant) -> bool {
        self.sent.iter().any(|sent| sent.read.deadline <= now)
    }

    /// Nothing lands by itself here: bytes are received into a READ's buffer by `receive` alone.
    fn abandon(&mut self, _stream: &mut ReadStream) -> Vec<Read> {
        self.out.clear();
        (self.out_at, self.window, self.header_have, self.filled) = (0, 0, 0, 0);
        self.sent.drain(..).map(|sent| sent.read).collect()
    }

    fn poll_fd(&self, stream: &ReadStream) -> RawFd {
        stream.tcp().as_raw_fd()
    }
}

impl TcpLink {
    /// Receives some of the front's header, and if nothing but its bytes can follow, these with it: how
    /// many came behind the header; `None` if nothing is there.
    fn receive_header(&mut self, stream: &mut ReadStream) -> Result<Option<usize>, Broken> {
        let header = &mut self.header[self.header_have..];
        let missing = header.len();
        let is_alone = self.sent.len() == 1;
        let got = match self.sent.front_mut() {
            Some(front) if is_alone => {
                let bytes = &mut front.read.buffer[..front.bytes];
                some_of(|| stream.receive_two(header, bytes))?
            }
            _ => receive_some(stream, header)?,
        };
        let Some(got) = got else { return Ok(None) };
        self.header_have += got.min(missing);
        Ok(Some(got.saturating_sub(missing)))
    }

    fn parse_header(&self) -> Result<Status, Broken> {
        let answer = read::parse_answer(&self.header)
            .map_err(|error| Broken::Protocol(error.to_string()))?;
        let front = self.sent.front().map(|sent| (sent.tag, sent.bytes));
        match (answer.status, front) {
            (Status::Protocol, _) => Err(Broken::Protocol("it refuses the request".to_owned())),
            (Status::Pushed | Status::Busy | Status::Encrypt, _) => {
                Err(Broken::Protocol("a status that answers no READ".to_owned()))
            }
            (_, Some((tag, _))) if tag != answer.tag => {
                Err(Broken::Protocol(format!("answer {} where {tag} is due", answer.tag)))
            }
            (Status::Ok, Some((_, bytes))) if bytes != answer.len => Err(Broken::Protocol(
                format!("{} bytes in answer to a READ of {bytes}", answer.len),
            )),
            (status, _) => Ok(status),
        }
    }

    fn complete(&mut self, result: Result<(), ReadError>, done: &mut dyn FnMut(Completion)) {
        (self.header_have, self.filled) = (0, 0);
        if let Some(sent) = self.sent.pop_front() {
            self.window -= sent.request_len;
            done(Completion { tag: sent.read.tag, buffer: sent.read.buffer, result });
        }
    }
}

fn request_len(read: &Read) -> usize {
    read::REQUEST_LEN + read.ranges.len() * read::RANGE_LEN
}

/// What a status says that refuses a READ.
pub(super) fn refusal(status: Status) -> ReadError {
    ReadError::Revoked(
        match status {
            Status::Ended => "the seed has ended, its memory is gone; prepare a new one",
            Status::BadRange => {
                "the range is not the seed's, or its bytes cannot be had; prepare a new one"
            }
            _ => {
                "the seed is not exported there, or was dropped, or the read key is not its own; \
                 prepare a new one"
            }
        }
        .to_owned(),
    )
}

/// recv(2); `None` if nothing is there.
fn receive_some(stream: &mut ReadStream, into: &mut [u8]) -> Result<Option<usize>, Broken> {
    some_of(|| stream.receive(into))
}

fn some_of(mut receive: impl FnMut() -> io::Result<usize>) -> Result<Option<usize>, Broken> {
    loop {
        match receive() {
            Ok(0) => return Err(Broken::Lost("the peer has closed the connection".to_owned())),
            Ok(got) => return Ok(Some(got)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(Broken::Lost(error.to_string())),
        }
    }
}
