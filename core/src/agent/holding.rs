//! A lease, seen by the host that holds it: what its owner says on it, and what becomes of it when it is lost.
//!
//! ```text
//!  held --Dropping--> no new children, Noted
//!   |  ^
//!   |  '--------------------------- Rejoin -----.
//!   '--the connection ends, or is silent--> adrift --refused, or REJOIN_PATIENCE--> whoever asks for more asks the owner
//! ```
//! An owner's agent that was restarted has its seeds still, and waits for who held them. Children of the seed run on
//! meanwhile: their misses have their own deadline.

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Agent;
use super::failure::fail;
use super::hosted::Hosted;
use crate::id::{ForkKey, Handle, SeedId};
use crate::sys::poll;
use crate::wire::control::{Channel, ChannelReceiver, ChannelSender, ControlReply, ControlRequest};
use crate::wire::frame;
use crate::wire::local::{Failure, FailureKind};

/// How long a lost lease is asked for: longer than an agent leaves its seeds to the next one.
const REJOIN_PATIENCE: Duration = Duration::from_secs(90);
/// The pause before the second attempt; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
/// The pause grows no longer.
const LAST_PAUSE: Duration = Duration::from_secs(1);

/// What tells another host that this one still needs its seed: a connection to its agent; closing it lets
/// go.
#[derive(Debug)]
pub(super) struct Lease(Mutex<TcpStream>);

impl Lease {
    pub(super) fn new(stream: TcpStream) -> Arc<Self> {
        Arc::new(Lease(Mutex::new(stream)))
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let _ = self.0.lock().shutdown(Shutdown::Both);
    }
}

/// The lease of a seed that is being built, which nobody watches yet. If that fails after the lease was lost, the owner's
/// next agent waits for this host, and is told that it need not.
pub(super) struct Unwatched {
    watch: Option<Watch>,
    stream: TcpStream,
}

impl Unwatched {
    /// It is watched from now on.
    pub(super) fn stand_down(mut self) {
        self.watch = None;
    }
}

impl Drop for Unwatched {
    fn drop(&mut self) {
        let Some(watch) = self.watch.take().filter(|_| is_lost(&self.stream)) else { return };
        let thread = std::thread::Builder::new().name("lease".to_owned());
        if let Err(error) = thread.spawn(move || drop(watch.rejoin())) {
            tracing::debug!(%error, "the owner waits for this host");
        }
    }
}

/// Whether the other end has closed it.
fn is_lost(stream: &TcpStream) -> bool {
    let is_readable = matches!(poll::is_readable(stream.as_raw_fd()), Ok(true));
    is_readable && !matches!(stream.peek(&mut [0]), Ok(1..))
}

/// A lease that is watched.
struct Watch {
    agent: Arc<Agent>,
    /// `host:port` of its owner.
    owner: String,
    seed: SeedId,
    key: ForkKey,
    hosted: Weak<Hosted>,
    lease: Weak<Lease>,
}

impl Agent {
    /// Stands for the lease of a seed until it is watched.
    pub(super) fn unwatched(
        self: &Arc<Self>,
        handle: &Handle,
        channel: &Channel,
    ) -> Option<Unwatched> {
        let watch = Watch {
            agent: self.clone(),
            owner: handle.agent.clone()?,
            seed: handle.seed,
            key: handle.key.clone(),
            hosted: Weak::new(),
            lease: Weak::new(),
        };
        let stream = channel.stream().try_clone().ok()?;
        Some(Unwatched { watch: Some(watch), stream })
    }

