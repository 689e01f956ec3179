//! Devices, what they can do, their ports and GID tables.

use std::ffi::CStr;
use std::fmt;
use std::os::fd::RawFd;
use std::ptr::NonNull;
use std::sync::Arc;

use rdma_mummy_sys as sys;

use super::address::{GidEntry, GidKind, LinkLayer, Mtu, PortState};
use super::error::{Error, check};
use super::library::{self, Ibv};

/// What carries a device's READs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// InfiniBand's, over InfiniBand or RoCE.
    Ib,
    /// iWARP: no GIDs, and connections by the connection manager alone.
    Iwarp,
    /// Some other, which Mitosis does not use.
    Other,
}

/// One device of this host.
#[derive(Debug)]
pub struct Device {
    list: Arc<List>,
    raw: NonNull<sys::ibv_device>,
    name: String,
}

/// libibverbs' list; it goes when the last of its devices does.
#[derive(Debug)]
struct List {
    ibv: &'static Ibv,
    raw: NonNull<*mut sys::ibv_device>,
}

// SAFETY: libibverbs is thread-safe, and a device is only read after it was listed.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}
// SAFETY: as above.
unsafe impl Send for List {}
// SAFETY: as above.
unsafe impl Sync for List {}

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: `raw` is what get_device_list gave, freed once, after the last device of it.
        unsafe { (self.ibv.free_device_list)(self.raw.as_ptr()) }
    }
}

/// The devices of this host; opens libibverbs.
///
/// # Errors
/// [`Error::Library`] without libibverbs, [`Error::NoRdma`] where the kernel offers none.
pub fn devices() -> Result<Vec<Device>, Error> {
    let ibv = library::ibv()?;
    let mut count = 0;
    // SAFETY: `count` is written during the call.
    let raw = unsafe { (ibv.get_device_list)(&raw mut count) };
    let Some(raw) = NonNull::new(raw) else {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(0);
        return Err(match errno {
            libc::EOPNOTSUPP | libc::ENOSYS | libc::ENOENT => {
                Error::NoRdma { call: "ibv_get_device_list", errno }
            }
            _ => Error::returned("ibv_get_device_list", "this host", errno),
        });
    };
    let list = Arc::new(List { ibv, raw });
    let count = usize::try_from(count).unwrap_or(0);
    let device = |at: usize| {
        // SAFETY: the list has `count` entries and a null behind them, and lives with its devices.
        let raw = NonNull::new(unsafe { *list.raw.as_ptr().add(at) })?;
        // SAFETY: the device is of this list; its name is a C string in it.
        let name = unsafe {
            let name = (ibv.get_device_name)(raw.as_ptr());
            if name.is_null() {
                return None;
            }
            CStr::from_ptr(name).to_string_lossy().into_owned()
        };
        Some(Device { list: list.clone(), raw, name })
    };
    Ok((0..count).filter_map(device).collect())
}

impl Device {
    /// Its name, as in /sys/class/infiniband.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What carries its READs.
    pub fn transport(&self) -> Transport {
        // SAFETY: a listed device's plain field.
        match unsafe { self.raw.as_ref().transport_type } {
            sys::ibv_transport_type::IBV_TRANSPORT_IB => Transport::Ib,
            sys::ibv_transport_type::IBV_TRANSPORT_IWARP => Transport::Iwarp,
            _ => Transport::Other,
        }
    }

    pub(super) fn raw(&self) -> *mut sys::ibv_device {
        self.raw.as_ptr()
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`Error::Call`]: EACCES without rights on /dev/infiniband, ENODEV if it is gone.
    pub fn open(&self) -> Result<Arc<Context>, Error> {
        let ibv = self.list.ibv;
        // SAFETY: the device is of a list that lives.
        let raw = unsafe { (ibv.open_device)(self.raw.as_ptr()) };
        let raw = NonNull::new(raw).ok_or_else(|| Error::last("ibv_open_device", &self.name))?;
        let context = Context { ibv, raw, name: self.name.clone(), transport: self.transport() };
        super::fd::set_nonblocking(context.event_fd()).map_err(|error| {
            Error::returned("fcntl", &self.name, error.raw_os_error().unwrap_or(0))
        })?;
        Ok(Arc::new(context))
    }
}

/// An open device. All that is made on it keeps it open.
pub struct Context {
    pub(super) ibv: &'static Ibv,
    pub(super) raw: NonNull<sys::ibv_context>,
    pub(super) name: String,
    pub(super) transport: Transport,
}

