//! Peers that are silent, gone, closing or hostile.

use std::io::{Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::id::{ReadKey, SeedId, StreamToken};
use crate::wire::read::{self, Status};

/// A fabric whose peer does `serve` with each connection.
fn fabric_to(serve: impl Fn(usize, TcpStream) + Send + Sync + 'static) -> (Arc<TcpFabric>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let agent = listener.local_addr().unwrap().to_string();
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (index, stream) in listener.incoming().enumerate() {
            let serve = Arc::clone(&serve);
            thread::spawn(move || serve(index, stream.unwrap()));
        }
    });
    let tokens = Arc::new(Issued(None, AtomicUsize::new(0)));
    (TcpFabric::new(tokens, Limits::default()), agent)
}

/// Takes the greeting and welcomes.
fn welcome(mut stream: &TcpStream) {
    stream.read_exact(&mut [0; read::GREETING_LEN]).unwrap();
    stream.write_all(&read::encode_welcome(Status::Ok)).unwrap();
}

fn take_request(mut stream: &TcpStream) -> Option<u32> {
    let mut request = [0; read::REQUEST_LEN + read::RANGE_LEN];
    stream.read_exact(&mut request).ok()?;
    Some(read::parse_request(&request).unwrap().unwrap().0.tag)
}

#[test]
fn a_connection_cut_in_mid_answer_flushes_and_the_repost_succeeds() {
    let (fabric, agent) = fabric_to(|index, stream| {
        welcome(&stream);
        while let Some(tag) = take_request(&stream) {
            let header = read::encode_answer(tag, Status::Ok, 4096);
            (&stream).write_all(&header).unwrap();
            let cut = if index == 0 && tag == 1 { 1000 } else { 4096 };
            (&stream).write_all(&[7; 4096][..cut]).unwrap();
            if cut < 4096 {
                // Closing with a request unread would reset the connection and take the first answer back.
                take_request(&stream);
                return;
            }
        }
    });
    let mut queue = Arc::clone(&fabric).queue();
    let (seed, key) = (SeedId(1), ReadKey::random());
    for tag in 0..3 {
        queue.post(read_of(&agent, seed, &key, tag)).unwrap();
    }
    let ended = reap(&mut *queue, 3);
    let flushed = Err(ReadError::Flushed);
    assert_eq!(results(&ended), [(0, Ok(())), (1, flushed.clone()), (2, flushed)]);
    for completion in ended.into_iter().filter(|c| c.result.is_err()) {
        let mut again = read_of(&agent, seed, &key, completion.tag);
        again.buffer = completion.buffer;
        queue.post(again).unwrap();
    }
    let ended = reap(&mut *queue, 2);
    assert_eq!(results(&ended), [(1, Ok(())), (2, Ok(()))]);
    assert!(ended.iter().all(|c| c.buffer[..] == [7; 4096]));
    assert_eq!(fabric.connections(&agent), 1);
}

