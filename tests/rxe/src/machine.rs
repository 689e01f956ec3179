//! The process that is a machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

/// Of a guest's console, what an error shows: a panic and its call trace.
const TAIL_LINES: usize = 60;

/// A running machine. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Machine {
    child: Mutex<Child>,
    words: Vec<PathBuf>,
    /// Holds the thread that has started it: the machine ends with that.
    _starter: Sender<()>,
}

impl Machine {
    /// Starts it in `directory`, where `words` are the files that it and its kernel write to. `command`
    /// dies with the thread that starts it.
    pub(crate) fn start(mut command: Command, directory: &Path, words: &[String]) -> Result<Self> {
        command.current_dir(directory);
        let program = format!("{:?}", command.get_program());
        let (held, holder) = channel();
        let (sender, started) = channel();
        // Not the caller's thread: one test may end before another that uses the same guests.
        std::thread::spawn(move || {
            let spawned = command.spawn();
            // Its ends of the machine's sockets: who waits for the machine's end waits for these.
            drop(command);
            let _ = sender.send(spawned);
            let _ = holder.recv();
        });
        let child = started.recv().context("the machine's thread has ended")?;
        let child = child.with_context(|| format!("cannot start {program} and what it runs"))?;
        let words = words.iter().map(|name| directory.join(name)).collect();
        Ok(Self { child: Mutex::new(child), words, _starter: held })
    }

    /// SIGKILL: the machine loses its power.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// The last that the kernel and what runs it said.
    pub(crate) fn tail(&self) -> String {
        let tail = |path: &PathBuf| {
            let bytes = fs::read(path).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes);
            let lines: Vec<&str> = text.lines().collect();
            let last = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            format!("--- the end of {}\n{last}", path.display())
        };
        self.words.iter().map(tail).collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}
