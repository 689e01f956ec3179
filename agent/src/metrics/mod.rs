//! `mitosis agent --metrics`: the counters of `mitosis stats --prometheus`, for whoever scrapes by HTTP.
//!
//! A thread for each connection, which has one request, [`PATIENCE`] for it and as long for the answer. Nobody of the agent's
//! waits for a client, however slow: counters are read before the answer is written, and of connections there are
//! [`MAX_CONNECTIONS`] at one time; more are closed.

mod http;

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use mitosis::agent::Agent;
use mitosis::agent::connections::Connections;

use self::http::{Asked, MAX_HEAD_BYTES, Status};
use crate::prometheus;

/// Connections at one time: a scraper has one.
const MAX_CONNECTIONS: usize = 8;
/// What a request may take to come, and an answer to go: scrapers give up after 10 s.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long counters are told again without counting anew.
const FRESH: Duration = Duration::from_millis(500);
/// What is read, and thrown away, of a client that goes on talking behind its request's head.
const MAX_IGNORED_BYTES: usize = 64 << 10;

static CONNECTIONS: Connections = Connections::new(MAX_CONNECTIONS, "metrics");

/// Binds the endpoint.
///
/// # Errors
/// The address cannot be had.
pub fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| {
        format!(
            "the agent cannot tell its counters at {address}; give another address with --metrics"
        )
    })
}

/// Serves it on a thread of its own for as long as the process lives.
///
/// # Errors
/// There is no thread to be had.
pub fn serve(agent: &Arc<Agent>, listener: TcpListener) -> anyhow::Result<()> {
    let agent = agent.clone();
    let latest = Arc::new(Latest::default());
    let converse = move |stream| {
        if let Err(error) = converse(stream, || latest.text(|| prometheus::text(&agent.stats()))) {
            tracing::debug!(%error, "a scraper's connection ended");
        }
    };
    let thread = std::thread::Builder::new().name("metrics".to_owned());
    thread.spawn(move || CONNECTIONS.serve(listener.incoming(), converse))?;
    Ok(())
}

/// What was told last: counting takes a look at each child, and nobody is to have an agent do that all the time.
#[derive(Default)]
struct Latest(Mutex<Option<(Instant, String)>>);

impl Latest {
    fn text(&self, count: impl FnOnce() -> String) -> String {
        let mut latest = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, text)) = latest.as_ref().filter(|(at, _)| at.elapsed() < FRESH) {
            return text.clone();
        }
        let text = count();
        *latest = Some((Instant::now(), text.clone()));
        text
    }
}

fn converse(mut stream: TcpStream, counters: impl FnOnce() -> String) -> io::Result<()> {
    let Some(asked) = receive(&mut stream, Instant::now() + PATIENCE)? else { return Ok(()) };
    let answer = http::answer(asked, counters);
    let until = Instant::now() + PATIENCE;
    send(&mut stream, &answer, until)?;
    // Closed while something of the client's is unread, the connection would be reset, and the answer lost.
    stream.shutdown(Shutdown::Write)?;
    let mut ignored = 0;
    let mut bytes = [0; 4096];
    while ignored < MAX_IGNORED_BYTES {
        match read(&mut stream, &mut bytes, until)? {
            None | Some(0) => break,
            Some(len) => ignored += len,
        }
    }
    Ok(())
}

/// The request; none of a client that has left without a word.
fn receive(stream: &mut TcpStream, until: Instant) -> io::Result<Option<Asked>> {
    let mut bytes = [0; MAX_HEAD_BYTES];
    let mut len = 0;
    loop {
        match read(stream, &mut bytes[len..], until)? {
            None => return Ok(Some(Status::Timeout.into())),
            Some(0) => return Ok((len > 0).then(|| Status::BadRequest.into())),
            Some(more) => len += more,
        }
        match http::head(&bytes[..len]) {
            Some(head) => return Ok(Some(http::asked(head))),
            None if len == bytes.len() => return Ok(Some(Status::HeadTooLarge.into())),
            None => {}
        }
    }
}

/// What comes by `until`; none if nothing does.
fn read(stream: &mut TcpStream, into: &mut [u8], until: Instant) -> io::Result<Option<usize>> {
    let Some(left) = left(until) else { return Ok(None) };
    stream.set_read_timeout(Some(left))?;
    match stream.read(into) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        read => read.map(Some),
    }
}

fn send(stream: &mut TcpStream, mut bytes: &[u8], until: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        let left = left(until).ok_or(io::ErrorKind::TimedOut)?;
        stream.set_write_timeout(Some(left))?;
        let written = stream.write(bytes)?;
        bytes = &bytes[written..];
    }
    Ok(())
}

fn left(until: Instant) -> Option<Duration> {
    until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())
}