#[test]
fn an_idle_connection_that_was_closed_is_replaced() {
    let (fabric, agent) = fabric_to(|_, stream| {
        welcome(&stream);
        let tag = take_request(&stream).unwrap();
        (&stream).write_all(&read::encode_answer(tag, Status::Ok, 4096)).unwrap();
        (&stream).write_all(&[7; 4096]).unwrap();
    });
    let mut queue = Arc::clone(&fabric).queue();
    let (seed, key) = (SeedId(1), ReadKey::random());
    let mut flushed = 0;
    for tag in 0..5 {
        queue.post(read_of(&agent, seed, &key, tag)).unwrap();
        while let Err(error) = &reap(&mut *queue, 1)[0].result {
            assert_eq!(error, &ReadError::Flushed);
            flushed += 1;
            queue.post(read_of(&agent, seed, &key, tag)).unwrap();
        }
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(flushed, 4, "each further READ finds a closed connection, once");
}

#[test]
fn a_silent_server_ends_reads_by_their_deadline() {
    let (fabric, agent) = fabric_to(|_, stream| {
        welcome(&stream);
        thread::sleep(Duration::from_secs(30));
    });
    let mut queue = Arc::clone(&fabric).queue();
    let (seed, key) = (SeedId(1), ReadKey::random());
    let begun = Instant::now();
    let mut urgent = read_of(&agent, seed, &key, 0);
    urgent.deadline = begun + Duration::from_millis(100);
    queue.post(urgent).unwrap();
    queue.post(read_of(&agent, seed, &key, 1)).unwrap();
    let ended = reap(&mut *queue, 2);
    let took = begun.elapsed();
    assert!((100..1000).contains(&took.as_millis()), "{took:?}");
    let results = results(&ended);
    assert!(matches!(&results[0].1, Err(ReadError::Unreachable(text)) if text.contains(&agent)));
    assert_eq!(results[1].1, Err(ReadError::Flushed));
}

#[test]
fn nobody_listening_is_tried_until_the_deadline_and_then_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let agent = listener.local_addr().unwrap().to_string();
    drop(listener);
    let tokens = Arc::new(Issued(None, AtomicUsize::new(0)));
    let fabric = TcpFabric::new(Arc::clone(&tokens) as Arc<dyn TokenSource>, Limits::default());
    let mut queue = Arc::clone(&fabric).queue();
    let begun = Instant::now();
    let mut read = read_of(&agent, SeedId(1), &ReadKey::random(), 0);
    read.deadline = begun + Duration::from_millis(150);
    queue.post(read).unwrap();
    let ended = reap(&mut *queue, 1);
    assert!((150..1000).contains(&begun.elapsed().as_millis()));
    assert!(
        matches!(&ended[0].result, Err(ReadError::Unreachable(text)) if text.contains("refused")),
        "{:?}",
        ended[0].result
    );
    let attempts = tokens.1.load(Ordering::SeqCst);
    assert!((2..10).contains(&attempts), "it backs off: {attempts} attempts in 150 ms");
    // Once nobody waits, the connector ends.
    thread::sleep(Duration::from_millis(100));
    assert_eq!(fabric.connections(&agent), 0);
}

#[test]
fn a_peer_that_comes_back_is_found() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let tokens = Arc::new(Issued(None, AtomicUsize::new(0)));
    let mut queue = TcpFabric::new(tokens, Limits::default()).queue();
    queue.post(read_of(&address.to_string(), SeedId(1), &ReadKey::random(), 0)).unwrap();
    assert!(!wait(&*queue, 50));
    thread::spawn(move || {
        let stream = TcpListener::bind(address).unwrap().accept().unwrap().0;
        welcome(&stream);
        let tag = take_request(&stream).unwrap();
        (&stream).write_all(&read::encode_answer(tag, Status::Ok, 4096)).unwrap();
        (&stream).write_all(&[7; 4096]).unwrap();
    });
    assert_eq!(reap(&mut *queue, 1)[0].result, Ok(()));
}

#[test]
fn garbage_from_a_peer_fails_the_read_and_flushes_the_others() {
    let garbage: [(&str, Vec<u8>); 5] = [
        ("unknown status", vec![0xff; 64]),
        ("wrong tag", read::encode_answer(77, Status::Ok, 4096).to_vec()),
        ("wrong length", read::encode_answer(0, Status::Ok, 4097).to_vec()),
        ("a push", read::encode_answer(0, Status::Pushed, 100).to_vec()),
        ("protocol", read::encode_answer(0, Status::Protocol, 0).to_vec()),
    ];
    for (what, bytes) in garbage {
        let (fabric, agent) = fabric_to(move |_, stream| {
            welcome(&stream);
            take_request(&stream);
            (&stream).write_all(&bytes).unwrap();
            thread::sleep(Duration::from_secs(5));
        });
        let mut queue = fabric.queue();
        for tag in 0..2 {
            queue.post(read_of(&agent, SeedId(1), &ReadKey::random(), tag)).unwrap();
        }
        let results = results(&reap(&mut *queue, 2));
        assert!(
            matches!(&results[0].1, Err(ReadError::Unreachable(text)) if text.contains("protocol")),
            "{what}: {results:?}"
        );
        assert_eq!(results[1].1, Err(ReadError::Flushed), "{what}");
    }
}

