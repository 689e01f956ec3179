//! The network of user-mode guests: frames that each of them sends on a socket of its own go to the guest
//! whose address they bear.
//!
//! ```text
//!   guest 1 --socketpair-- port 1 --+-- port 2 --socketpair-- guest 2
//!                                   +-- port 3 ...            a frame a datagram
//! ```
//! A thread a port. A guest that takes nothing holds up nobody for long: its frames are dropped, as a
//! switch does whose queue is full.

use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};

/// The largest that a guest's interface sends: MTU 9000, Ethernet's header, a VLAN tag.
const FRAME_MAX: usize = 9018;
/// How long a frame waits for a guest to take those before it. A host's retransmission comes later.
const QUEUE_LIMIT: Duration = Duration::from_millis(20);
/// Of a guest's address but for its last byte, which is its number.
const VENDOR: [u8; 5] = [0x52, 0x54, 0, 0, 0];

/// The address of a guest's interface.
pub(crate) fn mac(node: u32) -> String {
    let bytes = VENDOR.iter().map(|byte| format!("{byte:02x}:")).collect::<String>();
    format!("{bytes}{node:02x}")
}

/// A switch. Dropped, its threads end.
#[derive(Debug)]
pub(crate) struct Switch {
    ports: Arc<[Port]>,
}

#[derive(Debug)]
struct Port {
    socket: UnixDatagram,
    is_plugged: AtomicBool,
}

impl Switch {
    /// One with so many ports, and what the guests are to have, in the order of their numbers.
    pub(crate) fn new(ports: u32) -> Result<(Self, Vec<OwnedFd>)> {
        let (mut own, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..ports {
            let (socket, other) = UnixDatagram::pair().context("cannot make a guest's network")?;
            socket.set_write_timeout(Some(QUEUE_LIMIT)).context("cannot bound a guest's queue")?;
            own.push(Port { socket, is_plugged: AtomicBool::new(true) });
            theirs.push(OwnedFd::from(other));
        }
        let ports: Arc<[Port]> = own.into();
        for at in 0..ports.len() {
            let ports = Arc::clone(&ports);
            std::thread::spawn(move || forward(&ports, at));
        }
        Ok((Switch { ports }, theirs))
    }

    /// Pulls a guest's cable, or puts it back. The guest's interface does not notice.
    pub(crate) fn plug(&self, node: u32, is_plugged: bool) {
        let port = usize::try_from(node - 1).ok().and_then(|at| self.ports.get(at));
        let port = port.expect("a port of this number");
        port.is_plugged.store(is_plugged, Ordering::Relaxed);
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        for port in self.ports.iter() {
            let _ = port.socket.shutdown(Shutdown::Both);
        }
    }
}

/// Carries on what the guest of one port sends, until the switch ends.
fn forward(ports: &[Port], from: usize) {
    let mut frame = [0; FRAME_MAX];
    loop {
        let Ok(length) = ports[from].socket.recv(&mut frame) else { return };
        let frame = &frame[..length];
        let Some(&[first, .., last]) = frame.get(..6) else {
            // The end of the switch reads as an empty frame.
            if frame.is_empty() {
                return;
            } else {
                continue;
            };
        };
        if !ports[from].is_plugged.load(Ordering::Relaxed) {
            continue;
        }
        // Broadcast and multicast have this bit, and guests no other addresses than ours.
        let is_for_all = first & 1 != 0;
        for (at, port) in ports.iter().enumerate() {
            let is_for_it = is_for_all || usize::from(last) == at + 1;
            if at != from && is_for_it && port.is_plugged.load(Ordering::Relaxed) {
                // A guest that is gone or takes nothing loses it.
                let _ = port.socket.send(frame);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guests(ports: u32) -> (Switch, Vec<UnixDatagram>) {
        let (switch, theirs) = Switch::new(ports).unwrap();
        let theirs: Vec<_> = theirs.into_iter().map(UnixDatagram::from).collect();
        for socket in &theirs {
            socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        (switch, theirs)
    }

    fn frame(to: [u8; 6], text: &str) -> Vec<u8> {
        [&to[..], &[0x52, 0x54, 0, 0, 0, 1], text.as_bytes()].concat()
    }

    fn received(socket: &UnixDatagram) -> Option<Vec<u8>> {
        let mut bytes = [0; 64];
        socket.recv(&mut bytes).ok().map(|length| bytes[..length].to_vec())
    }

    #[test]
    fn a_frame_goes_to_its_address_and_a_broadcast_to_all_others() {
        let (_switch, guests) = guests(3);
        let to_third = frame([0x52, 0x54, 0, 0, 0, 3], "one");
        let to_all = frame([0xff; 6], "all");
        guests[0].send(&to_third).unwrap();
        guests[0].send(&to_all).unwrap();
        // In their order, so what came first to the second was not for the third.
        assert_eq!(received(&guests[1]), Some(to_all.clone()));
        assert_eq!(received(&guests[2]), Some(to_third));
        assert_eq!(received(&guests[2]), Some(to_all));
        guests[0].set_nonblocking(true).unwrap();
        assert_eq!(received(&guests[0]), None, "nothing comes back");
    }

    #[test]
    fn a_pulled_cable_carries_nothing_either_way() {
        let (switch, guests) = guests(2);
        let there = frame([0x52, 0x54, 0, 0, 0, 2], "there");
        let back = frame([0x52, 0x54, 0, 0, 0, 1], "back");
        switch.plug(2, false);
        guests[0].send(&there).unwrap();
        guests[1].send(&back).unwrap();
        std::thread::sleep(Duration::from_millis(100));
        switch.plug(2, true);
        let later = frame([0x52, 0x54, 0, 0, 0, 2], "later");
        guests[0].send(&later).unwrap();
        assert_eq!(received(&guests[1]), Some(later));
        guests[0].set_nonblocking(true).unwrap();
        assert_eq!(received(&guests[0]), None);
    }

    #[test]
    fn a_guest_that_takes_nothing_does_not_hold_up_the_others() {
        let (_switch, guests) = guests(3);
        for _ in 0..40 {
            guests[0].send(&frame([0x52, 0x54, 0, 0, 0, 2], "unread")).unwrap();
        }
        let to_third = frame([0x52, 0x54, 0, 0, 0, 3], "read");
        guests[0].send(&to_third).unwrap();
        guests[2].set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        assert_eq!(received(&guests[2]), Some(to_third));
    }

    #[test]
    fn its_threads_end_with_it() {
        let (switch, guests) = guests(2);
        let ports = Arc::clone(&switch.ports);
        drop(switch);
        drop(guests);
        for _ in 0..100 {
            if Arc::strong_count(&ports) == 1 {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        panic!("{} threads hold its ports", Arc::strong_count(&ports) - 1);
    }
}
