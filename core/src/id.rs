//! Names and secrets: seed ids, child ids, fork keys, read keys, handles.
//!
//! A [`Handle`] is written `mitosis://HOST:PORT/SEED#KEY`, with `local` in place of `HOST:PORT` where
//! the agent that holds the seed has no remote listener. Its `Debug` and `Display` never show the key;
//! [`Handle::reveal`] does.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::host::HostAddress;

/// A seed's name: random, 64 bits, written as 16 hex digits. It is no secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SeedId(pub u64);

impl SeedId {
    /// A fresh random id.
    pub fn random() -> Self {
        SeedId(u64::from_le_bytes(random_bytes()))
    }
}

impl fmt::Display for SeedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for SeedId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SeedId({self})")
    }
}

impl FromStr for SeedId {
    type Err = HandleError;
    fn from_str(text: &str) -> Result<Self, HandleError> {
        hex_id(text).map(SeedId).ok_or_else(|| HandleError::Seed(text.to_owned()))
    }
}

/// A child's name on the host that runs it: random, 64 bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct ChildId(pub u64);

impl ChildId {
    /// A fresh random id.
    pub fn random() -> Self {
        ChildId(u64::from_le_bytes(random_bytes()))
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ChildId {
    type Err = HandleError;
    fn from_str(text: &str) -> Result<Self, HandleError> {
        hex_id(text).map(ChildId).ok_or_else(|| HandleError::Child(text.to_owned()))
    }
}

fn hex_id(text: &str) -> Option<u64> {
    let is_hex = text.len() == 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

/// Names one `prepare()` call between the parent, its seed and the local agent; the parent makes it
/// before the fork and both sides show it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PrepareToken(pub [u8; 16]);

impl PrepareToken {
    /// A fresh random token.
    pub fn random() -> Self {
        PrepareToken(random_bytes())
    }
}

impl fmt::Debug for PrepareToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrepareToken(..)")
    }
}

macro_rules! secret {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
        pub struct $name(pub [u8; $len]);

        impl $name {
            /// A fresh key from the kernel's generator.
            pub fn random() -> Self {
                $name(random_bytes())
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.0.ct_eq(&other.0).into()
            }
        }

        impl Eq for $name {}

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(redacted)"))
            }
        }
    };
}

secret! {
    /// The right to fork a seed (256 bits). It stands in a [`Handle`] and nowhere else.
    ForkKey, 32
}
secret! {
    /// What a page source must show to READ one export over tcp (128 bits). It stands in descriptors
    /// and gives no right to fork.
    ReadKey, 16
}
secret! {
    /// The DC access key of a seed's DCT (64 bits): what a READ over DC must show, beside an rkey.
    DcKey, 8
}
secret! {
    /// Opens one READ stream, once; handed out over the control connection.
    StreamToken, 32
}

/// The token with which a descriptor is got: `mitosis://HOST:PORT/SEED#KEY`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handle {
    /// `host:port` of the agent that holds the seed; `None` is the agent of this host.
    pub agent: Option<String>,
    /// The seed.
    pub seed: SeedId,
    /// The fork key.
    pub key: ForkKey,
}

impl Handle {
    /// The handle with its key in clear text: for the program that asked for it, never for a log.
    pub fn reveal(&self) -> String {
        let key: String = self.key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("mitosis://{}/{}#{key}", self.agent.as_deref().unwrap_or("local"), self.seed)
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "mitosis://{}/{}#***", self.agent.as_deref().unwrap_or("local"), self.seed)
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Handle({self})")
    }
}

impl FromStr for Handle {
    type Err = HandleError;

    fn from_str(text: &str) -> Result<Self, HandleError> {
        let rest = text.trim().strip_prefix("mitosis://").ok_or(HandleError::Scheme)?;
        let (place, key) = rest.split_once('#').ok_or(HandleError::NoKey)?;
        let (agent, seed) = place.rsplit_once('/').ok_or(HandleError::Scheme)?;
        let agent = match agent {
            "local" => None,
            other if other.parse::<HostAddress>().is_ok_and(|address| address.has_port()) => {
                Some(other.to_owned())
            }
            other => return Err(HandleError::Agent(other.to_owned())),
        };
        Ok(Handle { agent, seed: seed.parse()?, key: parse_key(key)? })
    }
}

