//! The line to a guest's /init: what is told to it, and what it has said.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// One guest's line.
#[derive(Debug, Clone)]
pub(crate) struct Line(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    heard: Mutex<Heard>,
    news: Condvar,
}

/// What the guest has said.
#[derive(Debug, Default)]
struct Heard {
    stream: Option<UnixStream>,
    ready: bool,
    failed: Option<String>,
    done: HashMap<u32, i32>,
    ended: bool,
}

/// How waiting ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited<T> {
    For(T),
    TooLong,
    /// The machine has ended.
    MachineEnded,
}

impl Line {
    /// Listens at `directory/name`, however long the directory's path is.
    pub(crate) fn listen(directory: &Path, name: &str) -> Result<Self> {
        let open = File::open(directory).context("cannot open the directory of the run")?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", open.as_raw_fd()));
        let listener = UnixListener::bind(path).context("cannot listen for the guest")?;
        let line = Self(Arc::default());
        let reader = line.clone();
        std::thread::spawn(move || match listener.accept() {
            Ok((stream, _)) => reader.hear(stream),
            Err(_) => reader.end(),
        });
        Ok(line)
    }

    /// A line whose other end the guest has from its start.
    pub(crate) fn over(stream: UnixStream) -> Self {
        let line = Self(Arc::default());
        let reader = line.clone();
        std::thread::spawn(move || reader.hear(stream));
        line
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.0.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hear(&self, stream: UnixStream) {
        let lines = stream.try_clone().map(BufReader::new).map(BufReader::lines);
        self.heard().stream = Some(stream);
        for text in lines.into_iter().flatten().map_while(std::result::Result::ok) {
            self.heard().note(text.trim());
            self.0.news.notify_all();
        }
        self.end();
    }

    fn end(&self) {
        self.heard().ended = true;
        self.0.news.notify_all();
    }

    pub(crate) fn tell(&self, text: &str) -> Result<()> {
        let heard = self.heard();
        let Some(mut stream) = heard.stream.as_ref() else { bail!("the guest is not up") };
        stream.write_all(format!("{text}\n").as_bytes()).context("the guest has ended")
    }

    /// Waits until the guest can run jobs; why it cannot, if it says so.
    pub(crate) fn ready(&self, limit: Duration) -> Waited<Result<(), String>> {
        self.wait(limit, |heard| match &heard.failed {
            Some(text) => Some(Err(text.clone())),
            None => heard.ready.then_some(Ok(())),
        })
    }

    /// Waits for the exit status of a job.
    pub(crate) fn done(&self, id: u32, limit: Duration) -> Waited<i32> {
        self.wait(limit, |heard| heard.done.get(&id).copied())
    }

    fn wait<T>(&self, limit: Duration, found: impl Fn(&Heard) -> Option<T>) -> Waited<T> {
        let deadline = Instant::now() + limit;
        let mut heard = self.heard();
        loop {
            if let Some(value) = found(&heard) {
                return Waited::For(value);
            }
            if heard.ended {
                return Waited::MachineEnded;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Waited::TooLong;
            }
            let waited = self.0.news.wait_timeout(heard, left);
            heard = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Heard {
    fn note(&mut self, text: &str) {
        let mut words = text.split(' ');
        match words.next() {
            Some("ready") => self.ready = true,
            Some("failed") => self.failed = text.split_once(' ').map(|(_, why)| why.to_owned()),
            Some("done") => {
                let numbers = (words.next(), words.next());
                if let (Some(Ok(id)), Some(Ok(status))) =
                    (numbers.0.map(str::parse), numbers.1.map(str::parse))
                {
                    self.done.insert(id, status);
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    fn line() -> (Line, UnixStream, tempfile::TempDir) {
        let directory = tempfile::tempdir().unwrap();
        let line = Line::listen(directory.path(), "line").unwrap();
        let guest = UnixStream::connect(directory.path().join("line")).unwrap();
        (line, guest, directory)
    }

    #[test]
    fn statuses_go_to_those_who_wait() {
        let (line, mut guest, _directory) = line();
        guest.write_all(b"ready\ndone 2 143\ndone x 1\ndone 1 0\n").unwrap();
        assert_eq!(line.ready(SOON), Waited::For(Ok(())));
        assert_eq!(line.done(1, SOON), Waited::For(0));
        assert_eq!(line.done(2, SOON), Waited::For(143));
        assert_eq!(line.done(3, Duration::from_millis(1)), Waited::TooLong);
        drop(guest);
        assert_eq!(line.done(3, SOON), Waited::MachineEnded);
    }

    #[test]
    fn a_guest_that_does_not_come_up_says_why() {
        let (line, mut guest, _directory) = line();
        guest.write_all(b"failed no network\n").unwrap();
        assert_eq!(line.ready(SOON), Waited::For(Err("no network".to_owned())));
    }

    #[test]
    fn the_guest_is_told() {
        let (line, mut guest, _directory) = line();
        guest.write_all(b"ready\n").unwrap();
        assert_eq!(line.ready(SOON), Waited::For(Ok(())));
        line.tell("run 7").unwrap();
        let mut text = String::new();
        BufReader::new(guest).read_line(&mut text).unwrap();
        assert_eq!(text, "run 7\n");
    }
}
