//! A seed's memory as seen on this host: a file whose pages arrive when they are first touched.
//!
//! ```text
//!   child ----touches----> page cache ----miss----> pager (a thread of this process, `pager`)
//!   (maps the file           ^   ^                    |  `plan`: which source has which page?
//!    MAP_PRIVATE)            |   |                    |
//!                            |   `-------answer-------+-- zeros: absent pages, gaps between slots
//!                            |                        +-- a file that is identical here
//!                            |                        `-- one-sided READ of the owner (`fabric`)
//!                            |
//!                            +-- `push`: pages that come unasked    (FUSE_NOTIFY_STORE)
//!                            `-- `streamer`: pages before they are missed, by what `prefetch` knows
//! ```
//! The miss path is `pager`: `serve` -> `miss` -> `fetch` -> `advance` -> `complete` -> `advance`, which
//! answers. Everything else there is about what goes wrong. All children of the seed on this host share
//! the page cache, and so each page arrives once.
//!
//! One FUSE connection serves one image ([`Mounts`] makes them ahead). `layout` says which address lies
//! at which offset; `patch` changes the bytes of system-call sites on their way.

mod counters;
mod interrupt;
mod layout;
mod loss;
mod miss;
mod mount;
mod opener;
mod owner;
mod pager;
mod patch;
mod plan;
mod prefetch;
mod push;
mod recording;
mod streamer;
mod trace;

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

pub use counters::ImageCounters;
pub use layout::{ALIGNMENT, GUARD, ImageLayout, Slot};
pub use loss::{PageLost, await_told};
pub use mount::{Mount, Mounts, READAHEAD_BYTES};
pub use plan::MAX_MISS_BYTES;
pub use recording::Recording;

use crate::descriptor::{
    ArenaNews, ImageOffset, Owner, PageTable, Patch, SeedAddr, SeedRange, Source,
};
use crate::fabric::arena::BadNews;
use crate::fabric::{Buffers, Fabric};
use crate::id::SeedId;
use crate::sys::event::Bell;
use crate::sys::fuse::{self, Device, Parts, ReadRequest};
use crate::wire::traced::Way;
use layout::Place;
use loss::{Listener, Losses};
use owner::Ways;
use patch::Patches;
use prefetch::{Ahead, Streams, Wanted};
use recording::{Pages, Waited};
use trace::Trace;

/// The nice value of an image's threads, where this host allows it: children wait for them, and they
/// for nobody but the network.
const NICE: i32 = -19;

/// What an image is made of.
pub struct ImageSpec {
    /// The seed.
    pub seed: SeedId,
    /// Where its VMAs lie.
    pub layout: ImageLayout,
    /// Where its pages are.
    pub page_table: PageTable,
    /// Bytes in a page: this host's.
    pub page_size: u64,
    /// Who holds bytes, as the page table counts them.
    pub owners: Vec<Owner>,
    /// Files of the descriptor's table that are identical on this host.
    pub local_files: HashMap<u16, File>,
    /// Bytes that children see changed.
    pub patches: Vec<Patch>,
    /// Where its misses' buffers come from.
    pub buffers: Arc<Buffers>,
    /// Ways to READ, the preferred one first.
    pub fabrics: Vec<Arc<dyn Fabric>>,
    /// How misses are answered.
    pub pager: PagerConfig,
    /// What it does is noted here while that is switched on.
    pub recording: Arc<Recording>,
    /// Is told of each page that a child touched and did not get, from a thread of its own.
    pub lost: Arc<dyn Fn(PageLost) + Send + Sync>,
}

impl std::fmt::Debug for ImageSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut out = f.debug_struct("ImageSpec");
        out.field("seed", &self.seed).field("pager", &self.pager).finish_non_exhaustive()
    }
}

/// How an image's misses are answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PagerConfig {
    /// One pager thread each, pinned to it; none: one thread that is not pinned. (A second thread costs
    /// a local miss more than it gains: measured 10.8 us with one, 19 us with two.)
    pub cpus: Vec<usize>,
    /// The longest time that a miss may take; then the child gets SIGBUS.
    pub miss_deadline: Duration,
    /// Whether sequential readers are fed ahead.
    pub prefetch: bool,
}

