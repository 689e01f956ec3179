//! Dynamically connected transport, as mlx5 has it: targets that any initiator may READ from, and
//! initiators that connect to a target at each READ.
//!
//! ```text
//!  seed's host   Dct: RESET -> INIT -> RTR; publishes GID, dctn, key        gone at once: drop it
//!  child's host  Dci: RESET -> INIT -> RTR -> RTS; post READs, each with its target
//! ```

use std::ffi::c_int;
use std::fmt;
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_mummy_sys as sys;
use sys::mlx5dv_qp_init_attr_mask as mlx5_mask;

use super::address::Mtu;
use super::ah::AddressHandle;
use super::change::{Change, Path};
use super::completion::Cq;
use super::device::{Context, Device};
use super::dma::Landing;
use super::error::{Error, check};
use super::library;
use super::memory::Pd;
use super::patience::Patience;
use super::post::{Batch, PostError, PostFault, Poster, Remote};
use super::qp::{Destroyed, Qp, extended_attr, extended_qp};
use super::srq::Srq;
use super::transitions::{QpKind, QpState};

/// A DCT's number: 24 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dctn(u32);

impl Dctn {
    /// The largest.
    pub const MAX: u32 = (1 << 24) - 1;

    /// A peer's, or our own.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond 24 bits.
    pub fn new(number: u32) -> Result<Self, Error> {
        if number > Self::MAX {
            let (value, limit) = (u64::from(number), u64::from(Self::MAX));
            return Err(Error::TooLarge { what: "dctn", value, limit });
        }
        Ok(Self(number))
    }

    /// The number.
    pub fn number(self) -> u32 {
        self.0
    }
}

/// The key that an initiator must show to a DCT. Not printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct DcKey(pub u64);

impl DcKey {
    /// A new one.
    ///
    /// # Errors
    /// [`Error::Call`] if the system has no random bytes.
    pub fn random() -> Result<Self, Error> {
        let key = getrandom::u64().map_err(|error| {
            Error::returned("getrandom", "this host", error.raw_os_error().unwrap_or(libc::EIO))
        })?;
        Ok(Self(key))
    }
}

impl fmt::Debug for DcKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("DcKey(..)")
    }
}

/// What a device can do by DC beside being able to at all, which [`try_out`] finds out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DcCaps {
    /// READs of memory that is not pinned.
    pub odp_read: bool,
    /// READs that a DCI may have outstanding; 0: the device does not say.
    pub max_rd_atomic: u8,
    /// log2 of the streams that a DCI may have.
    pub log_streams: u8,
    /// log2 of the streams that may fail without the others: 0 means no isolation.
    pub log_failed_streams: u8,
}

/// Whether libmlx5 knows the device. Opens libmlx5.
pub fn is_mlx5(device: &Device) -> bool {
    // SAFETY: a listed device.
    library::mlx5().is_ok_and(|mlx5| unsafe { (mlx5.is_supported)(device.raw()) })
}

/// What an mlx5 device says of DC.
///
/// # Errors
/// [`Error::Library`] without libmlx5; [`Error::Call`]: EOPNOTSUPP where it is no mlx5 device.
pub fn caps(context: &Context) -> Result<DcCaps, Error> {
    use sys::mlx5dv_context_comp_mask as mask;
    let mlx5 = library::mlx5()?;
    // SAFETY: plain C data, for which zeros are a value.
    let mut attr: sys::mlx5dv_context = unsafe { std::mem::zeroed() };
    let asked = mask::MLX5DV_CONTEXT_MASK_DC_ODP_CAPS.0
        | mask::MLX5DV_CONTEXT_MASK_DCI_STREAMS.0
        | mask::MLX5DV_CONTEXT_MASK_MAX_DC_RD_ATOM.0;
    attr.comp_mask = u64::from(asked);
    // SAFETY: an open context; libmlx5 writes the parts that are asked for and that it knows.
    let result = unsafe { (mlx5.query_device)(context.raw.as_ptr(), &raw mut attr) };
    check("mlx5dv_query_device", context.name(), result)?;
    // What it filled is what it left in the mask.
    let filled = |bit: mask| attr.comp_mask & u64::from(bit.0) != 0;
    let odp = sys::ibv_odp_transport_cap_bits::IBV_ODP_SUPPORT_READ.0;
    let streams = filled(mask::MLX5DV_CONTEXT_MASK_DCI_STREAMS);
    let depth = u8::try_from(attr.max_dc_rd_atom).unwrap_or(u8::MAX);
    Ok(DcCaps {
        odp_read: filled(mask::MLX5DV_CONTEXT_MASK_DC_ODP_CAPS) && attr.dc_odp_caps & odp != 0,
        max_rd_atomic: if filled(mask::MLX5DV_CONTEXT_MASK_MAX_DC_RD_ATOM) { depth } else { 0 },
        log_streams: if streams { attr.dci_streams_caps.max_log_num_concurent } else { 0 },
        log_failed_streams: if streams { attr.dci_streams_caps.max_log_num_errored } else { 0 },
    })
}

