//! Credentials of the calling thread, with raw system calls and without allocation.

use super::report::{ReportWriter, tag};
use crate::descriptor::credentials::{CAPABILITY_VERSION, KEEP_CAPS, capabilities_of};
use crate::sys::rawcall::rawcall;

const PR_CAPBSET_READ: i32 = 23;
/// Groups that threads are compared by: few processes have more, and the stack of a thread that stands is small.
const COMPARED_GROUPS: usize = 32;

/// Effective, permitted and inheritable.
#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Sets {
    low: [u32; 3],
    high: [u32; 3],
}

/// User and group ids: real, effective, saved, of file accesses.
fn ids() -> [[u32; 4]; 2] {
    let mut all = [[0u32; 4]; 2];
    let calls =
        [(libc::SYS_getresuid, libc::SYS_setfsuid), (libc::SYS_getresgid, libc::SYS_setfsgid)];
    for (place, (three, fourth)) in all.iter_mut().zip(calls) {
        let [real, effective, saved, _] = place.each_mut().map(|id| &raw mut *id);
        // SAFETY: three numbers are filled. The last call is refused for an id that is none, and tells what holds.
        let of_files = unsafe {
            rawcall!(three, real, effective, saved);
            rawcall!(fourth, u32::MAX)
        };
        place[3] = u32::try_from(of_files).unwrap_or(place[1]);
    }
    all
}

/// Effective, permitted and inheritable, each as one number.
fn capabilities() -> [u64; 3] {
    let header = [CAPABILITY_VERSION, 0];
    let mut sets = Sets::default();
    // SAFETY: the kernel reads the header and fills the sets.
    unsafe { rawcall!(libc::SYS_capget, header.as_ptr(), &raw mut sets) };
    std::array::from_fn(|at| u64::from(sets.low[at]) | u64::from(sets.high[at]) << 32)
}

fn secure_bits() -> u64 {
    // SAFETY: it takes numbers.
    let bits = unsafe { rawcall!(libc::SYS_prctl, libc::PR_GET_SECUREBITS, 0, 0, 0, 0) };
    u64::try_from(bits).unwrap_or(0) & !u64::from(KEEP_CAPS)
}

/// Those of the capabilities `of` for which this holds.
fn each_of(of: u64, mut holds: impl FnMut(u32) -> bool) -> u64 {
    capabilities_of(of).filter(|number| holds(*number)).fold(0, |set, number| set | 1 << number)
}

/// Ambient ones, which are among those that are both permitted and inheritable: mostly none has to be asked for.
fn ambient(permitted: u64, inheritable: u64) -> u64 {
    let asks = libc::PR_CAP_AMBIENT_IS_SET;
    each_of(permitted & inheritable, |number| {
        // SAFETY: it takes numbers.
        unsafe { rawcall!(libc::SYS_prctl, libc::PR_CAP_AMBIENT, asks, number, 0, 0) == 1 }
    })
}

/// The record.
pub(super) fn report(writer: &mut ReportWriter<'_>) {
    let [users, groups] = ids();
    let [effective, permitted, inheritable] = capabilities();
    let bounding = each_of(!0, |number| {
        // SAFETY: it takes numbers.
        unsafe { rawcall!(libc::SYS_prctl, PR_CAPBSET_READ, number, 0, 0, 0) == 1 }
    });
    let ambient = ambient(permitted, inheritable);
    let mut numbers = [0u64; 14];
    for (place, id) in numbers.iter_mut().zip(users.iter().chain(&groups)) {
        *place = u64::from(*id);
    }
    numbers[8..].copy_from_slice(&[
        inheritable,
        permitted,
        effective,
        bounding,
        ambient,
        secure_bits(),
    ]);
    writer.record_filled(tag::CREDENTIALS, &mut numbers, &mut |_, room| {
        // SAFETY: the kernel writes as many numbers as it is told that there is room for.
        let count = unsafe { rawcall!(libc::SYS_getgroups, room.len() / 4, room.as_mut_ptr()) };
        usize::try_from(count).unwrap_or(0) * 4
    });
}

/// A number that two threads share if their credentials are the same.
pub(super) fn digest() -> u64 {
    let mut list = [0u32; COMPARED_GROUPS];
    // SAFETY: the kernel writes as many numbers as it is told that there is room for; of more it tells how many.
    let count = unsafe {
        match rawcall!(libc::SYS_getgroups, list.len(), list.as_mut_ptr()) {
            count @ 0.. => count,
            _ => rawcall!(libc::SYS_getgroups, 0, 0),
        }
    };
    let ids = ids();
    let words = ids.iter().flatten().chain(&list).map(|id| u64::from(*id));
    let [effective, permitted, inheritable] = capabilities();
    let sets = [effective, permitted, inheritable, ambient(permitted, inheritable)];
    let words = words.chain(sets).chain([count.unsigned_abs() as u64, secure_bits()]);
    words.fold(0xcbf2_9ce4_8422_2325, |digest: u64, word| {
        (digest ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(23)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prepare::report;
    use crate::sys::credentials;

    #[test]
    fn a_thread_tells_what_proc_tells() {
        let mut buffer = [0u8; 4096];
        let mut writer = ReportWriter::new(&mut buffer);
        super::report(&mut writer);
        let len = writer.finish().unwrap();
        let told = report::parse(&buffer[..len]).unwrap().credentials.unwrap();
        assert_eq!(told, credentials::of(std::process::id()).unwrap());
        assert!(each_of(0b101, |_| true) == 0b101 && each_of(0b101, |number| number == 2) == 0b100);
    }

    #[test]
    fn threads_that_differ_are_told_apart() {
        let own = digest();
        assert_eq!(std::thread::spawn(digest).join().unwrap(), own);
        let other = std::thread::spawn(|| {
            let none = Sets::default();
            let header = [CAPABILITY_VERSION, 0];
            // SAFETY: capabilities are each thread's own; this one has none from here on.
            let (left, id) = unsafe {
                (rawcall!(libc::SYS_capset, header.as_ptr(), &raw const none), libc::geteuid())
            };
            (left, id, digest())
        });
        let (left, id, other) = other.join().unwrap();
        assert_eq!(left, 0);
        assert!(other != own || id != 0, "root without capabilities is another one");
        // One of inheritable capabilities, and one that has raised one of these to be ambient.
        let [without, with] = [false, true].map(|raises| {
            let raised = std::thread::spawn(move || {
                let mut sets = Sets::default();
                let header = [CAPABILITY_VERSION, 0];
                // SAFETY: capabilities are each thread's own.
                let answer = unsafe {
                    rawcall!(libc::SYS_capget, header.as_ptr(), &raw mut sets);
                    sets.low[2] |= 1;
                    let set = rawcall!(libc::SYS_capset, header.as_ptr(), &raw const sets);
                    let raise = libc::PR_CAP_AMBIENT_RAISE;
                    if raises {
                        rawcall!(libc::SYS_prctl, libc::PR_CAP_AMBIENT, raise, 0, 0, 0);
                    }
                    set
                };
                (answer, digest())
            });
            raised.join().unwrap()
        });
        assert!(with.1 != without.1 || id != 0, "{with:?} {without:?}");
    }
}
