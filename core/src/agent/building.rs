//! How a seed comes to live on this host.
//!
//! ```text
//!  find (descriptor, digests, lease) --> fit? --> local files --> mount, image --> template
//!                                                                       \-- push, beside it and the first child
//! ```

use std::collections::HashMap;
use std::fmt::Display;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::Agent;
use super::ahead;
use super::failure::{fail, no_local_seed};
use super::files;
use super::fit;
use super::holding::{Lease, Unwatched};
use super::hosted::{Blueprint, Hosted, Parts, Stay};
use super::listeners::SeedListeners;
use super::seeds::{Hold, Published, SeedRecord};
use crate::describe;
use crate::descriptor::{
    ArenaNews, CarriedFiles, Clocks, Descriptor, Export, FileKind, Patch, SeedRange, Vma, codec,
};
use crate::fabric::tcp::PushReport;
use crate::halt;
use crate::id::Handle;
use crate::image::{Image, ImageLayout, ImageSpec, Mount, PagerConfig, Recording};
use crate::resume::{HostFacts, HostVdso, Placement, Vdso, VdsoError, blob, stub, vdso};
use crate::wire::control::Channel;
use crate::wire::local::{Failure, FailureKind};

/// A descriptor and what came with it.
pub(super) struct Found {
    descriptor: Descriptor,
    bytes: u64,
    stay: Stay,
    channel: Option<Channel>,
    digests: Vec<Option<[u8; 32]>>,
    arena: ArenaNews,
    clock_offset: Clocks,
    place: SeedPlace,
}

impl Found {
    /// A seed of this host, for its rehearsal.
    pub(super) fn to_rehearse(descriptor: Descriptor, bytes: u64) -> Self {
        Found {
            descriptor,
            bytes,
            digests: Vec::new(),
            arena: ArenaNews::default(),
            stay: Stay::Rehearsal,
            channel: None,
            clock_offset: Clocks::default(),
            place: SeedPlace::Rehearsal,
        }
    }
}

/// Where a seed is, seen from here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SeedPlace {
    Here,
    Elsewhere,
    /// Here, and its child is to touch what it would touch elsewhere: nothing is mapped from local files.
    Rehearsal,
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
    pub(super) fn find(
        self: &Arc<Self>,
        handle: &Handle,
        ends_with_children: bool,
    ) -> Result<Found, Failure> {
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
            let stay = Stay::Hold(self.hold_own(handle)?);
            return Ok(Found {
                descriptor: decode(&published.descriptor)?,
                bytes: published.descriptor.len() as u64,
                digests: Vec::new(),
                arena: ArenaNews::default(),
                stay,
                channel: None,
                clock_offset: published.clock_offset,
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
            stay: Stay::Lease(Lease::new(stream)),
            channel: Some(fetched.lease),
            clock_offset: fetched.clock_offset,
            place: SeedPlace::Elsewhere,
        })
    }
}

impl Agent {
    /// Says which open files of a seed children will not find here.
    fn note_missing_files(&self, descriptor: &Descriptor) {
        let carried = descriptor.carried.as_ref().map_or(&[][..], CarriedFiles::files);
        let missing = carried.iter().filter_map(|file| match &file.kind {
            // Whoever follows this one of the agent's own would find another.
            FileKind::Path { path, .. } if !path.starts_with("/proc/self/") => {
                std::fs::symlink_metadata(path).is_err().then_some((file.numbers[0].fd, path))
            }
            _ => None,
        });
        let mut count = 0;
        for (fd, path) in missing {
            tracing::warn!(seed = %descriptor.seed, fd, path, "a file of the seed's is not here: EBADF");
            count += 1;
        }
        self.counters.count_missing_files(count);
    }

