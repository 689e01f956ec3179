//! The preload library: that it is there, and that programs of this host can load it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::Check;

const NAME: &str = "preload library";
/// Dynamically linked on every host, and without a word to say.
const PROGRAM: &str = "true";

/// What there is.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Where it is, or why it is not found.
    pub library: Result<PathBuf, String>,
    /// What the dynamic linker says of it; nothing where it loads.
    pub complaint: String,
}

impl Facts {
    /// Of this host.
    pub fn gather() -> Self {
        let named = std::env::var_os("MITOSIS_PRELOAD").filter(|named| !named.is_empty());
        let named = named.map(PathBuf::from);
        let library = crate::run::find_library(named.as_deref()).map_err(|error| error.to_string());
        let complaint = library.as_ref().map(complaint).unwrap_or_default();
        Self { library, complaint }
    }
}

fn complaint(library: &PathBuf) -> String {
    let mut program = Command::new(PROGRAM);
    program.env("LD_PRELOAD", library).stdin(Stdio::null());
    match program.output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stderr).trim().to_owned()
        }
        Ok(output) => format!("'{PROGRAM}' with it ends with {}", output.status),
        Err(error) => format!("'{PROGRAM}' does not start: {error}"),
    }
}

/// How it stands.
pub fn judge(facts: &Facts) -> Vec<Check> {
    vec![match &facts.library {
        Err(why) => {
            let (what, remedy) = why.split_once(": ").unwrap_or((why, "install it"));
            let found = format!("{what}; 'mitosis run' and 'mitosis prepare' need it");
            Check::lacking(NAME, found, remedy)
        }
        Ok(library) if !facts.complaint.is_empty() => Check::lacking(
            NAME,
            format!("{} does not load: {}", library.display(), facts.complaint),
            "build it for this host's libc (glibc 2.35 or later)",
        ),
        Ok(library) => Check::fine(NAME, library.display().to_string()),
    }]
}

#[cfg(test)]
mod tests {
    use super::super::Standing;
    use super::*;

    #[test]
    fn a_library_is_fine_missing_or_of_no_use() {
        let good = Facts { library: Ok("/x/lib.so".into()), complaint: String::new() };
        assert_eq!(judge(&good), [Check::fine(NAME, "/x/lib.so")]);
        let none =
            Facts { library: Err("there is none in /x: install it".to_owned()), ..good.clone() };
        let check = judge(&none).remove(0);
        assert_eq!(check.standing, Standing::Lacking);
        assert_eq!(check.remedy.as_deref(), Some("install it"));
        let bad = Facts { complaint: "wrong ELF class".to_owned(), ..good };
        assert!(judge(&bad).remove(0).finding.contains("does not load: wrong ELF class"));
    }

    #[test]
    fn what_is_no_library_is_complained_of() {
        assert_eq!(complaint(&"/nonexistent/library.so".into()).lines().count(), 1);
    }
}
