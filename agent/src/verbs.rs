//! The command line's verbs, each a request to the local agent.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, bail};
use mitosis::client::{self, AgentAddress, Child, Inspected, ResumeOptions};
use mitosis::descriptor::codec;
use mitosis::id::{ChildId, Handle, SeedId};
use mitosis::sys::signal;
use mitosis::wire::local::{ChildEnd, DropMode};

use crate::progress::{Progress, TICK};
use crate::prometheus;
use crate::show;
use crate::{ChildArgs, DropArgs, InspectArgs, KillArgs, ResumeArgs};

/// Longest text taken from a file or standard input as a handle.
const MAX_HANDLE_BYTES: u64 = 4096;
/// Exit status for a child whose end is not known or that lost a page.
const LOST: u8 = 125;

/// What all verbs are told.
#[derive(Clone, Debug)]
pub struct Context {
    /// JSON instead of text.
    pub json: bool,
    /// The agent's socket, if named.
    pub socket: Option<PathBuf>,
}

impl Context {
    /// The agent that is meant.
    pub fn agent(&self) -> AgentAddress {
        self.socket.clone().map_or_else(AgentAddress::find, AgentAddress)
    }
}

impl ChildArgs {
    /// For children of `handle` on `host`.
    pub fn options(&self, handle: Handle, host: Option<String>) -> ResumeOptions {
        let environment = self.environment.iter().map(|change| match change.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (change.clone(), None),
        });
        ResumeOptions {
            host,
            count: self.count,
            payload: self.payload.clone().into_bytes(),
            environment: environment.collect(),
            new_ids: self.new_ids,
            listen: self.listen.clone(),
            clock: self.clock,
            cwd: self.cwd.clone(),
            hostname: self.hostname.clone(),
            cgroup: self.cgroup.clone(),
            namespaces: self.namespaces.clone(),
            argv: self.argv.clone(),
            id_map: self.id_map.clone(),
            ..ResumeOptions::new(handle)
        }
    }
}

