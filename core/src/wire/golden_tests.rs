//! The messages of `local` and `control`, each as the frame that stands on the wire (of control: before
//! encryption), one of each variant with every field fixed. What is kept in `tests/wire` stays readable for
//! ever, and what this version writes is what it wrote.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::control::{About, ControlReply, ControlRequest};
use super::frame;
use super::id_map::IdMap;
use super::listen::Listen;
use super::local::{
    ChildEnd, ChildLine, Clock, DropMode, Failure, FailureKind, Listing, LocalReply, LocalRequest,
    ResumeRequest, SeedLine, StartReport, StartedChild, Stats,
};
use super::namespaces::{Namespace, NamespaceKind};
use super::traced::{TraceOf, Traced, TracedPages, TracedVma, Way};
use crate::descriptor::{ArenaNews, Clocks, SeedRange, Slab};
use crate::id::{ChildId, ForkKey, Handle, PrepareToken, SeedId, StreamToken};
use crate::times::{Times, TimesCounter};

const SEED: SeedId = SeedId(0x0123_4567_89ab_cdef);
const CHILD: ChildId = ChildId(0xfedc_ba98_7654_3210);
const TOKEN: PrepareToken = PrepareToken([3; 16]);

fn handle() -> Handle {
    Handle { agent: Some("host-a:7370".to_owned()), seed: SEED, key: ForkKey([4; 32]) }
}

fn resume() -> ResumeRequest {
    ResumeRequest {
        handle: handle(),
        host: Some("host-b".to_owned()),
        count: 300,
        payload: b"mail".to_vec(),
        environment: vec![("A".to_owned(), Some("b".to_owned())), ("C".to_owned(), None)],
        seed_ends_with_children: true,
        request_id: 0x1122_3344_5566_7788,
        new_ids: true,
        listen: vec![
            Listen::All,
            Listen::Port { was: 8080, now: 9090 },
            Listen::Unix { was: "/a".to_owned(), now: "/b".to_owned() },
        ],
        clock: Clock::Frozen,
        cwd: Some("/work".to_owned()),
        hostname: Some("host-c".to_owned()),
        cgroup: Some("/g".to_owned()),
        namespaces: vec![Namespace { kind: NamespaceKind::Net, path: "/n".to_owned() }],
        argv: vec!["worker".to_owned(), "--blue".to_owned()],
        id_map: vec![IdMap { inside: 0, outside: 100_000, count: 65_536 }],
    }
}

fn started() -> (Vec<StartedChild>, StartReport) {
    let report = StartReport {
        host: "host-b".to_owned(),
        requested_at_ns: 1,
        started_at_ns: 2,
        descriptor_bytes: 3,
        pages_total: 4,
        new_template: true,
    };
    (vec![StartedChild { child: CHILD, pid: 70_000 }], report)
}

fn failure(kind: FailureKind) -> Failure {
    Failure { kind, message: "a reason".to_owned() }
}

pub(super) fn local_requests() -> Vec<LocalRequest> {
    vec![
        LocalRequest::Report { token: TOKEN, report: vec![1, 2, 3] },
        LocalRequest::Await { token: TOKEN },
        LocalRequest::Resume(Box::new(resume())),
        LocalRequest::Kill { child: CHILD, host: Some("host-b".to_owned()), signal: 9 },
        LocalRequest::Drop { seed: SEED, how: DropMode::AfterChildren },
        LocalRequest::Drop { seed: SEED, how: DropMode::Revoke },
        LocalRequest::DropPrepared { token: TOKEN },
        LocalRequest::List,
        LocalRequest::Inspect { handle: Some(handle()), seed: None },
        LocalRequest::Inspect { handle: None, seed: Some(SEED) },
        LocalRequest::Stats,
        LocalRequest::Shutdown,
        LocalRequest::DropByHandle { handle: handle(), how: DropMode::Revoke },
        LocalRequest::Trace(TraceOf::Seed(handle())),
        LocalRequest::Trace(TraceOf::Child(CHILD)),
    ]
}

pub(super) fn local_replies() -> Vec<LocalReply> {
    let (children, report) = started();
    let ends = [
        ChildEnd::Exited(-1),
        ChildEnd::Signalled(11),
        ChildEnd::PageLost("lost".to_owned()),
        ChildEnd::HostLost("gone".to_owned()),
    ];
    let seed = SeedLine {
        seed: SEED,
        pid: 5,
        parent_pid: 6,
        exe: "/bin/true".to_owned(),
        generation: 1,
        pages: 200,
        state: "published".to_owned(),
        holders: 2,
        age_s: 7,
    };
    let child = ChildLine { child: CHILD, pid: 8, seed: SEED, age_s: 9 };
    let mut replies = vec![
        LocalReply::Published { handle: handle() },
        LocalReply::Started { children, report },
        LocalReply::Done,
        LocalReply::Listing(Listing { seeds: vec![seed], children: vec![child] }),
        LocalReply::Inspected { descriptor: vec![1, 2] },
        LocalReply::Stats(Box::new(Stats {
            misses: 1,
            pages_pulled: 2,
            pages_rdma: 13,
            rdma_reads: 20,
            rdma_doorbells: 21,
            pages_pushed: 3,
            pages_from_files: 4,
            reads: 5,
            reads_failed: 6,
            fallbacks: 7,
            fabric_fallbacks: 1,
            pages_lost: 8,
            children_started: 9,
            children_renumbered: 20,
            files_missing: 22,
            seeds_published: 10,
            reads_served: 11,
            bytes_served: 12,
            encrypt_reads: 1,
            streams_plain: 32,
            streams_encrypted: 33,
            dc_initiators: 14,
            dc_peers: 15,
            dc_flushed: 16,
            dc_mended: 17,
            dc_targets_ready: 18,
            images: 19,
            children: 23,
            seeds: 24,
            leases_given: 25,
            leases_held: 26,
            bytes_shared: 27,
            bytes_private: 28,
            bytes_remote: 29,
            miss_times: times(),
        })),
    ];
    replies.extend(ends.map(|end| LocalReply::Exited { child: CHILD, end }));
    let kinds = [
        FailureKind::SeedGone,
        FailureKind::KeyRefused,
        FailureKind::NotForkable,
        FailureKind::HostUnfit,
        FailureKind::Unreachable,
        FailureKind::Secret,
        FailureKind::Protocol,
        FailureKind::Argument,
        FailureKind::Limit,
        FailureKind::Missing,
        FailureKind::ChildGone,
        FailureKind::Internal,
    ];
    replies.extend(kinds.map(|kind| LocalReply::Failed(failure(kind))));
    replies.extend([LocalReply::Tracing { was_here: true }, LocalReply::Traced(traced())]);
    replies
}

