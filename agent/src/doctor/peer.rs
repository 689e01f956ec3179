//! Another host, for `mitosis doctor --peer`: whether its agent answers here, knows the secret, and by which ways pages would
//! come. It is asked as an agent of this host would ask it.

use std::io::{self, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use mitosis::host::HostAddress;
use mitosis::sys::{clock, socket};
use mitosis::wire::control::{About, Channel, ChannelError, ControlReply, ControlRequest};
use mitosis::wire::frame;
use mitosis::wire::read::{self, Status};
use mitosis::wire::seal;

use super::Check;
use crate::daemon::read_secret;
use crate::rdma::Facts as RdmaFacts;
use crate::settings::Settled;

/// An agent that has not answered by then is not there.
const DEADLINE: Duration = Duration::from_secs(5);
/// Times that it is asked: the quickest answer is the way's, the others met something else.
const ROUNDS: usize = 5;
/// Clocks that differ by more make logs of two hosts hard to read.
const CLOCKS_DIFFER_NS: u64 = 1_000_000_000;
/// A way that is slower is felt by each miss.
const SLOW: Duration = Duration::from_millis(2);
/// The least segment of a way that carries whole Ethernet frames.
const SMALL_SEGMENT_BYTES: u32 = 1200;

/// What was found.
#[derive(Clone, Debug)]
pub struct Facts {
    /// "name:port", or what was given.
    pub address: String,
    /// A connection, or why there is none.
    pub reached: Result<Reached, Unreached>,
    /// The secret that is known here, or why none is; asked of a host that is reached.
    pub secret: Result<(), String>,
    /// What its agent says of itself; `None` if there is no connection or no secret for it.
    pub told: Option<Result<Told, Untold>>,
    /// The fabric that an agent of this host would have.
    pub own_fabric: Result<String, String>,
}

/// Why there is no connection.
#[derive(Clone, Debug)]
pub enum Unreached {
    /// The text names no host.
    NoName(String),
    /// The name has no address.
    NoAddress(String),
    /// The host says that nobody listens.
    Refused,
    /// Nothing comes back, or something else.
    Silent(String),
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Reached {
    /// Where it leads.
    pub to: String,
    /// Of a segment.
    pub segment_bytes: Option<u32>,
}

/// Why its agent says nothing.
#[derive(Clone, Debug)]
pub enum Untold {
    /// It does not know our secret, or is no agent.
    Secret,
    /// Something else.
    Other(String),
}

/// What it says.
#[derive(Clone, Debug)]
pub struct Told {
    /// Of itself.
    pub about: About,
    /// The quickest answer.
    pub round_trip: Duration,
    /// How far its clock is ahead of ours.
    pub ahead_ns: i128,
    /// Whether a READ stream from here is encrypted, or why there is none.
    pub is_encrypted: Result<bool, String>,
}

impl Facts {
    /// Asks it.
    pub fn gather(settled: &Settled, peer: &str) -> Self {
        let choice = RdmaFacts::gather(settled).choice;
        let own_fabric = choice.map(|choice| choice.fabric.to_string());
        let secret = match settled.list("secret_file").first() {
            Some(path) => read_secret(path.as_ref()).map_err(|error| format!("{error:#}")),
            None => Err("this host has none".to_owned()),
        };
        let (address, stream) = match peer.parse::<HostAddress>() {
            Ok(host) => (host.to_string(), reach(&host.to_string())),
            Err(error) => (peer.to_owned(), Err(Unreached::NoName(error.to_string()))),
        };
        let (mut told, mut reached) = (None, Err(Unreached::Refused));
        match stream {
            Err(why) => reached = Err(why),
            Ok(stream) => {
                let to = stream.peer_addr().map_or_else(|_| address.clone(), |to| to.to_string());
                let segment_bytes = socket::segment_bytes(&stream).ok();
                reached = reached.or(Ok(Reached { to, segment_bytes }));
                if let Ok(secret) = &secret {
                    let is_demanded = settled.switch("encrypt_reads");
                    let channel = Channel::connect(stream, secret).map_err(untold);
                    told = Some(channel.and_then(|channel| ask(channel, is_demanded)));
                }
            }
        }
        Facts { address, reached, secret: secret.map(drop), told, own_fabric }
    }
}

fn reach(address: &str) -> Result<TcpStream, Unreached> {
    let addresses = address.to_socket_addrs();
    let addresses = addresses.map_err(|error| Unreached::NoAddress(error.to_string()))?;
    let mut why = Unreached::NoAddress("the name has no address".to_owned());
    for address in addresses {
        match connect(address) {
            Ok(stream) => return Ok(stream),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                why = Unreached::Refused;
            }
            Err(error) => why = Unreached::Silent(error.to_string()),
        }
    }
    Err(why)
}

fn connect(address: std::net::SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, DEADLINE)?;
    stream.set_read_timeout(Some(DEADLINE))?;
    stream.set_write_timeout(Some(DEADLINE))?;
    Ok(stream)
}

