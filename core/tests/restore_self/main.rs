//! Restores a real process, needs root: a seed stand-in parks itself in a signal handler, its memory is
//! copied into a memfd in place of an image, and templates and children are made of it.
//!
//! This program is its own keeper (`keeper --fd 0`), its own seed (`seed DIRECTORY`), and what an agent is that
//! the kernel refuses pid namespaces (`refused`).
#![allow(missing_docs)]

mod refused;
mod seed;
mod threads;
mod world;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use mitosis::descriptor::{Clocks, Descriptor};
use mitosis::resume::{Entering, ResumeError};
use world::World;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    match arguments.get(1).map(String::as_str) {
        Some("keeper") => {
            let socket = std::io::stdin().as_fd().try_clone_to_owned().expect("the socket is fd 0");
            mitosis::keeper::run(socket, None)
        }
        Some("agent") => World::new().hold_a_child(),
        Some("refused") => refused::run(),
        Some("seed") => {
            let is_whole = arguments.get(3).is_some();
            seed::run(std::path::Path::new(&arguments[2]), is_whole)
        }
        _ => run_tests(),
    }
}

fn run_tests() {
    type Test = fn(&mut World);
    let tests: [(&str, Test); 10] = [
        ("a_child_goes_on_where_the_seed_stopped", a_child_goes_on_where_the_seed_stopped),
        ("a_hundred_children_differ_in_what_they_were_told", a_hundred_children),
        ("a_template_has_the_clock_of_the_seeds_host", a_template_has_the_clock_of_the_seeds_host),
        ("a_failing_program_names_its_step", a_failing_program_names_its_step),
        ("a_failing_tail_names_its_step", a_failing_tail_names_its_step),
        ("a_killed_child_is_told_of", a_killed_child_is_told_of),
        ("memory_of_every_kind_is_as_it_was", memory_of_every_kind_is_as_it_was),
        ("the_mail_has_a_limit", the_mail_has_a_limit),
        ("a_killed_agent_leaves_nothing_after_the_grace", a_killed_agent_leaves_nothing),
        ("a_killed_keeper_leaves_nothing", a_killed_keeper_leaves_nothing),
    ];
    let mut world = World::new();
    println!("running {} tests", tests.len());
    for (name, test) in &tests {
        print!("test {name} ... ");
        test(&mut world);
        println!("ok");
    }
    drop(world);
    let whole: [(&str, Test); 7] = [
        ("all_threads_go_on_as_they_were", all_threads_go_on_as_they_were),
        ("threads_wait_in_a_child_that_was_cloned_ahead", threads_ahead),
        ("a_failing_step_of_a_thread_is_named", a_failing_step_of_a_thread_is_named),
        ("a_whole_child_ends_as_it_does", a_whole_child_ends_as_it_does),
        ("the_init_takes_orphans_and_ends_last", the_init_takes_orphans_and_ends_last),
        ("new_ids_that_cannot_be_helped_are_told_of", new_ids_that_cannot_be_helped_are_told_of),
        ("a_child_whose_namespace_is_refused_has_its_stdio", |_| refused::spawn()),
    ];
    let mut world = World::whole();
    for (name, test) in &whole {
        print!("test {name} ... ");
        test(&mut world);
        println!("ok");
    }
    println!("test result: ok. {} passed", tests.len() + whole.len());
}

fn a_child_goes_on_where_the_seed_stopped(world: &mut World) {
    let begun = Instant::now();
    let template = world.template();
    let ready = begun.elapsed();
    let child = world.child(&template, 0, b"hello");
    let line = child.read_line();
    let running = begun.elapsed() - ready;
    assert_eq!(line, "child 0 generation 1 payload hello sum ok argv seed env A=1 brk ok");
    assert_eq!(world.end_of(child.pid), 42 << 8);
    print!("(template {ready:?}, first child {running:?}) ");
}

fn a_hundred_children(world: &mut World) {
    let template = world.template();
    let mut times = Vec::new();
    for round in 0..2 {
        let mut children = Vec::new();
        for index in 0..100u32 {
            let begun = Instant::now();
            let child = world.child(&template, index, format!("p{index}").as_bytes());
            times.push(begun.elapsed());
            children.push(child);
        }
        for (index, child) in children.into_iter().enumerate() {
            let line = child.read_line();
            assert!(
                line.starts_with(&format!("child {index} generation 1 payload p{index} ")),
                "{line}"
            );
            assert_eq!(world.end_of(child.pid), 42 << 8, "round {round}");
        }
    }
    times.sort();
    print!("(clone median {:?}, ", times[times.len() / 2]);
    let mut turns: Vec<Duration> = (0..100)
        .map(|index| {
            let begun = Instant::now();
            let child = world.child(&template, index, b"clock");
            child.read_line();
            let turn = begun.elapsed();
            world.end_of(child.pid);
            turn
        })
        .collect();
    turns.sort();
    print!("to its first line {:?}) ", turns[turns.len() / 2]);
}

