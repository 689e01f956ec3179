//! A seed's record: what the next agent must know to go on where this one ended. It lies in a file without a name, of
//! which the keeper holds a descriptor and never a byte.
//!
//! ```text
//!   0  u32 flags      DROPPING, ENDS_WITH_CHILDREN
//!   4  u32 leases     other hosts that hold the seed
//!   8  u32 version
//!  12  a frame: `Facts`
//! ```
//! Flags and leases are written in place as they change, each by one write(2) of four bytes; all else is there before the
//! keeper has it. The file has keys in it: it is the agent's user's alone, as all is that an agent has.

use std::fs::{File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, PermissionsExt};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::descriptor::SeedRange;
use crate::id::{ForkKey, PrepareToken, ReadKey, SeedId};
use crate::sys::enter;
use crate::wire::frame;

const VERSION: u32 = 1;
const LEASES_AT: u64 = 4;
const VERSION_AT: u64 = 8;
const FACTS_AT: u64 = 12;
/// A record is never longer: a frame, and what stands before it.
const MAX_BYTES: u64 = FACTS_AT + 4 + frame::MAX_FRAME_BYTES as u64;

/// It takes no new children.
const DROPPING: u32 = 1;
/// It ends with its last holder.
const ENDS_WITH_CHILDREN: u32 = 2;

/// What is fixed about a published seed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Facts {
    /// Its id.
    pub id: SeedId,
    /// The parent's name for it.
    pub token: PrepareToken,
    /// The right to fork it.
    pub fork_key: ForkKey,
    /// The right to READ it.
    pub read_key: ReadKey,
    /// Its process id.
    pub pid: u32,
    /// Who has prepared it.
    pub user: u32,
    /// CLOCK_MONOTONIC when it reported.
    pub created_ns: i64,
    /// What a push of it sends, in this order.
    pub hot: Vec<SeedRange>,
    /// `descriptor::codec` bytes.
    pub descriptor: Vec<u8>,
}

/// What changes while the seed lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// It takes no new children.
    pub is_dropping: bool,
    /// It ends with its last holder.
    pub ends_with_children: bool,
    /// Other hosts that hold it.
    pub leases: u32,
}

/// A seed's record, as it is kept.
#[derive(Debug)]
pub struct Record(File);

impl Record {
    /// One that can be kept.
    ///
    /// # Errors
    /// It is too long, or no file is to be had.
    pub fn new(facts: &Facts, life: Life) -> io::Result<Record> {
        let frame = frame::encode(facts).map(Zeroizing::new);
        let frame = frame.map_err(|error| io::Error::other(error.to_string()))?;
        let version = VERSION.to_le_bytes();
        let parts: [(u64, &[u8]); 2] = [(VERSION_AT, &version), (FACTS_AT, &frame)];
        let file =
            File::from(enter::memfd(c"mitosis-seed", &parts, FACTS_AT + frame.len() as u64)?);
        file.set_permissions(Permissions::from_mode(0o600))?;
        let record = Record(file);
        record.write(life);
        Ok(record)
    }

    /// Notes how the seed lives now.
    pub fn write(&self, life: Life) {
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags =
            flag(life.is_dropping, DROPPING) | flag(life.ends_with_children, ENDS_WITH_CHILDREN);
        let parts = [(0, flags), (LEASES_AT, life.leases)];
        for (at, word) in parts {
            if let Err(error) = self.0.write_all_at(&word.to_le_bytes(), at) {
                tracing::warn!(%error, "the next agent is not told what has become of a seed");
            }
        }
    }

    /// Reads what an agent before has written.
    ///
    /// # Errors
    /// `InvalidData` for anything but a record of this version.
    pub fn open(file: OwnedFd) -> io::Result<(Record, Facts, Life)> {
        let record = Record(file.into());
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let len = record.0.metadata()?.len();
        if !(FACTS_AT + 4..=MAX_BYTES).contains(&len) {
            return Err(invalid(format!("a record of {len} bytes")));
        }
        let word = |at| {
            let mut bytes = [0; 4];
            record.0.read_exact_at(&mut bytes, at).map(|()| u32::from_le_bytes(bytes))
        };
        let (flags, leases, version) = (word(0)?, word(LEASES_AT)?, word(VERSION_AT)?);
        if version != VERSION {
            return Err(invalid(format!("a record of version {version}, not {VERSION}")));
        }
        let body = usize::try_from(len - FACTS_AT - 4).unwrap_or(0);
        let mut bytes = Zeroizing::new(vec![0; body]);
        record.0.read_exact_at(&mut bytes, FACTS_AT + 4)?;
        let facts = frame::decode(&bytes).map_err(|error| invalid(error.to_string()))?;
        let life = Life {
            is_dropping: flags & DROPPING != 0,
            ends_with_children: flags & ENDS_WITH_CHILDREN != 0,
            leases,
        };
        Ok((record, facts, life))
    }

    /// For the keeper.
    pub fn file(&self) -> &File {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::descriptor::SeedAddr;

    fn facts() -> Facts {
        Facts {
            id: SeedId(7),
            token: PrepareToken::random(),
            fork_key: ForkKey::random(),
            read_key: ReadKey::random(),
            pid: 3,
            user: 4,
            created_ns: 5,
            hot: vec![SeedRange::new(SeedAddr(0x1000).0, SeedAddr(0x3000).0)],
            descriptor: vec![9; 100],
        }
    }

    fn opened(record: &Record) -> io::Result<(Record, Facts, Life)> {
        Record::open(record.file().as_fd().try_clone_to_owned()?)
    }

    #[test]
    fn a_record_comes_back_as_it_was_last_written() {
        let facts = facts();
        let record = Record::new(&facts, Life::default()).unwrap();
        let (_, read, life) = opened(&record).unwrap();
        assert!(read.fork_key == facts.fork_key && read.read_key == facts.read_key);
        assert_eq!((read.id, read.pid, read.user), (facts.id, 3, 4));
        assert_eq!((read.hot, read.descriptor), (facts.hot, facts.descriptor));
        assert_eq!(life, Life::default());
        let last = Life { is_dropping: true, ends_with_children: false, leases: 3 };
        record.write(last);
        assert_eq!(opened(&record).unwrap().2, last);
        let mode = record.file().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn another_version_and_a_cut_are_refused() {
        let record = Record::new(&facts(), Life::default()).unwrap();
        let len = record.file().metadata().unwrap().len();
        for cut in [0, 1, FACTS_AT, FACTS_AT + 4, len - 1, MAX_BYTES + 1] {
            record.file().set_len(cut).unwrap();
            assert!(opened(&record).is_err(), "{cut}");
        }
        let record = Record::new(&facts(), Life::default()).unwrap();
        record.file().write_all_at(&2u32.to_le_bytes(), VERSION_AT).unwrap();
        assert!(opened(&record).unwrap_err().to_string().contains("version 2"));
    }
}
