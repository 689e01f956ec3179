//! Where children of a seed listen: by default nowhere, for a child must not take a port that nobody gave it.
//!
//! ```text
//! all                 each socket where the seed's listened
//! 8080                the one on port 8080, there
//! 8080=9090           the one on port 8080, on 9090
//! unix:/a             the one at the path /a, there
//! unix:/a=/b          the one at the path /a, at /b
//! ```

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Choices that one resume may make: more sockets go to no child.
pub const MAX_CHOICES: usize = 36;
/// A `sockaddr_un` has no longer path.
const MAX_UNIX_PATH: usize = 107;

/// One choice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Listen {
    /// Each where it was.
    All,
    /// TCP sockets of one port.
    Port {
        /// The seed's.
        was: u16,
        /// The child's; 0: the kernel chooses.
        now: u16,
    },
    /// A unix socket.
    Unix {
        /// The seed's path.
        was: String,
        /// The child's.
        now: String,
    },
}

/// Why a text is no choice.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' does not say where to listen: give all, PORT, PORT=PORT, unix:/PATH or unix:/PATH=/PATH"
)]
pub struct ListenError(String);

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let bad = || ListenError(text.chars().take(200).collect());
        if text == "all" {
            return Ok(Listen::All);
        }
        if let Some(paths) = text.strip_prefix("unix:") {
            let (was, now) = paths.split_once('=').unwrap_or((paths, paths));
            let is_path = |path: &str| {
                path.starts_with('/') && path.len() <= MAX_UNIX_PATH && !path.contains('\0')
            };
            return match is_path(was) && is_path(now) {
                true => Ok(Listen::Unix { was: was.to_owned(), now: now.to_owned() }),
                false => Err(bad()),
            };
        }
        let (was, now) = text.split_once('=').unwrap_or((text, text));
        let port = |text: &str| text.parse::<u16>().map_err(|_| bad());
        match (port(was)?, port(now)?) {
            (0, _) => Err(bad()),
            (was, now) => Ok(Listen::Port { was, now }),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::All => f.write_str("all"),
            Listen::Port { was, now } if was == now => write!(f, "{was}"),
            Listen::Port { was, now } => write!(f, "{was}={now}"),
            Listen::Unix { was, now } if was == now => write!(f, "unix:{was}"),
            Listen::Unix { was, now } => write!(f, "unix:{was}={now}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_back_and_others_are_refused() {
        for text in ["all", "8080", "8080=9090", "8080=0", "unix:/a", "unix:/a=/b"] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        assert_eq!("80=80".parse::<Listen>().unwrap(), Listen::Port { was: 80, now: 80 });
        let long = format!("unix:/{}", "x".repeat(MAX_UNIX_PATH));
        assert!(long[..long.len() - 1].parse::<Listen>().is_ok());
        for text in ["", "0", "0=80", "65536", "8080=", "unix:", "unix:a", "unix:/a=", "ALL", &long]
        {
            let error = text.parse::<Listen>().unwrap_err().to_string();
            assert!(error.contains("PORT=PORT"), "{error}");
        }
    }
}
