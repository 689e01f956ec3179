//! Images with real FUSE connections, real page caches and real processes that map them; only the owner
//! is a stand-in. Needs root (or CAP_SYS_ADMIN) and /dev/fuse, and fails without.
#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_lossless,
    clippy::cast_sign_loss,
    reason = "offsets and lengths of small images, on 64-bit hosts"
)]

mod content;
mod failing;
mod memory;
mod reader;
mod speed;
mod stream;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use mitosis::descriptor::{
    Export, Owner, OwnerIndex, PageTable, Run, SeedAddr, SeedRange, Source, Vma, VmaFlags, VmaKind,
};
use mitosis::fabric::{Buffers, Fabric};
use mitosis::id::{ReadKey, SeedId};
use mitosis::image::{Image, ImageLayout, ImageSpec, Mount, PageLost, PagerConfig};
use parking_lot::Mutex;

const PAGE: u64 = 4096;
/// Where the simple images' only VMA begins.
const BASE: u64 = 0x7000_0000_0000;
/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(20);

/// An image and what was told of its losses.
struct Fixture {
    image: Image,
    layout: ImageLayout,
    lost: Arc<Mutex<Vec<PageLost>>>,
}

fn vma(start: u64, end: u64, kind: VmaKind) -> Vma {
    Vma { range: SeedRange::new(start, end), prot: 3, kind, flags: VmaFlags::default() }
}

fn owned(start: u64, end: u64) -> Run {
    let source = Source::Owner { owner: OwnerIndex(0), addr: SeedAddr(start) };
    Run { range: SeedRange::new(start, end), source }
}

fn owner(agents: &[&str]) -> Owner {
    let export = |agent: &&str| Export::Tcp {
        agent: Some((*agent).to_owned()),
        read_key: ReadKey::random(),
    };
    Owner { seed: SeedId(7), epoch: 0, exports: agents.iter().map(export).collect(), arena: None }
}

/// A spec of one VMA of `pages` pages at [`BASE`], all owned by agent "a".
fn spec(pages: u64, fabrics: Vec<Arc<dyn Fabric>>) -> ImageSpec {
    let end = BASE + pages * PAGE;
    ImageSpec {
        seed: SeedId(7),
        layout: ImageLayout::new(&[vma(BASE, end, VmaKind::Anonymous)], PAGE),
        page_table: PageTable::new([owned(BASE, end)], PAGE).unwrap(),
        page_size: PAGE,
        owners: vec![owner(&["a"])],
        local_files: HashMap::new(),
        patches: Vec::new(),
        buffers: Buffers::new(),
        fabrics,
        pager: PagerConfig { miss_deadline: Duration::from_secs(10), ..PagerConfig::default() },
        recording: Arc::default(),
        lost: Arc::new(|_| {}),
    }
}

fn open(mut spec: ImageSpec) -> Fixture {
    let lost = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&lost);
    spec.lost = Arc::new(move |page| told.lock().push(page));
    let layout = spec.layout.clone();
    let image = Image::open(Mount::new().unwrap(), spec).unwrap();
    Fixture { image, layout, lost }
}

fn simple(pages: u64, memory: &Arc<memory::Memory>) -> Fixture {
    open(spec(pages, vec![Arc::clone(memory) as Arc<dyn Fabric>]))
}
