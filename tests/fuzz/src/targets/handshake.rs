//! Noise as the agent's port meets it: a greeting, and messages behind it, by a peer that has the cluster secret or
//! has not, and of whose bytes some are changed on their way.
//!
//! ```text
//! input   u8 what
//!   0     what follows are the client's bytes, to an agent
//!   1     what follows are the agent's bytes, to a client
//!   2     u8 at  u8 change: of the greeting of a peer with the right secret; then messages: u8 length, bytes
//!         with the highest bit of a length set: its ciphertext is damaged
//! ```

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use mitosis::wire::control::{self, Channel, ChannelError, ClusterSecret, GREETING_LEN};
use snow::Builder;

use crate::allocation::bounded;

const SECRET: [u8; 32] = [7; 32];
/// As `wire::control` has it; a copy, so that a change there does not go by unseen.
const PATTERN: &str = "Noise_NNpsk0_25519_ChaChaPoly_BLAKE2s";
/// Magic and version.
const HELLO_LEN: usize = 12;
/// Input beyond this, in messages of a byte, does not fit a socket's buffer, and nobody reads while it is written.
const MAX_SOCKET_BYTES: usize = 4 << 10;
/// A channel's buffers: a message each of ciphertext and of plain text.
const OF_A_CHANNEL: usize = 256 << 10;

pub(crate) fn run(input: &[u8]) -> bool {
    let Some((&what, bytes)) = input.split_first() else { return false };
    let bytes = &bytes[..bytes.len().min(MAX_SOCKET_BYTES)];
    match what % 3 {
        0 => stranger(bytes),
        1 => impostor(bytes),
        _ => peer(bytes),
    }
}

fn secret() -> ClusterSecret {
    ClusterSecret(SECRET)
}

/// Ours to write to, and what the channel is made of.
fn pair() -> (UnixStream, TcpStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    (ours, TcpStream::from(OwnedFd::from(theirs)))
}

/// Someone without the secret greets an agent.
fn stranger(bytes: &[u8]) -> bool {
    let (mut ours, theirs) = pair();
    ours.write_all(bytes).expect("it fits the buffer");
    ours.shutdown(Shutdown::Write).expect("it is connected");
    let accepted = Channel::accept(theirs, &[ClusterSecret([8; 32]), secret()]);
    assert!(accepted.is_err(), "someone without the secret was let in");
    let mut answer = Vec::new();
    ours.read_to_end(&mut answer).unwrap_or(0);
    assert!(answer.is_empty(), "a stranger is told nothing");
    matches!(accepted, Err(ChannelError::Secret))
}

/// Someone without the secret answers a client.
fn impostor(bytes: &[u8]) -> bool {
    let (mut ours, theirs) = pair();
    ours.write_all(bytes).expect("it fits the buffer");
    ours.shutdown(Shutdown::Write).expect("it is connected");
    let connected = Channel::connect(theirs, &secret());
    assert!(connected.is_err(), "an agent without the secret was believed");
    matches!(connected, Err(ChannelError::Secret))
}

/// A peer with the secret: what arrives is what it said, up to the first message that was changed.
fn peer(bytes: &[u8]) -> bool {
    let Some((&[at, change], messages)) = bytes.split_first_chunk::<2>() else { return false };
    let mut hello = [0u8; HELLO_LEN];
    hello[..8].copy_from_slice(&control::MAGIC);
    hello[8..10].copy_from_slice(&control::MAJOR.to_le_bytes());
    hello[10..].copy_from_slice(&control::MINOR.to_le_bytes());
    let builder = Builder::new(PATTERN.parse().expect("a pattern"));
    let builder = builder.psk(0, &SECRET).and_then(|builder| builder.prologue(&hello));
    let mut noise = builder.and_then(Builder::build_initiator).expect("an initiator");
    let mut buffer = [0u8; 512];
    let len = noise.write_message(&[], &mut buffer).expect("room");
    let mut greeting = [&hello[..], &u16_of(len), &buffer[..len]].concat();
    assert_eq!(greeting.len(), GREETING_LEN);
    greeting[usize::from(at) % GREETING_LEN] ^= change;

    let (mut ours, theirs) = pair();
    ours.write_all(&greeting).expect("it fits the buffer");
    if change != 0 {
        ours.shutdown(Shutdown::Write).expect("it is connected");
        assert!(Channel::accept(theirs, &[secret()]).is_err(), "a changed greeting was accepted");
        return false;
    }
    let mut channel = Channel::accept(theirs, &[secret()]).expect("the secret is right");
    let mut answer = [0u8; 2 + 48];
    ours.read_exact(&mut answer).expect("an answer");
    noise.read_message(&answer[2..], &mut buffer).expect("the agent has the secret, too");
    let noise = noise.into_stateless_transport_mode().expect("the handshake has ended");

    let (mut said, mut sent) = (Vec::new(), Vec::new());
    let mut rest = messages;
    let mut is_damaged = false;
    for nonce in 0.. {
        let Some((&head, behind)) = rest.split_first() else { break };
        let len = usize::from(head & 0x7f).min(behind.len());
        let (plain, behind) = behind.split_at(len);
        let len = noise.write_message(nonce, plain, &mut buffer).expect("room");
        is_damaged |= head & 0x80 != 0;
        if head & 0x80 != 0 {
            buffer[plain.len() / 2] ^= 1;
        }
        sent.extend_from_slice(&u16_of(len));
        sent.extend_from_slice(&buffer[..len]);
        if !is_damaged {
            said.extend_from_slice(plain);
        }
        rest = behind;
    }
    // In one piece: the kernel counts what each piece takes it.
    ours.write_all(&sent).expect("it fits the buffer");
    ours.shutdown(Shutdown::Write).expect("it is connected");
    let mut heard = Vec::new();
    let ended = bounded(&[0; OF_A_CHANNEL / 256], |_| channel.read_to_end(&mut heard));
    assert!(heard == said, "what was heard is not what was said");
    assert_eq!(ended.is_err(), is_damaged, "damage goes by unseen");
    !said.is_empty()
}

fn u16_of(len: usize) -> [u8; 2] {
    u16::try_from(len).expect("it is short").to_le_bytes()
}