// SAFETY: verbs may be called from any thread, on any object, at the same time (rdma-core, libibverbs:
// "libibverbs is fully thread safe"); what must not be shared, a QP's posting, takes `&mut`.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl fmt::Debug for Context {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Context({})", self.name)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: all objects of this context hold it, so none is left.
        unsafe { (self.ibv.close_device)(self.raw.as_ptr()) };
    }
}

/// On-demand paging, as far as READs are concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OdpCaps {
    /// Memory can be registered without being pinned.
    pub explicit: bool,
    /// A whole address space can.
    pub implicit: bool,
    /// RC READs of such memory are served.
    pub rc_read: bool,
}

/// What a device can do.
#[derive(Clone, Debug)]
pub struct DeviceCaps {
    /// Its firmware's version.
    pub firmware: String,
    /// Vendor and part.
    pub vendor_part: (u32, u32),
    /// Ports.
    pub ports: u8,
    /// Largest registration in bytes.
    pub max_mr_bytes: u64,
    /// Registrations at one time.
    pub max_mr: u32,
    /// QPs at one time.
    pub max_qp: u32,
    /// Entries of a send queue.
    pub max_qp_wr: u32,
    /// Entries of a CQ.
    pub max_cqe: u32,
    /// READs that one QP answers at a time.
    pub max_qp_rd_atom: u8,
    /// READs that one QP has outstanding.
    pub max_qp_init_rd_atom: u8,
    /// On-demand paging.
    pub odp: OdpCaps,
}

/// What a port says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortAttr {
    /// Whether it carries traffic.
    pub state: PortState,
    /// What it is.
    pub link: LinkLayer,
    /// Its path MTU now.
    pub mtu: Mtu,
    /// Its local id, on InfiniBand.
    pub lid: u16,
    /// Entries of its GID table.
    pub gids: u32,
    /// The longest message in bytes.
    pub max_message_bytes: u32,
}

impl Context {
    /// The device's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What carries its READs.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// Readable when [`Context::next_event`] has an event.
    pub fn event_fd(&self) -> RawFd {
        // SAFETY: an open context's plain field.
        unsafe { self.raw.as_ref().async_fd }
    }

    /// What the device can do.
    ///
    /// # Errors
    /// [`Error::Call`]: EIO if the device is gone.
    pub fn caps(&self) -> Result<DeviceCaps, Error> {
        let attr = self.query_device()?;
        let plain = &attr.orig_attr;
        let firmware: Vec<u8> = plain
            .fw_ver
            .iter()
            .take_while(|byte| **byte != 0)
            .map(|byte| byte.cast_unsigned())
            .collect();
        let general = attr.odp_caps.general_caps;
        let flag = |bit: sys::ibv_odp_general_caps| general & u64::from(bit.0) != 0;
        let rc = attr.odp_caps.per_transport_caps.rc_odp_caps;
        let count = |value: i32| u32::try_from(value).unwrap_or(0);
        let depth = |value: i32| u8::try_from(value.clamp(0, i32::from(u8::MAX))).unwrap_or(0);
        Ok(DeviceCaps {
            firmware: String::from_utf8_lossy(&firmware).into_owned(),
            vendor_part: (plain.vendor_id, plain.vendor_part_id),
            ports: plain.phys_port_cnt,
            max_mr_bytes: plain.max_mr_size,
            max_mr: count(plain.max_mr),
            max_qp: count(plain.max_qp),
            max_qp_wr: count(plain.max_qp_wr),
            max_cqe: count(plain.max_cqe),
            max_qp_rd_atom: depth(plain.max_qp_rd_atom),
            max_qp_init_rd_atom: depth(plain.max_qp_init_rd_atom),
            odp: OdpCaps {
                explicit: flag(sys::ibv_odp_general_caps::IBV_ODP_SUPPORT),
                implicit: flag(sys::ibv_odp_general_caps::IBV_ODP_SUPPORT_IMPLICIT),
                rc_read: rc & sys::ibv_odp_transport_cap_bits::IBV_ODP_SUPPORT_READ.0 != 0,
            },
        })
    }

