//! The port: control connections and READ streams of other agents.

use std::fs::File;
use std::io::Write;
use std::net::{IpAddr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Agent;
use super::connections::Connections;
use super::failure::fail;
use super::lease::Lease;
use super::limits::too_many_connections;
use super::relay::{self, Pipes};
use super::seeds::Hold;
use super::starting::StartedBy;
use crate::descriptor::ArenaNews;
use crate::export::ArenaState;
use crate::halt;
use crate::id::{ForkKey, SeedId};
use crate::sys::clock;
use crate::sys::event::Bell;
use crate::tally::Tally;
use crate::wire::control::{About, Channel, ControlReply, ControlRequest};
use crate::wire::frame::{self, FrameError};
use crate::wire::local::{Failure, FailureKind, ResumeRequest};
use crate::wire::{control, read, seal};

/// Connections of other agents at one time.
pub const MAX_CONNECTIONS: usize = 4096;
/// A peer that has not finished its greeting by then is cut off.
const GREETING_DEADLINE: Duration = Duration::from_secs(3);

/// Connections of one address whose greeting is not there: a quarter of all, so that no host keeps others out. More come
/// at one moment only from who never greets, as a peer's is on its way when it connects.
const MAX_STRANGERS_OF_ADDRESS: usize = MAX_CONNECTIONS / 4;
/// Bytes of the longest of them.
const LONGEST_GREETING: usize = 76;

const _: () = assert!(
    LONGEST_GREETING >= control::GREETING_LEN
        && LONGEST_GREETING >= read::GREETING_LEN
        && LONGEST_GREETING >= seal::GREETING_LEN
);

/// How often it is looked whether more lies in an arena: each time saves some READs over tcp.
const ARENA_TICK: Duration = Duration::from_millis(5);
/// A peer that takes none of an answer's bytes for so long is cut off.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

static CONNECTIONS: Connections = Connections::new(MAX_CONNECTIONS, "peer");

/// Serves the port until the agent ends.
pub(super) fn serve(agent: &Arc<Agent>, listener: &TcpListener) {
    let agent = agent.clone();
    CONNECTIONS.serve(listener.incoming(), move |stream| converse(&agent, stream));
}

/// What a connection is, once its greeting is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Greeting {
    Control,
    Read,
}

fn converse(agent: &Arc<Agent>, stream: TcpStream) {
    let Ok(address) = stream.peer_addr() else { return };
    let peer = address.to_string();
    match await_greeting(&agent.strangers, MAX_STRANGERS_OF_ADDRESS, &stream) {
        Some(Greeting::Read) => agent.pages.serve(stream),
        Some(Greeting::Control) => match Channel::accept(stream, &agent.config.secrets) {
            Ok(channel) => {
                super::keep_alive(channel.stream());
                if let Err(error) = serve_channel(agent, channel) {
                    tracing::debug!(peer, %error, "a control connection ended");
                }
            }
            Err(error) => tracing::warn!(peer, %error, "a peer was refused"),
        },
        None => tracing::debug!(peer, "a connection without a greeting was closed"),
    }
}

/// Tells what a connection is by its first bytes. All of its greeting is there before any of it is read, so a stranger has
/// one deadline and not one a byte; until then it is one of `most` that its address may have.
fn await_greeting(
    strangers: &Arc<Tally<IpAddr>>,
    most: usize,
    stream: &TcpStream,
) -> Option<Greeting> {
    let address = stream.peer_addr().ok()?.ip().to_canonical();
    let _stranger = strangers.enter(address, 1, most)?;
    let deadline = Instant::now() + GREETING_DEADLINE;
    let mut magic = [0u8; 8];
    peek_all(stream, &mut magic, deadline).ok()?;
    let (len, greeting) = match magic {
        control::MAGIC => (control::GREETING_LEN, Greeting::Control),
        read::MAGIC => (read::GREETING_LEN, Greeting::Read),
        seal::MAGIC => (seal::GREETING_LEN, Greeting::Read),
        _ => return None,
    };
    peek_all(stream, &mut [0u8; LONGEST_GREETING][..len], deadline).ok()?;
    stream.set_read_timeout(Some(GREETING_DEADLINE)).ok()?;
    Some(greeting)
}

