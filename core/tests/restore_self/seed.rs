//! The seed stand-in: what libmitosis does at prepare, in its simplest form. The same code runs on in each
//! child, from the signal's return on.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use mitosis::prepare::report::{ReportWriter, tag};
use mitosis::prepare::{RESUME_MAGIC, ROLE_CHILD, ROLE_NONE, ResumeInfo};

use super::threads;

static mut INFO: ResumeInfo = ResumeInfo {
    magic: RESUME_MAGIC,
    role: ROLE_NONE,
    index: 0,
    generation: 0,
    seed: 0,
    child: 0,
    payload: (0, 0),
    environment: (0, 0),
    clock_delta_ns: 0,
};
static FRAME: AtomicU64 = AtomicU64::new(0);
static DIRECTORY: std::sync::OnceLock<std::path::PathBuf> = std::sync::OnceLock::new();

pub(crate) const PR_GET_TID_ADDRESS: i32 = 40;
pub(crate) const ARCH_GET_FS: i32 = 0x1003;

pub(crate) fn run(directory: &Path, is_whole: bool) -> ! {
    DIRECTORY.set(directory.to_owned()).expect("once");
    let numbers: Vec<u64> = (0..1 << 17).map(|i| i * i).collect();
    // SAFETY: grows the heap by a page so that brk has something to go on from.
    let end = unsafe { libc::sbrk(8192) } as u64 + 8192;
    let memory = Memory::new();
    // SAFETY: no memory is passed.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
    let others = if is_whole { threads::start() } else { Vec::new() };
    if is_whole {
        threads::tell(directory);
    }
    park();
    // From here on this is a child.
    // SAFETY: written before this process ran.
    let info = unsafe { (&raw const INFO).read_volatile() };
    assert_eq!((info.magic, info.role), (RESUME_MAGIC, ROLE_CHILD));
    // SAFETY: the restorer left the payload there.
    let payload = unsafe {
        std::slice::from_raw_parts(
            info.payload.0 as *const u8,
            usize::try_from(info.payload.1).unwrap_or(0),
        )
    };
    let payload = String::from_utf8_lossy(payload).into_owned();
    match payload.as_str() {
        "wait" => loop {
            std::thread::sleep(std::time::Duration::from_secs(1));
        },
        "memory" => {
            println!("{} exe {}", memory.check(), if exe_is_ours() { "ok" } else { "wrong" });
            std::process::exit(0)
        }
        "threads" | "renumbered" => {
            println!("{}", threads::check(others, payload == "renumbered"));
            std::process::exit(7)
        }
        "crash" => {
            threads::release();
            // SAFETY: it is not, on purpose.
            unsafe { std::ptr::null_mut::<u64>().write_volatile(1) };
        }
        "orphan" => orphan(),
        "clock" => {
            println!("clock {}", super::world::monotonic().as_nanos());
            std::process::exit(0)
        }
        "delta" => {
            println!("clock {} {}", super::world::monotonic().as_nanos(), info.clock_delta_ns);
            std::process::exit(0)
        }
        _ => {}
    }
    let sum: u64 = numbers.iter().sum();
    let wanted: u64 = (0..1 << 17).map(|i: u64| i * i).sum();
    let command_line = fs::read("/proc/self/cmdline").expect("readable");
    let environment = fs::read("/proc/self/environ").expect("readable");
    let argument = command_line.split(|byte| *byte == 0).nth(1).unwrap_or_default();
    // SAFETY: only asks.
    let now = unsafe { libc::sbrk(0) } as u64;
    // SAFETY: the heap only grows; nothing is taken away.
    let went_on = unsafe { libc::sbrk(4096) } as u64;
    println!(
        "child {} generation {} payload {} sum {} argv {} env {} brk {}",
        info.index,
        info.generation,
        payload,
        if sum == wanted { "ok" } else { "wrong" },
        String::from_utf8_lossy(argument),
        String::from_utf8_lossy(environment.split(|byte| *byte == 0).next().unwrap_or_default()),
        if now == end && went_on == end { "ok" } else { "wrong" },
    );
    std::thread::spawn(|| ()).join().expect("threads work");
    std::process::exit(42)
}

