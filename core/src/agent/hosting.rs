//! Seeds of any host as they live on this one: descriptor, image, template, lease. Built at the first
//! resume (or rehearsal), shared by all children here, let go after the last one.
//!
//! ```text
//!  resume --> fetch descriptor --> fit? --> mount, image --> push (beside) --> template --> child, child, ...
//! ```

use std::collections::HashMap;
use std::fs::File;
use std::net::{Shutdown, TcpStream};
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::Agent;
use super::failure::{fail, no_local_seed, seed_gone};
use super::files;
use super::fit;
use super::seeds::{Hold, Published, SeedRecord};
use crate::descriptor::{ArenaNews, CallSite, Descriptor, Export, StubPlace, codec};
use crate::fabric::tcp::PushReport;
use crate::id::{ChildId, ForkKey, Handle, SeedId};
use crate::image::{Image, ImageLayout, ImageSpec, Mount, PageLost, PagerConfig};
use crate::resume::{
    ChildSpec, HostFacts, Placement, ResumeError, Template, TemplateSpec, blob, stub,
};
use crate::wire::control::Channel;
use crate::wire::local::{Failure, FailureKind};

/// Images alive at once on one host; each has a FUSE connection and its pager threads.
pub const MAX_HOSTED: usize = 256;

/// A seed as it lives on this host.
#[derive(Debug)]
pub struct Hosted {
    /// Its id.
    pub seed: SeedId,
    /// Bytes of its descriptor.
    pub descriptor_bytes: u64,
    /// Pages that it has in all.
    pub pages_total: u64,
    /// Forks between its children and the first process.
    pub generation: u64,
    /// Where its children's stub lies, and the call sites that lead there: for seeds made of them.
    pub stub: (StubPlace, Vec<CallSite>),
    /// The key that the first resume showed; a later one must show the same.
    key: ForkKey,
    /// Ends with its last child, without lingering.
    pub ends_with_children: bool,
    /// Set by the owner: no more children.
    pub dropping: AtomicBool,
    /// Its template or its lease is gone: the next resume asks the owner and makes another one.
    pub is_broken: AtomicBool,
    // Dropped in this order: first nothing can be cloned, then nothing is served, then the owner is told.
    template: Template,
    image: Image,
    lease: Option<Lease>,
}

/// What tells another host that this one still needs its seed: a connection to its agent; closing it lets
/// go. A seed of this host is held by its children alone.
#[derive(Debug)]
struct Lease(TcpStream);

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.0.shutdown(Shutdown::Both);
    }
}

/// The seeds that live on this host.
#[derive(Debug, Default)]
pub struct Hosting {
    table: Mutex<HashMap<SeedId, Arc<Place>>>,
}

/// One seed's place: its lock is held while it is built, so that it is built once.
#[derive(Debug, Default)]
struct Place {
    hosted: Mutex<Option<Arc<Hosted>>>,
    idle_since: Mutex<Option<Instant>>,
}

/// A descriptor and what came with it.
struct Found {
    descriptor: Descriptor,
    bytes: u64,
    lease: Option<Lease>,
    channel: Option<Channel>,
    digests: Vec<Option<[u8; 32]>>,
    arena: ArenaNews,
    clock_offset_ns: i64,
    place: SeedPlace,
}

/// Where a seed is, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SeedPlace {
    Here,
    Elsewhere,
    /// Here, and its child is to touch what it would touch elsewhere: nothing is mapped from local files.
    Rehearsal,
}

impl Hosted {
    /// Starts one child.
    ///
    /// # Errors
    /// The template's.
    pub fn child(&self, spec: &ChildSpec<'_>) -> Result<u32, Failure> {
        self.template.child(spec).map_err(|error| {
            if matches!(error, ResumeError::TemplateGone { .. } | ResumeError::Timeout { .. }) {
                self.is_broken.store(true, Ordering::Release);
            }
            fail(
                FailureKind::HostUnfit,
                format!("a child of seed {} could not be started: {error}", self.seed),
            )
        })
    }

