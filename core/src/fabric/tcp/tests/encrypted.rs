//! Streams that one side or the other wants encrypted.

use std::io::Read as _;
use std::net::TcpListener;

use super::*;
use crate::wire::{read, seal};

const BOTH: [Encryption; 2] = [Encryption::Demanded; 2];
const OWNER: [Encryption; 2] = [Encryption::Demanded, Encryption::Offered];
const READER: [Encryption; 2] = [Encryption::Offered, Encryption::Demanded];
const NEITHER: [Encryption; 2] = [Encryption::Offered; 2];

impl Host {
    /// Streams that are served now: in plain, and encrypted.
    fn streams(&self) -> (usize, usize) {
        let service = self.tokens.0.as_ref().unwrap();
        let encrypted = service.encrypted_streams();
        (service.streams() - encrypted, encrypted)
    }

    fn tokens_used(&self) -> usize {
        self.tokens.1.load(Ordering::SeqCst)
    }
}

#[test]
fn a_stream_is_encrypted_if_either_side_demands_it() {
    for (wanted, streams, tokens) in
        [(BOTH, (0, 1), 1), (OWNER, (0, 1), 2), (READER, (0, 1), 1), (NEITHER, (1, 0), 1)]
    {
        let host = Host::between(4 * PAGE, Limits::default(), wanted);
        let mut queue = host.queue();
        queue.post(host.read(0, PAGE, 4096)).unwrap();
        let ended = reap(&mut *queue, 1);
        assert_eq!(ended[0].result, Ok(()), "{wanted:?}");
        assert!(ended[0].buffer[..] == expected(PAGE, 4096)[..], "{wanted:?}");
        assert_eq!((host.streams(), host.tokens_used()), (streams, tokens), "{wanted:?}");
    }
}

#[test]
fn who_has_said_once_that_he_demands_it_is_not_asked_in_plain_again() {
    let host = Host::between(4 * PAGE, Limits::default(), OWNER);
    let (mut one, mut two) = (host.queue(), host.queue());
    one.post(host.read(0, 0, 4096)).unwrap();
    assert_eq!(reap(&mut *one, 1)[0].result, Ok(()));
    // The first one's connection is taken while it has a READ in flight.
    one.post(host.read(0, 0, 4096)).unwrap();
    two.post(host.read(0, 0, 4096)).unwrap();
    assert_eq!(reap(&mut *two, 1)[0].result, Ok(()));
    assert_eq!(reap(&mut *one, 1)[0].result, Ok(()));
    let connections = host.fabric.connections(&host.agent);
    assert_eq!((host.streams(), host.tokens_used()), ((0, connections), connections + 1));
}

#[test]
fn many_reads_of_any_length_are_the_seeds_bytes() {
    let host = Host::between(64 << 20, Limits::default(), READER);
    let mut queue = host.queue();
    for round in 0..3 {
        for (place, tag) in (0..MAX_IN_FLIGHT as u64).enumerate() {
            // Around what one record holds, with an answer's header and without; and the most.
            let around = [1, 4096, (16 << 10) - 16, (16 << 10) + 1, 100_001, MAX_READ_BYTES];
            let len = around[(place + round) % around.len()];
            queue.post(host.read(tag, tag << 19, len)).unwrap();
        }
        for completion in reap(&mut *queue, MAX_IN_FLIGHT) {
            assert_eq!(completion.result, Ok(()));
            let len = completion.buffer.len();
            assert!(completion.buffer[..] == expected(completion.tag << 19, len)[..], "{len}");
        }
    }
    assert_eq!((host.streams(), host.fabric.connections(&host.agent)), ((0, 1), 1));
}

#[test]
fn refusals_and_revocation_are_as_in_plain() {
    let host = Host::between(4 * PAGE, Limits::default(), BOTH);
    let mut queue = host.queue();
    queue.post(host.read(0, 0, 4096)).unwrap();
    queue.post(host.read(1, 4 * PAGE, 4096)).unwrap();
    queue.post(host.read(2, PAGE, 4096)).unwrap();
    let results = results(&reap(&mut *queue, 3));
    assert_eq!((&results[0].1, &results[2].1), (&Ok(()), &Ok(())));
    assert!(matches!(&results[1].1, Err(ReadError::Revoked(text)) if text.contains("range")));
    host.exports.revoke(host.seed);
    queue.post(host.read(3, 0, 4096)).unwrap();
    let ended = reap(&mut *queue, 1);
    assert!(matches!(&ended[0].result, Err(ReadError::Revoked(_))), "{:?}", ended[0].result);
    assert_eq!(host.streams(), (0, 1));
}

#[test]
fn a_push_comes_by_the_same_streams() {
    for wanted in [OWNER, READER] {
        let host = Host::between(1 << 20, Limits::default(), wanted);
        let range = host.stand_in.range();
        let hot = [SeedRange::new(range.start.0 + PAGE, range.end.0)];
        host.exports.set_hot(host.seed, hot.to_vec());
        for _ in 0..2 {
            let mut got = 0;
            let mut store = |addr: SeedAddr, pages: &[u8]| {
                assert!(pages == expected(addr.0 - range.start.0, pages.len()));
                got += pages.len();
                ControlFlow::Continue(())
            };
            let push = host.fabric.push(&host.agent, host.seed, &host.key, &[], &mut store);
            assert_eq!(push.unwrap().bytes, (1 << 20) - PAGE);
            assert_eq!(got as u64, (1 << 20) - PAGE);
        }
        let mut queue = host.queue();
        queue.post(host.read(0, 0, 4096)).unwrap();
        assert_eq!(reap(&mut *queue, 1)[0].result, Ok(()));
        assert_eq!(host.streams(), (0, 1), "{wanted:?}");
    }
}

