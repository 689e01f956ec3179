//! `suite-mapped FILE` maps FILE shared and is prepared with its files carried. A child says what the memory holds and which files it has
//! lost, and writes its payload there.

use std::fs::File;
use std::os::fd::AsRawFd;

use mitosis::prepare::{Files, LossKind, PrepareOptions};
use mitosis_process_suite::{PAGE, fail, prepare_and_hold_with, say};

fn main() {
    let Some(path) = std::env::args().nth(1) else { fail(&"FILE") };
    let file = File::options().read(true).write(true).open(&path).unwrap_or_else(|e| fail(&e));
    // SAFETY: a new mapping, of which nothing is assumed.
    let area = unsafe {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        libc::mmap(std::ptr::null_mut(), PAGE, prot, libc::MAP_SHARED, file.as_raw_fd(), 0)
    };
    if area == libc::MAP_FAILED {
        fail(&std::io::Error::last_os_error());
    }
    drop(file);
    let resumed = prepare_and_hold_with(&PrepareOptions {
        files: Files::Carried,
        ..PrepareOptions::default()
    });
    let area = area.cast::<u8>();
    // SAFETY: inside of the mapping; others may write there, and volatile reads take what they find.
    let bytes: Vec<u8> = (0..PAGE).map(|at| unsafe { area.add(at).read_volatile() }).collect();
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(PAGE);
    say(&format!("found {}", String::from_utf8_lossy(&bytes[..end])));
    for loss in resumed.lost.iter().filter(|loss| loss.kind == LossKind::SharedFiles) {
        say(&format!("lost {} {}", loss.kind.name(), loss.was));
    }
    for (at, byte) in resumed.payload.iter().take(PAGE).enumerate() {
        // SAFETY: as above.
        unsafe { area.add(at).write_volatile(*byte) };
    }
    // SAFETY: the mapping's own page.
    if unsafe { libc::msync(area.cast(), PAGE, libc::MS_SYNC) } != 0 {
        fail(&std::io::Error::last_os_error());
    }
}