/// `mitosis resume`.
pub fn resume(context: &Context, args: &ResumeArgs) -> anyhow::Result<ExitCode> {
    let options = args.how.options(read_handle(&args.handle)?, args.on.clone());
    let children = start(&context.agent(), options, !args.detach)?;
    let children = children.get().map_or(&[][..], Vec::as_slice);
    if args.detach || context.json {
        show::children(children, context.json);
    }
    if args.detach {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(ExitCode::from(wait(context, children)))
}

/// Children, to which signals are passed on if they are waited for.
pub fn start(
    agent: &AgentAddress,
    options: ResumeOptions,
    forwards: bool,
) -> anyhow::Result<Arc<OnceLock<Vec<Child>>>> {
    let started = Arc::new(OnceLock::new());
    if forwards {
        forward_signals(started.clone())?;
    }
    let children = client::resume(agent, options)?;
    started.get_or_init(|| children);
    Ok(started)
}

/// Waits for children and tells how they ended; the status of the first that failed.
pub fn wait(context: &Context, children: &[Child]) -> u8 {
    let mut status = 0;
    let mut progress = Progress::new(children.len(), !context.json);
    for child in children {
        let end = loop {
            progress.show(|| ended(children));
            if let Some(end) = child.wait_timeout(TICK) {
                break end;
            }
        };
        if end != ChildEnd::Exited(0) {
            // Its line stands alone.
            progress.clear();
        }
        let own = status_of(child, &end);
        status = if status == 0 { own } else { status };
        if context.json {
            println!("{}", show::end(child.id(), &end));
        }
    }
    progress.clear();
    status
}

/// How many have ended, and how many of them badly.
fn ended(children: &[Child]) -> (usize, usize) {
    let ends: Vec<ChildEnd> = children.iter().filter_map(Child::try_wait).collect();
    let badly = ends.iter().filter(|end| **end != ChildEnd::Exited(0)).count();
    (ends.len(), badly)
}

/// Has children get the signals that are sent to this program, once there are any.
fn forward_signals(children: Arc<OnceLock<Vec<Child>>>) -> anyhow::Result<()> {
    let mut interrupted = false;
    let signals = signal::block(&[libc::SIGINT, libc::SIGTERM, libc::SIGHUP])?;
    signals.each(move |signal| {
        let again = interrupted && signal == libc::SIGINT;
        interrupted |= signal == libc::SIGINT;
        if children.get().is_none() || again {
            std::process::exit(128 + signal);
        }
        if signal == libc::SIGINT {
            eprintln!("mitosis: SIGINT goes to the children; a second one leaves them running");
        }
        // Beside this thread: an agent that is silent must not keep the next signal waiting.
        let children = children.clone();
        std::thread::spawn(move || {
            for child in children.get().into_iter().flatten() {
                // It may have ended.
                let _ = child.kill(signal);
            }
        });
    })?;
    Ok(())
}

/// A child's end as a shell would tell it; what a shell could not tell is said.
fn status_of(child: &Child, end: &ChildEnd) -> u8 {
    match end {
        ChildEnd::Exited(status) => u8::try_from(status & 0xff).unwrap_or(LOST),
        ChildEnd::Signalled(signal) => {
            eprintln!(
                "mitosis: child {} on {} was killed by signal {signal}",
                child.pid(),
                child.host()
            );
            u8::try_from(128 + signal).unwrap_or(LOST)
        }
        ChildEnd::PageLost(text) | ChildEnd::HostLost(text) => {
            eprintln!("mitosis: child {} on {}: {text}", child.pid(), child.host());
            LOST
        }
    }
}

/// `mitosis ls`.
pub fn list(context: &Context) -> anyhow::Result<ExitCode> {
    let listing = client::list(&context.agent())?;
    show::listing(&listing, context.json)?;
    Ok(ExitCode::SUCCESS)
}

/// `mitosis inspect`.
pub fn inspect(context: &Context, args: &InspectArgs) -> anyhow::Result<ExitCode> {
    let which = match SeedId::from_str(&args.seed) {
        Ok(seed) => Inspected::Seed(seed),
        Err(_) => Inspected::Handle(read_handle(&args.seed)?),
    };
    let bytes = client::inspect(&context.agent(), which)?;
    let descriptor = codec::decode(&bytes).context("the agent's answer")?;
    if args.program {
        let programs = show::programs(&descriptor)?;
        show::steps(&programs, context.json)?;
    } else {
        show::descriptor(&descriptor, bytes.len(), context.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `mitosis drop`.
pub fn drop_seed(context: &Context, args: &DropArgs) -> anyhow::Result<ExitCode> {
    let how = if args.revoke { DropMode::Revoke } else { DropMode::AfterChildren };
    let seed = match SeedId::from_str(&args.seed) {
        Ok(seed) => {
            client::drop_seed(&context.agent(), seed, how)?;
            seed
        }
        Err(_) => {
            let handle = read_handle(&args.seed)?;
            let seed = handle.seed;
            client::drop_by_handle(&context.agent(), handle, how)?;
            seed
        }
    };
    if context.json {
        println!("{}", show::dropped(seed, args.revoke));
    }
    Ok(ExitCode::SUCCESS)
}

/// `mitosis kill`.
pub fn kill(context: &Context, args: &KillArgs) -> anyhow::Result<ExitCode> {
    let (child, signal) = (ChildId::from_str(&args.child)?, parse_signal(&args.signal)?);
    client::kill(&context.agent(), child, args.on.as_deref(), signal)?;
    if context.json {
        println!("{}", show::signalled(child, signal));
    }
    Ok(ExitCode::SUCCESS)
}

/// A signal by its number, or by its name with or without SIG.
fn parse_signal(text: &str) -> anyhow::Result<i32> {
    signal::number(text).with_context(|| {
        let names: Vec<&str> = signal::NAMES.iter().map(|(name, _)| *name).collect();
        format!("--signal {text}: give 1 to {}, or one of {}", signal::LAST, names.join(", "))
    })
}

/// `mitosis stats`.
pub fn stats(context: &Context, for_prometheus: bool) -> anyhow::Result<ExitCode> {
    let stats = client::stats(&context.agent())?;
    if for_prometheus {
        print!("{}", prometheus::text(&stats));
    } else {
        show::stats(&stats, context.json)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `mitosis shutdown`.
pub fn shutdown(context: &Context) -> anyhow::Result<ExitCode> {
    let agent = context.agent();
    client::shutdown(&agent)?;
    if context.json {
        println!("{}", show::ended(&agent));
    }
    Ok(ExitCode::SUCCESS)
}

/// A handle as given, from standard input (`-`) or from a file (`@FILE`): so that no key need stand in a
/// process list.
pub fn read_handle(text: &str) -> anyhow::Result<Handle> {
    let mut read = String::new();
    let text = if text == "-" {
        std::io::stdin()
            .take(MAX_HANDLE_BYTES)
            .read_to_string(&mut read)
            .context("standard input")?;
        &read
    } else if let Some(path) = text.strip_prefix('@') {
        let file = std::fs::File::open(path).with_context(|| path.to_owned())?;
        file.take(MAX_HANDLE_BYTES).read_to_string(&mut read).with_context(|| path.to_owned())?;
        &read
    } else {
        text
    };
    if text.trim().is_empty() {
        bail!("no handle was given");
    }
    Ok(text.trim().parse::<Handle>()?)
}
