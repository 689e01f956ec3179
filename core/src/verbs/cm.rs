//! The RDMA connection manager: how two RC QPs find each other by IP address.
//!
//! ```text
//!  requester                                    responder
//!  CmId::new, resolve_address                   CmId::new, bind, listen
//!    AddressResolved -> resolve_route
//!    RouteResolved   -> make a QP, prepare,
//!                       connect             --> ConnectRequest(id) -> make a QP, prepare, make_ready,
//!    ConnectResponse <---------------------------                     accept
//!      make_ready, establish                --> Established
//!    (iWARP: Established, make_ready)
//!  disconnect, or the peer's end                Disconnected on both sides
//! ```
//! The QPs are ours, not the manager's: their rights and patience stay what this code says, whatever the
//! kernel would choose.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use rdma_mummy_sys as sys;
use sys::rdma_cm_event_type as kind;

use super::change::Change;
use super::device::Transport;
use super::error::Error;
use super::library::{self, Cm};
use super::patience::{Patience, RetryCount};
use super::qp::RcQp;
use super::socket_address::SocketAddress;
use super::transitions::{AttrMask, QpState};

/// Most private data of a request: what InfiniBand's messages leave beside the manager's own header.
pub const MAX_REQUEST_DATA: usize = 56;
/// Most private data of an answer.
pub const MAX_ANSWER_DATA: usize = 196;
/// Bits above these are RoCE's own, which some kernels set by mistake for InfiniBand.
const STANDARD_BITS: u32 = (1 << 21) - 1;

/// Where the events of its ids arrive.
pub struct EventChannel {
    cm: &'static Cm,
    raw: NonNull<sys::rdma_event_channel>,
}

// SAFETY: librdmacm is thread-safe; an event is read by one thread at a time, as it is got.
unsafe impl Send for EventChannel {}
// SAFETY: as above.
unsafe impl Sync for EventChannel {}

impl EventChannel {
    /// A new one; opens librdmacm.
    ///
    /// # Errors
    /// [`Error::Library`] without librdmacm; [`Error::Call`] without /dev/infiniband/rdma_cm.
    pub fn new() -> Result<Arc<Self>, Error> {
        let cm = library::cm()?;
        // SAFETY: no arguments.
        let raw = unsafe { (cm.create_event_channel)() };
        let raw = NonNull::new(raw)
            .ok_or_else(|| Error::last("rdma_create_event_channel", "this host"))?;
        let channel = Self { cm, raw };
        super::fd::set_nonblocking(channel.fd()).map_err(|error| {
            Error::returned("fcntl", "an event channel", error.raw_os_error().unwrap_or(0))
        })?;
        Ok(Arc::new(channel))
    }

    /// Readable when there is an event.
    pub fn fd(&self) -> RawFd {
        // SAFETY: a live channel's plain field.
        unsafe { self.raw.as_ref().fd }
    }

