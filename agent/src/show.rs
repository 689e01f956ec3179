//! What people and programs get to see.

use anyhow::Context as _;
use mitosis::client::{AgentAddress, Child};
use mitosis::descriptor::{Descriptor, Export, SharedFile, SharedPart, Source, Vma, VmaKind};
use mitosis::id::{ChildId, SeedId};
use mitosis::image::ImageLayout;
use mitosis::keeper;
use mitosis::resume::child::INFO_LEN;
use mitosis::resume::compile::COMMAND_FD;
use mitosis::resume::program::Program;
use mitosis::resume::{
    FurtherThreads, HostFacts, Own, Placement, TailFacts, TailPlace, TemplateFds, Vdso, blob,
    compile, stub,
};
use mitosis::wire::local::{ChildEnd, Listing, StartReport, Stats};
use serde_json::{Map, Value, json};

use crate::show_files::becomes;
use crate::show_needs;
use crate::show_pages::{self, Look};

/// Children that were started.
pub fn children(children: &[Child], as_json: bool) {
    for child in children {
        let (id, pid, host) = (child.id(), child.pid(), child.host());
        if as_json {
            println!("{}", started(id, pid, host, child.report()));
        } else {
            println!("{id}  pid {pid} on {host}");
        }
    }
}

fn started(child: ChildId, pid: u32, host: &str, report: &StartReport) -> Value {
    json!({
        "child": child.to_string(), "pid": pid, "host": host,
        "requested_at_ns": report.requested_at_ns,
        "started_at_ns": report.started_at_ns,
        "descriptor_bytes": report.descriptor_bytes,
        "pages_total": report.pages_total,
        "new_template": report.new_template,
    })
}

/// A child's end, for programs.
pub fn end(child: ChildId, end: &ChildEnd) -> Value {
    let end = match end {
        ChildEnd::Exited(status) => json!({ "exited": status }),
        ChildEnd::Signalled(signal) => json!({ "signalled": signal }),
        ChildEnd::PageLost(text) => json!({ "page_lost": text }),
        ChildEnd::HostLost(text) => json!({ "host_lost": text }),
    };
    json!({ "child": child.to_string(), "end": end })
}

/// A seed that was dropped, for programs.
pub fn dropped(seed: SeedId, is_revoked: bool) -> Value {
    json!({ "dropped": seed.to_string(), "revoked": is_revoked })
}

/// A child that was sent a signal, for programs.
pub fn signalled(child: ChildId, signal: i32) -> Value {
    json!({ "child": child.to_string(), "signal": signal })
}

/// An agent that ends, for programs.
pub fn ended(agent: &AgentAddress) -> Value {
    json!({ "shutdown": agent.to_string() })
}

/// Seeds and children of a host.
pub fn listing(listing: &Listing, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(&listing_as_value(listing)?)?);
        return Ok(());
    }
    println!(
        "{:16}  {:>7} {:>7} {:>9} {:>7} {:10} {:>6}  PROGRAM",
        "SEED", "PID", "PARENT", "PAGES", "HOLDERS", "STATE", "AGE"
    );
    for seed in &listing.seeds {
        println!(
            "{:16}  {:>7} {:>7} {:>9} {:>7} {:10} {:>5}s  {}",
            seed.seed.to_string(),
            seed.pid,
            seed.parent_pid,
            seed.pages,
            seed.holders,
            seed.state,
            seed.age_s,
            seed.exe
        );
    }
    println!("\n{:16}  {:>7} {:16} {:>6}", "CHILD", "PID", "OF SEED", "AGE");
    for child in &listing.children {
        println!(
            "{:16}  {:>7} {:16} {:>5}s",
            child.child.to_string(),
            child.pid,
            child.seed.to_string(),
            child.age_s
        );
    }
    Ok(())
}

fn listing_as_value(listing: &Listing) -> serde_json::Result<Value> {
    // Ids as everywhere else in text: 16 hex digits.
    let mut value = serde_json::to_value(listing)?;
    for (list, fields) in [("seeds", &["seed"][..]), ("children", &["child", "seed"][..])] {
        for line in value[list].as_array_mut().into_iter().flatten() {
            for field in fields {
                line[*field] = hex(&line[*field]);
            }
        }
    }
    Ok(value)
}

