//! Who a thread is: its storage, its registers of segments, its name, its numbers, its place on the CPUs.

use std::arch::asm;
use std::cell::Cell;
use std::ffi::CStr;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::SeqCst};

use mitosis_process_suite::{fail, word};

use crate::crossing::{Crossing, Side, equal, must};
use crate::worker::{Flag, Worker, own_tid};

const THREADS: usize = 8;

thread_local! {
    // Native, as `__thread` is: no lazy initialisation.
    static OWN: Cell<[u64; 64]> = const { Cell::new([0; 64]) };
}

fn own_storage() -> ([u64; 64], usize) {
    OWN.with(|own| (own.get(), ptr::from_ref(own) as usize))
}

/// Runs `before` in threads and in the main thread, crosses, and runs `after` with what `before` gave.
fn each<T: Send + 'static>(
    crossing: &mut Crossing,
    before: fn(usize) -> T,
    after: fn(usize, T),
) -> Vec<i32> {
    let go = Arc::new(Flag::new());
    let workers: Vec<Worker> = (1..=THREADS)
        .map(|number| {
            let go = Arc::clone(&go);
            let worker = Worker::start(move || {
                let state = before(number);
                go.wait();
                after(number, state);
            });
            worker.stands_in(libc::SYS_futex);
            worker
        })
        .collect();
    let state = before(0);
    crossing.cross();
    go.raise();
    after(0, state);
    let tids = workers.iter().map(|worker| worker.tid).collect();
    workers.into_iter().for_each(Worker::join);
    tids
}

/// `__thread`.
pub(crate) fn tls(crossing: &mut Crossing) {
    each(
        crossing,
        |number| {
            OWN.set(std::array::from_fn(|at| word(number * 64 + at)));
            own_storage().1
        },
        |number, place| {
            let (words, at) = own_storage();
            equal("the place of thread storage", at, place);
            equal("thread storage", words, std::array::from_fn(|at| word(number * 64 + at)));
            OWN.set([number as u64; 64]);
            equal("thread storage that was written", own_storage().0, [number as u64; 64]);
        },
    );
}

static KEY: AtomicU32 = AtomicU32::new(0);
static DESTROYED: AtomicU64 = AtomicU64::new(0);

extern "C" fn destroy(value: *mut libc::c_void) {
    DESTROYED.fetch_add(value as u64, SeqCst);
}

/// `pthread_setspecific`: values, and destructors when the threads end.
pub(crate) fn keys(crossing: &mut Crossing) {
    let mut key = 0;
    // SAFETY: the destructor takes any value.
    let made = unsafe { libc::pthread_key_create(&raw mut key, Some(destroy)) };
    equal("pthread_key_create", made, 0);
    KEY.store(key, SeqCst);
    let value = |number: usize| (1000 + number) as *const libc::c_void;
    each(
        crossing,
        |number| {
            let value = (1000 + number) as *const libc::c_void;
            // SAFETY: a key that exists.
            unsafe { libc::pthread_setspecific(KEY.load(SeqCst), value) };
        },
        |number, ()| {
            // SAFETY: a key that exists.
            let got = unsafe { libc::pthread_getspecific(KEY.load(SeqCst)) };
            equal("the value of a key", got as usize, 1000 + number);
        },
    );
    let all: u64 = (1..=THREADS).map(|number| value(number) as u64).sum();
    equal("what the destructors of ended threads were given", DESTROYED.load(SeqCst), all);
}

/// The bases of fs and gs.
pub(crate) fn segments(crossing: &mut Crossing) {
    const SET_GS: i32 = 0x1001;
    each(
        crossing,
        |number| {
            // For good: gs leads there until the process ends.
            let place = Box::leak(Box::new([word(number), 0]));
            // SAFETY: gs is not used by anything else.
            let done = unsafe { libc::syscall(libc::SYS_arch_prctl, SET_GS, place.as_mut_ptr()) };
            equal("arch_prctl(ARCH_SET_GS)", done, 0);
            (base_of_fs(), thread_pointer())
        },
        |number, (fs, pointer)| {
            let of_gs: u64;
            // SAFETY: gs leads to the two words that were set above.
            unsafe { asm!("mov {}, gs:[0]", out(reg) of_gs, options(nostack, readonly)) };
            equal("the base of fs, as the kernel tells", base_of_fs(), fs);
            equal("the thread's pointer to itself", thread_pointer(), pointer);
            equal("fs and the thread's pointer to itself", fs, pointer);
            equal("the word that gs leads to", of_gs, word(number));
        },
    );
}

