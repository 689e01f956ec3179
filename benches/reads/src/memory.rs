//! A process with known memory in the place of a seed.

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};
use mitosis::descriptor::SeedRange;

pub(crate) const PAGE: usize = 4096;

/// What stands at word `index` of the memory.
pub(crate) fn word(index: usize) -> u64 {
    (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whether `bytes` are those of the memory from `at` on, a multiple of 8.
pub(crate) fn is_right(bytes: &[u8], at: usize) -> bool {
    let (words, rest) = bytes.as_chunks::<8>();
    let first = at / 8;
    rest.is_empty()
        && (first..).zip(words).all(|(index, bytes)| u64::from_le_bytes(*bytes) == word(index))
}

/// A holder that runs; it ends with this value.
#[derive(Debug)]
pub(crate) struct Holder {
    process: Child,
    _stdin: ChildStdin,
    pub(crate) range: SeedRange,
}

impl Holder {
    pub(crate) fn start(bytes: usize) -> Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["hold", &bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the holder of the memory")?;
        let stdin = process.stdin.take().context("its stdin")?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().context("its stdout")?).read_line(&mut line)?;
        let start: u64 =
            line.trim().parse().context("the holder does not say where its memory is")?;
        let range = SeedRange::new(start, start + bytes as u64);
        Ok(Holder { process, _stdin: stdin, range })
    }

    pub(crate) fn mem(&self) -> Result<File> {
        Ok(File::open(format!("/proc/{}/mem", self.process.id()))?)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The process itself: until its stdin ends.
pub(crate) fn hold(bytes: usize) -> Result<()> {
    let mut words = vec![0u64; (bytes + PAGE) / 8];
    let start = words.as_ptr().addr();
    let aligned = start.next_multiple_of(PAGE);
    let mine = &mut words[(aligned - start) / 8..][..bytes / 8];
    mine.iter_mut().enumerate().for_each(|(index, slot)| *slot = word(index));
    println!("{aligned}");
    std::io::stdout().flush()?;
    let _ = std::io::stdin().read(&mut [0]);
    std::hint::black_box(&words);
    Ok(())
}
