//! Which process of this host a seed is: its own /proc may be another than the agent's.

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;

use crate::prepare::proc_text::own_number;
use crate::sys::socket;

/// The process whose memory a descriptor of /proc/PID/mem is, which came over `connection`; 0 if unknown.
pub(super) fn of(mem: &File, connection: &UnixStream) -> u32 {
    let Some(number) = number_of(mem) else { return 0 };
    if is_of_this_proc(mem) {
        return number;
    }
    // The connection is the seed's parent's, which is in the same pid namespace.
    let parent = socket::peer(connection).map_or(0, |peer| peer.pid);
    inside_as(parent, number).unwrap_or(0)
}

/// As the /proc that it was opened in numbers it.
fn number_of(mem: &File) -> Option<u32> {
    let link = fs::read_link(format!("/proc/self/fd/{}", mem.as_raw_fd())).ok()?;
    let mut parts = link.to_str()?.rsplit('/');
    parts.find_map(|part| part.parse().ok())
}

fn is_of_this_proc(file: &File) -> bool {
    let device = |metadata: std::io::Result<fs::Metadata>| metadata.map(|it| it.dev()).ok();
    device(file.metadata()).is_some_and(|dev| Some(dev) == device(fs::metadata("/proc")))
}

/// The process that is called `number` in the pid namespace of process `neighbour`.
fn inside_as(neighbour: u32, number: u32) -> Option<u32> {
    let namespace = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
    let there = namespace(neighbour)?;
    let all = fs::read_dir("/proc").ok()?.flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut named = pids.filter(|pid| innermost_number(*pid) == Some(number));
    named.find(|pid| namespace(*pid).as_ref() == Some(&there))
}

/// What a process is called in its own pid namespace.
fn innermost_number(pid: u32) -> Option<u32> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    own_number(&status).and_then(|number| u32::try_from(number).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_found_by_its_memory_and_by_its_number() {
        let own = std::process::id();
        let (one, _other) = UnixStream::pair().unwrap();
        assert_eq!(of(&File::open("/proc/self/mem").unwrap(), &one), own);
        assert_eq!(of(&File::open("/dev/null").unwrap(), &one), 0);
        let inside = innermost_number(own).unwrap();
        assert_eq!(inside_as(own, inside), Some(own));
        assert_eq!(inside_as(own, u32::MAX), None);
    }
}