fn peek_all(stream: &TcpStream, into: &mut [u8], deadline: Instant) -> std::io::Result<()> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(std::io::ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.peek(into)? {
            0 => return Err(std::io::ErrorKind::UnexpectedEof.into()),
            got if got == into.len() => return Ok(()),
            _ => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

fn serve_channel(agent: &Arc<Agent>, mut channel: Channel) -> Result<(), FrameError> {
    bound_answers(&channel, ANSWER_DEADLINE)?;
    let peer = channel.stream().peer_addr()?.ip().to_canonical();
    let most = agent.config.limits.connections_of_peer;
    loop {
        let request: ControlRequest = match frame::read(&mut channel) {
            Err(FrameError::Closed) => return Ok(()),
            request => request?,
        };
        // What may keep the connection for long counts for the peer.
        let lasts = matches!(
            request,
            ControlRequest::Resume(_)
                | ControlRequest::Fetch { .. }
                | ControlRequest::Rejoin { .. }
        );
        let place = lasts.then(|| agent.peers_here.enter(peer, 1, most));
        if let Some(None) = place {
            let failure = too_many_connections(peer, most);
            tracing::debug!(%failure, "a request was refused");
            return frame::write(&mut channel, &ControlReply::Failed(failure));
        }
        match request {
            ControlRequest::Resume(request) => return serve_resume(agent, channel, *request, peer),
            ControlRequest::Fetch { seed, key, ends_with_children } => {
                let name = channel.stream().peer_addr().map(|peer| peer.to_string());
                let lease = Arc::new(Lease::new(name.unwrap_or_default()));
                halt::at(halt::Step::Descriptor);
                let (reply, hold) = fetch(agent, seed, &key, &lease, peer);
                let others = match hold {
                    Some(_) if ends_with_children => agent.seeds.end_with_children(seed),
                    _ => Vec::new(),
                };
                others.iter().for_each(|lease| lease.tell());
                frame::write(&mut channel, &reply)?;
                if let Some((_hold, teller)) = hold {
                    return keep_lease(agent, channel, &lease, Some(teller));
                }
            }
            ControlRequest::Rejoin { seed, key } => {
                let name = channel.stream().peer_addr().map(|peer| peer.to_string());
                let lease = Arc::new(Lease::new(name.unwrap_or_default()));
                match agent.seeds.rejoin(seed, &key, lease.clone()) {
                    Ok((_hold, is_dropping)) => {
                        // In this answer, not behind it: it may not start one more child in between.
                        let reply = match is_dropping {
                            true => ControlReply::Dropping,
                            false => ControlReply::Done,
                        };
                        frame::write(&mut channel, &reply)?;
                        // What it knows of an arena is of the agent before.
                        return keep_lease(agent, channel, &lease, None);
                    }
                    Err(failure) => frame::write(&mut channel, &ControlReply::Failed(failure))?,
                }
            }
            request => frame::write(&mut channel, &answer(agent, request, peer))?,
        }
    }
}

/// A request may be long in coming, an answer must be taken: else its thread would wait for ever.
fn bound_answers(channel: &Channel, deadline: Duration) -> std::io::Result<()> {
    channel.stream().set_read_timeout(None)?;
    channel.stream().set_write_timeout(Some(deadline))
}

fn answer(agent: &Arc<Agent>, request: ControlRequest, peer: IpAddr) -> ControlReply {
    let result = match request {
        ControlRequest::Token => return ControlReply::Token(agent.pages.issue_token_to(peer)),
        ControlRequest::About => return ControlReply::About(agent.about()),
        ControlRequest::Kill { child, signal } => {
            agent.children.kill(child, signal).map(|()| ControlReply::Done)
        }
        ControlRequest::Digests { seed, key, files } => digests(agent, seed, &key, &files),
        ControlRequest::Resume(_)
        | ControlRequest::Fetch { .. }
        | ControlRequest::Rejoin { .. }
        | ControlRequest::Noted => {
            Err(fail(FailureKind::Protocol, "the request needs a connection of its own"))
        }
    };
    result.unwrap_or_else(ControlReply::Failed)
}

/// A seed's descriptor, and what holds the seed while the other host needs it.
fn fetch(
    agent: &Arc<Agent>,
    seed: SeedId,
    key: &ForkKey,
    lease: &Arc<Lease>,
    peer: IpAddr,
) -> (ControlReply, Option<(Hold, ArenaTeller)>) {
    match agent.seeds.fetch_and_hold(seed, key, Some(lease.clone())) {
        Ok((published, hold)) => {
            let mut teller = ArenaTeller { seed, slabs: published.slabs, filled: 0 };
            let arena = teller.news(agent).0.unwrap_or_default();
            let bytes = published.descriptor.to_vec();
            let token = agent.pages.issue_token_to(peer);
            let clocks = clock::now().moved_by(published.clock_offset);
            let digests = published.files.iter().map(|file| agent.digests.known(file)).collect();
            let reply = ControlReply::Descriptor { bytes, token, clocks, digests, arena };
            (reply, Some((hold, teller)))
        }
        Err(failure) => (ControlReply::Failed(failure), None),
    }
}

fn digests(
    agent: &Arc<Agent>,
    seed: SeedId,
    key: &ForkKey,
    files: &[u16],
) -> Result<ControlReply, Failure> {
    let (_, published) = agent.seeds.fetch(seed, key)?;
    let digest = |index: &u16| {
        published.files.get(usize::from(*index)).and_then(|file| agent.digests.of_mapped(file))
    };
    Ok(ControlReply::Digests(files.iter().map(digest).collect()))
}

/// Stays while the other host needs the seed.
fn keep_lease(
    agent: &Arc<Agent>,
    channel: Channel,
    lease: &Arc<Lease>,
    teller: Option<ArenaTeller>,
) -> Result<(), FrameError> {
    super::keep_lease_alive(channel.stream());
    let (sender, mut receiver) = channel.split();
    lease.attach(sender);
    if let Some(teller) = teller {
        teller.start(agent, lease);
    }
    loop {
        match frame::read(&mut receiver) {
            Ok(ControlRequest::Noted) => lease.note(),
            // Nothing else is ever said on a lease.
            Ok(_) | Err(FrameError::Closed) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

/// What another host knows of a seed's arena. It is told the rest by a thread that lives while the arena is
/// filled: some tenths of a second.
struct ArenaTeller {
    seed: SeedId,
    slabs: usize,
    filled: u64,
}

impl ArenaTeller {
    /// What is new since it was last asked for, and whether nothing will follow.
    fn news(&mut self, agent: &Agent) -> (Option<ArenaNews>, bool) {
        let ArenaState { news, is_done } =
            agent.exports.arena_news(self.seed, self.slabs, self.filled);
        if let Some(news) = &news {
            self.slabs += news.slabs.len();
            self.filled = news.filled;
        }
        (news, is_done)
    }

    fn start(mut self, agent: &Arc<Agent>, lease: &Arc<Lease>) {
        if agent.exports.arena_news(self.seed, self.slabs, self.filled) == ArenaState::NOTHING {
            return;
        }
        let (agent, lease) = (agent.clone(), Arc::downgrade(lease));
        let tell = move || {
            loop {
                let (news, is_done) = self.news(&agent);
                match (news, lease.upgrade()) {
                    (Some(news), Some(lease)) if lease.tell_arena(&news) => {}
                    (None, Some(_)) if !is_done => std::thread::sleep(ARENA_TICK),
                    _ => return,
                }
            }
        };
        if let Err(error) = std::thread::Builder::new().name("arena-news".to_owned()).spawn(tell) {
            tracing::error!(%error, "a host is not told what lies in the arena");
        }
    }
}

fn serve_resume(
    agent: &Arc<Agent>,
    mut channel: Channel,
    request: ResumeRequest,
    peer: IpAddr,
) -> Result<(), FrameError> {
    let null = File::open("/dev/null")?;
    let Pipes { mut output, children } = Pipes::new()?;
    let stdio = [null.as_fd(), children[0].as_fd(), children[1].as_fd()];
    let bell = Arc::new(Bell::new()?);
    let caller = channel.stream().as_fd();
    let by = StartedBy::Peer(peer);
    let started = match agent.start_here(&request, stdio, caller, Some(bell.clone()), by) {
        Ok(started) => started,
        Err(failure) => return frame::write(&mut channel, &ControlReply::Failed(failure)),
    };
    let count = started.children.len();
    let reply = ControlReply::Started { children: started.children, report: started.report };
    let (mut sender, receiver) = channel.split();
    drop(children);
    // Whose output is stopped (a pager, Ctrl-S) may take its time, and says by keep-alive that it lives.
    sender.stream().set_write_timeout(None)?;
    let relayed = frame::write(&mut sender, &reply)
        .and_then(|()| relay::relay(&mut sender, &mut output, &started.events, &bell, count));
    let _ = sender.stream().shutdown(Shutdown::Both);
    drop(receiver);
    relayed
}

impl Agent {
    fn about(&self) -> About {
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let fabrics = self.fabrics();
        let others = fabrics.iter().map(|fabric| fabric.name()).filter(|name| *name != "local");
        About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: self.config.host.clone(),
            kernel: kernel.trim().to_owned(),
            realtime_ns: clock::realtime_ns(),
            fabrics: others.map(str::to_owned).collect(),
        }
    }
}

/// Writes all of `bytes` to a caller's own descriptor; a caller that has closed it loses the output.
pub(super) fn write_output(mut to: &File, bytes: &[u8]) {
    let _ = to.write_all(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::control::ClusterSecret;

    /// Who says nothing is in nobody's way but his own.
    #[test]
    fn an_address_has_so_many_connections_without_a_greeting_and_others_have_theirs() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let strangers: Arc<Tally<IpAddr>> = Arc::default();
        let mut waiting = Vec::new();
        let mut silent = Vec::new();
        for _ in 0..2 {
            silent.push(TcpStream::connect(listener.local_addr().unwrap()).unwrap());
            let (stream, strangers) = (listener.accept().unwrap().0, strangers.clone());
            waiting.push(std::thread::spawn(move || await_greeting(&strangers, 2, &stream)));
        }
        let is_full = || strangers.count(&IpAddr::from([127, 0, 0, 1])) == 2;
        let until = Instant::now() + GREETING_DEADLINE;
        while !is_full() {
            assert!(Instant::now() < until, "none of them is counted");
            std::thread::yield_now();
        }
        let mut third = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let token = crate::id::StreamToken::random();
        third.write_all(&read::encode_greeting(&token)).unwrap();
        let accepted = listener.accept().unwrap().0;
        assert_eq!(await_greeting(&strangers, 2, &accepted), None);
        assert!(strangers.enter(IpAddr::from([127, 0, 0, 2]), 1, 2).is_some());
        // Those that greet make room.
        silent[0].write_all(&read::encode_greeting(&token)).unwrap();
        silent[1].write_all(&seal::greet(&token).unwrap().0).unwrap();
        for waiting in waiting {
            assert_eq!(waiting.join().unwrap(), Some(Greeting::Read));
        }
        assert!(strangers.enter(IpAddr::from([127, 0, 0, 1]), 2, 2).is_some());
    }

    #[test]
    fn a_peer_that_does_not_take_its_answers_is_cut_off() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let secret = || ClusterSecret([1; 32]);
        let peer = std::thread::spawn(move || {
            Channel::connect(TcpStream::connect(address).unwrap(), &secret()).unwrap()
        });
        let mut channel = Channel::accept(listener.accept().unwrap().0, &[secret()]).unwrap();
        let _peer = peer.join().unwrap();
        bound_answers(&channel, Duration::from_millis(200)).unwrap();
        let answer = ControlReply::Descriptor {
            bytes: vec![0; 4 << 20],
            token: crate::id::StreamToken::random(),
            clocks: crate::descriptor::Clocks::default(),
            digests: Vec::new(),
            arena: ArenaNews::default(),
        };
        let cut = (0..64).find_map(|_| frame::write(&mut channel, &answer).err());
        assert!(matches!(cut, Some(FrameError::Io(_))), "{cut:?}");
    }
}
