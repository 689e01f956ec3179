//! An encrypted READ stream: the page service as a stranger meets it, and the records of a peer of which some are changed
//! on their way.
//!
//! ```text
//! input   u8 what
//!   0     what follows is a greeting's end and what comes behind it, to a page service that has issued a token
//!   1     u8 at  u8 change: of the greeting of a peer with the right token; then pieces: u8 length, bytes, each a record
//!         with the highest bit of a length set: its ciphertext is damaged
//!   2     what follows are records, to a reader that has greeted
//! ```

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use mitosis::export::{Exports, PageService};
use mitosis::id::StreamToken;
use mitosis::wire::read::{self, Status};
use mitosis::wire::read_stream::ReadStream;
use mitosis::wire::seal::{self, Encryption, GREETING_LEN, Greeting, MAX_RECORD, Seal, TokenId};

use crate::allocation::bounded;

const TOKEN: [u8; 32] = [7; 32];
/// Input beyond this, in records of a byte, does not fit a socket's buffer, and nobody reads while it is written.
const MAX_SOCKET_BYTES: usize = 4 << 10;
/// Bytes of a greeting in front of its token's id.
const VERSION_END: usize = 12;

pub(crate) fn run(input: &[u8]) -> bool {
    let Some((&what, bytes)) = input.split_first() else { return false };
    let bytes = &bytes[..bytes.len().min(MAX_SOCKET_BYTES)];
    match what % 3 {
        0 => stranger(bytes),
        1 => peer(bytes),
        _ => records(bytes),
    }
}

fn token() -> StreamToken {
    StreamToken(TOKEN)
}

/// Ours to write to, and what the stream is made of.
fn pair() -> (UnixStream, TcpStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    (ours, TcpStream::from(OwnedFd::from(theirs)))
}

/// Someone who knows no token, but perhaps the id of one.
fn stranger(bytes: &[u8]) -> bool {
    let limits = Default::default();
    let service =
        PageService::bounded(Exports::new(), Default::default(), limits, Encryption::Demanded);
    let issued = service.issue_token();
    let (ours, theirs) = pair();
    let mut greeting = seal::greet(&token()).expect("a greeting").0;
    let knows_the_id = bytes.first().is_some_and(|byte| byte % 2 == 0);
    if knows_the_id {
        let known = seal::greet(&issued).expect("a greeting").0;
        greeting[VERSION_END..GREETING_LEN - seal::HANDSHAKE_LEN]
            .copy_from_slice(&known[VERSION_END..GREETING_LEN - seal::HANDSHAKE_LEN]);
    }
    let end = bytes.len().min(GREETING_LEN);
    greeting[GREETING_LEN - end..].copy_from_slice(&bytes[..end]);
    (&ours).write_all(&[&greeting[..], &bytes[end..]].concat()).expect("it fits the buffer");
    ours.shutdown(Shutdown::Write).expect("it is connected");
    service.serve(theirs);
    let mut answer = Vec::new();
    // A service that hangs up on unread bytes resets the connection behind its answer.
    let _ = (&ours).read_to_end(&mut answer);
    assert!(answer.len() <= read::WELCOME_LEN, "a stranger is told more than that he is refused");
    if let Some(welcome) = answer.first_chunk::<{ read::WELCOME_LEN }>() {
        let refused = [Status::Revoked, Status::Protocol, Status::Encrypt];
        let status = read::parse_welcome(*welcome).expect("a status");
        assert!(refused.contains(&status), "a stranger was let in: {status:?}");
    }
    knows_the_id && end > 0
}

/// Both ends, if the greeting is as it was sent.
fn opened(at: u8, change: u8) -> Option<(Seal, Seal)> {
    let (mut greeting, greeted) = seal::greet(&token()).expect("a greeting");
    greeting[usize::from(at) % GREETING_LEN] ^= change;
    let parsed = Greeting::parse(&greeting).ok();
    let accepted = parsed.and_then(|parsed| {
        let is_named = parsed.token_id() == TokenId::of(&token());
        let accepted = parsed.accept(&token()).ok();
        assert!(is_named || accepted.is_none(), "another token's greeting was accepted");
        accepted
    });
    assert_eq!(accepted.is_some(), change == 0, "a changed greeting was accepted");
    let (server, message) = accepted?;
    Some((greeted.answered(&message).expect("the server has the token, too"), server))
}

/// What arrives is what was said, up to the first record that was changed.
fn peer(bytes: &[u8]) -> bool {
    let Some((&[at, change], mut rest)) = bytes.split_first_chunk::<2>() else { return false };
    let Some((mut client, server)) = opened(at, change) else { return false };
    let (mut said, mut sent, mut is_damaged) = (Vec::new(), Vec::new(), false);
    let mut record = vec![0; MAX_RECORD];
    while let Some((&head, behind)) = rest.split_first() {
        let len = usize::from(head & 0x7f).min(behind.len());
        let (plain, behind) = behind.split_at(len);
        rest = behind;
        let Ok(len) = client.seal(plain, &mut record) else {
            assert!(plain.is_empty(), "{} bytes make no record", plain.len());
            continue;
        };
        is_damaged |= head & 0x80 != 0;
        if head & 0x80 != 0 {
            record[seal::HEAD_LEN + plain.len() / 2] ^= 1;
        }
        sent.extend_from_slice(&record[..len]);
        if !is_damaged {
            said.extend_from_slice(plain);
        }
    }
    let (heard, ended) = receive(&sent, server);
    assert!(heard == said, "what was heard is not what was said");
    assert_eq!(ended.is_err(), is_damaged, "damage goes by unseen");
    !said.is_empty()
}

/// Whatever stands where records should: nothing of it is taken for one.
fn records(bytes: &[u8]) -> bool {
    let (client, _) = opened(0, 0).expect("nothing was changed");
    let (heard, ended) = receive(bytes, client);
    assert!(heard.is_empty(), "a stranger's record was opened");
    assert_eq!(ended.is_ok(), bytes.is_empty(), "an end within a record is none");
    seal::ciphertext_of(bytes).is_ok_and(|found| found.is_some())
}

/// All that a stream gives of these bytes, in pieces of some lengths, and how it ends.
fn receive(bytes: &[u8], seal: Seal) -> (Vec<u8>, std::io::Result<()>) {
    let (mut ours, theirs) = pair();
    ours.write_all(bytes).expect("it fits the buffer");
    ours.shutdown(Shutdown::Write).expect("it is connected");
    let mut stream = ReadStream::new(theirs, Some(seal));
    let mut heard = Vec::new();
    let ended = bounded(&[0; MAX_SOCKET_BYTES], |_| {
        let mut room = [0; 200];
        for len in (1..=200).cycle() {
            match stream.receive(&mut room[..len])? {
                0 => break,
                got => heard.extend_from_slice(&room[..got]),
            }
        }
        Ok(())
    });
    (heard, ended)
}
