//! A report arrives -> the seed is published.
//!
//! ```text
//!  report + fds --describe--> descriptor --export--> rehearse (a child here, until prepare() would
//!  return; what it missed is hot) --> published
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use super::Agent;
use super::failure::fail;
use super::hosted::Hosted;
use super::rdma::{Offer, Served};
use super::rehearsal::Rehearsed;
use super::seed_pid;
use super::seeds::{Hold, Published, SeedRecord};
use crate::describe::inherited::Shown;
use crate::describe::{self, Described, SeedFiles, SeedIdentity, SiteScanner, TextSource};
use crate::descriptor::{
    BENEATH, CallSite, Descriptor, Export, MappedFile, Owner, SeedAddr, SeedRange, Source, VmaKind,
    codec,
};
use crate::export::arena::{ArenaCopy, Door};
use crate::export::{BytesBeneath, FileBeneath, ProcessExport};
use crate::halt;
use crate::id::{ForkKey, PrepareToken, ReadKey, SeedId};
use crate::prepare::{ResumeInfo, report};
use crate::resume::sites;
use crate::sys::credentials::PeerCredentials;
use crate::sys::{self, socket, timens};
use crate::wire::local::{Failure, FailureKind};

/// Texts whose call sites are remembered.
const MAX_SCANNED: usize = 4096;

/// Call sites of texts that were scanned before, by file, size, modification time and offset.
#[derive(Debug, Default)]
pub struct ScannedTexts {
    known: Mutex<HashMap<TextKey, Arc<[CallSite]>>>,
}

type TextKey = ((u64, u64), u64, i64, u64);

/// Kept for as long as a seed made of one of its children lives.
struct Ancestor {
    hosted: Arc<Hosted>,
    _hold: Option<Hold>,
}

impl SiteScanner for &ScannedTexts {
    fn scan(
        &mut self,
        file: &MappedFile,
        offset: u64,
        base: SeedAddr,
        text: &dyn TextSource,
    ) -> std::io::Result<Vec<CallSite>> {
        let key = (file.dev_ino, file.size, file.mtime_ns, offset);
        let known = self.known.lock().get(&key).cloned();
        let relative = match known {
            Some(known) => known,
            None => {
                let found: Arc<[CallSite]> = sites::scan(&text.bytes()?, SeedAddr(0)).into();
                let mut known = self.known.lock();
                if known.len() >= MAX_SCANNED {
                    known.clear();
                }
                known.insert(key, found.clone());
                found
            }
        };
        let moved =
            |site: &CallSite| CallSite { addr: SeedAddr(base.0 + site.addr.0), kind: site.kind };
        Ok(relative.iter().map(moved).collect())
    }
}

impl Agent {
    /// Takes a report and stays with the seed until it ends. Where there can be no seed, its parent is told.
    pub(super) fn take_report(
        self: &Arc<Self>,
        token: PrepareToken,
        bytes: &[u8],
        fds: Vec<OwnedFd>,
        connection: UnixStream,
    ) {
        let (record, report, files) = match self.enter_seed(token, bytes, fds, &connection) {
            Ok(entered) => entered,
            Err(failure) => {
                tracing::warn!(%failure, "a report was refused");
                return self.seeds.refuse(token, failure);
            }
        };
        halt::at(halt::Step::Publish);
        let ancestor = self.ancestor(&report, &files);
        let result = ancestor.as_ref().map_err(Clone::clone).and_then(|ancestor| {
            self.publish(&record, report, files, ancestor.as_ref(), &connection)
        });
        if let Err(failure) = &result {
            tracing::warn!(seed = %record.id, %failure, "a seed could not be published");
        }
        let is_published = result.is_ok();
        self.seeds.publish(record.id, result);
        if is_published {
            wait_for_end(connection);
        }
        self.seed_has_ended(record.id);
    }

    /// Stays with a published seed until it ends.
    pub(super) fn stay_with(&self, seed: SeedId, connection: UnixStream) {
        wait_for_end(connection);
        self.seed_has_ended(seed);
    }

    fn seed_has_ended(&self, seed: SeedId) {
        tracing::info!(%seed, "seed ended");
        self.exports.remove(seed);
        self.hosting.let_go(seed);
        self.seeds.forget(seed);
        self.keep_no_longer(seed);
    }

