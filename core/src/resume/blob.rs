//! The restorer's image (see `core/restorer/main.rs`), as `build.rs` made it.

include!(concat!(env!("OUT_DIR"), "/restorer.rs"));

static IMAGE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/restorer.bin"));

/// The image: position independent, runs wherever it is mapped readable and executable.
pub fn text() -> &'static [u8] {
    IMAGE
}

/// Where the keeper's child enters it, from its first byte.
pub fn entry() -> u64 {
    ENTRY
}

/// Where patched call sites enter it, from its first byte.
pub fn stub_entry() -> u64 {
    STUB_ENTRY
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resume::abi::TEXT_LEN;

    #[test]
    fn the_image_fits_and_its_entries_are_inside() {
        let len = text().len() as u64;
        assert!(len <= TEXT_LEN && entry() < len && stub_entry() < len);
        assert_ne!(entry(), stub_entry());
    }
}