fn base_of_fs() -> u64 {
    const GET_FS: i32 = 0x1003;
    let mut base = 0u64;
    // SAFETY: fills the word.
    unsafe { libc::syscall(libc::SYS_arch_prctl, GET_FS, &raw mut base) };
    base
}

fn thread_pointer() -> u64 {
    let pointer: u64;
    // SAFETY: the x86-64 ABI has the thread pointer's own address there.
    unsafe { asm!("mov {}, fs:[0]", out(reg) pointer, options(nostack, readonly)) };
    pointer
}

/// prctl(PR_SET_NAME), to the full length and with bytes that are no ASCII.
pub(crate) fn names(crossing: &mut Crossing) {
    fn name(number: usize) -> Vec<u8> {
        match number {
            0 => b"the main thread\0".to_vec(),
            1 => b"\0".to_vec(),
            2 => b"a b)(c\n\0".to_vec(),
            3 => "zw\u{f6}lf \u{20ac}\0".into(),
            other => format!("worker {other}\0").into_bytes(),
        }
    }
    each(
        crossing,
        |number| {
            // SAFETY: reads up to the zero byte.
            unsafe { libc::prctl(libc::PR_SET_NAME, name(number).as_ptr()) };
        },
        |number, ()| {
            let mut got = [0u8; 16];
            // SAFETY: fills 16 bytes at most.
            unsafe { libc::prctl(libc::PR_GET_NAME, got.as_mut_ptr()) };
            let got = CStr::from_bytes_until_nul(&got).map(CStr::to_bytes_with_nul).ok();
            equal("the name of a thread", got.map(<[u8]>::to_vec), Some(name(number)));
            let seen = std::fs::read("/proc/thread-self/comm").unwrap_or_default();
            let named = name(number);
            must(seen.starts_with(&named[..named.len() - 1]), "/proc does not have the name");
        },
    );
}

/// Class, priority and nice value of each thread.
pub(crate) fn scheduling(crossing: &mut Crossing) {
    const BATCH: i32 = libc::SCHED_BATCH;
    // From where this program stands: not everybody may go below that.
    static OWN_NICE: AtomicI32 = AtomicI32::new(0);
    fn wanted(number: usize) -> (i32, i32, i32) {
        let (class, more) = match number {
            1 => (BATCH, 3),
            2 => (libc::SCHED_IDLE, 0),
            3 => (libc::SCHED_OTHER, 19),
            4 => (BATCH, 0),
            5 => (libc::SCHED_OTHER, 1),
            _ => (libc::SCHED_OTHER, 0),
        };
        (class, 0, (OWN_NICE.load(SeqCst) + more).min(19))
    }
    fn seen() -> (i32, i32, i32) {
        let mut parameter = libc::sched_param { sched_priority: 0 };
        // SAFETY: of the calling thread; fills the struct.
        unsafe {
            let class = libc::sched_getscheduler(0);
            libc::sched_getparam(0, &raw mut parameter);
            (class, parameter.sched_priority, libc::getpriority(libc::PRIO_PROCESS, 0))
        }
    }
    OWN_NICE.store(seen().2, SeqCst);
    each(
        crossing,
        |number| {
            let (class, priority, nice) = wanted(number);
            let parameter = libc::sched_param { sched_priority: priority };
            // SAFETY: of the calling thread.
            unsafe {
                equal(
                    "sched_setscheduler",
                    libc::sched_setscheduler(0, class, &raw const parameter),
                    0,
                );
                equal("setpriority", libc::setpriority(libc::PRIO_PROCESS, 0, nice), 0);
            }
            equal("class, priority and nice value", seen(), (class, priority, nice));
        },
        |number, ()| equal("class, priority and nice value", seen(), wanted(number)),
    );
}