impl Default for PagerConfig {
    fn default() -> Self {
        PagerConfig { cpus: Vec::new(), miss_deadline: Duration::from_secs(5), prefetch: true }
    }
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// This host has no FUSE.
    #[error(
        "there is no /dev/fuse ({0}): load the module (modprobe fuse); in a container, give it the \
         device (--device /dev/fuse)"
    )]
    NoDevice(#[source] io::Error),
    /// /dev/fuse may not be opened.
    #[error(
        "/dev/fuse may not be opened ({0}): run the agent as root, or let its user open /dev/fuse; in \
         a container, give it the device (--device /dev/fuse)"
    )]
    DeviceForbidden(#[source] io::Error),
    /// Mounting is not allowed.
    #[error(
        "mounting is not allowed ({step}: {error}): run the agent as root, or with CAP_SYS_ADMIN in \
         its user namespace (and, in a container, a seccomp profile that allows mounting)"
    )]
    MountForbidden {
        /// The system call.
        step: &'static str,
        /// Its error.
        error: io::Error,
    },
    /// Mounting failed for another reason.
    #[error(
        "the image's file system could not be mounted ({step}: {error}); the kernel must be 6.1 or later"
    )]
    Mount {
        /// The system call.
        step: &'static str,
        /// Its error.
        error: io::Error,
    },
    /// The kernel speaks another FUSE protocol.
    #[error("the kernel speaks FUSE {major}.{minor}; 7.28 or a later minor version is needed")]
    Protocol {
        /// Major version.
        major: u32,
        /// Minor version.
        minor: u32,
    },
    /// The new mount did not come to life.
    #[error("the image's file system was mounted but does not answer: {0}")]
    Handshake(#[source] io::Error),
    /// The layout does not fit a file.
    #[error("the seed's memory needs {needs} bytes of offsets; an image has {}", fuse::FILE_BYTES)]
    TooLarge {
        /// What it needs.
        needs: u64,
    },
    /// A page size that is not this host's.
    #[error("the seed has pages of {seed} bytes and this host of {host}: resume it on a like host")]
    PageSize {
        /// The seed's.
        seed: u64,
        /// This host's.
        host: u64,
    },
    /// No thread or descriptor for it.
    #[error("no thread for the image ({0}); raise the limits on processes and open files")]
    Thread(#[source] io::Error),
}

/// One seed's memory on this host. Dropped, it ends: a child that still maps it gets SIGBUS at its next
/// miss.
#[derive(Debug)]
pub struct Image {
    shared: Arc<Shared>,
    /// The connection ends with the last mapping once this is closed.
    file: Option<File>,
    dev_inode: (u32, u32, u64),
    pagers: Vec<JoinHandle<()>>,
    streamer: Option<JoinHandle<()>>,
}

/// What an image's threads share.
#[derive(Debug)]
struct Shared {
    device: Device,
    abort: Option<File>,
    seed: SeedId,
    layout: ImageLayout,
    page_table: PageTable,
    page_size: u64,
    owners: Vec<Ways>,
    local_files: HashMap<u16, File>,
    patches: Patches,
    buffers: Arc<Buffers>,
    fabrics: Vec<Arc<dyn Fabric>>,
    config: PagerConfig,
    counters: Arc<ImageCounters>,
    trace: Trace,
    recording: Arc<Recording>,
    losses: Losses,
    listener: Listener,
    streams: Mutex<Streams>,
    streamer_bell: Bell,
    /// One for each pager thread.
    bells: Vec<Bell>,
    /// READs that the streamer could not answer.
    returned: Mutex<Vec<Wanted>>,
    is_ending: AtomicBool,
    is_streamer_ending: AtomicBool,
    /// Held for reading while pages are stored.
    inlet_is_closed: RwLock<bool>,
}

impl Image {
    /// Begins to answer misses.
    ///
    /// # Errors
    /// The layout is too large, the page size is another one, or threads are short.
    pub fn open(mount: Mount, spec: ImageSpec) -> Result<Image, ImageError> {
        let needs = spec.layout.end().0;
        if needs > fuse::FILE_BYTES {
            return Err(ImageError::TooLarge { needs });
        }
        let host = crate::sys::page_size();
        if spec.page_size != host {
            return Err(ImageError::PageSize { seed: spec.page_size, host });
        }
        let Mount { device, file, dev_inode, abort } = mount;
        let threads = spec.pager.cpus.len().max(1);
        let shared =
            Arc::new(Shared::new((device, abort), spec, threads).map_err(ImageError::Thread)?);
        let file = Some(file);
        let mut image = Image { shared, file, dev_inode, pagers: Vec::new(), streamer: None };
        for index in 0..threads {
            let shared = Arc::clone(&image.shared);
            // Its buffers are made by the thread itself: whoever opens an image is in a hurry.
            let work = move |image: &Shared| pager::Pager::new(image, index).run(image);
            image.pagers.push(spawn(format!("pager-{index}"), shared, work)?);
        }
        if image.shared.config.prefetch {
            let shared = Arc::clone(&image.shared);
            let work = |image: &Shared| streamer::Streamer::new(image).run(image);
            image.streamer = Some(spawn("streamer".to_owned(), shared, work)?);
        } else {
            image.shared.streams.lock().close();
        }
        Ok(image)
    }

    /// The file: to be mapped MAP_PRIVATE, at the offsets of the layout.
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_ref().expect("it is open until the image outlasts its children").as_fd()
    }

    /// Answers for as long as anybody maps it, children's own children too, and then ends. Nothing new can
    /// map it; whoever calls this gives it no more.
    pub fn outlast(mut self) {
        drop(self.file.take());
        // With the last reference to its file the kernel ends the connection.
        for pager in self.pagers.drain(..) {
            let _ = pager.join();
        }
    }

    /// Where the seed's addresses lie in the file.
    pub fn layout(&self) -> &ImageLayout {
        &self.shared.layout
    }

    /// Files of this host that are identical to files of the seed's table, by index there.
    pub fn local_files(&self) -> &HashMap<u16, File> {
        &self.shared.local_files
    }

    /// Device (major, minor) and inode of the file, as /proc/PID/maps shows them.
    pub fn dev_inode(&self) -> (u32, u32, u64) {
        self.dev_inode
    }

    /// Where pages come in unasked.
    pub fn inlet(&self) -> Inlet {
        Inlet(Arc::downgrade(&self.shared))
    }

    /// Takes what the seed's owner has told of its arena.
    ///
    /// # Errors
    /// They contradict what is known; nothing is taken then.
    pub fn arena_news(&self, news: &ArenaNews) -> Result<(), BadNews> {
        let arena = self.shared.owners.first().and_then(|ways| ways.arena.as_ref());
        arena.map_or(Ok(()), |arena| arena.tell(news))
    }

    /// Begins to record misses, for a rehearsal; nothing is fetched ahead meanwhile.
    pub fn trace_start(&self) {
        self.shared.trace.start();
    }

    /// Ends the record: what was missed since, in the order of first touch, one range where they join.
    pub fn trace_take(&self) -> Vec<SeedRange> {
        self.shared.trace.take(&self.shared.layout)
    }

    /// What it does, while that is noted.
    pub fn recording(&self) -> &Arc<Recording> {
        &self.shared.recording
    }

    /// What it has done so far; who keeps them learns the end of the image by being the only one who does.
    pub fn counters(&self) -> &Arc<ImageCounters> {
        &self.shared.counters
    }

    /// The connection's descriptors. Whoever keeps one keeps the connection from ending by itself.
    pub fn fuse_fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.shared.device.as_fd()]
    }
}

