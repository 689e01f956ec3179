//! A whole process as a seed: ten threads that have each set something up and park themselves, and what they
//! find in a child.

use std::cell::Cell;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::JoinHandle;

use mitosis::descriptor::{Rseq, Sched, SeedAddr, Thread, Whole};
use mitosis::prepare::report::Report;

use super::seed;

/// Threads beside the first one.
pub(crate) const THREADS: usize = 10;

static GATE: AtomicU32 = AtomicU32::new(0);
static RUNNING: AtomicU32 = AtomicU32::new(0);
static PARKED: Mutex<Vec<State>> = Mutex::new(Vec::new());

thread_local! {
    static OWN: Cell<usize> = const { Cell::new(0) };
}

/// A thread's state as the kernel tells it, and where its frame lies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    tid: u64,
    frame: u64,
    tid_address: u64,
    fs_base: u64,
    robust: [u64; 2],
    alt_stack: [u64; 3],
    rseq: Option<(u64, u64)>,
    name: String,
    mask: u64,
    sched: [u64; 3],
}

impl State {
    fn of_this_thread(frame: u64) -> State {
        let mut state = State { frame, ..State::default() };
        let mut name = [0u8; 16];
        // SAFETY: each call writes to live locals of the size that it expects.
        unsafe {
            state.tid = u64::from(libc::gettid().cast_unsigned());
            libc::syscall(libc::SYS_arch_prctl, seed::ARCH_GET_FS, &raw mut state.fs_base);
            libc::prctl(seed::PR_GET_TID_ADDRESS, &raw mut state.tid_address);
            let [head, len] = &mut state.robust;
            libc::syscall(libc::SYS_get_robust_list, 0, head, len);
            let mut alt: libc::stack_t = std::mem::zeroed();
            libc::sigaltstack(std::ptr::null(), &raw mut alt);
            state.alt_stack =
                [alt.ss_sp as u64, alt.ss_flags.unsigned_abs().into(), alt.ss_size as u64];
            libc::prctl(libc::PR_GET_NAME, name.as_mut_ptr());
            let none = std::ptr::null::<u64>();
            libc::syscall(libc::SYS_rt_sigprocmask, 0, none, &raw mut state.mask, 8);
            let mut attributes = [0u32; 12];
            libc::syscall(libc::SYS_sched_getattr, 0, attributes.as_mut_ptr(), 48, 0);
            state.sched = [1, 4, 5].map(|at| attributes[at].into());
        }
        state.rseq = seed::rseq_area(state.fs_base);
        let len = name.iter().position(|byte| *byte == 0).unwrap_or(name.len());
        state.name = String::from_utf8_lossy(&name[..len]).into_owned();
        state
    }

    fn rseq_is_registered(&self) -> bool {
        let Some((area, len)) = self.rseq else { return true };
        // SAFETY: the area that is registered already, or else it is now, for good.
        let answer = unsafe { libc::syscall(libc::SYS_rseq, area, len, 0, 0x5305_3053) };
        answer == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EBUSY)
    }
}

/// Starts the threads, and waits until each has parked.
pub(crate) fn start() -> Vec<JoinHandle<Result<(), String>>> {
    // SAFETY: the action's fields are set; the handler below has the signature that SA_SIGINFO wants.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = parked as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGRTMIN() + 4, &raw const action, std::ptr::null_mut());
    }
    let threads = (1..=THREADS).map(|number| std::thread::spawn(move || thread(number))).collect();
    while PARKED.lock().expect("nobody panics").len() < THREADS {
        std::thread::yield_now();
    }
    threads
}

