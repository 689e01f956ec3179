//! The rate at which a child reads an array over tcp, against a receiver that has no image: not run by
//! default (see `speed`).

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mitosis::descriptor::{Export, SeedAddr, SeedRange};
use mitosis::export::{Exports, PageService, ProcessExport};
use mitosis::fabric::tcp::{Limits, TcpFabric, TokenSource};
use mitosis::fabric::{Fabric, ReadError};
use mitosis::id::{ReadKey, SeedId, StreamToken};
use mitosis::sys::sched;

use crate::reader::{End, Reader, View, fork, fork_with};
use crate::speed::{own_memory, shared_times, sum};
use crate::{BASE, LONG, PAGE, open, spec};

const BYTES: usize = 200 << 20;
const SENDER_CPU: usize = 0;
const READER_CPU: usize = 1;
const ROUNDS: usize = 7;
const SEED: SeedId = SeedId(7);
const KEY: ReadKey = ReadKey([5; 16]);

/// A process with the array in its memory. A stream that begins with "TOKEN---" is given a token, one
/// with "RAW-----" the array's bytes; any other is the page service's.
fn sender() -> (Reader, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let kept = listener.as_raw_fd();
    let process = fork_with(kept, || {
        let _ = sched::pin(SENDER_CPU);
        // SAFETY: `fork_with` has put a copy of the listener there, and nobody else uses it.
        let listener = unsafe { TcpListener::from_raw_fd(crate::reader::IMAGE_FD) };
        let memory = own_memory(BYTES);
        let exports = Exports::new();
        let readable = vec![SeedRange::new(BASE, BASE + BYTES as u64)];
        let mem = memory.try_clone().unwrap();
        exports.add(SEED, ProcessExport { mem, readable, read_key: KEY, arena: None });
        let service = PageService::new(exports);
        for stream in listener.incoming().flatten() {
            let (service, memory) = (Arc::clone(&service), memory.try_clone().unwrap());
            std::thread::spawn(move || serve(&service, &memory, stream));
        }
        0
    });
    (process, address)
}

fn serve(service: &Arc<PageService>, memory: &std::fs::File, mut stream: TcpStream) {
    let mut word = [0u8; 8];
    while stream.peek(&mut word).unwrap_or(8) < 8 {}
    if matches!(&word, b"TOKEN---" | b"RAW-----") {
        // What is left unread would reset the connection at its end.
        stream.read_exact(&mut word).unwrap();
    }
    match &word {
        b"TOKEN---" => stream.write_all(&service.issue_token().0).unwrap(),
        b"RAW-----" => {
            let mut piece = vec![0u8; 256 << 10];
            for at in (0..BYTES).step_by(piece.len()) {
                memory.read_exact_at(&mut piece, BASE + at as u64).unwrap();
                stream.write_all(&piece).unwrap();
            }
        }
        _ => service.serve(stream),
    }
}

struct Tokens(SocketAddr);

impl TokenSource for Tokens {
    fn token(&self, _: &str) -> Result<StreamToken, ReadError> {
        let mut stream = TcpStream::connect(self.0).unwrap();
        stream.write_all(b"TOKEN---").unwrap();
        let mut token = [0u8; 32];
        stream.read_exact(&mut token).unwrap();
        Ok(StreamToken(token))
    }
}

/// Receives the array into a fresh memfd and sums it; GB/s.
fn receive(address: SocketAddr) -> f64 {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"RAW-----").unwrap();
    let times = shared_times();
    let mut piece = vec![1u8; 256 << 10];
    let mut reader = fork_with(stream.as_raw_fd(), || {
        let _ = sched::pin(READER_CPU);
        // SAFETY: `fork_with` has put a copy of the stream there, and nobody else uses it.
        let mut stream = unsafe { TcpStream::from_raw_fd(crate::reader::IMAGE_FD) };
        let begin = Instant::now();
        // SAFETY: the name is a string; the mapping is of the whole file that was just written.
        let bytes = unsafe {
            let fd = libc::memfd_create(c"array".as_ptr(), 0);
            for _ in (0..BYTES).step_by(piece.len()) {
                if stream.read_exact(&mut piece).is_err() {
                    return 2;
                }
                if libc::write(fd, piece.as_ptr().cast(), piece.len()) < 0 {
                    return 3;
                }
            }
            let null = std::ptr::null_mut();
            let base = libc::mmap(null, BYTES, libc::PROT_READ, libc::MAP_SHARED, fd, 0);
            std::slice::from_raw_parts(base.cast::<u8>(), BYTES)
        };
        let sum = sum(bytes);
        times[0] = u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX);
        i32::from(sum == 0)
    });
    assert_eq!(reader.wait(LONG), End::Exited(0));
    rate(times[0])
}

