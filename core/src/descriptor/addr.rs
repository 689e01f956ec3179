//! Kinds of address. They are never mixed: each has its own type.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A virtual address in a seed (and so in each of its children).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct SeedAddr(pub u64);

/// A byte offset in an image's file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct ImageOffset(pub u64);

/// A half-open range of a seed's virtual addresses.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct SeedRange {
    /// The first address.
    pub start: SeedAddr,
    /// The first address behind it.
    pub end: SeedAddr,
}

impl SeedRange {
    /// The range `[start, end)`.
    pub fn new(start: u64, end: u64) -> Self {
        debug_assert!(start <= end);
        SeedRange { start: SeedAddr(start), end: SeedAddr(end) }
    }

    /// Bytes in the range.
    pub fn len(self) -> u64 {
        self.end.0 - self.start.0
    }

    /// Whether no byte is in it.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Whether `addr` is in it.
    pub fn contains(self, addr: SeedAddr) -> bool {
        self.start <= addr && addr < self.end
    }

    /// What is in both ranges.
    pub fn intersect(self, other: SeedRange) -> SeedRange {
        let start = self.start.max(other.start);
        SeedRange { start, end: self.end.min(other.end).max(start) }
    }
}

impl fmt::Display for SeedAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for SeedAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeedAddr({self})")
    }
}

impl fmt::Debug for ImageOffset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ImageOffset({:#x})", self.0)
    }
}

impl fmt::Display for SeedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.start.0, self.end.0)
    }
}

impl fmt::Debug for SeedRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeedRange({self})")
    }
}