    fn enter_seed(
        &self,
        token: PrepareToken,
        bytes: &[u8],
        fds: Vec<OwnedFd>,
        connection: &UnixStream,
    ) -> Result<(Arc<SeedRecord>, report::Report, SeedFiles), Failure> {
        let mut report =
            report::parse(bytes).map_err(|error| fail(FailureKind::Protocol, error.to_string()))?;
        if let Some(reported) = report.credentials.take() {
            let unknown = |error| fail(FailureKind::Internal, format!("its credentials: {error}"));
            let peer = PeerCredentials::of(connection).map_err(unknown)?;
            let seen = describe::credentials::as_seen_here(reported, &peer);
            report.credentials = Some(seen.map_err(unknown)?);
        }
        let files = seed_files(fds)?;
        let pid = seed_pid::of(&files.mem, connection);
        report.root = own_root(pid)?;
        let record = Arc::new(SeedRecord {
            id: SeedId::random(),
            token,
            fork_key: ForkKey::random(),
            read_key: ReadKey::random(),
            pid,
            user: socket::peer(connection).map_or_else(|_| sys::user_id(), |peer| peer.user),
            created: Instant::now(),
        });
        let ours =
            connection.try_clone().map_err(|error| fail(FailureKind::Limit, error.to_string()))?;
        self.seeds.add(record.clone(), ours, self.config.limits.seeds)?;
        Ok((record, report, files))
    }

    fn publish(
        self: &Arc<Self>,
        record: &Arc<SeedRecord>,
        report: report::Report,
        files: SeedFiles,
        ancestor: Option<&Ancestor>,
        connection: &UnixStream,
    ) -> Result<Published, Failure> {
        let Offer { exports, door } = self.offer(&record.read_key);
        let owner = Owner { seed: record.id, epoch: 1, exports, arena: None };
        let stub = ancestor.map(|ancestor| ancestor.hosted.stub.clone());
        let not_carried = ancestor.and_then(|ancestor| ancestor.hosted.beneath);
        let inherited = ancestor.and_then(|ancestor| ancestor.hosted.inherited());
        let (seed, pid) = (record.id, record.pid);
        let identity = SeedIdentity { seed, pid, owner, stub, not_carried, inherited };
        let begun = Instant::now();
        let Described { mut descriptor, shown } =
            describe::describe(identity, report, &files, &mut &self.scanned)
                .map_err(|error| fail(FailureKind::NotForkable, error.to_string()))?;
        let mem = files.mem.try_clone();
        let described = begun.elapsed();
        let image = ancestor.and_then(|ancestor| ancestor.hosted.image_file()).map(Arc::new);
        let in_image = InImage { shown: &shown, image: image.as_ref() };
        let mut published = self.export(record, &mut descriptor, files.mem, door, in_image)?;
        let mut hot_pages = Vec::new();
        if self.config.rehearse && self.mounts().is_ok() {
            let size = published.descriptor.len() as u64;
            match self.rehearse(record, &descriptor, size) {
                Ok(Rehearsed { hot, warm }) => {
                    self.exports.set_hot(record.id, hot.clone());
                    hot_pages = hot;
                    descriptor.warm = warm;
                    published.descriptor = encoded(&descriptor)?.into();
                }
                Err(failure) => {
                    tracing::warn!(seed = %record.id, %failure, "no rehearsal; its pages will not be pushed");
                }
            }
        }
        // A seed of a child reads through that child's image, which ends with this agent.
        if ancestor.is_none() {
            match mem {
                Ok(mem) => self.keep(record, &published, hot_pages, connection, &mem),
                Err(error) => tracing::warn!(seed = %record.id, %error, "it ends with this agent"),
            }
        }
        self.counters.count_seed();
        tracing::info!(
            seed = %record.id, pages = published.pages, bytes = published.descriptor.len(),
            described_us = described.as_micros(), published_us = begun.elapsed().as_micros(),
            "seed published"
        );
        Ok(published)
    }

    /// By what ways a seed is READ, the preferred one first.
    pub(super) fn offer(&self, read_key: &ReadKey) -> Offer {
        let served = self.rdma.as_ref().and_then(|rdma| rdma.served.as_ref());
        let mut offer = served.map(Served::offer).unwrap_or_default();
        let agent = self.config.advertise.clone();
        offer.exports.push(Export::Tcp { agent, read_key: read_key.clone() });
        offer
    }

    /// Makes a seed readable. Its descriptor is told where its bytes lie for cards.
    pub(super) fn export(
        &self,
        record: &SeedRecord,
        descriptor: &mut Descriptor,
        mem: File,
        door: Option<Box<dyn Door>>,
        in_image: InImage<'_>,
    ) -> Result<Published, Failure> {
        let readable = readable(descriptor);
        let served = self.rdma.as_ref().and_then(|rdma| rdma.served.as_ref());
        let arena = served.map(|served| &served.arena).or(self.copies.as_ref());
        let arena = arena.map(|arena| {
            let copy = arena.lay(readable.clone());
            door.into_iter().fold(copy, ArenaCopy::behind)
        });
        let told = arena.as_ref().filter(|copy| copy.is_read_by_others());
        descriptor.owners[0].arena = told.map(ArenaCopy::map);
        let published = Published {
            files: descriptor.files.clone().into(),
            exe: descriptor.process.exe.clone(),
            parent_pid: descriptor.process.parent_pid,
            generation: descriptor.generation,
            pages: descriptor.page_table.pages(descriptor.page_size()),
            descriptor: encoded(descriptor)?.into(),
            slabs: descriptor.owners[0].arena.as_ref().map_or(0, |map| map.slabs.len()),
            clock_offset: timens::ahead(record.pid),
        };
        let read_key = record.read_key.clone();
        self.exports.add(record.id, ProcessExport { mem, readable, read_key, arena });
        self.exports.set_beneath(record.id, files_beneath(descriptor, record.pid, in_image));
        Ok(published)
    }

