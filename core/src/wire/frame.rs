//! Frames: `u32 length` (little-endian, of what follows) and a postcard body.

use std::io::{self, Read, Write};

use serde::{Serialize, de::DeserializeOwned};

/// A frame's body is never longer: a report of 1 MiB or a descriptor of 4 MiB with room to spare.
pub const MAX_FRAME_BYTES: usize = 8 << 20;
/// Room that a frame's body is given before any of it is there: most are shorter.
const FIRST_BODY_BYTES: usize = 64 << 10;

/// Why a frame was not read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The other side closed the connection at a frame's beginning.
    #[error("the connection was closed")]
    Closed,
    /// The length is above the limit.
    #[error("a message of {0} bytes exceeds the limit of {MAX_FRAME_BYTES} bytes")]
    TooLong(usize),
    /// The body is not a message of this version.
    #[error("a message does not parse; both sides must run the same version of mitosis ({0})")]
    Malformed(postcard::Error),
    /// The socket failed.
    #[error("the connection failed: {0}")]
    Io(#[from] io::Error),
}

/// Encodes `message` as a frame.
///
/// # Errors
/// A message above [`MAX_FRAME_BYTES`].
pub fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut bytes = postcard::to_extend(message, vec![0u8; 4]).map_err(FrameError::Malformed)?;
    let body = bytes.len() - 4;
    let len = u32::try_from(body).ok().filter(|_| body <= MAX_FRAME_BYTES);
    bytes[..4].copy_from_slice(&len.ok_or(FrameError::TooLong(body))?.to_le_bytes());
    Ok(bytes)
}

/// Parses a frame's body.
///
/// # Errors
/// Bytes that are not exactly one message.
pub fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    match postcard::take_from_bytes(body) {
        Ok((message, [])) => Ok(message),
        Ok(_) => Err(FrameError::Malformed(postcard::Error::DeserializeBadEncoding)),
        Err(error) => Err(FrameError::Malformed(error)),
    }
}

/// Writes one frame.
///
/// # Errors
/// See [`FrameError`].
pub fn write<M: Serialize>(stream: &mut impl Write, message: &M) -> Result<(), FrameError> {
    Ok(stream.write_all(&encode(message)?)?)
}

/// Reads one frame.
///
/// # Errors
/// See [`FrameError`]; `Closed` only between frames.
pub fn read<M: DeserializeOwned>(stream: &mut impl Read) -> Result<M, FrameError> {
    let mut len = [0u8; 4];
    // A stopped and continued process sees EINTR on a socket with a timeout, without any handler.
    let got = loop {
        match stream.read(&mut len) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            got => break got?,
        }
    };
    match got {
        0 => return Err(FrameError::Closed),
        got => stream.read_exact(&mut len[got..])?,
    }
    decode(&read_body(stream, len)?)
}

/// Reads the body of a frame whose length bytes are `len`.
///
/// # Errors
/// See [`FrameError`].
pub fn read_body(stream: &mut impl Read, len: [u8; 4]) -> Result<Vec<u8>, FrameError> {
    let len = u32::from_le_bytes(len) as usize;
    if len > MAX_FRAME_BYTES {
        return Err(FrameError::TooLong(len));
    }
    // It grows as bytes come: whoever only says that a frame is long has no memory of ours.
    let mut body = Vec::with_capacity(len.min(FIRST_BODY_BYTES));
    if stream.by_ref().take(len as u64).read_to_end(&mut body)? < len {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_comes_back() {
        let mut bytes = Vec::new();
        write(&mut bytes, &("seed", 7u32)).unwrap();
        let back: (String, u32) = read(&mut bytes.as_slice()).unwrap();
        assert_eq!(back, ("seed".to_owned(), 7));
    }

    #[test]
    fn limits_hold_on_both_sides() {
        assert!(encode(&vec![0u8; MAX_FRAME_BYTES - 8]).is_ok());
        assert!(matches!(encode(&vec![0u8; MAX_FRAME_BYTES + 1]), Err(FrameError::TooLong(_))));
        let hostile = u32::MAX.to_le_bytes();
        assert!(matches!(read::<u8>(&mut hostile.as_slice()), Err(FrameError::TooLong(_))));
    }

    #[test]
    fn a_body_comes_whole_or_not_at_all() {
        let len = u32::try_from(MAX_FRAME_BYTES).unwrap();
        let got = read_body(&mut &[7u8; 1000][..], len.to_le_bytes());
        assert!(
            matches!(got, Err(FrameError::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof)
        );
        let whole = vec![7u8; 4 * FIRST_BODY_BYTES];
        let len = u32::try_from(whole.len()).unwrap();
        let mut behind = &[&whole[..], b"next"].concat()[..];
        assert_eq!(read_body(&mut behind, len.to_le_bytes()).unwrap(), whole);
        assert_eq!(behind, b"next");
    }

    #[test]
    fn trailing_bytes_and_cuts_are_errors() {
        let whole = encode(&(1u32, 2u32)).unwrap();
        assert!(matches!(decode::<u32>(&whole[4..]), Err(FrameError::Malformed(_))));
        let cut = &whole[..whole.len() - 1];
        assert!(matches!(read::<(u32, u32)>(&mut &cut[..]), Err(FrameError::Io(_))));
        assert!(matches!(read::<u32>(&mut &[][..]), Err(FrameError::Closed)));
    }
}