fn hex(value: &Value) -> Value {
    value.as_u64().map_or(Value::Null, |number| Value::String(format!("{number:016x}")))
}

/// An agent's counters.
pub fn stats(stats: &Stats, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(&stats_as_value(stats))?);
        return Ok(());
    }
    for (name, count) in stats.by_name() {
        let count = count.to_string();
        println!("{name:18} {count:<12} {}", meaning(name));
    }
    Ok(())
}

/// The numbers, and how long misses took, in buckets that are not empty.
fn stats_as_value(stats: &Stats) -> Value {
    let mut value: Map<String, Value> =
        stats.by_name().into_iter().map(|(name, count)| (name.to_owned(), count.into())).collect();
    let times = &stats.miss_times;
    let buckets = times.buckets().map(|(end, count)| json!({ "up_to_ns": end, "count": count }));
    let buckets: Vec<Value> = buckets.collect();
    let times = json!({ "count": times.count(), "sum_ns": times.sum_ns(), "buckets": buckets });
    value.insert("miss_times".to_owned(), times);
    value.into()
}

/// What a number counts. All but what is there now (images, children, seeds, leases, streams, bytes, DCIs, DCTs, peers) are since the
/// agent's start; those of pages, reads and misses are of all images that it has had, but rehearsals'.
pub fn meaning(counter: &str) -> &'static str {
    match counter {
        "misses" => "times that the kernel asked for pages of an image",
        "pages_pulled" => "pages read from other hosts or seeds, on a miss or ahead of one",
        "pages_rdma" => "of these, pages that an RDMA card read",
        "rdma_reads" => "READs that were posted to the card",
        "rdma_doorbells" => {
            "doorbells that took them there; READs that are posted at once share one"
        }
        "pages_pushed" => "pages that came unasked behind a descriptor",
        "pages_from_files" => "pages taken from identical files of this host",
        "reads" => "READs posted",
        "reads_failed" => "READs that failed",
        "fallbacks" => "times that a second way to bytes was taken",
        "fabric_fallbacks" => {
            "fall-backs between the fabric that this agent was to prefer and the one that it has: see the log"
        }
        "pages_lost" => "pages that could not be had; each was a SIGBUS",
        "children_started" => "children started here",
        "children_renumbered" => "of these, whole processes that got new ids: see the log",
        "files_missing" => "open files of seeds that are not here: their numbers answer EBADF",
        "seeds_published" => "seeds of this host that could be resumed, children's included",
        "reads_served" => "READs of other hosts that this agent answered",
        "bytes_served" => "bytes of these READs, and of pushes",
        "encrypt_reads" => "1 if this agent opens and serves encrypted READ streams alone",
        "streams_plain" => "READ streams in plain that other hosts have to this agent now",
        "streams_encrypted" => "encrypted READ streams that other hosts have to this agent now",
        "dc_initiators" => "DC initiators (DCIs) of this host, for all seeds and peers",
        "dc_peers" => "peers to which DC READs have a way (address handles)",
        "dc_flushed" => "READs over DC that another's failure flushed, posted again",
        "dc_mended" => "times that a DC initiator was taken back into use after a failure",
        "dc_targets_ready" => "DC targets (DCTs) that are ready for new seeds",
        "images" => "images of seeds that this host holds now",
        "children" => "children that run here now",
        "seeds" => "seeds that live here now",
        "leases_given" => "leases that other hosts have of these seeds now",
        "leases_held" => "leases of other hosts' seeds that this host has now",
        "bytes_shared" => {
            "bytes of these images that have come here, for all children; again, if the kernel asks again"
        }
        "bytes_private" => {
            "bytes of these children's memory that is of no file, written or copied ahead"
        }
        "bytes_remote" => "bytes of these images that have not come here yet",
        "miss_p50_ns" => "half of all misses were answered in so many nanoseconds or less",
        "miss_p99_ns" => "99 of 100 misses were answered in so many nanoseconds or less",
        _ => "",
    }
}

