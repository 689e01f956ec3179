//! Parsers of messages, against bytes that nobody meant to send: an error or a message, never a panic.

use proptest::prelude::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::control::{ControlReply, ControlRequest};
use super::frame;
use super::golden_tests::{control_replies, control_requests, local_replies, local_requests};
use super::local::{LocalReply, LocalRequest};

/// What is cut off is no message, whether its frame says so or not.
fn each_cut_is_refused<M: Serialize + DeserializeOwned>(messages: &[M]) {
    for message in messages {
        let bytes = frame::encode(message).unwrap();
        for cut in 0..bytes.len() {
            assert!(frame::read::<M>(&mut &bytes[..cut]).is_err(), "cut at {cut}: {bytes:?}");
        }
        for cut in 0..bytes.len() - 4 {
            assert!(frame::decode::<M>(&bytes[4..4 + cut]).is_err(), "cut at {cut}: {bytes:?}");
        }
    }
}

#[test]
fn every_truncation_is_an_error() {
    each_cut_is_refused(&local_requests());
    each_cut_is_refused(&local_replies());
    each_cut_is_refused(&control_requests());
    each_cut_is_refused(&control_replies());
}

fn parses_or_not<M: Serialize + DeserializeOwned>(bytes: &[u8]) {
    if let Ok(message) = frame::decode::<M>(bytes) {
        assert!(frame::encode(&message).is_ok());
    }
}

/// A message with some of its bytes changed.
fn changed<M: Serialize>(messages: &[M], which: usize, changes: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = frame::encode(&messages[which % messages.len()]).unwrap().split_off(4);
    let len = bytes.len();
    changes.iter().for_each(|(at, value)| bytes[at % len] = *value);
    bytes
}

proptest! {
    #[test]
    fn any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        parses_or_not::<LocalRequest>(&bytes);
        parses_or_not::<LocalReply>(&bytes);
        parses_or_not::<ControlRequest>(&bytes);
        parses_or_not::<ControlReply>(&bytes);
        let _ = frame::read::<LocalRequest>(&mut &bytes[..]);
    }

    #[test]
    fn changed_messages(which in any::<usize>(), changes in prop::collection::vec((any::<usize>(), any::<u8>()), 1..6)) {
        parses_or_not::<LocalRequest>(&changed(&local_requests(), which, &changes));
        parses_or_not::<LocalReply>(&changed(&local_replies(), which, &changes));
        parses_or_not::<ControlRequest>(&changed(&control_requests(), which, &changes));
        parses_or_not::<ControlReply>(&changed(&control_replies(), which, &changes));
    }
}
