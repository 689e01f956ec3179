//! `mitosis`: the agent of a host, and the command line to it.
#![deny(unsafe_code)]

mod completion;
mod daemon;
mod doctor;
mod info;
#[cfg(test)]
mod json_tests;
mod metrics;
mod notify;
mod prepare;
mod progress;
mod prometheus;
mod rdma;
mod run;
mod settings;
mod show;
mod show_files;
mod show_needs;
mod show_pages;
mod trace;
mod verbs;

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand};
use mitosis::client::{Clock, IdMap, Listen, Namespace};

use crate::settings::Settled;

/// Remote fork: one warmed-up process becomes N running processes on M machines.
#[derive(Debug, Parser)]
#[command(name = "mitosis", version, propagate_version = true)]
struct Cli {
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the agent of this host, in the foreground.
    Agent(daemon::AgentArgs),
    /// Run a program so that it can be prepared, and prepare it when its moment comes.
    ///
    /// The program has this one's standard streams, gets the signals that are sent to this one, and its exit
    /// status becomes this one's. See docs/preload.md.
    Run(run::RunArgs),
    /// Make a seed of a process that runs with the preload library (`mitosis run`); prints its handle.
    Prepare(prepare::PrepareArgs),
    /// Start children of a seed; their output is relayed, the exit status is the first failing child's.
    ///
    /// Of several children a bar on standard error tells how many have ended, if that is a terminal.
    ///
    /// SIGINT, SIGTERM and SIGHUP are passed on to the children; a second SIGINT leaves them running.
    Resume(ResumeArgs),
    /// Record what a child waits for, and draw it: address over time, as SVG.
    ///
    /// Starts a child of a seed on this host, as resume does, and records each miss and each page that comes unasked until
    /// it has ended; or records a child that runs here. All children of a seed share a host's image, so what others of them
    /// miss meanwhile is recorded, too. With --json the list is printed.
    Trace(trace::TraceArgs),
    /// List the seeds and children of this host.
    Ls,
    /// Show a seed's descriptor.
    Inspect(InspectArgs),
    /// End a seed: no new children, and its memory goes with the last child.
    Drop(DropArgs),
    /// Send a signal to a child.
    Kill(KillArgs),
    /// Show the agent's counters.
    Stats {
        /// In Prometheus's text format, for node_exporter's textfile collector.
        #[arg(long, conflicts_with = "json")]
        prometheus: bool,
    },
    /// Show what this host has: kernel, RDMA devices, ports, GIDs, and the fabric that is chosen.
    Info(InfoArgs),
    /// Look for what this host lacks, and say what to do; fails if something needed is missing.
    Doctor(DoctorArgs),
    /// Print a shell's completion of this command line.
    ///
    /// bash: source <(mitosis completion bash). zsh: into a folder of $fpath, as _mitosis. fish: into
    /// ~/.config/fish/completions/mitosis.fish.
    Completion {
        /// Which shell.
        shell: completion::Shell,
    },
    /// End the agent of this host, with its seeds and children.
    Shutdown,
    /// The keeper process of an agent; started by it.
    #[command(hide = true)]
    Keeper {
        /// The socket to the agent.
        #[arg(long)]
        fd: i32,
        /// A directory of the agent's own, to be taken away when it is gone.
        #[arg(long)]
        clear: Option<PathBuf>,
    },
}

/// How to start children.
#[derive(Debug, Args)]
struct ResumeArgs {
    /// The seed's handle; `-` reads it from standard input, `@FILE` from a file.
    handle: String,
    /// The host to run on; this one if not given.
    #[arg(long, value_name = "HOST[:PORT]")]
    on: Option<String>,
    #[command(flatten)]
    how: ChildArgs,
    /// Print the children and return; do not wait for them.
    #[arg(long)]
    detach: bool,
}

