//! Memory is exact: every byte of a child on another host is its seed's, and memory calls do there what they
//! do in a process that was never forked.

use std::fs::File;
use std::os::unix::fs::FileExt;

use crate::process::within;
use crate::world::{Machine, Plan, SOON, Seed, World, program};

const PAGE: u64 = 4096;
const PAGE_BYTES: usize = 4096;
/// pagemap: the page is a file's, or shared; and: it is there.
const FILE_PAGE: u64 = 1 << 61;
const PRESENT: u64 = 1 << 63;
/// A child writes its stack, libc's state and libmitosis's own while it wakes up, and no more.
const MAX_WRITTEN: usize = 600;

/// Pages of code in which a memory call is led to the stub.
const MAX_PATCHED: usize = 100;
/// A number or an argument is moved, `syscall`; in its place stands a jump, before the same `syscall`.
const SITE_BYTES: usize = 7;
const JUMP: u8 = 0xe9;

#[derive(Debug, Clone)]
struct Mapping {
    start: u64,
    end: u64,
    access: String,
    name: String,
}

fn mappings(pid: i32) -> Vec<Mapping> {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let parse = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (start, end) = fields[0].split_once('-').unwrap();
        let hex = |text| u64::from_str_radix(text, 16).unwrap();
        let name = fields.get(5..).map_or_else(String::new, |name| name.join(" "));
        Mapping { start: hex(start), end: hex(end), access: fields[1].to_owned(), name }
    };
    maps.lines().map(parse).collect()
}

type Page = [u8; PAGE_BYTES];

/// The memory of a process, whatever its protection.
struct Memory {
    bytes: File,
    pages: File,
}

impl Memory {
    fn of(pid: i32) -> Memory {
        let open = |name: &str| File::open(format!("/proc/{pid}/{name}")).unwrap();
        Memory { bytes: open("mem"), pages: open("pagemap") }
    }

    fn page(&self, at: u64) -> Option<Page> {
        let mut bytes = [0; PAGE_BYTES];
        self.bytes.read_exact_at(&mut bytes, at).ok().map(|()| bytes)
    }

    fn entry(&self, at: u64) -> u64 {
        let mut entry = [0; 8];
        self.pages.read_exact_at(&mut entry, at / PAGE * 8).unwrap();
        u64::from_le_bytes(entry)
    }

    /// The pages of a mapping; of sparse gigabytes those alone that are there.
    fn worth_looking(&self, mapping: &Mapping) -> Vec<u64> {
        let all = (mapping.start..mapping.end).step_by(PAGE_BYTES);
        if mapping.end - mapping.start < 1 << 28 {
            return all.collect();
        }
        let mut entries =
            vec![0; usize::try_from((mapping.end - mapping.start) / PAGE * 8).unwrap()];
        self.pages.read_exact_at(&mut entries, mapping.start / PAGE * 8).unwrap();
        let is_there = |entry: &[u8]| u64::from_le_bytes(entry.try_into().unwrap()) & PRESENT != 0;
        all.zip(entries.chunks(8)).filter(|(_, entry)| is_there(entry)).map(|(at, _)| at).collect()
    }

    /// The page is one of this process alone: it has written it.
    fn is_own(&self, at: u64) -> bool {
        let entry = self.entry(at);
        entry & PRESENT != 0 && entry & FILE_PAGE == 0
    }
}

fn outer(machine: &Machine, inner: u32) -> i32 {
    machine.process(inner).unwrap().pid
}

/// Whether two pages of code differ in calls that lead to the stub, and in nothing else. A site may begin on
/// the page before or end on the next one.
fn is_patched(before: &Option<Page>, after: &Option<Page>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return false };
    let mut at = 0;
    while let Some(differs) = (at..before.len()).find(|at| before[*at] != after[*at]) {
        let is_site = |start: usize| after[start] == JUMP && before[start] != JUMP;
        let Some(start) =
            (differs.saturating_sub(SITE_BYTES - 1)..=differs).find(|at| is_site(*at))
        else {
            return differs < SITE_BYTES - 1;
        };
        at = start + SITE_BYTES;
        if at > before.len() {
            return true;
        }
    }
    true
}

/// The first bytes that differ: where, before, after.
fn differences(before: &Option<Page>, after: &Option<Page>) -> Vec<(usize, u8, u8)> {
    let pairs = before.iter().flatten().zip(after.iter().flatten()).enumerate();
    pairs
        .filter(|(_, (old, new))| old != new)
        .map(|(at, (old, new))| (at, *old, *new))
        .take(16)
        .collect()
}

