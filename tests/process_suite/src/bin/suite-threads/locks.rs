//! What threads wait for in libc: mutexes of each kind, conditions, semaphores, barriers, locks of readers and
//! writers; and the futexes below.

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

use crate::crossing::{Crossing, equal, must};
use crate::worker::{Flag, Worker, errno, from_now, futex, span, until};

/// One of libc's objects, which stays where it is for good.
struct Shared<T>(UnsafeCell<MaybeUninit<T>>);

// SAFETY: libc's objects of this kind are made to be used by several threads; all use is through pointers.
unsafe impl<T> Sync for Shared<T> {}
// SAFETY: as above; they are never moved.
unsafe impl<T> Send for Shared<T> {}

impl<T> Shared<T> {
    fn new() -> &'static Shared<T> {
        Box::leak(Box::new(Shared(UnsafeCell::new(MaybeUninit::zeroed()))))
    }

    fn at(&self) -> *mut T {
        self.0.get().cast()
    }
}

type Mutex = Shared<libc::pthread_mutex_t>;

fn mutex(kind: i32, robust: bool, inherits: bool) -> &'static Mutex {
    let mutex = Mutex::new();
    // SAFETY: objects that live for good.
    unsafe {
        let mut attributes: libc::pthread_mutexattr_t = std::mem::zeroed();
        libc::pthread_mutexattr_init(&raw mut attributes);
        libc::pthread_mutexattr_settype(&raw mut attributes, kind);
        if robust {
            libc::pthread_mutexattr_setrobust(&raw mut attributes, libc::PTHREAD_MUTEX_ROBUST);
        }
        if inherits {
            libc::pthread_mutexattr_setprotocol(&raw mut attributes, libc::PTHREAD_PRIO_INHERIT);
        }
        equal("pthread_mutex_init", libc::pthread_mutex_init(mutex.at(), &raw const attributes), 0);
    }
    mutex
}

impl Mutex {
    fn lock(&self) -> i32 {
        // SAFETY: an initialised mutex.
        unsafe { libc::pthread_mutex_lock(self.at()) }
    }

    fn try_lock(&self) -> i32 {
        // SAFETY: an initialised mutex.
        unsafe { libc::pthread_mutex_trylock(self.at()) }
    }

    fn unlock(&self) -> i32 {
        // SAFETY: an initialised mutex.
        unsafe { libc::pthread_mutex_unlock(self.at()) }
    }
}

/// Held by a thread while it is forked, with another one that waits: what each kind says to its owner
/// and to others afterwards.
pub(crate) fn mutexes(crossing: &mut Crossing) {
    const NORMAL: i32 = libc::PTHREAD_MUTEX_NORMAL;
    const RECURSIVE: i32 = libc::PTHREAD_MUTEX_RECURSIVE;
    const CHECKED: i32 = libc::PTHREAD_MUTEX_ERRORCHECK;
    let go = Arc::new(Flag::new());
    let mut workers = Vec::new();
    let mut all = Vec::new();
    for kind in [NORMAL, RECURSIVE, CHECKED] {
        let mutex = mutex(kind, false, false);
        let (flag, has) = (Arc::clone(&go), Arc::new(Flag::new()));
        let owned = Arc::clone(&has);
        let owner = Worker::start(move || {
            let times = if kind == RECURSIVE { 3 } else { 1 };
            (0..times).for_each(|_| equal("lock", mutex.lock(), 0));
            owned.raise();
            flag.wait();
            match kind {
                RECURSIVE => equal("lock by the owner", (mutex.lock(), mutex.unlock()), (0, 0)),
                CHECKED => equal("lock by the owner", mutex.lock(), libc::EDEADLK),
                _ => equal("trylock by the owner", mutex.try_lock(), libc::EBUSY),
            }
            (0..times).for_each(|_| equal("unlock by the owner", mutex.unlock(), 0));
        });
        has.wait();
        let waiter = Worker::start(move || {
            equal("lock after a wait", (mutex.lock(), mutex.unlock()), (0, 0));
        });
        waiter.stands_in(libc::SYS_futex);
        owner.stands_in(libc::SYS_futex);
        workers.extend([owner, waiter]);
        all.push((kind, mutex));
    }
    crossing.cross();
    for (kind, mutex) in &all {
        equal("trylock by another one", mutex.try_lock(), libc::EBUSY);
        if *kind != NORMAL {
            equal("unlock by another one", mutex.unlock(), libc::EPERM);
        }
    }
    go.raise();
    workers.into_iter().for_each(Worker::join);
    all.iter().for_each(|(_, mutex)| equal("lock at the end", mutex.lock(), 0));
}