/// CPU time of this process and of the readers that it has waited for, in ms: unlike rates, it does not
/// depend on what else the machine does.
fn cpu_ms() -> f64 {
    let of = |who| {
        // SAFETY: rusage is plain data, and lives through the call.
        let usage = unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(who, &raw mut usage);
            usage
        };
        let ms = |time: libc::timeval| time.tv_sec as f64 * 1e3 + time.tv_usec as f64 / 1e3;
        ms(usage.ru_utime) + ms(usage.ru_stime)
    };
    of(libc::RUSAGE_SELF) + of(libc::RUSAGE_CHILDREN)
}

fn rate(us: u32) -> f64 {
    BYTES as f64 / f64::from(us) / 1e3
}

/// Sums the array in a child; GB/s, misses.
fn touch(fabric: &Arc<TcpFabric>, address: SocketAddr, pinned: bool) -> (f64, u64) {
    let mut spec = spec(BYTES as u64 / PAGE, vec![Arc::clone(fabric) as Arc<dyn Fabric>]);
    spec.owners[0].seed = SEED;
    spec.owners[0].exports = vec![Export::Tcp { agent: Some(address.to_string()), read_key: KEY }];
    spec.pager.cpus = if pinned { vec![READER_CPU] } else { vec![] };
    let fixture = open(spec);
    let times = shared_times();
    let mut reader = fork(&fixture.image, || {
        let _ = sched::pin(READER_CPU);
        let view = View::new(&fixture.layout, SeedAddr(BASE), BYTES);
        let begin = Instant::now();
        let sum = sum(view.bytes(0, BYTES));
        times[0] = u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX);
        i32::from(sum == 0)
    });
    assert_eq!(reader.wait(LONG), End::Exited(0));
    (rate(times[0]), fixture.image.counters().misses.load(Ordering::Relaxed))
}

#[test]
#[ignore = "a measurement"]
fn speed_of_an_array_over_tcp_needs_root_and_fuse() {
    let (_sender, address) = sender();
    let fabric = TcpFabric::new(Arc::new(Tokens(address)), Limits::default());
    std::thread::sleep(Duration::from_millis(500));
    let mut rates: [Vec<f64>; 3] = Default::default();
    let mut cpu: [Vec<f64>; 3] = Default::default();
    let mut misses = [0; 2];
    for round in 0..=ROUNDS {
        let mut now = [0.0; 3];
        for which in 0..3 {
            let before = cpu_ms();
            now[which] = if which == 0 {
                receive(address)
            } else {
                let (rate, missed) = touch(&fabric, address, which == 1);
                misses[which - 1] = missed;
                rate
            };
            if round > 0 {
                cpu[which].push(cpu_ms() - before);
            }
        }
        // The first round touches the machine's memory.
        if round > 0 {
            rates.iter_mut().zip(now).for_each(|(rates, rate)| rates.push(rate));
        }
    }
    let mut peer = 0.0;
    let names = [
        "receiver: recv, write(2) to a memfd, sum",
        "child, pager pinned",
        "child, pager not pinned",
    ];
    for ((name, rates), cpu) in names.iter().zip(&mut rates).zip(&mut cpu) {
        cpu.sort_by(f64::total_cmp);
        rates.sort_by(f64::total_cmp);
        let median = rates[ROUNDS / 2];
        peer = if peer == 0.0 { median } else { peer };
        let (low, high) = (rates[0], rates[ROUNDS - 1]);
        println!(
            "{name:42} {median:.2} GB/s ({low:.2} to {high:.2}) x{:.2}, CPU {:.0} ms",
            median / peer,
            cpu[ROUNDS / 2]
        );
    }
    println!("misses in the last round: {misses:?}; loopback, sender on CPU 0, reader on CPU 1");
}
