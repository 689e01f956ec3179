//! Shadow stacks: where each call returns to stands there a second time, and nobody but calls may write that.

use super::DescribeError;
use super::smaps::SmapsEntry;
use crate::descriptor::VmaFlags;

/// # Errors
/// `Refused`, with its place.
pub(super) fn refuse(entries: &[SmapsEntry<'_>]) -> Result<(), DescribeError> {
    let mut shadows = entries.iter().filter(|entry| entry.flags.has(VmaFlags::SHADOW_STACK));
    match shadows.next() {
        None => Ok(()),
        Some(SmapsEntry { range, .. }) => Err(DescribeError::Refused(format!(
            "memory at {range} is a shadow stack, which is not carried: run the program without \
             (GLIBC_TUNABLES=glibc.cpu.x86_shstk=off)"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::super::smaps::parse;
    use super::*;

    #[test]
    fn a_shadow_stack_is_refused_by_its_place() {
        let with = |flags: &str| {
            format!("7f0000000000-7f0000001000 rw-p 00000000 00:00 0 \nVmFlags: rd wr {flags}\n")
        };
        assert!(refuse(&parse(&with("mg nr"))).is_ok());
        let refused = refuse(&parse(&with("ss nr"))).unwrap_err();
        assert!(refused.to_string().starts_with("memory at 7f0000000000-"), "{refused}");
    }
}