/// The owner ends after the fork without unlocking: who waits is told, and so is the next one.
pub(crate) fn robust(crossing: &mut Crossing) {
    let mutexes = [(); 3].map(|()| mutex(libc::PTHREAD_MUTEX_NORMAL, true, false));
    let (go, has) = (Arc::new(Flag::new()), Arc::new(Flag::new()));
    let (flag, owned) = (Arc::clone(&go), Arc::clone(&has));
    let owner = Worker::start(move || {
        mutexes.iter().for_each(|mutex| equal("lock", mutex.lock(), 0));
        owned.raise();
        flag.wait();
        // One less in the list than when it was forked.
        equal("unlock", mutexes[1].unlock(), 0);
    });
    has.wait();
    owner.stands_in(libc::SYS_futex);
    let waiter = Worker::start(move || {
        equal("lock whose owner died", mutexes[0].lock(), libc::EOWNERDEAD);
        // SAFETY: an initialised mutex.
        let mended = unsafe { libc::pthread_mutex_consistent(mutexes[0].at()) };
        equal("pthread_mutex_consistent, unlock", (mended, mutexes[0].unlock()), (0, 0));
    });
    waiter.stands_in(libc::SYS_futex);
    crossing.cross();
    equal("trylock while it lives", mutexes[2].try_lock(), libc::EBUSY);
    go.raise();
    owner.join();
    waiter.join();
    equal("lock that was mended", (mutexes[0].lock(), mutexes[0].unlock()), (0, 0));
    equal("lock that was unlocked", (mutexes[1].lock(), mutexes[1].unlock()), (0, 0));
    equal("trylock whose owner died", mutexes[2].try_lock(), libc::EOWNERDEAD);
    equal("unlock without mending", mutexes[2].unlock(), 0);
    equal("lock that nobody can mend", mutexes[2].lock(), libc::ENOTRECOVERABLE);
}

/// Priority inheritance: the kernel knows the owner by its number, so children with the same numbers go on.
pub(crate) fn pi(crossing: &mut Crossing) {
    let mutex = mutex(libc::PTHREAD_MUTEX_NORMAL, false, true);
    let (go, has) = (Arc::new(Flag::new()), Arc::new(Flag::new()));
    let (flag, owned) = (Arc::clone(&go), Arc::clone(&has));
    let owner = Worker::start(move || {
        equal("lock", mutex.lock(), 0);
        owned.raise();
        flag.wait();
        equal("unlock", mutex.unlock(), 0);
    });
    has.wait();
    owner.stands_in(libc::SYS_futex);
    let waiters = [(); 2].map(|()| {
        let waiter = Worker::start(move || {
            equal("lock after a wait", (mutex.lock(), mutex.unlock()), (0, 0));
        });
        waiter.stands_in(libc::SYS_futex);
        waiter
    });
    crossing.cross();
    equal("trylock by another one", mutex.try_lock(), libc::EBUSY);
    go.raise();
    owner.join();
    waiters.into_iter().for_each(Worker::join);
    equal("lock at the end", (mutex.lock(), mutex.unlock()), (0, 0));
}