/// What crosses, as someone on the path sees it.
#[test]
fn nothing_of_a_page_or_a_key_is_on_the_path() {
    for (wanted, is_plain) in [(NEITHER, true), (READER, false)] {
        let host = Host::between(4 * PAGE, Limits::default(), wanted);
        let (between, seen) = wiretap(host.agent.clone());
        let mut read = host.read(0, PAGE, 4096);
        read.export = Export::Tcp { agent: Some(between), read_key: host.key.clone() };
        let mut queue = host.queue();
        queue.post(read).unwrap();
        assert_eq!(reap(&mut *queue, 1)[0].result, Ok(()));
        let seen = seen.lock().clone();
        assert!(seen.len() > 4096);
        let contains = |bytes: &[u8]| seen.windows(bytes.len()).any(|window| window == bytes);
        assert_eq!(contains(&host.key.0), is_plain);
        assert_eq!(contains(&expected(PAGE, 4096)[64..128]), is_plain);
    }
}

/// Someone who changes a byte of an answer ends the connection, and the READ is not answered by it.
#[test]
fn a_byte_that_was_changed_on_its_way_ends_the_stream() {
    let host = Host::between(4 * PAGE, Limits::default(), BOTH);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let between = listener.local_addr().unwrap().to_string();
    let to = host.agent.clone();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = std::net::TcpStream::connect(&to).unwrap();
            relay(client.try_clone().unwrap(), server.try_clone().unwrap(), |_, _| {});
            let welcome = read::WELCOME_LEN + seal::HANDSHAKE_LEN;
            relay(server, client, move |at, bytes| {
                if let Some(byte) =
                    (welcome + 1000).checked_sub(at).and_then(|at| bytes.get_mut(at))
                {
                    *byte ^= 1;
                }
            });
        }
    });
    let mut read = host.read(0, PAGE, 4096);
    read.export = Export::Tcp { agent: Some(between), read_key: host.key.clone() };
    let mut queue = host.queue();
    queue.post(read).unwrap();
    assert_eq!(reap(&mut *queue, 1)[0].result, Err(ReadError::Flushed));
}

#[test]
fn a_peer_that_takes_no_encrypted_stream_or_cannot_prove_its_token_is_named() {
    for (is_impostor, part) in [(false, "(encrypt_reads)"), (true, "does not prove")] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let agent = listener.local_addr().unwrap().to_string();
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if is_impostor {
                    use std::io::Write as _;
                    stream.read_exact(&mut [0; seal::GREETING_LEN]).unwrap();
                    let welcome = read::encode_welcome(read::Status::Ok);
                    stream.write_all(&[&welcome[..], &[9; seal::HANDSHAKE_LEN]].concat()).unwrap();
                } else {
                    stream.peek(&mut [0; 8]).unwrap();
                }
            }
        });
        let tokens = Arc::new(Issued(None, AtomicUsize::new(0)));
        let fabric = TcpFabric::encrypting(tokens, Limits::default(), Encryption::Demanded);
        let mut queue = fabric.queue();
        let mut read = read_of(&agent, SeedId(1), &ReadKey::random(), 0);
        read.deadline = Instant::now() + Duration::from_millis(300);
        queue.post(read).unwrap();
        let ended = reap(&mut *queue, 1);
        let told = format!("{:?}", ended[0].result);
        assert!(told.contains(part) && told.contains(&agent), "{told}");
    }
}

/// An address that leads to `to`, and what has crossed it.
fn wiretap(to: String) -> (String, Arc<parking_lot::Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let between = listener.local_addr().unwrap().to_string();
    let seen: Arc<parking_lot::Mutex<Vec<u8>>> = Arc::default();
    let noted = Arc::clone(&seen);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = std::net::TcpStream::connect(&to).unwrap();
            let (back, forth) = (Arc::clone(&noted), Arc::clone(&noted));
            let copies = (client.try_clone().unwrap(), server.try_clone().unwrap());
            relay(copies.0, copies.1, move |_, bytes| forth.lock().extend_from_slice(bytes));
            relay(server, client, move |_, bytes| back.lock().extend_from_slice(bytes));
        }
    });
    (between, seen)
}

/// Passes on what comes, by a thread of its own; `look` has it first, and at which byte of all it begins.
fn relay(
    mut from: std::net::TcpStream,
    mut to: std::net::TcpStream,
    mut look: impl FnMut(usize, &mut [u8]) + Send + 'static,
) {
    use std::io::Write as _;
    thread::spawn(move || {
        let (mut bytes, mut at) = ([0; 8192], 0);
        while let Ok(got @ 1..) = from.read(&mut bytes) {
            look(at, &mut bytes[..got]);
            at += got;
            if to.write_all(&bytes[..got]).is_err() {
                return;
            }
        }
        let _ = to.shutdown(std::net::Shutdown::Write);
    });
}