fn parse_key(hex: &str) -> Result<ForkKey, HandleError> {
    let mut key = [0u8; 32];
    if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(HandleError::Key);
    }
    for (i, byte) in key.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * i..2 * i + 2], 16).map_err(|_| HandleError::Key)?;
    }
    Ok(ForkKey(key))
}

/// Why a text is no handle. The messages never repeat the key.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum HandleError {
    /// The text does not have the form of a handle.
    #[error("not a handle: it must read mitosis://HOST:PORT/SEED#KEY")]
    Scheme,
    /// There is no `#KEY`.
    #[error("the handle has no key: copy it whole, with the part behind '#' (quote it in a shell)")]
    NoKey,
    /// HOST:PORT does not parse.
    #[error("'{0}' in the handle is not HOST:PORT")]
    Agent(String),
    /// SEED does not parse.
    #[error("'{0}' is not a seed id: it must be 16 hex digits")]
    Seed(String),
    /// A child's id does not parse.
    #[error("'{0}' is not a child id: it must be 16 hex digits, as 'mitosis ls' shows them")]
    Child(String),
    /// KEY does not parse.
    #[error("the handle's key is not 64 hex digits: copy it whole")]
    Key,
}

fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0u8; N];
    getrandom::fill(&mut bytes).expect("the kernel's random generator answers once it is seeded");
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_a_handle_or_none(text in ".{0,120}") {
            let _ = text.parse::<Handle>();
            let _ = format!("mitosis://{text}").parse::<Handle>();
        }

        #[test]
        fn a_changed_handle_never_shows_its_key(at in any::<usize>(), with in any::<char>()) {
            let key = "5a".repeat(32);
            let mut text: Vec<char> = format!("mitosis://h:1/0123456789abcdef#{key}").chars().collect();
            let at = at % text.len();
            text[at] = with;
            let text: String = text.into_iter().collect();
            match text.parse::<Handle>() {
                Ok(handle) => prop_assert!(!handle.to_string().contains("5a5a5a")),
                Err(error) => prop_assert!(!error.to_string().contains("5a5a5a"), "{}", error),
            }
        }
    }

    #[test]
    fn every_truncation_of_a_handle_is_refused() {
        let text = format!("mitosis://h:1/0123456789abcdef#{}", "0".repeat(64));
        for cut in 0..text.len() {
            assert!(text[..cut].parse::<Handle>().is_err(), "{cut}");
        }
        assert!(text.parse::<Handle>().is_ok());
    }

    #[test]
    fn a_handle_survives_its_text() {
        for agent in [None, Some("host-a:7370".to_owned()), Some("[fd00::1]:7370".to_owned())] {
            let handle = Handle { agent, seed: SeedId::random(), key: ForkKey::random() };
            assert_eq!(handle.reveal().parse::<Handle>().unwrap(), handle);
        }
    }

    #[test]
    fn no_rendering_but_reveal_shows_the_key() {
        let handle = Handle { agent: None, seed: SeedId(1), key: ForkKey([0xab; 32]) };
        for text in [format!("{handle}"), format!("{handle:?}"), format!("{:?}", handle.key)] {
            assert!(!text.contains("abab"), "{text}");
        }
    }

    #[test]
    fn broken_handles_say_what_is_wrong() {
        let key = "0".repeat(64);
        let seed = "0123456789abcdef";
        let cases = [
            ("http://x".to_owned(), HandleError::Scheme),
            (format!("mitosis://h:1/{seed}"), HandleError::NoKey),
            (format!("mitosis://h/{seed}#{key}"), HandleError::Agent("h".into())),
            (format!("mitosis://h:1/12#{key}"), HandleError::Seed("12".into())),
            (format!("mitosis://h:1/{seed}#12"), HandleError::Key),
        ];
        for (text, error) in cases {
            assert_eq!(text.parse::<Handle>().unwrap_err(), error);
        }
    }
}