/// Finds out whether a port serves DC, the only way there is: makes a DCT and takes it to RTR.
///
/// # Errors
/// Whatever fails of that; EOPNOTSUPP where the device has no DC.
pub fn try_out(context: &Arc<Context>, path: &Path, mtu: Mtu) -> Result<DcCaps, Error> {
    let found = caps(context)?;
    let pd = Pd::new(context)?;
    let (cq, srq) = (Cq::new(context, 1)?, Srq::new(&pd)?);
    Dct::new(&pd, &cq, &srq, DcKey::random()?, path, mtu)?;
    Ok(found)
}

fn create(
    pd: &Pd,
    mut attr: sys::ibv_qp_init_attr_ex,
    mut mlx5_attr: sys::mlx5dv_qp_init_attr,
) -> Result<NonNull<sys::ibv_qp>, Error> {
    let (mlx5, context) = (library::mlx5()?, pd.context());
    attr.qp_type = sys::ibv_qp_type::IBV_QPT_DRIVER;
    // SAFETY: an open context; all that both structs point to lives, and they are used during the call.
    let raw = unsafe { (mlx5.create_qp)(context.raw.as_ptr(), &raw mut attr, &raw mut mlx5_attr) };
    NonNull::new(raw).ok_or_else(|| Error::last("mlx5dv_create_qp", context.name()))
}

/// A DC target: what holds its number and its key may READ what is registered in its domain. Dropped,
/// it is gone, and READs of it end with status 12.
#[derive(Debug)]
pub struct Dct {
    qp: Qp,
    dctn: Dctn,
    key: DcKey,
}

impl Dct {
    /// A target on `path`'s port, ready to be READ from.
    ///
    /// # Errors
    /// [`Error::Call`]: EOPNOTSUPP without DC; [`Error::Library`] without libmlx5.
    pub fn new(
        pd: &Arc<Pd>,
        cq: &Arc<Cq>,
        srq: &Arc<Srq>,
        key: DcKey,
        path: &Path,
        mtu: Mtu,
    ) -> Result<Self, Error> {
        let mut attr = extended_attr(pd, cq, 0);
        attr.srq = srq.raw.as_ptr();
        // A target sends nothing: flags of send operations are refused, and so is any capacity.
        attr.cap.max_send_sge = 0;
        attr.send_ops_flags = 0;
        attr.comp_mask = sys::ibv_qp_init_attr_mask::IBV_QP_INIT_ATTR_PD.0;
        // SAFETY: plain C data, for which zeros are a value.
        let mut mlx5_attr: sys::mlx5dv_qp_init_attr = unsafe { std::mem::zeroed() };
        mlx5_attr.comp_mask = u64::from(mlx5_mask::MLX5DV_QP_INIT_ATTR_MASK_DC.0);
        mlx5_attr.dc_init_attr.dc_type = sys::MLX5DV_DCTYPE_DCT;
        mlx5_attr.dc_init_attr.__bindgen_anon_1.bindgen_union_field = key.0;
        let raw = create(pd, attr, mlx5_attr)?;
        let mut qp = Qp::new(raw, QpKind::Dct, pd, cq, Some(srq));
        qp.modify(&Change::to(QpState::Init).port(path.port).remote_reads(true))?;
        qp.modify(&Change::to(QpState::Rtr).path(path, mtu).rnr_timer())?;
        // The hardware's object is made by the last step; only now has it its number.
        let dctn = Dctn::new(qp.number())?;
        Ok(Self { qp, dctn, key })
    }

