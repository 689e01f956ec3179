//! Completion queues, and what a completion says.

use std::fmt;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_mummy_sys as sys;
use sys::ibv_wc_status as status;

use super::device::Context;
use super::error::{Error, check};

/// How a work request ended: `enum ibv_wc_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WcStatus(pub u32);

impl WcStatus {
    /// 0.
    pub const SUCCESS: Self = Self(status::IBV_WC_SUCCESS);
    /// 5: it stood behind one that failed.
    pub const FLUSHED: Self = Self(status::IBV_WC_WR_FLUSH_ERR);
    /// 9: the other side found the request malformed.
    pub const REMOTE_INVALID_REQUEST: Self = Self(status::IBV_WC_REM_INV_REQ_ERR);
    /// 10: key, range or right is wrong there, or no longer good.
    pub const REMOTE_ACCESS: Self = Self(status::IBV_WC_REM_ACCESS_ERR);
    /// 12: no answer after all retries.
    pub const RETRY_EXCEEDED: Self = Self(status::IBV_WC_RETRY_EXC_ERR);

    /// Whether the bytes are there.
    pub fn is_success(self) -> bool {
        self == Self::SUCCESS
    }

    /// The name in verbs.h, the cause, and what to do.
    fn words(self) -> (&'static str, &'static str) {
        match self.0 {
            status::IBV_WC_SUCCESS => ("SUCCESS", "the bytes are there"),
            status::IBV_WC_LOC_LEN_ERR => (
                "LOC_LEN_ERR",
                "the READ is longer than the device allows: a defect, please report it",
            ),
            status::IBV_WC_LOC_QP_OP_ERR => {
                ("LOC_QP_OP_ERR", "the QP refuses the work request: a defect, please report it")
            }
            status::IBV_WC_LOC_PROT_ERR => {
                ("LOC_PROT_ERR", "the buffer is not registered for it: a defect, please report it")
            }
            status::IBV_WC_WR_FLUSH_ERR => {
                ("WR_FLUSH_ERR", "another READ of this connection failed; this one is posted again")
            }
            status::IBV_WC_BAD_RESP_ERR => (
                "BAD_RESP_ERR",
                "the owner's card answered something unexpected; look at its firmware",
            ),
            status::IBV_WC_LOC_ACCESS_ERR => {
                ("LOC_ACCESS_ERR", "the buffer may not be written: a defect, please report it")
            }
            status::IBV_WC_REM_INV_REQ_ERR => (
                "REM_INV_REQ_ERR",
                "the owner's card refuses the request (length, rights of the QP); its agent is asked instead",
            ),
            status::IBV_WC_REM_ACCESS_ERR => (
                "REM_ACCESS_ERR",
                "the owner's key or range is not, or no longer, good: dropped, revoked or replaced; its agent is asked instead",
            ),
            status::IBV_WC_REM_OP_ERR => {
                ("REM_OP_ERR", "the owner's card failed; look at the kernel's log there")
            }
            status::IBV_WC_RETRY_EXC_ERR => (
                "RETRY_EXC_ERR",
                "the owner's card does not answer: host or port down, or the seed revoked; look at the link and at its agent",
            ),
            status::IBV_WC_RNR_RETRY_EXC_ERR => {
                ("RNR_RETRY_EXC_ERR", "the owner's QP is not ready; look at its agent")
            }
            status::IBV_WC_FATAL_ERR => {
                ("FATAL_ERR", "the device failed; look at the kernel's log")
            }
            status::IBV_WC_RESP_TIMEOUT_ERR => (
                "RESP_TIMEOUT_ERR",
                "the owner's card does not answer; look at the link and at its agent",
            ),
            status::IBV_WC_GENERAL_ERR => {
                ("GENERAL_ERR", "the transport failed; look at the kernel's log")
            }
            _ => ("unknown", "see enum ibv_wc_status in verbs.h; look at the kernel's log"),
        }
    }
}

impl fmt::Display for WcStatus {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, cause) = self.words();
        write!(out, "completion status {} ({name}): {cause}", self.0)
    }
}

