//! What a child enters on its host before it is the seed's process again: a control group, namespaces.
//!
//! Their descriptors ride on its command, behind the sockets that listen; they are used and closed by its
//! tail's first steps, while it has one thread and none of its files.

use std::os::fd::BorrowedFd;

use super::program::Op;
use super::{calls, file_calls};
use crate::sys::namespace::NamespaceKind;

const KINDS: usize = NamespaceKind::ALL.len();
/// Descriptors that ride along for it.
pub(super) const MAX_ENTERED: usize = 2 + KINDS;

/// What to enter.
#[derive(Clone, Copy, Debug, Default)]
pub struct Enters<'a> {
    /// `cgroup.procs` of a control group, open for writing.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// By [`NamespaceKind`].
    pub namespaces: [Option<BorrowedFd<'a>>; KINDS],
    /// A user namespace, which it enters when nothing is left to do that takes its agent's rights.
    pub user: Option<BorrowedFd<'a>>,
}

impl<'a> Enters<'a> {
    /// Whether there is nothing to enter.
    pub fn is_nothing(&self) -> bool {
        self.all().next().is_none()
    }

    /// In the order of a command's descriptors.
    pub fn all(&self) -> impl Iterator<Item = BorrowedFd<'a>> {
        let at_first = self.cgroup.into_iter().chain(self.namespaces.into_iter().flatten());
        at_first.chain(self.user)
    }

    /// Which of them there are.
    pub(super) fn entering(&self) -> Entering {
        Entering {
            cgroup: self.cgroup.is_some(),
            namespaces: self.namespaces.map(|namespace| namespace.is_some()),
            user: self.user.is_some(),
        }
    }
}

/// Which descriptors ride along.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Entering {
    cgroup: bool,
    namespaces: [bool; KINDS],
    user: bool,
}

impl Entering {
    /// Whether paths are another mount namespace's.
    pub(super) fn has_other_files(&self) -> bool {
        self.namespaces[NamespaceKind::Mount as usize]
    }

    /// Where the descriptor of a user namespace is, if the first one is `first`.
    pub(super) fn user_at(&self, first: u32) -> Option<u32> {
        let others = [self.cgroup].into_iter().chain(self.namespaces).filter(|is| *is);
        self.user.then(|| first.saturating_add(others.map(u32::from).sum()))
    }

    /// All but a user namespace. The first descriptor is `first`.
    pub(super) fn steps(&self, first: u32) -> Vec<Op> {
        let kinds = NamespaceKind::ALL.into_iter().zip(self.namespaces);
        let joined = kinds.filter_map(|(kind, joins)| joins.then_some(kind));
        let mut ops = Vec::new();
        let mut numbers = first..;
        if self.cgroup {
            ops.extend(numbers.next().map(|fd| file_calls::write(fd, b"0".to_vec())));
        }
        ops.extend(joined.map(|kind| {
            let fd = numbers.start;
            numbers.start += 1;
            calls::setns(fd, kind.flag().cast_unsigned())
        }));
        if numbers.start > first {
            ops.push(calls::close_range(first, numbers.start - 1));
        }
        ops
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_used_in_the_order_in_which_they_come_and_closed() {
        let steps = |entering: Entering| {
            entering.steps(7).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(steps(Entering::default()).is_empty());
        let mut some = Entering { cgroup: true, ..Entering::default() };
        some.namespaces[NamespaceKind::Mount as usize] = true;
        some.namespaces[NamespaceKind::Net as usize] = true;
        let text = steps(some).join(" ");
        let places = ["write(7,", "setns(8,", "setns(9,", "close_range(7, 9)"];
        let found: Vec<_> = places.iter().map(|place| text.find(place)).collect();
        assert!(found.iter().all(Option::is_some) && found.is_sorted(), "{text}");
        let net = NamespaceKind::Net.flag();
        assert!(
            text.contains(&format!("setns(8, {net}"))
                || text.contains(&format!("setns(8, {net:#x}")),
            "{text}"
        );
    }
}