fn a_template_has_the_clock_of_the_seeds_host(world: &mut World) {
    let day = Duration::from_secs(86_400);
    let ahead = i64::try_from(day.as_nanos()).expect("fits");
    for days in [1u32, 2, 0, 1] {
        let (offset_ns, least) = (ahead * i64::from(days), day * days);
        let offset = Clocks { monotonic_ns: offset_ns, boottime_ns: offset_ns };
        let template = world.template_with(offset, |_| {}).expect("a template");
        let now = world::monotonic();
        let child = world.child(&template, 0, b"clock");
        let told = child.read_line().rsplit(' ').next().and_then(|ns| ns.parse().ok());
        let told = Duration::from_nanos(told.expect("the child tells its clock"));
        world.end_of(child.pid);
        let ahead = told - now;
        assert!(
            ahead >= least && ahead < least + Duration::from_secs(10),
            "{days} days: {ahead:?}"
        );
    }
}

fn a_failing_program_names_its_step(world: &mut World) {
    let error = world
        .template_with(Clocks::default(), |desc| desc.process.auxv = vec![0; 4096])
        .unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, ResumeError::Step { .. }), "{text}");
    assert!(text.contains("prctl(35, 14, ") && text.contains("Invalid argument"), "{text}");
}

fn a_failing_tail_names_its_step(world: &mut World) {
    let template = world
        .template_with(Clocks::default(), |desc| desc.threads[0].robust_list.1 = 7)
        .expect("a template");
    let child = world.child(&template, 3, b"");
    assert_eq!(world.end_of(child.pid), 127 << 8);
    let text = template.why_failed(child.id, Entering::default()).expect("a reason");
    assert!(text.contains("set_robust_list") && text.contains("Invalid argument"), "{text}");
    assert_eq!(template.why_failed(child.id, Entering::default()), None);
}

fn a_killed_child_is_told_of(world: &mut World) {
    let template = world.template();
    let child = world.child(&template, 0, b"wait");
    world.keeper.kill(child.pid, libc::SIGTERM).expect("it runs");
    assert_eq!(world.end_of(child.pid), libc::SIGTERM);
    let gone = world.keeper.kill(child.pid, libc::SIGTERM).unwrap_err().to_string();
    assert!(gone.contains("No such process"), "{gone}");
    drop(template);
}

fn a_killed_keeper_leaves_nothing(world: &mut World) {
    let template = world.template();
    let children: Vec<u32> = (0..5).map(|i| world.child(&template, i, b"wait").pid).collect();
    assert!(children.iter().all(|pid| world::is_alive(*pid)));
    world::kill(world.keeper.pid());
    let deadline = Instant::now() + Duration::from_secs(2);
    while children.iter().chain([&template.pid()]).any(|pid| world::is_alive(*pid)) {
        assert!(Instant::now() < deadline, "children outlive their keeper");
        std::thread::sleep(Duration::from_millis(1));
    }
    // The ends of earlier templates, and then the end of the channel.
    let exits = world.keeper.exits();
    while let Ok(_earlier) = exits.recv_deadline(deadline) {}
    assert!(Instant::now() < deadline, "the agent is not told");
    let error = world.template_with(Clocks::default(), |_| {}).unwrap_err();
    assert!(error.to_string().contains("keeper"), "{error}");
}

fn memory_of_every_kind_is_as_it_was(world: &mut World) {
    let template = world.template();
    for index in 0..2 {
        let child = world.child(&template, index, b"memory");
        let line = child.read_line();
        assert_eq!(line, "wiped 0 dontfork 2 shared 3 sparse 4 hidden 5 grown ok exe ok");
        assert_eq!(world.end_of(child.pid), 0);
    }
}

fn the_mail_has_a_limit(world: &mut World) {
    let template = world.template();
    let largest = vec![b'x'; mitosis::prepare::MAX_MAIL_BYTES - world::ENVIRONMENT.len()];
    let child = world.child(&template, 0, &largest);
    assert!(child.read_line().contains(" sum ok "));
    world.end_of(child.pid);
    let error = world.try_child(&template, &[largest.as_slice(), b"x"].concat()).unwrap_err();
    assert!(matches!(error, ResumeError::MailTooLarge { .. }), "{error}");
}

