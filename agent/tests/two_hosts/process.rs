//! A program that runs on a host: its lines as they come, its end by a deadline.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nothing here takes as long; a program that does hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running program. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Process {
    what: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    /// Lines that were taken.
    said: Vec<String>,
    stderr: Option<JoinHandle<String>>,
    /// Its standard output and error, as /proc names them.
    pipes: [String; 2],
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    #[expect(dead_code, reason = "shown where a test fails")]
    what: String,
    pub(crate) code: Option<i32>,
    /// All that it said on standard output.
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

impl Process {
    pub(crate) fn start(mut command: Command) -> Process {
        let what = format!("{:?}", command.get_args().collect::<Vec<_>>());
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let named = |fd: i32| std::fs::read_link(format!("/proc/self/fd/{fd}")).unwrap();
        let fds = [
            child.stdout.as_ref().unwrap().as_raw_fd(),
            child.stderr.as_ref().unwrap().as_raw_fd(),
        ];
        let pipes = fds.map(|fd| named(fd).display().to_string());
        let (sender, lines) = channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let stderr = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        let stdin = child.stdin.take();
        Process { what, child, stdin, lines, said: Vec::new(), stderr: Some(stderr), pipes }
    }

    /// The next line, without its end.
    pub(crate) fn line(&mut self) -> String {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                self.said.push(line.clone());
                line
            }
            Err(RecvTimeoutError::Timeout) => {
                panic!("{} says nothing; it said {:?}", self.what, self.said)
            }
            Err(RecvTimeoutError::Disconnected) => {
                let _ = self.child.kill();
                self.read_to_the_end(Instant::now() + PATIENCE);
                let err = self.stderr.take().map(|said| said.join().unwrap());
                panic!("{} ended; it said {:?} and {err:?}", self.what, self.said)
            }
        }
    }

    /// Writes to its standard input and closes it.
    pub(crate) fn tell(&mut self, text: &str) {
        if let Some(mut stdin) = self.stdin.take() {
            stdin.write_all(text.as_bytes()).unwrap();
        }
    }

    /// Its end, which must come within [`PATIENCE`]; its standard input is closed.
    pub(crate) fn end(self) -> Ended {
        self.end_within(PATIENCE)
    }

    pub(crate) fn end_within(mut self, limit: Duration) -> Ended {
        drop(self.stdin.take());
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if begun.elapsed() > limit {
                let _ = self.child.kill();
                self.said.extend(self.lines.try_iter());
                // Others may have its ends of the pipes, and run on.
                panic!("{} still runs after {limit:?}; it said {:?}", self.what, self.said);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let took = begun.elapsed();
        self.read_to_the_end(begun + limit + PATIENCE);
        let err = self.stderr.take().map(|said| said.join().unwrap()).unwrap_or_default();
        let out = self.said.iter().fold(String::new(), |text, line| text + line + "\n");
        Ended { what: std::mem::take(&mut self.what), code: status.code(), out, err, took }
    }

    /// What an ended program has said. Whoever has its ends of the pipes still is a leftover of it.
    fn read_to_the_end(&mut self, until: Instant) {
        loop {
            match self.lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => self.is_held(),
            }
        }
        while !self.stderr.as_ref().is_none_or(JoinHandle::is_finished) {
            if Instant::now() > until {
                self.is_held();
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn is_held(&self) -> ! {
        let holders = holders(&self.pipes);
        // Descriptors that are on their way through a socket stand nowhere.
        panic!(
            "{} has ended, and its output is held by {holders:?}; it said {:?}",
            self.what, self.said
        )
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Its end, with this status and a text that holds all of `words`.
    pub(crate) fn end_as(self, code: i32, words: &[&str]) {
        let ended = self.end();
        assert_eq!(ended.code, Some(code), "{ended:?}");
        for word in words {
            assert!(ended.err.contains(word), "no '{word}' in: {ended:?}");
        }
    }

    /// SIGKILL, and waits until it is gone.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// It succeeded: what it said.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.out
    }

    /// It failed with exit status 1 and a text that holds all of `words`: cause and remedy.
    pub(crate) fn refused(self, words: &[&str]) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        for word in words {
            assert!(self.err.contains(word), "no '{word}' in: {self:?}");
        }
        assert!(!self.err.contains("panicked"), "{self:?}");
        self.err
    }
}

/// Waits until `condition` holds.
pub(crate) fn within(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < limit, "not within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    begun.elapsed()
}

/// Other processes with a descriptor that leads to one of `pipes`.
fn holders(pipes: &[String]) -> Vec<String> {
    let text = |pid: u32, file: &str| {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace(['\0', '\n'], " ").trim().to_owned()
    };
    let holds = |pid: &u32| {
        let folder =
            |path: std::path::PathBuf| std::fs::read_dir(path).into_iter().flatten().flatten();
        // Of each thread: behind a leader that has ended there is nothing.
        let tasks = folder(format!("/proc/{pid}/task").into());
        let entries = tasks.flat_map(|task| folder(task.path().join("fd")));
        let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links
            .filter_map(|link| link.into_os_string().into_string().ok())
            .any(|link| pipes.contains(&link))
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let others = pids.filter(|pid| *pid != std::process::id()).filter(holds);
    others
        .map(|pid| {
            format!(
                "process {pid} '{}' ({}), {}, {}",
                text(pid, "comm"),
                text(pid, "cmdline"),
                text(pid, "stat"),
                text(pid, "wchan")
            )
        })
        .collect()
}
