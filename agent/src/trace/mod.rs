//! `mitosis trace`: what a child waits for while it starts, as a picture and as a list.
//!
//! ```text
//!  trace of the seed's image here --> resume (or a child that runs) --> its end, SIGINT or --for --> picture, list
//! ```

mod axis;
mod picture;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use mitosis::client::{self, AgentAddress, TraceOf, Traced, Way};
use mitosis::id::ChildId;
use mitosis::sys::signal;
use serde_json::{Value, json};

use crate::progress::TICK;
use crate::verbs::{self, Context};
use crate::{ChildArgs, show};

/// How often it is looked whether a child still runs that another command has started.
const LOOK: Duration = Duration::from_millis(200);
/// Where the picture goes if nothing else is said.
const PICTURE: &str = "trace.svg";

/// What to record.
#[derive(Debug, Args)]
pub struct TraceArgs {
    /// A seed's handle (or `-`, `@FILE`), of which a child is resumed on this host; or the id of a child that runs here.
    which: String,
    /// Where the picture goes (SVG); `-`: standard output. Without, trace.svg, and with --json none.
    #[arg(short, long, value_name = "FILE.svg")]
    output: Option<PathBuf>,
    /// Record for so long, and leave the children running; without, until they have ended. SIGINT ends the record of a child
    /// that is named by its id.
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    limit: Option<Duration>,
    #[command(flatten)]
    how: ChildArgs,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse::<f64>().ok().filter(|seconds| *seconds > 0.0);
    let duration = seconds.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    duration.ok_or_else(|| "give a number of seconds above 0".to_owned())
}

/// A trace, and what it is of.
#[derive(Debug)]
struct Trace {
    /// For people.
    of: String,
    /// The image was here before it began.
    was_here: bool,
    traced: Traced,
}

/// `mitosis trace`.
pub fn run(context: &Context, args: &TraceArgs) -> anyhow::Result<ExitCode> {
    let agent = context.agent();
    let mut picture = match &args.output {
        None if context.json => None,
        None => Some(Output::open(Path::new(PICTURE))?),
        Some(path) => Some(Output::open(path)?),
    };
    let limit = args.limit.map(|limit| Instant::now() + limit);
    let (trace, status) = match ChildId::from_str(&args.which) {
        Ok(child) => (of_child(&agent, child, limit)?, 0),
        Err(_) => of_seed(context, &agent, args, limit)?,
    };
    let summary = summary(&trace);
    if context.json {
        println!("{}", as_value(&trace));
    }
    if let Some(picture) = &mut picture {
        picture.write(&picture::svg(&trace, &summary))?;
        if !context.json {
            eprintln!("mitosis: {}: {summary}", picture.path.display());
        }
    }
    Ok(ExitCode::from(status))
}

/// Where a picture goes: opened before anything is recorded, so that a path which cannot be written costs no child.
#[derive(Debug)]
struct Output {
    path: PathBuf,
    /// `None`: standard output.
    file: Option<File>,
}

impl Output {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let open = || File::options().write(true).create(true).truncate(false).open(path);
        let file = (path != Path::new("-")).then(open).transpose();
        let file = file.with_context(|| path.display().to_string())?;
        Ok(Output { path: path.to_owned(), file })
    }

    fn write(&mut self, svg: &str) -> anyhow::Result<()> {
        let written = match &mut self.file {
            None => std::io::stdout().write_all(svg.as_bytes()),
            // A pipe has no length.
            Some(file) => file.set_len(0).or(Ok(())).and_then(|()| file.write_all(svg.as_bytes())),
        };
        written.with_context(|| self.path.display().to_string())
    }
}

/// Children that are resumed now, and how the first failing one ended.
fn of_seed(
    context: &Context,
    agent: &AgentAddress,
    args: &TraceArgs,
    limit: Option<Instant>,
) -> anyhow::Result<(Trace, u8)> {
    let handle = verbs::read_handle(&args.which)?;
    let of = format!("seed {}", handle.seed);
    let tracing = client::trace(agent, TraceOf::Seed(handle.clone()))?;
    let was_here = tracing.was_here();
    let children = verbs::start(agent, args.how.options(handle, None), true)?;
    let children = children.get().map_or(&[][..], Vec::as_slice);
    if context.json {
        show::children(children, true);
    }
    let is_over = || limit.is_some_and(|limit| Instant::now() >= limit);
    let have_ended = || children.iter().all(|child| child.wait_timeout(TICK).is_some());
    let status = loop {
        match () {
            () if limit.is_none() || have_ended() => break verbs::wait(context, children),
            () if is_over() => break 0,
            () => {}
        }
    };
    Ok((Trace { of, was_here, traced: tracing.end()? }, status))
}

/// A child that runs, until it has ended or a signal comes.
fn of_child(agent: &AgentAddress, child: ChildId, limit: Option<Instant>) -> anyhow::Result<Trace> {
    let enough = Arc::new(AtomicBool::new(false));
    let told = enough.clone();
    let signals = signal::block(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])?;
    signals.each(move |_| told.store(true, Ordering::Release))?;
    let tracing = client::trace(agent, TraceOf::Child(child))?;
    let is_over =
        || enough.load(Ordering::Acquire) || limit.is_some_and(|limit| Instant::now() >= limit);
    let runs = || {
        let listing = client::list(agent)?;
        anyhow::Ok(listing.children.iter().any(|line| line.child == child))
    };
    while !is_over() && runs()? {
        std::thread::sleep(LOOK);
    }
    Ok(Trace { of: format!("child {child}"), was_here: true, traced: tracing.end()? })
}