    /// Has `count` children wait to be started.
    ///
    /// # Errors
    /// The template's.
    pub fn clone_ahead(&self, count: usize) -> Result<(), ResumeError> {
        self.template.clone_ahead(count)
    }

    /// Whether there can be another child.
    pub fn may_have_more(&self) -> bool {
        let over = self.dropping.load(Ordering::Acquire) || self.is_broken.load(Ordering::Acquire);
        !over && !self.ends_with_children
    }

    /// Why a child ended before its first instruction, if it did.
    pub fn why_failed(&self, child: ChildId) -> Option<String> {
        self.template.why_failed(child)
    }

    /// Whether the seed is one of this host's own.
    pub fn is_local(&self) -> bool {
        self.lease.is_none()
    }

    /// Its image, for counters and traces.
    pub fn image(&self) -> &Image {
        &self.image
    }
}

impl Hosting {
    /// The hosted seed behind a handle, built if need be; the flag tells whether it was.
    ///
    /// # Errors
    /// The seed cannot be had, or this host cannot run it.
    pub fn get(
        &self,
        agent: &Arc<Agent>,
        handle: &Handle,
        ends_with_children: bool,
    ) -> Result<(Arc<Hosted>, bool), Failure> {
        let place = self.place(handle.seed)?;
        let mut hosted = place.hosted.lock();
        if !self.stands(handle.seed, &place) {
            drop(hosted);
            return self.get(agent, handle, ends_with_children);
        }
        if let Some(hosted) = hosted.as_ref() {
            if hosted.dropping.load(Ordering::Acquire) {
                return Err(seed_gone(handle.seed));
            }
            if hosted.key == handle.key && !hosted.is_broken.load(Ordering::Acquire) {
                *place.idle_since.lock() = None;
                return Ok((hosted.clone(), false));
            }
            if hosted.key != handle.key {
                // The owner decides, in its own words.
                agent.find(handle, false)?;
            }
        }
        let begun = Instant::now();
        let found = agent
            .find(handle, ends_with_children)
            .inspect_err(|_| self.clear(handle.seed, hosted.as_ref()))?;
        let found_us = begun.elapsed().as_micros();
        let built = build(agent, handle, found, ends_with_children)
            .inspect_err(|_| self.clear(handle.seed, hosted.as_ref()))?;
        let hosted_us = begun.elapsed().as_micros();
        tracing::info!(seed = %handle.seed, found_us, hosted_us, "seed hosted");
        *place.idle_since.lock() = None;
        *hosted = Some(built.clone());
        Ok((built, true))
    }

    /// A seed's place, made if need be. It may be gone by the time that it is locked: see [`Self::stands`].
    fn place(&self, seed: SeedId) -> Result<Arc<Place>, Failure> {
        let mut table = self.table.lock();
        if !table.contains_key(&seed) && table.len() >= MAX_HOSTED {
            let text = format!("this host already holds {MAX_HOSTED} seeds' images");
            return Err(fail(FailureKind::Limit, text));
        }
        Ok(table.entry(seed).or_default().clone())
    }

    /// Whether a place that is locked is still the seed's: whoever held it before may have failed and taken
    /// it away, and what is built at such a place nobody finds.
    fn stands(&self, seed: SeedId, place: &Arc<Place>) -> bool {
        self.table.lock().get(&seed).is_some_and(|standing| Arc::ptr_eq(standing, place))
    }

    /// Takes away a place that is locked and at which nothing stands.
    fn clear(&self, seed: SeedId, hosted: Option<&Arc<Hosted>>) {
        if hosted.is_none() {
            self.table.lock().remove(&seed);
        }
    }