    /// The next event, if there is one; does not wait.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn next(self: &Arc<Self>) -> Result<Option<CmEvent>, Error> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: a live channel; the event is written during the call.
        if unsafe { (self.cm.get_cm_event)(self.raw.as_ptr(), &raw mut raw) } != 0 {
            let error = Error::last("rdma_get_cm_event", "an event channel");
            return match error.errno() {
                Some(libc::EAGAIN | libc::EINTR) => Ok(None),
                _ => Err(error),
            };
        }
        let Some(raw) = NonNull::new(raw) else { return Ok(None) };
        // SAFETY: an event that was got and not acknowledged.
        let event = unsafe { self.read(raw.as_ref()) };
        // SAFETY: acknowledged once; nothing of it is used any more.
        unsafe { (self.cm.ack_cm_event)(raw.as_ptr()) };
        Ok(Some(event))
    }

    /// Copies what an event says.
    ///
    /// # Safety
    /// It was got and not acknowledged.
    unsafe fn read(self: &Arc<Self>, event: &sys::rdma_cm_event) -> CmEvent {
        let of = |id: *mut sys::rdma_cm_id| IdNumber(id.expose_provenance());
        let what = match event.event {
            kind::RDMA_CM_EVENT_ADDR_RESOLVED => CmEventKind::AddressResolved,
            kind::RDMA_CM_EVENT_ROUTE_RESOLVED => CmEventKind::RouteResolved,
            kind::RDMA_CM_EVENT_CONNECT_REQUEST => {
                let raw = NonNull::new(event.id).expect("a request has an id");
                let id = CmId { channel: self.clone(), raw };
                // SAFETY: a request of a connected service has this member.
                let asked = unsafe { event.param.conn };
                // SAFETY: as above.
                let data = unsafe { private_data(&asked) };
                let request = ConnectRequest {
                    id,
                    data,
                    reads_answered: asked.responder_resources,
                    reads_outstanding: asked.initiator_depth,
                };
                return CmEvent {
                    id: of(event.listen_id),
                    kind: CmEventKind::ConnectRequest(request),
                };
            }
            // SAFETY: an answer of a connected service has this member.
            kind::RDMA_CM_EVENT_CONNECT_RESPONSE => unsafe {
                CmEventKind::ConnectResponse(private_data(&event.param.conn))
            },
            // SAFETY: as above.
            kind::RDMA_CM_EVENT_ESTABLISHED => unsafe {
                CmEventKind::Established(private_data(&event.param.conn))
            },
            // SAFETY: as above.
            kind::RDMA_CM_EVENT_REJECTED => unsafe {
                CmEventKind::Rejected {
                    reason: event.status,
                    data: unpadded(private_data(&event.param.conn)),
                }
            },
            kind::RDMA_CM_EVENT_DISCONNECTED => CmEventKind::Disconnected,
            kind::RDMA_CM_EVENT_DEVICE_REMOVAL => CmEventKind::DeviceGone,
            kind::RDMA_CM_EVENT_TIMEWAIT_EXIT => CmEventKind::TimewaitOver,
            kind::RDMA_CM_EVENT_ADDR_ERROR => CmEventKind::failed("resolving the address", event),
            kind::RDMA_CM_EVENT_ROUTE_ERROR => CmEventKind::failed("resolving the route", event),
            kind::RDMA_CM_EVENT_CONNECT_ERROR => CmEventKind::failed("connecting", event),
            kind::RDMA_CM_EVENT_UNREACHABLE => CmEventKind::failed("reaching the peer", event),
            other => CmEventKind::Other(other),
        };
        CmEvent { id: of(event.id), kind: what }
    }
}

impl fmt::Debug for EventChannel {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "EventChannel(fd {})", self.fd())
    }
}

impl Drop for EventChannel {
    fn drop(&mut self) {
        // SAFETY: its ids hold it, so none is left.
        unsafe { (self.cm.destroy_event_channel)(self.raw.as_ptr()) };
    }
}

/// The private data of a connection's event.
///
/// # Safety
/// `param` is of an event that was not acknowledged.
unsafe fn private_data(param: &sys::rdma_conn_param) -> Vec<u8> {
    if param.private_data.is_null() {
        return Vec::new();
    }
    // SAFETY: that many bytes are there until the event is acknowledged.
    unsafe {
        std::slice::from_raw_parts(param.private_data.cast(), usize::from(param.private_data_len))
            .to_vec()
    }
}

/// A refusal's text without the zeros that fill its message up: InfiniBand's always has 148 bytes.
fn unpadded(mut data: Vec<u8>) -> Vec<u8> {
    let end = data.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    data.truncate(end);
    data
}

/// Tells the ids of a channel apart, as long as they live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IdNumber(usize);

/// What happened, and to which id.
#[derive(Debug)]
pub struct CmEvent {
    /// The id; of a request the one that listens.
    pub id: IdNumber,
    /// What happened.
    pub kind: CmEventKind,
}

/// What happened.
#[derive(Debug)]
#[non_exhaustive]
pub enum CmEventKind {
    /// [`CmId::resolve_route`] is next.
    AddressResolved,
    /// A QP and [`CmId::connect`] are next.
    RouteResolved,
    /// Somebody wants to connect.
    ConnectRequest(ConnectRequest),
    /// The peer accepts, with this data: [`CmId::make_ready`] and [`CmId::establish`] are next.
    ConnectResponse(Vec<u8>),
    /// The connection stands; on iWARP with the peer's data.
    Established(Vec<u8>),
    /// The peer does not want, or nobody listens there.
    Rejected {
        /// The transport's reason; 8 on InfiniBand: nobody listens, 28: the peer's program refuses.
        reason: i32,
        /// The peer's data, without the zeros behind it.
        data: Vec<u8>,
    },
    /// The other side has ended it, or is gone.
    Disconnected,
    /// The device is gone.
    DeviceGone,
    /// The QP's number may be used again.
    TimewaitOver,
    /// Connecting failed.
    Failed {
        /// What was tried.
        doing: &'static str,
        /// The errno that the kernel tells.
        errno: i32,
    },
    /// Nothing to act on; its number in `enum rdma_cm_event_type`.
    Other(u32),
}

