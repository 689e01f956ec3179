//! Guests with owners of memory and readers of it.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use mitosis_guests::{Config, Device, Guests, Job, Kind, target};

/// Nothing here takes as long on a busy machine; what does hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Enough for an owner's memory, its copy in the arena and its root.
const MEMORY_MIB: u32 = 160;
const PROGRAM: &str = "/host/files/suite-fabric";
/// MiB that an owner has: two slabs of its arena, the second in part.
const OWNED_MIB: &str = "20";
const SLAB_MIB: &str = "16";
/// Its presence ends all readers.
const UNTIL: &str = "until";

/// Guests of one test.
pub(crate) struct Hosts {
    pub(crate) guests: Guests,
}

/// What a reader's queue says of one owner, number by number.
#[derive(Debug)]
pub(crate) struct Tally {
    /// The reading host.
    pub(crate) reader: u32,
    pub(crate) owner: u32,
    numbers: HashMap<String, u64>,
}

/// All that readers said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) tallies: Vec<Tally>,
    /// By the reading host, what it wrote before.
    pub(crate) lines: Vec<(u32, String)>,
}

impl Hosts {
    pub(crate) fn boot(name: &str, device: Device, nodes: u32) -> Hosts {
        let mut config = Config::named(&format!("{name}-{device:?}"));
        (config.kind, config.device, config.nodes) = (Kind::UserMode, device, nodes);
        config.memory_mib = MEMORY_MIB;
        config.env.push(("RUST_LOG".to_owned(), "mitosis=debug".to_owned()));
        let program = target().join("debug/suite-fabric");
        assert!(program.is_file(), "no {}; make test-uml builds it", program.display());
        let guests = Guests::up(&config).expect("guests come up");
        guests.give(&program, "suite-fabric").unwrap();
        Hosts { guests }
    }

    fn address(node: u32) -> String {
        format!("10.77.0.{node}")
    }

    /// An owner, that can be read from.
    pub(crate) fn owner(&self, node: u32) -> Job {
        self.own(node, &[PROGRAM, "own", OWNED_MIB], 2)
    }

    /// An owner whose arena has room for its first slab alone.
    pub(crate) fn owner_of_too_much(&self, node: u32) -> Job {
        self.own(node, &[PROGRAM, "own", OWNED_MIB, SLAB_MIB], 1)
    }

    fn own(&self, node: u32, argv: &[&str], slabs: u32) -> Job {
        let mut job = self.guests.node(node).run(argv).unwrap();
        let line = job.line(PATIENCE).unwrap();
        assert_eq!(line, format!("owns {OWNED_MIB} MiB, {slabs} slabs"));
        job
    }

    /// Has an owner take its bytes from all readers.
    pub(crate) fn revoke(&self, owner: u32) {
        let argv = [PROGRAM, "tell", &Self::address(owner), "revoke"];
        let job = self.guests.node(owner).run(&argv).unwrap();
        assert_eq!(job.end(PATIENCE).unwrap().ok().unwrap(), "revoked\n");
    }

    /// Readers, each of some owners, all in the middle of reading by the card.
    pub(crate) fn readers(&self, reads: &[(u32, &[u32])], window: u32, queues: u32) -> Vec<Job> {
        let start = |(reader, owners): &(u32, &[u32])| {
            let owners: Vec<String> = owners.iter().map(|owner| Self::address(*owner)).collect();
            let (window, queues) = (window.to_string(), queues.to_string());
            let until = format!("/host/{UNTIL}");
            let argv = [PROGRAM, "read", &owners.join(","), &until, &window, &queues];
            self.guests.node(*reader).run(&argv).unwrap()
        };
        let mut jobs: Vec<Job> = reads.iter().map(start).collect();
        for job in &mut jobs {
            assert_eq!(job.line(PATIENCE).unwrap(), "reading");
        }
        jobs
    }

    /// Ends the readers, whose every byte was right.
    pub(crate) fn end(&self, readers: Vec<Job>, reads: &[(u32, &[u32])]) -> Said {
        fs::write(self.guests.share().join(UNTIL), "").unwrap();
        let mut said = Said { tallies: Vec::new(), lines: Vec::new() };
        for (job, (reader, _)) in readers.into_iter().zip(reads) {
            let out = job.end(PATIENCE).unwrap().ok().unwrap();
            for line in out.lines() {
                match line.strip_prefix("queue ") {
                    Some(tally) => said.tallies.push(Tally::parse(*reader, tally)),
                    None => said.lines.push((*reader, line.to_owned())),
                }
            }
        }
        println!("{said}");
        said
    }
}

impl Tally {
    fn parse(reader: u32, line: &str) -> Tally {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, owner, numbers @ ..] = &words[..] else { panic!("no tally: {line}") };
        let owner = owner.rsplit('.').next().unwrap().parse().unwrap();
        let pair = |pair: &[&str]| (pair[0].to_owned(), pair[1].parse().unwrap());
        Tally { reader, owner, numbers: numbers.chunks_exact(2).map(pair).collect() }
    }

    pub(crate) fn number(&self, name: &str) -> u64 {
        self.numbers[name]
    }
}

impl Said {
    /// What was read of one owner.
    pub(crate) fn of(&self, owner: u32) -> impl Iterator<Item = &Tally> {
        self.tallies.iter().filter(move |tally| tally.owner == owner)
    }

    /// How many readers wrote a line with all of `words`.
    pub(crate) fn lines_with(&self, words: &[&str]) -> usize {
        let has = |line: &str| words.iter().all(|word| line.contains(word));
        self.lines.iter().filter(|(_, line)| has(line)).count()
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (reader, line) in &self.lines {
            writeln!(out, "host {reader}: {line}")?;
        }
        for Tally { reader, owner, numbers } in &self.tallies {
            let mut numbers: Vec<_> = numbers.iter().filter(|(_, number)| **number > 0).collect();
            numbers.sort();
            let numbers: Vec<String> =
                numbers.iter().map(|(name, n)| format!("{name} {n}")).collect();
            writeln!(out, "host {reader} of host {owner}: {}", numbers.join(", "))?;
        }
        Ok(())
    }
}
