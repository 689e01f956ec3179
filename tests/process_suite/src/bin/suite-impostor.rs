//! An agent that knows the cluster secret and answers with bytes that no agent should send: what a hostile,
//! damaged or newer one may do.
//!
//! `suite-impostor KIND HANDLE SECRET_FILE PORT`: fetches the handle's descriptor from its real agent and
//! serves it on PORT, changed as KIND says. Says `ready` when it listens.
#![allow(clippy::cast_possible_truncation)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use mitosis::descriptor::codec::{self, MAX_DESCRIPTOR_BYTES};
use mitosis::descriptor::{ArenaNews, HostNeeds};
use mitosis::id::{Handle, SeedId, StreamToken};
use mitosis::wire::control::{Channel, ClusterSecret, ControlReply, ControlRequest};
use mitosis::wire::frame;
use mitosis_process_suite::{fail, say};

/// Where the fields of a descriptor's header stand.
const MAJOR_AT: usize = 8;
const MINOR_AT: usize = 10;
const LENGTH_AT: usize = 16;
const CRC_AT: usize = 20;
const HEADER: usize = 24;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, handle, secret, port] = &arguments[..] else {
        fail(&"KIND HANDLE SECRET_FILE PORT")
    };
    let handle: Handle = handle.parse().unwrap_or_else(|error| fail(&error));
    let secret = std::fs::read(secret).unwrap_or_else(|error| fail(&error));
    let secret = ClusterSecret(secret.try_into().unwrap_or_else(|_| fail(&"a secret of 32 bytes")));
    let genuine = Arc::new(Genuine::ask(&handle, &secret));
    let listener =
        TcpListener::bind(format!("0.0.0.0:{port}")).unwrap_or_else(|error| fail(&error));
    say("ready");
    for stream in listener.incoming().flatten() {
        let (kind, secret, genuine) = (kind.clone(), secret.clone(), Arc::clone(&genuine));
        std::thread::spawn(move || serve(&kind, stream, &secret, &genuine));
    }
}

/// The real agent behind the handle.
struct Genuine {
    bytes: Vec<u8>,
    clocks: mitosis::descriptor::Clocks,
    digests: Vec<Option<[u8; 32]>>,
    /// Keeps the seed's lease.
    _lease: Channel,
    questions: Mutex<Channel>,
}

impl Genuine {
    fn ask(handle: &Handle, secret: &ClusterSecret) -> Genuine {
        let agent = handle.agent.clone().unwrap_or_else(|| fail(&"a handle with an address"));
        let open = || {
            let stream = TcpStream::connect(&agent).unwrap_or_else(|error| fail(&error));
            Channel::connect(stream, secret).unwrap_or_else(|error| fail(&error))
        };
        let (mut lease, questions) = (open(), open());
        let (seed, key) = (handle.seed, handle.key.clone());
        let request = ControlRequest::Fetch { seed, key, ends_with_children: false };
        match converse(&mut lease, &request) {
            Some(ControlReply::Descriptor { bytes, clocks, digests, .. }) => {
                Genuine { bytes, digests, clocks, _lease: lease, questions: Mutex::new(questions) }
            }
            other => fail(&format!("no descriptor: {other:?}")),
        }
    }
}

impl Genuine {
    fn put(&self, question: &ControlRequest) -> Option<ControlReply> {
        let mut questions = self.questions.lock().ok()?;
        converse(&mut questions, question)
    }
}

fn converse(channel: &mut Channel, request: &ControlRequest) -> Option<ControlReply> {
    frame::write(channel, request).ok()?;
    frame::read(channel).ok()
}

