//! What a process had and its children do not have: what leads to other processes, and what nobody can make
//! again. `prepare` can be told to refuse a kind of it; children are told of all that they have lost.

use serde::{Deserialize, Serialize};

use super::addr::SeedAddr;

/// Bytes of [`Loss::was`] at most.
pub const MAX_WAS_BYTES: usize = 200;
/// Losses that children are told of, at most: as many as numbers may be carried.
pub const MAX_LOSSES: usize = super::carried::MAX_CARRIED_NUMBERS;

/// A kind of what cannot cross; new ones go to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum LossKind {
    /// A connection to another process or host, or messages that lie in one of the process's own.
    Connections,
    /// A pipe or fifo whose other end is another process's.
    Pipes,
    /// A pidfd of another process.
    Processes,
    /// A device, a userfaultfd, a perf event, a BPF object.
    Devices,
    /// A file without a name that is too large to travel, or a directory without a name.
    Unnamed,
    /// A lock or a lease on a file: the child has the file, and not the lock.
    Locks,
    /// Watches of an inotify.
    Watches,
    /// A pseudo-terminal whose other side is another process's.
    Terminals,
    /// Memory that another living process maps, too: each child has a copy of its own.
    SharedMemory,
    /// A file that is mapped shared and can be written, where a child's host has not the same: a child has a copy of
    /// its own of what was mapped.
    SharedFiles,
    /// An io_uring: its rings are shared with the kernel. Refused unless told otherwise: event loops keep one that they
    /// cannot do without.
    IoUring,
    /// A thread that is not the caller of prepare, of the class SCHED_DEADLINE: its reservation was another host's, and in
    /// children it is of the ordinary class. A cookie of core scheduling (PR_SCHED_CORE): children have none.
    Scheduling,
}

impl LossKind {
    /// All, in order.
    pub const ALL: [LossKind; 12] = [
        LossKind::Connections,
        LossKind::Pipes,
        LossKind::Processes,
        LossKind::Devices,
        LossKind::Unnamed,
        LossKind::Locks,
        LossKind::Watches,
        LossKind::Terminals,
        LossKind::SharedMemory,
        LossKind::SharedFiles,
        LossKind::IoUring,
        LossKind::Scheduling,
    ];

    /// As people write it.
    pub fn name(self) -> &'static str {
        match self {
            LossKind::Connections => "connections",
            LossKind::Pipes => "pipes",
            LossKind::Processes => "processes",
            LossKind::Devices => "devices",
            LossKind::Unnamed => "unnamed",
            LossKind::Locks => "locks",
            LossKind::Watches => "watches",
            LossKind::Terminals => "terminals",
            LossKind::SharedMemory => "shared_memory",
            LossKind::SharedFiles => "shared_files",
            LossKind::IoUring => "io_uring",
            LossKind::Scheduling => "scheduling",
        }
    }

    /// The kind of this name; a hyphen is as good as an underscore.
    pub fn named(name: &str) -> Option<LossKind> {
        let name = name.replace('-', "_");
        LossKind::ALL.into_iter().find(|kind| kind.name() == name)
    }

    fn bit(self) -> u64 {
        1 << self as u32
    }
}

/// Kinds of losses with which there is to be no seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refuse(u64);

impl Refuse {
    /// Nothing: what cannot cross is closed in children.
    pub const NONE: Refuse = Refuse(0);
    /// What is refused where nobody has said a word: an io_uring.
    pub const UNLESS_TOLD: Refuse = Refuse(1 << LossKind::IoUring as u32);

    /// All kinds.
    pub fn all() -> Refuse {
        LossKind::ALL.into_iter().fold(Refuse::NONE, Refuse::and)
    }

    /// This kind, too.
    #[must_use]
    pub fn and(self, kind: LossKind) -> Refuse {
        Refuse(self.0 | kind.bit())
    }

    /// These kinds, too.
    #[must_use]
    pub fn with(self, others: Refuse) -> Refuse {
        Refuse(self.0 | others.0)
    }

    /// All but this kind.
    #[must_use]
    pub fn but(self, kind: LossKind) -> Refuse {
        Refuse(self.0 & !kind.bit())
    }

    /// All but these kinds.
    #[must_use]
    pub fn without(self, others: Refuse) -> Refuse {
        Refuse(self.0 & !others.0)
    }

    /// Whether this kind is refused.
    pub fn has(self, kind: LossKind) -> bool {
        self.0 & kind.bit() != 0
    }

