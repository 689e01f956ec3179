use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use super::*;
use crate::id::StreamToken;
use crate::wire::seal::{Greeting, greet};

fn seals() -> (Seal, Seal) {
    let token = StreamToken([1; 32]);
    let (greeting, greeted) = greet(&token).unwrap();
    let (server, message) = Greeting::parse(&greeting).unwrap().accept(&token).unwrap();
    (greeted.answered(&message).unwrap(), server)
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let other = listener.accept().unwrap().0;
    for tcp in [&one, &other] {
        tcp.set_nodelay(true).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    }
    (one, other)
}

fn streams(is_encrypted: bool) -> (ReadStream, ReadStream) {
    let (one, other) = sockets();
    let (client, server) = seals();
    let seal = |seal| Some(seal).filter(|_| is_encrypted);
    (ReadStream::new(one, seal(client)), ReadStream::new(other, seal(server)))
}

fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + (at >> 8)).to_le_bytes()[0]).collect()
}

#[test]
fn bytes_of_any_length_cross_into_pieces_of_any_length() {
    for is_encrypted in [false, true] {
        for piece in [1, 100, 4096, MAX_PLAIN, MAX_PLAIN + TAG_LEN, 200_000] {
            let (mut from, mut to) = streams(is_encrypted);
            let sizes: &[usize] = if piece == 1 {
                &[1, 5000]
            } else {
                &[1, 4112, MAX_PLAIN, 5 * MAX_PLAIN + 1, 1 << 20]
            };
            let sent: Vec<Vec<u8>> = sizes.iter().map(|size| pattern(*size)).collect();
            let right = sent.concat();
            let sending =
                thread::spawn(move || sent.iter().try_for_each(|bytes| from.send_all(bytes)));
            let (mut got, mut room) = (Vec::new(), vec![0; piece]);
            loop {
                match to.receive(&mut room).unwrap() {
                    0 => break,
                    count => got.extend_from_slice(&room[..count]),
                }
            }
            sending.join().unwrap().unwrap();
            assert!(got == right, "{is_encrypted} {piece}: {} of {}", got.len(), right.len());
        }
    }
}

/// What a socket does not take is kept, and nothing more is taken until it is gone.
#[test]
fn a_full_socket_keeps_what_was_taken_and_takes_no_more() {
    let (mut from, to) = streams(true);
    from.tcp().set_nonblocking(true).unwrap();
    let bytes = pattern(8 << 20);
    let mut at = 0;
    let refused = loop {
        match from.send(&bytes[at..]) {
            Ok(taken) => at += taken,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    assert_eq!(from.send(&bytes[at..]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let reading = thread::spawn(move || {
        let (mut to, mut got) = (to, vec![0; 8 << 20]);
        let mut have = 0;
        while have < got.len() {
            match to.receive(&mut got[have..]).unwrap() {
                0 => break,
                count => have += count,
            }
        }
        got.truncate(have);
        got
    });
    from.tcp().set_nonblocking(false).unwrap();
    from.send_all(&bytes[at..]).unwrap();
    drop(from);
    assert!(reading.join().unwrap() == bytes);
}

#[test]
fn records_that_have_come_together_need_no_second_look_at_the_socket() {
    let (mut from, mut to) = streams(true);
    for byte in 1..=3 {
        from.send_all(&[byte; 100]).unwrap();
    }
    let (mut asked, mut room) = (0, [0; 100]);
    let mut got = Vec::new();
    // Until all of them have come they may come one by one.
    thread::sleep(Duration::from_millis(50));
    while got.len() < 3 {
        let count = to.receive_by(&mut room, |mut tcp, into| {
            asked += 1;
            tcp.read(into)
        });
        assert_eq!(count.unwrap(), 100);
        got.push(room[0]);
    }
    assert_eq!((got, asked), (vec![1, 2, 3], 1));
}

#[test]
fn forged_records_and_an_end_within_one_are_errors() {
    let record = |change: usize, cut: usize| {
        let (mut client, server) = seals();
        let mut record = vec![0; MAX_RECORD];
        let len = client.seal(&[7; 100], &mut record).unwrap();
        record[change] ^= 1;
        let (mut one, other) = sockets();
        one.write_all(&record[..len - cut]).unwrap();
        drop(one);
        ReadStream::new(other, Some(server)).receive(&mut [0; 200])
    };
    for (change, cut, kind) in [
        (50, 0, io::ErrorKind::InvalidData),
        (1, 0, io::ErrorKind::UnexpectedEof),
        (300, 1, io::ErrorKind::UnexpectedEof),
    ] {
        assert_eq!(record(change, cut).unwrap_err().kind(), kind);
    }
    assert_eq!(record(300, 0).unwrap(), 100);
    assert_eq!(record(300, 118).unwrap(), 0, "an end between records is one");
    let forged = record(50, 0).unwrap_err();
    assert!(forged.to_string().contains("forged or damaged"), "{forged}");
}
