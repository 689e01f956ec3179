//! NODE 2 with DCI streams: what a failed READ does to the others.

use std::net::IpAddr;

use mitosis::verbs::{self, QpState, Streams, WcStatus};

use crate::PAGE;
use crate::initiator::{Initiator, Read, new_target};
use crate::side_channel::SideChannel;

const SUCCESS: WcStatus = WcStatus::SUCCESS;
const FLUSHED: WcStatus = WcStatus::FLUSHED;
const REFUSED: WcStatus = WcStatus::REMOTE_ACCESS;

pub fn run(owner: IpAddr) {
    let mut side = SideChannel::connect(owner);
    let probe = Initiator::new(owner, None);
    let caps = verbs::dc_caps(&probe.bench.context).expect("what DC there is");
    drop(probe);
    assert!(caps.log_streams >= 2, "{caps:?}");
    let streams = Streams { log_count: 2, log_failed: caps.log_failed_streams.min(1) };
    let mut it = Initiator::new(owner, Some(streams));
    let target = new_target(&mut side);
    let rkey: u32 = side.ask("rkey").parse().expect("a key");
    let good = |stream, at: usize| Read::of(target, rkey, at * PAGE).by(stream);
    let bad = |stream| Read { rkey: rkey ^ 0x5500, ..good(stream, 0) };

    let all: Vec<Read> = (0..32).map(|at| good(u16::try_from(at % 4).unwrap(), at)).collect();
    assert!(it.read(&all).0.iter().all(|status| *status == SUCCESS));
    println!("ok each_stream_reads");

    if caps.log_failed_streams == 0 {
        without_isolation(&mut it, &[bad(1), good(1, 1)], good(2, 1));
    } else {
        with_isolation(&mut it, &[bad(1), good(1, 1), good(2, 1)], bad(2));
    }
    it.reset();
    assert!(it.read(&all).0.iter().all(|status| *status == SUCCESS));
    println!("ok a_reset_takes_all_streams_back");
    println!("3 passed");
}

/// One stream fails alone; the second puts the DCI into ERR, as it isolates fewer than two.
fn with_isolation(it: &mut Initiator, reads: &[Read], second: Read) {
    assert_eq!(it.read(reads).0, [REFUSED, FLUSHED, SUCCESS]);
    assert_eq!(it.dci.query_state().expect("a state"), QpState::Rts);
    // Until it is taken back.
    assert_eq!(it.read(&reads[1..]).0, [FLUSHED, SUCCESS]);
    it.dci.reset_stream(1).expect("its reset");
    assert_eq!(it.read(&reads[1..]).0, [SUCCESS, SUCCESS]);
    assert_eq!(it.read_one(reads[0]).0, REFUSED);
    assert_eq!(it.read_one(second).0, REFUSED);
    assert_eq!(it.dci.query_state().expect("a state"), QpState::Err);
    println!("ok a_failure_stays_in_its_stream");
}

fn without_isolation(it: &mut Initiator, reads: &[Read], other: Read) {
    assert_eq!(it.read(reads).0, [REFUSED, FLUSHED]);
    assert_eq!(it.dci.query_state().expect("a state"), QpState::Err);
    assert_eq!(it.read_one(other).0, FLUSHED);
    let refused = it.dci.reset_stream(1).unwrap_err();
    assert_eq!(refused.errno(), Some(libc::EOPNOTSUPP), "{refused}");
    println!("ok a_failure_fails_all_streams");
}
