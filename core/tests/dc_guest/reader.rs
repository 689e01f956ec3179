//! NODE 2: READs by DC, and what becomes of READs that cannot be.

use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

use mitosis::verbs::{Patience, QpState, WcStatus};

use crate::initiator::{Initiator, Read, Target, new_target};
use crate::side_channel::{SideChannel, numbers};
use crate::{OWNED, PAGE};

const SUCCESS: WcStatus = WcStatus::SUCCESS;
const FLUSHED: WcStatus = WcStatus::FLUSHED;
const REFUSED: WcStatus = WcStatus::REMOTE_ACCESS;
const SILENCE: WcStatus = WcStatus::RETRY_EXCEEDED;

/// What an emulated machine may add to a time.
const SLACK: Duration = Duration::from_secs(2);

struct Reader {
    it: Initiator,
    side: SideChannel,
    owner: IpAddr,
    target: Target,
    rkey: u32,
    passed: u32,
}

pub fn run(owner: IpAddr) {
    let mut reader = Reader::new(owner);
    reader.a_read_brings_the_right_bytes();
    reader.a_batch_of_several_targets_completes_in_order();
    reader.a_hundred_targets_have_one_initiator();
    reader.what_must_not_be_read_is_refused();
    reader.a_wrong_key_fails();
    reader.another_targets_key_fails();
    reader.a_failure_flushes_what_is_behind_it();
    reader.a_reset_takes_completions_away();
    reader.a_destroyed_target_is_noticed_in_time();
    reader.a_dead_process_is_noticed_in_time();
    reader.a_target_that_never_was_is_noticed_in_time();
    reader.two_processes_read_of_one_target();
    println!("{} passed", reader.passed);
}

/// What depends on the status that a wrong key has.
pub fn keys(owner: IpAddr) {
    let mut reader = Reader::new(owner);
    reader.a_wrong_key_fails();
    reader.another_targets_key_fails();
    println!("{} passed", reader.passed);
}

/// Another process of NODE 2, with what it needs as words: owner, dctn, key, rkey.
pub fn second(words: &[String]) {
    let number = |at: usize| words[at].parse::<u64>().expect("a number");
    let mut it = Initiator::new(words[0].parse().expect("an address"), None);
    let target = Target::from_words(&[0, number(1), number(2)]);
    let rkey = u32::try_from(number(3)).expect("a key");
    for at in 0..50 {
        assert_eq!(it.read_one(Read::of(target, rkey, at * PAGE)).0, SUCCESS);
    }
    println!("50 READs");
}

impl Reader {
    fn new(owner: IpAddr) -> Self {
        let mut side = SideChannel::connect(owner);
        let it = Initiator::new(owner, None);
        let target = new_target(&mut side);
        let rkey = side.ask("rkey").parse().expect("a key");
        Self { it, side, owner, target, rkey, passed: 0 }
    }

    fn passed(&mut self, name: &str) {
        self.passed += 1;
        println!("ok {name}");
    }

    fn good(&self, at: usize) -> Read {
        Read::of(self.target, self.rkey, at)
    }

    /// All is well again after a reset.
    fn recovers(&mut self) {
        assert_eq!(self.it.dci.query_state().expect("a state"), QpState::Err);
        self.it.reset();
        assert_eq!(self.it.read_one(self.good(PAGE)).0, SUCCESS);
    }

    fn in_time(&self, took: Duration) {
        let earliest = Patience::PAGER.time_to_notice();
        println!("   noticed after {took:?}; by the arithmetic {earliest:?}");
        assert!(took >= earliest && took < earliest + SLACK, "{took:?}");
    }

    fn a_read_brings_the_right_bytes(&mut self) {
        assert_eq!(self.it.dci.state(), QpState::Rts);
        for at in [0, PAGE, OWNED - PAGE] {
            assert_eq!(self.it.read_one(self.good(at)).0, SUCCESS, "at {at}");
        }
        let began = std::time::Instant::now();
        for _ in 0..100 {
            assert_eq!(self.it.read_one(self.good(0)).0, SUCCESS);
        }
        println!("   one after the other: {:?} each", began.elapsed() / 100);
        self.passed("a_read_brings_the_right_bytes");
    }

