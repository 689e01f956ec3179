//! The push: a seed's hot pages, asked for once and then sent run by run.

use std::io::{self, Read as _};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::TcpFabric;
use super::link::refusal;
use crate::descriptor::{SeedAddr, SeedRange};
use crate::fabric::ReadError;
use crate::fabric::mailbox::{Delivery, Mailbox};
use crate::fabric::pool::Pooled;
use crate::id::{ReadKey, SeedId};
use crate::wire::read::{self, ANSWER_LEN, PUSH_ADDR_LEN, Status};
use crate::wire::read_stream::ReadStream;

/// What is received at a time: several runs in one system call.
const RECEIVE_BYTES: usize = 256 << 10;
/// A connection that lay idle may be dead; the second one is fresh.
const ATTEMPTS: usize = 2;

const _: () = assert!(RECEIVE_BYTES >= ANSWER_LEN + PUSH_ADDR_LEN + read::MAX_PUSH_BYTES);

/// What a push has brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushReport {
    /// Runs of pages; each was one call of `store`.
    pub runs: u64,
    /// Bytes of pages.
    pub bytes: u64,
    /// From the request to the last byte.
    pub took: Duration,
}

/// Why a push has ended early.
enum Cut {
    /// The connection is of no use any more.
    Broken(String),
    /// The owner says no; the connection is fine.
    Refused(ReadError),
    /// Nobody keeps the rest.
    Unwanted,
}

impl From<io::Error> for Cut {
    fn from(error: io::Error) -> Self {
        Cut::Broken(match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => "it sends nothing".to_owned(),
            _ => error.to_string(),
        })
    }
}

impl TcpFabric {
    /// The push: asks the page service at `agent` for the hot pages of `seed` that do not lie in `holes`, and gives each run to
    /// `store`, as it arrives, on the calling thread, until `store` says that it keeps no more.
    ///
    /// # Errors
    /// `Revoked` if the owner refuses, `Unreachable` if it does not answer. What was stored until then is
    /// good.
    pub fn push(
        &self,
        agent: &str,
        seed: SeedId,
        key: &ReadKey,
        holes: &[SeedRange],
        store: &mut dyn FnMut(SeedAddr, &[u8]) -> ControlFlow<()>,
    ) -> Result<PushReport, ReadError> {
        let peer: Arc<str> = agent.into();
        let begun = Instant::now();
        let mut request = Vec::with_capacity(read::MAX_REQUEST_LEN);
        read::encode_push(&mut request, 0, seed, key, holes);
        let mut report = PushReport::default();
        let mut reason = String::new();
        for _ in 0..ATTEMPTS {
            let mut stream = self.connection(&peer)?;
            let outcome = self.receive_push(&mut stream.connection, &request, &mut report, store);
            match outcome {
                Err(Cut::Broken(why)) => {
                    self.pool.discard(&peer, stream, &why);
                    reason = why;
                    if report.runs > 0 {
                        break;
                    }
                }
                Err(Cut::Unwanted) => {
                    self.pool.close(&peer, stream);
                    report.took = begun.elapsed();
                    return Ok(report);
                }
                ended => {
                    stream.proved = true;
                    self.pool.checkin(&peer, stream);
                    report.took = begun.elapsed();
                    return match ended {
                        Err(Cut::Refused(error)) => Err(error),
                        _ => Ok(report),
                    };
                }
            }
        }
        Err(ReadError::Unreachable(format!("the push from {agent} broke off ({reason})")))
    }

    /// Waits for a connection.
    fn connection(&self, peer: &Arc<str>) -> Result<Pooled<ReadStream>, ReadError> {
        let mailbox = Mailbox::new()
            .map_err(|error| ReadError::Local(format!("no descriptor to wait with ({error})")))?;
        if let Some(stream) = self.pool.checkout(peer, &mailbox) {
            return Ok(stream);
        }
        let delivery = mailbox.wait(Instant::now() + self.pool.limits.push_timeout);
        self.pool.cancel(peer, &mailbox);
        // A delivery may have come between the two.
        match delivery.or_else(|| mailbox.take()) {
            Some(Delivery::Connection(_, stream)) => Ok(stream),
            Some(Delivery::Failed(_, error)) => Err(error),
            None => {
                let reason = self.pool.last_error(peer);
                Err(ReadError::Unreachable(format!(
                    "no connection to {peer} for a push ({reason})"
                )))
            }
        }
    }

    fn receive_push(
        &self,
        stream: &mut ReadStream,
        request: &[u8],
        report: &mut PushReport,
        store: &mut dyn FnMut(SeedAddr, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), Cut> {
        stream.tcp().set_nonblocking(false)?;
        stream.tcp().set_read_timeout(Some(self.pool.limits.push_timeout))?;
        stream.send_all(request)?;
        let mut buffer = vec![0u8; RECEIVE_BYTES];
        let mut have = 0;
        let deadline = Instant::now() + self.pool.limits.push_timeout;
        loop {
            // Looked at before each call: a record that drips takes many.
            let got = match stream.receive_by(&mut buffer[have..], |mut tcp, room| {
                if Instant::now() > deadline {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "it takes too long"));
                }
                tcp.read(room)
            }) {
                Ok(0) => return Err(Cut::Broken("the peer has closed the connection".to_owned())),
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            have += got;
            let (used, end) = take_runs(&buffer[..have], report, store)?;
            if let Some(status) = end {
                if used != have {
                    return Err(Cut::Broken("bytes behind the push".to_owned()));
                }
                stream.tcp().set_nonblocking(true)?;
                return match status {
                    Status::Ok => Ok(()),
                    refused => Err(Cut::Refused(refusal(refused))),
                };
            }
            buffer.copy_within(used..have, 0);
            have -= used;
        }
    }
}

/// Stores the whole runs at the beginning of `bytes`; gives how many bytes they took, and the closing
/// status if it was reached.
fn take_runs(
    bytes: &[u8],
    report: &mut PushReport,
    store: &mut dyn FnMut(SeedAddr, &[u8]) -> ControlFlow<()>,
) -> Result<(usize, Option<Status>), Cut> {
    let mut at = 0;
    while let Some(header) = bytes[at..].first_chunk() {
        let answer = read::parse_answer(header).map_err(|error| Cut::Broken(error.to_string()))?;
        match answer.status {
            Status::Pushed => {}
            Status::Ok if answer.len > 0 => {
                return Err(Cut::Broken("a READ's answer in a push".to_owned()));
            }
            Status::Protocol | Status::Busy | Status::Encrypt => {
                return Err(Cut::Broken("it refuses the request".to_owned()));
            }
            end => return Ok((at + ANSWER_LEN, Some(end))),
        }
        let run = at + ANSWER_LEN;
        let Some(body) = bytes.get(run..run + answer.len) else { break };
        let Some((addr, pages)) = body.split_first_chunk::<PUSH_ADDR_LEN>() else { break };
        if store(SeedAddr(u64::from_le_bytes(*addr)), pages).is_break() {
            return Err(Cut::Unwanted);
        }
        report.runs += 1;
        report.bytes += pages.len() as u64;
        at = run + answer.len;
    }
    Ok((at, None))
}