    /// Builds a seed of this host without entering it: for its rehearsal.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn rehearse(
        agent: &Arc<Agent>,
        handle: &Handle,
        descriptor: Descriptor,
        bytes: u64,
    ) -> Result<Arc<Hosted>, Failure> {
        let found = Found {
            descriptor,
            bytes,
            digests: Vec::new(),
            arena: ArenaNews::default(),
            lease: None,
            channel: None,
            clock_offset_ns: 0,
            place: SeedPlace::Rehearsal,
        };
        build(agent, handle, found, false)
    }

    /// A seed that is hosted here now.
    pub fn hosted(&self, seed: SeedId) -> Option<Arc<Hosted>> {
        let place = self.table.lock().get(&seed).cloned()?;
        let hosted = place.hosted.lock();
        hosted.clone()
    }

    /// No more children of this seed here; its image goes with the last one, or now if there is none.
    pub fn let_go(&self, seed: SeedId) {
        let place = self.table.lock().get(&seed).cloned();
        let Some(place) = place else { return };
        if let Some(hosted) = place.hosted.lock().as_ref() {
            hosted.dropping.store(true, Ordering::Release);
        }
        // Other seeds' images linger as they do.
        self.sweep(std::time::Duration::MAX);
    }

    /// Lets go of images without children: at once where the seed is ending, else after `linger`.
    pub fn sweep(&self, linger: std::time::Duration) {
        let mut over = Vec::new();
        self.table.lock().retain(|_, place| {
            // Somebody is building or taking it right now: it is in use.
            let Some(mut hosted) = place.hosted.try_lock() else { return true };
            let Some(current) = hosted.as_ref() else { return Arc::strong_count(place) > 1 };
            if Arc::strong_count(current) > 1 {
                *place.idle_since.lock() = None;
                return true;
            }
            let since = *place.idle_since.lock().get_or_insert_with(Instant::now);
            let ending = current.ends_with_children
                || current.dropping.load(Ordering::Acquire)
                || current.is_broken.load(Ordering::Acquire);
            if !ending && since.elapsed() < linger {
                return true;
            }
            over.extend(hosted.take());
            false
        });
        // Tearing an image down takes milliseconds: outside of the lock.
        drop(over);
    }

    /// Calls `each` with every hosted seed.
    pub fn for_each(&self, mut each: impl FnMut(&Hosted)) {
        let places: Vec<_> = self.table.lock().values().cloned().collect();
        for place in places {
            if let Some(hosted) = place.hosted.try_lock().and_then(|hosted| hosted.clone()) {
                each(&hosted);
            }
        }
    }
}

impl Agent {
    /// A seed of this host, to whoever shows its key.
    pub(super) fn fetch_own(
        &self,
        handle: &Handle,
    ) -> Result<(Arc<SeedRecord>, Published), Failure> {
        let fetched = self.seeds.fetch(handle.seed, &handle.key);
        fetched.map_err(|failure| said_of(handle, failure))
    }

    /// Holds a seed of this host for whoever shows its key.
    pub(super) fn hold_own(&self, handle: &Handle) -> Result<Hold, Failure> {
        let held = self.seeds.fetch_and_hold(handle.seed, &handle.key, None);
        held.map(|(_, hold)| hold).map_err(|failure| said_of(handle, failure))
    }

    /// Gets a descriptor: from this host's own table, or from the agent that the handle names.
    fn find(self: &Arc<Self>, handle: &Handle, ends_with_children: bool) -> Result<Found, Failure> {
        let decode = |bytes: &[u8]| {
            codec::decode(bytes).map_err(|error| {
                fail(
                    FailureKind::Protocol,
                    format!("the descriptor of seed {}: {error}", handle.seed),
                )
            })
        };
        if self.is_own(handle.agent.as_deref()) {
            let (_, published) = self.fetch_own(handle)?;
            return Ok(Found {
                descriptor: decode(&published.descriptor)?,
                bytes: published.descriptor.len() as u64,
                digests: Vec::new(),
                arena: ArenaNews::default(),
                lease: None,
                channel: None,
                clock_offset_ns: 0,
                place: SeedPlace::Here,
            });
        }
        let agent = handle.agent.as_deref().unwrap_or_default();
        let fetched = self.peers.fetch(agent, handle, ends_with_children)?;
        let stream = fetched.lease.stream().try_clone();
        let stream = stream.map_err(|error| fail(FailureKind::Internal, error.to_string()))?;
        Ok(Found {
            descriptor: decode(&fetched.bytes)?,
            bytes: fetched.bytes.len() as u64,
            digests: fetched.digests,
            arena: fetched.arena,
            lease: Some(Lease(stream)),
            channel: Some(fetched.lease),
            clock_offset_ns: fetched.clock_offset_ns,
            place: SeedPlace::Elsewhere,
        })
    }
}