    /// Lets the owner push the seed's hot pages into the image, on a thread of its own: whoever runs ahead of the push
    /// misses as ever. What it gives is true until the push has ended.
    fn begin_push(
        self: &Arc<Self>,
        descriptor: &Descriptor,
        image: &Image,
        holes: Vec<SeedRange>,
    ) -> Arc<AtomicBool> {
        let seed = descriptor.seed;
        let tcp = descriptor.owners[0].exports.iter().find_map(Export::tcp);
        let Some((Some(owner), read_key)) = tcp else { return Arc::default() };
        let (agent, inlet) = (Arc::clone(self), image.inlet());
        let (owner, read_key) = (owner.to_owned(), read_key.clone());
        let is_pushing = Arc::new(AtomicBool::new(true));
        let ends = Arc::clone(&is_pushing);
        let take = move || {
            let mut store = |addr, bytes: &[u8]| match inlet.store(addr, bytes) {
                Err(error) if error.kind() == ErrorKind::NotConnected => ControlFlow::Break(()),
                Err(error) => {
                    tracing::debug!(%seed, %addr, %error, "pushed pages were not kept");
                    ControlFlow::Continue(())
                }
                Ok(()) => ControlFlow::Continue(()),
            };
            let pushed = agent.tcp.push(&owner, seed, &read_key, &holes, &mut store);
            ends.store(false, Ordering::Release);
            match pushed {
                Ok(PushReport { runs, bytes, took }) => {
                    tracing::info!(%seed, runs, bytes, took_us = took.as_micros(), "pushed");
                }
                Err(error) => tracing::warn!(%seed, %error, "no push; pages are pulled on touch"),
            }
        };
        match std::thread::Builder::new().name("push".to_owned()).spawn(take) {
            Ok(_) => is_pushing,
            Err(error) => {
                tracing::warn!(%seed, %error, "no thread for a push; pages are pulled on touch");
                Arc::default()
            }
        }
    }
}

/// Builds what was found.
///
/// # Errors
/// This host cannot run it.
pub(super) fn build(
    agent: &Arc<Agent>,
    handle: &Handle,
    found: Found,
    ends_with_children: bool,
) -> Result<Arc<Hosted>, Failure> {
    let begun = Instant::now();
    let Found { mut descriptor, bytes, digests, arena, stay, channel, clock_offset, place } = found;
    // Dropped before the lease is, wherever this is left.
    let unwatched = channel.as_ref().and_then(|channel| agent.unwatched(handle, channel));
    let unfit = |error: &dyn Display| {
        let text = format!("seed {} cannot be resumed here: {error}", handle.seed);
        fail(FailureKind::HostUnfit, text)
    };
    fit::check(&descriptor)?;
    if place != SeedPlace::Rehearsal {
        agent.note_missing_files(&descriptor);
    }
    let local_files = match place {
        SeedPlace::Here => files::unchanged(&descriptor),
        SeedPlace::Elsewhere => agent.identical_files(handle, &descriptor, &digests)?,
        SeedPlace::Rehearsal => HashMap::new(),
    };
    let facts = HostFacts::of_keeper(agent.keeper.pid()).map_err(|error| unfit(&error))?;
    let beneath = descriptor.beneath();
    let all = [&descriptor.vmas[..], &beneath].concat();
    let layout = ImageLayout::new(&all, descriptor.page_size());
    let mut placement =
        Placement::choose(&descriptor, &facts.avoid()).map_err(|error| unfit(&error))?;
    placement.find_room_beneath(&descriptor, layout.beneath());
    let stub_entry = placement.base + blob::stub_entry();
    let diversions = stub::patches(&descriptor.sites, &placement.trampolines, stub_entry)
        .map_err(|error| unfit(&error))?;
    let watched = match place {
        SeedPlace::Here | SeedPlace::Elsewhere => agent.traces.watched(handle),
        SeedPlace::Rehearsal => None,
    };
    let recording = watched.map(|watched| watched.recording(&descriptor)).unwrap_or_default();
    let image = open_image(
        agent,
        &descriptor,
        (layout, &beneath),
        local_files,
        diversions.patches,
        (place, recording),
        &unfit,
    )?;
    image.arena_news(&arena).map_err(|error| unfit(&error))?;
    let image_us = begun.elapsed().as_micros();
    let offset_of = |addr| image.layout().offset_of(addr);
    let is_here = |file| image.local_files().contains_key(&file);
    let stub_table =
        stub::table(&descriptor, &offset_of, image.dev_inode(), placement.beneath, &is_here)
            .map_err(|error| unfit(&error))?;
    let vdso =
        plan_vdso(agent, &descriptor, &placement, &facts, &image).map_err(|error| unfit(&error))?;
    let trampolines = diversions.trampolines;
    // A rehearsal changes nothing of anybody's.
    let shared_files = match place {
        SeedPlace::Here | SeedPlace::Elsewhere => {
            agent.shared_files.take(&mut descriptor, place == SeedPlace::Here)?
        }
        SeedPlace::Rehearsal => Vec::new(),
    };
    let blueprint =
        Blueprint { descriptor, shared_files, placement, trampolines, stub_table, vdso };
    let descriptor = &blueprint.descriptor;
    let is_pushing = match place {
        SeedPlace::Elsewhere => {
            let holes = files::mapped_ranges(descriptor, image.local_files());
            agent.begin_push(descriptor, &image, holes)
        }
        SeedPlace::Here | SeedPlace::Rehearsal => Arc::default(),
    };
    if place == SeedPlace::Elsewhere {
        halt::at(halt::Step::Template);
    }
    let template =
        blueprint.template(&agent.keeper, &image, clock_offset).map_err(|error| unfit(&error))?;
    let template_us = begun.elapsed().as_micros();
    tracing::info!(seed = %handle.seed, image_us, template_us, "template ready");
    let hosted = Arc::new(Hosted {
        seed: handle.seed,
        descriptor_bytes: bytes,
        pages_total: descriptor.page_table.pages(descriptor.page_size()),
        rest: ahead::rest_of(descriptor),
        is_pushing,
        generation: descriptor.generation,
        stub: (blueprint.placement.as_stub_place(), descriptor.sites.clone()),
        beneath: blueprint.placement.beneath.map(|beneath| beneath.range),
        listeners: SeedListeners::of(descriptor.carried.as_ref()),
        key: handle.key.clone(),
        ends_with_children: AtomicBool::new(ends_with_children),
        dropping: AtomicBool::new(false),
        is_broken: AtomicBool::new(false),
        is_adrift: AtomicBool::new(false),
        parts: Some(Parts { template, blueprint, image, stay }),
    });
    if let Some(channel) = channel {
        halt::at(halt::Step::Lease);
        unwatched.into_iter().for_each(Unwatched::stand_down);
        agent.watch_lease(&hosted, channel, handle.agent.as_deref().unwrap_or_default())?;
    }
    Ok(hosted)
}

