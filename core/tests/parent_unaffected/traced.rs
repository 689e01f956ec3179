//! Seeds seen from outside, with ptrace(2): needs root, or the right to trace.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::mem::zeroed;
use std::os::unix::fs::FileExt;
use std::process::Child;
use std::ptr::null_mut;
use std::time::{Duration, Instant};

use mitosis::descriptor::SeedRange;
use mitosis::prepare::{RESUME_MAGIC, ROLE_CHILD, ROLE_REHEARSAL, ResumeInfo};

use super::agent::Agent;

const FREEZE_SIGNAL: i32 = 60;

fn trace(request: libc::c_uint, pid: i32, data: usize) {
    // SAFETY: the requests made here take numbers or pointers to live structs.
    let answer = unsafe { libc::ptrace(request, pid, null_mut::<libc::c_void>(), data) };
    assert_eq!(answer, 0, "ptrace({request}): {}", std::io::Error::last_os_error());
}

fn stopped(pid: i32) -> (i32, i32) {
    let mut status = 0;
    // SAFETY: a live place.
    let pid = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
    assert!(pid > 0 && libc::WIFSTOPPED(status), "{pid} {status:x}");
    (pid, libc::WSTOPSIG(status))
}

fn go(process: &mut Child) {
    process.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
}

fn seed_pid(process: &mut Child) -> i32 {
    let mut line = String::new();
    BufReader::new(process.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    line.trim().parse().unwrap_or_else(|_| panic!("no seed: '{line}'"))
}

/// Memory that is written only by its process.
fn private_writable(pid: i32, mem: &File) -> BTreeMap<u64, Vec<u8>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut found = BTreeMap::new();
    for line in maps.lines() {
        let (range, rest) = line.split_once(' ').unwrap();
        if !rest.starts_with("rw-p") && !rest.starts_with("rwxp") {
            continue;
        }
        let (start, end) = range.split_once('-').unwrap();
        let hex = |text| u64::from_str_radix(text, 16).unwrap();
        let mut bytes = vec![0; usize::try_from(hex(end) - hex(start)).unwrap()];
        mem.read_exact_at(&mut bytes, hex(start)).unwrap();
        found.insert(hex(start), bytes);
    }
    found
}

/// The seed's memory when its frame has just been written equals what the agent reads later.
pub(crate) fn witness(agent: &Agent, process: &mut Child) {
    let parent = i32::try_from(process.id()).unwrap();
    trace(libc::PTRACE_ATTACH, parent, 0);
    stopped(parent);
    let options = libc::PTRACE_O_TRACEFORK | libc::PTRACE_O_TRACECLONE;
    trace(libc::PTRACE_SETOPTIONS, parent, usize::try_from(options).unwrap());
    trace(libc::PTRACE_CONT, parent, 0);
    go(process);
    let seed = loop {
        let (pid, signal) = stopped(-1);
        if signal == FREEZE_SIGNAL {
            trace(libc::PTRACE_SINGLESTEP, pid, usize::try_from(signal).unwrap());
            stopped(pid);
            break pid;
        }
        let ours = matches!(signal, libc::SIGSTOP | libc::SIGTRAP);
        let deliver = if ours { 0 } else { usize::try_from(signal).unwrap() };
        trace(libc::PTRACE_CONT, pid, deliver);
    };
    let mem = File::open(format!("/proc/{seed}/mem")).unwrap();
    let mut before = private_writable(seed, &mem);
    trace(libc::PTRACE_DETACH, seed, 0);
    // The parent may be stopped by its own events meanwhile.
    detach(parent);
    assert_eq!(seed_pid(process), seed);
    agent.with_seed(0, |taken| {
        let scratch: Vec<SeedRange> = taken.report.not_carried.clone();
        before.retain(|start, bytes| {
            let range = SeedRange::new(*start, start + bytes.len() as u64);
            scratch.iter().all(|hole| range.intersect(*hole).is_empty())
        });
        let total: usize = before.values().map(Vec::len).sum();
        assert!(total > 64 * 4096, "only {total} bytes were compared");
        for (start, old) in &before {
            let mut now = vec![0; old.len()];
            taken.mem.read_exact_at(&mut now, *start).unwrap();
            let differs = (0..old.len()).find(|i| old[*i] != now[*i]);
            assert_eq!(differs, None, "in the memory at {start:#x}");
        }
    });
    go(process);
}

