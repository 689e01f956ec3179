//! What the two processes do, and how it is drawn.

use libc::c_int;

use crate::stand_in::PAGE;

/// Pages of each window; memory of other places is not compared.
pub(crate) const WINDOW_PAGES: [u64; 2] = [160, 64];
/// Pages of each window that a process begins with.
pub(crate) const FIRST_PAGES: [(u64, u64); 2] = [(16, 96), (0, 24)];
/// The window above the break.
pub(crate) const HEAP: usize = 1;

/// An address, as both processes have it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) window: usize,
    pub(crate) offset: u64,
}

/// One call. Those that libc has a function for go through it; `by_number` through `syscall(3)`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Op {
    Advise {
        at: Place,
        len: u64,
        advice: c_int,
        by_number: bool,
    },
    Remap {
        at: Place,
        len: u64,
        new_len: u64,
        flags: c_int,
        to: Place,
        by_number: bool,
    },
    Protect {
        at: Place,
        len: u64,
        prot: c_int,
    },
    Unmap {
        at: Place,
        len: u64,
    },
    Map {
        at: Place,
        len: u64,
    },
    Lock {
        at: Place,
        len: u64,
        lock: bool,
    },
    Write {
        at: Place,
        len: u64,
        byte: u8,
    },
    /// Sets the break so many pages above the heap window's start.
    Break {
        pages: u64,
    },
    /// Uses that much more stack.
    Deepen {
        len: usize,
    },
    /// The process's child goes on in its place.
    Fork,
    /// A child discards the range and is gone.
    ForkAside {
        at: Place,
        len: u64,
    },
    End,
}

/// xorshift64*.
#[derive(Debug)]
pub(crate) struct Draw {
    state: u64,
    /// Locks memory; else moves it with MREMAP_DONTUNMAP. Not both: that flag takes the lock of all of the
    /// old VMA, also of what does not move, and which pages of a child were one VMA cannot be known.
    locks: bool,
}

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        let state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut draw = Draw { state, locks: seed % 4 < 2 };
        (0..8).for_each(|_| _ = draw.next());
        draw
    }

    fn next(&mut self) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize]
    }

    pub(crate) fn op(&mut self) -> Op {
        let (at, len) = self.range();
        match self.below(100) {
            0..42 => self.advise(at, len),
            42..64 => self.remap(at, len),
            64..73 => Op::Protect { at, len: tame(len), prot: self.of(&[0, 1, 3, 3, 3, 2, 5]) },
            73..76 => Op::Unmap { at, len: tame(len).min(8 * PAGE) },
            76..86 => {
                let (offset, len) = (at.offset + self.below(PAGE), 1 + self.below(9000));
                let byte = self.below(256) as u8;
                Op::Write { at: Place { offset, ..at }, len, byte }
            }
            86..88 => {
                let lock = self.locks && self.one_in(3);
                Op::Lock { at, len: tame(len).min(if lock { 4 } else { 60 } * PAGE), lock }
            }
            88..92 => Op::Map { at: aligned(at), len: tame(len).max(PAGE) },
            92..96 => Op::Break { pages: self.below(WINDOW_PAGES[HEAP] - 8) },
            96 => Op::Deepen { len: 4096 * (1 + self.below(48)) as usize },
            97 => Op::Fork,
            _ => Op::ForkAside { at: aligned(at), len: tame(len) },
        }
    }

    /// Mostly whole pages inside a window.
    fn range(&mut self) -> (Place, u64) {
        let window = usize::from(self.one_in(4));
        let (first, count) = FIRST_PAGES[window];
        let page = (first + self.below(count + 16)).saturating_sub(8);
        let most = if self.one_in(4) { 60 } else { 12 };
        let pages = (1 + self.below(most)).min(WINDOW_PAGES[window] - 4 - page);
        let (mut offset, mut len) = (page * PAGE, pages * PAGE);
        if self.one_in(40) {
            offset += 7;
        }
        if self.one_in(10) {
            len -= self.below(PAGE);
        }
        if self.one_in(80) {
            len = 0;
        }
        if self.one_in(200) {
            len = (2 * PAGE).wrapping_neg() + self.below(2) * 4000;
        }
        (Place { window, offset }, len)
    }

    fn advise(&mut self, at: Place, len: u64) -> Op {
        const OURS: [c_int; 8] = [4, 4, 4, 8, 8, 9, 18, 24];
        const OTHERS: [c_int; 18] =
            [19, 102, 102, 103, 10, 11, 14, 15, 16, 20, 21, 22, 23, 0, 1, 3, 12, 999];
        let advice = if self.one_in(3) { self.of(&OTHERS) } else { self.of(&OURS) };
        Op::Advise { at, len, advice, by_number: self.one_in(3) }
    }

    fn remap(&mut self, at: Place, len: u64) -> Op {
        let mut flags = self.of(&[0, 1, 1, 1, 3, 3, 3, 5, 7, 2, 4, 9]);
        if self.locks && flags & libc::MREMAP_DONTUNMAP != 0 {
            flags = 3;
        }
        let len = tame(len).min(60 * PAGE);
        let mut new_len = (1 + self.below(40)) * PAGE;
        if self.one_in(3) || (flags & 4 != 0 && self.one_in(2)) {
            new_len = len;
        }
        if self.one_in(60) {
            new_len = 0;
        }
        let window = usize::from(self.one_in(8));
        let mut offset =
            self.below(WINDOW_PAGES[window].saturating_sub(if window == 0 { 64 } else { 48 }))
                * PAGE;
        if self.one_in(50) {
            offset += 5;
        }
        let to = Place { window, offset };
        Op::Remap { at, len, new_len, flags, to, by_number: self.one_in(3) }
    }
}

/// A length that stays near the window.
fn tame(len: u64) -> u64 {
    if len > 1 << 24 { PAGE } else { len }
}

fn aligned(at: Place) -> Place {
    Place { offset: at.offset & !(PAGE - 1), ..at }
}
