//! A peer that says nothing: how long until a card gives up is a setting; and who is killed while a READ hangs
//! takes nobody along.

use mitosis_guests::Job;

use crate::world::{HOST_A, HOST_B, PATIENCE, World, number_of, shared, until};

/// 1 MiB.
const WORDS: usize = 1 << 17;
/// What the agents are asked to bear, and what that is by docs/rdma.md: 67.1 ms and 1.07 s.
const QUICK_MS: &str = "67";
const SLOW_MS: &str = "1000";
/// Longer than the link is down, in which tcp has nothing either.
const DEADLINE_MS: &str = "30000";
/// In an agent's log, once a card has given up.
const NOTICED: &str = "pages of this peer are read over tcp for now";
/// Children wait for this file.
const GO: &str = "/tmp/silence-go";
const KILLED: i32 = 128 + 9;

/// A second or third agent of host-b, for callers there.
struct Agent {
    job: Job,
    socket: String,
}

impl Agent {
    fn begin(world: &World, name: &str, silence_ms: &str, port: &str) -> Agent {
        let socket = format!("/tmp/{name}.sock");
        let command = ["env", "MITOSIS_FABRIC=rc,require", "mitosis", "agent", "--socket", &socket];
        let options = ["--listen", port, "--secret-file", "/host/files/secret"];
        let times = ["--rdma-silence-ms", silence_ms, "--miss-deadline-ms", DEADLINE_MS];
        let argv = [&command[..], &options, &times].concat();
        Agent { job: world.guests.node(HOST_B).run(&argv).unwrap(), socket }
    }

    /// A child of the seed.
    fn child(&self, world: &World, handle: &str, commands: &str) -> Job {
        let argv = ["mitosis", "resume", handle, "--socket", &self.socket, "--payload", commands];
        world.guests.node(HOST_B).run(&argv).unwrap()
    }

    /// READs that its card has had.
    fn reads(&self, world: &World) -> usize {
        let argv = ["mitosis", "stats", "--json", "--socket", &self.socket];
        number_of(&world.run(HOST_B, &argv).ok().unwrap(), "rdma_reads")
    }

    /// When it has noticed, in the words of its log, which sort as time goes.
    fn noticed(&self) -> Option<String> {
        let log = self.job.errors();
        let line = log.lines().find(|line| line.contains(NOTICED))?;
        Some(line.split_whitespace().next().expect("a time").to_owned())
    }

    fn end(self, world: &World) {
        world.run(HOST_B, &["mitosis", "shutdown", "--socket", &self.socket]).ok().unwrap();
        assert_eq!(self.job.end(PATIENCE).unwrap().status, 0);
    }
}

/// Two agents that differ in nothing else miss a page of the same seed while its machine's link is down: the one that
/// is to bear less notices first. A child that is killed meanwhile is gone, and the others have their pages when
/// the link is up again.
#[test]
fn the_time_to_notice_is_a_setting_and_a_child_may_be_killed_in_it() {
    let world = shared("rc");
    let seed = world.seed_of(WORDS);
    let mut quick = Agent::begin(&world, "quick", QUICK_MS, "7372");
    let mut slow = Agent::begin(&world, "slow", SLOW_MS, "7373");
    for agent in [&mut quick, &mut slow] {
        agent.job.line(PATIENCE).unwrap();
    }
    world.run(HOST_B, &["rm", "-f", GO]).ok().unwrap();
    // Until it is known where the seed's card is, pages come by tcp.
    for agent in [&quick, &slow] {
        let mut pages = (32..96).step_by(8);
        until("the card is used", || {
            let page = pages.next().expect("a page that nobody has read");
            let read = agent.child(&world, &seed.handle, &format!("read {page} 1;exit 7"));
            assert_eq!(read.end(PATIENCE).unwrap().status, 7);
            agent.reads(&world) > 0
        });
        assert_eq!(agent.noticed(), None, "{}", agent.job.errors());
    }
    let mut children = [(&quick, 160), (&quick, 208), (&slow, 160)].map(|(agent, page)| {
        let commands = format!("pid;read 0 8;await {GO};read {page} 1;exit 7");
        agent.child(&world, &seed.handle, &commands)
    });
    let pids = children.each_mut().map(|child| {
        let pid = child.line(PATIENCE).unwrap();
        let lines = [child.line(PATIENCE).unwrap(), child.line(PATIENCE).unwrap()];
        assert_eq!(lines, ["read 8 pages", "waiting"]);
        pid.strip_prefix("pid ").expect("the child's pid").to_owned()
    });
    world.run(HOST_A, &["ip", "link", "set", "eth0", "down"]).ok().unwrap();
    world.run(HOST_B, &["touch", GO]).ok().unwrap();
    let [doomed, first, second] = children;
    world.run(HOST_B, &["kill", "-9", &pids[0]]).ok().unwrap();
    until("both notice", || quick.noticed().is_some() && slow.noticed().is_some());
    world.run(HOST_A, &["ip", "link", "set", "eth0", "up"]).ok().unwrap();
    let (sooner, later) = (quick.noticed(), slow.noticed());
    println!("noticed: {QUICK_MS} ms at {sooner:?}, {SLOW_MS} ms at {later:?}");
    assert!(sooner < later, "{sooner:?}, {later:?}");
    assert_eq!(doomed.end(PATIENCE).unwrap().status, KILLED);
    world.assert_gone(&pids[0]);
    for child in [first, second] {
        let ended = child.end(PATIENCE).unwrap();
        assert_eq!((ended.status, ended.err.as_str()), (7, ""), "{ended:?}");
    }
    [quick, slow].into_iter().for_each(|agent| agent.end(&world));
}
