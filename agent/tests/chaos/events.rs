//! What happens, and what becomes of whom.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::judge::{RIGHT, Texts};
use crate::process::Process;
use crate::world::{Machine, Plan, SOON, Seed, Seen, World, within_or};

/// Resumes that run at a time.
const MOST_RUNNING: usize = 8;
/// Seeds at a time.
const MOST_SEEDS: usize = 5;
/// The longest that anybody waits who is told of everything: the library's for its agent (60 s), and a loaded machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// The longest rest between two events, and fault that ends by itself.
const REST_MS: u64 = 700;
const FAULT_MS: u64 = 2500;

/// Two hosts, who runs there, and what is amiss.
#[derive(Debug)]
pub(crate) struct Chaos {
    world: World,
    chance: u64,
    begun: Instant,
    seeds: Vec<Placed>,
    running: Vec<Running>,
    /// Faults that are there, and when they end.
    amiss: Vec<(Instant, Fault)>,
    texts: Texts,
    events: u32,
    right: u32,
    failed: u32,
    failures: Vec<String>,
}

#[derive(Debug)]
struct Placed {
    seed: Seed,
    host: usize,
}

/// A resume.
#[derive(Debug)]
struct Running {
    what: String,
    caller: Process,
    since: Instant,
}

#[derive(Debug, Clone, Copy)]
enum Fault {
    Cut,
    Lossy,
    Stopped(i32),
}

impl Chaos {
    pub(crate) fn begin(seed: u64) -> Chaos {
        let agents =
            vec!["--miss-deadline-ms", "2000", "--peer-deadline-ms", "2000", "--linger-s", "2"];
        let world = World::with(Plan { agents, programs_on_b: true, ..Plan::default() });
        Chaos {
            world,
            chance: seed,
            begun: Instant::now(),
            seeds: Vec::new(),
            running: Vec::new(),
            amiss: Vec::new(),
            texts: Texts::read(),
            events: 0,
            right: 0,
            failed: 0,
            failures: Vec::new(),
        }
    }

    /// splitmix64, below a limit.
    fn below(&mut self, limit: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.chance;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }

    fn choose(&mut self, among: usize) -> usize {
        usize::try_from(self.below(among as u64)).unwrap_or_default()
    }

    fn say(&mut self, what: &str) {
        self.events += 1;
        println!("{:8.2} s  {what}", self.begun.elapsed().as_secs_f64());
    }

    fn machine(&self, host: usize) -> &Machine {
        if host == 0 { &self.world.a } else { &self.world.b }
    }

