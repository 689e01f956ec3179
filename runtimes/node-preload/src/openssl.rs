//! OpenSSL in children: it re-seeds its generators when getpid(2) answers another number than at their
//! last use, and by nothing else. In a child with the seed's pid it would go on with the seed's random
//! bytes. So a getpid called from OpenSSL's own code is answered, in children, by a number that is no other
//! process's; everybody else gets the truth.
//!
//! OpenSSL's code is a library of its own (libcrypto), or linked into the program (Node), which then exports
//! functions of it that lie around all of it.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst};

use mitosis::id::SeedId;

use crate::raw;

/// Above every pid (PID_MAX_LIMIT is 2^22), below the sign.
const OTHER_IDS: u32 = 1 << 30;

/// 0: this process is no child. Else a number of its own.
static OTHER: AtomicU32 = AtomicU32::new(0);
/// The text of an OpenSSL in the program itself.
static FIRST: AtomicUsize = AtomicUsize::new(usize::MAX);
static LAST: AtomicUsize = AtomicUsize::new(0);
static FIND_OBJECT: AtomicUsize = AtomicUsize::new(0);

/// Functions at either end, and on the way, of OpenSSL's text where Node links it in.
const MARKS: [&CStr; 7] = [
    c"SSL_CTX_new",
    c"EVP_RAND_generate",
    c"OPENSSL_init_crypto",
    c"openssl_get_fork_id",
    c"RAND_bytes",
    c"ossl_prov_drbg_generate",
    c"OPENSSL_cleanse",
];

/// glibc's `struct dl_find_object` on x86-64.
#[repr(C)]
struct FoundObject {
    flags: u64,
    start: *mut c_void,
    end: *mut c_void,
    link_map: *const LinkMap,
    eh_frame: *mut c_void,
    reserved: [u64; 7],
}

/// The beginning of link.h's `struct link_map`.
#[repr(C)]
struct LinkMap {
    base: usize,
    name: *const c_char,
}

type FindObject = unsafe extern "C" fn(*const c_void, *mut FoundObject) -> i32;

/// Looks up what cannot be asked for later.
pub(crate) fn get_ready() {
    FIND_OBJECT.store(raw::symbol(c"_dl_find_object"), SeqCst);
    // SAFETY: getauxval only reads; AT_PHDR lies in the program's own mapping.
    let program = unsafe { libc::getauxval(libc::AT_PHDR) };
    let Some(program) = usize::try_from(program).ok().and_then(object) else { return };
    // By its name, not its bounds: those are of one segment where there are gaps between them.
    let own = |address: &usize| object(*address).is_some_and(|it| it.link_map == program.link_map);
    for address in MARKS.iter().map(|name| raw::symbol(name)).filter(own) {
        FIRST.fetch_min(address, SeqCst);
        LAST.fetch_max(address, SeqCst);
    }
}

/// In a child: from now on OpenSSL sees another process.
pub(crate) fn become_another() {
    let random = u32::try_from(SeedId::random().0 % u64::from(OTHER_IDS)).unwrap_or(0);
    OTHER.store(OTHER_IDS | random, SeqCst);
}

/// What getpid() answers to a call that returns to `caller`. It may run in a signal handler.
pub(crate) fn process_id_for(caller: usize) -> i32 {
    let own = raw::process_id();
    let other = OTHER.load(SeqCst);
    if other == 0 || !is_openssl(caller) {
        return own;
    }
    // A fork of this child differs from it, too.
    let mixed = other.wrapping_add(own.cast_unsigned()) & (OTHER_IDS - 1);
    (OTHER_IDS | mixed).cast_signed()
}

fn is_openssl(caller: usize) -> bool {
    if (FIRST.load(SeqCst)..=LAST.load(SeqCst)).contains(&caller) {
        return true;
    }
    let Some(found) = object(caller) else { return false };
    if found.link_map.is_null() {
        return false;
    }
    // SAFETY: the dynamic linker's record of an object whose code is running; its name is a string.
    let name = unsafe {
        let name = (*found.link_map).name;
        if name.is_null() { c"" } else { CStr::from_ptr(name) }
    };
    let name = name.to_bytes();
    let file = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
    file.starts_with(b"libcrypto")
}

/// The loaded object that holds an address, by glibc's way that takes no lock (2.35 and later).
fn object(address: usize) -> Option<FoundObject> {
    let find = FIND_OBJECT.load(SeqCst);
    if find == 0 {
        return None;
    }
    let mut found = FoundObject {
        flags: 0,
        start: std::ptr::null_mut(),
        end: std::ptr::null_mut(),
        link_map: std::ptr::null(),
        eh_frame: std::ptr::null_mut(),
        reserved: [0; 7],
    };
    // SAFETY: glibc's function of this type, and a struct at least as large as it writes.
    let answer = unsafe {
        let find: FindObject = std::mem::transmute::<usize, FindObject>(find);
        find(address as *const c_void, &raw mut found)
    };
    (answer == 0).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_s_openssl_sees_another_process_and_nobody_else_does() {
        get_ready();
        let libcrypto = [c"libcrypto.so.3", c"libcrypto.so.1.1"].into_iter().find_map(|name| {
            // SAFETY: a library without effects of its own; the symbol is a function of it.
            let at = unsafe {
                let library = libc::dlopen(name.as_ptr(), libc::RTLD_NOW);
                (!library.is_null()).then(|| libc::dlsym(library, c"RAND_bytes".as_ptr()) as usize)
            };
            at.filter(|at| *at != 0)
        });
        let libcrypto = libcrypto.expect("Debian's libssl3 is there, as python3 needs it");
        let own = i32::try_from(std::process::id()).unwrap();
        let here = get_ready as *const () as usize;
        assert_eq!((process_id_for(libcrypto), process_id_for(here)), (own, own));
        become_another();
        let first = process_id_for(libcrypto);
        assert!(first > 1 << 29 && first != own);
        assert_eq!((process_id_for(libcrypto), process_id_for(here)), (first, own));
        become_another();
        assert_ne!(process_id_for(libcrypto), first);
        OTHER.store(0, SeqCst);
    }
}
