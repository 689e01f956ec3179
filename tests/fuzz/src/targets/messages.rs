//! Messages of control, behind Noise's decryption, and of the local socket.
//!
//! ```text
//! input   u8 what   then bytes: a message's body, or for the agent's own readers frames
//! ```

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use mitosis::agent::read_request;
use mitosis::host::HostAddress;
use mitosis::wire::control::{ControlReply, ControlRequest};
use mitosis::wire::frame::{self, FrameError};
use mitosis::wire::listen::Listen;
use mitosis::wire::local::{LocalReply, LocalRequest, ResumeRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::allocation::bounded;

/// Input beyond this does not fit a socket's buffer, and nobody reads while it is written.
const MAX_SOCKET_BYTES: usize = 32 << 10;

pub(crate) fn control(input: &[u8]) -> bool {
    let Some((&what, bytes)) = input.split_first() else { return false };
    match what % 3 {
        0 => {
            let request = body::<ControlRequest>(bytes);
            if let Some(ControlRequest::Resume(request)) = &request {
                resume(request);
            }
            request.is_some()
        }
        1 => body::<ControlReply>(bytes).is_some(),
        _ => frames::<ControlRequest>(bytes),
    }
}

pub(crate) fn local(input: &[u8]) -> bool {
    let Some((&what, bytes)) = input.split_first() else { return false };
    match what % 3 {
        0 => {
            let request = body::<LocalRequest>(bytes);
            if let Some(LocalRequest::Resume(request)) = &request {
                resume(request);
            }
            request.is_some()
        }
        1 => body::<LocalReply>(bytes).is_some(),
        _ => socket(&bytes[..bytes.len().min(MAX_SOCKET_BYTES)]),
    }
}

/// What is parsed is written as other bytes at most once: as this version writes it.
fn body<M: Serialize + DeserializeOwned>(bytes: &[u8]) -> Option<M> {
    let message = bounded(bytes, frame::decode::<M>).ok()?;
    let written = frame::encode(&message).expect("what fits a frame fits it again");
    let again = frame::decode::<M>(&written[4..]).expect("what is written is read");
    assert_eq!(frame::encode(&again).expect("as before"), written);
    Some(message)
}

/// Frames one behind the other, as a connection has them: each is the body that its length cuts out.
fn frames<M: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let mut stream = bytes;
    let mut any = false;
    loop {
        let before = stream;
        match bounded(before, |_| frame::read::<M>(&mut stream)) {
            Ok(message) => {
                let used = before.len() - stream.len();
                let same = frame::decode::<M>(&before[4..used]).expect("it was read");
                let [message, same] = [message, same].map(|it| frame::encode(&it).expect("it is"));
                assert_eq!(message, same);
                any = true;
            }
            Err(FrameError::Closed) => {
                assert!(before.is_empty(), "closed between frames alone");
                return any;
            }
            Err(_) => return any,
        }
    }
}

/// The agent's own reader of the first frame on its socket.
fn socket(bytes: &[u8]) -> bool {
    let (mut ours, theirs) = UnixStream::pair().expect("a pair of sockets");
    ours.write_all(bytes).expect("it fits the buffer");
    ours.shutdown(Shutdown::Write).expect("it is connected");
    let mut fds = Vec::new();
    let read = bounded(bytes, |_| read_request(&theirs, &mut fds));
    assert!(fds.is_empty(), "no descriptor was sent");
    let plain = frame::read::<LocalRequest>(&mut &*bytes);
    assert_eq!(read.is_ok(), plain.is_ok(), "{read:?} {plain:?}");
    read.is_ok()
}

/// What the agent makes of a resume before it starts anything.
fn resume(request: &ResumeRequest) {
    if let Some(Ok(host)) = request.host.as_ref().map(|host| host.parse::<HostAddress>()) {
        let text = host.to_string();
        assert_eq!(text.parse::<HostAddress>().map(|again| again.to_string()), Ok(text));
    }
    for listen in &request.listen {
        // Not every one that is parsed has a text that is one: a path may have what divides two in a text.
        let text = listen.to_string();
        if let Ok(again) = text.parse::<Listen>() {
            assert_eq!(again.to_string(), text);
        }
    }
}
