//! A process with known memory in the place of a seed: this test program, started once more.

use std::fs::File;
use std::hint::black_box;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Arc;

use super::{Exports, ProcessExport};
use crate::descriptor::SeedRange;
use crate::id::{ReadKey, SeedId};

const BYTES_VARIABLE: &str = "MITOSIS_STAND_IN_BYTES";
const MARK: &str = "stand-in memory at ";

/// A process whose memory at `range` holds `expected(0, len)`. It ends with this value.
#[derive(Debug)]
pub(crate) struct StandIn {
    process: Child,
    _stdin: ChildStdin,
    range: SeedRange,
}

/// What a stand-in's memory holds, from `offset` on.
pub(crate) fn expected(offset: u64, len: usize) -> Vec<u8> {
    let first = offset / 8;
    let words = (offset % 8 + len as u64).div_ceil(8);
    let bytes: Vec<u8> = (first..first + words).flat_map(|i| word(i).to_le_bytes()).collect();
    let skip = usize::try_from(offset % 8).expect("less than 8");
    bytes[skip..skip + len].to_vec()
}

fn word(index: u64) -> u64 {
    (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl StandIn {
    pub(crate) fn start(bytes: u64) -> StandIn {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "export::stand_in::stands_in_for_a_seed"])
            .args(["--ignored", "--nocapture", "--test-threads=1"])
            .env(BYTES_VARIABLE, bytes.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take().unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let address = lines
            .map_while(Result::ok)
            .find_map(|line| line.split_once(MARK).map(|(_, address)| address.to_owned()))
            .expect("the stand-in says where its memory is");
        let start: u64 = address.trim().parse().unwrap();
        StandIn { process, _stdin: stdin, range: SeedRange::new(start, start + bytes) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn range(&self) -> SeedRange {
        self.range
    }

    pub(crate) fn mem(&self) -> File {
        File::open(format!("/proc/{}/mem", self.process.id())).unwrap()
    }

    pub(crate) fn export(&self, exports: &Arc<Exports>) -> (SeedId, ReadKey) {
        self.export_ranges(exports, vec![self.range])
    }

    pub(crate) fn export_ranges(
        &self,
        exports: &Arc<Exports>,
        readable: Vec<SeedRange>,
    ) -> (SeedId, ReadKey) {
        let mem = self.mem();
        let (seed, read_key) = (SeedId::random(), ReadKey::random());
        exports.add(seed, ProcessExport { mem, readable, read_key: read_key.clone(), arena: None });
        (seed, read_key)
    }

    pub(crate) fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "the process that other tests read from, started by them"]
fn stands_in_for_a_seed() {
    let Ok(bytes) = std::env::var(BYTES_VARIABLE) else { return };
    let bytes: u64 = bytes.parse().unwrap();
    let page = 4096;
    // A page more than asked for, so that a page-aligned part of the length is in it.
    let words: Vec<u64> = vec![1; usize::try_from((bytes + page) / 8).unwrap()];
    let mut words = black_box(words);
    let address = words.as_ptr() as u64;
    let skip = usize::try_from((address.next_multiple_of(page) - address) / 8).unwrap();
    for (index, slot) in words[skip..].iter_mut().enumerate() {
        *slot = word(index as u64);
    }
    println!("{MARK}{}", address.next_multiple_of(page));
    std::io::stdout().flush().unwrap();
    // Ends with the process that holds the other end.
    let _ = std::io::stdin().read(&mut [0]);
    black_box(&words);
}
