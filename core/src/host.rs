//! A host as people write it: `host-b`, `host-b:7370`, `192.0.2.1`, `fd00::1`, `[fd00::1]:7370`.

use std::fmt;
use std::net::SocketAddrV6;
use std::str::FromStr;

/// The port that agents listen on unless told otherwise.
pub const DEFAULT_PORT: u16 = 7370;
/// RFC 1035's limit of a name.
const MAX_NAME_BYTES: usize = 253;

/// Where another agent listens. Its text is `name:port`, which resolves by getaddrinfo(3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// A name or an address; of IPv6 without brackets.
    name: String,
    port: Option<u16>,
}

impl HostAddress {
    /// Whether the port was written, too.
    pub fn has_port(&self) -> bool {
        self.port.is_some()
    }
}

impl FromStr for HostAddress {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let refused = || HostError(text.to_owned());
        let (name, port) = if is_v6(text) {
            (text, None)
        } else if let Some(rest) = text.strip_prefix('[') {
            let (name, behind) = rest.split_once(']').ok_or_else(refused)?;
            let port = match behind {
                "" => None,
                port => Some(port.strip_prefix(':').ok_or_else(refused)?),
            };
            (Some(name).filter(|name| is_v6(name)).ok_or_else(refused)?, port)
        } else {
            let (name, port) = match text.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (text, None),
            };
            (Some(name).filter(|name| is_name(name)).ok_or_else(refused)?, port)
        };
        let port = match port {
            None => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                let port = digits.parse::<u16>().ok().filter(|port| *port != 0);
                Some(port.ok_or_else(refused)?)
            }
            Some(_) => return Err(refused()),
        };
        Ok(HostAddress { name: name.to_owned(), port })
    }
}

fn is_v6(text: &str) -> bool {
    format!("[{text}]:1").parse::<SocketAddrV6>().is_ok()
}

fn is_name(text: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    (1..=MAX_NAME_BYTES).contains(&text.len())
        && text.bytes().all(is_part)
        && !text.starts_with(['-', '.'])
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, port) = (&self.name, self.port.unwrap_or(DEFAULT_PORT));
        match name.contains(':') {
            true => write!(f, "[{name}]:{port}"),
            false => write!(f, "{name}:{port}"),
        }
    }
}

/// A text that names no host.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' names no host: give NAME, NAME:PORT or [IPV6]:PORT, with a port from 1 to 65535")]
pub struct HostError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_port_is_the_default() {
        for (given, meant, has_port) in [
            ("host-b", "host-b:7370", false),
            ("host-b:99", "host-b:99", true),
            ("192.0.2.1", "192.0.2.1:7370", false),
            ("my_host.example.:65535", "my_host.example.:65535", true),
            ("[fd00::1]:99", "[fd00::1]:99", true),
            ("[fd00::1]", "[fd00::1]:7370", false),
            ("fd00::1", "[fd00::1]:7370", false),
        ] {
            let address: HostAddress = given.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.has_port()), (meant, has_port));
        }
    }

    #[test]
    fn what_names_no_host_is_refused_by_its_text() {
        let long = "h".repeat(MAX_NAME_BYTES + 1);
        for bad in [
            "",
            " ",
            "host-b:99999",
            "host-b:0",
            "host-b:",
            "host-b:abc",
            "host-b:+1",
            ":7370",
            "-h",
            "http://host-b",
            "host b",
            "h:1:2",
            "[fd00::1",
            "[fd00::1]x",
            "[fd00::1]:",
            "[host-b]:1",
            "h\u{e4}",
            &long,
        ] {
            let text = bad.parse::<HostAddress>().unwrap_err().to_string();
            assert!(text.contains(&format!("'{bad}'")) && text.contains("NAME:PORT"), "{text}");
        }
        let longest = "h".repeat(MAX_NAME_BYTES);
        assert!(longest.parse::<HostAddress>().is_ok());
    }
}