    /// The next event, and the rest behind it.
    pub(crate) fn happen(&mut self) {
        let event = self.below(100);
        let rest = self.below(REST_MS);
        match event {
            0..45 => self.start_children(),
            45..60 => self.make_seed(),
            60..67 => self.drop_seed(),
            67..72 => self.kill_seed(),
            72..78 => self.kill_child(),
            78..86 => self.cut(),
            86..94 => self.stop_agent(),
            94..97 => self.kill_agent(),
            _ => self.kill_keeper(),
        }
        let until = Instant::now() + Duration::from_millis(rest);
        while Instant::now() < until {
            self.look();
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn start_children(&mut self) {
        let (index, on) = (self.choose(MOST_SEEDS), self.choose(2));
        let (count, pages) = (1 + self.below(4), 64 + self.below(1500));
        if self.running.len() >= MOST_RUNNING || self.seeds.is_empty() {
            return;
        }
        let placed = &self.seeds[index % self.seeds.len()];
        let host = ["host-a", "host-b"][on];
        let what = format!("{count} children of {} on {host}", placed.seed.id());
        let commands = format!("scatter {pages};write 0 64;read 64 1984;exit {RIGHT}");
        let (count, handle) = (count.to_string(), placed.seed.handle.clone());
        let arguments = ["resume", &handle, "--on", host, "-n", &count, "--payload", &commands];
        let caller = self.world.mitosis(&self.world.a, &arguments);
        self.say(&what);
        self.running.push(Running { what, caller, since: Instant::now() });
    }

    /// Where nothing is amiss: who waits for its handle is in docs/failures.md.
    fn make_seed(&mut self) {
        let host = self.choose(2);
        if self.seeds.len() < MOST_SEEDS && self.amiss.is_empty() {
            let seed = self.world.seed_of(self.machine(host), "suite-told", &[]);
            self.say(&format!("a seed, {}, on {}", seed.id(), self.machine(host).name));
            self.seeds.push(Placed { seed, host });
        }
    }

    fn drop_seed(&mut self) {
        let (index, revoked) = (self.choose(MOST_SEEDS), self.below(2) == 0);
        if index >= self.seeds.len() || !self.amiss.is_empty() {
            return;
        }
        let Placed { seed, host } = self.seeds.swap_remove(index);
        self.say(&format!("drop {}{}", seed.id(), if revoked { ", at once" } else { "" }));
        let how: &[&str] = if revoked { &["--revoke"] } else { &[] };
        self.world.mitosis(self.machine(host), &[&["drop"], how, &[seed.id()]].concat()).end().ok();
    }

    fn kill_seed(&mut self) {
        let index = self.choose(MOST_SEEDS);
        if index < self.seeds.len() {
            let Placed { seed, host } = self.seeds.swap_remove(index);
            self.say(&format!("kill seed {}", seed.id()));
            kill(self.machine(host).process(seed.pid).map(|seen| seen.pid), "KILL");
        }
    }

    fn kill_child(&mut self) {
        let (host, index) = (self.choose(2), self.choose(8));
        let children = self.machine(host).children_of_keeper();
        if let Some(child) = children.get(index).map(|seen| seen.pid) {
            self.say(&format!("kill a child or a template of {}", self.machine(host).name));
            kill(Some(child), "KILL");
        }
    }

    fn cut(&mut self) {
        let (lossy, ms) = (self.below(2) == 0, 100 + self.below(FAULT_MS));
        let is_there = |fault: &Fault| matches!(fault, Fault::Cut | Fault::Lossy);
        if self.amiss.iter().any(|(_, fault)| is_there(fault)) {
            return;
        }
        let (fault, what) = if lossy {
            self.world.pair.lose_packets(50).unwrap();
            (Fault::Lossy, "lose one packet of 20")
        } else {
            self.world.pair.cut_link().unwrap();
            (Fault::Cut, "cut the link")
        };
        self.say(&format!("{what} for {ms} ms"));
        self.amiss.push((Instant::now() + Duration::from_millis(ms), fault));
    }

    fn stop_agent(&mut self) {
        let (host, ms) = (self.choose(2), 100 + self.below(FAULT_MS));
        let is_there = |fault: &Fault| matches!(fault, Fault::Stopped(_));
        if self.amiss.iter().any(|(_, fault)| is_there(fault)) {
            return;
        }
        let agent = self.machine(host).agent_seen().expect("an agent").pid;
        self.say(&format!("stop the agent of {} for {ms} ms", self.machine(host).name));
        kill(Some(agent), "STOP");
        self.amiss.push((Instant::now() + Duration::from_millis(ms), Fault::Stopped(agent)));
    }

    fn kill_agent(&mut self) {
        let host = self.choose(2);
        self.say(&format!("kill the agent of {}", self.machine(host).name));
        let machine = if host == 0 { &mut self.world.a } else { &mut self.world.b };
        machine.kill_agent();
        // Its seeds are the next one's.
        self.world.start_agent(host);
        let machine = self.machine(host);
        let is_keeper = |seen: &&Seen| seen.command.contains("mitosis keeper");
        let keepers = || machine.processes().iter().filter(is_keeper).count();
        within_or(SOON, || keepers() == 1, || format!("a keeper of {} is left", machine.name));
    }

    fn kill_keeper(&mut self) {
        let host = self.choose(2);
        // A stopped agent would not notice.
        self.make_whole();
        self.say(&format!("kill the keeper of {}", self.machine(host).name));
        kill(Some(self.machine(host).keeper().pid), "KILL");
        let machine = if host == 0 { &mut self.world.a } else { &mut self.world.b };
        machine.agent.take().expect("an agent").end();
        self.start_agent(host);
    }

    fn start_agent(&mut self, host: usize) {
        let machine = self.machine(host);
        let left =
            || machine.processes().iter().any(|seen| seen.command.contains("mitosis keeper"));
        within_or(SOON, || !left(), || format!("the keeper of {} is left", machine.name));
        self.seeds.retain(|placed| placed.host != host);
        self.world.start_agent(host);
    }

    /// Ends faults whose time is over, and looks who has ended.
    fn look(&mut self) {
        let now = Instant::now();
        let (over, amiss): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.amiss).into_iter().partition(|(until, _)| *until <= now);
        self.amiss = amiss;
        over.into_iter().for_each(|(_, fault)| self.undo(fault));
        // Of a stopped agent's resumes the pipes are not at their ends.
        if self.amiss.iter().any(|(_, fault)| matches!(fault, Fault::Stopped(_))) {
            return;
        }
        let running = std::mem::take(&mut self.running);
        for mut one in running {
            if one.caller.has_ended() {
                self.judge(one);
            } else if one.since.elapsed() > PATIENCE {
                self.failures.push(format!("{}: it hangs", one.what));
            } else {
                self.running.push(one);
            }
        }
    }

    fn judge(&mut self, one: Running) {
        match self.texts.judge(&one.what, &one.caller.end()) {
            Ok(true) => self.right += 1,
            Ok(false) => self.failed += 1,
            Err(why) => {
                println!("            WRONG {why}");
                self.failures.push(why);
            }
        }
    }

    fn undo(&self, fault: Fault) {
        match fault {
            Fault::Cut => self.world.pair.restore_link().unwrap(),
            Fault::Lossy => self.world.pair.lose_packets(0).unwrap(),
            Fault::Stopped(agent) => kill(Some(agent), "CONT"),
        }
    }

    fn make_whole(&mut self) {
        std::mem::take(&mut self.amiss).into_iter().for_each(|(_, fault)| self.undo(fault));
    }

    /// How many were right and how many failed, and what is wrong.
    pub(crate) fn end(mut self) -> (String, Vec<String>) {
        self.make_whole();
        while !self.running.is_empty() {
            self.look();
            std::thread::sleep(Duration::from_millis(5));
        }
        let seeds = std::mem::take(&mut self.seeds);
        let living = seeds.len();
        for Placed { seed, host } in seeds {
            for on in ["host-a", "host-b"] {
                let commands = format!("read 0 all;exit {RIGHT}");
                let arguments = ["resume", &seed.handle, "--on", on, "--payload", &commands];
                let child = self.world.on_a(&arguments);
                if child.code != Some(RIGHT) {
                    self.failures.push(format!("at the end, {} on {on}: {child:?}", seed.id()));
                }
            }
            self.world.mitosis(self.machine(host), &["drop", seed.id()]).end().ok();
        }
        let tally = format!(
            "{} events, {} resumes right, {} told why not, {living} seeds alive at the end",
            self.events, self.right, self.failed
        );
        if self.right == 0 {
            self.failures.push("no child was right".to_owned());
        }
        self.world.settled(&self.world.a);
        self.world.settled(&self.world.b);
        self.world.finish();
        (tally, self.failures)
    }
}

/// Who has ended already is nobody any more.
fn kill(pid: Option<i32>, signal: &str) {
    if let Some(pid) = pid {
        let _ = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).output();
    }
}
