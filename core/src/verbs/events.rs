//! What a device says unasked: it is gone, a port went down, a QP failed.

use std::ffi::c_int;
use std::fmt;

use rdma_mummy_sys as sys;

use super::device::Context;
use super::error::Error;
use super::library::RawAsyncEvent;

/// An asynchronous event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AsyncEvent {
    /// The device is gone or was reset: all that is on it is dead.
    DeviceFatal,
    /// A port carries traffic again.
    PortActive(u8),
    /// A port does not carry traffic any more.
    PortDown(u8),
    /// A port's addresses changed: GIDs, LID or partitions.
    AddressesChanged(u8),
    /// A QP failed; its number.
    QpFatal(u32),
    /// A peer asked for what it must not have; on a DCT, with a key or range that is wrong.
    QpAccess(u32),
    /// A peer's request was malformed.
    QpRequest(u32),
    /// A CQ overran: all QPs on it fail.
    CqFailed,
    /// An SRQ failed.
    SrqFailed,
    /// Nothing to act on; its number in `enum ibv_event_type`.
    Other(c_int),
}

impl fmt::Display for AsyncEvent {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DeviceFatal => out.write_str(
                "the device is gone or was reset; look at the kernel's log, and restart the agent when it is back",
            ),
            Self::PortActive(port) => write!(out, "port {port} is ACTIVE again"),
            Self::PortDown(port) => {
                write!(out, "port {port} is down; look at its cable and network interface")
            }
            Self::AddressesChanged(port) => write!(out, "the addresses of port {port} changed"),
            Self::QpFatal(qp) => write!(out, "QP {qp} failed; it is made again"),
            Self::QpAccess(qp) => write!(out, "a peer of QP {qp} asked for what it must not have"),
            Self::QpRequest(qp) => write!(out, "a peer of QP {qp} sent a malformed request"),
            Self::CqFailed => {
                out.write_str("a completion queue overran: a defect, please report it")
            }
            Self::SrqFailed => out.write_str("a shared receive queue failed; it is made again"),
            Self::Other(kind) => write!(out, "event {kind}"),
        }
    }
}

impl Context {
    /// The next event, if there is one. Does not wait: [`Context::event_fd`] tells when.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn next_event(&self) -> Result<Option<AsyncEvent>, Error> {
        // SAFETY: plain C data, for which zeros are a value.
        let mut raw: RawAsyncEvent = unsafe { std::mem::zeroed() };
        // SAFETY: an open context; the event is written during the call.
        if unsafe { (self.ibv.get_async_event)(self.raw.as_ptr(), &raw mut raw) } != 0 {
            let error = Error::last("ibv_get_async_event", self.name());
            return match error.errno() {
                Some(libc::EAGAIN | libc::EINTR) => Ok(None),
                _ => Err(error),
            };
        }
        // SAFETY: the member is chosen by the kind; a QP lives until its event is acknowledged.
        let event = unsafe { read(&raw) };
        // SAFETY: an event that was got, acknowledged once.
        unsafe { (self.ibv.ack_async_event)(&raw mut raw) };
        Ok(Some(event))
    }
}

/// What a raw event says.
///
/// # Safety
/// The member of its union that belongs to its kind is set, and a QP of it lives.
unsafe fn read(raw: &RawAsyncEvent) -> AsyncEvent {
    use sys::ibv_event_type as kind;
    // SAFETY: the caller's promise.
    let port = || u8::try_from(unsafe { raw.element.port_num }).unwrap_or(0);
    // SAFETY: the caller's promise.
    let qp = || unsafe { (*raw.element.qp).qp_num };
    let is = |one: kind| raw.kind == one as c_int;
    match () {
        () if is(kind::IBV_EVENT_DEVICE_FATAL) => AsyncEvent::DeviceFatal,
        () if is(kind::IBV_EVENT_PORT_ACTIVE) => AsyncEvent::PortActive(port()),
        () if is(kind::IBV_EVENT_PORT_ERR) => AsyncEvent::PortDown(port()),
        () if is(kind::IBV_EVENT_LID_CHANGE)
            || is(kind::IBV_EVENT_PKEY_CHANGE)
            || is(kind::IBV_EVENT_GID_CHANGE) =>
        {
            AsyncEvent::AddressesChanged(port())
        }
        () if is(kind::IBV_EVENT_QP_FATAL) => AsyncEvent::QpFatal(qp()),
        () if is(kind::IBV_EVENT_QP_ACCESS_ERR) => AsyncEvent::QpAccess(qp()),
        () if is(kind::IBV_EVENT_QP_REQ_ERR) => AsyncEvent::QpRequest(qp()),
        () if is(kind::IBV_EVENT_CQ_ERR) => AsyncEvent::CqFailed,
        () if is(kind::IBV_EVENT_SRQ_ERR) => AsyncEvent::SrqFailed,
        () => AsyncEvent::Other(raw.kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port_event(kind: c_int) -> AsyncEvent {
        let element = sys::ibv_async_event_element_t { port_num: 2 };
        // SAFETY: only kinds of ports, and such without a member, are asked for.
        unsafe { read(&RawAsyncEvent { element, kind }) }
    }

    #[test]
    fn events_of_ports_and_unknown_ones_are_told() {
        assert_eq!(port_event(10), AsyncEvent::PortDown(2));
        assert_eq!(port_event(9), AsyncEvent::PortActive(2));
        assert_eq!(port_event(18), AsyncEvent::AddressesChanged(2));
        assert_eq!(port_event(8), AsyncEvent::DeviceFatal);
        assert_eq!(port_event(4242), AsyncEvent::Other(4242));
    }

    #[test]
    fn an_event_of_a_qp_has_its_number() {
        // SAFETY: plain C data, for which zeros are a value.
        let mut qp: sys::ibv_qp = unsafe { std::mem::zeroed() };
        qp.qp_num = 77;
        for (kind, event) in [
            (1, AsyncEvent::QpFatal(77)),
            (2, AsyncEvent::QpRequest(77)),
            (3, AsyncEvent::QpAccess(77)),
        ] {
            let element = sys::ibv_async_event_element_t { qp: &raw mut qp };
            // SAFETY: the member that belongs to the kind is set, to a QP that lives.
            assert_eq!(unsafe { read(&RawAsyncEvent { element, kind }) }, event);
        }
    }
}