/// What children are started with.
#[derive(Debug, Args)]
struct ChildArgs {
    /// How many children.
    #[arg(short = 'n', default_value_t = 1)]
    count: u32,
    /// Bytes for the children (`Resumed.payload`).
    #[arg(long, default_value = "")]
    payload: String,
    /// Set a variable in the children's environment; `NAME` alone unsets it.
    #[arg(long = "env", value_name = "NAME=VALUE")]
    environment: Vec<String>,
    /// Give children of a whole process new process and thread ids, not those that it had.
    #[arg(long)]
    new_ids: bool,
    /// Where a socket of the seed's listens in the children: all, PORT, PORT=PORT, unix:/PATH or
    /// unix:/PATH=/PATH; without, no connection comes to it.
    #[arg(long, value_name = "WHERE")]
    listen: Vec<Listen>,
    /// What CLOCK_MONOTONIC and CLOCK_BOOTTIME tell in the children: what they tell in the parent now (live), or what
    /// they told at prepare (frozen), from where timers go on with what they had left.
    #[arg(long, value_name = "live|frozen", default_value = "live")]
    clock: Clock,
    /// The children's working directory on their host; without, the seed's if it is there, else /.
    #[arg(long, value_name = "PATH")]
    cwd: Option<String>,
    /// What the children find as their host's name, in a UTS namespace of their own.
    #[arg(long, value_name = "NAME")]
    hostname: Option<String>,
    /// The control group that the children enter: a directory of their host, /sys/fs/cgroup/...
    #[arg(long, value_name = "DIRECTORY")]
    cgroup: Option<String>,
    /// A namespace of their host that the children join (cgroup, ipc, net, uts, mnt), as nsenter(1) does:
    /// net=/run/netns/NAME
    #[arg(long = "ns", value_name = "KIND=PATH")]
    namespaces: Vec<Namespace>,
    /// A part of the id map of a user namespace that the children are in, users and groups alike: as many ids, from INSIDE
    /// on in the children, are those from OUTSIDE on of their host. For a seed of one thread.
    #[arg(long = "id-map", value_name = "INSIDE:OUTSIDE:COUNT")]
    id_map: Vec<IdMap>,
    /// What /proc/self/cmdline and ps(1) tell of the children, behind --: the first word is the program's name. Without, what
    /// they tell of the seed. The argv that the program was started with stays what it is.
    #[arg(last = true, value_name = "ARGV")]
    argv: Vec<String>,
}

/// What to show.
#[derive(Debug, Args)]
struct InspectArgs {
    /// A handle (or `-`, `@FILE`), or the id of a seed of this host.
    seed: String,
    /// Print the restore program that would lay out a template here.
    #[arg(long)]
    program: bool,
}

/// What to show of this host.
#[derive(Debug, Args)]
struct InfoArgs {
    /// Show every setting instead: its value, whence it comes, and what it does. Fails if a value is wrong.
    #[arg(short = 'c', long)]
    settings: bool,
    /// Show what the agent would make of these flags.
    #[arg(last = true, value_name = "AGENT-FLAG", requires = "settings")]
    flags: Vec<String>,
}

/// What to look at.
#[derive(Debug, Args)]
struct DoctorArgs {
    /// Look at another host instead: whether its agent is reached from here, knows the secret, and by which ways pages
    /// would come.
    #[arg(long, value_name = "HOST[:PORT]")]
    peer: Option<String>,
    /// Look as an agent with these flags would.
    #[arg(last = true, value_name = "AGENT-FLAG")]
    flags: Vec<String>,
}

/// What to end.
#[derive(Debug, Args)]
struct DropArgs {
    /// The id of a seed of this host, or its handle (or `-`, `@FILE`), whose key must be right.
    seed: String,
    /// Make READs fail at once; children that touch a missing page die with SIGBUS.
    #[arg(long)]
    revoke: bool,
}

