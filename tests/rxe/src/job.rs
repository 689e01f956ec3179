//! A job: a program that runs in a guest.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use crate::guests::Guest;
use crate::line::Waited;

/// How often a job's output is looked at: it is a file that the guest writes.
const LOOK: Duration = Duration::from_millis(10);
/// How long a job may take to end that was killed.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// A running job. It goes on if this is dropped.
#[derive(Debug)]
pub struct Job {
    pub(crate) guest: Arc<Guest>,
    pub(crate) id: u32,
    pub(crate) what: String,
    pub(crate) directory: PathBuf,
    pub(crate) lines_taken: usize,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// What was run.
    pub what: String,
    /// Its exit status as a shell tells it: 128 and the signal's number if one has ended it.
    pub status: i32,
    /// What it wrote to its standard output.
    pub out: String,
    /// What it wrote to its standard error.
    pub err: String,
}

impl Job {
    /// Its end.
    ///
    /// # Errors
    /// It has not ended within `limit`, and is killed; or its guest ends before it.
    pub fn end(self, limit: Duration) -> Result<Ended> {
        match self.guest.line().done(self.id, limit) {
            Waited::For(status) => {
                Ok(Ended { status, out: self.said("out"), err: self.said("err"), what: self.what })
            }
            Waited::TooLong => {
                self.guest.line().tell(&format!("end {}", self.id))?;
                let _ = self.guest.line().done(self.id, KILL_LIMIT);
                bail!("{} still ran after {limit:?}; {}", self.what, self.report())
            }
            Waited::MachineEnded => bail!("the guest of {} ended; {}", self.what, self.report()),
        }
    }

    /// Its next whole line of output.
    ///
    /// # Errors
    /// None comes within `limit`, or the job ends before.
    pub fn line(&mut self, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            // Looked at first: what was written before the end is in the file when it is told.
            let ended = self.guest.line().done(self.id, Duration::ZERO);
            if let Some(line) = self.whole_line() {
                self.lines_taken += 1;
                return Ok(line);
            }
            match ended {
                Waited::For(status) => bail!("it ended with {status}; {}", self.report()),
                Waited::MachineEnded => bail!("its guest ended; {}", self.report()),
                Waited::TooLong if Instant::now() >= deadline => {
                    bail!("no line within {limit:?}; {}", self.report())
                }
                Waited::TooLong => std::thread::sleep(LOOK),
            }
        }
    }

    /// A signal for it, and for none of its children.
    ///
    /// # Errors
    /// The guest has ended.
    pub fn signal(&self, number: i32) -> Result<()> {
        self.guest.line().tell(&format!("kill {} {number}", self.id))
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        !matches!(self.guest.line().done(self.id, Duration::ZERO), Waited::TooLong)
    }

    /// What it has written to its standard error so far.
    pub fn errors(&self) -> String {
        self.said("err")
    }

    /// What it has written so far to `out` or `err`.
    pub(crate) fn said(&self, stream: &str) -> String {
        let bytes = fs::read(self.directory.join(stream)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn whole_line(&self) -> Option<String> {
        let said = self.said("out");
        let line = said.split_inclusive('\n').nth(self.lines_taken)?;
        line.strip_suffix('\n').map(str::to_owned)
    }

    fn report(&self) -> String {
        format!(
            "{} on {} said {:?} and {:?}\n{}",
            self.what,
            self.guest.name(),
            self.said("out"),
            self.said("err"),
            self.guest.tail(),
        )
    }
}

impl Ended {
    /// What it said; an error that shows all of it unless it ended with 0.
    ///
    /// # Errors
    /// It ended with another status.
    pub fn ok(self) -> Result<String> {
        if self.status != 0 {
            bail!("{self:?}");
        }
        Ok(self.out)
    }
}
