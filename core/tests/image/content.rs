//! What children read is what the seed holds.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mitosis::descriptor::{OwnerIndex, PageTable, Run, SeedAddr, SeedRange, Source, VmaKind};
use mitosis::descriptor::{Patch, SITE_LEN};
use mitosis::fabric::Fabric;
use mitosis::image::ImageLayout;
use mitosis::times::Times;

use crate::memory::{Memory, Mood, byte_at, bytes_at};
use crate::reader::{End, Random, View, fork};
use crate::{BASE, LONG, PAGE, open, owner, simple, spec, vma};

/// A reader that compares every page of `[BASE, BASE + pages)` with what it must be, in steps of
/// `step` (odd, so that every page has its turn), beginning at `first`.
fn compare(layout: &ImageLayout, pages: u64, first: u64, step: u64) -> i32 {
    let view = View::new(layout, SeedAddr(BASE), (pages * PAGE) as usize);
    let mut wanted = [0u8; PAGE as usize];
    for i in 0..pages {
        let page = (first + i * step) % pages;
        bytes_at(BASE + page * PAGE, &mut wanted);
        if view.bytes((page * PAGE) as usize, PAGE as usize) != wanted {
            return 1;
        }
    }
    0
}

#[test]
fn random_layouts_read_equal_needs_root_and_fuse() {
    for seed in 1..=12 {
        random_layout(&mut Random(seed * 0x1234_5678_9abc));
    }
}

/// VMAs, runs, files and patches at random; a child reads every page in random order.
fn random_layout(random: &mut Random) {
    let mut file = tempfile::tempfile().unwrap();
    let file_bytes: Vec<u8> = (0..64 * PAGE).map(|at| byte_at(at + 0x5555_0000)).collect();
    file.write_all(&file_bytes).unwrap();
    let (mut vmas, mut runs, mut at) = (Vec::new(), Vec::new(), BASE);
    for _ in 0..1 + random.below(12) {
        at += random.below(3) * 17 * PAGE;
        let start = at;
        for _ in 0..1 + random.below(40) {
            let len = (1 + random.below(5)) * PAGE;
            let owner = OwnerIndex(random.below(2) as u8);
            let addr = SeedAddr(at + 0x1000_0000 * u64::from(owner.0));
            let source = match random.below(6) {
                0 => None,
                1 => Some(Source::Zero),
                // File 1 is here, file 2 is not; both hold what the owner holds there.
                2 => {
                    let offset = random.below(59) * PAGE;
                    let file = 1 + random.below(2) as u16;
                    let addr = SeedAddr(offset + 0x5555_0000);
                    Some(Source::File { file, offset, owner, addr })
                }
                _ => Some(Source::Owner { owner, addr }),
            };
            let range = SeedRange::new(at, at + len);
            runs.extend(source.map(|source| Run { range, source }));
            at += len;
        }
        let kind = match random.below(3) {
            0 => VmaKind::File { file: 1, offset: 0 },
            _ => VmaKind::Anonymous,
        };
        vmas.push(vma(start, at, kind));
    }
    let page_table = PageTable::new(runs, PAGE).unwrap();
    let mut wanted = seen_by_a_child(&page_table, BASE, at);
    let patches = patch_at_borders(random, &page_table, &mut wanted);

    let memory = Memory::new("a");
    memory.set(Mood::Answers(Duration::from_micros(random.below(2) * 300)));
    let mut spec = spec(1, vec![Arc::clone(&memory) as Arc<dyn Fabric>]);
    spec.layout = ImageLayout::new(&vmas, PAGE);
    spec.page_table = page_table;
    spec.owners = vec![owner(&["a"]), owner(&["a"])];
    spec.local_files.insert(1, file);
    spec.patches = patches;
    if random.below(2) == 0 {
        spec.pager.cpus = vec![0, 1];
    }
    let fixture = open(spec);
    let order = random.clone();
    let mut reader = fork(&fixture.image, || {
        for vma in &vmas {
            let len = vma.range.len() as usize;
            let view = View::new(&fixture.layout, vma.range.start, len);
            let view = if order.0.is_multiple_of(2) { view.random() } else { view };
            let pages = vma.range.len() / PAGE;
            for i in 0..pages {
                let page = ((order.0 % pages + i * 7919) % pages * PAGE) as usize;
                let base = (vma.range.start.0 - BASE) as usize + page;
                if view.bytes(page, PAGE as usize) != &wanted[base..base + PAGE as usize] {
                    return 1;
                }
            }
        }
        0
    });
    assert_eq!(reader.wait(LONG), End::Exited(0));
    assert_eq!(fixture.image.counters().patches_refused.load(Ordering::Relaxed), 0);
}

fn seen_by_a_child(table: &PageTable, start: u64, end: u64) -> Vec<u8> {
    let mut bytes = vec![0u8; (end - start) as usize];
    for run in table.runs() {
        let into = &mut bytes[(run.range.start.0 - start) as usize..][..run.range.len() as usize];
        match run.source {
            Source::Zero => {}
            Source::Owner { addr, .. } | Source::File { addr, .. } => bytes_at(addr.0, into),
        }
    }
    bytes
}

