//! The process that is a machine.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// Of a guest's console, what an error shows: a panic and its call trace.
const TAIL_LINES: usize = 60;

/// A running emulator. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Emulator {
    child: Mutex<Child>,
    console: PathBuf,
    log: PathBuf,
    /// Holds the thread that has started it: the emulator ends with that.
    _starter: Sender<()>,
}

impl Emulator {
    /// Starts it in `directory`; `console` and `log` are files there.
    pub(crate) fn start(
        mut command: Command,
        directory: &Path,
        console: &str,
        log: &str,
    ) -> Result<Self> {
        let (console, log) = (directory.join(console), directory.join(log));
        let output = File::create(&log).context("cannot make the emulator's log")?;
        let errors = output.try_clone().context("cannot make the emulator's log")?;
        command.current_dir(directory).stdin(Stdio::null()).stdout(output).stderr(errors);
        let (held, holder) = channel();
        let (sender, started) = channel();
        // Not the caller's thread: one test may end before another that uses the same guests.
        std::thread::spawn(move || {
            let _ = sender.send(command.spawn());
            let _ = holder.recv();
        });
        let child = started.recv().context("the emulator's thread has ended")?;
        let child = child.context("cannot start setpriv and qemu-system-x86_64")?;
        Ok(Self { child: Mutex::new(child), console, log, _starter: held })
    }

    /// SIGKILL: the machine loses its power.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// The last that the kernel and the emulator said.
    pub(crate) fn tail(&self) -> String {
        let tail = |path: &Path| {
            let bytes = fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
        };
        format!(
            "--- the end of {}\n{}\n--- the end of {}\n{}",
            self.console.display(),
            tail(&self.console),
            self.log.display(),
            tail(&self.log),
        )
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.kill();
    }
}