impl CmEventKind {
    fn failed(doing: &'static str, event: &sys::rdma_cm_event) -> Self {
        Self::Failed { doing, errno: event.status.abs() }
    }
}

/// A request to connect. Dropped, it is let go without an answer; the peer notices after a while.
#[derive(Debug)]
pub struct ConnectRequest {
    /// Of the connection to be.
    pub id: CmId,
    /// What the peer sent along.
    pub data: Vec<u8>,
    /// READs that the peer answers at a time: the most that we may have outstanding.
    pub reads_answered: u8,
    /// READs that the peer wants to have outstanding.
    pub reads_outstanding: u8,
}

/// READs of a connection: how many at a time, in each direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depths {
    /// That we answer (`responder_resources`, `max_dest_rd_atomic`).
    pub answered: u8,
    /// That we have outstanding (`initiator_depth`, `max_rd_atomic`).
    pub outstanding: u8,
}

/// One end of a connection, or a listener.
pub struct CmId {
    channel: Arc<EventChannel>,
    raw: NonNull<sys::rdma_cm_id>,
}

// SAFETY: librdmacm is thread-safe.
unsafe impl Send for CmId {}
// SAFETY: as above.
unsafe impl Sync for CmId {}

impl CmId {
    /// A new one, for connections.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn new(channel: &Arc<EventChannel>) -> Result<Self, Error> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: a live channel; the id is written during the call.
        let result = unsafe {
            (channel.cm.create_id)(
                channel.raw.as_ptr(),
                &raw mut raw,
                std::ptr::null_mut(),
                sys::rdma_port_space::RDMA_PS_TCP,
            )
        };
        let raw = NonNull::new(raw)
            .filter(|_| result == 0)
            .ok_or_else(|| Error::last("rdma_create_id", "this host"))?;
        Ok(Self { channel: channel.clone(), raw })
    }

    /// As events name it.
    pub fn number(&self) -> IdNumber {
        IdNumber(self.raw.as_ptr().expose_provenance())
    }

    fn answer(&self, call: &'static str, on: impl fmt::Display, result: i32) -> Result<(), Error> {
        if result == 0 { Ok(()) } else { Err(Error::last(call, on.to_string())) }
    }

    /// Binds to an address of this host; port 0: one that is free.
    ///
    /// # Errors
    /// [`Error::Call`]: ENODEV where no RDMA device has the address, EADDRINUSE.
    pub fn bind(&self, address: SocketAddr) -> Result<(), Error> {
        let mut raw = SocketAddress::from(address);
        // SAFETY: a live id; the address is read during the call.
        let result = unsafe { (self.channel.cm.bind_addr)(self.raw.as_ptr(), raw.as_mut_ptr()) };
        self.answer("rdma_bind_addr", address, result)
    }

    /// Takes requests from now on.
    ///
    /// # Errors
    /// [`Error::Call`]: EADDRINUSE.
    pub fn listen(&self, backlog: i32) -> Result<(), Error> {
        // SAFETY: a live id.
        let result = unsafe { (self.channel.cm.listen)(self.raw.as_ptr(), backlog) };
        self.answer("rdma_listen", format_args!("port {}", self.local_port()), result)
    }

    /// The port that it is bound to.
    pub fn local_port(&self) -> u16 {
        // SAFETY: a live id.
        u16::from_be(unsafe { (self.channel.cm.get_src_port)(self.raw.as_ptr()) })
    }

    /// Finds the device by which `to` is reached; from the address `from`, if given.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn resolve_address(
        &self,
        from: Option<IpAddr>,
        to: SocketAddr,
        timeout: Duration,
    ) -> Result<(), Error> {
        let mut source = from.map(|address| SocketAddress::from(SocketAddr::new(address, 0)));
        let source = source.as_mut().map_or(std::ptr::null_mut(), SocketAddress::as_mut_ptr);
        let mut target = SocketAddress::from(to);
        // SAFETY: a live id; both addresses are read during the call.
        let result = unsafe {
            let resolve = self.channel.cm.resolve_addr;
            resolve(self.raw.as_ptr(), source, target.as_mut_ptr(), milliseconds(timeout))
        };
        self.answer("rdma_resolve_addr", to, result)
    }

    /// Finds the way.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn resolve_route(&self, timeout: Duration) -> Result<(), Error> {
        // SAFETY: a live id.
        let result =
            unsafe { (self.channel.cm.resolve_route)(self.raw.as_ptr(), milliseconds(timeout)) };
        self.answer("rdma_resolve_route", "a connection", result)
    }

    /// The name of the device that it was bound to, by its address or by a request; none before.
    pub fn device_name(&self) -> Option<String> {
        // SAFETY: a live id; its context, if any, is librdmacm's own and open as long as the id lives.
        unsafe {
            let verbs = NonNull::new(self.raw.as_ref().verbs)?;
            let device = NonNull::new(verbs.as_ref().device)?;
            let name = std::ffi::CStr::from_ptr(device.as_ref().name.as_ptr());
            Some(name.to_string_lossy().into_owned())
        }
    }

    /// The device's port that it was bound to; 0 before.
    pub fn device_port(&self) -> u8 {
        // SAFETY: a live id's plain field.
        unsafe { self.raw.as_ref().port_num }
    }

    /// Takes a QP from RESET to INIT for this connection. `remote_reads`: whether the peer may READ.
    ///
    /// # Errors
    /// [`Error::Transition`], [`Error::Call`].
    pub fn prepare(&self, qp: &mut RcQp, remote_reads: bool) -> Result<(), Error> {
        let change = self.change(QpState::Init)?.with_access(remote_reads);
        qp.modify(&change)
    }

    /// Takes a QP from INIT to RTS for this connection: before `accept`, or after the peer's response.
    ///
    /// # Errors
    /// [`Error::Transition`], [`Error::Call`].
    pub fn make_ready(
        &self,
        qp: &mut RcQp,
        remote_reads: bool,
        depths: Depths,
        patience: Patience,
    ) -> Result<(), Error> {
        if qp.transport() == Transport::Iwarp {
            // The kernel moves it, as the connection is made.
            qp.assume(QpState::Rts);
            return Ok(());
        }
        let mut ready = self.change(QpState::Rtr)?.with_access(remote_reads);
        ready.attr.max_dest_rd_atomic = depths.answered;
        qp.modify(&ready)?;
        let mut able = self.change(QpState::Rts)?.with_access(remote_reads).with_patience(patience);
        able.attr.max_rd_atomic = depths.outstanding;
        qp.modify(&able)
    }

    /// What the kernel says of a transition of this connection's QP.
    fn change(&self, to: QpState) -> Result<Change, Error> {
        // SAFETY: plain C data, for which zeros are a value.
        let mut attr: sys::ibv_qp_attr = unsafe { std::mem::zeroed() };
        attr.qp_state = to.raw();
        let mut mask = 0;
        // SAFETY: a live id; both are written during the call.
        let result = unsafe {
            (self.channel.cm.init_qp_attr)(self.raw.as_ptr(), &raw mut attr, &raw mut mask)
        };
        self.answer("rdma_init_qp_attr", to, result)?;
        let mask = mask.cast_unsigned() & STANDARD_BITS;
        Ok(Change::from_raw(to, attr, mask | AttrMask::STATE.0))
    }

    /// Asks the peer, with up to [`MAX_REQUEST_DATA`] bytes for it.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Call`]: ECONNREFUSED on iWARP where nobody listens.
    pub fn connect(&self, qp: &RcQp, data: &[u8], depths: Depths) -> Result<(), Error> {
        let mut param = conn_param(qp, data, depths, MAX_REQUEST_DATA)?;
        // SAFETY: a live id; `param` and `data` are read during the call.
        let result = unsafe { (self.channel.cm.connect)(self.raw.as_ptr(), &raw mut param) };
        self.answer("rdma_connect", "a connection", result)
    }

    /// Accepts a request, with up to [`MAX_ANSWER_DATA`] bytes for the peer.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Call`].
    pub fn accept(&self, qp: &RcQp, data: &[u8], depths: Depths) -> Result<(), Error> {
        let mut param = conn_param(qp, data, depths, MAX_ANSWER_DATA)?;
        // SAFETY: a live id; `param` and `data` are read during the call.
        let result = unsafe { (self.channel.cm.accept)(self.raw.as_ptr(), &raw mut param) };
        self.answer("rdma_accept", "a connection", result)
    }

    /// Refuses a request, with up to 148 bytes for the peer.
    ///
    /// # Errors
    /// [`Error::TooLarge`]; [`Error::Call`].
    pub fn reject(&self, data: &[u8]) -> Result<(), Error> {
        /// What InfiniBand's REJ message has room for.
        const MAX_REJECT_DATA: usize = 148;
        let length = data_length(data, MAX_REJECT_DATA)?;
        // SAFETY: a live id; `data` is read during the call.
        let result =
            unsafe { (self.channel.cm.reject)(self.raw.as_ptr(), data.as_ptr().cast(), length) };
        self.answer("rdma_reject", "a connection", result)
    }

    /// Tells the peer that our QP is ready; after its response. On iWARP nothing is to be told.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn establish(&self) -> Result<(), Error> {
        // SAFETY: a live id.
        let result = unsafe { (self.channel.cm.establish)(self.raw.as_ptr()) };
        self.answer("rdma_establish", "a connection", result)
    }

    /// Ends the connection; both sides hear of it.
    ///
    /// # Errors
    /// [`Error::Call`]: EINVAL if there is none.
    pub fn disconnect(&self) -> Result<(), Error> {
        // SAFETY: a live id.
        let result = unsafe { (self.channel.cm.disconnect)(self.raw.as_ptr()) };
        self.answer("rdma_disconnect", "a connection", result)
    }
}