/// A descriptor.
pub fn descriptor(descriptor: &Descriptor, bytes: usize, as_json: bool) -> anyhow::Result<()> {
    if as_json {
        println!("{}", serde_json::to_string_pretty(&as_value(descriptor, bytes))?);
        return Ok(());
    }
    let page = descriptor.page_size();
    println!("seed        {}  (generation {})", descriptor.seed, descriptor.generation);
    println!("descriptor  {bytes} bytes, {} runs of pages", descriptor.page_table.runs().len());
    println!("program     {} in {}", descriptor.process.exe, descriptor.process.cwd);
    println!("kernel      {}", descriptor.needs.kernel);
    if let Some(root) = &descriptor.root {
        println!("root        {root}");
    }
    if let Some(users) = descriptor.credentials.users {
        println!("users       {users:?}");
    }
    if let Some(groups) = &descriptor.credentials.groups {
        println!("groups      {:?} and {:?}", groups.ids, groups.supplementary);
    }
    if let Some(rights) = &descriptor.credentials.rights {
        println!("rights      {:#x}, {:#x} taken up", rights.permitted, rights.effective);
    }
    for (hop, owner) in descriptor.owners.iter().enumerate() {
        let places: Vec<String> = owner.exports.iter().map(export).collect();
        println!("owner {hop}     seed {} at {}", owner.seed, places.join(", "));
    }
    println!("pages       {} of {page} bytes", descriptor.page_table.pages(page));
    println!(
        "\n{:>12}-{:<12} prot {:>8} {:>8} {:>8}  {:24}  BACKING",
        "START", "END", "OWNED", "FILE", "ABSENT", "PAGES"
    );
    for vma in &descriptor.vmas {
        let (owned, from_file, zero) = count(descriptor, vma);
        let absent = vma.range.len() / page - owned - from_file - zero;
        let (start, end) = (vma.range.start.0, vma.range.end.0);
        println!(
            "{start:012x}-{end:012x} {}  {owned:>8} {from_file:>8} {absent:>8}  {:24}  {}",
            protection(vma.prot),
            show_pages::picture(descriptor, vma),
            backing(descriptor, vma)
        );
    }
    println!("{:63}{}", "", show_pages::legend(descriptor));
    println!("\nFD   {:38} BECOMES", "WAS");
    for file in &descriptor.open_files {
        println!("{:<4} {:38} {}", file.fd, file.link, becomes(descriptor, file.fd));
    }
    if !descriptor.sites.is_empty() {
        println!("\n{} system-call sites go through the stub", descriptor.sites.len());
    }
    show_needs::print(descriptor);
    Ok(())
}

/// Pages of a VMA: owned by seeds, of files, zero.
fn count(descriptor: &Descriptor, vma: &Vma) -> (u64, u64, u64) {
    let mut pages = (0, 0, 0);
    for run in descriptor.page_table.overlapping(vma.range) {
        let count = run.range.len() / descriptor.page_size();
        match run.source {
            Source::Owner { .. } => pages.0 += count,
            Source::File { .. } => pages.1 += count,
            Source::Zero => pages.2 += count,
        }
    }
    pages
}

fn backing(descriptor: &Descriptor, vma: &Vma) -> String {
    match &vma.kind {
        VmaKind::Anonymous => "anonymous".to_owned(),
        VmaKind::Stack => "[stack]".to_owned(),
        VmaKind::File { file, offset } => {
            let path =
                descriptor.files.get(usize::from(*file)).map_or("?", |file| file.path.as_str());
            format!("{path} +{offset:#x}")
        }
        VmaKind::Shared => {
            let part = descriptor.shared.iter().find(|part| part.range == vma.range);
            let of = |part: &SharedPart| {
                descriptor.shared_files.iter().find(|file| file.object == part.object)
            };
            match part.and_then(of) {
                Some(SharedFile { path, is_needed: false, .. }) => {
                    format!("shared {path}: the child's host's, if it is the same; else a copy")
                }
                Some(SharedFile { path, .. }) => {
                    format!(
                        "shared {path}: the child's host's, and no child where it is not the same"
                    )
                }
                None => "shared (each child's own)".to_owned(),
            }
        }
        VmaKind::Vvar => "[vvar]".to_owned(),
        VmaKind::Vdso => "[vdso]".to_owned(),
        VmaKind::Hole => "not carried".to_owned(),
    }
}

