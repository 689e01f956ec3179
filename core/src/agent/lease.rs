//! A lease, seen by the seed's own host: another host's connection that holds the seed, and on which that
//! host is told once that the seed takes no new children.
//!
//! ```text
//!  owner                                   holder
//!  registered at Fetch, before the answer
//!  tell  --Dropping-->                     no new child from now on
//!        <--Noted--                        (or the connection closes: it holds nothing)
//!  await_noted returns
//! ```

use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use crate::descriptor::ArenaNews;
use crate::wire::control::{ChannelSender, ControlReply};
use crate::wire::frame;

/// How long a drop waits for the hosts that hold the seed: one that lays out a template answers after it,
/// one that has fallen silent does not, and starts nothing new once it has noticed.
pub const NOTED_PATIENCE: Duration = Duration::from_secs(2);

/// One host's hold on a seed.
#[derive(Debug)]
pub struct Lease {
    peer: String,
    speech: Mutex<Speech>,
    noted: Mutex<bool>,
    changed: Condvar,
}

/// What is to be said, was said, and by what.
#[derive(Debug, Default)]
struct Speech {
    sender: Option<ChannelSender>,
    is_due: bool,
    is_said: bool,
}

impl Lease {
    /// A lease of the host at `peer`, which cannot be spoken to yet.
    pub fn new(peer: String) -> Self {
        let (speech, noted, changed) = (Mutex::default(), Mutex::default(), Condvar::new());
        Lease { peer, speech, noted, changed }
    }

    /// It can be spoken to from now on.
    pub fn attach(&self, sender: ChannelSender) {
        let mut speech = self.speech.lock();
        speech.sender = Some(sender);
        self.say(&mut speech);
    }

    /// Says, once, that the seed takes no new children.
    pub fn tell(&self) {
        let mut speech = self.speech.lock();
        speech.is_due = true;
        self.say(&mut speech);
    }

    /// Says what more lies in the seed's arena; false if nobody is to be told any more.
    pub fn tell_arena(&self, news: &ArenaNews) -> bool {
        let mut speech = self.speech.lock();
        let sender = speech.sender.as_mut();
        sender
            .is_some_and(|sender| frame::write(sender, &ControlReply::Arena(news.clone())).is_ok())
    }

    fn say(&self, speech: &mut Speech) {
        let Some(sender) = speech.sender.as_mut().filter(|_| speech.is_due && !speech.is_said)
        else {
            return;
        };
        speech.is_said = true;
        if frame::write(sender, &ControlReply::Dropping).is_err() {
            self.note();
        }
    }

    /// The other host knows, or holds nothing any more.
    pub fn note(&self) {
        *self.noted.lock() = true;
        self.changed.notify_all();
    }

    fn is_noted_by(&self, deadline: Instant) -> bool {
        let mut noted = self.noted.lock();
        while !*noted {
            if self.changed.wait_until(&mut noted, deadline).timed_out() {
                return *noted;
            }
        }
        true
    }
}

/// Tells all these hosts, and waits until each of them knows or [`NOTED_PATIENCE`] is over.
pub fn tell_and_wait(leases: &[std::sync::Arc<Lease>]) {
    leases.iter().for_each(|lease| lease.tell());
    let deadline = Instant::now() + NOTED_PATIENCE;
    for lease in leases.iter().filter(|lease| !lease.is_noted_by(deadline)) {
        tracing::warn!(peer = lease.peer, "a host does not answer that it starts no more children");
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::sync::Arc;
    use std::thread;

    use super::*;
    use crate::wire::control::{Channel, ClusterSecret};

    fn channels() -> (Channel, Channel) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let secret = || ClusterSecret([1; 32]);
        let accepting =
            thread::spawn(move || Channel::accept(listener.accept().unwrap().0, &[secret()]));
        let client = Channel::connect(TcpStream::connect(address).unwrap(), &secret()).unwrap();
        (client, accepting.join().unwrap().unwrap())
    }

    #[test]
    fn it_is_told_once_and_waited_for() {
        let (mut holder, owner) = channels();
        let lease = Arc::new(Lease::new("host-b".to_owned()));
        lease.tell();
        lease.attach(owner.split().0);
        lease.tell();
        assert!(matches!(frame::read(&mut holder).unwrap(), ControlReply::Dropping));
        assert!(!lease.is_noted_by(Instant::now()));
        let noting = lease.clone();
        let begun = Instant::now();
        thread::spawn(move || {
            thread::sleep(Duration::from_millis(50));
            noting.note();
        });
        tell_and_wait(&[lease]);
        assert!((50..1500).contains(&begun.elapsed().as_millis()), "{:?}", begun.elapsed());
        assert!(frame::read::<ControlReply>(&mut holder).is_err(), "nothing more was said");
    }

    #[test]
    fn a_silent_host_is_not_waited_for_longer() {
        let (_holder, owner) = channels();
        let lease = Arc::new(Lease::new("host-b".to_owned()));
        lease.attach(owner.split().0);
        let begun = Instant::now();
        tell_and_wait(&[lease.clone(), lease]);
        let took = begun.elapsed();
        assert!(took >= NOTED_PATIENCE && took < 2 * NOTED_PATIENCE, "{took:?}");
    }
}