fn thread(number: usize) -> Result<(), String> {
    OWN.set(number);
    let name = std::ffi::CString::new(format!("worker-{number}")).expect("no NUL");
    // SAFETY: plain values and live locals.
    unsafe {
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        if number % 2 == 1 {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&raw mut set, libc::SIGUSR1);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
        }
        let policy = if number == 3 { libc::SCHED_BATCH } else { libc::SCHED_OTHER };
        let parameter: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, policy, &raw const parameter);
        if number == 4 {
            libc::setpriority(libc::PRIO_PROCESS, 0, 5);
        }
        libc::raise(libc::SIGRTMIN() + 4);
    }
    // From here on this is a child.
    RUNNING.fetch_add(1, Ordering::SeqCst);
    let before = PARKED.lock().expect("nobody panics")[..]
        .iter()
        .find(|state| state.name == format!("worker-{number}"))
        .cloned()
        .ok_or("it was not parked")?;
    let mut now = State::of_this_thread(before.frame);
    if NEW_IDS.load(Ordering::SeqCst) != 0 {
        now.tid = before.tid;
    }
    // The handler ran with its own signal blocked.
    let freeze = 1u64 << (libc::SIGRTMIN() + 4 - 1);
    if before.mask != now.mask | freeze {
        return Err(format!("mask {:x} instead of {:x}", now.mask, before.mask));
    }
    now.mask = before.mask;
    if now != before {
        return Err(format!("{now:x?} instead of {before:x?}"));
    }
    match OWN.get() == number && now.rseq_is_registered() {
        true => Ok(()),
        false => Err("thread-local storage or rseq".to_owned()),
    }
}

extern "C" fn parked(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    let state = State::of_this_thread(context as u64);
    PARKED.lock().expect("nobody panics").push(state);
    loop {
        // SAFETY: only waits.
        unsafe { libc::pause() };
    }
}

static NEW_IDS: AtomicU32 = AtomicU32::new(0);

/// In a child, by its first thread: opens the gate, and says how the others fared.
pub(crate) fn check(threads: Vec<JoinHandle<Result<(), String>>>, new_ids: bool) -> String {
    NEW_IDS.store(new_ids.into(), Ordering::SeqCst);
    let standing = std::fs::read_dir("/proc/self/task").expect("/proc").count() - 1;
    let early = RUNNING.load(Ordering::SeqCst);
    release();
    let outcomes = threads.into_iter().map(|thread| thread.join().expect("it does not panic"));
    let wrong: Vec<String> = outcomes.filter_map(Result::err).collect();
    format!("standing {standing} early {early} wrong {wrong:?} pid {}", std::process::id())
}

/// Lets the threads go on.
pub(crate) fn release() {
    GATE.store(1, Ordering::SeqCst);
    let wake = libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG;
    // SAFETY: a futex of our own.
    unsafe { libc::syscall(libc::SYS_futex, GATE.as_ptr(), wake, i32::MAX) };
}

/// Tells what the stand-in's report has no records for: the gate, and each thread in a line.
pub(crate) fn tell(directory: &Path) {
    let mut text = format!("{}\n", GATE.as_ptr() as u64);
    for state in PARKED.lock().expect("nobody panics").iter() {
        let (area, len) = state.rseq.unwrap_or((0, 0));
        let plain = [state.tid, state.frame, state.tid_address, state.fs_base, area, len];
        let numbers = plain.iter().chain(&state.robust).chain(&state.alt_stack).chain(&state.sched);
        let numbers: Vec<String> = numbers.map(u64::to_string).collect();
        text += &format!("{} {}\n", state.name, numbers.join(" "));
    }
    std::fs::write(directory.join("threads"), text).expect("writable");
}

/// Puts what [`tell`] told into a report; answers the rest.
pub(crate) fn add(directory: &Path, report: &mut Report) -> Option<Whole> {
    let text = std::fs::read_to_string(directory.join("threads")).ok()?;
    let mut lines = text.lines();
    let gate = SeedAddr(lines.next()?.parse().ok()?);
    let mut whole = Whole { gate, sched: vec![Sched::default()] };
    for line in lines {
        let (name, numbers) = line.split_once(' ')?;
        let n: Vec<u64> = numbers.split(' ').map(|n| n.parse().expect("a number")).collect();
        let narrow = |number: u64| u32::try_from(number).expect("it fits");
        let rseq = Rseq { addr: SeedAddr(n[4]), len: narrow(n[5]), signature: 0x5305_3053 };
        report.threads.push(Thread {
            tid: narrow(n[0]),
            frame: SeedAddr(n[1]),
            tid_address: SeedAddr(n[2]),
            fs_base: n[3],
            gs_base: 0,
            rseq: (n[4] != 0).then_some(rseq),
            robust_list: (SeedAddr(n[6]), n[7]),
            alt_stack: (SeedAddr(n[8]), narrow(n[9]), n[10]),
            name: name.as_bytes().to_vec(),
        });
        let nice = narrow(n[12]).cast_signed();
        whole.sched.push(Sched { policy: narrow(n[11]), nice, priority: narrow(n[13]), flags: 0 });
    }
    Some(whole)
}
