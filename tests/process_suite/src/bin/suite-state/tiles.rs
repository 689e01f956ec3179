//! AMX: a thread that stands with numbers in a tile and in a vector register. Where the CPU has no tiles there is nothing
//! to see.

use std::arch::asm;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::thread::JoinHandle;

const ARCH_REQ_XCOMP_PERM: i32 = 0x1023;
const TILE_DATA: u64 = 18;

/// The thread, which looks at its tile when it is told to.
pub(crate) struct Holder {
    go: Arc<AtomicU32>,
    thread: JoinHandle<bool>,
}

#[repr(C, align(64))]
struct Bytes([u8; 64]);

impl Holder {
    /// Does something else first. `None` where this process may not use tiles.
    pub(crate) fn start(first: impl FnOnce() + Send + 'static) -> Option<Holder> {
        // SAFETY: takes numbers.
        let allowed =
            unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, TILE_DATA) };
        if allowed != 0 {
            return None;
        }
        let go = Arc::new(AtomicU32::new(0));
        let told = Arc::clone(&go);
        let thread = std::thread::spawn(move || {
            first();
            holds(&told)
        });
        while go.load(SeqCst) != 1 {
            std::thread::yield_now();
        }
        Some(Holder { go, thread })
    }

    /// What is wrong with the tile.
    pub(crate) fn look(self) -> Option<String> {
        self.go.store(2, SeqCst);
        let is_right = self.thread.join().unwrap_or(false);
        (!is_right)
            .then(|| "an AMX tile, or a vector register beside it, is not what it was".to_owned())
    }
}

/// Says 1 when its registers are full, and looks at them when it reads 2.
fn holds(word: &AtomicU32) -> bool {
    let mut shape = Bytes([0; 64]);
    (shape.0[0], shape.0[16], shape.0[48]) = (1, 64, 1);
    let from = Bytes(std::array::from_fn(|at| u8::try_from(at).unwrap_or(0)));
    let (mut tile, mut vector) = (Bytes([0; 64]), Bytes([0; 64]));
    // SAFETY: the process has permission; one tile of one row of 64 bytes is loaded and stored, from and to memory of
    // that size. By their bytes: ldtilecfg [rax], tileloadd tmm0 [rcx + rdx], tilestored [rsi + rdx] tmm0, tilerelease.
    unsafe {
        asm!(
            ".byte 0xc4, 0xe2, 0x78, 0x49, 0x00",
            ".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x04, 0x11",
            "vmovdqu ymm9, [rcx]",
            "mov dword ptr [rdi], 1",
            "2:",
            "pause",
            "cmp dword ptr [rdi], 2",
            "jne 2b",
            ".byte 0xc4, 0xe2, 0x7a, 0x4b, 0x04, 0x16",
            "vmovdqu [r8], ymm9",
            ".byte 0xc4, 0xe2, 0x78, 0x49, 0xc0",
            in("rax") &raw const shape,
            in("rcx") &raw const from,
            in("rdx") 64u64,
            in("rsi") &raw mut tile,
            in("rdi") word.as_ptr(),
            in("r8") &raw mut vector,
            out("xmm9") _,
        );
    }
    tile.0 == from.0 && vector.0[..32] == from.0[..32]
}
