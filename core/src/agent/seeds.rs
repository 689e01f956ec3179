//! The seeds of this host.
//!
//! ```text
//!  Report --> Publishing --describe, rehearse--> Published --drop--> Dropping --last holder--> gone
//!     |            |  \--drop: is Dropping once it is published
//!     |            \--> Failed (kept for the parent's Await, then gone)
//!     \--> refused (no seed came to be; the reason is kept for the parent's Await)
//! ```
//!
//! A seed lives as long as the agent holds its connection: closing it ends the process. Holders are
//! hosts with an image of it, this one included while children run here. Of an agent before this one come seeds that
//! are published, or dropping; the hosts that held them then have some time to say so again ([`Seeds::rejoin`]).

use std::collections::{HashMap, VecDeque};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::failure::{fail, seed_gone};
use super::kept::{Life, Record};
use super::lease::Lease;
use crate::descriptor::{Clocks, MappedFile};
use crate::id::{ForkKey, Handle, PrepareToken, ReadKey, SeedId};
use crate::wire::local::{Failure, FailureKind, SeedLine};

/// Seeds that one agent keeps, whatever is set: each is a process with its page tables.
pub const MAX_SEEDS: usize = 1024;
/// How long a parent waits for the report of its seed before it is told that the seed died.
const REPORT_DEADLINE: Duration = Duration::from_secs(10);
/// How long a parent waits for the publication of a seed that has reported.
const PUBLISH_DEADLINE: Duration = Duration::from_secs(30);

/// What is fixed about a seed from its report on.
#[derive(Debug)]
pub struct SeedRecord {
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
    /// When it reported.
    pub created: Instant,
}

/// What publication added.
#[derive(Clone, Debug)]
pub struct Published {
    /// `descriptor::codec` bytes.
    pub descriptor: Arc<[u8]>,
    /// The descriptor's table of files.
    pub files: Arc<[MappedFile]>,
    /// Slabs of the arena that the descriptor names.
    pub slabs: usize,
    /// How far the seed's clocks are ahead of this host's: not 0 for a seed of a child that came from elsewhere.
    pub clock_offset: Clocks,
    /// For people.
    pub exe: String,
    /// For people.
    pub parent_pid: u32,
    /// For people.
    pub generation: u64,
    /// For people.
    pub pages: u64,
}

#[derive(Debug)]
enum State {
    Publishing,
    Published(Published),
    Dropping(Published),
    Failed(Failure),
}

#[derive(Debug)]
struct Entry {
    record: Arc<SeedRecord>,
    state: State,
    connection: UnixStream,
    holders: u32,
    /// Of these, those on other hosts.
    leases: Vec<Arc<Lease>>,
    ends_with_children: bool,
    /// Dropped before it was published.
    drops_early: bool,
    /// Of the holders, those that held it by a lease of the agent before and have not said so again.
    returning: u32,
    /// For the next agent.
    kept: Option<Record>,
}

/// The table.
#[derive(Debug, Default)]
pub struct Seeds {
    table: Mutex<HashMap<SeedId, Entry>>,
    changed: Condvar,
    /// Why reports were refused, the oldest first; locked after `table`.
    refused: Mutex<VecDeque<(PrepareToken, Instant, Failure)>>,
}

impl Seeds {
    /// Takes a seed that has reported, if there are then no more than `most`.
    ///
    /// # Errors
    /// There are.
    pub fn add(
        &self,
        record: Arc<SeedRecord>,
        connection: UnixStream,
        most: usize,
    ) -> Result<(), Failure> {
        let mut table = self.table.lock();
        if table.len() >= most {
            let text = format!(
                "this agent already keeps {most} seeds (max_seeds): drop some (mitosis ls, mitosis drop)"
            );
            return Err(fail(FailureKind::Limit, text));
        }
        let entry = Entry {
            record: record.clone(),
            state: State::Publishing,
            connection,
            holders: 0,
            leases: Vec::new(),
            ends_with_children: false,
            drops_early: false,
            returning: 0,
            kept: None,
        };
        table.insert(record.id, entry);
        self.changed.notify_all();
        Ok(())
    }

    /// What the next agent will find of a seed.
    pub fn keep(&self, id: SeedId, kept: Record) {
        if let Some(entry) = self.table.lock().get_mut(&id) {
            entry.kept = Some(kept);
            entry.note();
        }
    }

