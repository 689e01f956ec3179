//! What others do with the memory: forked processes, the kernel, a tracer.

use std::ffi::CString;
use std::os::unix::ffi::OsStringExt;
use std::process::exit;

use mitosis_process_suite::PAGE;

use crate::calls::{outcome, writable};
use crate::slots::{Slot, Slots};

/// The argument of this program that is only executed, and what it ends with.
pub const EXECUTED: &str = "exec'd";
pub const IS_EXECUTED: i32 = 7;

/// A forked process becomes this program again.
pub fn execute() -> i64 {
    let own = std::env::args_os().next().unwrap_or_default();
    let (Ok(own), Ok(word)) = (CString::new(own.into_vec()), CString::new(EXECUTED)) else {
        return -1;
    };
    let arguments = [own.as_ptr(), word.as_ptr(), std::ptr::null()];
    let mut status = 0;
    // SAFETY: this program has one thread; the arguments end with a null.
    unsafe {
        let pid = libc::fork();
        if pid == 0 {
            libc::execv(own.as_ptr(), arguments.as_ptr());
            exit(1);
        }
        libc::waitpid(pid, &raw mut status, 0);
    }
    i64::from(libc::WEXITSTATUS(status) == IS_EXECUTED)
}

/// A plain fork: its child sees the same bytes. What it writes is its own, but in shared memory.
pub fn fork(slots: &Slots, index: usize, value: u64) -> i64 {
    let before = slots.digest();
    let slot = slots.all[index];
    // SAFETY: this program has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // Memory that is kept from forks is not there.
        let rest = slots.all.iter().filter(|slot| slot.is_mapped && !is_kept_back(slot));
        let seen = rest.fold(0u64, |sum, slot| sum.rotate_left(7) ^ first_word(slot));
        if !is_kept_back(&slot) {
            // SAFETY: made writable.
            writable(&slot, || unsafe {
                (slot.start as *mut u64).add(1).write_volatile(value);
                0
            });
        }
        exit((seen & 0x7f) as i32);
    }
    let mut status = 0;
    // SAFETY: our own child.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    let is_same = before == slots.digest();
    // What is written to shared memory may be what was there.
    i64::from(status) * 2 + i64::from(is_same || slot.kind.is_shared())
}

fn is_kept_back(slot: &Slot) -> bool {
    use crate::slots::Kind;
    matches!(slot.kind, Kind::Unforked | Kind::Wiped | Kind::Droppable)
}

fn first_word(slot: &Slot) -> u64 {
    slot.protect(libc::PROT_READ);
    // SAFETY: readable.
    let word = unsafe { (slot.start as *const u64).read_volatile() };
    slot.protect(slot.kind.rights());
    word
}

/// Whether the kernel can read a byte there, or the number of its error.
pub fn kernel_takes(at: usize) -> i32 {
    let (mut ends, mut result) = ([0; 2], 0);
    // SAFETY: a pipe of this function's own; the kernel checks the address.
    unsafe {
        libc::pipe(ends.as_mut_ptr());
        if libc::write(ends[1], at as *const _, 1) != 1 {
            result = outcome(-1) as i32;
        }
        libc::close(ends[0]);
        libc::close(ends[1]);
    }
    result
}

/// read(2) into it, write(2) out of it, process_vm_readv(2) and /proc/self/mem, whatever its rights are.
pub fn by_the_kernel(slot: &Slot, (at, len): (usize, usize), value: u64) -> i64 {
    use std::os::unix::fs::FileExt;
    let place = at + len - PAGE + 64;
    let mut word = [0u8; 8];
    let local = libc::iovec { iov_base: word.as_mut_ptr().cast(), iov_len: 8 };
    let remote = libc::iovec { iov_base: place as *mut _, iov_len: 8 };
    // SAFETY: the kernel checks the remote side, and writes 8 bytes here.
    let got = unsafe {
        libc::process_vm_readv(libc::getpid(), &raw const local, 1, &raw const remote, 1, 0)
    };
    let open = std::fs::File::options().read(true).write(true).open("/proc/self/mem");
    let Ok(memory) = open else { return -1 };
    // Of shared memory without the right to write it there is an error, of private memory a copy.
    let written = match slot.kind.is_shared() && slot.kind.rights() & libc::PROT_WRITE == 0 {
        true => 0,
        false => memory.write_at(&value.to_le_bytes(), place as u64).map_or(-1, |len| len as i64),
    };
    let mut back = [0u8; 8];
    let read = memory.read_at(&mut back, place as u64).map_or(-1, |len| len as i64);
    let is_back = u64::from_le_bytes(back) == value;
    let sum = i64::from(u64::from_le_bytes(word) as u32 & 0xffff);
    ((got as i64 * 100 + written * 10 + read) * 10 + i64::from(is_back)) * 65536 + sum
}

/// A forked process is traced: its memory is read and written from outside, and it ends by what it finds.
pub fn trace(slots: &Slots, index: usize, (at, _): (usize, usize), value: u64) -> i64 {
    let slot = slots.all[index];
    if is_kept_back(&slot) {
        return 0;
    }
    // SAFETY: this program has one thread; the child stops at once.
    unsafe {
        let pid = libc::fork();
        let none = std::ptr::null_mut::<libc::c_void>();
        if pid == 0 {
            libc::ptrace(libc::PTRACE_TRACEME, 0, none, none);
            libc::raise(libc::SIGSTOP);
            slot.protect(libc::PROT_READ);
            let found = (at as *const u64).read_volatile();
            exit(i32::from(found == value));
        }
        let mut status = 0;
        libc::waitpid(pid, &raw mut status, libc::WUNTRACED);
        let seen = libc::ptrace(libc::PTRACE_PEEKDATA, pid, at as *mut libc::c_void, none);
        let poked = libc::ptrace(
            libc::PTRACE_POKEDATA,
            pid,
            at as *mut libc::c_void,
            value as *mut libc::c_void,
        );
        libc::ptrace(libc::PTRACE_CONT, pid, none, none);
        libc::waitpid(pid, &raw mut status, 0);
        (seen & 0xffff) * 1_000_000 + poked * 100_000 + i64::from(status)
    }
}

/// The heap and the stack grow by pages of zeros, and shrink.
pub fn heap_and_stack(value: u64) -> i64 {
    let depth = (value % 100) as u32;
    // SAFETY: the heap is given back as it was; malloc leaves a heap alone that others extend.
    unsafe {
        let old = libc::sbrk(0) as usize;
        let first = old.next_multiple_of(PAGE);
        let pages = 1 + (value >> 8) as usize % 60;
        if libc::brk((first + pages * PAGE) as *mut _) != 0 {
            return outcome(-1);
        }
        let zeros = (0..pages).all(|page| {
            let at = (first + page * PAGE) as *mut u64;
            let is_zero = at.read_volatile() == 0;
            at.write_volatile(value);
            is_zero
        });
        libc::brk(old as *mut _);
        i64::from(zeros) + (descend(depth, value) as i64) * 2
    }
}

/// By frames that hold what is written and nothing else.
#[inline(never)]
fn descend(frames: u32, value: u64) -> u64 {
    let mut frame = [value; 1024];
    std::hint::black_box(&mut frame);
    let below = if frames == 0 { 0 } else { descend(frames - 1, value.wrapping_add(1)) };
    frame.iter().fold(below, |sum, word| sum.wrapping_mul(31).wrapping_add(*word)) & 0xffff
}