fn untold(error: ChannelError) -> Untold {
    match error {
        ChannelError::Secret => Untold::Secret,
        error => Untold::Other(error.to_string()),
    }
}

fn ask(mut channel: Channel, is_demanded: bool) -> Result<Told, Untold> {
    let mut best: Option<Told> = None;
    for _ in 0..ROUNDS {
        let (asked_ns, asked) = (clock::realtime_ns(), Instant::now());
        let reply = frame::write(&mut channel, &ControlRequest::About)
            .and_then(|()| frame::read(&mut channel));
        let round_trip = asked.elapsed();
        let about = match reply {
            Ok(ControlReply::About(about)) => about,
            Ok(other) => return Err(Untold::Other(format!("it answered {other:.40?}"))),
            Err(error) => return Err(Untold::Other(error.to_string())),
        };
        if best.as_ref().is_none_or(|best| round_trip < best.round_trip) {
            let middle_ns = i128::from(asked_ns) + round_trip.as_nanos().cast_signed() / 2;
            let ahead_ns = i128::from(about.realtime_ns) - middle_ns;
            let is_encrypted = Ok(is_demanded);
            best = Some(Told { about, round_trip, ahead_ns, is_encrypted });
        }
    }
    let mut told = best.ok_or_else(|| Untold::Other("it was not asked".to_owned()))?;
    told.is_encrypted = open_stream(&mut channel, is_demanded).map_err(|error| error.to_string());
    Ok(told)
}

/// Opens a READ stream as a pager would, and tells whether it is encrypted.
fn open_stream(channel: &mut Channel, is_demanded: bool) -> anyhow::Result<bool> {
    frame::write(channel, &ControlRequest::Token)?;
    let ControlReply::Token(token) = frame::read(channel)? else {
        anyhow::bail!("its agent gives no token for one");
    };
    let mut stream = connect(channel.stream().peer_addr()?)?;
    let greeted = if is_demanded {
        let (greeting, greeted) = seal::greet(&token)?;
        stream.write_all(&greeting)?;
        Some(greeted)
    } else {
        stream.write_all(&read::encode_greeting(&token))?;
        None
    };
    let mut welcome = [0; read::WELCOME_LEN];
    stream.read_exact(&mut welcome)?;
    match read::parse_welcome(welcome)? {
        Status::Ok => {
            if let Some(greeted) = greeted {
                let mut message = [0; seal::HANDSHAKE_LEN];
                stream.read_exact(&mut message)?;
                greeted.answered(&message)?;
            }
            Ok(is_demanded)
        }
        Status::Encrypt => Ok(true),
        Status::Busy => {
            anyhow::bail!("it serves as many as it takes, or as one peer may have there")
        }
        other => anyhow::bail!("its agent has answered {other:?}"),
    }
}

/// Judges them.
pub fn judge(facts: &Facts) -> Vec<Check> {
    let mut checks = vec![reachable(facts)];
    let Ok(reached) = &facts.reached else { return checks };
    checks.extend(segments(reached));
    checks.push(secret(facts));
    match &facts.told {
        Some(Ok(told)) => checks.extend(agent(facts, told)),
        Some(Err(Untold::Other(why))) => checks.push(Check::missing(
            "its agent",
            format!("does not say what it is: {why}"),
            "run the same version of mitosis on both hosts; its log says more",
        )),
        Some(Err(Untold::Secret)) | None => {}
    }
    checks
}

fn reachable(facts: &Facts) -> Check {
    const NAME: &str = "its port";
    let address = &facts.address;
    match &facts.reached {
        Ok(reached) => Check::fine(NAME, format!("{address} answers ({})", reached.to)),
        Err(Unreached::NoName(why)) => Check::missing(NAME, why, "give NAME or NAME:PORT"),
        Err(Unreached::NoAddress(why)) => Check::missing(
            NAME,
            format!("{address}: {why}"),
            "give an address that this host knows, or enter the name (DNS, /etc/hosts)",
        ),
        Err(Unreached::Refused) => Check::missing(
            NAME,
            format!("{address}: nobody listens there"),
            "start it there: mitosis agent --listen 0.0.0.0 --secret-file FILE; give its port if that is another",
        ),
        Err(Unreached::Silent(why)) => Check::missing(
            NAME,
            format!("{address} does not answer: {why}"),
            "open this port for this host (firewall, security group), and see that the host is up",
        ),
    }
}