/// Patches around the ends of some runs: inside, up to, over and right behind a page's end.
fn patch_at_borders(random: &mut Random, table: &PageTable, wanted: &mut [u8]) -> Vec<Patch> {
    let mut patches = Vec::new();
    for pair in table.runs().windows(2).step_by(2) {
        let is_zero = |run: &Run| run.source == Source::Zero;
        let border = pair[0].range.end;
        if border != pair[1].range.start || is_zero(&pair[0]) || is_zero(&pair[1]) {
            continue;
        }
        let addr = border.0 - random.below(10);
        let place = &mut wanted[(addr - BASE) as usize..][..SITE_LEN];
        let expect = (&*place).try_into().unwrap();
        let bytes = std::array::from_fn(|i| 0xe0 + i as u8);
        place.copy_from_slice(&bytes);
        patches.push(Patch { addr: SeedAddr(addr), expect, bytes });
    }
    patches
}

#[test]
fn a_hundred_processes_fault_at_once_needs_root_and_fuse() {
    let memory = Memory::new("a");
    memory.set(Mood::Answers(Duration::from_millis(1)));
    for cpus in [vec![], vec![0, 1]] {
        let mut spec = spec(997, vec![Arc::clone(&memory) as Arc<dyn Fabric>]);
        spec.pager.cpus = cpus;
        let fixture = open(spec);
        let layout = &fixture.layout;
        let readers: Vec<_> = (0..100)
            .map(|i| fork(&fixture.image, || compare(layout, 997, i * 9, 1 + 2 * (i % 50))))
            .collect();
        for mut reader in readers {
            assert_eq!(reader.wait(LONG), End::Exited(0));
        }
        let pulled = fixture.image.counters().pages_pulled.load(Ordering::Relaxed);
        assert!(pulled >= 997, "{pulled}");
    }
}

#[test]
fn each_miss_is_timed_from_its_arrival_to_its_answer_needs_root_and_fuse() {
    let takes = Duration::from_millis(3);
    let memory = Memory::new("a");
    memory.set(Mood::Answers(takes));
    let fixture = simple(256, &memory);
    let mut reader = fork(&fixture.image, || compare(&fixture.layout, 256, 0, 63));
    assert_eq!(reader.wait(LONG), End::Exited(0));
    let counters = fixture.image.counters();
    let misses = || counters.misses.load(Ordering::Relaxed);
    let times = || {
        let mut times = Times::default();
        times.add(&counters.miss_times);
        times
    };
    // The pager counts behind its answer, which has woken the reader already.
    let until = Instant::now() + LONG;
    while times().count() < misses() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(times().count(), misses());
    let took_ns = u128::from(times().percentile_ns(50));
    assert!(took_ns >= takes.as_nanos(), "{took_ns}");
    assert!(u128::from(times().sum_ns()) >= takes.as_nanos() * u128::from(misses()) / 2);
}

#[test]
fn a_sequential_reader_is_fed_ahead_needs_root_and_fuse() {
    let pages = 16 << 10;
    let memory = Memory::new("a");
    memory.set(Mood::Answers(Duration::from_micros(100)));
    let fixture = simple(pages, &memory);
    let layout = &fixture.layout;
    for (first, step) in [(0, 1), (0, 1)] {
        let mut reader = fork(&fixture.image, || compare(layout, pages, first, step));
        assert_eq!(reader.wait(LONG), End::Exited(0));
    }
    let counters = fixture.image.counters();
    let (pulled, ahead, misses) = (
        counters.pages_pulled.load(Ordering::Relaxed),
        counters.pages_prefetched.load(Ordering::Relaxed),
        counters.misses.load(Ordering::Relaxed),
    );
    assert!(ahead > pages / 2, "{counters:?}");
    assert!(pulled < pages * 11 / 10, "{counters:?}");
    assert!(misses < pages / 4, "{counters:?}");
}

#[test]
fn nothing_is_fetched_ahead_beyond_a_run_needs_root_and_fuse() {
    let memory = Memory::new("a");
    let mut spec = spec(1024, vec![Arc::clone(&memory) as Arc<dyn Fabric>]);
    spec.page_table = PageTable::new([crate::owned(BASE, BASE + 512 * PAGE)], PAGE).unwrap();
    let fixture = open(spec);
    let layout = &fixture.layout;
    let mut reader = fork(&fixture.image, || compare(layout, 512, 0, 1));
    assert_eq!(reader.wait(LONG), End::Exited(0));
    let counters = fixture.image.counters();
    let pulled = counters.pages_pulled.load(Ordering::Relaxed);
    assert!((512..=512 + 32).contains(&pulled), "{counters:?}");
    // How far it gets ahead of the reader is a matter of who runs.
    assert!(counters.pages_prefetched.load(Ordering::Relaxed) > 0, "{counters:?}");
}