    /// Takes a seed of the agent before, as it left it: its holders of then are holders until [`Self::stop_waiting`].
    pub fn adopt(
        &self,
        record: Arc<SeedRecord>,
        connection: UnixStream,
        published: Published,
        (kept, life): (Record, Life),
    ) {
        let entry = Entry {
            record: record.clone(),
            state: if life.is_dropping {
                State::Dropping(published)
            } else {
                State::Published(published)
            },
            connection,
            holders: life.leases,
            leases: Vec::new(),
            ends_with_children: life.ends_with_children,
            drops_early: false,
            returning: life.leases,
            kept: Some(kept),
        };
        // Of one that ends with its last holder none may be left: children on this host ended with the agent.
        entry.end_if_over();
        self.table.lock().insert(record.id, entry);
        self.changed.notify_all();
    }

    /// A host that held a seed by a lease of the agent before, or by one that was cut, holds it by this one.
    ///
    /// # Errors
    /// No such seed, or another key.
    pub fn rejoin(
        self: &Arc<Self>,
        id: SeedId,
        key: &ForkKey,
        lease: Arc<Lease>,
    ) -> Result<(Hold, bool), Failure> {
        let mut table = self.table.lock();
        let entry = table.get_mut(&id).ok_or_else(|| seed_gone(id))?;
        entry.authorize(key)?;
        match entry.returning {
            0 => entry.holders += 1,
            _ => entry.returning -= 1,
        }
        entry.leases.push(lease.clone());
        entry.note();
        let is_dropping = entry.ends_with_children || matches!(entry.state, State::Dropping(_));
        if is_dropping {
            lease.tell();
        }
        Ok((Hold { seeds: self.clone(), id, lease: Some(lease) }, is_dropping))
    }

    /// Who has not come back by now holds nothing.
    pub fn stop_waiting(&self) {
        for entry in self.table.lock().values_mut() {
            let gone = std::mem::take(&mut entry.returning);
            if gone > 0 {
                entry.holders = entry.holders.saturating_sub(gone);
                entry.note();
                entry.end_if_over();
            }
        }
    }

    /// There is no seed of this prepare call: its parent is told why.
    pub fn refuse(&self, token: PrepareToken, failure: Failure) {
        let _table = self.table.lock();
        self.note_refused(token, failure);
        self.changed.notify_all();
    }

    /// For a parent that asks later. The table is locked.
    fn note_refused(&self, token: PrepareToken, failure: Failure) {
        let mut refused = self.refused.lock();
        refused.retain(|(_, since, _)| since.elapsed() < PUBLISH_DEADLINE);
        if refused.len() >= MAX_SEEDS {
            refused.pop_front();
        }
        refused.push_back((token, Instant::now(), failure));
    }

    /// Ends a seed's publication.
    pub fn publish(&self, id: SeedId, result: Result<Published, Failure>) {
        if let Some(entry) = self.table.lock().get_mut(&id) {
            entry.state = match result {
                Ok(published) if entry.drops_early => State::Dropping(published),
                Ok(published) => State::Published(published),
                Err(failure) => State::Failed(failure),
            };
            match entry.state {
                // The process ends now; its parent may still be on its way to ask why.
                State::Failed(_) => entry.end(),
                _ => {
                    entry.note();
                    entry.end_if_over();
                }
            }
        }
        self.changed.notify_all();
    }

    /// Waits until the seed of a prepare call is published.
    ///
    /// # Errors
    /// Its publication's failure; the seed never reported.
    pub fn wait_published(&self, token: PrepareToken) -> Result<Arc<SeedRecord>, Failure> {
        let begun = Instant::now();
        let mut table = self.table.lock();
        loop {
            let entry = table.values().find(|entry| entry.record.token == token);
            let deadline = match entry.map(|entry| &entry.state) {
                Some(State::Published(_) | State::Dropping(_)) => {
                    return Ok(entry.expect("it was just looked at").record.clone());
                }
                Some(State::Failed(failure)) => return Err(failure.clone()),
                Some(State::Publishing) => PUBLISH_DEADLINE,
                None => match self.why_refused(token) {
                    Some(failure) => return Err(failure),
                    None => REPORT_DEADLINE,
                },
            };
            if self.changed.wait_until(&mut table, begun + deadline).timed_out() {
                let text = "the seed has not reported to the agent: it was killed (out of memory? a pids limit?) \
                            or has been dropped";
                return Err(fail(FailureKind::SeedGone, text));
            }
        }
    }

    fn why_refused(&self, token: PrepareToken) -> Option<Failure> {
        let refused = self.refused.lock();
        refused.iter().find(|(other, ..)| *other == token).map(|(.., failure)| failure.clone())
    }

    /// The record and descriptor of a seed, to whoever shows its fork key.
    ///
    /// # Errors
    /// No such seed, or another key. Ids are no secret; the two are told apart to help people.
    pub fn fetch(
        &self,
        id: SeedId,
        key: &ForkKey,
    ) -> Result<(Arc<SeedRecord>, Published), Failure> {
        self.table.lock().get(&id).ok_or_else(|| seed_gone(id))?.show(key)
    }