impl Agent {
    /// Lets the owner push the seed's hot pages into the image.
    fn take_push(&self, descriptor: &Descriptor, image: &Image, files: &HashMap<u16, File>) {
        let seed = descriptor.seed;
        let Some((Some(owner), read_key)) =
            descriptor.owners[0].exports.iter().find_map(Export::tcp)
        else {
            return;
        };
        let holes = files::mapped_ranges(descriptor, files);
        let pushed = self.tcp.push(owner, seed, read_key, &holes, &mut |addr, bytes| {
            if let Err(error) = image.store(addr, bytes) {
                tracing::debug!(%seed, %addr, %error, "pushed pages were not kept");
            }
        });
        match pushed {
            Ok(PushReport { runs, bytes, took }) => {
                tracing::info!(%seed, runs, bytes, took_us = took.as_micros(), "pushed");
            }
            Err(error) => tracing::warn!(%seed, %error, "no push; pages will be pulled on touch"),
        }
    }
}

fn build(
    agent: &Arc<Agent>,
    handle: &Handle,
    found: Found,
    ends_with_children: bool,
) -> Result<Arc<Hosted>, Failure> {
    let begun = Instant::now();
    let Found { descriptor, bytes, digests, arena, lease, channel, clock_offset_ns, place } = found;
    fit::check(&descriptor)?;
    let local_files = match place {
        SeedPlace::Here => files::unchanged(&descriptor),
        SeedPlace::Elsewhere => agent.identical_files(handle, &descriptor, &digests)?,
        SeedPlace::Rehearsal => HashMap::new(),
    };
    let unfit = |error: &dyn std::fmt::Display| {
        fail(
            FailureKind::HostUnfit,
            format!("seed {} cannot be resumed here: {error}", handle.seed),
        )
    };
    let layout = ImageLayout::new(&descriptor.vmas, descriptor.page_size());
    let facts = HostFacts::of_keeper(agent.keeper.pid()).map_err(|error| unfit(&error))?;
    let placement =
        Placement::choose(&descriptor, &facts.avoid()).map_err(|error| unfit(&error))?;
    let stub_entry = placement.base + blob::stub_entry();
    let diversions = stub::patches(&descriptor.sites, &placement.trampolines, stub_entry)
        .map_err(|error| unfit(&error))?;
    let mounts = agent.mounts()?;
    let mount = match place {
        SeedPlace::Rehearsal => Mount::exact(),
        SeedPlace::Here | SeedPlace::Elsewhere => mounts.take(),
    };
    let mount = mount.map_err(|error| unfit(&error))?;
    let spec = ImageSpec {
        seed: handle.seed,
        layout: layout.clone(),
        page_table: descriptor.page_table.clone(),
        page_size: descriptor.page_size(),
        owners: descriptor.owners.clone(),
        local_files: clone_files(&local_files)?,
        patches: diversions.patches,
        buffers: agent.buffers.clone(),
        fabrics: agent.fabrics(),
        pager: PagerConfig {
            cpus: agent.config.pager_cpus.clone(),
            miss_deadline: agent.config.miss_deadline,
            ..PagerConfig::default()
        },
        lost: agent.lost_page_sink(),
    };
    let image = Image::open(mount, spec).map_err(|error| unfit(&error))?;
    image.arena_news(&arena).map_err(|error| unfit(&error))?;
    let image_us = begun.elapsed().as_micros();
    if place == SeedPlace::Rehearsal {
        image.trace_start();
    }
    let offset_of = |addr| layout.offset_of(addr);
    let table =
        stub::table(&descriptor, &offset_of, image.dev_inode()).map_err(|error| unfit(&error))?;
    // The push arrives beside the making of the template: both take about a millisecond.
    let template = std::thread::scope(|scope| {
        if place == SeedPlace::Elsewhere {
            scope.spawn(|| agent.take_push(&descriptor, &image, &local_files));
        }
        let spec = TemplateSpec {
            descriptor: &descriptor,
            placement: &placement,
            offset_of: &offset_of,
            image: image.file(),
            local_files: &local_files,
            trampolines: &diversions.trampolines,
            stub_table: &table,
            clock_offset_ns,
        };
        Template::start(&agent.keeper, &spec)
    })
    .map_err(|error| unfit(&error))?;
    let template_us = begun.elapsed().as_micros();
    tracing::info!(seed = %handle.seed, image_us, template_us, "template ready");
    let hosted = Arc::new(Hosted {
        seed: handle.seed,
        descriptor_bytes: bytes,
        pages_total: descriptor.page_table.pages(descriptor.page_size()),
        generation: descriptor.generation,
        stub: (placement.as_stub_place(), descriptor.sites.clone()),
        key: handle.key.clone(),
        ends_with_children,
        dropping: AtomicBool::new(false),
        is_broken: AtomicBool::new(false),
        template,
        image,
        lease,
    });
    if let Some(channel) = channel {
        agent.watch_lease(&hosted, channel);
    }
    Ok(hosted)
}

