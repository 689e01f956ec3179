//! Steps of a fork at which a test can halt it, to have something fail just there.
//!
//! In builds with debug assertions alone, and only where `MITOSIS_TEST_HALT` names a folder: whoever comes to a step while
//! the folder has a file of its name makes `NAME.reached` there, and goes on when the file is gone.
//!
//! ```text
//!  test    makes template      waits for template.reached, kills or cuts something   removes template
//!  agent   .................... makes template.reached, stands ........................ goes on
//! ```

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

/// How often it is looked whether the file is gone.
const PAUSE: Duration = Duration::from_millis(1);

/// The steps, in a fork's order.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    /// The seed's agent has a report, and makes the descriptor of it.
    Publish,
    /// The seed's agent has been asked for the descriptor.
    Descriptor,
    /// The seed's agent has been asked to push.
    Push,
    /// The image is there; the template is next.
    Template,
    /// The template is there; whoever watches the seed's lease is next.
    Lease,
    /// That is there; a child is next.
    Child,
    /// The seed's agent has been asked for pages.
    Miss,
    /// A child has ended, and nobody has been told.
    Exit,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Publish => "publish",
            Step::Descriptor => "descriptor",
            Step::Push => "push",
            Step::Template => "template",
            Step::Lease => "lease",
            Step::Child => "child",
            Step::Miss => "miss",
            Step::Exit => "exit",
        }
    }
}

/// Stands here if a test wants that.
#[inline]
pub(crate) fn at(step: Step) {
    if cfg!(debug_assertions) {
        static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
        let folder =
            FOLDER.get_or_init(|| std::env::var_os("MITOSIS_TEST_HALT").map(PathBuf::from));
        if let Some(folder) = folder {
            stand(folder, step);
        }
    }
}

fn stand(folder: &Path, step: Step) {
    let asked = folder.join(step.name());
    if asked.exists() && File::create(asked.with_extension("reached")).is_ok() {
        while asked.exists() {
            std::thread::sleep(PAUSE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stands_while_the_file_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let asked = folder.path().join("push");
        stand(folder.path(), Step::Push);
        assert!(!folder.path().join("push.reached").exists(), "nobody asked");
        File::create(&asked).unwrap();
        std::thread::scope(|scope| {
            let standing = scope.spawn(|| stand(folder.path(), Step::Push));
            while !folder.path().join("push.reached").exists() {
                std::thread::sleep(PAUSE);
            }
            assert!(!standing.is_finished());
            stand(folder.path(), Step::Exit);
            std::fs::remove_file(&asked).unwrap();
        });
    }
}