    /// What a seed made of a child lives on: pages that the child had not touched are still its own seed's.
    fn ancestor(
        &self,
        report: &report::Report,
        files: &SeedFiles,
    ) -> Result<Option<Ancestor>, Failure> {
        if report.generation == 0 {
            return Ok(None);
        }
        let mut id = [0u8; 8];
        let at = report.resume_area.addr.0 + offset_of!(ResumeInfo, seed) as u64;
        let hosted = match files.mem.read_exact_at(&mut id, at) {
            Ok(()) => self.hosting.hosted(SeedId(u64::from_le_bytes(id))),
            Err(_) => None,
        };
        let hosted = hosted.ok_or_else(|| {
            let text = "a child can be prepared on the host that resumed it, by its agent, alone: this agent does \
                        not know the seed that it was resumed from";
            fail(FailureKind::NotForkable, text)
        })?;
        let hold = hosted.is_local().then(|| self.seeds.hold(hosted.seed));
        Ok(Some(Ancestor { hosted, _hold: hold }))
    }
}

fn encoded(descriptor: &Descriptor) -> Result<Vec<u8>, Failure> {
    codec::encode(descriptor).map_err(|error| fail(FailureKind::NotForkable, error.to_string()))
}

/// What READs may ask for: what the page table says the seed owns, and nothing else of its memory.
fn readable(descriptor: &Descriptor) -> Vec<SeedRange> {
    let owned = descriptor.page_table.runs().iter().filter_map(|run| match run.source {
        Source::Owner { owner, addr } | Source::File { owner, addr, .. } if owner.0 == 0 => {
            Some(SeedRange::new(addr.0, addr.0 + run.range.len()))
        }
        _ => None,
    });
    joined(owned.collect())
}

/// The files beneath written pages whose bytes an image has: those of a seed that a child was made into.
#[derive(Clone, Copy, Default)]
pub(super) struct InImage<'a> {
    shown: &'a [Shown],
    image: Option<&'a Arc<File>>,
}

/// What READs of addresses beneath written pages are answered from.
fn files_beneath(descriptor: &Descriptor, pid: u32, in_image: InImage<'_>) -> Vec<FileBeneath> {
    let InImage { shown, image } = in_image;
    let beneath = descriptor.beneath().into_iter().filter_map(|vma| {
        let VmaKind::File { file, offset } = vma.kind else { return None };
        let start = SeedAddr(vma.range.start.0 - BENEATH);
        if let Ok(at) = shown.binary_search_by_key(&start, |shown| shown.range.start) {
            let bytes = BytesBeneath::Image(image?.clone());
            return Some(FileBeneath { range: vma.range, bytes, offset: shown[at].own.0 });
        }
        let file = descriptor.files.get(usize::from(file))?.clone();
        Some(FileBeneath { range: vma.range, bytes: BytesBeneath::File { file, pid }, offset })
    });
    beneath.collect()
}

/// The ranges, ascending, those that touch as one.
pub(super) fn joined(mut ranges: Vec<SeedRange>) -> Vec<SeedRange> {
    ranges.sort_unstable();
    ranges.dedup_by(|next, last| {
        let joins = next.start <= last.end;
        if joins {
            last.end = last.end.max(next.end);
        }
        joins
    });
    ranges
}

/// The root directory that the seed has changed to. One that is not known might be left by its children.
fn own_root(pid: u32) -> Result<Option<String>, Failure> {
    if pid == 0 {
        // In a pid namespace that is not seen from here: its root is told apart by nothing.
        return Ok(None);
    }
    describe::root_of(pid).map_err(|error| {
        let text = format!(
            "the root directory of process {pid} cannot be looked at ({error}): give the agent CAP_SYS_PTRACE"
        );
        fail(FailureKind::NotForkable, text)
    })
}

fn seed_files(fds: Vec<OwnedFd>) -> Result<SeedFiles, Failure> {
    let [mem, pagemap, smaps]: [OwnedFd; 3] = fds.try_into().map_err(|fds: Vec<OwnedFd>| {
        let text = format!("a report came with {} descriptors instead of 3", fds.len());
        fail(FailureKind::Protocol, text)
    })?;
    Ok(SeedFiles { mem: mem.into(), pagemap: pagemap.into(), smaps: smaps.into() })
}

/// Returns when the seed's side of the connection is closed: it has ended, or was ended.
fn wait_for_end(mut connection: UnixStream) {
    let mut byte = [0u8; 1];
    loop {
        match connection.read(&mut byte) {
            Ok(0) => return,
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return,
            _ => {}
        }
    }
}