fn said_of(handle: &Handle, failure: Failure) -> Failure {
    if handle.agent.is_some() { failure } else { no_local_seed(failure) }
}

fn clone_files(files: &HashMap<u16, File>) -> Result<HashMap<u16, File>, Failure> {
    files
        .iter()
        .map(|(index, file)| Ok((*index, file.try_clone()?)))
        .collect::<std::io::Result<_>>()
        .map_err(|error| {
            fail(FailureKind::Limit, format!("no descriptor left for a mapped file: {error}"))
        })
}

/// What a child is started with.
pub struct Start<'a> {
    /// ResumeInfo role.
    pub role: u32,
    /// Which of how many.
    pub index: u32,
    /// Its name.
    pub child: ChildId,
    /// For `Resumed::payload`.
    pub payload: &'a [u8],
    /// `NAME=VALUE\0...`.
    pub environment: &'a [u8],
    /// 0, 1, 2.
    pub stdio: [BorrowedFd<'a>; 3],
}

impl Hosted {
    /// Starts one child as told.
    ///
    /// # Errors
    /// The template's.
    pub fn start(&self, start: &Start<'_>) -> Result<u32, Failure> {
        self.child(&ChildSpec {
            role: start.role,
            index: start.index,
            generation: self.generation,
            seed: self.seed,
            child: start.child,
            payload: start.payload,
            environment: start.environment,
            stdio: start.stdio,
            extra_clone_flags: 0,
        })
    }
}

/// A lost page, in the words that its child's standard error and its waiter get.
pub fn lost_page_text(lost: &PageLost) -> String {
    format!(
        "mitosis: page lost: seed {} on host {}, address {}: {}",
        lost.seed, lost.owner_host, lost.addr, lost.reason
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_was_taken_away_is_not_built_at() {
        let hosting = Hosting::default();
        let seed = SeedId(7);
        let (first, waiting) = (hosting.place(seed).unwrap(), hosting.place(seed).unwrap());
        let locked = first.hosted.lock();
        assert!(hosting.stands(seed, &first));
        hosting.clear(seed, locked.as_ref());
        drop(locked);
        // Whoever has waited meanwhile begins anew, beside nobody.
        let _locked = waiting.hosted.lock();
        assert!(!hosting.stands(seed, &waiting));
        assert!(hosting.stands(seed, &hosting.place(seed).unwrap()));
    }
}