/// One completion.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Wc(sys::ibv_wc);

impl Wc {
    /// A place for one, for [`Cq::poll`].
    pub const fn empty() -> Self {
        // SAFETY: plain C data, for which zeros are a value.
        Self(unsafe { std::mem::zeroed() })
    }

    /// One of a device that does not exist.
    #[cfg(test)]
    pub(super) fn stand_in(wr_id: u64, status: WcStatus, qp_num: u32) -> Self {
        let mut wc = Self::empty();
        (wc.0.wr_id, wc.0.status, wc.0.qp_num) = (wr_id, status.0, qp_num);
        wc
    }

    /// The work request's id, as it was posted.
    pub fn wr_id(&self) -> u64 {
        self.0.wr_id
    }

    /// How it ended.
    pub fn status(&self) -> WcStatus {
        WcStatus(self.0.status)
    }

    /// The QP that it was posted on.
    pub fn qp_num(&self) -> u32 {
        self.0.qp_num
    }

    /// What the device's vendor says beside the status.
    pub fn vendor_error(&self) -> u32 {
        self.0.vendor_err
    }
}

impl fmt::Debug for Wc {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Wc")
            .field("wr_id", &self.wr_id())
            .field("status", &self.0.status)
            .field("vendor_error", &self.vendor_error())
            .field("qp_num", &self.qp_num())
            .finish()
    }
}

/// A completion queue with a descriptor for poll(2).
///
/// To sleep without losing a completion: [`Cq::arm`], [`Cq::poll`] once more, and only if that found
/// nothing poll(2) on [`Cq::fd`]; then [`Cq::drain_events`], and the same again.
pub struct Cq {
    pub(super) context: Arc<Context>,
    pub(super) raw: NonNull<sys::ibv_cq>,
    channel: NonNull<sys::ibv_comp_channel>,
    poll: unsafe extern "C" fn(*mut sys::ibv_cq, i32, *mut sys::ibv_wc) -> i32,
    arm: unsafe extern "C" fn(*mut sys::ibv_cq, i32) -> i32,
}

// SAFETY: libibverbs is thread-safe (see Context).
unsafe impl Send for Cq {}
// SAFETY: as above.
unsafe impl Sync for Cq {}

impl Cq {
    /// One that holds `entries` completions. More than that at one time is an overrun: the CQ fails, so
    /// the QPs on it must have no more work requests outstanding.
    ///
    /// # Errors
    /// [`Error::Call`]: EINVAL above the device's `max_cqe`, ENOMEM. [`Error::NullFunction`].
    pub fn new(context: &Arc<Context>, entries: u32) -> Result<Arc<Self>, Error> {
        let (ibv, name) = (context.ibv, &context.name);
        // SAFETY: an open context's table, filled when it was opened.
        let ops = unsafe { &context.raw.as_ref().ops };
        let null = |function| Error::NullFunction { on: name.clone(), function };
        let poll = ops.poll_cq.ok_or_else(|| null("poll_cq"))?;
        let arm = ops.req_notify_cq.ok_or_else(|| null("req_notify_cq"))?;
        let entries = i32::try_from(entries).unwrap_or(i32::MAX);
        // SAFETY: the context is open.
        let channel = unsafe { (ibv.create_comp_channel)(context.raw.as_ptr()) };
        let channel =
            NonNull::new(channel).ok_or_else(|| Error::last("ibv_create_comp_channel", name))?;
        // SAFETY: context and channel are open; no context pointer is kept.
        let raw = unsafe {
            (ibv.create_cq)(
                context.raw.as_ptr(),
                entries,
                std::ptr::null_mut(),
                channel.as_ptr(),
                0,
            )
        };
        let Some(raw) = NonNull::new(raw) else {
            let error = Error::last("ibv_create_cq", name);
            // SAFETY: the channel has no CQ.
            unsafe { (ibv.destroy_comp_channel)(channel.as_ptr()) };
            return Err(error);
        };
        let cq = Self { context: context.clone(), raw, channel, poll, arm };
        super::fd::set_nonblocking(cq.fd())
            .map_err(|error| Error::returned("fcntl", name, error.raw_os_error().unwrap_or(0)))?;
        Ok(Arc::new(cq))
    }