#[test]
fn a_peer_of_another_version_fails_the_read_at_once() {
    for answer in [read::encode_welcome(Status::Protocol), *b"HTTP"] {
        let (fabric, agent) = fabric_to(move |_, mut stream| {
            stream.read_exact(&mut [0; read::GREETING_LEN]).unwrap();
            stream.write_all(&answer).unwrap();
        });
        let mut queue = fabric.queue();
        queue.post(read_of(&agent, SeedId(1), &ReadKey::random(), 0)).unwrap();
        let ended = reap(&mut *queue, 1);
        assert!(
            matches!(&ended[0].result, Err(ReadError::Revoked(text)) if text.contains("same version"))
        );
    }
}

#[test]
fn a_token_that_is_denied_for_good_fails_the_read_at_once() {
    struct Denied;
    impl TokenSource for Denied {
        fn token(&self, _agent: &str) -> Result<StreamToken, ReadError> {
            Err(ReadError::Revoked("the cluster secret differs".to_owned()))
        }
    }
    let mut queue = TcpFabric::new(Arc::new(Denied), Limits::default()).queue();
    queue.post(read_of("127.0.0.1:1", SeedId(1), &ReadKey::random(), 0)).unwrap();
    let ended = reap(&mut *queue, 1);
    assert_eq!(ended[0].result, Err(ReadError::Revoked("the cluster secret differs".to_owned())));
}

#[test]
fn a_server_that_welcomes_and_closes_is_backed_off_from() {
    let (fabric, agent) = fabric_to(|_, stream| welcome(&stream));
    let mut queue = Arc::clone(&fabric).queue();
    let deadline = Instant::now() + Duration::from_millis(200);
    let (mut reposts, mut last) = (0, Ok(()));
    while last != Err(ReadError::Flushed) || Instant::now() < deadline {
        let mut read = read_of(&agent, SeedId(1), &ReadKey::random(), 0);
        read.deadline = deadline;
        queue.post(read).unwrap();
        last = reap(&mut *queue, 1)[0].result.clone();
        reposts += 1;
        if matches!(last, Err(ReadError::Unreachable(_))) {
            break;
        }
    }
    assert!(matches!(last, Err(ReadError::Unreachable(_))), "{last:?}");
    assert!((2..12).contains(&reposts), "{reposts} posts in 200 ms");
}

#[test]
fn a_push_fails_well() {
    let host = Host::start(4 * PAGE, Limits::default());
    let key = ReadKey::random();
    let refused =
        host.fabric.push(&host.agent, host.seed, &key, &[], &mut |_, _| panic!("no bytes"));
    assert!(matches!(refused, Err(ReadError::Revoked(_))));
    assert_eq!(host.fabric.connections(&host.agent), 1, "a refusal keeps the connection");

    let (fabric, agent) = fabric_to(|_, stream| {
        welcome(&stream);
        (&stream).read_exact(&mut [0; read::REQUEST_LEN]).unwrap();
        let header = read::encode_answer(0, Status::Pushed, 8 + 4096);
        (&stream).write_all(&header).unwrap();
        (&stream).write_all(&[1; 100]).unwrap();
    });
    let broken = fabric.push(&agent, SeedId(1), &key, &[], &mut |_, _| panic!("no whole run"));
    assert!(matches!(broken, Err(ReadError::Unreachable(text)) if text.contains("closed")));
}

#[test]
fn queues_that_are_dropped_while_they_wait_leave_no_connection_behind() {
    let limits = Limits { connections_per_peer: 2, ..Limits::default() };
    let host = Host::start(PAGE, limits);
    for _ in 0..50 {
        let mut queues: Vec<_> = (0..6).map(|_| host.queue()).collect();
        for queue in &mut queues {
            queue.post(host.read(0, 0, 4096)).unwrap();
        }
        queues[0].reap(&mut drop);
    }
    // A place that leaked would be missing here: two connections are needed at the same time.
    let (mut one, mut two) = (host.queue(), host.queue());
    one.post(host.read(0, 0, 4096)).unwrap();
    two.post(host.read(0, 0, 4096)).unwrap();
    assert_eq!(reap(&mut *one, 1)[0].result, Ok(()));
    assert_eq!(reap(&mut *two, 1)[0].result, Ok(()));
    drop((one, two));
    let idle = host.fabric.connections(&host.agent);
    assert!(idle <= 2, "{idle} connections");
    assert!(
        host.fabric
            .push(&host.agent, host.seed, &host.key, &[], &mut |_, _| ControlFlow::Continue(()))
            .is_ok()
    );
}
