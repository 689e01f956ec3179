//! Measurements, not run by default: `cargo test --release --features agent --test image -- --ignored
//! --nocapture speed`. Each prints its method, and its peer in the same run.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mitosis::descriptor::{Export, SeedAddr};
use mitosis::fabric::{Completion, Fabric, PostError, Read, ReadQueue};
use mitosis::sys::fuse::{self, Device, InitLimits, Parts, Received, Request};
use mitosis::sys::sched;

use crate::reader::{End, View, fork};
use crate::{BASE, LONG, PAGE, open, spec};

const CPU: usize = 1;
const TOUCHES: usize = 512;
const STRIDE: usize = 32;
const ROUNDS: usize = 12;

/// READs by pread(2) of a file, as the local fabric does of a seed's memory.
#[derive(Debug)]
struct Direct(File);

#[derive(Debug)]
struct DirectQueue(Arc<Direct>, Vec<Read>);

impl Fabric for Direct {
    fn name(&self) -> &'static str {
        "direct"
    }

    fn serves(&self, _: &Export) -> bool {
        true
    }

    fn queue(self: Arc<Self>) -> Box<dyn ReadQueue> {
        Box::new(DirectQueue(self, Vec::with_capacity(64)))
    }
}

impl ReadQueue for DirectQueue {
    fn post(&mut self, read: Read) -> Result<(), PostError> {
        self.1.push(read);
        Ok(())
    }

    fn reap(&mut self, done: &mut dyn FnMut(Completion)) {
        for mut read in self.1.drain(..) {
            let mut rest = &mut read.buffer[..];
            for &(SeedAddr(addr), len) in &read.ranges {
                let (now, behind) = rest.split_at_mut(len as usize);
                self.0.0.read_exact_at(now, addr).unwrap();
                rest = behind;
            }
            done(Completion { tag: read.tag, buffer: read.buffer, result: Ok(()) });
        }
    }

    fn poll_fds(&self, _: &mut Vec<RawFd>) {}

    fn in_flight(&self) -> usize {
        self.1.len()
    }
}

