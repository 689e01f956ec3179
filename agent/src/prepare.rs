//! `mitosis prepare PID`: a seed of a process that runs with the preload library.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, value_parser};
use mitosis::client::{OutsideOptions, prepare_process, published};
use mitosis::id::Handle;
use mitosis::prepare::{LossKind, Refuse};
use serde_json::json;

use crate::verbs::Context;

/// Longest patience that makes sense: after it a person has looked.
const MAX_PATIENCE_MS: u64 = 600_000;

/// Which process, and how.
#[derive(Debug, Args)]
pub struct PrepareArgs {
    /// The process: one that runs with libmitosis_preload.so (see `mitosis run`).
    #[arg(value_parser = value_parser!(u32).range(1..))]
    pid: u32,
    #[command(flatten)]
    how: How,
}

/// How a process is prepared.
#[derive(Clone, Debug, Args)]
pub struct How {
    /// Milliseconds that all threads together may take to stop.
    #[arg(long, value_name = "MS", default_value_t = 1000,
        value_parser = value_parser!(u64).range(1..=MAX_PATIENCE_MS))]
    stop_threads_ms: u64,
    /// Milliseconds that the program may leave the signal alone by which it is asked.
    #[arg(long, value_name = "MS", default_value_t = 2000,
        value_parser = value_parser!(u64).range(1..=MAX_PATIENCE_MS))]
    patience_ms: u64,
    /// MiB of shared memory that are copied while the program stands still; with more it is not prepared.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = value_parser!(u64).range(..=1 << 20))]
    shared_copy_limit_mib: u64,
    /// What cannot cross and is then no seed, with its holder named: kinds with commas between, or 'all'. The kinds:
    /// connections, pipes, processes, devices, unnamed, locks, watches, terminals, shared-memory, shared-files, io-uring,
    /// scheduling. What is not refused is closed in children. An io-uring is refused unless it is to be closed.
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = refused)]
    refuse: Vec<Refuse>,
    /// What is closed in children, of what is refused otherwise: kinds with commas between, or 'all'. Holds over --refuse.
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = refused)]
    close: Vec<Refuse>,
    /// Prepare a program under a seccomp filter, too: a filter that forbids what this takes may kill it.
    #[arg(long)]
    pub allow_seccomp: bool,
}

impl How {
    /// As the library is told.
    pub fn options(&self) -> OutsideOptions {
        OutsideOptions {
            shared_copy_limit: self.shared_copy_limit_mib << 20,
            stop_threads: Duration::from_millis(self.stop_threads_ms),
            patience: Duration::from_millis(self.patience_ms),
            allow_seccomp: self.allow_seccomp,
            refuse: all_of(&self.refuse).with(Refuse::UNLESS_TOLD).without(all_of(&self.close)),
        }
    }
}

fn all_of(kinds: &[Refuse]) -> Refuse {
    kinds.iter().fold(Refuse::NONE, |all, more| all.with(*more))
}

/// A kind of what cannot cross, or all.
fn refused(name: &str) -> Result<Refuse, String> {
    if name == "all" {
        return Ok(Refuse::all());
    }
    LossKind::named(name).map(|kind| Refuse::NONE.and(kind)).ok_or_else(|| {
        let kinds = LossKind::ALL.map(LossKind::name).join(", ");
        format!("no such kind: give all, or some of {kinds}")
    })
}

/// A process that is a seed now.
#[derive(Debug)]
pub struct Made {
    pub pid: u32,
    pub handle: Handle,
    /// For how long a thread of it was taken.
    pub taken: Duration,
}

impl Made {
    /// For programs.
    pub fn as_value(&self) -> serde_json::Value {
        json!({
            "handle": self.handle.reveal(),
            "seed": self.handle.seed.to_string(),
            "pid": self.pid,
            "taken_us": u64::try_from(self.taken.as_micros()).unwrap_or(u64::MAX),
        })
    }
}

/// Prepares `pid` and waits until its seed is published.
pub fn prepare(context: &Context, pid: u32, how: &How) -> anyhow::Result<Made> {
    let agent = context.agent();
    let prepared = prepare_process(&agent, pid, &how.options())?;
    let handle = published(&agent, prepared.token)?;
    Ok(Made { pid, handle, taken: prepared.taken })
}

/// `mitosis prepare`.
pub fn run(context: &Context, args: &PrepareArgs) -> anyhow::Result<ExitCode> {
    let made = prepare(context, args.pid, &args.how)?;
    if context.json {
        println!("{}", made.as_value());
    } else {
        println!("{}", made.handle.reveal());
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use mitosis::id::{ForkKey, SeedId};

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        how: How,
    }

    #[test]
    fn an_io_uring_is_refused_unless_it_is_to_be_closed() {
        let refused = |words: &[&str]| {
            let line = Line::try_parse_from([&["prepare"], words].concat()).unwrap();
            line.how.options().refuse
        };
        assert_eq!(refused(&[]), Refuse::NONE.and(LossKind::IoUring));
        assert_eq!(refused(&["--close", "io-uring"]), Refuse::NONE);
        let pipes = refused(&["--refuse", "pipes,locks", "--close", "io_uring,locks"]);
        assert_eq!(pipes, Refuse::NONE.and(LossKind::Pipes));
        assert_eq!(refused(&["--refuse", "all", "--close", "all"]), Refuse::NONE);
        assert!(Line::try_parse_from(["prepare", "--close", "sockets"]).is_err());
    }

    #[test]
    fn what_was_made_is_as_documented() {
        let handle = Handle { agent: None, seed: SeedId(1), key: ForkKey([2; 32]) };
        let made = Made { pid: 3, handle, taken: Duration::from_millis(4) };
        crate::json_tests::assert_documented("prepare", &[made.as_value()]);
        crate::json_tests::assert_documented("run", &[made.as_value()]);
    }
}
