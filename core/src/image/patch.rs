//! Bytes that a child sees changed: system-call sites that jump to the stub.

use crate::descriptor::{Patch, SITE_LEN, SeedAddr, SeedRange};

/// All patches of an image, ascending.
#[derive(Clone, Debug, Default)]
pub(super) struct Patches(Vec<Patch>);

impl Patches {
    pub(super) fn new(mut patches: Vec<Patch>) -> Self {
        patches.sort_unstable_by_key(|patch| patch.addr);
        Patches(patches)
    }

    /// Whether a byte of `range` is patched.
    pub(super) fn touch(&self, range: SeedRange) -> bool {
        self.overlapping(range).next().is_some()
    }

    /// Patches `page`, which begins at `addr`. Of a patch that reaches over an end only the part inside
    /// is compared and written. Returns how many did not find what they expect.
    pub(super) fn apply(&self, addr: SeedAddr, page: &mut [u8]) -> u64 {
        let mut refused = 0;
        let range = SeedRange { start: addr, end: SeedAddr(addr.0 + page.len() as u64) };
        for patch in self.overlapping(range) {
            let whole =
                SeedRange { start: patch.addr, end: SeedAddr(patch.addr.0 + SITE_LEN as u64) };
            let inside = whole.intersect(range);
            let page = &mut page[index(inside.start, addr)..index(inside.end, addr)];
            let part = index(inside.start, patch.addr)..index(inside.end, patch.addr);
            if *page == patch.expect[part.clone()] {
                page.copy_from_slice(&patch.bytes[part]);
            } else {
                refused += 1;
            }
        }
        refused
    }

    fn overlapping(&self, range: SeedRange) -> impl Iterator<Item = &Patch> {
        let reaches_in = range.start.0.saturating_sub(SITE_LEN as u64 - 1);
        let first = self.0.partition_point(|patch| patch.addr.0 < reaches_in);
        self.0[first..].iter().take_while(move |patch| patch.addr < range.end)
    }
}

/// The distance of two addresses of one page or patch.
fn index(addr: SeedAddr, base: SeedAddr) -> usize {
    usize::try_from(addr.0 - base.0).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patch(addr: u64) -> Patch {
        Patch { addr: SeedAddr(addr), expect: [1, 2, 3, 4, 5, 6, 7], bytes: [9; SITE_LEN] }
    }

    #[test]
    fn a_patch_over_a_border_is_whole_for_every_cut() {
        let patches = Patches::new(vec![patch(0x1ffc)]);
        for cut in 0..=32usize {
            let mut memory = [0u8; 32];
            memory[12..19].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7]);
            let (left, right) = memory.split_at_mut(cut);
            assert_eq!(patches.apply(SeedAddr(0x1ff0), left), 0);
            assert_eq!(patches.apply(SeedAddr(0x1ff0 + cut as u64), right), 0);
            assert_eq!(memory[12..19], [9; 7], "cut at {cut}");
            assert!(memory[..12].iter().chain(&memory[19..]).all(|&byte| byte == 0));
        }
    }

    #[test]
    fn other_bytes_are_left_alone_and_counted() {
        let patches = Patches::new(vec![patch(0x1020), patch(0x1000)]);
        let mut memory = [0u8; 64];
        memory[..7].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7]);
        memory[0x20..0x27].copy_from_slice(&[1, 2, 3, 4, 5, 6, 0]);
        assert_eq!(patches.apply(SeedAddr(0x1000), &mut memory), 1);
        assert_eq!(memory[..7], [9; 7]);
        assert_eq!(memory[0x20..0x27], [1, 2, 3, 4, 5, 6, 0]);
    }

    #[test]
    fn ranges_beside_a_patch_are_not_touched() {
        let patches = Patches::new(vec![patch(0x1000)]);
        assert!(!patches.touch(SeedRange::new(0xff0, 0x1000)));
        assert!(patches.touch(SeedRange::new(0xff0, 0x1001)));
        assert!(patches.touch(SeedRange::new(0x1006, 0x1007)));
        assert!(!patches.touch(SeedRange::new(0x1007, 0x2000)));
    }
}