/// Waiters without a time, with one that is far, and with one that passes.
pub(crate) fn conditions(crossing: &mut Crossing) {
    let mutex = mutex(libc::PTHREAD_MUTEX_NORMAL, false, false);
    let condition = Shared::<libc::pthread_cond_t>::new();
    // SAFETY: an object that lives for good.
    equal("pthread_cond_init", unsafe { libc::pthread_cond_init(condition.at(), ptr::null()) }, 0);
    let woken = Arc::new(AtomicU32::new(0));
    let started = Instant::now();
    let times =
        [None, None, None, Some(Duration::from_secs(1000)), Some(Duration::from_millis(400))];
    let workers = times.map(|time| {
        let woken = Arc::clone(&woken);
        let worker = Worker::start(move || {
            equal("lock", mutex.lock(), 0);
            let until = time.map(|time| from_now(libc::CLOCK_REALTIME, time));
            // SAFETY: initialised objects, and this thread has the mutex.
            let got = unsafe {
                match &until {
                    None => libc::pthread_cond_wait(condition.at(), mutex.at()),
                    Some(until) => libc::pthread_cond_timedwait(condition.at(), mutex.at(), until),
                }
            };
            if time.is_some_and(|time| time.as_secs() == 0) {
                equal("a wait whose time passes", got, libc::ETIMEDOUT);
                must(started.elapsed() >= Duration::from_millis(390), "it passed too early");
            } else {
                equal("a wait for a condition", got, 0);
                woken.fetch_add(1, SeqCst);
            }
            equal("unlock", mutex.unlock(), 0);
        });
        worker.stands_in(libc::SYS_futex);
        worker
    });
    crossing.cross();
    equal("woken by nobody", woken.load(SeqCst), 0);
    std::thread::sleep(Duration::from_millis(500));
    equal("woken by nobody", woken.load(SeqCst), 0);
    // SAFETY: an initialised object.
    unsafe { libc::pthread_cond_signal(condition.at()) };
    until("a signal wakes one", || woken.load(SeqCst) >= 1);
    equal("woken by one signal", woken.load(SeqCst), 1);
    // SAFETY: as above.
    unsafe { libc::pthread_cond_broadcast(condition.at()) };
    workers.into_iter().for_each(Worker::join);
    equal("woken by all", woken.load(SeqCst), 4);
    // Destroying waits for whoever is still inside.
    // SAFETY: as above.
    equal("pthread_cond_destroy", unsafe { libc::pthread_cond_destroy(condition.at()) }, 0);
}

/// sem_wait and sem_timedwait: each post wakes one.
pub(crate) fn semaphores(crossing: &mut Crossing) {
    const WAITERS: u32 = 4;
    let semaphore = Shared::<libc::sem_t>::new();
    // SAFETY: an object that lives for good.
    equal("sem_init", unsafe { libc::sem_init(semaphore.at(), 0, 0) }, 0);
    let woken = Arc::new(AtomicU32::new(0));
    let workers: Vec<Worker> = (0..WAITERS)
        .map(|number| {
            let woken = Arc::clone(&woken);
            let worker = Worker::start(move || {
                let far = from_now(libc::CLOCK_REALTIME, Duration::from_secs(1000));
                // SAFETY: an initialised object.
                while unsafe {
                    match number % 2 {
                        0 => libc::sem_wait(semaphore.at()),
                        _ => libc::sem_timedwait(semaphore.at(), &raw const far),
                    }
                } != 0
                {
                    equal("the error of a wait for a semaphore", errno(), libc::EINTR);
                }
                woken.fetch_add(1, SeqCst);
            });
            worker.stands_in(libc::SYS_futex);
            worker
        })
        .collect();
    crossing.cross();
    for count in 1..=WAITERS {
        equal("woken by posts", woken.load(SeqCst), count - 1);
        // SAFETY: an initialised object.
        unsafe { libc::sem_post(semaphore.at()) };
        until("a post wakes one", || woken.load(SeqCst) == count);
    }
    workers.into_iter().for_each(Worker::join);
    let mut value = -1;
    // SAFETY: an initialised object.
    unsafe { libc::sem_getvalue(semaphore.at(), &raw mut value) };
    equal("the value at the end", value, 0);
}