impl fmt::Debug for CmId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "CmId({:?} on {:?})", self.number(), self.device_name())
    }
}

impl Drop for CmId {
    fn drop(&mut self) {
        // SAFETY: this value's own id; its events are acknowledged as they are taken, so this does not
        // wait.
        unsafe { (self.channel.cm.destroy_id)(self.raw.as_ptr()) };
    }
}

fn milliseconds(timeout: Duration) -> i32 {
    i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX)
}

fn data_length(data: &[u8], limit: usize) -> Result<u8, Error> {
    u8::try_from(data.len()).ok().filter(|length| usize::from(*length) <= limit).ok_or_else(|| {
        let (value, limit) = (data.len() as u64, limit as u64);
        Error::TooLarge { what: "private data, in bytes,", value, limit }
    })
}

fn conn_param(
    qp: &RcQp,
    data: &[u8],
    depths: Depths,
    limit: usize,
) -> Result<sys::rdma_conn_param, Error> {
    Ok(sys::rdma_conn_param {
        private_data: data.as_ptr().cast(),
        private_data_len: data_length(data, limit)?,
        responder_resources: depths.answered,
        initiator_depth: depths.outstanding,
        flow_control: 1,
        retry_count: Patience::PAGER.retries.count(),
        rnr_retry_count: RetryCount::MAX.count(),
        srq: 0,
        qp_num: qp.number(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_data_is_bounded() {
        assert_eq!(data_length(&[0; MAX_REQUEST_DATA], MAX_REQUEST_DATA).unwrap(), 56);
        let error = data_length(&[0; MAX_REQUEST_DATA + 1], MAX_REQUEST_DATA).unwrap_err();
        assert_eq!(error.to_string(), "private data, in bytes, is 57, above 56");
        assert!(data_length(&[0; 300], MAX_ANSWER_DATA).is_err());
    }

    #[test]
    fn a_refusal_is_its_text_and_one_without_a_text_is_empty() {
        let mut padded = [0; 148];
        assert!(unpadded(padded.to_vec()).is_empty());
        padded[..4].copy_from_slice(b"a\0b.");
        assert_eq!(unpadded(padded.to_vec()), b"a\0b.");
        assert_eq!(unpadded(vec![7; 148]), [7; 148]);
    }
}
