//! What a prepare does before it stops anybody, done ahead.

use std::path::Path;
use std::time::{Duration, Instant};
use std::{fmt, fs, io};

use super::{Freezer, Refusal};
use crate::prepare::{PrepareError, PrepareOptions, wake};

/// What a prepare does before it stops anybody, done ahead by any thread: most of it is reading smaps, which takes
/// some milliseconds of a process with a large heap. If memory is mapped otherwise when it is used, or
/// a tenth of a second has passed, it is read again.
pub struct Ahead {
    freezer: Freezer,
    /// In a child that was made since, it is nothing: what is shared with a seed here is a copy there.
    generation: u64,
    looked_at: Instant,
}

/// Memory that was unmapped and mapped again at the same place looks in maps as it did, though it may be marked
/// otherwise: that is not waited for.
const GOOD_FOR: Duration = Duration::from_millis(100);

impl fmt::Debug for Ahead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ahead").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Ahead {
    /// Looks at this process.
    pub(in crate::prepare) fn new(options: &PrepareOptions) -> Result<Self, PrepareError> {
        let looked_at = Instant::now();
        let mut freezer = Freezer::new(options)?;
        if let Err(unreadable) = freezer.map.scan() {
            return Err(freezer.error(Refusal::Map(unreadable), options.stop_threads));
        }
        // What /proc makes of each file when somebody looks is there then, and so is the memory of the report.
        freezer.look_at_files();
        Ok(Ahead { freezer, generation: wake::generation(), looked_at })
    }

    /// Whether all code in memory is of the program itself and of files that are `known`. What other code does
    /// to memory that is mapped already (marks, locks) until this is used would not be seen; code that is loaded
    /// meanwhile is.
    ///
    /// # Errors
    /// /proc/self/maps could not be read.
    pub fn has_only_code_of(&self, known: impl Fn(&Path) -> bool) -> io::Result<bool> {
        let program = fs::read_link("/proc/self/exe")?;
        let maps = fs::read_to_string("/proc/self/maps")?;
        Ok(code_files(&maps).all(|file| file == program || known(file)))
    }

    pub(super) fn still_of_use(mut self) -> Option<Freezer> {
        if self.looked_at.elapsed() > GOOD_FOR {
            self.freezer.map.forget();
        }
        (self.generation == wake::generation()).then_some(self.freezer)
    }
}

/// Files that are mapped as code, by the text of proc_pid_maps(5).
fn code_files(maps: &str) -> impl Iterator<Item = &Path> {
    let file = |line| {
        let mut fields = str::splitn(line, 6, ' ');
        let perms = fields.nth(1)?.as_bytes();
        let name = fields.nth(3)?.trim_start();
        (perms.get(2) == Some(&b'x') && name.starts_with('/')).then_some(Path::new(name))
    };
    maps.lines().filter_map(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_is_what_may_be_executed_and_has_a_file() {
        let maps = "\
            00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/node\n\
            00651000-00652000 r--p 00051000 08:02 173521      /usr/bin/node\n\
            7f0000000000-7f0000001000 r-xp 00000000 00:00 0 \n\
            7f0000002000-7f0000003000 r-xp 00002000 08:02 9 /lib/a b.so (deleted)\n\
            7f0000004000-7f0000005000 rwxp 00000000 00:01 7 /memfd:jit (deleted)\n\
            7fff00000000-7fff00001000 r-xp 00000000 00:00 0 [vdso]\n";
        let files: Vec<_> = code_files(maps).collect();
        let expected = ["/usr/bin/node", "/lib/a b.so (deleted)", "/memfd:jit (deleted)"];
        assert_eq!(files, expected.map(Path::new));
    }
}