/// All but one have come to a barrier: the last one comes after the fork.
pub(crate) fn barriers(crossing: &mut Crossing) {
    const THREADS: u32 = 4;
    let barrier = Shared::<libc::pthread_barrier_t>::new();
    // SAFETY: an object that lives for good.
    let made = unsafe { libc::pthread_barrier_init(barrier.at(), ptr::null(), THREADS) };
    equal("pthread_barrier_init", made, 0);
    let serial = Arc::new(AtomicU32::new(0));
    // SAFETY: an initialised object.
    let wait = move || unsafe { libc::pthread_barrier_wait(barrier.at()) };
    let workers: Vec<Worker> = (1..THREADS)
        .map(|_| {
            let serial = Arc::clone(&serial);
            let worker = Worker::start(move || {
                for _ in 0..3 {
                    if wait() == libc::PTHREAD_BARRIER_SERIAL_THREAD {
                        serial.fetch_add(1, SeqCst);
                    }
                }
            });
            worker.stands_in(libc::SYS_futex);
            worker
        })
        .collect();
    crossing.cross();
    for _ in 0..3 {
        if wait() == libc::PTHREAD_BARRIER_SERIAL_THREAD {
            serial.fetch_add(1, SeqCst);
        }
    }
    workers.into_iter().for_each(Worker::join);
    equal("one of each round is told so", serial.load(SeqCst), 3);
}

/// Held by readers with a writer that waits; then by a writer with readers that wait.
pub(crate) fn rwlocks(crossing: &mut Crossing) {
    let locks = [(); 2].map(|()| {
        let lock = Shared::<libc::pthread_rwlock_t>::new();
        // SAFETY: an object that lives for good.
        equal(
            "pthread_rwlock_init",
            unsafe { libc::pthread_rwlock_init(lock.at(), ptr::null()) },
            0,
        );
        lock
    });
    let [read, written] = locks;
    // SAFETY: initialised objects, for all calls here.
    unsafe {
        equal("rdlock", libc::pthread_rwlock_rdlock(read.at()), 0);
        equal("rdlock", libc::pthread_rwlock_rdlock(read.at()), 0);
        equal("wrlock", libc::pthread_rwlock_wrlock(written.at()), 0);
    }
    let workers = [true, false, false].map(|writes| {
        let worker = Worker::start(move || {
            let lock = if writes { read } else { written };
            // SAFETY: as above.
            let got = unsafe {
                match writes {
                    true => libc::pthread_rwlock_wrlock(lock.at()),
                    false => libc::pthread_rwlock_rdlock(lock.at()),
                }
            };
            // SAFETY: as above.
            equal("lock, unlock", (got, unsafe { libc::pthread_rwlock_unlock(lock.at()) }), (0, 0));
        });
        worker.stands_in(libc::SYS_futex);
        worker
    });
    crossing.cross();
    // SAFETY: as above.
    unsafe {
        equal("trywrlock", libc::pthread_rwlock_trywrlock(read.at()), libc::EBUSY);
        equal("tryrdlock", libc::pthread_rwlock_tryrdlock(written.at()), libc::EBUSY);
        equal("unlock", libc::pthread_rwlock_unlock(read.at()), 0);
        equal("unlock", libc::pthread_rwlock_unlock(read.at()), 0);
        equal("unlock", libc::pthread_rwlock_unlock(written.at()), 0);
    }
    workers.into_iter().for_each(Worker::join);
    // SAFETY: as above.
    unsafe {
        equal("trywrlock at the end", libc::pthread_rwlock_trywrlock(read.at()), 0);
        equal("trywrlock at the end", libc::pthread_rwlock_trywrlock(written.at()), 0);
    }
}