    /// Watches the connection that a hosted seed lives by: when its owner says so, no more children are
    /// started from it here. One that is lost is asked for again.
    pub(super) fn watch_lease(
        self: &Arc<Self>,
        hosted: &Arc<Hosted>,
        channel: Channel,
        owner: &str,
    ) -> Result<(), Failure> {
        let Some(lease) = hosted.lease() else { return Ok(()) };
        let seed = hosted.seed;
        let watch = Watch {
            agent: self.clone(),
            owner: owner.to_owned(),
            seed,
            key: hosted.key.clone(),
            hosted: Arc::downgrade(hosted),
            lease: Arc::downgrade(lease),
        };
        super::keep_lease_alive(channel.stream());
        let (sender, receiver) = channel.split();
        // Nobody would hear that the seed is dropped.
        let thread = std::thread::Builder::new().name("lease".to_owned());
        thread.spawn(move || watch.run(sender, receiver)).map(drop).map_err(|error| {
            let text = format!(
                "seed {seed} cannot be resumed here: no thread for its lease ({error}); raise the limits on processes"
            );
            fail(FailureKind::Limit, text)
        })
    }
}

impl Watch {
    fn run(self, mut sender: ChannelSender, mut receiver: ChannelReceiver) {
        loop {
            self.hear(&mut sender, &mut receiver);
            if self.lease.strong_count() == 0 {
                // Let go.
                return;
            }
            self.note(|hosted| hosted.is_adrift.store(true, Ordering::Release));
            self.agent.peers.forget_tokens(&self.owner);
            let Some(channel) = self.rejoin() else { return };
            tracing::info!(seed = %self.seed, owner = self.owner, "a seed is held again");
            super::keep_lease_alive(channel.stream());
            (sender, receiver) = channel.split();
            self.note(|hosted| hosted.is_adrift.store(false, Ordering::Release));
        }
    }

    /// Does what the owner says, until the connection is gone or silent.
    fn hear(&self, sender: &mut ChannelSender, receiver: &mut ChannelReceiver) {
        let _ = receiver.stream().set_read_timeout(None);
        while let Ok(reply) = frame::read::<ControlReply>(receiver) {
            match reply {
                ControlReply::Dropping => {
                    self.note(|hosted| hosted.dropping.store(true, Ordering::Release));
                    // The owner's drop waits for it; where it cannot be sent, the lease has ended.
                    let _ = frame::write(sender, &ControlRequest::Noted);
                }
                ControlReply::Arena(news) => {
                    let taken =
                        self.hosted.upgrade().map(|hosted| hosted.image().arena_news(&news));
                    if let Some(Err(error)) = taken {
                        tracing::warn!(seed = %self.seed, %error, "its pages are read over tcp");
                    }
                }
                _ => {}
            }
        }
    }

    fn note(&self, take: impl FnOnce(&Hosted)) {
        if let Some(hosted) = self.hosted.upgrade() {
            take(&hosted);
        }
        self.agent.hosting.sweep(self.agent.config.linger);
    }

    /// The lease once more; `None`: it is not to be had, or not needed any more. The owner's agent waits for whoever held
    /// the seed: it is told that, too, by a connection that closes.
    fn rejoin(&self) -> Option<Channel> {
        let until = Instant::now() + REJOIN_PATIENCE;
        let mut pause = FIRST_PAUSE;
        while Instant::now() < until {
            let request = ControlRequest::Rejoin { seed: self.seed, key: self.key.clone() };
            match self.agent.peers.converse(&self.owner, &request) {
                Ok((reply @ (ControlReply::Done | ControlReply::Dropping), channel)) => {
                    if matches!(reply, ControlReply::Dropping) {
                        self.note(|hosted| hosted.dropping.store(true, Ordering::Release));
                    }
                    let stream = channel.stream().try_clone().ok()?;
                    *self.lease.upgrade()?.0.lock() = stream;
                    return Some(channel);
                }
                // With too many connections there, those of before are not noticed yet.
                Err(failure)
                    if matches!(failure.kind, FailureKind::Unreachable | FailureKind::Limit) => {}
                Ok(_) | Err(_) => return None,
            }
            std::thread::sleep(pause);
            pause = LAST_PAUSE.min(pause * 2);
        }
        None
    }
}
