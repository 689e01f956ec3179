//! The side that is READ: a page service for a holder's memory, and on a card its arena.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use mitosis::export::arena::{Arena, ArenaLimits, SLAB_BYTES};
use mitosis::export::dc::{SeedTarget, TargetMaker, TargetPort};
use mitosis::export::rc::RcService;
use mitosis::export::{Exports, HostMemory, PageService, PeerLimits, ProcessExport};
use mitosis::id::{ReadKey, SeedId};
use mitosis::wire::seal::Encryption;

use crate::device::{self, DcPort};
use crate::memory::Holder;
use crate::side::{About, Rc};

/// For the arena to be filled; an emulator copies a few MB in a second.
const FILL_LIMIT: Duration = Duration::from_secs(60);

/// What is wanted of an owner.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) address: IpAddr,
    pub(crate) bytes: usize,
    pub(crate) has_card: bool,
    /// Beside rc.
    pub(crate) has_dc: bool,
    pub(crate) busy_poll_us: u64,
    /// Without a card, too, the seed is copied, as an agent does.
    pub(crate) is_copied: bool,
    /// No stream is served in plain.
    pub(crate) is_encrypted: bool,
}

pub(crate) fn run(settings: Settings) -> Result<()> {
    let holder = Holder::start(settings.bytes)?;
    let exports = Exports::new();
    let busy_poll = Duration::from_micros(settings.busy_poll_us);
    let encryption = if settings.is_encrypted { Encryption::Demanded } else { Encryption::Offered };
    let limits = PeerLimits::default();
    let pages = PageService::bounded(exports.clone(), busy_poll, limits, encryption);
    let (seed, read_key) = (SeedId::random(), ReadKey::random());
    let card = settings.has_card.then(|| Card::open(settings, &pages)).transpose()?;
    let copies = settings.is_copied.then(|| {
        let limits = ArenaLimits { ready: 0, most: arena_bytes(settings.bytes) };
        Arena::start(Arc::new(HostMemory), limits)
    });
    let copies = copies.transpose()?;
    let arena = card.as_ref().map(|card| &card.arena).or(copies.as_ref());
    let arena = arena.map(|arena| arena.lay(vec![holder.range]));
    let is_copied = arena.is_some();
    let map = card.as_ref().and(arena.as_ref().map(mitosis::export::arena::ArenaCopy::map));
    let readable = vec![holder.range];
    let key = read_key.clone();
    exports.add(seed, ProcessExport { mem: holder.mem()?, readable, read_key: key, arena });
    exports.set_hot(seed, vec![holder.range]);
    let tcp = serve(settings.address, &pages)?;
    let mut about = About {
        seed: seed.0,
        read_key: read_key.0,
        start: holder.range.start.0,
        bytes: settings.bytes,
        tcp,
        rc: None,
    };
    if is_copied {
        await_whole(&exports, seed)?;
    }
    if let (Some(card), Some(map)) = (&card, map) {
        let news = exports.arena_news(seed, map.slabs.len(), 0).news.unwrap_or_default();
        let target = card.target.as_ref().map(|target| target.told.clone());
        about.rc = Some(Rc { listener: card.rc.address(), map, news, target });
    }
    let side = answer(settings.address, about, &pages)?;
    println!("{{\"side\": \"{side}\"}}");
    std::io::stdout().flush()?;
    while std::io::stdin().read(&mut [0; 64])? > 0 {}
    Ok(())
}

/// What an agent makes on its card at its start.
struct Card {
    // In this order: first nobody connects any more, then the memory goes.
    rc: RcService,
    target: Option<SeedTarget>,
    arena: Arena,
}

impl Card {
    fn open(settings: Settings, pages: &Arc<PageService>) -> Result<Self> {
        let dc = settings.has_dc.then(DcPort::open).transpose()?;
        let (pd, caps) = match &dc {
            Some(dc) => (dc.pd.clone(), dc.pd.context().caps()?),
            None => device::open()?,
        };
        let bytes = arena_bytes(settings.bytes);
        let limits = ArenaLimits { ready: bytes, most: bytes };
        let arena = Arena::start(Arc::new(pd.clone()), limits)?;
        let address = SocketAddr::new(settings.address, 0);
        let rc = RcService::start(pd, address, device::outstanding(caps), pages.clone())?;
        let target = dc.map(|dc| {
            let (path, mtu) = (dc.port.path(), dc.port.mtu);
            let maker = TargetPort::new(&dc.pd, path, mtu, dc.port.address())?;
            anyhow::Ok(maker.make()?)
        });
        Ok(Card { rc, target: target.transpose()?, arena })
    }
}

fn arena_bytes(bytes: usize) -> u64 {
    (bytes as u64).next_multiple_of(SLAB_BYTES)
}

fn await_whole(exports: &Arc<Exports>, seed: SeedId) -> Result<()> {
    let until = Instant::now() + FILL_LIMIT;
    while exports.copied(seed).is_some_and(|(filled, bytes)| filled < bytes) {
        if Instant::now() > until {
            bail!("the arena is not filled after {FILL_LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Serves READ streams; a thread each, as the agent does.
pub(crate) fn serve(address: IpAddr, pages: &Arc<PageService>) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0))?;
    let at = listener.local_addr()?;
    let pages = pages.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let pages = pages.clone();
            thread::spawn(move || pages.serve(stream));
        }
    });
    Ok(at)
}

/// Answers readers' lines.
pub(crate) fn answer(
    address: IpAddr,
    about: About,
    pages: &Arc<PageService>,
) -> Result<SocketAddr> {
    let listener = TcpListener::bind((address, 0))?;
    let at = listener.local_addr()?;
    let pages = pages.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (about, pages) = (about.clone(), pages.clone());
            thread::spawn(move || converse(&stream, &about, &pages));
        }
    });
    Ok(at)
}

fn converse(stream: &TcpStream, about: &About, pages: &Arc<PageService>) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut out = stream;
    for line in BufReader::new(stream).lines() {
        let answer = match line?.as_str() {
            "about" => serde_json::to_string(about)?,
            "token" => serde_json::to_string(&pages.issue_token().0)?,
            other => bail!("the reader asks for '{other}'"),
        };
        out.write_all(format!("{answer}\n").as_bytes())?;
    }
    Ok(())
}
