//! A program of its own, because it counts what the allocator is asked for: once warm, a READ allocates
//! and frees nothing on the pager's thread but the list of ranges that the pager itself hands over.
#![cfg(feature = "agent")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use mitosis::descriptor::{Export, SeedAddr, SeedRange};
use mitosis::export::{Exports, PageService, ProcessExport};
use mitosis::fabric::local::LocalFabric;
use mitosis::fabric::tcp::{Limits, TcpFabric, TokenSource};
use mitosis::fabric::{Buffer, Fabric, Read, ReadError};
use mitosis::id::{ReadKey, SeedId, StreamToken};
use mitosis::wire::seal::Encryption;

struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is passed on to the system's allocator; the counter is a plain thread-local without
// a destructor and allocates nothing itself.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps `alloc`'s contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps `dealloc`'s contract, and `ptr` comes from `alloc` above.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

struct Tokens(Arc<PageService>);

impl TokenSource for Tokens {
    fn token(&self, _agent: &str) -> Result<StreamToken, ReadError> {
        Ok(self.0.issue_token())
    }
}

#[test]
fn a_warm_read_allocates_nothing() {
    let bytes = vec![0x5a_u8; 1 << 20];
    let start = bytes.as_ptr() as u64;
    let exports = Exports::new();
    let (seed, read_key) = (SeedId::random(), ReadKey::random());
    let readable = vec![SeedRange::new(start, start + (1 << 20))];
    let mem = std::fs::File::open("/proc/self/mem").unwrap();
    exports.add(seed, ProcessExport { mem, readable, read_key: read_key.clone(), arena: None });

    let service = PageService::new(Arc::clone(&exports));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let agent = listener.local_addr().unwrap().to_string();
    let tokens = Arc::new(Tokens(Arc::clone(&service)));
    thread::spawn(move || {
        for stream in listener.incoming() {
            let service = Arc::clone(&service);
            thread::spawn(move || service.serve(stream.unwrap()));
        }
    });

    let tcp: Arc<dyn Fabric> = TcpFabric::new(tokens.clone(), Limits::default());
    let encrypted: Arc<dyn Fabric> =
        TcpFabric::encrypting(tokens, Limits::default(), Encryption::Demanded);
    let local: Arc<dyn Fabric> = LocalFabric::new(exports);
    for (fabric, agent) in [(tcp, Some(agent.clone())), (encrypted, Some(agent)), (local, None)] {
        let read = |tag: u64, buffer: Buffer| Read {
            tag,
            seed,
            export: Export::Tcp { agent: agent.clone(), read_key: read_key.clone() },
            arena: None,
            ranges: vec![(SeedAddr(start + tag * 4096), 64 << 10)],
            buffer,
            deadline: Instant::now() + Duration::from_secs(10),
        };
        let name = fabric.name();
        let mut queue = fabric.queue();
        let mut buffers: Vec<_> =
            (0..8).map(|_| Buffer::unregistered(vec![0; 64 << 10].into())).collect();
        let mut fds = Vec::with_capacity(16);
        let mut asked = 0;
        for round in 0..40 {
            let reads: Vec<_> =
                buffers.drain(..).zip(0..).map(|(buffer, tag)| read(tag, buffer)).collect();
            let before = ALLOCATIONS.get();
            for read in reads {
                queue.post(read).unwrap();
            }
            while queue.in_flight() > 0 {
                fds.clear();
                queue.poll_fds(&mut fds);
                assert!(!fds.is_empty());
                queue.reap(&mut |completion| {
                    assert_eq!(completion.result, Ok(()));
                    buffers.push(completion.buffer);
                });
            }
            // The first rounds connect and size the queue's own memory.
            if round >= 10 {
                asked += ALLOCATIONS.get() - before;
            }
        }
        assert_eq!(buffers[0][..], [0x5a; 64 << 10]);
        assert_eq!(asked, 0, "{name}");
    }
    drop(bytes);
}
