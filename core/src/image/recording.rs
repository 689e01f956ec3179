//! What an image does and when, for who watches a child start. Where nobody does, a miss pays one relaxed load for it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use parking_lot::Mutex;

use super::layout::ImageLayout;
use super::trace::addresses;
use crate::sys::clock;
use crate::wire::traced::{MAX_TRACED, Traced, TracedPages, Way};

/// A record that can be switched on. An image has one, and whoever has asked for it keeps it beyond the image.
#[derive(Debug, Default)]
pub struct Recording {
    on: AtomicBool,
    record: Mutex<Option<Record>>,
}

#[derive(Debug)]
struct Record {
    begun: Instant,
    began_at_ns: u64,
    events: Vec<TracedPages>,
    left_out: u64,
}

/// Pages of an image's file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pages {
    pub(super) offset: u64,
    pub(super) len: usize,
    pub(super) way: Way,
}

/// Who waited for pages: the thread, since when and until when. Nobody for what came unasked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waited {
    pub(super) pid: u32,
    pub(super) since: Instant,
    pub(super) until: Instant,
}

impl Waited {
    /// Nobody: they came just now.
    pub(super) fn nobody() -> Self {
        let now = Instant::now();
        Waited { pid: 0, since: now, until: now }
    }
}

impl Recording {
    /// Begins anew. All memory that it will need is taken now.
    pub fn start(&self) {
        let record = Record {
            begun: Instant::now(),
            began_at_ns: clock::realtime_ns(),
            events: Vec::with_capacity(MAX_TRACED),
            left_out: 0,
        };
        *self.record.lock() = Some(record);
        self.on.store(true, Ordering::Release);
    }

    /// Whether anybody wants to know.
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    /// Ends the record; its VMAs are left to the caller.
    pub fn take(&self) -> Traced {
        self.on.store(false, Ordering::Release);
        let Some(record) = self.record.lock().take() else { return Traced::default() };
        let Record { began_at_ns, events, left_out, .. } = record;
        Traced { began_at_ns, events, left_out, vmas: Vec::new() }
    }

    /// Notes pages; what of them is no address of the seed's is left out.
    pub(super) fn note(&self, layout: &ImageLayout, pages: Pages, waited: Waited) {
        let mut record = self.record.lock();
        let Some(record) = record.as_mut() else { return };
        let ns = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_nanos()).unwrap_or(u64::MAX)
        };
        let at_ns = ns(record.begun, waited.since);
        let took_ns = ns(waited.since, waited.until);
        let Waited { pid, .. } = waited;
        let len = u32::try_from(pages.len).unwrap_or(u32::MAX);
        for range in addresses(layout, pages.offset, len) {
            if record.events.len() < MAX_TRACED {
                record.events.push(TracedPages { at_ns, took_ns, range, pid, way: pages.way });
            } else {
                record.left_out += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::descriptor::{SeedAddr, SeedRange, Vma, VmaFlags, VmaKind};

    fn layout() -> ImageLayout {
        let vma = |start, end| Vma {
            range: SeedRange::new(start, end),
            prot: 3,
            kind: VmaKind::Anonymous,
            flags: VmaFlags::default(),
        };
        ImageLayout::new(&[vma(0x10_0000, 0x11_0000), vma(0x20_0000, 0x21_0000)], 4096)
    }

    #[test]
    fn a_miss_is_recorded_with_its_address_its_time_and_its_thread() {
        let layout = layout();
        let recording = Recording::default();
        let offset = layout.offset_of(SeedAddr(0x20_4000)).unwrap().0;
        let read = Pages { offset, len: 0x2000, way: Way::Read };
        recording.note(&layout, read, Waited::nobody());
        recording.start();
        let since = Instant::now();
        let until = since + Duration::from_nanos(1700);
        recording.note(&layout, read, Waited { pid: 9, since, until });
        // From the gap before the first VMA into it.
        let offset = layout.offset_of(SeedAddr(0x10_0000)).unwrap().0 - 0x1000;
        recording.note(&layout, Pages { offset, len: 0x2000, way: Way::Push }, Waited::nobody());
        let traced = recording.take();
        assert!(traced.began_at_ns > 0 && !recording.is_on());
        let [first, second] = traced.events[..] else { panic!("{traced:?}") };
        assert_eq!((first.took_ns, first.pid, first.way), (1700, 9, Way::Read));
        assert_eq!(first.range, SeedRange::new(0x20_4000, 0x20_6000));
        assert_eq!((second.took_ns, second.pid, second.way), (0, 0, Way::Push));
        assert_eq!(second.range, SeedRange::new(0x10_0000, 0x10_1000));
        assert_eq!(recording.take(), Traced::default());
    }

    #[test]
    fn what_does_not_fit_is_counted_and_takes_no_memory() {
        let layout = layout();
        let recording = Recording::default();
        recording.start();
        let offset = layout.offset_of(SeedAddr(0x10_0000)).unwrap().0;
        for _ in 0..MAX_TRACED + 3 {
            let pages = Pages { offset, len: 4096, way: Way::Zero };
            recording.note(&layout, pages, Waited::nobody());
        }
        let traced = recording.take();
        assert_eq!((traced.events.len(), traced.left_out), (MAX_TRACED, 3));
        assert_eq!(traced.events.capacity(), MAX_TRACED, "it was all there before");
    }
}
