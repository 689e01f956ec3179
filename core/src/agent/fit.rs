//! Whether this host can run a descriptor: said before anything is built.

use std::path::Path;

use super::failure::fail;
use crate::describe;
use crate::descriptor::{Descriptor, HostNeeds};
use crate::sys::arch;
use crate::wire::local::{Failure, FailureKind};

/// Refuses a descriptor that this host cannot run.
///
/// # Errors
/// What the host lacks.
pub fn check(descriptor: &Descriptor) -> Result<(), Failure> {
    let here = arch::cpu();
    let page_size = describe::page_size();
    if descriptor.page_size() != page_size {
        let text =
            format!("its pages have {} bytes, this host's {page_size}", descriptor.page_size());
        return Err(unfit(descriptor, &text));
    }
    if let Some(root) = descriptor.root.as_ref().filter(|root| !Path::new(root).is_dir()) {
        let text = format!(
            "its root directory (chroot(2)) is {root}, which is no directory here: make it what it is on the \
             seed's host"
        );
        return Err(unfit(descriptor, &text));
    }
    compare(&descriptor.needs, &here).map_err(|text| unfit(descriptor, &text))
}

fn unfit(descriptor: &Descriptor, text: &str) -> Failure {
    let text = format!("seed {} cannot run on this host: {text}", descriptor.seed);
    fail(FailureKind::HostUnfit, text)
}

fn compare(needs: &HostNeeds, here: &HostNeeds) -> Result<(), String> {
    if needs.machine != here.machine {
        let (needs, here) = (needs.machine, here.machine);
        return Err(format!(
            "it is a program for ELF machine {needs}, this host is machine {here}"
        ));
    }
    let lacking: u32 = needs
        .cpu_features
        .iter()
        .zip(here.cpu_features.iter().chain(std::iter::repeat(&0)))
        .map(|(needed, have)| (needed & !have).count_ones())
        .sum();
    if lacking > 0 {
        return Err(format!(
            "this CPU lacks {lacking} feature(s) that the seed's libraries may have chosen their code by: \
             prepare it on the oldest CPU of the fleet"
        ));
    }
    if needs.xcr0 & !here.xcr0 != 0 || needs.xsave_size > here.xsave_size {
        return Err(format!(
            "its vector state (XCR0 {:#x}, {} bytes) is larger than this host's (XCR0 {:#x}, {} bytes)",
            needs.xcr0, needs.xsave_size, here.xcr0, here.xsave_size
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostNeeds {
        HostNeeds {
            machine: 62,
            cpu_features: vec![0b111],
            xcr0: 7,
            xsave_size: 832,
            vdso: [1; 32],
            kernel: "6.1".to_owned(),
        }
    }

    #[test]
    fn a_host_runs_its_own_seeds() {
        assert_eq!(compare(&host(), &host()), Ok(()));
        let older = HostNeeds { cpu_features: vec![0b011], xcr0: 3, xsave_size: 576, ..host() };
        assert_eq!(compare(&older, &host()), Ok(()));
        let newer = HostNeeds { vdso: [2; 32], kernel: "6.12".to_owned(), ..host() };
        assert_eq!(compare(&newer, &host()), Ok(()), "its vDSO leads to this host's");
    }

    #[test]
    fn pages_of_another_size_are_named() {
        let mut descriptor = crate::resume::compile::tests::descriptor();
        descriptor.page_shift = if describe::page_size() == 1 << 14 { 12 } else { 14 };
        let failure = check(&descriptor).unwrap_err();
        assert_eq!(failure.kind, FailureKind::HostUnfit);
        let size = format!("its pages have {} bytes", descriptor.page_size());
        assert!(failure.message.contains(&size), "{failure}");
    }

    #[test]
    fn a_root_that_is_not_here_is_named() {
        let mut descriptor = crate::resume::compile::tests::descriptor();
        descriptor.root = Some("/no/such/jail".to_owned());
        let failure = check(&descriptor).unwrap_err();
        assert!(failure.message.contains("/no/such/jail, which is no directory"), "{failure}");
    }

    #[test]
    fn each_lack_is_named() {
        let cases = [
            (HostNeeds { machine: 183, ..host() }, "ELF machine"),
            (HostNeeds { cpu_features: vec![0b1111], ..host() }, "lacks 1 feature"),
            (HostNeeds { cpu_features: vec![0, 1], ..host() }, "lacks 1 feature"),
            (HostNeeds { xcr0: 0xff, ..host() }, "vector state"),
            (HostNeeds { xsave_size: 2696, ..host() }, "vector state"),
        ];
        for (needs, word) in cases {
            assert!(compare(&needs, &host()).unwrap_err().contains(word), "{word}");
        }
    }
}
