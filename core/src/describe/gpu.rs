//! What computes on a GPU cannot be forked: half of its state lies in the device and its driver.

use super::DescribeError;
use super::smaps::SmapsEntry;
use crate::descriptor::OpenFile;

/// Devices that a process opens when it computes (CUDA, ROCm), and not when it only looks: nvidia-smi's library has
/// /dev/nvidiactl open.
const COMPUTES: [&str; 2] = ["/dev/nvidia-uvm", "/dev/kfd"];
/// Devices whose memory a process maps when it computes.
const MAPPED: [&str; 3] = ["/dev/nvidia", "/dev/kfd", "/dev/dri/"];

/// # Errors
/// `Refused`, with the device.
pub(super) fn refuse(entries: &[SmapsEntry<'_>], open: &[OpenFile]) -> Result<(), DescribeError> {
    let opened = open.iter().find(|file| COMPUTES.contains(&file.link.as_str()));
    let opened = opened.map(|file| format!("descriptor {} is {}", file.fd, file.link));
    let is_gpu = |name: &str| MAPPED.iter().any(|device| name.starts_with(device));
    let mapped = || {
        let entry = entries.iter().find(|entry| is_gpu(entry.name))?;
        Some(format!("{} is mapped at {:#x}", entry.name, entry.range.start.0))
    };
    match opened.or_else(mapped) {
        None => Ok(()),
        Some(what) => Err(DescribeError::Refused(format!(
            "this process computes on a GPU ({what}), whose memory and contexts cannot be forked: prepare it before \
             CUDA or ROCm is initialised, with the model in the memory of the CPU, and let each child initialise it"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::describe::smaps;

    fn refused(maps: &str, links: &[&str]) -> Option<String> {
        let open: Vec<OpenFile> = (3..)
            .zip(links)
            .map(|(fd, link)| OpenFile { fd, flags: 0, position: 0, link: (*link).to_owned() })
            .collect();
        refuse(&smaps::parse(maps), &open).err().map(|error| error.to_string())
    }

    #[test]
    fn who_computes_is_refused_and_who_looks_is_not() {
        let said = refused("", &["/dev/nvidiactl", "/dev/nvidia-uvm"]).unwrap();
        assert!(said.contains("GPU (descriptor 4 is /dev/nvidia-uvm)"), "{said}");
        assert!(refused("", &["/dev/kfd"]).is_some());
        assert_eq!(refused("", &["/dev/nvidiactl", "/dev/nvidia0", "/dev/dri/card0"]), None);
    }

    #[test]
    fn memory_of_a_gpu_is_named() {
        let maps = "7f0000000000-7f0000001000 rw-s 00000000 00:05 99 /dev/nvidia0\nRss: 4 kB\nVmFlags: rd wr sh io\n";
        let said = refused(maps, &[]).unwrap();
        assert!(said.contains("/dev/nvidia0 is mapped at 0x7f0000000000"), "{said}");
        let maps = maps.replace("/dev/nvidia0", "/dev/shm/x");
        assert_eq!(refused(&maps, &[]), None);
    }
}
