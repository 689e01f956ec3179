//! What agent and keeper say to each other: one seqpacket message of fixed length each, descriptors
//! riding along.
//!
//! ```text
//! agent                                           keeper
//!                                            <--  HELLO    version, pid, 1 if rseq is registered
//! TEMPLATE id base entry monotonic_ns n_fds boottime_ns -->
//!   FDS id (up to 60 at a time, n_fds in all) -->
//!                                            <--  DONE id pid refused   or   FAILED id errno
//! KILL     id pid signal                     -->
//!                                            <--  DONE id 0     or   FAILED id errno
//!                                            <--  EXIT pid status
//! OUTLIVE  id grace_ms n_fds, FDS id         -->  n_fds: 1, the socket at which the next agent asks; or 0: nothing
//!                                            <--  DONE id       outlives the agent
//! KEEP     id seed, FDS id (3)               -->
//!                                            <--  DONE id       or   FAILED id errno
//! FORGET   id seed                           -->
//!                                            <--  DONE id
//! END                                        -->  (all end at once)
//!
//! the next agent                                  heir
//!                                            <--  HELLO    version, seeds
//!                                            <--  KEPT     seed (3 descriptors), for each
//!                                            <--  END
//! DONE                                       -->  (it has them: the heir ends)
//! ```
//! The first descriptor of a template is its region, the others get the numbers 3, 4, ... in it. `refused` is the errno
//! of a time namespace that the keeper could not have: the template has the keeper's clocks.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use crate::sys::scm;

/// Both ends are one program; another version is a mix-up of installations.
pub(super) const VERSION: u64 = 3;
/// Descriptors on one message: less than `scm::MAX_FDS`.
pub(super) const FDS_PER_MESSAGE: usize = 60;
/// Descriptors that a template may be given: mapped files, region, socket, image.
pub(super) const MAX_TEMPLATE_FDS: usize = 1000;

/// Descriptors of a seed: its connection, its memory, its record.
pub(super) const SEED_FDS: usize = 3;

const MESSAGE_LEN: usize = 8 + 5 * 8;

/// What a message is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Kind {
    Hello = 1,
    Template,
    Fds,
    Kill,
    End,
    Done,
    Failed,
    Exit,
    Outlive,
    Keep,
    Forget,
    Kept,
}

impl Kind {
    const ALL: [Kind; 12] = [
        Kind::Hello,
        Kind::Template,
        Kind::Fds,
        Kind::Kill,
        Kind::End,
        Kind::Done,
        Kind::Failed,
        Kind::Exit,
        Kind::Outlive,
        Kind::Keep,
        Kind::Forget,
        Kind::Kept,
    ];
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) kind: Kind,
    /// Request and answer carry the same.
    pub(super) id: u32,
    pub(super) args: [u64; 5],
}

impl Message {
    pub(super) fn new(kind: Kind, id: u32, args: [u64; 5]) -> Self {
        Message { kind, id, args }
    }

    pub(super) fn send(&self, to: BorrowedFd<'_>, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        scm::send(to, &self.encode(), fds).map(drop)
    }

    /// Sends it if the socket takes it at once.
    pub(super) fn send_now(&self, to: BorrowedFd<'_>) -> io::Result<()> {
        scm::send_now(to, &self.encode())
    }

    /// The next message and its descriptors; `None` at the end.
    pub(super) fn receive(
        from: BorrowedFd<'_>,
        fds: &mut Vec<OwnedFd>,
    ) -> io::Result<Option<Message>> {
        let mut bytes = [0u8; MESSAGE_LEN];
        match scm::receive(from, &mut bytes, fds)? {
            0 => Ok(None),
            MESSAGE_LEN => {
                Message::parse(&bytes).map(Some).ok_or(io::ErrorKind::InvalidData.into())
            }
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn encode(&self) -> [u8; MESSAGE_LEN] {
        let mut bytes = [0u8; MESSAGE_LEN];
        bytes[..4].copy_from_slice(&(self.kind as u32).to_le_bytes());
        bytes[4..8].copy_from_slice(&self.id.to_le_bytes());
        for (place, arg) in bytes[8..].chunks_exact_mut(8).zip(self.args) {
            place.copy_from_slice(&arg.to_le_bytes());
        }
        bytes
    }

    fn parse(bytes: &[u8; MESSAGE_LEN]) -> Option<Message> {
        let word = |at: usize| bytes[at..at + 4].try_into().map(u32::from_le_bytes).ok();
        let long = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes).ok();
        let code = word(0)?;
        let kind = Kind::ALL.into_iter().find(|kind| *kind as u32 == code)?;
        let args = [long(8)?, long(16)?, long(24)?, long(32)?, long(40)?];
        Some(Message { kind, id: word(4)?, args })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_one_message_or_none(bytes in any::<[u8; MESSAGE_LEN]>(), code in 0u32..16) {
            let mut bytes = bytes;
            bytes[..4].copy_from_slice(&code.to_le_bytes());
            let message = Message::parse(&bytes);
            prop_assert_eq!(message.is_some(), (1..=12).contains(&code));
            if let Some(message) = message {
                prop_assert_eq!(message.encode(), bytes);
            }
        }
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = Message::new(Kind::Kill, 7, [1, 2, 3, 4, 5]).encode();
        for len in 1..MESSAGE_LEN {
            let (ours, theirs) = std::os::unix::net::UnixDatagram::pair().unwrap();
            ours.send(&bytes[..len]).unwrap();
            let received = Message::receive(theirs.as_fd(), &mut Vec::new());
            assert_eq!(received.unwrap_err().kind(), io::ErrorKind::InvalidData, "{len}");
        }
    }

    #[test]
    fn each_kind_survives_its_bytes_and_others_are_refused() {
        for kind in Kind::ALL {
            let message = Message::new(kind, 7, [1, u64::MAX, 3, 4, 5]);
            assert_eq!(Message::parse(&message.encode()), Some(message));
        }
        let mut bytes = Message::new(Kind::Exit, 0, [0; 5]).encode();
        bytes[0] = 13;
        assert_eq!(Message::parse(&bytes), None);
    }
}