    /// Its number.
    pub fn dctn(&self) -> Dctn {
        self.dctn
    }

    /// Its key.
    pub fn key(&self) -> DcKey {
        self.key
    }

    /// Takes it away, at once.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn destroy(self) -> Result<Destroyed, Error> {
        self.qp.destroy()
    }
}

/// Streams of a DCI: with error isolation, a READ that fails stops its own stream alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Streams {
    /// log2 of how many there are.
    pub log_count: u8,
    /// log2 of how many may fail without the DCI.
    pub log_failed: u8,
}

/// One READ's target, and the stream that it goes by.
#[derive(Clone, Copy, Debug)]
pub struct DcTarget<'ah> {
    /// The way to its host.
    pub handle: &'ah AddressHandle,
    /// Its number there.
    pub dctn: Dctn,
    /// Its key.
    pub key: DcKey,
    /// The stream, on a DCI that was made with streams.
    pub stream: u16,
}

/// A DC initiator.
pub struct Dci {
    qp: Qp,
    poster: Poster,
    dc: NonNull<sys::mlx5dv_qp_ex>,
    streams: bool,
}

// SAFETY: the pointers beside the QP are the QP's own.
unsafe impl Send for Dci {}
// SAFETY: as above; they are used with `&mut` alone.
unsafe impl Sync for Dci {}

impl Dci {
    /// An initiator with room for `depth` READs, in RESET.
    ///
    /// # Errors
    /// As [`Dct::new`]; [`Error::NullFunction`].
    pub fn new(
        pd: &Arc<Pd>,
        cq: &Arc<Cq>,
        depth: u32,
        streams: Option<Streams>,
    ) -> Result<Self, Error> {
        let mlx5 = library::mlx5()?;
        if streams.is_some() {
            // The setter came with the function: without the one there is no field for the other.
            library::mlx5_streams()?;
        }
        // SAFETY: plain C data, for which zeros are a value.
        let mut mlx5_attr: sys::mlx5dv_qp_init_attr = unsafe { std::mem::zeroed() };
        mlx5_attr.comp_mask = u64::from(mlx5_mask::MLX5DV_QP_INIT_ATTR_MASK_DC.0);
        mlx5_attr.dc_init_attr.dc_type = sys::MLX5DV_DCTYPE_DCI;
        if let Some(Streams { log_count, log_failed }) = streams {
            mlx5_attr.comp_mask |= u64::from(mlx5_mask::MLX5DV_QP_INIT_ATTR_MASK_DCI_STREAMS.0);
            // struct mlx5dv_dci_streams: two bytes at the union's start.
            mlx5_attr.dc_init_attr.__bindgen_anon_1.bindgen_union_field =
                u64::from_ne_bytes([log_count, log_failed, 0, 0, 0, 0, 0, 0]);
        }
        let raw = create(pd, extended_attr(pd, cq, depth), mlx5_attr)?;
        let qp = Qp::new(raw, QpKind::Dci, pd, cq, None);
        let extended = extended_qp(&qp)?;
        let null = |function| Error::NullFunction { on: qp.device().to_owned(), function };
        // SAFETY: an extended QP of libmlx5's own.
        let dc = unsafe { (mlx5.qp_ex_from_ibv_qp_ex)(extended.as_ptr()) };
        let dc = NonNull::new(dc).ok_or_else(|| null("mlx5dv_qp_ex"))?;
        // SAFETY: part of the QP, set when it was made; the second field is there with streams alone.
        let (plain, stream) = unsafe {
            let stream = streams.is_some().then(|| (*dc.as_ptr()).wr_set_dc_addr_stream);
            ((*dc.as_ptr()).wr_set_dc_addr, stream)
        };
        if plain.is_none() {
            return Err(null("wr_set_dc_addr"));
        }
        if stream.is_some_and(|setter| setter.is_none()) {
            return Err(null("wr_set_dc_addr_stream"));
        }
        Ok(Self { qp, poster: Poster::Extended(extended), dc, streams: streams.is_some() })
    }

    /// From RESET to RTS, to READ by way of `path`'s port.
    ///
    /// # Errors
    /// [`Error::Transition`] if it is not in RESET; [`Error::Call`].
    pub fn make_ready(
        &mut self,
        path: &Path,
        mtu: Mtu,
        depth: u8,
        patience: Patience,
    ) -> Result<(), Error> {
        self.qp.modify(&Change::to(QpState::Init).port(path.port))?;
        self.qp.modify(&Change::to(QpState::Rtr).path(path, mtu))?;
        self.qp.modify(&Change::to(QpState::Rts).requester(0, depth, patience))
    }

