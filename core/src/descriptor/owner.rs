//! Who holds bytes, and how they are READ.
//!
//! An owner may be READ in several ways, one [`Export`] each. Those for RDMA cards name an endpoint; which
//! bytes lie where behind it is told by the owner's [`ArenaMap`], which all of them share.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::addr::SeedRange;
use crate::id::{DcKey, ReadKey, SeedId};

/// Who holds bytes, and how they are READ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The seed.
    pub seed: SeedId,
    /// Incremented when a seed is exported anew.
    pub epoch: u32,
    /// Ways to READ it, the preferred one first.
    pub exports: Vec<Export>,
    /// Where its bytes lie for RDMA cards; `None`: nowhere.
    pub arena: Option<ArenaMap>,
}

/// A seed's bytes as a fabric can read them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Export {
    /// The page service of the agent at `agent` ("host:port"; `None`: the agent of the seed's own host,
    /// which has no remote listener).
    Tcp {
        /// Where.
        agent: Option<String>,
        /// What a READ must show.
        read_key: ReadKey,
    },
    /// RC connections to an rdma-cm listener of the owner's host.
    Rc(RcEndpoint),
    /// A DC target of the seed's own.
    Dc(DcTarget),
}

impl Export {
    /// The agent and the read key, if this is a page service.
    pub fn tcp(&self) -> Option<(Option<&str>, &ReadKey)> {
        match self {
            Export::Tcp { agent, read_key } => Some((agent.as_deref(), read_key)),
            Export::Rc(_) | Export::Dc(_) => None,
        }
    }
}

/// An rdma-cm listener, and the agent that hands out the tokens with which it is connected to.
#[derive(Clone, PartialEq, Eq)]
pub struct RcEndpoint {
    /// "AGENT rc LISTENER": what connections to it are kept under.
    name: Arc<str>,
    agent_len: usize,
    listener: SocketAddr,
}

impl RcEndpoint {
    /// The listener of the agent at `agent` ("host:port").
    pub fn new(agent: &str, listener: SocketAddr) -> Self {
        let name = format!("{agent} rc {listener}").into();
        RcEndpoint { name, agent_len: agent.len(), listener }
    }

    /// Both in one text, by which connections to it are known.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// "host:port" of the agent.
    pub fn agent(&self) -> &str {
        &self.name[..self.agent_len]
    }

    /// Where to connect to.
    pub fn listener(&self) -> SocketAddr {
        self.listener
    }
}

impl std::str::FromStr for RcEndpoint {
    type Err = std::net::AddrParseError;

    /// From [`RcEndpoint::name`].
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let (agent, listener) = name.rsplit_once(" rc ").unwrap_or(("", name));
        Ok(RcEndpoint::new(agent, listener.parse()?))
    }
}

impl fmt::Debug for RcEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// A DCT, as mlx5dv(7) names its parts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DcTarget {
    /// The port's GID.
    pub gid: [u8; 16],
    /// The port's LID; 0 on RoCE.
    pub lid: u16,
    /// Its number; 24 bits.
    pub dctn: u32,
    /// What a READ must show.
    pub dc_key: DcKey,
}

impl fmt::Debug for DcTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gid = std::net::Ipv6Addr::from(self.gid);
        write!(f, "DcTarget {{ gid: {gid}, lid: {}, dctn: {:#x} }}", self.lid, self.dctn)
    }
}

/// Where a seed's bytes lie in its owner's arena: those of `extents`, one behind the other, fill `slabs` from
/// the first byte on. There may be fewer slabs than bytes; more are told later.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArenaMap {
    /// The seed's bytes, ascending and disjoint.
    pub extents: Vec<SeedRange>,
    /// Memory regions of the owner's card.
    pub slabs: Vec<Slab>,
}

/// One memory region of an arena.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slab {
    /// What a READ must show.
    pub rkey: u32,
    /// The address of its first byte, as a READ names it.
    pub iova: u64,
    /// Its bytes.
    pub len: u64,
}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slab {{ iova: {:#x}, len: {:#x} }}", self.iova, self.len)
    }
}

/// What has changed in an arena since a host was last told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArenaNews {
    /// Slabs behind those known.
    pub slabs: Vec<Slab>,
    /// Bytes, counted from the first extent's start, that are in place; it never falls.
    pub filled: u64,
}

/// Bits in a dctn.
const DCTN_BITS: u32 = 24;

impl ArenaMap {
    /// Bytes of the seed.
    pub fn bytes(&self) -> u64 {
        self.extents.iter().map(|extent| extent.len()).sum()
    }