/// This process's own memory as the owner's: `bytes` lies at [`BASE`].
pub(crate) fn own_memory(bytes: usize) -> File {
    // SAFETY: a mapping at an address that nothing but an earlier measurement uses.
    unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        let base = libc::mmap(BASE as *mut libc::c_void, bytes, prot, flags, -1, 0);
        assert_eq!(base as u64, BASE);
        let words = std::slice::from_raw_parts_mut(base.cast::<u64>(), bytes / 8);
        (1u64..).zip(words).for_each(|(i, word)| *word = i.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
    File::open("/proc/self/mem").unwrap()
}

/// A FUSE loop that does nothing but answer each READ from one static page, blocking in read(2).
fn bare_loop() -> File {
    let device = Device::open().unwrap();
    let mount = fuse::mount(&device, 1 << 17).unwrap();
    // SAFETY: no memory is passed.
    unsafe { libc::fcntl(device.as_fd().as_raw_fd(), libc::F_SETFL, libc::O_RDWR) };
    std::thread::spawn(move || {
        sched::pin(CPU).unwrap();
        let (page, mut message) = ([7u8; PAGE as usize], [0u8; fuse::REQUEST_BYTES]);
        loop {
            let Ok(Received::Message(len)) = device.receive(&mut message) else { continue };
            let mut parts = Parts::new();
            let (attr, init);
            let unique = match Request::parse(&message[..len]).unwrap() {
                Request::Init { unique, minor, max_readahead, flags, .. } => {
                    let limits = InitLimits { readahead: 16384, max_pages: 32, max_background: 64 };
                    init = fuse::init_answer(minor, max_readahead, flags, limits);
                    parts.push(&init);
                    unique
                }
                Request::GetAttr { unique } => {
                    attr = fuse::attr_answer();
                    parts.push(&attr);
                    unique
                }
                Request::Read(read) => {
                    (0..read.size / 4096).for_each(|_| parts.push(&page));
                    read.unique
                }
                Request::Other { unique } => {
                    device.refuse(unique, libc::ENOSYS).unwrap();
                    continue;
                }
                _ => continue,
            };
            device.answer(unique, &parts).unwrap();
        }
    });
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    let file = OpenOptions::new().read(true).open(path).unwrap();
    file.metadata().unwrap();
    file
}

/// Times each of many touches of far-apart pages of `view`, in ns.
fn touches(view: &View, times: &mut [u32]) {
    view.byte(0);
    for (i, time) in times.iter_mut().enumerate() {
        let begin = Instant::now();
        view.byte((i + 1) * STRIDE * PAGE as usize);
        *time = u32::try_from(begin.elapsed().as_nanos()).unwrap_or(u32::MAX);
    }
}

#[test]
#[ignore = "a measurement"]
fn speed_of_a_local_miss_needs_root_and_fuse() {
    let pages = ((TOUCHES + 1) * STRIDE) as u64;
    let memory = own_memory((pages * PAGE) as usize);
    let bare = bare_loop();
    let mut samples: [Vec<u32>; 2] = Default::default();
    for _ in 0..ROUNDS {
        let memory = Arc::new(Direct(memory.try_clone().unwrap()));
        let mut spec = spec(pages, vec![memory as Arc<dyn Fabric>]);
        spec.pager.cpus = vec![CPU];
        let fixture = open(spec);
        for (which, of_bare) in [(0, true), (1, false)] {
            let shared = shared_times();
            let len = (pages * PAGE) as usize;
            // SAFETY: drops what a bare loop's file has in the cache; no memory is passed.
            unsafe { libc::posix_fadvise(bare.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
            let mut reader = fork_on(&fixture.image, of_bare.then_some(&bare), || {
                let _ = sched::pin(CPU);
                let view = View::new(&fixture.layout, SeedAddr(BASE), len).random();
                touches(&view, shared);
                0
            });
            assert_eq!(reader.wait(LONG), End::Exited(0));
            samples[which].extend_from_slice(shared);
        }
    }
    let mut p50 = [0.0; 2];
    for (which, name) in [(0, "bare loop, blocking, static page"), (1, "image, pread of memory")] {
        let of = &mut samples[which];
        of.sort_unstable();
        let at = |percent: usize| f64::from(of[of.len() * percent / 100]) / 1e3;
        p50[which] = at(50);
        println!(
            "{name:34} n={} p10 {:.2} p50 {:.2} p90 {:.2} p99 {:.2} us",
            of.len(),
            at(10),
            at(50),
            at(90),
            at(99)
        );
    }
    println!("x{:.2} (child and pager on CPU {CPU}, MADV_RANDOM, interleaved)", p50[1] / p50[0]);
}

pub(crate) fn shared_times() -> &'static mut [u32] {
    // SAFETY: a new shared mapping, never unmapped, and used by the reader alone until it has ended.
    unsafe {
        let (prot, flags) =
            (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED | libc::MAP_ANONYMOUS);
        let base = libc::mmap(std::ptr::null_mut(), TOUCHES * 4, prot, flags, -1, 0);
        assert_ne!(base, libc::MAP_FAILED);
        std::slice::from_raw_parts_mut(base.cast(), TOUCHES)
    }
}

fn fork_on(
    image: &mitosis::image::Image,
    other: Option<&File>,
    work: impl FnOnce() -> i32,
) -> crate::reader::Reader {
    match other {
        Some(file) => crate::reader::fork_with(file.as_raw_fd(), work),
        None => fork(image, work),
    }
}

/// The sum of all words.
pub(crate) fn sum(bytes: &[u8]) -> u64 {
    let words = bytes.chunks_exact(8);
    words
        .map(|word| u64::from_ne_bytes(word.try_into().unwrap_or([0; 8])))
        .fold(0, u64::wrapping_add)
}

#[test]
#[ignore = "a measurement"]
fn speed_of_a_sequential_reader_needs_root_and_fuse() {
    let bytes = 200 << 20;
    let memory = own_memory(bytes);
    for prefetch in [false, true, false, true, false, true] {
        let direct = Arc::new(Direct(memory.try_clone().unwrap()));
        let mut spec = spec(bytes as u64 / PAGE, vec![direct as Arc<dyn Fabric>]);
        spec.pager.cpus = vec![CPU];
        spec.pager.prefetch = prefetch;
        let fixture = open(spec);
        let times = shared_times();
        let mut reader = fork(&fixture.image, || {
            let _ = sched::pin(CPU);
            let view = View::new(&fixture.layout, SeedAddr(BASE), bytes);
            let begin = Instant::now();
            let sum = sum(view.bytes(0, bytes));
            times[0] = u32::try_from(begin.elapsed().as_micros()).unwrap_or(u32::MAX);
            i32::from(sum == 0)
        });
        assert_eq!(reader.wait(LONG), End::Exited(0));
        let took = Duration::from_micros(u64::from(times[0]));
        println!(
            "200 MB, prefetch {prefetch}: {:.2} GB/s, {} misses",
            bytes as f64 / took.as_nanos() as f64,
            fixture.image.counters().misses.load(Ordering::Relaxed)
        );
    }
}