fn open_image(
    agent: &Agent,
    descriptor: &Descriptor,
    (layout, beneath): (ImageLayout, &[Vma]),
    local_files: HashMap<u16, File>,
    patches: Vec<Patch>,
    (place, recording): (SeedPlace, Arc<Recording>),
    unfit: &dyn Fn(&dyn Display) -> Failure,
) -> Result<Image, Failure> {
    let mounts = agent.mounts()?;
    let mount = match place {
        SeedPlace::Rehearsal => Mount::exact(),
        SeedPlace::Here | SeedPlace::Elsewhere => mounts.take(),
    };
    let spec = ImageSpec {
        seed: descriptor.seed,
        layout,
        page_table: descriptor.page_table_with(beneath),
        page_size: descriptor.page_size(),
        owners: descriptor.owners.clone(),
        local_files,
        patches,
        buffers: agent.buffers.clone(),
        fabrics: agent.fabrics(),
        pager: PagerConfig {
            cpus: agent.config.pager_cpus.clone(),
            miss_deadline: agent.config.miss_deadline,
            ..PagerConfig::default()
        },
        recording,
        lost: agent.lost_page_sink(),
    };
    let image = mount.and_then(|mount| Image::open(mount, spec)).map_err(|error| unfit(&error))?;
    if place == SeedPlace::Rehearsal {
        image.trace_start();
    }
    Ok(image)
}

/// How children come by their vDSO here.
fn plan_vdso(
    agent: &Agent,
    descriptor: &Descriptor,
    placement: &Placement,
    facts: &HostFacts,
    image: &Image,
) -> Result<Vdso, VdsoError> {
    // Seldom called: most hosts have the seed's kernel.
    let read = |addr, into: &mut [u8]| {
        let place = image.layout().offset_of(addr).ok_or(ErrorKind::NotFound)?;
        File::from(image.file().try_clone_to_owned()?).read_exact_at(into, place.0)
    };
    let (bytes, digest) = own_vdso();
    let digest = Some(*digest).filter(|_| !agent.config.proxy_vdso);
    let here = HostVdso { bytes, special: &facts.special, digest };
    let planned = vdso::plan(descriptor, placement, &here, &read)?;
    if let Vdso::Proxied(_) = planned {
        tracing::info!(seed = %descriptor.seed, kernel = %descriptor.needs.kernel, "the seed's kernel is another one: \
            its vDSO leads to this host's");
    }
    Ok(planned)
}

/// This kernel's, empty if it has none, and its digest.
fn own_vdso() -> &'static (Vec<u8>, [u8; 32]) {
    static OWN: OnceLock<(Vec<u8>, [u8; 32])> = OnceLock::new();
    OWN.get_or_init(|| {
        let bytes = describe::own_vdso().ok().flatten().unwrap_or_default();
        let digest = *blake3::hash(&bytes).as_bytes();
        (bytes, digest)
    })
}

fn said_of(handle: &Handle, failure: Failure) -> Failure {
    if handle.agent.is_some() { failure } else { no_local_seed(failure) }
}
