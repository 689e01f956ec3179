//! The libraries, opened with dlopen(3) when the first of their functions is needed.
//!
//! `rdma-mummy-sys` has them opened by a load-time constructor in its C part, in every process that
//! links it: this binary is also `mitosis ls`, `resume` and the keeper. Only its types and its inline
//! functions are used here, so the linker leaves that C part out; the functions are looked up in the
//! tables below. What is opened stays open until the process ends.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::OnceLock;

use rdma_mummy_sys as sys;

use super::error::LibraryError;

/// Opens `soname` as the dynamic linker finds it (LD_LIBRARY_PATH, then the system's folders).
fn open(soname: &'static CStr) -> Result<*mut c_void, LibraryError> {
    // SAFETY: `soname` is a C string; the initialisers that run are those of rdma-core's libraries.
    let handle = unsafe { libc::dlopen(soname.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        return Err(LibraryError::NotThere { library: text(soname), reason: last_error() });
    }
    Ok(handle)
}

/// The address of `symbol` in an open library.
fn look_up(
    handle: *mut c_void,
    soname: &'static CStr,
    symbol: &'static CStr,
) -> Result<*mut c_void, LibraryError> {
    // SAFETY: `handle` is an open library's, `symbol` a C string.
    let address = unsafe { libc::dlsym(handle, symbol.as_ptr()) };
    if address.is_null() {
        return Err(LibraryError::TooOld { library: text(soname), symbol: text(symbol) });
    }
    Ok(address)
}

fn text(name: &'static CStr) -> &'static str {
    name.to_str().expect("the names below are ASCII")
}

fn last_error() -> String {
    // SAFETY: dlerror gives null or a C string that lives until this thread's next dl call.
    unsafe {
        let message = libc::dlerror();
        if message.is_null() {
            return "no reason given".to_owned();
        }
        CStr::from_ptr(message).to_string_lossy().into_owned()
    }
}

/// Declares a table of a library's functions, and how it is filled.
macro_rules! table {
    ($(#[$doc:meta])* $table:ident, $soname:literal:
        $($field:ident = $symbol:literal ($($argument:ty),*) $(-> $result:ty)?;)*
    ) => {
        $(#[$doc])*
        pub(super) struct $table {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl $table {
            fn load() -> Result<Self, LibraryError> {
                let handle = open($soname)?;
                Ok(Self {
                    $($field: {
                        let address = look_up(handle, $soname, $symbol)?;
                        // SAFETY: the library with this soname keeps its symbols' types for ever,
                        // and this is the one that rdma-core's headers give this symbol.
                        unsafe {
                            std::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($argument),*) $(-> $result)?,
                            >(address)
                        }
                    },)*
                })
            }
        }

        impl std::fmt::Debug for $table {
            fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                out.write_str(text($soname))
            }
        }
    };
}

/// `struct ibv_async_event`, its kind a number: a newer kernel's would be no value of the crate's enum.
#[repr(C)]
pub(super) struct RawAsyncEvent {
    pub(super) element: sys::ibv_async_event_element_t,
    pub(super) kind: c_int,
}

table! {
    /// libibverbs, from rdma-core 33 on.
    Ibv, c"libibverbs.so.1":
    get_device_list = c"ibv_get_device_list" (*mut c_int) -> *mut *mut sys::ibv_device;
    free_device_list = c"ibv_free_device_list" (*mut *mut sys::ibv_device);
    get_device_name = c"ibv_get_device_name" (*mut sys::ibv_device) -> *const c_char;
    open_device = c"ibv_open_device" (*mut sys::ibv_device) -> *mut sys::ibv_context;
    close_device = c"ibv_close_device" (*mut sys::ibv_context) -> c_int;
    query_device = c"ibv_query_device" (*mut sys::ibv_context, *mut sys::ibv_device_attr) -> c_int;
    query_port = c"ibv_query_port" (*mut sys::ibv_context, u8, *mut sys::_compat_ibv_port_attr) -> c_int;
    query_gid_ex = c"_ibv_query_gid_ex"
        (*mut sys::ibv_context, u32, u32, *mut sys::ibv_gid_entry, u32, usize) -> c_int;
    get_async_event = c"ibv_get_async_event" (*mut sys::ibv_context, *mut RawAsyncEvent) -> c_int;
    ack_async_event = c"ibv_ack_async_event" (*mut RawAsyncEvent);
    alloc_pd = c"ibv_alloc_pd" (*mut sys::ibv_context) -> *mut sys::ibv_pd;
    dealloc_pd = c"ibv_dealloc_pd" (*mut sys::ibv_pd) -> c_int;
    reg_mr_iova2 = c"ibv_reg_mr_iova2"
        (*mut sys::ibv_pd, *mut c_void, usize, u64, u32) -> *mut sys::ibv_mr;
    dereg_mr = c"ibv_dereg_mr" (*mut sys::ibv_mr) -> c_int;
    create_comp_channel = c"ibv_create_comp_channel" (*mut sys::ibv_context) -> *mut sys::ibv_comp_channel;
    destroy_comp_channel = c"ibv_destroy_comp_channel" (*mut sys::ibv_comp_channel) -> c_int;
    create_cq = c"ibv_create_cq"
        (*mut sys::ibv_context, c_int, *mut c_void, *mut sys::ibv_comp_channel, c_int) -> *mut sys::ibv_cq;
    destroy_cq = c"ibv_destroy_cq" (*mut sys::ibv_cq) -> c_int;
    get_cq_event = c"ibv_get_cq_event"
        (*mut sys::ibv_comp_channel, *mut *mut sys::ibv_cq, *mut *mut c_void) -> c_int;
    ack_cq_events = c"ibv_ack_cq_events" (*mut sys::ibv_cq, u32);
    create_srq = c"ibv_create_srq" (*mut sys::ibv_pd, *mut sys::ibv_srq_init_attr) -> *mut sys::ibv_srq;
    destroy_srq = c"ibv_destroy_srq" (*mut sys::ibv_srq) -> c_int;
    create_qp = c"ibv_create_qp" (*mut sys::ibv_pd, *mut sys::ibv_qp_init_attr) -> *mut sys::ibv_qp;
    modify_qp = c"ibv_modify_qp" (*mut sys::ibv_qp, *mut sys::ibv_qp_attr, c_int) -> c_int;
    query_qp = c"ibv_query_qp"
        (*mut sys::ibv_qp, *mut sys::ibv_qp_attr, c_int, *mut sys::ibv_qp_init_attr) -> c_int;
    destroy_qp = c"ibv_destroy_qp" (*mut sys::ibv_qp) -> c_int;
    qp_to_qp_ex = c"ibv_qp_to_qp_ex" (*mut sys::ibv_qp) -> *mut sys::ibv_qp_ex;
    create_ah = c"ibv_create_ah" (*mut sys::ibv_pd, *mut sys::ibv_ah_attr) -> *mut sys::ibv_ah;
    destroy_ah = c"ibv_destroy_ah" (*mut sys::ibv_ah) -> c_int;
}

table! {
    /// libmlx5's direct verbs.
    Mlx5, c"libmlx5.so.1":
    is_supported = c"mlx5dv_is_supported" (*mut sys::ibv_device) -> bool;
    query_device = c"mlx5dv_query_device" (*mut sys::ibv_context, *mut sys::mlx5dv_context) -> c_int;
    create_qp = c"mlx5dv_create_qp"
        (*mut sys::ibv_context, *mut sys::ibv_qp_init_attr_ex, *mut sys::mlx5dv_qp_init_attr)
        -> *mut sys::ibv_qp;
    qp_ex_from_ibv_qp_ex = c"mlx5dv_qp_ex_from_ibv_qp_ex" (*mut sys::ibv_qp_ex) -> *mut sys::mlx5dv_qp_ex;
}

table! {
    /// The part of libmlx5 that came with DCI streams.
    Mlx5Streams, c"libmlx5.so.1":
    dci_stream_id_reset = c"mlx5dv_dci_stream_id_reset" (*mut sys::ibv_qp, u16) -> c_int;
}

table! {
    /// librdmacm.
    Cm, c"librdmacm.so.1":
    create_event_channel = c"rdma_create_event_channel" () -> *mut sys::rdma_event_channel;
    destroy_event_channel = c"rdma_destroy_event_channel" (*mut sys::rdma_event_channel);
    create_id = c"rdma_create_id"
        (*mut sys::rdma_event_channel, *mut *mut sys::rdma_cm_id, *mut c_void, u32) -> c_int;
    destroy_id = c"rdma_destroy_id" (*mut sys::rdma_cm_id) -> c_int;
    bind_addr = c"rdma_bind_addr" (*mut sys::rdma_cm_id, *mut libc::sockaddr) -> c_int;
    resolve_addr = c"rdma_resolve_addr"
        (*mut sys::rdma_cm_id, *mut libc::sockaddr, *mut libc::sockaddr, c_int) -> c_int;
    resolve_route = c"rdma_resolve_route" (*mut sys::rdma_cm_id, c_int) -> c_int;
    listen = c"rdma_listen" (*mut sys::rdma_cm_id, c_int) -> c_int;
    connect = c"rdma_connect" (*mut sys::rdma_cm_id, *mut sys::rdma_conn_param) -> c_int;
    accept = c"rdma_accept" (*mut sys::rdma_cm_id, *mut sys::rdma_conn_param) -> c_int;
    reject = c"rdma_reject" (*mut sys::rdma_cm_id, *const c_void, u8) -> c_int;
    establish = c"rdma_establish" (*mut sys::rdma_cm_id) -> c_int;
    disconnect = c"rdma_disconnect" (*mut sys::rdma_cm_id) -> c_int;
    get_cm_event = c"rdma_get_cm_event"
        (*mut sys::rdma_event_channel, *mut *mut sys::rdma_cm_event) -> c_int;
    ack_cm_event = c"rdma_ack_cm_event" (*mut sys::rdma_cm_event) -> c_int;
    init_qp_attr = c"rdma_init_qp_attr"
        (*mut sys::rdma_cm_id, *mut sys::ibv_qp_attr, *mut c_int) -> c_int;
    get_src_port = c"rdma_get_src_port" (*mut sys::rdma_cm_id) -> u16;
}

/// libibverbs, opened by the first call.
pub(super) fn ibv() -> Result<&'static Ibv, LibraryError> {
    static TABLE: OnceLock<Result<Ibv, LibraryError>> = OnceLock::new();
    TABLE.get_or_init(Ibv::load).as_ref().map_err(Clone::clone)
}

/// libmlx5, opened by the first call.
pub(super) fn mlx5() -> Result<&'static Mlx5, LibraryError> {
    static TABLE: OnceLock<Result<Mlx5, LibraryError>> = OnceLock::new();
    TABLE.get_or_init(Mlx5::load).as_ref().map_err(Clone::clone)
}

/// libmlx5's DCI streams, where it has them.
pub(super) fn mlx5_streams() -> Result<&'static Mlx5Streams, LibraryError> {
    static TABLE: OnceLock<Result<Mlx5Streams, LibraryError>> = OnceLock::new();
    TABLE.get_or_init(Mlx5Streams::load).as_ref().map_err(Clone::clone)
}

/// librdmacm, opened by the first call.
pub(super) fn cm() -> Result<&'static Cm, LibraryError> {
    static TABLE: OnceLock<Result<Cm, LibraryError>> = OnceLock::new();
    TABLE.get_or_init(Cm::load).as_ref().map_err(Clone::clone)
}

/// Where a dynamic linker's list of this process says that a library of rdma-core came from; none are
/// there before the first use.
///
/// # Errors
/// Those of reading `/proc/self/maps`.
pub fn mapped() -> std::io::Result<Vec<String>> {
    const FAMILY: [&str; 4] = ["/libibverbs", "/libmlx5", "/librdmacm", "/libnl-"];
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    let mut paths: Vec<String> = maps
        .lines()
        .filter_map(|line| line.find('/').map(|at| line[at..].to_owned()))
        .filter(|path| FAMILY.iter().any(|name| path.contains(name)))
        .collect();
    paths.sort();
    paths.dedup();
    Ok(paths)
}