/// Ends while a process that it has forked goes on, whose own child has ended before: both are the init's then.
fn orphan() -> ! {
    let (mut reader, writer) = std::io::pipe().expect("a pipe");
    // SAFETY: the copies use raw calls and pipes alone.
    unsafe {
        if libc::fork() == 0 {
            if libc::fork() == 0 {
                libc::_exit(0);
            }
            drop(writer);
            let _ = std::io::Read::read(&mut reader, &mut [0u8]);
            // Files are closed a moment before the process is gone.
            while libc::getppid() != 1 {
                libc::usleep(1000);
            }
            println!("outlived {}", libc::getppid());
            libc::_exit(0);
        }
        println!("parent {}", libc::getppid());
        // The other one reads the pipe's end when this process is gone.
        libc::_exit(0);
    }
}

fn exe_is_ours() -> bool {
    let exe = fs::read_link("/proc/self/exe").expect("readable");
    exe.to_string_lossy().contains("restore_self")
}

/// Mappings of each kind, with a number at the beginning of each.
struct Memory {
    wiped: *mut u64,
    dontfork: *mut u64,
    shared: *mut u64,
    sparse: *mut u64,
    hidden: *mut u64,
}

/// Bytes of each.
const LEN: usize = 1 << 20;

impl Memory {
    fn new() -> Memory {
        let map = |flags: i32, number: u64| {
            let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, flags | libc::MAP_ANONYMOUS);
            // SAFETY: fresh memory, to whose first word we write.
            unsafe {
                let at = libc::mmap(std::ptr::null_mut(), LEN, access, flags, -1, 0).cast::<u64>();
                at.write(number);
                // Something between, so that the kernel does not merge them.
                let guard = libc::PROT_NONE;
                let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
                libc::mmap(std::ptr::null_mut(), 4096, guard, flags, -1, 0);
                at
            }
        };
        let private = libc::MAP_PRIVATE;
        let memory = Memory {
            wiped: map(private, 1),
            dontfork: map(private, 2),
            shared: map(libc::MAP_SHARED, 3),
            sparse: map(private | libc::MAP_NORESERVE, 4),
            hidden: map(private, 5),
        };
        // SAFETY: our own mappings; the word in the middle of the sparse one is ours, too.
        unsafe {
            libc::madvise(memory.wiped.cast(), LEN, libc::MADV_WIPEONFORK);
            libc::madvise(memory.dontfork.cast(), LEN, libc::MADV_DONTFORK);
            memory.sparse.byte_add(LEN / 2).write(4);
            libc::mprotect(memory.hidden.cast(), LEN, libc::PROT_NONE);
        }
        memory
    }

    /// What a child finds; it then writes to all of it.
    fn check(&self) -> String {
        // SAFETY: the mappings of `new`, restored.
        unsafe {
            libc::mprotect(self.hidden.cast(), LEN, libc::PROT_READ | libc::PROT_WRITE);
            let all = [self.wiped, self.dontfork, self.shared, self.sparse, self.hidden];
            let [wiped, dontfork, shared, sparse, hidden] = all.map(|at| at.read());
            assert_eq!(self.sparse.byte_add(LEN / 2).read(), sparse);
            assert_eq!(self.sparse.byte_add(LEN / 4).read(), 0);
            all.iter().for_each(|at| at.write(77));
            let grown = if grow_stack(64) == 64 { "ok" } else { "wrong" };
            format!(
                "wiped {wiped} dontfork {dontfork} shared {shared} sparse {sparse} hidden {hidden} grown {grown}"
            )
        }
    }
}

/// Uses 64 KiB of stack a level.
#[inline(never)]
fn grow_stack(levels: u64) -> u64 {
    let mut room = [0u8; 64 << 10];
    std::hint::black_box(&mut room);
    if levels == 0 { 0 } else { 1 + grow_stack(levels - 1) + u64::from(room[0]) }
}

/// Raises a real-time signal; returns in children alone.
fn park() {
    // SAFETY: the action's fields are set; the handler below has the signature that SA_SIGINFO wants.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = parked as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigaction(libc::SIGRTMIN() + 3, &raw const action, std::ptr::null_mut());
        libc::raise(libc::SIGRTMIN() + 3);
    }
}