/// Which child, and how.
#[derive(Debug, Args)]
struct KillArgs {
    /// The child's id, as `mitosis ls` shows it.
    child: String,
    /// A name (TERM, KILL, HUP, INT, QUIT, USR1, USR2, STOP, CONT) or a number.
    #[arg(short, long, default_value = "TERM")]
    signal: String,
    /// The host that it runs on; this one if not given.
    #[arg(long, value_name = "HOST[:PORT]")]
    on: Option<String>,
}

fn main() -> ExitCode {
    let command = settings::with_flags(without_empty_variables(Cli::command()));
    let matches = command.get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    let as_json = cli.json;
    let result = carry_out(cli, settings::of_command(&matches));
    result.unwrap_or_else(|error| {
        if as_json {
            eprintln!("{}", error_as_value(&error));
        } else {
            eprintln!("mitosis: {error:#}");
        }
        ExitCode::FAILURE
    })
}

/// For programs, on standard error.
fn error_as_value(error: &anyhow::Error) -> serde_json::Value {
    serde_json::json!({ "error": format!("{error:#}") })
}

/// Does what the command line asks for.
fn carry_out(cli: Cli, mut flags: settings::Flags) -> anyhow::Result<ExitCode> {
    // Neither has settings.
    if let Verb::Keeper { fd, clear } = &cli.verb {
        return daemon::keeper(*fd, clear.as_deref());
    }
    if let Verb::Completion { shell } = &cli.verb {
        return completion::run(*shell);
    }
    if let Verb::Info(InfoArgs { flags: agents, .. })
    | Verb::Doctor(DoctorArgs { flags: agents, .. }) = &cli.verb
    {
        flags.extend(settings::of_agent(agents).unwrap_or_else(|error| error.exit()));
    }
    let is_embedded = matches!(&cli.verb, Verb::Agent(args) if args.embedded);
    let settled = Settled::settle(&flags, is_embedded);
    if let Verb::Agent(args) = &cli.verb {
        // It checks the file, and more of the values, itself.
        return daemon::run(args, &settled, cli.json);
    }
    settled.check_file(false)?;
    if let Verb::Info(InfoArgs { settings: true, .. }) = cli.verb {
        return Ok(info::settings(&settled, cli.json));
    }
    if let Verb::Doctor(DoctorArgs { peer, .. }) = &cli.verb {
        return Ok(doctor::run(&settled, peer.as_deref(), cli.json));
    }
    settled.check(false)?;
    let socket = settled.text("socket").map(PathBuf::from);
    let context = verbs::Context { json: cli.json, socket };
    match cli.verb {
        Verb::Run(args) => run::run(&context, args),
        Verb::Prepare(args) => prepare::run(&context, &args),
        Verb::Resume(args) => verbs::resume(&context, &args),
        Verb::Trace(args) => trace::run(&context, &args),
        Verb::Ls => verbs::list(&context),
        Verb::Inspect(args) => verbs::inspect(&context, &args),
        Verb::Drop(args) => verbs::drop_seed(&context, &args),
        Verb::Kill(args) => verbs::kill(&context, &args),
        Verb::Stats { prometheus } => verbs::stats(&context, prometheus),
        Verb::Info(_) => {
            info::run(&context.agent(), &settled, context.json);
            Ok(ExitCode::SUCCESS)
        }
        Verb::Shutdown => verbs::shutdown(&context),
        Verb::Agent(_) | Verb::Doctor(_) | Verb::Keeper { .. } | Verb::Completion { .. } => {
            unreachable!("done above")
        }
    }
}

/// A variable that is set and empty is not set: the library says so, too.
fn without_empty_variables(command: Command) -> Command {
    let is_empty = |name: &OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|argument| {
            if argument.get_env().is_some_and(is_empty) { argument.env(None) } else { argument }
        })
        .mut_subcommands(without_empty_variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_as_documented() {
        let error = anyhow::anyhow!("a").context("b");
        assert_eq!(error_as_value(&error)["error"], "b: a");
        json_tests::assert_documented("errors", &[error_as_value(&error)]);
    }
}
