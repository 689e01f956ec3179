//! NODE 1: has memory and DCTs, is READ from, does what the reader asks by the side channel.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::IpAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use mitosis::verbs::{DcKey, Dct, Mr, Pd, Region, Srq};

use crate::side_channel::{SideChannel, numbers};
use crate::{Bench, IOVA, MTU, OWNED, pattern};

/// How the reader names a target: its number in the order of making.
struct Owner {
    bench: Bench,
    region: Arc<Region>,
    srq: Arc<Srq>,
    mr: Option<Mr>,
    targets: BTreeMap<u64, Dct>,
    made: u64,
    victim: Option<Child>,
    /// Registrations that no READ gets at, and the domain of one of them.
    useless: Vec<(Mr, Arc<Pd>)>,
}

impl Owner {
    fn new() -> Self {
        let bench = Bench::open();
        let region = Region::new(OWNED).expect("memory");
        region.write(0, &(0..OWNED).map(pattern).collect::<Vec<_>>());
        let mr = Mr::readable(&bench.pd, &region, 0..OWNED, IOVA).expect("a registration");
        let srq = Srq::new(&bench.pd).expect("an SRQ");
        let (targets, useless) = (BTreeMap::new(), Vec::new());
        Self { bench, region, srq, mr: Some(mr), targets, made: 0, victim: None, useless }
    }

    /// A target in words: its number here, dctn and key.
    fn target(&mut self) -> String {
        let (bench, key) = (&self.bench, DcKey::random().expect("a key"));
        let dct = Dct::new(&bench.pd, &bench.cq, &self.srq, key, &bench.path, MTU);
        let dct = dct.expect("a target");
        let number = self.made;
        let text = format!("{number} {} {}", dct.dctn().number(), dct.key().0);
        self.targets.insert(number, dct);
        self.made += 1;
        text
    }

    fn rkey(&self) -> u32 {
        self.mr.as_ref().expect("a registration").rkey()
    }

    /// What the reader asks for, and the answer.
    fn answer(&mut self, word: &str, rest: &[u64]) -> String {
        match word {
            "gid" => self.bench.gid.ip().to_string(),
            "rkey" => self.rkey().to_string(),
            "target" => self.target(),
            "destroy" => {
                let dct = self.targets.remove(&rest[0]).expect("a target");
                dct.destroy().expect("an end");
                "destroyed".to_owned()
            }
            "register" => {
                let bench = &self.bench;
                let mr = Mr::readable(&bench.pd, &self.region, 0..OWNED, IOVA);
                self.mr = Some(mr.expect("a registration"));
                "registered".to_owned()
            }
            "deregister" => {
                self.mr.take().expect("a registration").deregister().expect("deregistration");
                "deregistered".to_owned()
            }
            "foreign" => {
                let pd = Pd::new(&self.bench.context).expect("a domain");
                let mr = Mr::readable(&pd, &self.region, 0..OWNED, IOVA).expect("a registration");
                let text = mr.rkey().to_string();
                self.useless.push((mr, pd));
                text
            }
            // An address that is right, and no right to READ.
            "unreadable" => {
                let mr = Mr::local(&self.bench.pd, &self.region).expect("a registration");
                let text = format!("{} {}", mr.rkey(), mr.iova());
                self.useless.push((mr, self.bench.pd.clone()));
                text
            }
            "events" => {
                let next = || self.bench.context.next_event().expect("events");
                let events: Vec<String> =
                    std::iter::from_fn(next).map(|event| event.to_string()).collect();
                events.join(", ")
            }
            "victim" => self.start_victim(),
            "kill" => {
                let mut victim = self.victim.take().expect("a victim");
                victim.kill().expect("to kill");
                victim.wait().expect("its end");
                "killed".to_owned()
            }
            other => panic!("the reader asks for '{other}'"),
        }
    }

    /// Another process with a target; its line is the answer.
    fn start_victim(&mut self) -> String {
        let own = std::env::current_exe().expect("this program");
        let mut victim =
            Command::new(own).arg("victim").stdout(Stdio::piped()).spawn().expect("a process");
        let mut line = String::new();
        let output = victim.stdout.take().expect("its output");
        BufReader::new(output).read_line(&mut line).expect("its line");
        self.victim = Some(victim);
        line.trim_end().to_owned()
    }
}

pub fn run(own: IpAddr) {
    // The reader comes, and goes, and comes again with another environment; this one is killed.
    let mut owner = Owner::new();
    loop {
        let mut side = SideChannel::accept(own);
        while let Some(line) = side.hear() {
            let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
            let answer = owner.answer(word, &numbers(rest));
            side.say(&answer);
        }
    }
}

/// A process that is READ from until it is killed: tells its target and the key of its memory.
pub fn victim() {
    let mut owner = Owner::new();
    println!("{} {}", owner.target(), owner.rkey());
    loop {
        std::thread::park();
    }
}
