//! How many children of a `mitosis resume` have ended, on a terminal.

use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// Often enough for eyes, and seldom enough that ten thousand children are counted without being felt.
pub const TICK: Duration = Duration::from_millis(100);
/// Of the bar, between its brackets.
const WIDTH: usize = 40;

/// A line of standard error that is written again and again, if that is a terminal and there is something to wait for.
#[derive(Debug)]
pub struct Progress {
    count: usize,
    drawn: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    /// Of so many children.
    pub fn new(count: usize, is_wanted: bool) -> Self {
        let is_shown = is_wanted && count > 1 && stderr().is_terminal();
        Progress { count, drawn: None, is_shown }
    }

    /// Shows how many have ended, and how many of them badly, unless it was shown just now.
    pub fn show(&mut self, ended: impl FnOnce() -> (usize, usize)) {
        if !self.is_shown || self.drawn.is_some_and(|drawn| drawn.elapsed() < TICK) {
            return;
        }
        self.drawn = Some(Instant::now());
        let (ended, badly) = ended();
        // A terminal that is gone is no reason to leave children alone.
        let _ = write!(stderr(), "\r{}\x1b[K", bar(ended, badly, self.count));
    }

    /// Leaves the line empty.
    pub fn clear(&mut self) {
        if self.drawn.take().is_some() {
            let _ = write!(stderr(), "\r\x1b[K");
        }
    }
}

/// Its text.
fn bar(ended: usize, badly: usize, count: usize) -> String {
    let full = WIDTH * ended / count.max(1);
    let (full, empty) = ("#".repeat(full), "-".repeat(WIDTH - full));
    let badly = if badly == 0 { String::new() } else { format!(", {badly} badly") };
    format!("[{full}{empty}] {ended} of {count} children have ended{badly}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_full_as_children_have_ended() {
        let of = |ended, badly| bar(ended, badly, 80);
        assert_eq!(of(0, 0), format!("[{}] 0 of 80 children have ended", "-".repeat(40)));
        assert_eq!(of(3, 1), format!("[#{}] 3 of 80 children have ended, 1 badly", "-".repeat(39)));
        assert_eq!(of(80, 0), format!("[{}] 80 of 80 children have ended", "#".repeat(40)));
        assert_eq!(bar(1, 0, 1), format!("[{}] 1 of 1 children have ended", "#".repeat(40)));
    }
}
