//! NODE 1: has memory, is READ from, does what the reader asks by the side channel.

use std::net::{IpAddr, SocketAddr};

use mitosis::verbs::{CmEventKind, CmId, Depths, EventChannel, Mr, Patience, RcQp, Region};

use crate::raw_connection::{End, connect};
use crate::side_channel::{SideChannel, numbers};
use crate::{Bench, IOVA, OWNED, pattern};

/// What both sides answer and ask at a time.
pub const DEPTHS: Depths = Depths { answered: 16, outstanding: 16 };

pub fn run(own: IpAddr) {
    let bench = Bench::open();
    let region = Region::new(OWNED).expect("memory");
    let bytes: Vec<u8> = (0..OWNED).map(pattern).collect();
    region.write(0, &bytes);
    let mut mr = Some(Mr::readable(&bench.pd, &region, 0..OWNED, IOVA).expect("a registration"));
    let channel = EventChannel::new().expect("an event channel");
    let listener = CmId::new(&channel).expect("an id");
    listener.bind(SocketAddr::new(own, 0)).expect("an address");
    listener.listen(4).expect("to listen");

    let mut side = SideChannel::accept(own);
    let mut connections: Vec<(RcQp, CmId)> = Vec::new();
    let mut raw: Option<RcQp> = None;
    while let Some(line) = side.hear() {
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "port" => side.say(&listener.local_port().to_string()),
            // The next request is accepted, the key goes with the answer.
            "accept" => {
                let key = mr.as_ref().expect("a registration").rkey();
                connections.push(accept(&bench, &channel, key));
                side.say("accepted");
            }
            "register" => {
                mr =
                    Some(Mr::readable(&bench.pd, &region, 0..OWNED, IOVA).expect("a registration"));
                side.say("registered");
            }
            "deregister" => {
                mr.take().expect("a registration").deregister().expect("deregistration");
                side.say("deregistered");
            }
            "disconnected" => side.say(&disconnected(&channel).to_string()),
            "raw" => {
                let qp =
                    raw.get_or_insert_with(|| RcQp::new(&bench.pd, &bench.cq, 16).expect("a QP"));
                qp.reset().expect("RESET");
                connect(&bench, qp, End::from_words(&numbers(rest)), Patience::PAGER);
                let key = mr.as_ref().expect("a registration").rkey();
                side.say(&format!("{} {key}", End::own(&bench, qp).words()));
            }
            "drop-raw" => {
                raw.take().expect("a QP").destroy().expect("an end");
                side.say("dropped");
            }
            // Its next case may be that the link goes down.
            "bye" => return,
            other => panic!("the reader asks for '{other}'"),
        }
    }
}

fn accept(bench: &Bench, channel: &std::sync::Arc<EventChannel>, key: u32) -> (RcQp, CmId) {
    let request = loop {
        match crate::reader::next_event(channel) {
            CmEventKind::ConnectRequest(request) => break request,
            CmEventKind::Disconnected | CmEventKind::TimewaitOver => {}
            other => panic!("{other:?} instead of a request"),
        }
    };
    // The manager pads private data with zeros.
    assert!(request.data.starts_with(b"reader"), "{:?}", request.data);
    let mut qp = RcQp::new(&bench.pd, &bench.cq, 1).expect("a QP");
    request.id.prepare(&mut qp, true).expect("INIT");
    request.id.make_ready(&mut qp, true, DEPTHS, Patience::PAGER).expect("RTS");
    request.id.accept(&qp, &key.to_be_bytes(), DEPTHS).expect("to accept");
    loop {
        match crate::reader::next_event(channel) {
            CmEventKind::Established(_) => return (qp, request.id),
            CmEventKind::Disconnected | CmEventKind::TimewaitOver => {}
            other => panic!("{other:?} instead of Established"),
        }
    }
}

/// Whether an end of a connection is heard of.
fn disconnected(channel: &std::sync::Arc<EventChannel>) -> bool {
    matches!(crate::reader::next_event(channel), CmEventKind::Disconnected)
}