fn protection(prot: u8) -> String {
    [(1, 'r'), (2, 'w'), (4, 'x')]
        .iter()
        .map(|(bit, name)| if prot & bit == 0 { '-' } else { *name })
        .collect()
}

fn export(export: &Export) -> String {
    match export {
        Export::Tcp { agent: Some(agent), .. } => format!("tcp {agent}"),
        Export::Tcp { agent: None, .. } => "this host".to_owned(),
        Export::Rc(endpoint) => format!("rc {}", endpoint.listener()),
        Export::Dc(target) => {
            format!("dc {} dctn {:#x}", std::net::Ipv6Addr::from(target.gid), target.dctn)
        }
    }
}

fn as_value(descriptor: &Descriptor, bytes: usize) -> Value {
    let page = descriptor.page_size();
    let vmas: Vec<Value> = descriptor
        .vmas
        .iter()
        .map(|vma| {
            let (owned, file, zero) = count(descriptor, vma);
            let warm = show_pages::counts(descriptor, vma)[Look::Warm as usize];
            json!({
                "start": format!("{:#x}", vma.range.start.0), "end": format!("{:#x}", vma.range.end.0),
                "prot": protection(vma.prot), "backing": backing(descriptor, vma),
                "picture": show_pages::picture(descriptor, vma),
                "pages": { "owned": owned, "file": file, "zero": zero,
                           "absent": vma.range.len() / page - owned - file - zero,
                           "warm": warm },
            })
        })
        .collect();
    let owners: Vec<Value> = descriptor
        .owners
        .iter()
        .map(|owner| {
            let exports: Vec<String> = owner.exports.iter().map(export).collect();
            json!({ "seed": owner.seed.to_string(), "exports": exports })
        })
        .collect();
    let files: Vec<Value> = descriptor
        .open_files
        .iter()
        .map(|file| json!({ "fd": file.fd, "was": file.link, "becomes": becomes(descriptor, file.fd) }))
        .collect();
    let lost: Vec<Value> = descriptor
        .losses
        .all
        .iter()
        .map(|loss| json!({ "kind": loss.kind.name(), "fds": loss.fds, "was": loss.was }))
        .collect();
    json!({
        "seed": descriptor.seed.to_string(), "generation": descriptor.generation, "bytes": bytes,
        "page_bytes": page, "pages": descriptor.page_table.pages(page),
        "runs": descriptor.page_table.runs().len(), "owners": owners,
        "lost": lost, "program": descriptor.process.exe, "cwd": descriptor.process.cwd,
        "kernel": descriptor.needs.kernel, "threads": descriptor.threads.len(),
        "vmas": vmas, "open_files": files, "call_sites": descriptor.sites.len(),
        "needs": show_needs::as_value(descriptor),
    })
}

/// What runs here before the seed's own code does.
#[derive(Debug)]
pub struct Programs {
    /// Lays out a template.
    template: Program,
    /// Ends the start of each child.
    tail: Program,
    /// Begins the threads that the tail makes.
    threads: FurtherThreads,
}

/// The programs for this seed on this host, as if its kernel were the seed's.
pub fn programs(descriptor: &Descriptor) -> anyhow::Result<Programs> {
    let program = std::env::current_exe().context("this program's own path")?;
    let keeper = keeper::Client::spawn(&program, None)?;
    let facts = HostFacts::of_keeper(keeper.pid())?;
    let all = [&descriptor.vmas[..], &descriptor.beneath()].concat();
    let layout = ImageLayout::new(&all, descriptor.page_size());
    let mut placement = Placement::choose(descriptor, &facts.avoid())?;
    placement.find_room_beneath(descriptor, layout.beneath());
    let stub_entry = placement.base + blob::stub_entry();
    let diversions = stub::patches(&descriptor.sites, &placement.trampolines, stub_entry)?;
    let fds = TemplateFds::number(&[]);
    let offset_of = |addr| layout.offset_of(addr);
    let (given, trampolines) = (&fds, &diversions.trampolines);
    let template =
        compile(descriptor, &offset_of, &placement, trampolines, &Vdso::Moved, &facts, given)?;
    let facts = TailFacts::of(descriptor, &facts)?;
    let place = TailPlace {
        passed_ns: 0,
        clock_delta_ns: 0,
        keeper: keeper.pid(),
        base: placement.base,
        stdio: COMMAND_FD + 1,
        is_ahead: false,
        runs_timers: true,
    };
    let tail = facts.tail(&place, &[0; INFO_LEN], &[], &Own::default());
    Ok(Programs { template, tail, threads: facts.further().clone() })
}

