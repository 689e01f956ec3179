//! The file of settings: lines of `name = value`, as the variable would hold it; what follows a `#` at a line's beginning
//! or after a space is for people.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// The host's own file.
pub const HOST_FILE: &str = "/etc/mitosis/mitosis.conf";
/// A longer file is no file of settings.
const MAX_BYTES: u64 = 64 << 10;

/// A line that sets something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Counted from 1.
    pub number: usize,
    /// What it sets.
    pub name: String,
    /// To what; empty: as if the line were not there.
    pub value: String,
}

/// Which file is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Where it is.
    pub path: PathBuf,
    /// Somebody named it, so it must be there.
    pub is_named: bool,
}

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened or read.
    #[error("{}: {error}: it was named as the file of settings; name one that is there and can be read (it holds no secrets: chmod 644 is right)", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// As the kernel says.
        error: io::Error,
    },
    /// It is longer than any such file.
    #[error("{} is longer than {MAX_BYTES} bytes: it is no file of settings", path.display())]
    Long {
        /// The file.
        path: PathBuf,
    },
    /// A line that sets nothing.
    #[error("{}:{number}: '{line}': give NAME = VALUE, or # before what is for people", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        number: usize,
        /// All of it.
        line: String,
    },
    /// Two lines for one setting.
    #[error("{}:{number}: {name} is set in line {first} already: leave one of them", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The second line.
        number: usize,
        /// What both set.
        name: String,
        /// The first line.
        first: usize,
    },
}

/// The file's lines; none if it is not there and need not be.
pub fn read(place: &Place) -> Result<Option<Vec<Line>>, FileError> {
    let path = place.path.clone();
    let mut text = String::new();
    let opened = File::open(&path);
    let read = opened.and_then(|file| file.take(MAX_BYTES + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 > MAX_BYTES => Err(FileError::Long { path }),
        Ok(_) => parse(&path, &text).map(Some),
        // A folder that holds the agent's secret, too, may be closed to others.
        Err(error) if is_not_ours(&error) && !place.is_named => Ok(None),
        Err(error) => Err(FileError::Unreadable { path, error }),
    }
}

fn is_not_ours(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

fn parse(path: &Path, text: &str) -> Result<Vec<Line>, FileError> {
    let mut lines: Vec<Line> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let number = index + 1;
        let told = without_remark(line).trim();
        if told.is_empty() {
            continue;
        }
        let wrong = || FileError::Line { path: path.to_owned(), number, line: line.to_owned() };
        let (name, value) = told.split_once('=').ok_or_else(wrong)?;
        let (name, value) = (name.trim().to_owned(), unquoted(value.trim()).to_owned());
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(wrong());
        }
        if let Some(first) = lines.iter().find(|line| line.name == name) {
            let first = first.number;
            return Err(FileError::Twice { path: path.to_owned(), number, name, first });
        }
        lines.push(Line { number, name, value });
    }
    Ok(lines)
}

fn without_remark(line: &str) -> &str {
    if line.trim_start().starts_with('#') {
        return "";
    }
    let end = line.find(" #").into_iter().chain(line.find("\t#")).min();
    end.map_or(line, |end| &line[..end])
}

/// Quotes around all of a value mean nothing more.
fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<(usize, String, String)>, String> {
        let lines = parse(Path::new("/x.conf"), text).map_err(|error| error.to_string())?;
        Ok(lines.into_iter().map(|line| (line.number, line.name, line.value)).collect())
    }

    #[test]
    fn lines_are_names_and_values() {
        let text = "# all\n\nlinger_s = 5\n\t dev=^mlx5_0:1,mlx5_1   # but these\nlog = \"warn,a=info\"\nlisten =\ngid_index = 3\t# not # 4\n";
        let expected = [
            (3, "linger_s", "5"),
            (4, "dev", "^mlx5_0:1,mlx5_1"),
            (5, "log", "warn,a=info"),
            (6, "listen", ""),
            (7, "gid_index", "3"),
        ];
        let expected =
            expected.map(|(line, name, value)| (line, name.to_owned(), value.to_owned()));
        assert_eq!(parsed(text).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for wrong in ["listen", "= 3", "a b = 3", "[agent]"] {
            let error = parsed(&format!("\n{wrong}\n")).unwrap_err();
            assert!(
                error.starts_with(&format!("/x.conf:2: '{wrong}': give NAME = VALUE")),
                "{error}"
            );
        }
        let twice = parsed("linger_s = 1\ndev = a\nlinger_s = 2\n").unwrap_err();
        assert_eq!(twice, "/x.conf:3: linger_s is set in line 1 already: leave one of them");
    }

    #[test]
    fn a_file_that_is_not_there_matters_if_it_was_named_and_a_long_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mitosis.conf");
        let place = |is_named| Place { path: path.clone(), is_named };
        assert!(read(&place(false)).unwrap().is_none());
        let error = read(&place(true)).unwrap_err().to_string();
        assert!(error.contains("mitosis.conf: No such file"), "{error}");
        let fits = usize::try_from(MAX_BYTES).unwrap();
        std::fs::write(&path, "#".repeat(fits)).unwrap();
        assert_eq!(read(&place(false)).unwrap(), Some(Vec::new()));
        std::fs::write(&path, "#".repeat(fits + 1)).unwrap();
        assert!(matches!(read(&place(false)), Err(FileError::Long { .. })));
    }
}