    /// Whether `key` is the seed's, in whatever state it is.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub fn authorize(&self, id: SeedId, key: &ForkKey) -> Result<(), Failure> {
        self.table.lock().get(&id).ok_or_else(|| seed_gone(id))?.authorize(key)
    }

    /// [`Self::fetch`] for one more holder, on this host or on another one with its lease.
    ///
    /// # Errors
    /// As [`Self::fetch`].
    pub fn fetch_and_hold(
        self: &Arc<Self>,
        id: SeedId,
        key: &ForkKey,
        lease: Option<Arc<Lease>>,
    ) -> Result<(Published, Hold), Failure> {
        let mut table = self.table.lock();
        let entry = table.get_mut(&id).ok_or_else(|| seed_gone(id))?;
        let (_, published) = entry.show(key)?;
        entry.holders += 1;
        if let Some(lease) = &lease {
            entry.leases.push(lease.clone());
            entry.note();
            if entry.ends_with_children {
                lease.tell();
            }
        }
        Ok((published, Hold { seeds: self.clone(), id, lease }))
    }

    /// The descriptor of a seed of this host, for its own administrator.
    ///
    /// # Errors
    /// No such seed.
    pub fn inspect(&self, id: SeedId) -> Result<Published, Failure> {
        match self.table.lock().get(&id).map(|entry| &entry.state) {
            Some(State::Published(published) | State::Dropping(published)) => Ok(published.clone()),
            Some(State::Failed(failure)) => Err(failure.clone()),
            Some(State::Publishing) | None => Err(seed_gone(id)),
        }
    }

    /// The handle of a published seed.
    pub fn handle(&self, record: &SeedRecord, advertise: Option<&str>) -> Handle {
        Handle {
            agent: advertise.map(str::to_owned),
            seed: record.id,
            key: record.fork_key.clone(),
        }
    }

    /// Counts one more holder; the guard's drop lets go.
    pub fn hold(self: &Arc<Self>, id: SeedId) -> Hold {
        if let Some(entry) = self.table.lock().get_mut(&id) {
            entry.holders += 1;
        }
        Hold { seeds: self.clone(), id, lease: None }
    }

    /// From now on the seed ends with its last holder. Gives the other hosts' leases, which are to be told.
    pub fn end_with_children(&self, id: SeedId) -> Vec<Arc<Lease>> {
        let mut table = self.table.lock();
        let Some(entry) = table.get_mut(&id) else { return Vec::new() };
        entry.ends_with_children = true;
        entry.note();
        entry.leases.clone()
    }

    /// Refuses new children; the seed ends now if nobody holds it, or when it is published. Gives the
    /// other hosts' leases, which are to be told.
    ///
    /// # Errors
    /// No such seed.
    pub fn drop_after_children(&self, id: SeedId) -> Result<Vec<Arc<Lease>>, Failure> {
        let mut table = self.table.lock();
        let entry = table.get_mut(&id).ok_or_else(|| seed_gone(id))?;
        if matches!(entry.state, State::Failed(_)) {
            table.remove(&id);
            return Ok(Vec::new());
        }
        entry.state = match std::mem::replace(&mut entry.state, State::Publishing) {
            State::Published(published) => State::Dropping(published),
            other => other,
        };
        entry.drops_early = matches!(entry.state, State::Publishing);
        entry.note();
        entry.end_if_over();
        Ok(entry.leases.clone())
    }

    /// Ends the seed now.
    ///
    /// # Errors
    /// No such seed.
    pub fn end(&self, id: SeedId) -> Result<(), Failure> {
        let table = self.table.lock();
        table.get(&id).ok_or_else(|| seed_gone(id))?.end();
        Ok(())
    }

    /// Forgets a seed whose connection has closed; who holds it on another host is told.
    pub fn forget(&self, id: SeedId) {
        let mut table = self.table.lock();
        let mut leases = Vec::new();
        if let Some(entry) = table.get(&id) {
            leases.clone_from(&entry.leases);
            // The parent may still be on its way to ask why there is no seed.
            if !matches!(entry.state, State::Failed(_)) {
                let text = "the seed has ended: it was killed (out of memory? a pids limit?) or has been dropped";
                self.note_refused(entry.record.token, fail(FailureKind::SeedGone, text));
                table.remove(&id);
            }
        }
        let is_stale = |entry: &Entry| {
            matches!(entry.state, State::Failed(_))
                && entry.record.created.elapsed() > PUBLISH_DEADLINE
        };
        table.retain(|_, entry| !is_stale(entry));
        self.changed.notify_all();
        drop(table);
        leases.iter().for_each(|lease| lease.tell());
    }

    /// Who has prepared a seed.
    pub(super) fn owner(&self, id: SeedId) -> Option<u32> {
        self.table.lock().get(&id).map(|entry| entry.record.user)
    }

    /// The seed of a prepare call.
    pub fn by_token(&self, token: PrepareToken) -> Option<SeedId> {
        self.table
            .lock()
            .values()
            .find(|entry| entry.record.token == token)
            .map(|entry| entry.record.id)
    }

    /// How many seeds there are, and how many leases other hosts have of them.
    pub fn count_with_leases(&self) -> (u64, u64) {
        let table = self.table.lock();
        let live = table.values().filter(|entry| !matches!(entry.state, State::Failed(_)));
        live.fold((0, 0), |(seeds, leases), entry| (seeds + 1, leases + entry.leases.len() as u64))
    }

    /// A line for each seed that somebody has prepared of whom `is_seen` holds.
    pub fn lines(&self, is_seen: impl Fn(u32) -> bool) -> Vec<SeedLine> {
        let table = self.table.lock();
        let seen = table.values().filter(|entry| is_seen(entry.record.user));
        let mut lines: Vec<SeedLine> = seen.filter_map(Entry::line).collect();
        drop(table);
        lines.sort_by_key(|line| std::cmp::Reverse(line.age_s));
        lines
    }
}

