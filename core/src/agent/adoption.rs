//! Seeds outlive the agent: what this one leaves to the next, and takes of the one before.
//!
//! ```text
//!  published --keep--> keeper, heir --adopt--> exported anew, published or dropping --> kept again
//!                                                 '- hosts that held it: `Rejoin`, within LEASES_RETURN
//! ```

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Agent;
use super::failure::fail;
use super::kept::{Facts, Life, Record};
use super::publish::InImage;
use super::rdma::Offer;
use super::seeds::{Published, SeedRecord};
use crate::descriptor::{SeedRange, codec};
use crate::id::SeedId;
use crate::keeper::{Heir, KeptSeed, store};
use crate::sys::clock;
use crate::wire::local::{Failure, FailureKind};

/// How long the hosts that held a seed of the agent before may take to say so again: they try at least every second.
const LEASES_RETURN: Duration = Duration::from_secs(10);

impl Agent {
    /// Takes all seeds of the agent before, and has the keeper keep them and all others from now on. Whatever fails is
    /// told, and an agent without it is a good one.
    pub(super) fn adopt_and_outlive(self: &Arc<Self>) {
        let path = store::path_beside(&self.config.socket);
        let heir = Heir::find(&path).unwrap_or_else(|error| {
            tracing::warn!(%error, "seeds of the agent before are not taken");
            None
        });
        let told = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, path = %path.display(), "seeds end with this agent");
        };
        let outlives =
            self.outlives() && self.outlive(&path).inspect_err(|error| told(error)).is_ok();
        let adopted = heir.as_ref().map_or(0, |heir| self.adopt_all(heir));
        if outlives && let Err(error) = store::settle(&path) {
            told(&error);
        }
        // Only now: until then an end of this agent leaves them where they were.
        if let Some(heir) = heir {
            heir.is_relieved();
            if !self.outlives() {
                let _ = std::fs::remove_file(&path);
            }
        }
        if adopted > 0 {
            tracing::info!(seeds = adopted, "seeds of the agent before go on");
            self.await_holders();
        }
    }

    /// What the keeper keeps outlives this agent from now on.
    fn outlive(&self, path: &Path) -> Result<(), String> {
        let listener = store::listen(path).map_err(|error| error.to_string())?;
        let outlive = self.keeper.outlive(listener.as_fd(), self.config.restart_grace);
        outlive.map_err(|error| error.to_string())
    }

    /// Hosts that held seeds of the agent before have some time to say so.
    fn await_holders(&self) {
        let seeds = self.seeds.clone();
        let wait = move || {
            std::thread::sleep(LEASES_RETURN);
            seeds.stop_waiting();
        };
        if let Err(error) = std::thread::Builder::new().name("returning".to_owned()).spawn(wait) {
            tracing::warn!(%error, "hosts that held seeds are not waited for");
            self.seeds.stop_waiting();
        }
    }

    /// All seeds of an heir that can be had; gives how many.
    fn adopt_all(self: &Arc<Self>, heir: &Heir) -> usize {
        let mut adopted = 0;
        while let Some(kept) = next_of(heir) {
            let seed = SeedId(kept.seed);
            // Before anything notices that it has ended.
            if self.outlives() {
                self.keep_fds(seed, [&kept.connection, &kept.mem, &kept.record].map(AsFd::as_fd));
            }
            match self.adopt(kept) {
                Ok(()) => adopted += 1,
                Err(failure) => {
                    self.keep_no_longer(seed);
                    tracing::warn!(%seed, %failure, "a seed of the agent before has ended");
                }
            }
        }
        adopted
    }

    /// One seed, as it was.
    fn adopt(self: &Arc<Self>, kept: KeptSeed) -> Result<(), Failure> {
        let broken = |error: &dyn std::fmt::Display| fail(FailureKind::Internal, error.to_string());
        let for_table = kept.connection.try_clone().map_err(|error| broken(&error))?;
        let (record, facts, life) = Record::open(kept.record).map_err(|error| broken(&error))?;
        let Facts { id, token, fork_key, read_key, pid, user, created_ns, hot, descriptor } = facts;
        let age = u64::try_from(clock::monotonic_ns() - created_ns).unwrap_or(0);
        let now = Instant::now();
        let created = now.checked_sub(Duration::from_nanos(age)).unwrap_or(now);
        let fixed = Arc::new(SeedRecord { id, token, fork_key, read_key, pid, user, created });
        let mut descriptor = codec::decode(&descriptor).map_err(|error| broken(&error))?;
        let Offer { exports, door } = self.offer(&fixed.read_key);
        // The codec refuses a descriptor without an owner.
        let owner = &mut descriptor.owners[0];
        (owner.exports, owner.epoch) = (exports, owner.epoch.wrapping_add(1));
        let mem = File::from(kept.mem);
        // None of them was made of a child, whose image would have ended.
        let published = self.export(&fixed, &mut descriptor, mem, door, InImage::default())?;
        self.exports.set_hot(id, hot);
        self.seeds.adopt(fixed, for_table.into(), published, (record, life));
        let (agent, watched) = (self.clone(), UnixStream::from(kept.connection));
        let stay = move || agent.stay_with(id, watched);
        let spawned = std::thread::Builder::new().name("local".to_owned()).spawn(stay);
        spawned.map_err(|error| {
            self.exports.remove(id);
            self.seeds.forget(id);
            broken(&error)
        })?;
        tracing::info!(seed = %id, leases = life.leases, "a seed of the agent before goes on");
        Ok(())
    }

    /// Leaves a seed to the next agent. Where that cannot be, it ends with this one.
    pub(super) fn keep(
        &self,
        seed: &SeedRecord,
        published: &Published,
        hot: Vec<SeedRange>,
        connection: &UnixStream,
        mem: &File,
    ) {
        if !self.outlives() {
            return;
        }
        let age = i64::try_from(seed.created.elapsed().as_nanos()).unwrap_or(0);
        let facts = Facts {
            id: seed.id,
            token: seed.token,
            fork_key: seed.fork_key.clone(),
            read_key: seed.read_key.clone(),
            pid: seed.pid,
            user: seed.user,
            created_ns: clock::monotonic_ns() - age,
            hot,
            descriptor: published.descriptor.to_vec(),
        };
        match Record::new(&facts, Life::default()) {
            Ok(record) => {
                self.keep_fds(seed.id, [connection.as_fd(), mem.as_fd(), record.file().as_fd()]);
                self.seeds.keep(seed.id, record);
            }
            Err(error) => tracing::warn!(seed = %seed.id, %error, "it ends with this agent"),
        }
    }

    fn keep_fds(&self, seed: SeedId, fds: [BorrowedFd<'_>; 3]) {
        if let Err(error) = self.keeper.keep(seed.0, fds) {
            tracing::warn!(%seed, %error, "it ends with this agent");
        }
    }

    /// A seed has ended.
    pub(super) fn keep_no_longer(&self, seed: SeedId) {
        if self.outlives()
            && let Err(error) = self.keeper.forget(seed.0)
        {
            tracing::debug!(%seed, %error, "the keeper still has it");
        }
    }

    /// Whether seeds outlive this agent. One that ends with its starter leaves nothing.
    pub(super) fn outlives(&self) -> bool {
        !self.config.restart_grace.is_zero() && self.config.own_directory.is_none()
    }

    /// The end of this agent is the end of its seeds.
    pub(super) fn leave_nothing(&self) {
        if self.outlives() {
            // A keeper that is gone keeps nothing.
            let _ = self.keeper.end_with_agent();
            let _ = std::fs::remove_file(store::path_beside(&self.config.socket));
        }
    }
}

/// The next seed of an heir; `None` where nothing more is to be had of it.
fn next_of(heir: &Heir) -> Option<KeptSeed> {
    heir.next_seed().unwrap_or_else(|error| {
        tracing::warn!(%error, "seeds of the agent before are not taken");
        None
    })
}