    fn a_batch_of_several_targets_completes_in_order(&mut self) {
        let others = [new_target(&mut self.side), new_target(&mut self.side)];
        let all = [self.target, others[0], others[1]];
        let key = |target: &Target| target.key.0;
        assert!(key(&all[0]) != key(&all[1]) && key(&all[1]) != key(&all[2]));
        let reads: Vec<Read> =
            (0..60).map(|at| Read::of(all[at / 3 % 3], self.rkey, at * 37 % 64 * PAGE)).collect();
        let (statuses, _) = self.it.read(&reads);
        assert!(statuses.iter().all(|status| *status == SUCCESS), "{statuses:?}");
        for target in others {
            assert_eq!(self.side.ask(&format!("destroy {}", target.name)), "destroyed");
        }
        self.passed("a_batch_of_several_targets_completes_in_order");
    }

    fn a_hundred_targets_have_one_initiator(&mut self) {
        let targets: Vec<Target> = (0..100).map(|_| new_target(&mut self.side)).collect();
        for round in 0..2 {
            let read =
                |(at, target): (usize, &Target)| Read::of(*target, self.rkey, (at + round) * PAGE);
            let reads: Vec<Read> = targets.iter().enumerate().map(read).collect();
            let (statuses, took) = self.it.read(&reads);
            assert!(statuses.iter().all(|status| *status == SUCCESS), "{statuses:?}");
            println!("   100 targets, round {round}: {took:?}");
        }
        for target in targets {
            assert_eq!(self.side.ask(&format!("destroy {}", target.name)), "destroyed");
        }
        self.passed("a_hundred_targets_have_one_initiator");
    }

    fn what_must_not_be_read_is_refused(&mut self) {
        let foreign = self.side.ask("foreign").parse().expect("a key");
        let unreadable = numbers(&self.side.ask("unreadable"));
        let bad = [
            ("a wrong rkey", Read { rkey: self.rkey ^ 0x5500, ..self.good(0) }),
            ("beyond the end", self.good(OWNED - PAGE + 1)),
            ("before the beginning", Read { address: self.good(0).address - 1, ..self.good(0) }),
            ("of another domain", Read { rkey: foreign, ..self.good(0) }),
            (
                "without the right",
                Read {
                    rkey: u32::try_from(unreadable[0]).expect("a key"),
                    address: unreadable[1],
                    ..self.good(0)
                },
            ),
        ];
        for (what, read) in bad {
            assert_eq!(self.it.read_one(read).0, REFUSED, "{what}");
            self.recovers();
        }
        assert_eq!(self.side.ask("deregister"), "deregistered");
        assert_eq!(self.it.read_one(self.good(0)).0, REFUSED, "deregistered");
        self.rkey = {
            assert_eq!(self.side.ask("register"), "registered");
            self.side.ask("rkey").parse().expect("a key")
        };
        self.recovers();
        // What carries a READ beneath is not seen above.
        assert_eq!(self.side.ask("events"), "");
        self.passed("what_must_not_be_read_is_refused");
    }

    /// 12, or 10 where the provider was told so.
    fn wrong_key_status() -> WcStatus {
        match std::env::var("DC_PROVIDER_WRONG_KEY").as_deref() {
            Ok("10") => REFUSED,
            _ => SILENCE,
        }
    }

    fn a_wrong_key_fails(&mut self) {
        // The last differs in the upper half alone: all 64 bits count.
        for bit in [0, 31, 63] {
            let target = self.target.with_key(self.target.key.0 ^ 1 << bit);
            let (status, took) = self.it.read_one(Read::of(target, self.rkey, 0));
            assert_eq!(status, Self::wrong_key_status(), "bit {bit}");
            if status == SILENCE {
                self.in_time(took);
            }
            self.recovers();
        }
        self.passed("a_wrong_key_fails");
    }

    fn another_targets_key_fails(&mut self) {
        let other = new_target(&mut self.side);
        assert_eq!(self.it.read_one(Read::of(other, self.rkey, 0)).0, SUCCESS);
        let mixed = other.with_key(self.target.key.0);
        assert_eq!(self.it.read_one(Read::of(mixed, self.rkey, 0)).0, Self::wrong_key_status());
        self.recovers();
        assert_eq!(self.it.read_one(Read::of(other, self.rkey, 0)).0, SUCCESS);
        assert_eq!(self.side.ask(&format!("destroy {}", other.name)), "destroyed");
        self.passed("another_targets_key_fails");
    }

