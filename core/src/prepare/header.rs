//! The bytes before a report in its frame: what `wire::frame::encode(&LocalRequest::Report { .. })`
//! puts there, written without allocation.

use crate::id::PrepareToken;

/// Room for a frame's length, the variant's index, the token and the report's length.
pub(super) const MAX_HEADER_BYTES: usize = 4 + 1 + 16 + 5;

/// Index of `LocalRequest::Report`.
const VARIANT: u8 = 0;

/// Writes the header so that it ends with `room`; returns where it starts.
pub(super) fn write(
    room: &mut [u8; MAX_HEADER_BYTES],
    token: &PrepareToken,
    report_bytes: u32,
) -> usize {
    let mut varint = [0u8; 5];
    let mut used = 0;
    let mut left = report_bytes;
    loop {
        let more = if left >= 0x80 { 0x80 } else { 0 };
        varint[used] = (left & 0x7f) as u8 | more;
        used += 1;
        left >>= 7;
        if left == 0 {
            break;
        }
    }
    let start = varint.len() - used;
    let fixed = u32::try_from(MAX_HEADER_BYTES - start - 4).unwrap_or(0);
    let body = fixed.wrapping_add(report_bytes);
    let header = &mut room[start..];
    header[..4].copy_from_slice(&body.to_le_bytes());
    header[4] = VARIANT;
    header[5..21].copy_from_slice(&token.0);
    header[21..].copy_from_slice(&varint[..used]);
    start
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame;
    use crate::wire::local::LocalRequest;

    #[test]
    fn header_and_report_are_what_the_codec_writes() {
        for len in [0usize, 1, 127, 128, 16_383, 16_384, 70_000, 1 << 20, 3 << 20] {
            let report: Vec<u8> = (0u8..=250).cycle().take(len).collect();
            let token = PrepareToken::random();
            let mut room = [0u8; MAX_HEADER_BYTES];
            let start = write(&mut room, &token, u32::try_from(len).unwrap());
            let mut ours = room[start..].to_vec();
            ours.extend_from_slice(&report);
            let theirs = frame::encode(&LocalRequest::Report { token, report }).unwrap();
            assert!(ours == theirs, "{len}");
        }
    }
}