fn a_killed_agent_leaves_nothing(_: &mut World) {
    let mut agent = world::spawn_agent();
    let pids = agent.pids();
    assert!(pids.len() == 3 && pids.iter().all(|pid| world::is_alive(*pid)), "{pids:?}");
    let killed = Instant::now();
    agent.kill();
    // The template goes at once: there is nobody to ask it for children.
    let [keeper, _, child] = pids[..] else { panic!("three pids") };
    let grace = mitosis::keeper::AGENT_GRACE;
    while world::is_alive(child) || world::is_alive(keeper) {
        assert!(killed.elapsed() < grace + Duration::from_secs(5), "they outlive their agent");
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(killed.elapsed() >= grace, "no grace was given");
}

fn all_threads_go_on_as_they_were(world: &mut World) {
    let template = world.template();
    let standing = threads::THREADS;
    for (payload, same_pid) in [(&b"threads"[..], true), (b"renumbered", false)] {
        let child = world.child(&template, 0, payload);
        let line = child.read_line();
        let right = format!("standing {standing} early 0 wrong [] pid ");
        let pid = line.strip_prefix(&right).unwrap_or_else(|| panic!("{line}"));
        assert_eq!(pid.parse() == Ok(world.seed_pid()), same_pid, "{pid}");
        assert_eq!(child.init.is_some(), same_pid);
        assert_eq!(world.end_of(child.pid), 7 << 8);
        if let Some(init) = child.init {
            assert_eq!(world.end_of(init), 0);
        }
    }
}

fn threads_ahead(world: &mut World) {
    let template = world.template();
    let mut times: [Vec<Duration>; 2] = Default::default();
    for round in 0..40 {
        let ahead = round % 2;
        if ahead == 1 {
            template.clone_ahead(1).expect("a clone");
            std::thread::sleep(Duration::from_millis(5));
        }
        let begun = Instant::now();
        let child = world.child(&template, 0, b"clock");
        assert!(child.read_line().starts_with("clock "));
        times[ahead].push(begun.elapsed());
        assert_eq!(world.end_of(child.pid), 0);
        assert_eq!(world.end_of(child.init.expect("an init")), 0);
    }
    let [now, ahead] = times.map(|mut times| {
        times.sort();
        times[times.len() / 2]
    });
    print!("(to its first line {now:?}, cloned ahead {ahead:?}) ");
    template.clone_ahead(1).expect("a clone");
    std::thread::sleep(Duration::from_millis(5));
    let child = world.child(&template, 0, b"threads");
    let line = child.read_line();
    assert!(line.contains(" early 0 wrong [] pid "), "{line}");
    assert_eq!(world.end_of(child.pid), 7 << 8);
}

fn a_failing_step_of_a_thread_is_named(world: &mut World) {
    let broken = |desc: &mut Descriptor| desc.threads[4].robust_list.1 = 7;
    let template = world.template_with(Clocks::default(), broken).expect("a template");
    let child = world.child(&template, 0, b"threads");
    assert_eq!(world.end_of(child.pid), 127 << 8);
    let text = template.why_failed(child.id, Entering::default()).expect("a reason");
    for part in ["set_robust_list", "Invalid argument", "(worker-"] {
        assert!(text.contains(part), "{text}");
    }
}

fn a_whole_child_ends_as_it_does(world: &mut World) {
    let template = world.template();
    let child = world.child(&template, 0, b"crash");
    assert_eq!(world.end_of(child.pid) & 0x7f, libc::SIGSEGV);
    for signal in [libc::SIGKILL, libc::SIGTERM] {
        let child = world.child(&template, 0, b"wait");
        world.keeper.kill(child.pid, signal).expect("it runs");
        assert_eq!(world.end_of(child.pid), signal);
        assert_eq!(world.end_of(child.init.expect("an init")), 0);
    }
    // Whoever kills the init kills its namespace.
    let child = world.child(&template, 0, b"wait");
    world.keeper.kill(child.init.expect("an init"), libc::SIGKILL).expect("it runs");
    assert_eq!(world.end_of(child.pid), libc::SIGKILL);
}

fn the_init_takes_orphans_and_ends_last(world: &mut World) {
    let template = world.template();
    let child = world.child(&template, 0, b"orphan");
    assert_eq!(child.read_lines(), ["parent 0", "outlived 1"]);
    assert_eq!(world.end_of(child.pid), 0);
    assert_eq!(world.end_of(child.init.expect("an init")), 0);
}

fn new_ids_that_cannot_be_helped_are_told_of(world: &mut World) {
    // The first process of a container.
    let first = |desc: &mut Descriptor| desc.threads[0].tid = 1;
    let template = world.template_with(Clocks::default(), first).expect("a template");
    world.is_refused = true;
    for is_ahead in [false, true] {
        if is_ahead {
            template.clone_ahead(1).expect("a clone");
            std::thread::sleep(Duration::from_millis(50));
        }
        let child = world.child(&template, 0, b"clock");
        assert!(child.read_line().starts_with("clock "));
        assert_eq!(child.init, None);
        assert_eq!(world.end_of(child.pid), 0);
    }
    world.is_refused = false;
}
