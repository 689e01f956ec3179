//! Prints the C header that the source of `capi` makes. `capi/check-header.sh` compares it with the one
//! that is checked in, `capi/check-header.sh --write` puts it there.
#![deny(unsafe_code)]

use std::io::Write;
use std::path::Path;

use anyhow::Context;

/// In the order of the header: what a reader asks first stands first.
const SOURCES: [&str; 8] = [
    "fork.rs",
    "seed.rs",
    "resume.rs",
    "resuming.rs",
    "child.rs",
    "resumed.rs",
    "hooks.rs",
    "error.rs",
];

fn main() -> anyhow::Result<()> {
    let capi = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let config = cbindgen::Config::from_file(capi.join("cbindgen.toml"))
        .map_err(|error| anyhow::anyhow!("capi/cbindgen.toml: {error}"))?;
    let builder = SOURCES.into_iter().fold(cbindgen::Builder::new(), |builder, source| {
        builder.with_src(capi.join("src").join(source))
    });
    let bindings = builder.with_config(config).generate().context("the source of capi")?;
    let mut header = Vec::new();
    bindings.write(&mut header);
    std::io::stdout().write_all(&header).context("stdout")?;
    Ok(())
}