    /// Back to RESET; see [`super::RcQp::reset`].
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn reset(&mut self) -> Result<(), Error> {
        self.qp.modify(&Change::to(QpState::Reset))
    }

    /// Takes a stream that failed into use again. Only while the DCI itself is still in RTS.
    ///
    /// # Errors
    /// [`Error::Library`] where libmlx5 has no streams; [`Error::Call`].
    pub fn reset_stream(&mut self, stream: u16) -> Result<(), Error> {
        let reset = library::mlx5_streams()?.dci_stream_id_reset;
        // SAFETY: a live DCI.
        let result: c_int = unsafe { reset(self.qp.raw.as_ptr(), stream) };
        check("mlx5dv_dci_stream_id_reset", self.qp.device(), result)
    }

    /// Its number.
    pub fn number(&self) -> u32 {
        self.qp.number()
    }

    /// Its state, as far as it was changed from here.
    pub fn state(&self) -> QpState {
        self.qp.state()
    }

    /// Its state, as the device says.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn query_state(&mut self) -> Result<QpState, Error> {
        self.qp.refresh()
    }

    /// Destroys it.
    ///
    /// # Errors
    /// [`Error::Call`]; it lives on then, unused.
    pub fn destroy(self) -> Result<Destroyed, Error> {
        self.qp.destroy()
    }

    /// As [`super::RcQp::post`]. Sorted by target, for each change of target costs a disconnect and a
    /// connect.
    ///
    /// # Errors
    /// [`PostError`]; the landings of the batch have to be told ([`Landing::not_posted`]).
    pub fn post(
        &mut self,
        fill: impl FnOnce(&mut DciBatch<'_>) -> Result<(), PostFault>,
    ) -> Result<usize, PostError> {
        let (id, number) = (self.qp.next_batch(), self.qp.number());
        let batch = Batch::start(&mut self.poster, id, number);
        let mut batch = DciBatch { batch, dc: self.dc, streams: self.streams };
        let filled = fill(&mut batch);
        batch.batch.end(filled)
    }
}

impl fmt::Debug for Dci {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.qp.fmt(out)
    }
}

/// A batch of READs of one DCI; exists within [`Dci::post`] alone.
#[expect(missing_debug_implementations, reason = "nothing of it is to be seen")]
pub struct DciBatch<'qp> {
    batch: Batch<'qp>,
    dc: NonNull<sys::mlx5dv_qp_ex>,
    streams: bool,
}

impl DciBatch<'_> {
    /// Adds a READ of `target` into `range` of `landing`.
    ///
    /// # Errors
    /// [`PostFault::BadRange`], [`PostFault::Elsewhere`].
    pub fn read(
        &mut self,
        wr_id: u64,
        target: &DcTarget<'_>,
        remote: Remote,
        landing: &mut Landing,
        range: Range<usize>,
    ) -> Result<(), PostFault> {
        let (dc, streams) = (self.dc.as_ptr(), self.streams);
        let (handle, number, key) = (target.handle.raw.as_ptr(), target.dctn.0, target.key.0);
        // SAFETY: the setter was asked for when the DCI was made; the handle lives through the post,
        // which copies what it holds; called within a started batch, between READ and SGE.
        self.batch.read(wr_id, remote, landing, &range, || unsafe {
            if streams {
                sys::mlx5dv_wr_set_dc_addr_stream(dc, handle, number, key, target.stream);
            } else {
                sys::mlx5dv_wr_set_dc_addr(dc, handle, number, key);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dctn_has_24_bits() {
        assert_eq!(Dctn::new(0xff_ffff).unwrap().number(), 0xff_ffff);
        let error = Dctn::new(0x100_0000).unwrap_err();
        assert_eq!(error.to_string(), "dctn is 16777216, above 16777215");
    }

    #[test]
    fn a_dc_key_is_random_and_not_printed() {
        let key = DcKey::random().unwrap();
        assert_ne!(key, DcKey::random().unwrap());
        assert_eq!(format!("{key:?}"), "DcKey(..)");
    }
}