impl Entry {
    /// What is there for whoever shows the fork key.
    fn show(&self, key: &ForkKey) -> Result<(Arc<SeedRecord>, Published), Failure> {
        self.authorize(key)?;
        let id = self.record.id;
        match &self.state {
            State::Published(published) => Ok((self.record.clone(), published.clone())),
            State::Failed(failure) => Err(failure.clone()),
            State::Publishing | State::Dropping(_) => Err(seed_gone(id)),
        }
    }

    fn authorize(&self, key: &ForkKey) -> Result<(), Failure> {
        if self.record.fork_key == *key {
            return Ok(());
        }
        let id = self.record.id;
        let text = format!(
            "the fork key for seed {id} is wrong: copy the handle whole, as prepare() gave it"
        );
        Err(fail(FailureKind::KeyRefused, text))
    }

    fn end_if_over(&self) {
        let dropping = matches!(self.state, State::Dropping(_));
        if self.holders == 0 && (dropping || self.ends_with_children) {
            self.end();
        }
    }

    /// The seed's process sees the end of its connection and exits; whoever reads our end forgets it.
    fn end(&self) {
        let _ = self.connection.shutdown(Shutdown::Both);
    }

    /// Tells the next agent how it lives now.
    fn note(&self) {
        let Some(kept) = &self.kept else { return };
        let leases = u32::try_from(self.leases.len()).unwrap_or(u32::MAX);
        kept.write(Life {
            is_dropping: self.drops_early || matches!(self.state, State::Dropping(_)),
            ends_with_children: self.ends_with_children,
            leases: leases.saturating_add(self.returning),
        });
    }

    fn line(&self) -> Option<SeedLine> {
        let (state, published) = match &self.state {
            State::Publishing => ("publishing", None),
            State::Published(published) => ("published", Some(published)),
            State::Dropping(published) => ("dropping", Some(published)),
            State::Failed(_) => return None,
        };
        Some(SeedLine {
            seed: self.record.id,
            pid: self.record.pid,
            parent_pid: published.map_or(0, |p| p.parent_pid),
            exe: published.map_or_else(String::new, |p| p.exe.clone()),
            generation: published.map_or(0, |p| p.generation),
            pages: published.map_or(0, |p| p.pages),
            state: state.to_owned(),
            holders: self.holders,
            age_s: self.record.created.elapsed().as_secs(),
        })
    }
}

/// One holder of a seed.
#[derive(Debug)]
pub struct Hold {
    seeds: Arc<Seeds>,
    id: SeedId,
    /// On another host.
    lease: Option<Arc<Lease>>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let ours =
            |lease: &Arc<Lease>| self.lease.as_ref().is_some_and(|own| Arc::ptr_eq(own, lease));
        if let Some(entry) = self.seeds.table.lock().get_mut(&self.id) {
            entry.holders = entry.holders.saturating_sub(1);
            entry.leases.retain(|lease| !ours(lease));
            if self.lease.is_some() {
                entry.note();
            }
            entry.end_if_over();
        }
        // Whoever waits for its answer need not.
        if let Some(lease) = &self.lease {
            lease.note();
        }
    }
}

#[cfg(test)]
#[path = "seeds_tests.rs"]
mod tests;
