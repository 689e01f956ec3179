//! The command line of `mitosis-hosts`.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

use crate::guest;
use crate::ns;
use crate::run::{self, OWN_FAILURE};
use crate::spec::{FileSpec, Hosts, TIME_OFFSET_S};
use crate::supervisor::{Supervisor, Wanted};

const USAGE: &str = "\
usage: mitosis-hosts up [OPTION]... [-- CMD...]
       mitosis-hosts exec (--host NAME | --pid INIT_PID) [OPTION]... -- CMD...
       mitosis-hosts clocks

up      builds sealed hosts. With CMD: runs it outside of them, with MITOSIS_HOSTS_JSON
        set, and ends as it does. Without: prints the JSON and holds them until the end
        of its input or a signal.
  --file SRC[:DST]      a file for each host after host-a, with the libraries it needs
  --hosts N             how many hosts (2)
  --b-time-offset-s N   how far the clocks of host-b are ahead, in seconds (7 days);
                        those of host-c twice as far, and so on
  --owner PID           also end when this process does
exec    runs CMD in a host, with an environment of its own, and ends as it does.
  --host NAME           host-b, or b: one of those in MITOSIS_HOSTS_JSON
  --pid INIT_PID        the host with this init
  --env KEY=VALUE       a variable for CMD, as often as needed
  --cpu N               on this CPU alone
  --cwd DIR             where CMD starts (/)
clocks  prints the clocks that it sees, as JSON.

Exit status 125: mitosis-hosts itself failed; 126, 127: CMD cannot be run, is not there.
";

/// What a command finds in its environment unless `--env` says otherwise.
const BASE_ENVIRONMENT: [(&str, &str); 3] = [
    ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
    ("HOME", "/root"),
    ("LANG", "C.UTF-8"),
];

/// The whole program, given its arguments without its name.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let mut arguments = Arguments(arguments.collect::<Vec<_>>().into_iter());
    let verb = arguments.0.next().unwrap_or_default();
    let result = match verb.to_str() {
        Some("up") => up(arguments),
        Some("exec") => exec(arguments),
        Some("clocks") => clocks(),
        Some("help" | "--help" | "-h") => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(OWN_FAILURE);
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("mitosis-hosts: {error:#}");
        ExitCode::from(OWN_FAILURE)
    })
}

struct Arguments(std::vec::IntoIter<OsString>);

impl Arguments {
    /// The next option; None at `--` or the end, after which the rest is the command.
    fn option(&mut self) -> Result<Option<String>> {
        match self.0.next() {
            None => Ok(None),
            Some(argument) if argument == "--" => Ok(None),
            Some(argument) => match argument.into_string() {
                Ok(option) => Ok(Some(option)),
                Err(bytes) => bail!("{} is no option", bytes.to_string_lossy()),
            },
        }
    }

    fn value(&mut self, option: &str) -> Result<OsString> {
        self.0.next().with_context(|| format!("{option} needs a value"))
    }

    fn number<N: std::str::FromStr>(&mut self, option: &str) -> Result<N> {
        let value = self.value(option)?;
        let number = value.to_str().and_then(|text| text.parse().ok());
        number.with_context(|| format!("{option} needs a number, not {}", value.to_string_lossy()))
    }

    fn rest(self) -> Vec<OsString> {
        self.0.collect()
    }
}

fn unknown(option: &str) -> Result<()> {
    bail!("{option} is not known here; see mitosis-hosts help")
}

fn up(mut arguments: Arguments) -> Result<ExitCode> {
    let mut wanted =
        Wanted { files: Vec::new(), hosts: 2, time_offset_s: TIME_OFFSET_S, owner: None };
    while let Some(option) = arguments.option()? {
        match option.as_str() {
            "--file" => wanted.files.push(FileSpec::parse(&arguments.value(&option)?)?),
            "--hosts" => wanted.hosts = arguments.number(&option)?,
            "--b-time-offset-s" => wanted.time_offset_s = arguments.number(&option)?,
            "--owner" => wanted.owner = Some(arguments.number(&option)?),
            _ => unknown(&option)?,
        }
    }
    let argv = arguments.rest();
    let supervisor = Supervisor::up(&wanted)?;
    if argv.is_empty() {
        let mut stdout = io::stdout();
        let held = writeln!(stdout, "{}", supervisor.json()?)
            .and_then(|()| stdout.flush())
            .context("cannot print the hosts")
            .and_then(|()| supervisor.hold());
        supervisor.down()?;
        return held.map(|()| ExitCode::SUCCESS);
    }
    let ended = supervisor.run(&argv);
    supervisor.down()?;
    ended.map(run::Ended::imitate)
}

fn exec(mut arguments: Arguments) -> Result<ExitCode> {
    let mut init_pid = None;
    let mut environment = Vec::new();
    let mut cpu = None;
    let mut directory = PathBuf::from("/");
    while let Some(option) = arguments.option()? {
        match option.as_str() {
            "--pid" => init_pid = Some(arguments.number(&option)?),
            "--host" => {
                let name: String = arguments.number(&option)?;
                init_pid = Some(Hosts::from_env()?.named(&name)?.init_pid);
            }
            "--env" => environment.push(variable(&arguments.value(&option)?)?),
            "--cpu" => cpu = Some(arguments.number(&option)?),
            "--cwd" => directory = arguments.value(&option)?.into(),
            _ => unknown(&option)?,
        }
    }
    let init_pid: i32 = init_pid.context("which host? give --host or --pid")?;
    let argv = arguments.rest();
    let [program, rest @ ..] = &argv[..] else { bail!("no command is given after --") };

    enter(init_pid)?;
    std::env::set_current_dir(&directory)
        .with_context(|| format!("no directory {} on that host", directory.display()))?;
    let mut command = Command::new(program);
    command.args(rest).env_clear().envs(BASE_ENVIRONMENT).envs(environment);
    Ok(guest::run(command, cpu)?.imitate())
}

fn variable(argument: &OsString) -> Result<(String, String)> {
    let split = argument.to_str().and_then(|text| text.split_once('='));
    let (key, value) = split
        .filter(|(key, _)| !key.is_empty())
        .with_context(|| format!("--env needs KEY=VALUE, not {}", argument.to_string_lossy()))?;
    Ok((key.to_owned(), value.to_owned()))
}

fn enter(init_pid: i32) -> Result<()> {
    use std::os::fd::AsFd;
    let what = || format!("no host has the init {init_pid}; take the pid that `up` printed");
    let init = ns::pidfd_open(init_pid).with_context(what)?;
    let namespace = |pid: &str| std::fs::read_link(Path::new("/proc").join(pid).join("ns/pid"));
    let theirs = namespace(&init_pid.to_string()).with_context(what)?;
    if theirs == namespace("self")? {
        bail!(what());
    }
    ns::enter(init.as_fd()).with_context(|| format!("cannot enter the host of init {init_pid}"))
}

fn clocks() -> Result<ExitCode> {
    let json = serde_json::json!({
        "monotonic_s": ns::clock_s(libc::CLOCK_MONOTONIC)?,
        "boottime_s": ns::clock_s(libc::CLOCK_BOOTTIME)?,
        "realtime_s": ns::clock_s(libc::CLOCK_REALTIME)?,
    });
    println!("{json}");
    Ok(ExitCode::SUCCESS)
}
