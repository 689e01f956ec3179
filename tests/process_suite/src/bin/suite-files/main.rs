//! Opens one file of each kind, is forked, and looks at them in the child.
//!
//! `suite-files FOLDER` prepares with its files carried; FOLDER/kept is on both hosts, FOLDER/gone on the first one
//! alone. With `plain` behind it, it looks at once. Children say `ok` where all is as it was, else a line for what is not;
//! what is expected to differ in a child stands in `Where`. With `all` all threads live on. With kinds of losses behind it (`connections,pipes`), there
//! is to be no seed with such a loss. A payload of `lost` tells of all losses, one of `serve` answers one connection on the socket
//! that listens instead.
#![allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, clippy::cast_sign_loss)]

mod calls;
mod kinds;
mod more;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::fd::FromRawFd;

use mitosis::prepare::{Files, LossKind, PrepareOptions, Refuse, Threads};
use mitosis_process_suite::{fail, prepare_and_hold_with, say};

/// Whether what leads out of the process is still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Where {
    /// This process was not forked.
    Plain,
    /// A child.
    Child,
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [folder, rest @ ..] = arguments.as_slice() else { fail(&"FOLDER [plain]") };
    kinds::open(folder);
    if rest.iter().any(|word| word == "plain") {
        return report(&kinds::differences(Where::Plain));
    }
    let kinds = rest.iter().flat_map(|word| word.split(',')).filter_map(LossKind::named);
    let refuse = kinds.fold(Refuse::NONE, Refuse::and);
    let threads =
        if rest.iter().any(|word| word == "all") { Threads::All } else { Threads::Caller };
    let options =
        PrepareOptions { files: Files::Carried, refuse, threads, ..PrepareOptions::default() };
    let resumed = prepare_and_hold_with(&options);
    match &resumed.payload[..] {
        b"serve" => serve(),
        b"leave" => {}
        b"datagrams" => say(&format!("datagrams {}", more::bound_port())),
        b"hold" => loop {
            say("holds");
            std::thread::sleep(std::time::Duration::from_secs(60));
        },
        b"lost" => resumed.lost.iter().for_each(|loss| {
            say(&format!("{} {:?} {}", loss.kind.name(), loss.fds, loss.was));
        }),
        _ => report(&kinds::differences(Where::Child)),
    }
}

fn report(differences: &[String]) {
    differences.iter().for_each(|difference| say(difference));
    if !differences.is_empty() {
        std::process::exit(1);
    }
    say("ok");
}

/// Answers one connection with what it says.
fn serve() {
    // SAFETY: the number is this program's own, and used by nobody else from here on.
    let listener = unsafe { TcpListener::from_raw_fd(kinds::LISTENER) };
    listener.set_nonblocking(false).unwrap_or_else(|error| fail(&error));
    let port = listener.local_addr().map(|address| address.port());
    say(&format!("serves {}", port.unwrap_or(0)));
    let (mut peer, _) = listener.accept().unwrap_or_else(|error| fail(&error));
    let mut said = [0u8; 5];
    peer.read_exact(&mut said).and_then(|()| peer.write_all(&said)).unwrap_or_else(|e| fail(&e));
    say("served");
}