fn segments(reached: &Reached) -> Option<Check> {
    const NAME: &str = "segments";
    let bytes = reached.segment_bytes?;
    Some(if bytes < SMALL_SEGMENT_BYTES {
        let remedy = "raise the MTU of the way (ip link set DEV mtu 1500), tunnels included";
        Check::lacking(NAME, format!("{bytes} bytes: a page needs several"), remedy)
    } else {
        Check::fine(NAME, format!("{bytes} bytes on the way there"))
    })
}

fn secret(facts: &Facts) -> Check {
    const NAME: &str = "the secret";
    match (&facts.secret, &facts.told) {
        (Err(why), _) => Check::missing(
            NAME,
            why,
            "give the agent's: mitosis doctor --peer HOST -- --secret-file FILE, or secret_file in mitosis.conf",
        ),
        (Ok(()), Some(Err(Untold::Secret))) => Check::missing(
            NAME,
            "its agent does not know the one of this host, or is of another major version",
            "copy the file of one host to the other (scp -p), and start that agent again with it",
        ),
        (Ok(()), Some(Err(Untold::Other(_)))) => Check::lacking(
            NAME,
            "it is not known whether its agent knows it",
            "mend what stands below, and ask again",
        ),
        (Ok(()), _) => Check::fine(NAME, "both know it"),
    }
}

fn agent(facts: &Facts, told: &Told) -> Vec<Check> {
    let about = &told.about;
    let own = env!("CARGO_PKG_VERSION");
    let finding = format!("{} {}, Linux {}", about.host, about.version, about.kernel);
    vec![
        if about.version == own {
            Check::fine("its agent", finding)
        } else {
            let remedy =
                "run one version on both hosts; while they are changed one by one, both will do";
            Check::lacking("its agent", format!("{finding}; here {own}"), remedy)
        },
        latency(told.round_trip),
        clocks(told),
        fabrics(facts, about),
        streams(told),
    ]
}

fn latency(round_trip: Duration) -> Check {
    let finding = format!("{} us for a question and its answer", round_trip.as_micros());
    if round_trip > SLOW {
        let remedy = "children wait so long for each miss: have them run nearer, or let more be pushed ahead (rehearse hooks)";
        return Check::lacking("the way there", finding, remedy);
    }
    Check::fine("the way there", finding)
}

fn clocks(told: &Told) -> Check {
    let off = told.ahead_ns.unsigned_abs();
    let way = if told.ahead_ns < 0 { "behind" } else { "ahead of" };
    let (ms, slack_us) = (off / 1_000_000, told.round_trip.as_micros() / 2);
    let finding = format!("{ms} ms {way} this host's, give or take {slack_us} us");
    if off > u128::from(CLOCKS_DIFFER_NS) {
        let remedy = "let both be set by NTP (timedatectl set-ntp true): times of day of logs and reports do not compare";
        return Check::lacking("its clock", finding, remedy);
    }
    Check::fine("its clock", finding)
}

fn fabrics(facts: &Facts, about: &About) -> Check {
    const NAME: &str = "pages come by";
    let theirs = about.fabrics.join(", ");
    let own = match &facts.own_fabric {
        Ok(own) => own,
        Err(why) => {
            let remedy = "mitosis doctor says what this host lacks";
            return Check::lacking(NAME, format!("tcp; this host has no choice: {why}"), remedy);
        }
    };
    if own == "tcp" {
        let more = about.fabrics.iter().any(|fabric| fabric != "tcp");
        let finding = if more { format!("tcp (it has {theirs})") } else { "tcp".to_owned() };
        return Check::fine(NAME, finding);
    }
    if about.fabrics.contains(own) {
        return Check::fine(NAME, format!("{own} (it has {theirs})"));
    }
    let remedy = format!("mitosis doctor, on {}, says why it has no {own}", about.host);
    Check::lacking(NAME, format!("tcp: this host prefers {own}, it has {theirs}"), remedy)
}