extern "C" fn parked(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    FRAME.store(context as u64, Ordering::SeqCst);
    let mut buffer = vec![0u8; 1 << 16];
    let mut writer = ReportWriter::new(&mut buffer);
    describe(&mut writer);
    let len = writer.finish().expect("it fits");
    let directory = DIRECTORY.get().expect("set");
    fs::write(directory.join("part"), &buffer[..len]).expect("writable");
    // Nothing of this process changes after the report is seen.
    let (from, to) = (path(directory, "part"), path(directory, "report"));
    // SAFETY: C strings; pause only waits.
    unsafe {
        libc::rename(from.as_ptr(), to.as_ptr());
        loop {
            libc::pause();
        }
    }
}

fn path(directory: &Path, name: &str) -> std::ffi::CString {
    std::ffi::CString::new(directory.join(name).to_str().expect("text")).expect("no NUL")
}

fn describe(writer: &mut ReportWriter<'_>) {
    let (mut fs_base, mut tid_address, mut robust, mut robust_len) = (0u64, 0u64, 0u64, 0u64);
    // SAFETY: each call writes one word into a local.
    unsafe {
        libc::syscall(libc::SYS_arch_prctl, ARCH_GET_FS, &raw mut fs_base);
        libc::prctl(PR_GET_TID_ADDRESS, &raw mut tid_address);
        libc::syscall(libc::SYS_get_robust_list, 0, &raw mut robust, &raw mut robust_len);
    }
    let rseq = rseq_area(fs_base);
    let tid = u64::from(std::process::id());
    let frame = FRAME.load(Ordering::SeqCst);
    let (area, len) = rseq.unwrap_or((0, 0));
    let thread = [
        tid,
        tid_address,
        frame,
        fs_base,
        0,
        robust,
        robust_len,
        area,
        len,
        0x5305_3053,
        0,
        2,
        0,
        0,
    ];
    writer.record(tag::THREAD, &thread, b"warm");
    let stat = fs::read_to_string("/proc/self/stat").expect("readable");
    let fields: Vec<u64> = stat
        .rsplit_once(") ")
        .expect("a stat line")
        .1
        .split(' ')
        .map(|field| field.trim().parse().unwrap_or(0))
        .collect();
    let field = |number: usize| fields[number - 3];
    // SAFETY: only asks.
    let brk = unsafe { libc::sbrk(0) } as u64;
    let layout = [
        field(26),
        field(27),
        field(45),
        field(46),
        field(47),
        brk,
        field(28),
        field(48),
        field(49),
        field(50),
        field(51),
    ];
    writer.record(tag::LAYOUT, &layout, &[]);
    writer.record(tag::AUXV, &[], &fs::read("/proc/self/auxv").expect("readable"));
    let mut actions = vec![0u64; 64 * 4];
    for (signal, action) in (1i32..).zip(actions.chunks_exact_mut(4)) {
        let none = std::ptr::null::<u64>();
        // SAFETY: a kernel sigaction is four words.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, none, action.as_mut_ptr(), 8) };
    }
    let actions: Vec<u64> =
        actions.chunks_exact(4).flat_map(|a| [a[0], a[1], a[2], a[3]]).collect();
    writer.record(tag::SIGNAL_ACTIONS, &actions, &[]);
    writer.record(tag::CWD, &[], b"/tmp");
    let exe = fs::read_link("/proc/self/exe").expect("readable");
    writer.record(tag::EXE, &[], exe.as_os_str().as_encoded_bytes());
    writer.record(tag::SCALARS, &[tid, 0o22, 0, 0], &[]);
    // SAFETY: only the address is taken.
    writer.record(tag::RESUME_AREA, &[(&raw const INFO) as u64], &[]);
}

/// The area that libc has registered, if it has.
pub(crate) fn rseq_area(fs_base: u64) -> Option<(u64, u64)> {
    // SAFETY: dlsym only looks up; both symbols are words where they exist.
    unsafe {
        let word = |name: &std::ffi::CStr| {
            let at = libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()).cast::<i64>();
            if at.is_null() { None } else { Some(at.read()) }
        };
        let size = libc::dlsym(libc::RTLD_DEFAULT, c"__rseq_size".as_ptr()).cast::<u32>();
        let offset = word(c"__rseq_offset")?;
        if size.is_null() || size.read() == 0 {
            return None;
        }
        Some((fs_base.wrapping_add_signed(offset), 32))
    }
}