/// Where pages come in that nobody has asked for. It does not keep an image from ending.
#[derive(Clone, Debug)]
pub struct Inlet(Weak<Shared>);

impl Inlet {
    /// Puts pages into the image: whole pages at page-aligned addresses; others are left out. Waits for READs of the same
    /// pages that are in flight. Any thread may call it.
    ///
    /// # Errors
    /// `NotConnected`: the image has ended. Others: its connection has.
    pub fn store(&self, addr: SeedAddr, bytes: &[u8]) -> io::Result<()> {
        let image = self.0.upgrade().ok_or(io::ErrorKind::NotConnected)?;
        let is_closed = image.inlet_is_closed.read();
        if *is_closed {
            return Err(io::ErrorKind::NotConnected.into());
        }
        push::store(&image, addr, bytes)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        // After an abort every thread finds the connection ended. Without one the inlet and the streamer must go
        // first: they may be asleep until a pager answers.
        self.shared.end_connection();
        *self.shared.inlet_is_closed.write() = true;
        self.shared.is_streamer_ending.store(true, Ordering::Release);
        self.shared.streamer_bell.ring();
        if let Some(streamer) = self.streamer.take() {
            let _ = streamer.join();
        }
        self.shared.is_ending.store(true, Ordering::Release);
        self.shared.bells.iter().for_each(Bell::ring);
        for pager in self.pagers.drain(..) {
            let _ = pager.join();
        }
    }
}

impl Shared {
    fn new(
        (device, abort): (Device, Option<File>),
        spec: ImageSpec,
        threads: usize,
    ) -> io::Result<Shared> {
        let counters = ImageCounters::of(pages_of_owners(&spec));
        Ok(Shared {
            device,
            abort,
            seed: spec.seed,
            owners: spec.owners.iter().map(|owner| Ways::new(owner, &spec.fabrics)).collect(),
            layout: spec.layout,
            page_table: spec.page_table,
            page_size: spec.page_size,
            local_files: spec.local_files,
            patches: Patches::new(spec.patches),
            buffers: spec.buffers,
            fabrics: spec.fabrics,
            config: spec.pager,
            counters: Arc::new(counters),
            trace: Trace::default(),
            recording: spec.recording,
            losses: Losses::default(),
            listener: Listener(spec.lost),
            streams: Mutex::new(Streams::new()),
            streamer_bell: Bell::new()?,
            bells: (0..threads).map(|_| Bell::new()).collect::<io::Result<_>>()?,
            returned: Mutex::default(),
            is_ending: AtomicBool::new(false),
            is_streamer_ending: AtomicBool::new(false),
            inlet_is_closed: RwLock::new(false),
        })
    }

