//! Verbs: the only module that knows libibverbs, libmlx5 and librdmacm.
//!
//! What is made on something holds it, so a device is closed after the last registration on it:
//!
//! ```text
//!  devices() -> Device -> Context -+- Pd -+- Mr (a Region), DmaPool -> DmaBuffer <-> Landing
//!                                  |      +- RcQp, Dct, Dci (with Cq, Srq)
//!                                  |      +- AddressHandle
//!                                  +- Cq
//!  EventChannel -> CmId: connects an RcQp with another host's
//! ```
//! The libraries are opened by the first call of [`devices`], [`EventChannel::new`] or what asks for
//! DC; never by a runtime process, which has no agent feature, and not by `mitosis ls` either. All
//! objects may be used by any thread; posting on a QP takes `&mut`.
//!
//! A state change is checked against one table before the kernel is asked ([`Change`]); a batch of
//! READs is one doorbell and cannot be left open ([`RcQp::post`]); `retry_cnt` is never 7
//! ([`Patience`]).
#![allow(unsafe_code)]

mod address;
mod ah;
mod change;
pub mod choice;
mod cm;
mod completion;
mod dc;
mod device;
mod dma;
mod error;
mod events;
mod fd;
mod library;
mod limits;
mod memory;
mod patience;
mod post;
mod qp;
mod socket_address;
mod srq;
#[cfg(test)]
pub(crate) mod stand_in;
mod survey;
mod transitions;

pub use address::{Gid, GidEntry, GidKind, LinkLayer, Mtu, PortState};
pub use ah::AddressHandle;
pub use change::{Change, DEFAULT_HOP_LIMIT, Path};
pub use cm::{
    CmEvent, CmEventKind, CmId, ConnectRequest, Depths, EventChannel, IdNumber, MAX_ANSWER_DATA,
    MAX_REQUEST_DATA,
};
pub use completion::{Cq, Wc, WcStatus};
pub use dc::{
    DcCaps, DcKey, DcTarget, Dci, DciBatch, Dct, Dctn, Streams, caps as dc_caps, is_mlx5,
    try_out as try_dc,
};
pub use device::{Context, Device, DeviceCaps, OdpCaps, PortAttr, Transport, devices};
pub use dma::{DmaBuffer, DmaPool, Landing};
pub use error::{Error, LibraryError};
pub use events::AsyncEvent;
pub use library::mapped as mapped_libraries;
pub use limits::Memlock;
pub use memory::{Mr, Pd, Region};
pub use patience::{AckTimeout, Patience, RetryCount};
pub use post::{PostError, PostFault, RcBatch, Remote};
pub use qp::{Destroyed, RcQp};
pub use srq::Srq;
pub use survey::{Surveyed, open_chosen, survey, try_dc_on};
pub use transitions::{AttrMask, QpKind, QpState, TransitionError, TransitionFault};
