//! Finds the instructions in a seed's text whose system calls a child must make through the stub.
//!
//! Text is searched for three byte strings of seven bytes ([`SiteKind::bytes`]). That a match is really an
//! instruction, and not the inside of one or a constant, cannot be known without knowing where a function
//! begins. What makes patching it safe all the same:
//!
//! * The trampoline does what the seven bytes do, to every register but rcx and r11, which the call
//!   destroys anyway. A match that is executed from its first byte behaves the same wherever it stands.
//! * The last two bytes, `syscall`, stay. A jump to them, or a thread that was interrupted in the call and
//!   repeats it, finds what it expects. Only a jump to bytes two to five would not, and those are the inside
//!   of an immediate or a displacement.
//! * A prefix in front changes the meaning of `mov $imm,%eax` alone. With REX.B it is a `mov` to r8d, with
//!   another number in rax: such a match is left alone. With REX.W the `syscall` would be a part of a 64-bit
//!   constant 0x..050f_0000_001c: the byte is rather the end (displacement 0x48) of the instruction before.
//! * The tail of libc's `syscall(3)` is taken only behind the move of the sixth argument, as glibc and musl
//!   have it.
//!
//! Not found are calls whose number is not loaded right before them (Go's `Syscall6`): memory that is
//! discarded through those shows the snapshot.

use crate::descriptor::{CallSite, SeedAddr, SiteKind};

const SITE_LEN: usize = 7;
/// `mov %r9,%r8`, in both encodings.
const SIXTH_ARGUMENT: [[u8; 3]; 2] = [[0x4d, 0x89, 0xc8], [0x4d, 0x8b, 0xc1]];
const KINDS: [SiteKind; 3] = [SiteKind::Madvise, SiteKind::Mremap, SiteKind::Generic];

/// The call sites in `text`, which lies at `base`, ascending.
pub fn scan(text: &[u8], base: SeedAddr) -> Vec<CallSite> {
    let mut sites = Vec::new();
    each_syscall(text, |end| {
        let Some(start) = end.checked_sub(SITE_LEN) else { return };
        let (before, found) = (&text[..start], &text[start..end]);
        let kind =
            KINDS.into_iter().find(|kind| kind.bytes() == found && stands_alone(*kind, before));
        if let Some(kind) = kind {
            sites.push(CallSite { addr: SeedAddr(base.0 + start as u64), kind });
        }
    });
    sites
}

fn stands_alone(kind: SiteKind, before: &[u8]) -> bool {
    match kind {
        SiteKind::Generic => SIXTH_ARGUMENT.iter().any(|moves| before.ends_with(moves)),
        SiteKind::Madvise | SiteKind::Mremap => {
            !matches!(before.last(), Some(0x41 | 0x43 | 0x45 | 0x47))
        }
    }
}

/// Tells the index behind each `0f 05`.
fn each_syscall(text: &[u8], mut found: impl FnMut(usize)) {
    const FIRST: u64 = 0x0f0f_0f0f_0f0f_0f0f;
    const SECOND: u64 = 0x0505_0505_0505_0505;
    let Some(seconds) = text.get(1..) else { return };
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
    let words = seconds.chunks_exact(8);
    let rest = seconds.len() - words.remainder().len();
    for (index, (first, second)) in text.chunks_exact(8).zip(words).enumerate() {
        let mut hits = zero_bytes(word(first) ^ FIRST) & zero_bytes(word(second) ^ SECOND);
        while hits != 0 {
            found(index * 8 + hits.trailing_zeros() as usize / 8 + 2);
            hits &= hits - 1;
        }
    }
    for at in rest..seconds.len() {
        if text[at] == 0x0f && text[at + 1] == 0x05 {
            found(at + 2);
        }
    }
}

/// The top bit of each byte that is zero.
fn zero_bytes(word: u64) -> u64 {
    const LOW: u64 = 0x7f7f_7f7f_7f7f_7f7f;
    !(((word & LOW) + LOW) | word | LOW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BASE: SeedAddr = SeedAddr(0x7000_0000);

    fn site(offset: u64, kind: SiteKind) -> CallSite {
        CallSite { addr: SeedAddr(BASE.0 + offset), kind }
    }

    #[test]
    fn each_kind_is_found_at_every_alignment() {
        for offset in 0..24 {
            for kind in [SiteKind::Madvise, SiteKind::Mremap] {
                let mut text = vec![0x90; offset];
                text.extend(kind.bytes());
                assert_eq!(scan(&text, BASE), [site(offset as u64, kind)]);
                text.pop();
                assert_eq!(scan(&text, BASE), [], "cut off");
            }
        }
    }

    #[test]
    fn the_generic_site_needs_the_move_before_it() {
        for moves in SIXTH_ARGUMENT {
            let text = [&moves[..], &SiteKind::Generic.bytes()].concat();
            assert_eq!(scan(&text, BASE), [site(3, SiteKind::Generic)]);
        }
        assert_eq!(scan(&SiteKind::Generic.bytes(), BASE), []);
    }

    #[test]
    fn a_move_to_r8_is_no_number_of_a_call() {
        let mut text = vec![0x41];
        text.extend(SiteKind::Madvise.bytes());
        assert_eq!(scan(&text, BASE), []);
        text[0] = 0x48;
        assert_eq!(scan(&text, BASE), [site(1, SiteKind::Madvise)]);
    }

    #[test]
    fn other_calls_are_left_alone() {
        assert_eq!(scan(&[0xb8, 29, 0, 0, 0, 0x0f, 0x05], BASE), []);
        assert_eq!(scan(&[0xb8, 28, 0, 0, 1, 0x0f, 0x05], BASE), []);
        assert_eq!(scan(&[], BASE), []);
        assert_eq!(scan(&[0x0f, 0x05], BASE), []);
    }

    proptest! {
        #[test]
        fn words_find_what_a_window_of_two_finds(
            text in prop::collection::vec(prop::sample::select(vec![0x0f_u8, 0x05, 0x04, 0x85]), 0..64)
        ) {
            let mut found = Vec::new();
            each_syscall(&text, |end| found.push(end));
            let plain: Vec<usize> =
                (2..=text.len()).filter(|end| text[end - 2..*end] == [0x0f, 0x05]).collect();
            prop_assert_eq!(found, plain);
        }
    }
}
