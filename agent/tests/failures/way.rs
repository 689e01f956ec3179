//! A way to a host's agent: a relay in that host's network, which does to what it carries what networks and peers do.
//!
//! Answers are taken apart into messages, so that garbage and duplicates begin where a message begins: bytes that are changed on
//! their way are found by tcp and Noise.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use mitosis::wire::read;
use mitosis_hosts::Host;

use crate::world::PORT;

/// Where agents are told to be whose answers go by a way.
pub(crate) const TOLD_PORT: u16 = 7380;
/// How often it is looked for connections and for the end.
const PAUSE: Duration = Duration::from_millis(2);

/// What becomes of what is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    Fair,
    /// Each byte, in each direction, is so long on its way.
    Slow(Duration),
    /// Answers are garbage from their first byte.
    Garbled,
    /// Each answer comes twice.
    Doubled,
}

/// A relay. Dropped, it takes no more connections.
#[derive(Debug)]
pub(crate) struct Way {
    weather: Arc<Mutex<Weather>>,
    is_over: Arc<AtomicBool>,
}

/// What is spoken on a connection.
#[derive(Debug, Clone, Copy)]
enum Speech {
    Control,
    Read,
}

/// One direction of a connection, between its two threads: bytes, and when they are to arrive.
type Line = (Instant, Vec<u8>);

impl Way {
    /// To the agent of this host.
    pub(crate) fn to(host: &Host) -> Way {
        let listener = host.in_network(|| TcpListener::bind(("0.0.0.0", TOLD_PORT)));
        let listener = listener.unwrap().unwrap();
        listener.set_nonblocking(true).unwrap();
        let (weather, is_over) = (Arc::new(Mutex::new(Weather::Fair)), Arc::default());
        let way = Way { weather: Arc::clone(&weather), is_over: Arc::clone(&is_over) };
        let host = host.clone();
        std::thread::spawn(move || {
            while !is_over.load(Ordering::Acquire) {
                let Ok((here, _)) = listener.accept() else {
                    std::thread::sleep(PAUSE);
                    continue;
                };
                let there = host.in_network(|| TcpStream::connect(("127.0.0.1", PORT)));
                let weather = Arc::clone(&weather);
                if let Ok(Ok(there)) = there {
                    std::thread::spawn(move || carry(here, there, &weather));
                }
            }
        });
        way
    }

    pub(crate) fn set(&self, weather: Weather) {
        *self.weather.lock().unwrap() = weather;
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
    }
}

/// Carries a connection until both sides have closed it.
fn carry(mut here: TcpStream, mut there: TcpStream, weather: &Arc<Mutex<Weather>>) {
    here.set_nonblocking(false).unwrap();
    let mut magic = [0; 8];
    if here.read_exact(&mut magic).is_err() || there.write_all(&magic).is_err() {
        return;
    }
    let speech = if magic == read::MAGIC { Speech::Read } else { Speech::Control };
    let _ = (here.set_nodelay(true), there.set_nodelay(true));
    let [asking, answering] = [(&here, &there), (&there, &here)].map(|(from, to)| {
        let (sender, line) = channel();
        let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
        std::thread::spawn(move || arrive(to, &line));
        (from, sender)
    });
    let of_asking = Arc::clone(weather);
    std::thread::spawn(move || requests(asking.0, &asking.1, &of_asking));
    // Whatever ends it, it ends for the other side, too, by the end of the line.
    let _ = answers(answering.0, speech, &answering.1, weather);
}

fn due(weather: &Mutex<Weather>) -> Instant {
    let delay = match *weather.lock().unwrap() {
        Weather::Slow(delay) => delay,
        Weather::Fair | Weather::Garbled | Weather::Doubled => Duration::ZERO,
    };
    Instant::now() + delay
}

fn requests(mut from: TcpStream, line: &Sender<Line>, weather: &Mutex<Weather>) {
    let mut some = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut some) {
        if line.send((due(weather), some[..count].to_vec())).is_err() {
            return;
        }
    }
}

fn answers(
    mut from: TcpStream,
    speech: Speech,
    line: &Sender<Line>,
    weather: &Mutex<Weather>,
) -> std::io::Result<()> {
    let mut chance = 0x9e37_79b9_7f4a_7c15_u64;
    let mut is_welcome = matches!(speech, Speech::Read);
    loop {
        let mut message = match speech {
            Speech::Read if is_welcome => message(&mut from, read::WELCOME_LEN, |_| 0)?,
            Speech::Read => message(&mut from, read::ANSWER_LEN, |header| {
                u64::from_le_bytes(header[8..16].try_into().unwrap())
            })?,
            Speech::Control => message(&mut from, 2, |header| {
                u64::from(u16::from_le_bytes([header[0], header[1]]))
            })?,
        };
        is_welcome = false;
        let now = *weather.lock().unwrap();
        if now == Weather::Garbled {
            message.fill_with(|| {
                chance ^= chance << 13;
                chance ^= chance >> 7;
                chance ^= chance << 17;
                chance.to_le_bytes()[0]
            });
        }
        let due = due(weather);
        for _ in 0..if now == Weather::Doubled { 2 } else { 1 } {
            if line.send((due, message.clone())).is_err() {
                return Ok(());
            }
        }
    }
}

/// A header and as many bytes behind it as it tells.
fn message(
    from: &mut TcpStream,
    header: usize,
    rest: impl Fn(&[u8]) -> u64,
) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; header];
    from.read_exact(&mut bytes)?;
    let rest = rest(&bytes);
    if from.take(rest).read_to_end(&mut bytes)? as u64 != rest {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    Ok(bytes)
}

fn arrive(mut to: TcpStream, line: &Receiver<Line>) {
    for (due, bytes) in line {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if to.write_all(&bytes).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}