/// Pages, and misses, that came in one way.
fn count(traced: &Traced, way: Way) -> (u64, u64) {
    let own = traced.events.iter().filter(|event| event.way == way);
    own.fold((0, 0), |(pages, times), event| (pages + event.range.len() / PAGE_BYTES, times + 1))
}

/// A page of this architecture.
const PAGE_BYTES: u64 = 4096;

/// What has happened, in a line.
fn summary(trace: &Trace) -> String {
    let traced = &trace.traced;
    let misses: Vec<_> = traced.events.iter().filter(|event| event.way.is_miss()).collect();
    let waited: u64 = misses.iter().map(|event| event.took_ns).sum();
    let ways = Way::ALL.map(|way| (way, count(traced, way).0));
    let pages: Vec<String> = ways
        .iter()
        .filter(|(_, pages)| *pages > 0)
        .map(|(way, pages)| format!("{} {pages}", way.name()))
        .collect();
    let noun = if misses.len() == 1 { "miss" } else { "misses" };
    let mut text = format!("{} {noun}, {} waited", misses.len(), axis::time(waited));
    if !pages.is_empty() {
        text += &format!("; pages: {}", pages.join(", "));
    }
    if traced.left_out > 0 {
        text += &format!("; {} more are not shown", traced.left_out);
    }
    if trace.was_here {
        text += "; the image was here before, with what had come by then";
    }
    text
}

/// For programs.
fn as_value(trace: &Trace) -> Value {
    let Trace { of: _, was_here, traced } = trace;
    let hex = |addr: u64| format!("{addr:#x}");
    let name = |addr| {
        let vma = traced.vmas.iter().find(|vma| vma.range.contains(addr));
        vma.map_or("", |vma| vma.name.as_str())
    };
    let events: Vec<Value> = traced
        .events
        .iter()
        .map(|event| {
            json!({
                "at_us": event.at_ns / 1000, "took_us": event.took_ns / 1000,
                "address": hex(event.range.start.0), "vma": name(event.range.start),
                "pages": event.range.len() / PAGE_BYTES, "way": event.way.name(), "pid": event.pid,
            })
        })
        .collect();
    json!({ "trace": {
        "began_at_ns": traced.began_at_ns, "was_here": was_here, "left_out": traced.left_out,
        "events": events,
    } })
}

#[cfg(test)]
mod tests {
    use mitosis::client::{TracedPages, TracedVma};
    use mitosis::descriptor::SeedRange;

    use super::*;
    use crate::json_tests::assert_documented;

    /// `misses` of two VMAs in turn, and a push.
    fn trace(misses: u64) -> Trace {
        let (libc, heap) =
            (SeedRange::new(0x10_0000, 0x12_0000), SeedRange::new(0x4000_0000, 0x5000_0000));
        let page = |vma: SeedRange, page: u64| {
            let start = vma.start.0 + page * PAGE_BYTES % vma.len();
            SeedRange::new(start, start + PAGE_BYTES)
        };
        let miss = |index: u64| TracedPages {
            at_ns: index * 1000,
            took_ns: 14_000,
            range: if index.is_multiple_of(2) { page(heap, index) } else { page(libc, index) },
            pid: 7,
            way: Way::ALL[usize::try_from(2 + index % 4).unwrap()],
        };
        let push = TracedPages { at_ns: 1, took_ns: 0, range: heap, pid: 0, way: Way::Push };
        let vma = |range, name: &str| TracedVma { range, name: name.to_owned() };
        let vmas = vec![vma(libc, "/lib/<libc>.so"), vma(heap, "[heap]")];
        let events = std::iter::once(push).chain((0..misses).map(miss)).collect();
        let traced = Traced { began_at_ns: 3, events, left_out: 0, vmas };
        Trace { of: "seed 1".to_owned(), was_here: false, traced }
    }

    #[test]
    fn a_trace_is_as_documented() {
        assert_documented("trace", &[as_value(&trace(9))]);
        assert_eq!(as_value(&trace(9))["trace"]["events"][1]["vma"], "[heap]");
    }

    #[test]
    fn each_event_is_in_the_picture_whatever_their_number() {
        for misses in [0, 1, 20_000] {
            let trace = trace(misses);
            let svg = picture::svg(&trace, &summary(&trace));
            let dots = svg.matches('M').count() as u64;
            assert_eq!(dots, misses + 1, "of {misses} misses and a push");
            assert!(svg.contains("&lt;libc&gt;") && !svg.contains("<libc>"), "names are escaped");
            assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            assert!(svg.len() < 2_000_000, "{}", svg.len());
        }
    }

    #[test]
    fn nothing_makes_a_picture_too() {
        let trace = Trace { of: "child 1".to_owned(), was_here: true, traced: Traced::default() };
        let text = summary(&trace);
        assert_eq!(
            text,
            "0 misses, 0 waited; the image was here before, with what had come by then"
        );
        assert!(picture::svg(&trace, &text).ends_with("</svg>\n"));
    }

    #[test]
    fn a_record_takes_seconds_above_none() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["0", "-1", "x", "nan", "1e300"] {
            seconds(bad).unwrap_err();
        }
    }
}