/// The programs, a step a line.
pub fn steps(programs: &Programs, as_json: bool) -> anyhow::Result<()> {
    let Programs { template, tail, threads } = programs;
    if as_json {
        let all = steps_as_value([template.to_string(), tail.to_string(), threads.to_string()]);
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        print!("{template}each child:\n{tail}{threads}");
    }
    Ok(())
}

fn steps_as_value(programs: [String; 3]) -> Value {
    let lines = |text: String| text.lines().map(|line| line.trim().to_owned()).collect();
    let [template, tail, threads]: [Vec<String>; 3] = programs.map(lines);
    json!({ "steps": template, "tail": tail, "threads": threads })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use mitosis::descriptor::{Loss, LossKind, codec};
    use mitosis::times::TimesCounter;
    use mitosis::wire::local::{ChildLine, SeedLine};

    use super::*;
    use crate::json_tests::assert_documented;

    const CHILD: ChildId = ChildId(1);
    const SEED: SeedId = SeedId(2);

    #[test]
    fn starts_and_ends_are_as_documented() {
        let text = || "a".to_owned();
        let ends = [
            ChildEnd::Exited(0),
            ChildEnd::Signalled(9),
            ChildEnd::PageLost(text()),
            ChildEnd::HostLost(text()),
        ];
        let mut values = vec![started(CHILD, 3, "host", &StartReport::default())];
        values.extend(ends.iter().map(|own| end(CHILD, own)));
        assert_documented("resume", &values);
        assert_documented("drop", &[dropped(SEED, true)]);
        assert_documented("kill", &[signalled(CHILD, 15)]);
        assert_documented("shutdown", &[ended(&AgentAddress("/a".into()))]);
    }

    #[test]
    fn listings_and_stats_are_as_documented() {
        let seed = SeedLine {
            seed: SEED,
            pid: 1,
            parent_pid: 2,
            exe: String::new(),
            generation: 3,
            pages: 4,
            state: String::new(),
            holders: 5,
            age_s: 6,
        };
        let child = ChildLine { child: CHILD, pid: 7, seed: SEED, age_s: 8 };
        let listing = Listing { seeds: vec![seed], children: vec![child] };
        let listing = listing_as_value(&listing).unwrap();
        assert_eq!(listing["children"][0]["seed"], "0000000000000002");
        assert_documented("ls", &[listing]);
        let counter = TimesCounter::default();
        [1, 1 << 40].into_iter().for_each(|ns| counter.count(Duration::from_nanos(ns)));
        let mut stats = Stats::default();
        stats.miss_times.add(&counter);
        assert_documented("stats", &[stats_as_value(&stats)]);
    }

    #[test]
    fn descriptors_are_as_documented() {
        let golden = [
            &include_bytes!("../../tests/wire/descriptor-1.0-files.bin")[..],
            include_bytes!("../../tests/wire/descriptor-1.0-whole.bin"),
        ];
        let mut descriptors = golden.map(|bytes| codec::decode(bytes).unwrap());
        let loss = Loss { kind: LossKind::Pipes, fds: vec![7], was: "pipe:[1]".to_owned() };
        descriptors[0].losses.all.push(loss);
        descriptors[0].needs.cpu_features = vec![u32::MAX; 8];
        let values = descriptors.each_ref().map(|descriptor| as_value(descriptor, 1));
        assert_documented("inspect", &values);
        let steps = steps_as_value(["a", "b", "c"].map(str::to_owned));
        assert_documented("inspect --program", &[steps]);
    }

    #[test]
    fn each_number_has_a_meaning() {
        for (name, _) in Stats::default().by_name() {
            assert!(!meaning(name).is_empty(), "{name}");
        }
    }
}