    fn a_failure_flushes_what_is_behind_it(&mut self) {
        let healthy = new_target(&mut self.side);
        let mut reads: Vec<Read> = (0..3).map(|at| self.good(at * PAGE)).collect();
        reads.push(Read { rkey: self.rkey ^ 0x5500, ..self.good(0) });
        reads.extend((0..4).map(|at| Read::of(healthy, self.rkey, at * PAGE)));
        let (statuses, _) = self.it.read(&reads);
        assert_eq!(statuses[..3], [SUCCESS; 3]);
        assert_eq!(statuses[3], REFUSED);
        assert_eq!(statuses[4..], [FLUSHED; 4], "reads of a healthy target");
        assert_eq!(self.it.dci.query_state().expect("a state"), QpState::Err);
        // What comes before the reset is flushed, and not swallowed.
        assert_eq!(self.it.read(&reads[4..]).0, [FLUSHED; 4]);
        self.it.reset();
        assert_eq!(self.it.read(&reads[4..]).0, [SUCCESS; 4]);
        assert_eq!(self.side.ask(&format!("destroy {}", healthy.name)), "destroyed");
        self.passed("a_failure_flushes_what_is_behind_it");
    }

    fn a_reset_takes_completions_away(&mut self) {
        let reads: Vec<Read> = (0..8).map(|at| self.good(at * PAGE)).collect();
        let landing = self.it.post(&reads);
        // All eight are in the CQ, or on their way to it.
        std::thread::sleep(Duration::from_millis(300));
        self.it.reset();
        // A reset says nothing of buffers; the pool has more.
        drop(landing);
        let (statuses, _) = self.it.read(&reads[..2]);
        assert_eq!(statuses, [SUCCESS; 2]);
        self.it.bench.cq.arm().expect("to arm");
        let late = &mut [mitosis::verbs::Wc::empty(); 8];
        assert!(self.it.bench.cq.poll(late).expect("to poll").is_empty());
        self.passed("a_reset_takes_completions_away");
    }

    fn a_destroyed_target_is_noticed_in_time(&mut self) {
        let target = new_target(&mut self.side);
        let read = Read::of(target, self.rkey, 0);
        assert_eq!(self.it.read_one(read).0, SUCCESS);
        assert_eq!(self.side.ask(&format!("destroy {}", target.name)), "destroyed");
        // The first finds a connection that leads nowhere, the second none.
        for _ in 0..2 {
            let (status, took) = self.it.read_one(read);
            assert_eq!(status, SILENCE);
            self.in_time(took);
            self.recovers();
        }
        self.passed("a_destroyed_target_is_noticed_in_time");
    }

    fn a_dead_process_is_noticed_in_time(&mut self) {
        let words = numbers(&self.side.ask("victim"));
        let target = Target::from_words(&words);
        let rkey = u32::try_from(words[3]).expect("a key");
        assert_eq!(self.it.read_one(Read::of(target, rkey, 0)).0, SUCCESS);
        assert_eq!(self.side.ask("kill"), "killed");
        let (status, took) = self.it.read_one(Read::of(target, rkey, 0));
        assert_eq!(status, SILENCE);
        self.in_time(took);
        self.recovers();
        self.passed("a_dead_process_is_noticed_in_time");
    }

    fn a_target_that_never_was_is_noticed_in_time(&mut self) {
        let nobody = Target::from_words(&[0, 0xff_fff0, 1]);
        let (status, took) = self.it.read_one(Read::of(nobody, self.rkey, 0));
        assert_eq!(status, SILENCE);
        self.in_time(took);
        self.recovers();
        self.passed("a_target_that_never_was_is_noticed_in_time");
    }

    fn two_processes_read_of_one_target(&mut self) {
        let own = std::env::current_exe().expect("this program");
        let words = [u64::from(self.target.dctn.number()), self.target.key.0, self.rkey.into()];
        let mut other = Command::new(own)
            .args(["second", &self.owner.to_string()])
            .args(words.map(|word| word.to_string()))
            .spawn()
            .expect("a process");
        for at in 0..50 {
            assert_eq!(self.it.read_one(self.good(at * PAGE)).0, SUCCESS);
        }
        assert!(other.wait().expect("its end").success());
        self.passed("two_processes_read_of_one_target");
    }
}
