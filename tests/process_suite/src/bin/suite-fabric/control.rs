//! What agents tell each other over control, as lines of text on a port of its own.
//!
//! | asked | answered |
//! |---|---|
//! | `token` | a token, in hexadecimal |
//! | `seed` | what a descriptor says of an owner: [`Described`] |
//! | `revoke` | `revoked` |

use std::fmt::Write as _;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use mitosis::descriptor::{ArenaMap, ArenaNews, SeedRange, Slab};
use mitosis::id::{ReadKey, SeedId, StreamToken};

pub const CONTROL_PORT: u16 = 7371;
pub const PAGES_PORT: u16 = 7370;
/// A host that is gone is not waited for longer.
const PATIENCE: Duration = Duration::from_secs(1);

/// An owner's seed, whose bytes are in the arena as far as the arena has room.
#[derive(Debug, Clone)]
pub struct Described {
    pub seed: SeedId,
    pub key: ReadKey,
    pub listener: SocketAddr,
    pub range: SeedRange,
    pub slabs: Vec<Slab>,
}

/// Asks an owner, on a connection of its own.
pub fn ask(owner: IpAddr, what: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&SocketAddr::new(owner, CONTROL_PORT), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    writeln!(stream, "{what}")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}

pub fn token(owner: IpAddr) -> Option<StreamToken> {
    let text = ask(owner, "token").ok()?;
    Some(StreamToken(bytes_of(&text)?))
}

impl Described {
    pub fn ask(owner: IpAddr) -> Option<Described> {
        let text = ask(owner, "seed").ok()?;
        let mut words = text.split(' ');
        let seed = SeedId(words.next()?.parse().ok()?);
        let key = ReadKey(bytes_of(words.next()?)?);
        let listener = words.next()?.parse().ok()?;
        let numbers: Option<Vec<u64>> = words.map(|word| word.parse().ok()).collect();
        let [start, end, slabs @ ..] = &numbers?[..] else { return None };
        let slab = |words: &[u64]| {
            Some(Slab { rkey: u32::try_from(words[0]).ok()?, iova: words[1], len: words[2] })
        };
        let slabs = slabs.chunks_exact(3).map(slab).collect::<Option<_>>()?;
        let range = SeedRange::new(*start, *end);
        Some(Described { seed, key, listener, range, slabs })
    }

    pub fn text(&self) -> String {
        let key = hex(&self.key.0);
        let mut text = format!("{} {key} {}", self.seed.0, self.listener);
        let mut number = |number: u64| write!(text, " {number}").expect("room");
        number(self.range.start.0);
        number(self.range.end.0);
        for slab in &self.slabs {
            [u64::from(slab.rkey), slab.iova, slab.len].into_iter().for_each(&mut number);
        }
        text
    }

    pub fn map(&self) -> ArenaMap {
        ArenaMap { extents: vec![self.range], slabs: self.slabs.clone() }
    }

    /// That all is in place that there is room for.
    pub fn news(&self) -> ArenaNews {
        let room = self.slabs.iter().map(|slab| slab.len).sum();
        ArenaNews { slabs: Vec::new(), filled: self.range.len().min(room) }
    }
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes_of<const N: usize>(text: &str) -> Option<[u8; N]> {
    let pairs = text.as_bytes().chunks(2).map(|pair| {
        std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok())
    });
    pairs.collect::<Option<Vec<u8>>>()?.try_into().ok()
}
