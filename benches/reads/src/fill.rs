//! What the copy of a large seed into an arena takes, of time and of memory, and what others notice of it.
//!
//! ```text
//!   fill             {"seconds": s, "grown": BYTES}   a seed of all the memory is exported, until it lies in the arena
//!   read BYTES       {"seconds": s}                   as many of its bytes, read once by nobody but this
//! ```
//! A small seed beside it, which nobody copies, can be READ over tcp meanwhile: its side channel is printed first.
//! There is no card: what its driver takes to register 16 MiB is in no figure. The thread that fills is the one
//! that fills a card's arena.

use std::io::{BufRead, Write};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use mitosis::export::arena::{Arena, ArenaLimits, Card, CardError, RegisteredSlab, SLAB_BYTES};
use mitosis::export::{Exports, HostMemory, PageService, ProcessExport};
use mitosis::id::{ReadKey, SeedId};

use crate::memory::Holder;
use crate::owner;
use crate::side::About;

/// Of the seed beside: more than a sample READs.
const BESIDE_BYTES: usize = 64 << 20;
/// For one copy; what takes longer hangs.
const FILL_LIMIT: Duration = Duration::from_secs(120);
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_micros(500);

/// Memory in a card's place: the arena takes it for one that others READ.
#[derive(Debug)]
struct NoDriver;

impl Card for NoDriver {
    fn slab(&self, bytes: u64) -> Result<RegisteredSlab, CardError> {
        HostMemory.slab(bytes)
    }
}

/// What is copied.
struct Large {
    holder: Holder,
    exports: Arc<Exports>,
    arena: Arena,
}

pub(crate) fn run(address: IpAddr, bytes: usize) -> Result<()> {
    let exports = Exports::new();
    let pages = PageService::new(exports.clone());
    let beside = Holder::start(BESIDE_BYTES)?;
    let (seed, read_key) = (SeedId::random(), ReadKey::random());
    let (readable, key) = (vec![beside.range], read_key.clone());
    exports.add(seed, ProcessExport { mem: beside.mem()?, readable, read_key: key, arena: None });
    let about = About {
        seed: seed.0,
        read_key: read_key.0,
        start: beside.range.start.0,
        bytes: BESIDE_BYTES,
        tcp: owner::serve(address, &pages)?,
        rc: None,
    };
    let limits = ArenaLimits { ready: 0, most: (bytes as u64).next_multiple_of(SLAB_BYTES) };
    let arena = Arena::start(Arc::new(NoDriver), limits)?;
    let large = Large { holder: Holder::start(bytes)?, exports, arena };
    say(&format!("{{\"side\": \"{}\"}}", owner::answer(address, about, &pages)?))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let words: Vec<&str> = line.split_whitespace().collect();
        say(&match *words {
            ["fill"] => large.fill()?,
            ["read", bytes] => large.read(bytes.parse().context("BYTES")?)?,
            _ => bail!("'{line}' is no command"),
        })?;
    }
    Ok(())
}

fn say(answer: &str) -> Result<()> {
    println!("{answer}");
    Ok(std::io::stdout().flush()?)
}

impl Large {
    fn fill(&self) -> Result<String> {
        let (seed, read_key, range) = (SeedId::random(), ReadKey::random(), self.holder.range);
        let mem = self.holder.mem()?;
        let before = resident()?;
        let begun = Instant::now();
        let arena = Some(self.arena.lay(vec![range]));
        self.exports.add(seed, ProcessExport { mem, readable: vec![range], read_key, arena });
        while self.exports.copied(seed).is_some_and(|(filled, bytes)| filled < bytes) {
            if begun.elapsed() > FILL_LIMIT {
                bail!("the arena is not filled after {FILL_LIMIT:?}");
            }
            thread::sleep(LOOK);
        }
        let seconds = begun.elapsed().as_secs_f64();
        let grown = resident()?.saturating_sub(before);
        self.exports.remove(seed);
        Ok(format!("{{\"seconds\": {seconds:.6}, \"grown\": {grown}}}"))
    }

    /// Into memory that is new as an arena's is, by this thread.
    fn read(&self, bytes: u64) -> Result<String> {
        let (mem, start) = (self.holder.mem()?, self.holder.range.start.0);
        let bytes = bytes.min(self.holder.range.len());
        let mut slabs = Vec::new();
        let begun = Instant::now();
        for at in (0..bytes).step_by(usize::try_from(SLAB_BYTES)?) {
            let slab = NoDriver.slab(SLAB_BYTES)?;
            let len = usize::try_from(SLAB_BYTES.min(bytes - at))?;
            slab.memory.fill(0..len, &mem, start + at)?;
            slabs.push(slab);
        }
        Ok(format!("{{\"seconds\": {:.6}}}", begun.elapsed().as_secs_f64()))
    }
}

/// Bytes of memory that this process has.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let kib = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = kib.and_then(|text| text.trim().strip_suffix(" kB")).context("VmRSS")?;
    Ok(kib.parse::<u64>()? << 10)
}
