//! An owner's arena as seen from here: which of its bytes a card can READ by now, and where.
//!
//! ```text
//!   seed's addresses   [extent 0][extent 1 ][extent 2]     one behind the other make
//!   the arena          |0 ........................... bytes|
//!   its slabs          [slab 0      ][slab 1      ]...     each with an rkey and an iova
//!                      |------ filled ------>|             READs stay below; the rest is asked of tcp
//! ```
//! What is filled only grows. It is told with the descriptor and on the lease; a READ that asks for more
//! goes another way.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use super::trust::Trust;
use crate::descriptor::{ArenaMap, ArenaNews, SeedAddr, SeedRange, Slab};
use crate::id::SeedId;

/// An owner's arena as seen from here.
#[derive(Debug)]
pub struct RemoteArena {
    /// Ascending, each with its place in the arena.
    extents: Box<[(SeedRange, u64)]>,
    bytes: u64,
    /// Ascending, each with its place in the arena.
    slabs: RwLock<Vec<(Slab, u64)>>,
    filled: AtomicU64,
    /// The owner's card has refused a READ: the rest is asked of tcp, which says why.
    is_refused: AtomicBool,
    /// How far the seed's DC target is trusted.
    trust: Trust,
}

/// Bytes that one work request READs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RemotePiece {
    /// What shows the right to them.
    pub rkey: u32,
    /// Where they lie, as the owner's card counts.
    pub addr: u64,
    /// How many.
    pub len: u32,
}

/// Not all of the bytes are in the arena, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotThere;

/// News that contradict what is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the owner's news of its arena contradict what it said before; it runs another version")]
pub struct BadNews;

impl RemoteArena {
    /// An arena of which nothing is filled yet.
    pub fn new(map: &ArenaMap) -> Self {
        let mut bytes = 0;
        let extents = map.extents.iter().map(|extent| {
            let at = bytes;
            bytes += extent.len();
            (*extent, at)
        });
        let extents = extents.collect();
        let arena = RemoteArena {
            extents,
            bytes,
            slabs: RwLock::default(),
            filled: AtomicU64::new(0),
            is_refused: AtomicBool::new(false),
            trust: Trust::default(),
        };
        arena.append(&map.slabs);
        arena
    }

    /// Takes what the owner has told.
    ///
    /// # Errors
    /// More bytes than there are, fewer than there were, or bytes that lie nowhere; nothing is taken then.
    pub fn tell(&self, news: &ArenaNews) -> Result<(), BadNews> {
        let end = self.slabs.read().last().map_or(0, |(slab, at)| at + slab.len);
        let more: u64 = news.slabs.iter().fold(0, |sum: u64, slab| sum.saturating_add(slab.len));
        let sound = news.slabs.iter().all(Slab::is_sound);
        let reach = end.checked_add(more).ok_or(BadNews)?.min(self.bytes);
        if !sound || news.filled > reach || news.filled < self.filled.load(Ordering::Relaxed) {
            return Err(BadNews);
        }
        self.append(&news.slabs);
        self.filled.store(news.filled, Ordering::Release);
        Ok(())
    }

    /// A card was refused bytes of `seed`: no further READ is tried. Each would end the connection that it
    /// is on, and flush the READs of others.
    pub fn refuse(&self, seed: SeedId) {
        // Once a seed, on a path where tcp is asked next.
        if !self.is_refused.swap(true, Ordering::AcqRel) {
            tracing::warn!(%seed, "the owner's card refuses READs of this seed; tcp is asked, which says why");
        }
    }

    /// How far the seed's DC target is trusted.
    pub(super) fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Bytes that a card can READ by now, and bytes in all.
    pub fn progress(&self) -> (u64, u64) {
        (self.filled.load(Ordering::Acquire), self.bytes)
    }

    /// Gives where the `len` bytes of the seed at `addr` lie, piece by piece, in their order.
    ///
    /// # Errors
    /// Not all of them are there; `each` may have been called for a part.
    pub fn locate(
        &self,
        addr: SeedAddr,
        len: u32,
        mut each: impl FnMut(RemotePiece),
    ) -> Result<(), NotThere> {
        let (from, until) = (addr.0, addr.0.checked_add(u64::from(len)).ok_or(NotThere)?);
        if self.is_refused.load(Ordering::Acquire) {
            return Err(NotThere);
        }
        let filled = self.filled.load(Ordering::Acquire);
        let slabs = self.slabs.read();
        let mut from = from;
        let mut extent = self.extents.partition_point(|(extent, _)| extent.end.0 <= from);
        while from < until {
            let &(range, at) = self.extents.get(extent).ok_or(NotThere)?;
            if range.start.0 > from {
                return Err(NotThere);
            }
            let end = until.min(range.end.0);
            let (first, last) = (at + (from - range.start.0), at + (end - range.start.0));
            if last > filled {
                return Err(NotThere);
            }
            cut(&slabs, first, last, &mut each)?;
            (from, extent) = (end, extent + 1);
        }
        Ok(())
    }

