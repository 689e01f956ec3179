//! READs of a fabric, measured: one process owns memory and serves it as an agent does, another READs it
//! through the fabric's own queue, as a pager does. `make bench` holds what is printed against its peers.
//!
//! ```text
//!   own ADDRESS BYTES        a seed's stand-in, a page service for it, and with `--rc` an arena on the card;
//!     [--rc [--dc] | --copy] [--busy-poll-us N] [--encrypt]   its copy without a card; prints where its side channel is, and serves until stdin ends
//!   read tcp|rc|dc SIDE         obeys the lines of stdin, each with a line of JSON (see `reader`)
//!     [--source ADDRESS]     the card's address on this side
//!   fill ADDRESS BYTES       copies a seed of as many bytes, as often as stdin says (see `fill`)
//! ```
#![deny(unsafe_code)]

mod device;
mod fill;
mod memory;
mod owner;
mod reader;
mod side;

use std::process::ExitCode;

use anyhow::{Context, Result, bail};

/// What a reader asks for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FabricName {
    Tcp,
    Rc,
    Dc,
}

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match obey(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("mitosis-reads: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn obey(words: &[&str]) -> Result<()> {
    match *words {
        ["hold", bytes] => memory::hold(bytes.parse().context("BYTES")?),
        ["own", address, bytes, ref options @ ..] => {
            let settings = owner::Settings {
                address: address.parse().context("ADDRESS")?,
                bytes: bytes.parse().context("BYTES")?,
                has_card: options.contains(&"--rc"),
                has_dc: options.contains(&"--dc"),
                is_copied: options.contains(&"--copy"),
                is_encrypted: options.contains(&"--encrypt"),
                busy_poll_us: value(options, "--busy-poll-us").map_or(Ok(0), str::parse)?,
            };
            owner::run(settings)
        }
        ["fill", address, bytes] => {
            fill::run(address.parse().context("ADDRESS")?, bytes.parse().context("BYTES")?)
        }
        ["read", fabric, side, ref options @ ..] => {
            let fabric = match fabric {
                "tcp" => FabricName::Tcp,
                "rc" => FabricName::Rc,
                "dc" => FabricName::Dc,
                _ => bail!("{fabric} is no fabric that is measured here: tcp, rc, dc"),
            };
            let source = value(options, "--source").map(str::parse).transpose()?;
            reader::run(fabric, side, source)
        }
        _ => bail!(
            "own ADDRESS BYTES [--rc [--dc] | --copy] [--busy-poll-us N] [--encrypt] | read tcp|rc|dc SIDE [--source ADDRESS] | fill ADDRESS BYTES"
        ),
    }
}

/// The word behind `name`.
fn value<'a>(options: &[&'a str], name: &str) -> Option<&'a str> {
    let at = options.iter().position(|option| *option == name)?;
    options.get(at + 1).copied()
}
