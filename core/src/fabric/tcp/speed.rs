//! Figures for people: `cargo test --release --features agent -- --ignored --nocapture speed`.
//!
//! Over loopback, with server and client unpinned in one process; every byte is compared once. The bars
//! that count are held by `make bench`, over veth and pinned.

use std::io::{Read as _, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::Instant;

use super::tests::{Host, wait};
use super::*;
use crate::export::stand_in::expected;
use crate::fabric::{Buffer, Completion};

const BYTES: usize = 200 << 20;
const ROUNDS: usize = 9;

#[test]
#[ignore = "prints figures; run it alone, in release"]
fn speed_of_reads() {
    let host = Host::start(BYTES as u64, Limits::default());
    let mut queue = host.queue();
    latency(&host, &mut *queue);
    let variants = [(128 << 10, 2), (128 << 10, 8), (256 << 10, 4), (256 << 10, 8), (1 << 20, 4)];
    let mut buffers: Vec<_> =
        (0..8).map(|_| Buffer::unregistered(vec![0; 1 << 20].into())).collect();
    stream(&host, &mut *queue, 256 << 10, 8, &mut buffers, true);
    let mut rates = vec![Vec::new(); variants.len() + 1];
    for _ in 0..ROUNDS {
        rates[0].push(raw(&host));
        for (rates, (piece, depth)) in rates[1..].iter_mut().zip(variants) {
            rates.push(stream(&host, &mut *queue, piece, depth, &mut buffers, false));
        }
    }
    let names =
        variants.map(|(piece, depth)| format!("READs of {} KiB, {depth} at once", piece >> 10));
    let names = std::iter::once("raw stream".to_owned()).chain(names);
    let raw_rate = median(&mut rates[0]);
    for (name, rates) in names.zip(&mut rates) {
        let rate = median(rates);
        let (low, high) = (rates[0], rates[ROUNDS - 1]);
        println!("{name}: {rate:.0} MB/s ({low:.0} to {high:.0}), x{:.2}", rate / raw_rate);
    }
}

fn latency(host: &Host, queue: &mut dyn ReadQueue) {
    let mut took: Vec<f64> = (0..5000)
        .map(|_| {
            let read = host.read(0, 0, 4096);
            let begun = Instant::now();
            queue.post(read).unwrap();
            let mut ended = 0;
            while ended == 0 {
                wait(queue, 100);
                queue.reap(&mut |_| ended += 1);
            }
            begun.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    println!("READ of 4 KiB: {:.1} us (median of {})", median(&mut took), took.len());
}

/// Reads everything once, `depth` READs of `piece` bytes at once; MB/s.
fn stream(
    host: &Host,
    queue: &mut dyn ReadQueue,
    piece: usize,
    depth: usize,
    buffers: &mut Vec<Buffer>,
    compare: bool,
) -> f64 {
    let begun = Instant::now();
    let (mut next, mut ended) = (0, 0);
    let mut done: Vec<Completion> = Vec::new();
    while ended < BYTES {
        while next < BYTES && queue.in_flight() < depth {
            let mut read = host.read(next as u64, next as u64, 1);
            read.ranges[0].1 = u32::try_from(piece).unwrap();
            read.buffer = buffers.pop().unwrap();
            queue.post(read).unwrap();
            next += piece;
        }
        queue.reap(&mut |completion| done.push(completion));
        for completion in done.drain(..) {
            completion.result.unwrap();
            ended += piece;
            if compare {
                assert!(completion.buffer[..piece] == expected(completion.tag, piece)[..]);
            }
            buffers.push(completion.buffer);
        }
        if queue.in_flight() == depth || (next == BYTES && ended < BYTES) {
            wait(queue, 100);
        }
    }
    BYTES as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

/// The same bytes, sent and received with nothing around them; MB/s.
fn raw(host: &Host) -> f64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut receiver = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut sender = listener.accept().unwrap().0;
    let (mem, base) = host.memory();
    let begun = Instant::now();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut chunk = vec![0; 256 << 10];
            for at in (0..BYTES).step_by(chunk.len()) {
                mem.read_exact_at(&mut chunk, base + at as u64).unwrap();
                sender.write_all(&chunk).unwrap();
            }
        });
        let mut chunk = vec![0; 256 << 10];
        let mut got = 0;
        while got < BYTES {
            got += receiver.read(&mut chunk).unwrap();
        }
    });
    BYTES as f64 / 1e6 / begun.elapsed().as_secs_f64()
}

fn median(samples: &mut [f64]) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() / 2]
}