/// Futexes that are woken: private and shared ones, by bit set, and by requeueing.
pub(crate) fn futexes(crossing: &mut Crossing) {
    static WORDS: [AtomicU32; 4] = [const { AtomicU32::new(0) }; 4];
    const PRIVATE: i32 = libc::FUTEX_PRIVATE_FLAG;
    let operations = [
        libc::FUTEX_WAIT | PRIVATE,
        libc::FUTEX_WAIT,
        libc::FUTEX_WAIT_BITSET | PRIVATE,
        libc::FUTEX_WAIT | PRIVATE,
    ];
    let workers: Vec<Worker> = (0..4)
        .map(|number: usize| {
            let worker = Worker::start(move || {
                while WORDS[number].load(SeqCst) == 0 {
                    futex(&WORDS[number], operations[number], 0, None);
                }
            });
            worker.stands_in(libc::SYS_futex);
            worker
        })
        .collect();
    crossing.cross();
    equal("a futex whose value differs", futex(&WORDS[0], operations[0], 7, None), -11);
    // To be woken by number, a waiter must have come back to its wait: it has a while for that.
    std::thread::sleep(Duration::from_millis(50));
    for (number, private) in [(0, PRIVATE), (1, 0), (2, PRIVATE)] {
        WORDS[number].store(1, SeqCst);
        let woken = futex(&WORDS[number], libc::FUTEX_WAKE | private, 1, None);
        equal("waiters that a wake found", woken, 1);
    }
    // SAFETY: words that live for good; wakes none, moves one.
    let moved = unsafe {
        libc::syscall(
            libc::SYS_futex,
            WORDS[3].as_ptr(),
            libc::FUTEX_CMP_REQUEUE | PRIVATE,
            0,
            1usize,
            WORDS[0].as_ptr(),
            0,
        )
    };
    equal("waiters that were requeued", moved, 1);
    WORDS[3].store(1, SeqCst);
    equal("woken where they went", futex(&WORDS[0], libc::FUTEX_WAKE | PRIVATE, 1, None), 1);
    workers.into_iter().for_each(Worker::join);
}

/// Waits with a time go on towards the same moment.
pub(crate) fn futex_times(crossing: &mut Crossing) {
    static WORD: AtomicU32 = AtomicU32::new(0);
    const TIME: Duration = Duration::from_millis(700);
    const RELATIVE: i32 = libc::FUTEX_WAIT | libc::FUTEX_PRIVATE_FLAG;
    const ABSOLUTE: i32 = libc::FUTEX_WAIT_BITSET | libc::FUTEX_PRIVATE_FLAG;
    let workers = [RELATIVE, ABSOLUTE, ABSOLUTE | libc::FUTEX_CLOCK_REALTIME].map(|operation| {
        let worker = Worker::start(move || {
            let clock = match operation & libc::FUTEX_CLOCK_REALTIME {
                0 => libc::CLOCK_MONOTONIC,
                _ => libc::CLOCK_REALTIME,
            };
            let (begun, then) = (Instant::now(), from_now(clock, TIME));
            loop {
                let left = TIME.saturating_sub(begun.elapsed());
                let time = if operation == RELATIVE { span(left) } else { then };
                match -futex(&WORD, operation, 0, Some(time)) as i32 {
                    libc::EINTR => {}
                    other => break equal("a wait whose time passes", other, libc::ETIMEDOUT),
                }
            }
            let took = begun.elapsed();
            must(took >= TIME - Duration::from_millis(1), "a time has passed too early");
            must(took < TIME + Duration::from_secs(5), "a time has passed far too late");
        });
        worker.stands_in(libc::SYS_futex);
        worker
    });
    crossing.cross();
    workers.into_iter().for_each(Worker::join);
}