    /// Readable after [`Cq::arm`] when a completion came.
    pub fn fd(&self) -> RawFd {
        // SAFETY: a live channel's plain field.
        unsafe { self.channel.as_ref().fd }
    }

    /// Takes completions out, as many as there are and as fit into `into`, without waiting.
    ///
    /// # Errors
    /// [`Error::Call`] if the CQ has failed (overrun, device gone).
    pub fn poll<'wc>(&self, into: &'wc mut [Wc]) -> Result<&'wc [Wc], Error> {
        let room = i32::try_from(into.len()).unwrap_or(i32::MAX);
        // SAFETY: `into` has room for as many, and Wc is ibv_wc.
        let count = unsafe { (self.poll)(self.raw.as_ptr(), room, into.as_mut_ptr().cast()) };
        match usize::try_from(count) {
            Ok(count) => Ok(&into[..count.min(into.len())]),
            Err(_) => Err(Error::returned("ibv_poll_cq", &self.context.name, count)),
        }
    }

    /// Asks for one event when the next completion comes.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn arm(&self) -> Result<(), Error> {
        // SAFETY: a live CQ.
        let result = unsafe { (self.arm)(self.raw.as_ptr(), 0) };
        check("ibv_req_notify_cq", &self.context.name, result)
    }

    /// Takes the events that are there; true if there was one.
    ///
    /// # Errors
    /// [`Error::Call`].
    pub fn drain_events(&self) -> Result<bool, Error> {
        let mut events = 0;
        loop {
            let (mut cq, mut context) = (std::ptr::null_mut(), std::ptr::null_mut());
            // SAFETY: the channel lives; both results are written during the call.
            let result = unsafe {
                (self.context.ibv.get_cq_event)(
                    self.channel.as_ptr(),
                    &raw mut cq,
                    &raw mut context,
                )
            };
            if result != 0 {
                break;
            }
            events += 1;
        }
        let error = std::io::Error::last_os_error();
        if events > 0 {
            // SAFETY: all events of the channel are this CQ's, its only one.
            unsafe { (self.context.ibv.ack_cq_events)(self.raw.as_ptr(), events) };
        }
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(events > 0),
            errno => {
                Err(Error::returned("ibv_get_cq_event", &self.context.name, errno.unwrap_or(0)))
            }
        }
    }
}

impl fmt::Debug for Cq {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Cq({})", self.context.name)
    }
}

impl Drop for Cq {
    fn drop(&mut self) {
        // SAFETY: the QPs of this CQ hold it, so none is left; its events are acknowledged as they are
        // taken, so this does not wait.
        unsafe {
            (self.context.ibv.destroy_cq)(self.raw.as_ptr());
            (self.context.ibv.destroy_comp_channel)(self.channel.as_ptr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statuses_that_the_fabrics_tell_apart_have_their_numbers() {
        let numbers = [
            WcStatus::SUCCESS,
            WcStatus::FLUSHED,
            WcStatus::REMOTE_INVALID_REQUEST,
            WcStatus::REMOTE_ACCESS,
            WcStatus::RETRY_EXCEEDED,
        ];
        assert_eq!(numbers.map(|status| status.0), [0, 5, 9, 10, 12]);
        assert!(WcStatus::SUCCESS.is_success() && !WcStatus::FLUSHED.is_success());
    }

    #[test]
    fn each_status_says_its_number_its_name_and_what_to_do() {
        let text = WcStatus::RETRY_EXCEEDED.to_string();
        assert!(text.starts_with("completion status 12 (RETRY_EXC_ERR): "), "{text}");
        assert!(text.contains("look at the link"), "{text}");
        assert!(WcStatus(99).to_string().starts_with("completion status 99 (unknown)"));
    }
}