    fn query_device(&self) -> Result<sys::ibv_device_attr_ex, Error> {
        // SAFETY: plain C data, for which zeros are a value.
        let mut attr: sys::ibv_device_attr_ex = unsafe { std::mem::zeroed() };
        // SAFETY: the table reaches back to this field.
        let query = self.extended().and_then(|table| unsafe { (*table).query_device_ex });
        if let Some(query) = query {
            // SAFETY: the provider's own function; it writes at most the size that it is told.
            let result = unsafe {
                query(
                    self.raw.as_ptr(),
                    std::ptr::null(),
                    &raw mut attr,
                    size_of::<sys::ibv_device_attr_ex>(),
                )
            };
            if result == 0 {
                return Ok(attr);
            }
            if result.abs() != libc::EOPNOTSUPP {
                return Err(Error::returned("ibv_query_device_ex", &self.name, result));
            }
        }
        // SAFETY: the first member is what this call fills.
        let result = unsafe { (self.ibv.query_device)(self.raw.as_ptr(), &raw mut attr.orig_attr) };
        check("ibv_query_device", &self.name, result)?;
        Ok(attr)
    }

    /// What port `number`, from 1 on, says of itself.
    ///
    /// # Errors
    /// [`Error::Call`]: EINVAL if there is no such port.
    pub fn port(&self, number: u8) -> Result<PortAttr, Error> {
        // SAFETY: plain C data, for which zeros are a value.
        let mut attr: sys::ibv_port_attr = unsafe { std::mem::zeroed() };
        let attr_at = &raw mut attr;
        // SAFETY: the table reaches back to this field.
        let query = self.extended().and_then(|table| unsafe { (*table).query_port });
        let result = match query {
            // SAFETY: the provider's own function; it writes at most the size that it is told.
            Some(query) => unsafe {
                query(self.raw.as_ptr(), number, attr_at, size_of::<sys::ibv_port_attr>())
            },
            // SAFETY: the older struct is the beginning of the newer one.
            None => unsafe { (self.ibv.query_port)(self.raw.as_ptr(), number, attr_at.cast()) },
        };
        check("ibv_query_port", &format!("{}:{number}", self.name), result)?;
        Ok(PortAttr {
            state: PortState::from_raw(attr.state),
            link: LinkLayer::from_raw(attr.link_layer),
            mtu: Mtu::from_raw(attr.active_mtu),
            lid: attr.lid,
            gids: u32::try_from(attr.gid_tbl_len).unwrap_or(0),
            max_message_bytes: attr.max_msg_sz,
        })
    }

    /// The GIDs that port `number` has; empty places of its table are left out.
    ///
    /// # Errors
    /// As [`Context::port`].
    pub fn gids(&self, number: u8) -> Result<Vec<GidEntry>, Error> {
        let places = self.port(number)?.gids;
        let mut found = Vec::new();
        for index in 0..places {
            // SAFETY: plain C data, for which zeros are a value.
            let mut entry: sys::ibv_gid_entry = unsafe { std::mem::zeroed() };
            // SAFETY: `entry` is written during the call, at most the size that is told.
            let result = unsafe {
                (self.ibv.query_gid_ex)(
                    self.raw.as_ptr(),
                    u32::from(number),
                    index,
                    &raw mut entry,
                    0,
                    size_of::<sys::ibv_gid_entry>(),
                )
            };
            // ENODATA is an empty place; others fail alike for all, as with a driver without GIDs.
            if result != 0 {
                continue;
            }
            // SAFETY: all bytes of the union are written.
            let bytes = unsafe { entry.gid.raw };
            let gid = super::address::Gid(bytes);
            if gid.is_unset() {
                continue;
            }
            found.push(GidEntry {
                index,
                gid,
                kind: GidKind::from_raw(entry.gid_type),
                netdev: super::fd::interface_name(entry.ndev_ifindex),
            });
        }
        Ok(found)
    }

    /// The provider's extended table, if it has one that reaches back to all fields used here.
    pub(super) fn extended(&self) -> Option<*const sys::verbs_context> {
        // SAFETY: an open context's plain field.
        if unsafe { self.raw.as_ref().abi_compat.addr() } != usize::MAX {
            return None;
        }
        let before = std::mem::offset_of!(sys::verbs_context, context);
        // SAFETY: `abi_compat` is all ones where the context is the last member of a verbs_context
        // (verbs.h, verbs_get_ctx). `sz` stands right before it, in every version.
        let (extended, size) = unsafe {
            let extended = self.raw.as_ptr().byte_sub(before).cast::<sys::verbs_context>();
            (extended, (&raw const (*extended).sz).read())
        };
        // It grows at its front. query_port is the newest field of those used.
        let oldest = std::mem::offset_of!(sys::verbs_context, query_port);
        (size >= size_of::<sys::verbs_context>() - oldest).then_some(extended.cast_const())
    }
}