    /// Whether it can be relied on: extents ascend, slabs have bytes and do not wrap around.
    pub(super) fn is_sound(&self) -> bool {
        let mut end = 0;
        let ascend = self.extents.iter().all(|extent| {
            let sound = extent.start.0 >= end && extent.end > extent.start;
            end = extent.end.0;
            sound
        });
        let bytes = self.slabs.iter().try_fold(0u64, |sum, slab| sum.checked_add(slab.len));
        ascend && bytes.is_some() && self.slabs.iter().all(Slab::is_sound)
    }
}

impl Slab {
    /// Whether it has bytes and does not wrap around.
    pub fn is_sound(&self) -> bool {
        self.len > 0 && self.iova.checked_add(self.len).is_some()
    }
}

/// What every descriptor since 1.0 can say of an owner.
#[derive(Serialize, Deserialize)]
pub(super) struct OwnerRecord {
    seed: SeedId,
    epoch: u32,
    exports: Vec<TcpRecord>,
}

#[derive(Serialize, Deserialize)]
enum TcpRecord {
    Tcp { agent: Option<String>, read_key: ReadKey },
}

/// One owner's export for RDMA cards; a reader that does not know its kind passes over it.
#[derive(Serialize, Deserialize)]
pub(super) struct RdmaRecord {
    owner: u8,
    kind: u16,
    body: Vec<u8>,
}

/// Kinds of [`RdmaRecord`], in the order in which a host prefers them.
const KIND_DC: u16 = 1;
const KIND_RC: u16 = 2;
const KIND_ARENA: u16 = 3;

/// The records of `owners`: what stands in the section of owners, and what in the one of RDMA exports.
pub(super) fn to_records(owners: &[Owner]) -> (Vec<OwnerRecord>, Vec<RdmaRecord>) {
    let mut rdma = Vec::new();
    let plain = owners.iter().zip(0u8..).map(|(owner, index)| {
        let mut put = |kind: u16, body: Result<Vec<u8>, postcard::Error>| {
            let body = body.expect("plain data serialises into a growing vector");
            rdma.push(RdmaRecord { owner: index, kind, body });
        };
        let mut exports = Vec::new();
        for export in &owner.exports {
            match export.clone() {
                Export::Tcp { agent, read_key } => exports.push(TcpRecord::Tcp { agent, read_key }),
                Export::Rc(to) => {
                    put(KIND_RC, postcard::to_stdvec(&(to.agent(), to.listener())));
                }
                Export::Dc(target) => put(KIND_DC, postcard::to_stdvec(&target)),
            }
        }
        if let Some(arena) = &owner.arena {
            put(KIND_ARENA, postcard::to_stdvec(arena));
        }
        OwnerRecord { seed: owner.seed, epoch: owner.epoch, exports }
    });
    (plain.collect(), rdma)
}

/// The owners of both sections; RDMA exports stand in front, as they are preferred.
pub(super) fn from_records(
    plain: Vec<OwnerRecord>,
    mut rdma: Vec<RdmaRecord>,
) -> Result<Vec<Owner>, String> {
    let owners = plain.into_iter().map(|record| {
        let exports = record
            .exports
            .into_iter()
            .map(|TcpRecord::Tcp { agent, read_key }| Export::Tcp { agent, read_key });
        Owner { seed: record.seed, epoch: record.epoch, exports: exports.collect(), arena: None }
    });
    let mut owners: Vec<Owner> = owners.collect();
    rdma.sort_by_key(|record| record.kind);
    let mut preferred = vec![0usize; owners.len()];
    for RdmaRecord { owner: index, kind, body } in rdma {
        let at = usize::from(index);
        let owner = owners.get_mut(at).ok_or("an RDMA export of an owner that is not there")?;
        let export = match kind {
            KIND_DC => Export::Dc(sound_target(parse(&body)?)?),
            KIND_RC => {
                let (agent, listener): (String, SocketAddr) = parse(&body)?;
                Export::Rc(RcEndpoint::new(&agent, listener))
            }
            KIND_ARENA => {
                let arena: ArenaMap = parse(&body)?;
                if !arena.is_sound() || owner.arena.is_some() {
                    return Err("an arena whose parts overlap or are empty".to_owned());
                }
                owner.arena = Some(arena);
                continue;
            }
            _ => continue,
        };
        owner.exports.insert(preferred[at], export);
        preferred[at] += 1;
    }
    Ok(owners)
}

fn parse<T: for<'a> Deserialize<'a>>(body: &[u8]) -> Result<T, String> {
    postcard::from_bytes(body).map_err(|error| error.to_string())
}

fn sound_target(target: DcTarget) -> Result<DcTarget, String> {
    match target.dctn >> DCTN_BITS {
        0 => Ok(target),
        _ => Err(format!("a dctn of {:#x}; it has {DCTN_BITS} bits", target.dctn)),
    }
}