#[test]
fn when_reading_ahead_fails_the_pager_reads_needs_root_and_fuse() {
    let pages = 4096;
    let memory = Memory::new("a");
    let fixture = simple(pages, &memory);
    let layout = &fixture.layout;
    memory.too_large.store(64 << 10, Ordering::Relaxed);
    let mut reader = fork(&fixture.image, || compare(layout, pages, 0, 1));
    assert_eq!(reader.wait(LONG), End::Exited(0));
    assert!(fixture.image.counters().reads_failed.load(Ordering::Relaxed) > 0);
    assert!(fixture.lost.lock().is_empty());
}

#[test]
fn pushed_pages_are_never_missed_needs_root_and_fuse() {
    let memory = Memory::new("a");
    let mut spec = spec(300, vec![Arc::clone(&memory) as Arc<dyn Fabric>]);
    let patched = SeedAddr(BASE + 10 * PAGE - 3);
    let expect = std::array::from_fn(|i| byte_at(patched.0 + i as u64));
    spec.patches = vec![Patch { addr: patched, expect, bytes: [9; 7] }];
    let fixture = open(spec);
    let mut bytes = vec![0u8; 300 * PAGE as usize];
    bytes_at(BASE, &mut bytes);
    // Half a page before the VMA and half a page behind it come along and are left out.
    let mut pushed = vec![0u8; 2048];
    pushed.extend_from_slice(&bytes);
    pushed.extend_from_slice(&[0; 2048]);
    fixture.image.inlet().store(SeedAddr(BASE - 2048), &pushed).unwrap();
    bytes[10 * PAGE as usize - 3..][..7].copy_from_slice(&[9; 7]);
    let mut reader = fork(&fixture.image, || {
        let view = View::new(&fixture.layout, SeedAddr(BASE), bytes.len());
        i32::from(view.bytes(0, bytes.len()) != bytes)
    });
    assert_eq!(reader.wait(LONG), End::Exited(0));
    let counters = fixture.image.counters();
    assert_eq!(counters.misses.load(Ordering::Relaxed), 0);
    assert_eq!(counters.pages_pushed.load(Ordering::Relaxed), 300);
    assert_eq!(memory.reads.load(Ordering::Relaxed), 0);
}

#[test]
fn pushing_what_is_being_read_ends_and_is_right_needs_root_and_fuse() {
    let pages = 2000;
    let memory = Memory::new("a");
    memory.set(Mood::Answers(Duration::from_millis(2)));
    let fixture = simple(pages, &memory);
    let layout = &fixture.layout;
    let readers: Vec<_> =
        (0..8).map(|i| fork(&fixture.image, || compare(layout, pages, i * 250, 1))).collect();
    let mut bytes = vec![0u8; 8 * PAGE as usize];
    for page in (0..pages).step_by(8) {
        bytes_at(BASE + page * PAGE, &mut bytes);
        fixture.image.inlet().store(SeedAddr(BASE + page * PAGE), &bytes).unwrap();
    }
    for mut reader in readers {
        assert_eq!(reader.wait(LONG), End::Exited(0));
    }
}

#[test]
fn a_trace_names_what_was_missed_in_order_needs_root_and_fuse() {
    let memory = Memory::new("a");
    let fixture = simple(200, &memory);
    fixture.image.trace_start();
    let mut reader = fork(&fixture.image, || {
        let view = View::new(&fixture.layout, SeedAddr(BASE), 200 * PAGE as usize).random();
        for page in [77, 78, 3, 150] {
            view.byte(page * PAGE as usize);
        }
        0
    });
    assert_eq!(reader.wait(LONG), End::Exited(0));
    let page = |first: u64, end: u64| SeedRange::new(BASE + first * PAGE, BASE + end * PAGE);
    assert_eq!(fixture.image.trace_take(), [page(77, 79), page(3, 4), page(150, 151)]);
}

#[test]
fn a_local_file_that_shrank_is_read_from_its_owner_needs_root_and_fuse() {
    let memory = Memory::new("a");
    let mut spec = spec(8, vec![Arc::clone(&memory) as Arc<dyn Fabric>]);
    let source = Source::File { file: 0, offset: 0, owner: OwnerIndex(0), addr: SeedAddr(BASE) };
    let range = SeedRange::new(BASE, BASE + 8 * PAGE);
    spec.page_table = PageTable::new([Run { range, source }], PAGE).unwrap();
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[1; 100], 0).unwrap();
    spec.local_files.insert(0, file);
    let fixture = open(spec);
    let layout = &fixture.layout;
    let mut reader = fork(&fixture.image, || compare(layout, 8, 1, 1));
    assert_eq!(reader.wait(LONG), End::Exited(0));
    assert!(fixture.image.counters().fallbacks.load(Ordering::Relaxed) > 0);
}