fn affinity_words() -> [u64; 16] {
    let mut words = [0u64; 16];
    // SAFETY: fills 128 bytes at most.
    let got = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, 128, words.as_mut_ptr()) };
    must(got > 0, "sched_getaffinity failed");
    words
}

fn set_affinity(words: &[u64; 16]) {
    // SAFETY: reads 128 bytes.
    let set = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, 128, words.as_ptr()) };
    equal("sched_setaffinity", set, 0);
}

/// The CPUs that these words name.
fn cpus_of(words: &[u64; 16]) -> Vec<usize> {
    (0..1024).filter(|cpu| words[cpu / 64] >> (cpu % 64) & 1 == 1).collect()
}

fn only(cpu: usize) -> [u64; 16] {
    let mut words = [0u64; 16];
    words[cpu / 64] = 1 << (cpu % 64);
    words
}

/// CPUs are their host's: a thread of the parent stays where it was put, one of a child may go where its host
/// lets it, and both are put elsewhere as they wish.
pub(crate) fn affinity(crossing: &mut Crossing) {
    static CHILD: AtomicU32 = AtomicU32::new(0);
    let go = Arc::new(Flag::new());
    let all = affinity_words();
    let workers: Vec<Worker> = (0..THREADS)
        .map(|number| {
            let go = Arc::clone(&go);
            let worker = Worker::start(move || {
                let cpus = cpus_of(&all);
                let own = only(cpus[number % cpus.len()]);
                set_affinity(&own);
                go.wait();
                if CHILD.load(SeqCst) == 0 {
                    equal("the CPUs of a thread", affinity_words(), own);
                }
                for cpu in cpus_of(&affinity_words()) {
                    set_affinity(&only(cpu));
                    // SAFETY: takes nothing.
                    equal("where it runs", unsafe { libc::sched_getcpu() }, cpu as i32);
                }
            });
            worker.stands_in(libc::SYS_futex);
            worker
        })
        .collect();
    if crossing.cross() == Side::Child {
        CHILD.store(1, SeqCst);
    }
    go.raise();
    workers.into_iter().for_each(Worker::join);
}

/// Numbers of process and threads, as the process sees them.
pub(crate) fn ids(crossing: &mut Crossing) {
    fn own() -> (i32, u32, u64) {
        // SAFETY: takes nothing.
        (own_tid(), std::process::id(), unsafe { libc::pthread_self() })
    }
    let process = std::process::id() as i32;
    each(
        crossing,
        |_| own(),
        |number, before| {
            equal("thread id, process id, pthread_self", own(), before);
            if number == 0 {
                equal("the main thread's number", own_tid(), std::process::id() as i32);
            }
            // SAFETY: signal 0 only asks.
            let there = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), own_tid(), 0) };
            equal("tgkill of oneself", there, 0);
        },
    );
    equal("getpid", std::process::id() as i32, process);
}

/// rseq(2) of each thread: the kernel tells it the CPU that it runs on, wherever it goes.
pub(crate) fn rseq(crossing: &mut Crossing) {
    /// (cpu_id_start, cpu_id) of the area of the calling thread.
    fn area() -> (u32, u32) {
        // SAFETY: glibc documents the symbol as a constant of type ptrdiff_t.
        let offset = unsafe {
            let offset = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_offset".as_ptr());
            if offset.is_null() {
                fail(&"this libc registers no rseq");
            }
            offset.cast::<i64>().read()
        };
        let area = thread_pointer().wrapping_add_signed(offset) as *const u32;
        // SAFETY: the registered area of this thread; the kernel writes it, so it is read as volatile.
        unsafe { (area.read_volatile(), area.add(1).read_volatile()) }
    }
    fn look() {
        let all = affinity_words();
        for cpu in cpus_of(&all).into_iter().take(4) {
            set_affinity(&only(cpu));
            equal("what rseq tells", area(), (cpu as u32, cpu as u32));
            // SAFETY: takes nothing.
            equal("sched_getcpu", unsafe { libc::sched_getcpu() }, cpu as i32);
        }
        set_affinity(&all);
    }
    each(crossing, |_| look(), |_, ()| look());
}