fn serve(kind: &str, stream: TcpStream, secret: &ClusterSecret, genuine: &Genuine) {
    if kind == "other protocol" {
        let mut stream = stream;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = stream.read(&mut [0; 512]);
        return;
    }
    let Ok(mut channel) = Channel::accept(stream, std::slice::from_ref(secret)) else { return };
    while let Ok(request) = frame::read::<ControlRequest>(&mut channel) {
        let reply = match (kind, &request) {
            ("hang up", _) => return,
            ("silent", _) => {
                let _ = channel.read(&mut [0]);
                return;
            }
            ("huge frame", _) => {
                let _ = channel.write_all(&u32::MAX.to_le_bytes());
                let _ = channel.read(&mut [0]);
                return;
            }
            ("noise", _) => {
                let _ = channel
                    .write_all(&[8, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
                let _ = channel.read(&mut [0]);
                return;
            }
            ("out of turn", _) => ControlReply::Done,
            (_, ControlRequest::Fetch { seed, .. }) => ControlReply::Descriptor {
                bytes: changed(kind, &genuine.bytes, *seed),
                token: StreamToken::random(),
                clocks: genuine.clocks,
                digests: genuine.digests.clone(),
                arena: ArenaNews::default(),
            },
            (_, other) => match genuine.put(other) {
                Some(reply) => reply,
                None => return,
            },
        };
        if frame::write(&mut channel, &reply).is_err() {
            return;
        }
    }
}

/// A descriptor as no agent should send it.
fn changed(kind: &str, bytes: &[u8], seed: SeedId) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    match kind {
        "honest" => {}
        "truncated" => bytes.truncate(bytes.len() / 2),
        "a header's half" => bytes.truncate(HEADER / 2),
        "empty" => bytes.clear(),
        "padded" => bytes.push(0),
        "damaged" => {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
        }
        "oversized" => bytes.resize(MAX_DESCRIPTOR_BYTES + 1, 0),
        "next major" => bytes[MAJOR_AT] += 1,
        "next minor" => {
            bytes[MINOR_AT] += 1;
            add_section(&mut bytes, 0);
        }
        "critical section" => {
            bytes[MINOR_AT] += 1;
            add_section(&mut bytes, 1);
        }
        "another seed" => {
            let (from, to) = (postcard_u64(seed.0), postcard_u64(seed.0 ^ 1));
            let at = bytes.windows(from.len()).position(|window| window == from);
            let at = at.unwrap_or_else(|| fail(&"no seed id in the descriptor"));
            bytes[at..at + to.len()].copy_from_slice(&to);
            seal(&mut bytes);
        }
        "another component" => bytes = needing(&bytes, |needs| needs.xcr0 |= NO_COMPONENT),
        "a larger component" => bytes = needing(&bytes, |needs| needs.xsave_size += 64),
        other => fail(&format!("{other} is no kind")),
    }
    bytes
}

/// A component of the vector state that no processor has.
const NO_COMPONENT: u64 = 1 << 61;

/// The descriptor as a host of another processor would make it.
fn needing(bytes: &[u8], change: impl Fn(&mut HostNeeds)) -> Vec<u8> {
    let mut descriptor = codec::decode(bytes).unwrap_or_else(|error| fail(&error));
    change(&mut descriptor.needs);
    codec::encode(&descriptor).unwrap_or_else(|error| fail(&error))
}

/// Appends section 999 with these flags.
fn add_section(bytes: &mut Vec<u8>, flags: u16) {
    bytes.extend_from_slice(&999u16.to_le_bytes());
    bytes.extend_from_slice(&flags.to_le_bytes());
    bytes.extend_from_slice(&4u32.to_le_bytes());
    bytes.extend_from_slice(b"new!");
    seal(bytes);
}

/// Makes length and checksum right again.
fn seal(bytes: &mut [u8]) {
    let length = (bytes.len() as u32).to_le_bytes();
    bytes[LENGTH_AT..LENGTH_AT + 4].copy_from_slice(&length);
    let checksum = crc32fast::hash(&bytes[HEADER..]).to_le_bytes();
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&checksum);
}

/// As postcard writes a u64: seven bits a byte.
fn postcard_u64(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}
