//! Where libmitosis_preload.so is.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// Names its file.
pub const VARIABLE: &str = "MITOSIS_PRELOAD";
const NAME: &str = "libmitosis_preload.so";

/// The library: as named, else beside this program, else in the lib folder beside its folder.
pub fn find(named: Option<&Path>) -> anyhow::Result<PathBuf> {
    let exe = std::env::current_exe().context("/proc/self/exe")?;
    choose(named, &exe)
}

fn choose(named: Option<&Path>, exe: &Path) -> anyhow::Result<PathBuf> {
    let folder = exe.parent().unwrap_or(Path::new("/"));
    let places = [folder.join(NAME), folder.join("../lib").join(NAME)];
    let found = match named {
        Some(named) if named.is_file() => named.to_owned(),
        Some(named) => {
            bail!("there is no preload library {} ({VARIABLE}, --preload)", named.display())
        }
        None => match places.iter().find(|place| place.is_file()) {
            Some(place) => place.clone(),
            None => bail!(
                "there is no {NAME} in {0} or {0}/../lib: install it beside this program, or name it by --preload \
                 or {VARIABLE}",
                folder.display()
            ),
        },
    };
    let found = found.canonicalize().with_context(|| found.display().to_string())?;
    // The dynamic linker takes both for separators.
    if found.as_os_str().as_encoded_bytes().iter().any(|byte| b": ".contains(byte)) {
        bail!("LD_PRELOAD cannot name {}: it has a space or a colon; move it", found.display());
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn it_is_found_beside_the_program_or_where_it_is_said_to_be() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        fs::create_dir_all(folder.join("bin")).unwrap();
        fs::create_dir_all(folder.join("lib")).unwrap();
        let exe = folder.join("bin/mitosis");
        let none = choose(None, &exe).unwrap_err().to_string();
        assert!(none.contains("install it beside this program"), "{none}");
        for place in ["lib", "bin"] {
            fs::write(folder.join(place).join(NAME), "").unwrap();
            assert_eq!(choose(None, &exe).unwrap(), folder.join(place).join(NAME));
        }
        let named = folder.join("other.so");
        assert!(
            choose(Some(&named), &exe).unwrap_err().to_string().contains("there is no preload")
        );
        fs::write(&named, "").unwrap();
        assert_eq!(choose(Some(&named), &exe).unwrap(), named);
        let spaced = folder.join("o ther.so");
        fs::write(&spaced, "").unwrap();
        assert!(
            choose(Some(&spaced), &exe).unwrap_err().to_string().contains("a space or a colon")
        );
    }
}