/// Every page that seed and child both map, but what the child has written.
fn compare(seed: i32, child: i32, regions: &[(String, u64, u64)]) -> (u64, usize) {
    let (theirs, ours) = (Memory::of(seed), Memory::of(child));
    let of_child = mappings(child);
    let (mut same, mut written, mut patched) = (0, 0, 0);
    for mapping in mappings(seed) {
        if mapping.name.starts_with("[v") || mapping.access.ends_with('s') {
            continue;
        }
        let carried =
            of_child.iter().any(|other| other.start < mapping.end && mapping.start < other.end);
        if !carried {
            // The seed's own scratch memory is no part of the process that was forked.
            let region =
                regions.iter().find(|(_, start, end)| *start < mapping.end && mapping.start < *end);
            assert!(region.is_none(), "{mapping:x?} is not in the child: {region:?}");
            continue;
        }
        for at in theirs.worth_looking(&mapping) {
            let region = regions.iter().find(|(_, start, end)| (*start..*end).contains(&at));
            let is_own = ours.is_own(at);
            let (before, after) = (theirs.page(at), ours.page(at));
            if before == after {
                same += 1;
            } else if mapping.access == "r-xp" && is_patched(&before, &after) {
                patched += 1;
            } else if is_own && region.is_none() {
                written += 1;
            } else {
                let differ = differences(&before, &after);
                panic!(
                    "page {at:x} of {mapping:x?} differs; region {region:?}; own {is_own}: {differ:x?}"
                );
            }
        }
    }
    assert!(patched < MAX_PATCHED, "{patched} pages of code are patched");
    (same, written)
}