    fn append(&self, more: &[Slab]) {
        let mut slabs = self.slabs.write();
        let mut at = slabs.last().map_or(0, |(slab, at)| at + slab.len);
        for slab in more {
            slabs.push((*slab, at));
            at = at.saturating_add(slab.len);
        }
    }
}

/// Gives the parts of the arena's bytes `[first, last)`, slab by slab.
fn cut(
    slabs: &[(Slab, u64)],
    first: u64,
    last: u64,
    each: &mut impl FnMut(RemotePiece),
) -> Result<(), NotThere> {
    let mut index = slabs.partition_point(|(slab, at)| at + slab.len <= first);
    let mut first = first;
    while first < last {
        let (slab, at) = slabs.get(index).ok_or(NotThere)?;
        let end = last.min(at + slab.len);
        let len = u32::try_from(end - first).map_err(|_| NotThere)?;
        each(RemotePiece { rkey: slab.rkey, addr: slab.iova + (first - at), len });
        (first, index) = (end, index + 1);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slab(rkey: u32, iova: u64, len: u64) -> Slab {
        Slab { rkey, iova, len }
    }

    /// 12 KiB in three extents; the first slab holds 8 KiB.
    fn arena() -> RemoteArena {
        let extents = [(0x1000, 0x2000), (0x2000, 0x3000), (0x9000, 0xa000)];
        let extents = extents.map(|(start, end)| SeedRange::new(start, end)).to_vec();
        RemoteArena::new(&ArenaMap { extents, slabs: vec![slab(1, 0x10_0000, 0x2000)] })
    }

    fn located(arena: &RemoteArena, addr: u64, len: u32) -> Option<Vec<(u32, u64, u32)>> {
        let mut pieces = Vec::new();
        let each = |piece: RemotePiece| pieces.push((piece.rkey, piece.addr, piece.len));
        arena.locate(SeedAddr(addr), len, each).ok().map(|()| pieces)
    }

    #[test]
    fn what_is_filled_is_found_and_nothing_beyond() {
        let arena = arena();
        assert_eq!(located(&arena, 0x1000, 1), None);
        arena.tell(&ArenaNews { slabs: vec![], filled: 0x1800 }).unwrap();
        assert_eq!(
            located(&arena, 0x1800, 0x1000),
            Some(vec![(1, 0x10_0800, 0x800), (1, 0x10_1000, 0x800)])
        );
        assert_eq!(located(&arena, 0x1800, 0x1001), None);
        assert_eq!(arena.progress(), (0x1800, 0x3000));
    }

    #[test]
    fn a_range_over_two_slabs_is_two_pieces() {
        let arena = arena();
        let more = vec![slab(2, 0x20_0000, 0x800), slab(3, 0x30_0000, 0x10_0000)];
        arena.tell(&ArenaNews { slabs: more, filled: 0x3000 }).unwrap();
        assert_eq!(
            located(&arena, 0x9700, 0x200),
            Some(vec![(2, 0x20_0700, 0x100), (3, 0x30_0000, 0x100)])
        );
        assert_eq!(located(&arena, 0x9fff, 1), Some(vec![(3, 0x30_07ff, 1)]));
        assert_eq!(located(&arena, 0x9fff, 2), None);
        assert_eq!(located(&arena, 0x2fff, 2), None);
        assert_eq!(located(&arena, u64::MAX, 2), None);
    }

    #[test]
    fn contradictions_are_refused_whole() {
        let arena = arena();
        arena.tell(&ArenaNews { slabs: vec![], filled: 0x1000 }).unwrap();
        for (slabs, filled) in [
            (vec![], 0xfff),
            (vec![], 0x2001),
            (vec![slab(2, 0, 0x10_0000)], 0x3001),
            (vec![slab(2, 0, 0)], 0x1000),
            (vec![slab(2, u64::MAX, 2)], 0x1000),
            (vec![slab(2, 0, u64::MAX)], 0x1000),
        ] {
            assert_eq!(arena.tell(&ArenaNews { slabs, filled }), Err(BadNews));
        }
        assert_eq!(arena.slabs.read().len(), 1);
        arena.tell(&ArenaNews { slabs: vec![], filled: 0x2000 }).unwrap();
    }
}