fn traced() -> Traced {
    let range = SeedRange::new(0x7000_0000, 0x7000_2000);
    let events = Way::ALL.map(|way| TracedPages { at_ns: 1, took_ns: 300, range, pid: 2, way });
    let vmas = vec![TracedVma { range, name: "[heap]".to_owned() }];
    Traced { began_at_ns: 3, events: events.to_vec(), left_out: 4, vmas }
}

fn times() -> Times {
    let counter = TimesCounter::default();
    counter.count(Duration::from_nanos(1500));
    let mut times = Times::default();
    times.add(&counter);
    times
}

pub(super) fn control_requests() -> Vec<ControlRequest> {
    vec![
        ControlRequest::Fetch { seed: SEED, key: ForkKey([4; 32]), ends_with_children: true },
        ControlRequest::Token,
        ControlRequest::Digests { seed: SEED, key: ForkKey([4; 32]), files: vec![0, 300] },
        ControlRequest::Resume(Box::new(resume())),
        ControlRequest::Kill { child: CHILD, signal: 15 },
        ControlRequest::Noted,
        ControlRequest::About,
        ControlRequest::Rejoin { seed: SEED, key: ForkKey([4; 32]) },
    ]
}

fn news() -> ArenaNews {
    let slab = Slab { rkey: 0x1234, iova: 0x7f00_0000_0000, len: 16 << 20 };
    ArenaNews { slabs: vec![slab], filled: 4096 }
}

pub(super) fn control_replies() -> Vec<ControlReply> {
    let (children, report) = started();
    vec![
        ControlReply::Descriptor {
            bytes: vec![1, 2, 3],
            token: StreamToken([5; 32]),
            clocks: Clocks { monotonic_ns: -1, boottime_ns: 300 },
            digests: vec![Some([6; 32]), None],
            arena: news(),
        },
        ControlReply::Token(StreamToken([5; 32])),
        ControlReply::Digests(vec![None, Some([6; 32])]),
        ControlReply::Started { children, report },
        ControlReply::Output { stream: 2, bytes: b"text".to_vec() },
        ControlReply::Exited { child: CHILD, end: ChildEnd::Exited(7) },
        ControlReply::Dropping,
        ControlReply::Arena(news()),
        ControlReply::Done,
        ControlReply::Failed(failure(FailureKind::SeedGone)),
        ControlReply::About(About {
            version: "0.1.0".to_owned(),
            host: "host-a".to_owned(),
            kernel: "6.1.0".to_owned(),
            realtime_ns: 1,
            fabrics: vec!["rc".to_owned(), "tcp".to_owned()],
        }),
    ]
}

fn bytes_of<M: Serialize>(messages: &[M]) -> Vec<u8> {
    messages.iter().flat_map(|message| frame::encode(message).unwrap()).collect()
}

/// `golden` is these messages and no more, and what is read of it is written as it was.
fn assert_golden<M: Serialize + DeserializeOwned>(messages: &[M], golden: &mut &[u8]) {
    let bytes = bytes_of(messages);
    assert_eq!(bytes, golden[..bytes.len().min(golden.len())]);
    let read: Vec<M> = messages.iter().map(|_| frame::read(golden).unwrap()).collect();
    assert_eq!(bytes_of(&read), bytes);
}

/// Each variant stands in the golden bytes, by its number: `variants` is how many there are.
fn assert_each_stands<M: Serialize + DeserializeOwned>(messages: &[M], variants: u8) {
    let numbers = messages.iter().map(|message| frame::encode(message).unwrap()[4]);
    let mut numbers: Vec<u8> = numbers.collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers, (0..variants).collect::<Vec<u8>>());
    // Enough bytes for the body of any: refused for its number alone.
    let mut beyond = [1; 512];
    beyond[0] = variants;
    let is_there = (0..beyond.len()).any(|len| frame::decode::<M>(&beyond[..=len]).is_ok());
    assert!(!is_there, "a variant has no golden bytes");
}

#[test]
fn golden_bytes_of_local_1_0() {
    let golden = &mut &include_bytes!("../../../tests/wire/local-1.0.bin")[..];
    assert_each_stands(&local_requests(), 12);
    assert_each_stands(&local_replies(), 10);
    assert_golden(&local_requests(), golden);
    assert_golden(&local_replies(), golden);
    assert!(golden.is_empty());
}

#[test]
fn golden_bytes_of_control_1_0() {
    let golden = &mut &include_bytes!("../../../tests/wire/control-1.0.bin")[..];
    assert_each_stands(&control_requests(), 8);
    assert_each_stands(&control_replies(), 11);
    assert_golden(&control_requests(), golden);
    assert_golden(&control_replies(), golden);
    assert!(golden.is_empty());
}
