//! The command line of `mitosis-guests`: one job in each guest.

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::guests::{Config, Device, Guests, Kind};
use crate::job::Job;

const USAGE: &str = "\
usage: tests/rxe/run [OPTION]... [--] JOB [ARGUMENT]...

Boots guests with an RDMA device, runs a copy of JOB (a script or a program) in each, shows what
they say and ends as the first of them that fails. JOB finds NODE (from 1 on), NODES, SELF and
PEER (addresses) in its environment; /host is a folder that all guests share.
  --kind KIND           emulated, or user-mode: fast, and nothing can be forked there (emulated)
  --device TYPE         rxe: Soft-RoCE; siw: Soft-iWARP, in user mode (rxe)
  --nodes N             how many guests, up to 2 emulated, up to 8 in user mode (2)
  --file SRC[:NAME]     a file or directory for /host/files/NAME, as often as needed
  --env KEY=VALUE       a variable for JOB, as often as needed
  --python PROGRAM      host-a has this interpreter of a venv, with numpy and mitosis, at its path
  --kernels differ      host-b has a kernel of another series (6.1 beside 6.12)
  --dc yes              JOB has the software DC of tests/dc_provider
  --timeout-s N         how long JOB may take (120)
  --memory-mib N        memory of each guest (512)
  --mtu N               of the link (9000)
  --name NAME           the run's directory is target/rxe/run/NAME.PID (run)

Exit status 125: the guests did not come up, or ended, or JOB took too long.
";

/// Exit status for a failure that is not the job's.
const OWN_FAILURE: u8 = 125;
/// How often the jobs' output is shown.
const SHOW: Duration = Duration::from_millis(100);

struct Request {
    config: Config,
    files: Vec<(PathBuf, String)>,
    limit: Duration,
    job: PathBuf,
    arguments: Vec<String>,
}

/// The whole program, given its arguments without its name.
pub fn main(arguments: impl Iterator<Item = OsString>) -> ExitCode {
    let words: Result<Vec<String>, _> = arguments.map(OsString::into_string).collect();
    let Ok(words) = words else {
        eprintln!("mitosis-guests: an argument is no UTF-8");
        return ExitCode::from(OWN_FAILURE);
    };
    if words.iter().take_while(|word| *word != "--").any(|word| word == "--help") {
        print!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match parse(words).and_then(|request| run(&request)) {
        Ok(status) => ExitCode::from(u8::try_from(status).unwrap_or(OWN_FAILURE)),
        Err(error) => {
            eprintln!("mitosis-guests: {error:#}");
            ExitCode::from(OWN_FAILURE)
        }
    }
}

fn parse(words: Vec<String>) -> Result<Request> {
    let mut words = words.into_iter();
    let mut config = Config::named("run");
    let (mut files, mut limit_s) = (Vec::new(), 120);
    let job = loop {
        let word = words.next().with_context(|| format!("no JOB is given\n{USAGE}"))?;
        if word == "--" {
            break words.next().context("no JOB is given")?;
        }
        if !word.starts_with("--") {
            break word;
        }
        let value = words.next().with_context(|| format!("{word} needs a value"))?;
        let number = || value.parse().with_context(|| format!("{word} needs a number"));
        match word.as_str() {
            "--kind" => config.kind = kind(&value)?,
            "--device" => config.device = device(&value)?,
            "--nodes" => config.nodes = number()?,
            "--memory-mib" => config.memory_mib = number()?,
            "--mtu" => config.mtu = number()?,
            "--timeout-s" => limit_s = number()?,
            "--name" => config.name = value,
            "--python" => config.python = Some(absolute(&value)?),
            "--env" => {
                let (name, value) = value.split_once('=').context("--env needs KEY=VALUE")?;
                config.env.push((name.to_owned(), value.to_owned()));
            }
            "--kernels" => config.kernels_differ = value == "differ",
            "--dc" => config.dc = value == "yes",
            "--file" => files.push(file(&value)?),
            _ => bail!("{word} is not known here\n{USAGE}"),
        }
    };
    Ok(Request {
        config,
        files,
        limit: Duration::from_secs(limit_s.into()),
        job: job.into(),
        arguments: words.collect(),
    })
}

fn kind(value: &str) -> Result<Kind> {
    match value {
        "emulated" => Ok(Kind::Emulated),
        "user-mode" => Ok(Kind::UserMode),
        _ => bail!("--kind is emulated or user-mode, and not {value}"),
    }
}

fn device(value: &str) -> Result<Device> {
    match [Device::SoftRoce, Device::SoftIwarp].into_iter().find(|device| device.kind() == value) {
        Some(device) => Ok(device),
        None => bail!("--device is rxe or siw, and not {value}"),
    }
}

/// A path whose links are kept: an interpreter finds its venv by its name.
fn absolute(path: &str) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("no absolute path for {path}"))
}

fn file(value: &str) -> Result<(PathBuf, String)> {
    let (source, name) = match value.rsplit_once(':') {
        Some((source, name)) => (source, Some(name)),
        None => (value, None),
    };
    let own = Path::new(source).file_name().and_then(|name| name.to_str());
    let name = name.or(own).with_context(|| format!("--file {value} names no file"))?;
    Ok((source.into(), name.to_owned()))
}

fn run(request: &Request) -> Result<i32> {
    if !request.job.is_file() {
        bail!("no {} to run", request.job.display());
    }
    let guests = Guests::up(&request.config)?;
    for (source, name) in &request.files {
        guests.give(source, name)?;
    }
    let arguments: Vec<&str> = request.arguments.iter().map(String::as_str).collect();
    let mut shown = Vec::new();
    for guest in guests.all() {
        let job = guest.executable(&request.job, &arguments)?;
        shown.push((job, Shown::default(), Shown::default()));
    }
    let begun = std::time::Instant::now();
    while begun.elapsed() < request.limit && shown.iter().any(|(job, ..)| !job.has_ended()) {
        std::thread::sleep(SHOW);
        for (job, out, err) in &mut shown {
            out.show(job, "out", std::io::stdout())?;
            err.show(job, "err", std::io::stderr())?;
        }
    }
    let mut status = 0;
    for (job, mut out, mut err) in shown {
        let left = request.limit.saturating_sub(begun.elapsed());
        out.show(&job, "out", std::io::stdout())?;
        err.show(&job, "err", std::io::stderr())?;
        let ended = job.end(left)?;
        status = if status == 0 { ended.status } else { status };
    }
    Ok(status)
}

/// How much of a job's output has been shown.
#[derive(Default)]
struct Shown {
    bytes: usize,
}

impl Shown {
    /// Shows the lines that have come since, each behind the number of its guest.
    fn show(&mut self, job: &Job, stream: &str, mut to: impl Write) -> Result<()> {
        // Looked at first: then its output is all there.
        let ended = job.has_ended();
        let said = job.said(stream);
        let mut news = said.get(self.bytes..).unwrap_or_default();
        if !ended {
            news = &news[..news.rfind('\n').map_or(0, |end| end + 1)];
        }
        self.bytes += news.len();
        for line in news.lines() {
            writeln!(to, "{}: {line}", job.guest.name()).context("cannot show a job's output")?;
        }
        Ok(())
    }
}