fn detach(pid: i32) {
    // SAFETY: plain requests.
    unsafe {
        libc::kill(pid, libc::SIGSTOP);
        loop {
            let (_, signal) = stopped(pid);
            if signal == libc::SIGSTOP {
                break;
            }
            let deliver = if signal == libc::SIGTRAP { 0 } else { signal };
            trace(libc::PTRACE_CONT, pid, usize::try_from(deliver).unwrap());
        }
        trace(libc::PTRACE_DETACH, pid, 0);
        libc::kill(pid, libc::SIGCONT);
    }
}

/// Does to the seed itself what a restore does to a copy of it: mail, `ResumeInfo`, rt_sigreturn.
pub(crate) fn resume_in_place(agent: &Agent, process: &mut Child) {
    let seed = wake(agent, process, ROLE_CHILD);
    let told = agent.socket().with_extension("sock.child");
    let deadline = Instant::now() + Duration::from_secs(10);
    while fs::read(&told).unwrap_or_default() != b"fine" {
        assert!(Instant::now() < deadline, "the child did not come through");
        assert!(fs::metadata(format!("/proc/{seed}")).is_ok(), "the child ended early");
        std::thread::sleep(Duration::from_millis(2));
    }
    go(process);
}

/// The same for a rehearsal: it ends by itself, having done nothing.
pub(crate) fn rehearse_in_place(agent: &Agent, process: &mut Child) {
    let seed = wake(agent, process, ROLE_REHEARSAL);
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let stat = fs::read_to_string(format!("/proc/{seed}/stat")).unwrap();
        if stat.contains(") Z ") {
            // Its exit status is the last field.
            assert!(stat.trim_end().ends_with(" 0"), "{stat}");
            break;
        }
        assert!(Instant::now() < deadline, "the rehearsal did not end");
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(!agent.socket().with_extension("sock.child").exists());
    go(process);
}

fn wake(agent: &Agent, process: &mut Child, role: u32) -> i32 {
    let seed = seed_pid(process);
    let (frame, area, scratch) = agent.with_seed(0, |taken| {
        let thread = &taken.report.threads[0];
        (thread.frame.0, taken.report.resume_area.addr.0, taken.report.not_carried[0])
    });
    trace(libc::PTRACE_ATTACH, seed, 0);
    stopped(seed);
    let mem = File::options().write(true).open(format!("/proc/{seed}/mem")).unwrap();
    // Behind the first guard: where its report lay.
    let mail = scratch.start.0 + (128 << 10);
    let payload = b"for you";
    let environment = b"MITOSIS_TEST_SET=x=y\0MITOSIS_TEST_GONE\0";
    mem.write_all_at(payload, mail).unwrap();
    mem.write_all_at(environment, mail + 4096).unwrap();
    let info = ResumeInfo {
        magic: RESUME_MAGIC,
        role,
        index: 5,
        generation: 3,
        seed: 7,
        child: 8,
        payload: (mail, payload.len() as u64),
        environment: (mail + 4096, environment.len() as u64),
        clock_delta_ns: 0,
    };
    // SAFETY: plain data without padding that matters.
    let raw = unsafe {
        std::slice::from_raw_parts((&raw const info).cast::<u8>(), size_of::<ResumeInfo>())
    };
    mem.write_all_at(raw, area).unwrap();
    // SAFETY: plain data; filled by the kernel.
    let mut registers: libc::user_regs_struct = unsafe { zeroed() };
    trace(libc::PTRACE_GETREGS, seed, (&raw mut registers) as usize);
    // It sleeps in read(2): its own syscall instruction is right before.
    registers.rip -= 2;
    registers.rax = u64::try_from(libc::SYS_rt_sigreturn).unwrap();
    registers.orig_rax = u64::MAX;
    registers.rsp = frame;
    trace(libc::PTRACE_SETREGS, seed, (&raw mut registers) as usize);
    trace(libc::PTRACE_DETACH, seed, 0);
    seed
}