    /// Whether a card carries this way to an owner.
    fn is_rdma(&self, owner: usize, route: usize) -> bool {
        let route = self.owners.get(owner).and_then(|ways| ways.routes.get(route));
        route.is_some_and(|route| self.fabrics[route.fabric].is_rdma())
    }

    /// Ends the connection for everybody, where this host allows it.
    fn end_connection(&self) {
        let _ = self.abort.as_ref().is_some_and(mount::abort);
    }

    /// Answers a miss with its bytes.
    fn answer(&self, wanted: &Wanted, parts: &Parts<'_>) {
        // Fails for a reader that is gone meanwhile.
        let _ = self.device.answer(wanted.request.unique, parts);
        self.counters.miss_times.count(wanted.arrived.elapsed());
    }

    /// Notes how the pages of a miss that was just answered have come.
    fn note(&self, wanted: &Wanted, ways: impl Iterator<Item = Pages>) {
        let (pid, since) = (wanted.request.pid, wanted.arrived);
        let waited = Waited { pid, since, until: Instant::now() };
        ways.for_each(|pages| self.recording.note(&self.layout, pages, waited));
    }

    /// Notes that all pages of a miss have come in one way.
    fn note_whole(&self, wanted: &Wanted, way: Way) {
        if self.recording.is_on() {
            let ReadRequest { offset, size, .. } = wanted.request;
            self.note(wanted, std::iter::once(Pages { offset, len: size as usize, way }));
        }
    }

    /// Notes pages that nobody has missed.
    fn note_unasked(&self, offset: u64, len: usize, way: Way) {
        if self.recording.is_on() {
            self.recording.note(&self.layout, Pages { offset, len, way }, Waited::nobody());
        }
    }

    /// Answers a miss with -EIO: SIGBUS for who touched the page.
    fn refuse(&self, wanted: &Wanted) {
        self.counters.miss_times.count(wanted.arrived.elapsed());
        let _ = self.device.refuse(wanted.request.unique, libc::EIO);
        self.note_whole(wanted, Way::Lost);
    }

    /// Patches bytes that begin at `addr`.
    fn patch(&self, addr: SeedAddr, bytes: &mut [u8]) {
        let refused = self.patches.apply(addr, bytes);
        if refused > 0 {
            counters::count(&self.counters.patches_refused, refused);
        }
    }

    /// What an owner has from `offset` on, if it is to be read from one.
    fn ahead(&self, offset: ImageOffset) -> Option<Ahead> {
        let Place::Slot { addr, left } = self.layout.place_of(offset) else { return None };
        let run = self.page_table.lookup(addr)?;
        let (owner, source) = match run.source {
            Source::Owner { owner, addr } => (owner, addr),
            Source::File { file, owner, addr, .. } if !self.local_files.contains_key(&file) => {
                (owner, addr)
            }
            Source::Zero | Source::File { .. } => return None,
        };
        let end = offset.0 + run.range.len().min(left);
        Some(Ahead { end, owner: usize::from(owner.0), source, addr })
    }

    /// Gives READs that the streamer could not answer to a pager.
    fn give_back(&self, parked: Vec<Wanted>) {
        if !parked.is_empty() {
            self.returned.lock().extend(parked);
            self.bells[0].ring();
        }
    }
}

/// Pages that only an owner has: all but zeros and those of files that are here.
fn pages_of_owners(spec: &ImageSpec) -> u64 {
    let is_here = |source: &Source| match source {
        Source::Zero => true,
        Source::File { file, .. } => spec.local_files.contains_key(file),
        Source::Owner { .. } => false,
    };
    let runs = spec.page_table.runs().iter().filter(|run| !is_here(&run.source));
    runs.map(|run| run.range.len() / spec.page_size).sum()
}

fn spawn(
    name: String,
    shared: Arc<Shared>,
    work: impl FnOnce(&Shared) + Send + 'static,
) -> Result<JoinHandle<()>, ImageError> {
    let guarded = move || {
        let guard = PanicGuard(&shared);
        work(guard.0);
    };
    std::thread::Builder::new().name(name).spawn(guarded).map_err(ImageError::Thread)
}

/// Ends the connection when its thread panics: children get SIGBUS and do not wait for nobody.
struct PanicGuard<'a>(&'a Shared);

impl Drop for PanicGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.end_connection();
        }
    }
}