fn streams(told: &Told) -> Check {
    const NAME: &str = "READ streams there";
    match &told.is_encrypted {
        Ok(true) => Check::fine(NAME, "encrypted"),
        Ok(false) => Check::fine(NAME, "in plain: neither host has encrypt_reads"),
        Err(why) => {
            let remedy =
                "run the same version of mitosis on both hosts; the log of its agent says more";
            Check::lacking(NAME, format!("none could be opened: {why}"), remedy)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;

    fn good() -> Facts {
        let about = About {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: "host-b".to_owned(),
            kernel: "6.1.0".to_owned(),
            realtime_ns: 0,
            fabrics: vec!["rc".to_owned(), "tcp".to_owned()],
        };
        let round_trip = Duration::from_micros(80);
        Facts {
            address: "host-b:7370".to_owned(),
            reached: Ok(Reached { to: "192.0.2.1:7370".to_owned(), segment_bytes: Some(1448) }),
            secret: Ok(()),
            told: Some(Ok(Told {
                about,
                round_trip,
                ahead_ns: -3_000_000,
                is_encrypted: Ok(false),
            })),
            own_fabric: Ok("rc".to_owned()),
        }
    }

    fn told(change: impl FnOnce(&mut Told)) -> Facts {
        let mut facts = good();
        if let Some(Ok(told)) = &mut facts.told {
            change(told);
        }
        facts
    }

    /// The checks that are not fine, each with a remedy.
    fn faults(facts: &Facts) -> Vec<(String, Standing)> {
        let checks = judge(facts).into_iter().filter(|check| check.standing != Standing::Fine);
        checks
            .inspect(|check| assert!(check.remedy.is_some(), "{check:?}"))
            .map(|check| (check.name, check.standing))
            .collect()
    }

    fn one(name: &str, standing: Standing) -> Vec<(String, Standing)> {
        vec![(name.to_owned(), standing)]
    }

    #[test]
    fn a_good_peer_has_nothing_to_say() {
        assert_eq!(faults(&good()), []);
        assert_eq!(judge(&good()).len(), 8);
        assert_eq!(faults(&Facts { own_fabric: Ok("tcp".to_owned()), ..good() }), []);
    }

    #[test]
    fn each_way_not_to_be_reached_has_its_remedy() {
        let text = || "no".to_owned();
        let ways = [
            (Unreached::NoName(text()), "NAME:PORT"),
            (Unreached::NoAddress(text()), "/etc/hosts"),
            (Unreached::Refused, "mitosis agent --listen"),
            (Unreached::Silent(text()), "firewall"),
        ];
        for (why, remedy) in ways {
            let facts = Facts { reached: Err(why), told: None, ..good() };
            assert_eq!(faults(&facts), one("its port", Standing::Missing));
            assert!(judge(&facts)[0].remedy.as_ref().unwrap().contains(remedy));
        }
    }

    #[test]
    fn secrets_that_differ_or_are_not_there_are_missing() {
        let facts = Facts { secret: Err("none".to_owned()), told: None, ..good() };
        assert_eq!(faults(&facts), one("the secret", Standing::Missing));
        let differs = Some(Err(Untold::Secret));
        let facts = Facts { told: differs, ..good() };
        assert_eq!(faults(&facts), one("the secret", Standing::Missing));
    }

    #[test]
    fn an_agent_that_says_nothing_of_itself_is_missing() {
        let facts = Facts { told: Some(Err(Untold::Other("no".to_owned()))), ..good() };
        let expected = [one("the secret", Standing::Lacking), one("its agent", Standing::Missing)];
        assert_eq!(faults(&facts), expected.concat());
    }

    #[test]
    fn what_is_slow_or_differs_is_lacking() {
        let lacking = |name: &str| one(name, Standing::Lacking);
        let older = told(|told| told.about.version = "0.0.1".to_owned());
        assert_eq!(faults(&older), lacking("its agent"));
        assert_eq!(faults(&told(|told| told.round_trip = 2 * SLOW)), lacking("the way there"));
        for ahead_ns in [-1, 1].map(|sign| sign * (i128::from(CLOCKS_DIFFER_NS) + 1)) {
            assert_eq!(faults(&told(|told| told.ahead_ns = ahead_ns)), lacking("its clock"));
        }
        let tcp = told(|told| told.about.fabrics = vec!["tcp".to_owned()]);
        assert_eq!(faults(&tcp), lacking("pages come by"));
        let none = told(|told| told.is_encrypted = Err("no".to_owned()));
        assert_eq!(faults(&none), lacking("READ streams there"));
        let none = Facts { own_fabric: Err("no".to_owned()), ..good() };
        assert_eq!(faults(&none), lacking("pages come by"));
        let reached = Reached { to: String::new(), segment_bytes: Some(SMALL_SEGMENT_BYTES - 1) };
        assert_eq!(faults(&Facts { reached: Ok(reached), ..good() }), lacking("segments"));
    }
}
