//! Answers out of a seed's copy, beside those out of its process.

use std::ops::Range;

use super::*;
use crate::export::arena::{Arena, ArenaLimits, REST, SLAB_BYTES};
use crate::export::{HostMemory, ProcessExport};

/// A seed of some slabs and a bit, with a gap, whose copy has room for `most` slabs; served when all of that is
/// filled.
struct Copied {
    served: Served,
    base: u64,
    _arena: Arena,
}

const BYTES: u64 = 2 * SLAB_BYTES + 64 * PAGE;
/// These pages are no part of it.
const GAP: Range<u64> = 100..104;

impl Copied {
    fn start(most: u64) -> Copied {
        let exports = Exports::new();
        let stand_in = StandIn::start(BYTES + PAGE * (GAP.end - GAP.start));
        let base = stand_in.range().start.0;
        let limits = ArenaLimits { ready: 0, most: most * SLAB_BYTES };
        let arena = Arena::start(Arc::new(HostMemory), limits).unwrap();
        let readable = vec![
            SeedRange::new(base, base + GAP.start * PAGE),
            SeedRange::new(base + GAP.end * PAGE, stand_in.range().end.0),
        ];
        let (seed, key) = (SeedId::random(), ReadKey::random());
        let export = ProcessExport {
            mem: stand_in.mem(),
            arena: Some(arena.lay(readable.clone())),
            readable,
            read_key: key.clone(),
        };
        let added = Instant::now();
        exports.add(seed, export);
        let until = added + Duration::from_secs(60);
        while exports.copied(seed).unwrap().0 < BYTES.min(most * SLAB_BYTES) {
            assert!(Instant::now() < until, "{:?} are copied", exports.copied(seed));
            thread::sleep(Duration::from_millis(1));
        }
        assert!(added.elapsed() >= REST, "its first children come before it");
        let service = PageService::new(Arc::clone(&exports));
        let address = listen(&service);
        let served = Served { stand_in, exports, service, address, seed, key };
        Copied { served, base, _arena: arena }
    }

    /// READs so many bytes at each of these offsets, with one request.
    fn read(&self, client: &mut Client, ranges: &[(u64, u32)]) -> (Status, Vec<u8>) {
        let asked: Vec<_> =
            ranges.iter().map(|&(at, len)| (SeedAddr(self.base + at), len)).collect();
        client.ask(3, self.served.seed, &self.served.key, &asked);
        let (answer, body) = client.answer();
        assert_eq!(answer.tag, 3);
        (answer.status, body)
    }

    fn are_right(&self, client: &mut Client, ranges: &[(u64, u32)]) {
        let right: Vec<u8> =
            ranges.iter().flat_map(|&(at, len)| expected(at, len as usize)).collect();
        let (status, body) = self.read(client, ranges);
        assert_eq!(status, Status::Ok);
        assert!(body == right, "{ranges:?}");
    }
}

/// Short and long, over the end of a slab, behind the gap, several at once.
fn reads() -> Vec<Vec<(u64, u32)>> {
    let behind = GAP.end * PAGE;
    // Where the second slab begins: the gap's bytes are not in the first.
    let border = SLAB_BYTES + PAGE * (GAP.end - GAP.start);
    vec![
        vec![(0, 4096)],
        vec![(5, 1), (behind, 4096), (GAP.start * PAGE - 8, 8)],
        vec![(border - 3, 7)],
        vec![(border - 100_000, 200_001)],
        vec![(behind, 1 << 20)],
        vec![(border - 40_000, 80_000), (8, 3), (2 * SLAB_BYTES, 65_536)],
    ]
}

#[test]
fn a_copy_answers_as_the_process_does_and_without_it() {
    let mut copied = Copied::start(3);
    let mut client = copied.served.client();
    for round in 0..2 {
        for ranges in reads() {
            copied.are_right(&mut client, &ranges);
        }
        copied.served.has_served(6 * (round + 1));
        // The bytes are the agent's own: they are there when the process is not.
        copied.served.stand_in.kill();
    }
}

#[test]
fn what_is_not_in_the_copy_comes_from_the_process() {
    let mut copied = Copied::start(1);
    let mut client = copied.served.client();
    for ranges in reads() {
        copied.are_right(&mut client, &ranges);
    }
    copied.served.stand_in.kill();
    copied.are_right(&mut client, &reads()[0]);
    let last = &reads()[5];
    assert_eq!(copied.read(&mut client, last), (Status::Ended, Vec::new()));
    // No answer is half one: the stream goes on.
    copied.are_right(&mut client, &reads()[4]);
}

#[test]
fn a_copy_gives_no_more_than_the_seed_exports_and_nothing_once_revoked() {
    let copied = Copied::start(3);
    let mut client = copied.served.client();
    for len in [8, 100_000] {
        for at in [GAP.start * PAGE - 4, GAP.start * PAGE, BYTES + PAGE * (GAP.end - GAP.start)] {
            assert_eq!(copied.read(&mut client, &[(at, len)]).0, Status::BadRange);
        }
    }
    copied.are_right(&mut client, &[(0, 100_000)]);
    copied.served.exports.revoke(copied.served.seed);
    for len in [8, 100_000] {
        assert_eq!(copied.read(&mut client, &[(0, len)]).0, Status::Revoked);
    }
}