    /// Whether nothing is.
    pub fn is_none(self) -> bool {
        self.0 == 0
    }

    /// One bit for each kind, in the order of [`LossKind::ALL`].
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Of [`Self::bits`]; `None` where one is of no kind.
    pub fn from_bits(bits: u64) -> Option<Refuse> {
        (bits & !Refuse::all().0 == 0).then_some(Refuse(bits))
    }
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// What it is.
    pub kind: LossKind,
    /// The numbers that led to it, ascending; none of memory.
    pub fds: Vec<u32>,
    /// What it was, for people and for hooks that make it again: the address of a peer, a path.
    pub was: String,
}

impl Loss {
    /// Of memory, which no number leads to.
    pub fn of_memory(kind: LossKind, was: &str) -> Loss {
        let end = (0..=MAX_WAS_BYTES.min(was.len())).rev().find(|at| was.is_char_boundary(*at));
        Loss { kind, fds: Vec::new(), was: was[..end.unwrap_or(0)].to_owned() }
    }
}

/// All of a seed's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Losses {
    /// Where children are told: address and length of [`Losses::mail`], two u64. 0: nowhere.
    pub told_at: SeedAddr,
    /// In the order of their numbers.
    pub all: Vec<Loss>,
}

impl Losses {
    /// What children are told.
    pub fn mail(&self) -> Vec<u8> {
        postcard::to_stdvec(&self.all).expect("plain data serialises into a growing vector")
    }

    /// Of [`Self::mail`]; nothing, of what is none.
    pub fn of_mail(bytes: &[u8]) -> Vec<Loss> {
        postcard::from_bytes(bytes).unwrap_or_default()
    }

    /// Whether it can be one.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<(), &'static str> {
        match () {
            () if self.all.len() > MAX_LOSSES => Err("there are more losses than numbers"),
            () if self.all.iter().any(|loss| loss.was.len() > MAX_WAS_BYTES) => {
                Err("a loss has a longer text than any can have")
            }
            () => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_have_names_and_bits_of_their_own() {
        for kind in LossKind::ALL {
            assert_eq!(LossKind::named(kind.name()), Some(kind));
            let others = LossKind::ALL.into_iter().filter(|other| *other != kind);
            assert!(others.clone().all(|other| !Refuse::NONE.and(kind).has(other)));
            assert!(others.clone().all(|other| Refuse::all().but(kind).has(other)));
            assert!(!Refuse::all().but(kind).has(kind));
        }
        assert_eq!(LossKind::named("shared-memory"), Some(LossKind::SharedMemory));
        assert!(Refuse::UNLESS_TOLD.has(LossKind::IoUring));
        assert!(Refuse::UNLESS_TOLD.without(Refuse::NONE.and(LossKind::IoUring)).is_none());
        assert_eq!(LossKind::named("files"), None);
        assert_eq!(Refuse::from_bits(Refuse::all().bits()), Some(Refuse::all()));
        assert_eq!(Refuse::from_bits(1 << LossKind::ALL.len()), None);
    }

    #[test]
    fn what_memory_was_is_cut_between_letters() {
        let text = format!("x{}", "\u{e4}".repeat(MAX_WAS_BYTES));
        let loss = Loss::of_memory(LossKind::SharedFiles, &text);
        assert_eq!((loss.was.len(), loss.fds.len()), (MAX_WAS_BYTES - 1, 0));
        assert_eq!(Loss::of_memory(LossKind::SharedFiles, "/a").was, "/a");
    }

    #[test]
    fn mail_comes_back_and_what_is_none_is_nothing() {
        let loss = Loss { kind: LossKind::Pipes, fds: vec![3, 9], was: "a pipe".to_owned() };
        let losses = Losses { told_at: SeedAddr(16), all: vec![loss] };
        let mail = losses.mail();
        assert_eq!(Losses::of_mail(&mail), losses.all);
        (0..mail.len()).for_each(|cut| assert!(Losses::of_mail(&mail[..cut]).is_empty(), "{cut}"));
        assert!(losses.check().is_ok());
        let long = Loss { was: "x".repeat(MAX_WAS_BYTES + 1), ..losses.all[0].clone() };
        assert!(Losses { all: vec![long], ..losses.clone() }.check().is_err());
        let many = vec![losses.all[0].clone(); MAX_LOSSES + 1];
        assert!(Losses { all: many, ..losses }.check().is_err());
    }
}
