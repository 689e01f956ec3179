//! Carried files -> steps of a child's tail.
//!
//! ```text
//! move the command socket, the nothing and given listeners out of the way of all numbers
//! put the nothing on each number                  so that what opens a file never gets one of them
//! make each open file description at its first number, copy it to its others
//! epoll registrations, in order                   all that they name is there
//! ...the rest of the tail; last: close what was moved
//! ```
//!
//! The same seed gives the same steps, but for listeners: of each either the one that was asked for comes
//! along, or a socket that nobody knows takes its place. Both are three steps.

mod make;

use std::collections::HashSet;

use super::abi::{MAX_COMMAND_FDS, NumberRange};
use super::entering::MAX_ENTERED;
use super::program::{Expect, Op};
use super::{calls, file_calls};
use crate::descriptor::CarriedFiles;

/// Numbers below it are the template's own: the command sockets, and what a command brings.
const FIRST_HELPER: u32 = 64;
/// Descriptors that come with each command: standard ones, and the nothing.
const BEFORE_LISTENERS: u32 = 4;
const _: () = assert!(MAX_COMMAND_FDS + 5 < FIRST_HELPER as u64);

/// Sockets that listen that one child may be given.
pub const MAX_LISTENERS: usize = 36;
const _: () =
    assert!((MAX_LISTENERS + MAX_ENTERED) as u64 + BEFORE_LISTENERS as u64 == MAX_COMMAND_FDS);

/// How tails of a seed make its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FilePlan {
    carried: CarriedFiles,
    /// Numbers that no file has: for the command socket, the nothing, an end that goes again, listeners.
    command: u32,
    nothing: u32,
    spare: u32,
    /// For a user namespace that it is to enter.
    user_namespace: u32,
    listeners: Vec<u32>,
}

impl FilePlan {
    pub(super) fn of(carried: &CarriedFiles) -> FilePlan {
        // A number that is only watched by is used for a moment, too.
        let watched = carried.files().iter().flat_map(|file| file.kind.watches());
        let watched = watched.map(|(watch, _)| watch.fd);
        let taken: HashSet<u32> = carried.numbers().chain(watched).collect();
        let mut free = (FIRST_HELPER..).filter(|number| !taken.contains(number));
        let mut next = || free.next().unwrap_or(u32::MAX);
        let [command, nothing, spare] = [next(), next(), next()];
        let count = carried.listeners().count().min(MAX_LISTENERS);
        let listeners = (0..count).map(|_| next()).collect();
        let user_namespace = next();
        FilePlan { carried: carried.clone(), command, nothing, spare, user_namespace, listeners }
    }

    /// The largest number that a tail uses.
    pub(super) fn highest(&self) -> u32 {
        let helpers = [self.command, self.nothing, self.spare, self.user_namespace];
        let helpers = helpers.into_iter().chain(self.listeners.iter().copied());
        let watched = self.carried.files().iter().flat_map(|file| file.kind.watches());
        let watched = watched.map(|(watch, _)| watch.fd);
        self.carried.numbers().chain(helpers).chain(watched).max().unwrap_or(0)
    }

    /// All files, where 0, 1 and 2 are the child's already. What its command brought begins at `stdio`, with
    /// sockets for these records, which listen, in order. So much has passed for timers since they were looked at.
    pub(super) fn make(
        &self,
        stdio: u32,
        command_fd: u32,
        given: &[u32],
        passed_ns: u64,
        user_namespace: Option<u32>,
    ) -> Vec<Op> {
        let mut ops = vec![Op::CommandAt { fd: self.command }];
        ops.push(calls::dup3(stdio + 3, self.nothing));
        let places: Vec<(u32, u32)> =
            given.iter().copied().zip(self.listeners.iter().copied()).collect();
        // As many steps whether they come along or not: a step is told by its number.
        for (at, from) in (0..self.listeners.len()).zip(stdio + BEFORE_LISTENERS..) {
            ops.push(match places.get(at) {
                Some((_, place)) => calls::dup3(from, *place),
                None => file_calls::fcntl(self.nothing, libc::F_GETFD, 0, Expect::Ignored),
            });
        }
        ops.extend(user_namespace.map(|from| calls::dup3(from, self.user_namespace)));
        ops.push(calls::close_range(command_fd, FIRST_HELPER - 1));
        ops.push(Op::Reserve {
            fd: self.nothing,
            ranges: ranges(self.carried.numbers().collect()),
        });
        let maker = make::Maker {
            files: self.carried.files(),
            spare: self.spare,
            nothing: self.nothing,
            given: &places,
            passed_ns,
        };
        for index in 0..self.carried.files().len() {
            maker.make(index, &mut ops);
        }
        maker.slaves(&mut ops);
        maker.register(&mut ops);
        ops
    }

    /// A number that no file has, and a descriptor that may stand there.
    pub(super) fn spare(&self) -> (u32, u32) {
        (self.spare, self.nothing)
    }

    /// Where a user namespace is that it is to enter.
    pub(super) fn user_namespace(&self) -> u32 {
        self.user_namespace
    }

    /// The end of a tail: what was moved is closed, the command socket last, for failures are told there.
    pub(super) fn close_helpers(&self) -> [Op; 2] {
        [calls::close(self.nothing), calls::close(self.command)]
    }
}

/// Numbers as ascending ranges.
fn ranges(mut numbers: Vec<u32>) -> Vec<NumberRange> {
    numbers.sort_unstable();
    let mut ranges: Vec<NumberRange> = Vec::new();
    for number in numbers {
        match ranges.last_mut() {
            Some(range) if range.last + 1 == number => range.last = number,
            _ => ranges.push(NumberRange { first: number, last: number }),
        }
    }
    ranges
}

#[cfg(test)]
mod tests;