#[test]
fn every_page_of_a_random_process_arrives() {
    let world = World::with(Plan { programs_on_b: true, ..Plan::default() });
    for seed_number in ["1", "2", "3"] {
        let own = world.directory.path().join("own-file").display().to_string();
        let common = program("suite-memory").display().to_string();
        let seed = world.seed_of(&world.a, "suite-memory", &[seed_number, &own, &common]);
        let regions: Vec<(String, u64, u64)> = seed
            .before
            .iter()
            .filter_map(|line| {
                let mut words = line.strip_prefix("region ")?.split(' ');
                let kind = words.next()?.to_owned();
                let mut hex = || u64::from_str_radix(words.next().unwrap(), 16).unwrap();
                Some((kind, hex(), hex()))
            })
            .collect();
        assert!(regions.len() > 60, "{:?}", seed.before);
        let mut caller =
            world.mitosis(&world.a, &["resume", "--json", &seed.handle, "--on", "host-b"]);
        let mut pid = None;
        let said = loop {
            let line = caller.line();
            if let Some(json) = line
                .starts_with('{')
                .then(|| serde_json::from_str::<serde_json::Value>(&line).unwrap())
            {
                pid = json["pid"].as_u64();
            } else if line.starts_with("exact ") {
                break line;
            } else {
                panic!("seed {seed_number}: {line}");
            }
        };
        assert!(said.contains("wrong 0"), "seed {seed_number}: {said}");
        assert_eq!(caller.line(), "waiting");
        let child = outer(&world.b, u32::try_from(pid.unwrap()).unwrap());
        let (same, written) = compare(outer(&world.a, seed.pid), child, &regions);
        println!(
            "seed {seed_number}: {said}; from outside {same} pages are the same, {written} were written"
        );
        assert!(same > 2000 && written < MAX_WRITTEN, "{same} same, {written} written");
        world.signal(&world.b, "/tmp/looked");
        let ended = caller.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        std::fs::remove_file(world.pair.b().outside("/tmp/looked")).unwrap();
        world.on_a(&["drop", seed.id()]).ok();
        within(SOON, "the seed ends", || world.a.process(seed.pid).is_none());
    }
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

/// The seeds of random sequences that `variable` names, with commas between; else the first ones and a new one, which is
/// printed as the variable is to name it.
fn seeds(variable: &str, fixed: u32) -> Vec<u32> {
    if let Ok(named) = std::env::var(variable) {
        return named.split(',').map(|seed| seed.parse().expect("seeds are numbers")).collect();
    }
    let new = std::time::UNIX_EPOCH.elapsed().expect("it is later than 1970").subsec_nanos();
    println!("{variable}={new}");
    (1..=fixed).chain([new]).collect()
}

#[test]
fn memory_calls_do_in_a_child_what_they_do_in_any_process() {
    let world = World::with(Plan { programs_on_b: true, ..Plan::default() });
    let calls = program("suite-calls").display().to_string();
    for number in seeds("MITOSIS_CALLS_SEED", 12) {
        let number = number.to_string();
        let plain = world.run(&world.b, &[&calls, &number, "plain"]).end().ok();
        for more in [&[][..], &["all"]] {
            let arguments = [&[number.as_str()], more].concat();
            let seed = world.seed_of(&world.a, "suite-calls", &arguments);
            for host in ["host-b", "host-a"] {
                let calls = format!("MITOSIS_CALLS_SEED={number} {more:?}");
                says_the_same(&world, &seed, host, &plain, &calls);
            }
            world.on_a(&["drop", seed.id()]).ok();
        }
    }
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

/// A child on `host` says what a process says that was never forked.
fn says_the_same(world: &World, seed: &Seed, host: &str, plain: &str, calls: &str) {
    let ended = world.on_a(&["resume", &seed.handle, "--on", host]);
    let differs = plain.lines().zip(ended.out.lines()).find(|(plain, forked)| plain != forked);
    assert_eq!(differs, None, "{calls} on {host}: plain, forked; {}", ended.err);
    let said = (ended.code, ended.out.len());
    assert_eq!(said, (Some(0), plain.len()), "{calls} on {host}: {}", ended.err);
}

#[test]
fn memory_of_every_kind_does_in_a_child_what_it_does_in_any_process() {
    let world = World::with(Plan { programs_on_b: true, ..Plan::default() });
    let kinds = program("suite-kinds").display().to_string();
    let file = world.directory.path().join("kinds").display().to_string();
    for number in seeds("MITOSIS_KINDS_SEED", 4) {
        let number = number.to_string();
        for more in [&[][..], &["all"]] {
            let arguments = [&[number.as_str(), &file], more].concat();
            let plain = [&[kinds.as_str()], &arguments[..], &["plain"]].concat();
            let plain = world.run(&world.a, &plain).end().ok();
            let seed = world.seed_of(&world.a, "suite-kinds", &arguments);
            for host in ["host-b", "host-a"] {
                let calls = format!("MITOSIS_KINDS_SEED={number} {more:?}");
                says_the_same(&world, &seed, host, &plain, &calls);
            }
            world.on_a(&["drop", seed.id()]).ok();
        }
    }
    world.settled(&world.a);
    world.settled(&world.b);
    world.finish();
}

/// As `suite-told` fills its array: splitmix64.
fn word_of_array(index: u64) -> u64 {
    let z = index.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn a_core_of_a_child_has_memory_that_it_never_touched() {
    let pattern = std::fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    if pattern.starts_with(['|', '/']) {
        // It is the whole machine's, and not a test's to change.
        println!("skipped: cores of this machine go to {}", pattern.trim());
        return;
    }
    let world = World::new();
    for mode in [&[][..], &["whole"]] {
        let seed = world.seed_of(&world.a, "suite-told", mode);
        let folder = world.pair.b().outside("/tmp/test-core");
        std::fs::create_dir(&folder).unwrap();
        let ended = world.children(&seed.handle, "core /tmp/test-core").end();
        let is_aborted = ended.err.contains("SIGABRT") || ended.code == Some(128 + 6);
        assert!(is_aborted, "{mode:?}: {ended:?}");
        let core = std::fs::read_dir(&folder).unwrap().next().expect("a core").unwrap();
        let core = std::fs::read(core.path()).unwrap();
        // Words of the array, each at the start of a page, ascending as in memory.
        let (mut from, array) = (0, [0, 77 * 512, 2047 * 512]);
        for index in array {
            let word = word_of_array(index).to_le_bytes();
            let at = core[from..].chunks_exact(8).position(|bytes| bytes == word);
            let missing = || panic!("{mode:?}: word {index} is not in a core of {}", core.len());
            from += 8 * at.unwrap_or_else(missing);
        }
        std::fs::remove_dir_all(&folder).unwrap();
        world.on_a(&["drop", seed.id()]).ok();
    }
    world.finish();
}

/// A template is made anew for each child here, and each sees what those before it have written: on the seed's own host and,
/// where the first one found the parent's bytes, on another. Another file of that name is not the seed's.
#[test]
fn a_file_mapped_shared_is_one_file_for_all_children_of_a_host() {
    let world = World::with(Plan { agents: vec!["--linger-s", "0"], ..Plan::default() });
    let name = world.directory.path().file_name().unwrap().to_string_lossy().into_owned();
    let folder = std::path::PathBuf::from(format!("/tmp/test-{name}"));
    let outside = |machine, file: &str| world.host(machine).outside(folder.join(file));
    for machine in [&world.a, &world.b] {
        std::fs::create_dir_all(outside(machine, "")).unwrap();
        std::fs::write(outside(machine, "mapped"), "as it was").unwrap();
    }
    let path = folder.join("mapped").display().to_string();
    let seed = world.seed_of(&world.a, "suite-mapped", &[&path]);
    let told = world.on_a(&["inspect", &seed.handle]).ok();
    assert!(
        told.contains(&format!("shared {path}: the child's host's, if it is the same")),
        "{told}"
    );
    for (machine, name) in [(&world.a, "host-a"), (&world.b, "host-b")] {
        for (found, written) in [("as it was", "A"), ("As it was", "ONE")] {
            let asked = ["resume", &seed.handle, "--on", name, "--payload", written];
            assert_eq!(world.on_a(&asked).ok(), format!("found {found}\n"), "{name}");
            world.settled(&world.b);
        }
        assert_eq!(std::fs::read_to_string(outside(machine, "mapped")).unwrap(), "ONEit was");
    }
    std::fs::write(outside(&world.b, "other"), "another").unwrap();
    std::fs::rename(outside(&world.b, "other"), outside(&world.b, "mapped")).unwrap();
    let asked = ["resume", &seed.handle, "--on", "host-b", "--payload", "TWO"];
    let told = format!("found as it was\nlost shared_files {path}\n");
    assert_eq!(world.on_a(&asked).ok(), told);
    assert_eq!(std::fs::read_to_string(outside(&world.b, "mapped")).unwrap(), "another");
    world.remove_folder(&folder);
    world.finish();
}
