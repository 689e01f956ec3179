//! Settings: flags over `MITOSIS_*` variables over the file over defaults.
//!
//! ```text
//! table.rs    what settings there are        file.rs      the file's lines
//! mod.rs      which value holds, and whence  nearest.rs   what an unknown name may have meant
//! show.rs     `mitosis info -c`              flags.rs     the table as clap has it
//! ```
//! A variable or line that is there and empty is not there.

mod file;
mod flags;
mod nearest;
mod show;
mod table;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::bail;
use mitosis::verbs::choice::{FabricName, Settings as RdmaSettings};

use self::file::{Line, Place};
pub use self::flags::{Flags, of_agent, of_command, with_flags};
use self::nearest::nearest;
use self::table::{CONFIG, Kind, Reader, Setting};

/// Ours begin so.
const PREFIX: &str = "MITOSIS_";
/// Variables of tests, by any name.
const TESTS_PREFIX: &str = "MITOSIS_TEST_";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The command line.
    Flag,
    /// The environment.
    Variable,
    /// A line of the file, counted from 1.
    File(PathBuf, usize),
    /// Nobody set it.
    Default,
}

/// A setting with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    setting: &'static Setting,
    value: Option<String>,
    origin: Origin,
    /// What would be right, if the value is not.
    fault: Option<String>,
}

impl Held {
    /// The value as it was told, and what is wrong with it.
    fn complaint(&self) -> Option<String> {
        self.fault.as_ref().map(|fault| format!("{self}: {fault}"))
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (setting, value) = (self.setting, self.value.as_deref().unwrap_or_default());
        match &self.origin {
            Origin::Flag => write!(f, "--{} {value}", setting.flag.unwrap_or_default()),
            Origin::Variable => write!(f, "{}={value}", setting.variable),
            Origin::File(path, line) => {
                write!(f, "{}:{line}: {} = {value}", path.display(), setting.name)
            }
            Origin::Default => write!(f, "{} = {value}", setting.name),
        }
    }
}

/// All settings, as they hold for this process.
#[derive(Clone, Debug)]
pub struct Settled {
    held: Vec<Held>,
    file: Option<PathBuf>,
    file_is_there: bool,
    /// Somebody named it.
    file_is_named: bool,
    /// Why it was not read.
    file_fault: Option<String>,
    /// Names that are not known.
    pub warnings: Vec<String>,
}

impl Settled {
    /// From a command line and this process's environment. The host's own file is left out for an embedded agent, which is
    /// one program's own: `listen` there is meant for the host's agent.
    ///
    /// A file that cannot be read, and wrong values, are no error yet: see [`Settled::check`].
    pub fn settle(flags: &Flags, is_embedded: bool) -> Self {
        let ours = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            name.starts_with(PREFIX).then_some((name, value))
        });
        Self::from_parts(flags, ours.collect(), is_embedded)
    }

    fn from_parts(
        flags: &Flags,
        environment: BTreeMap<String, OsString>,
        is_embedded: bool,
    ) -> Self {
        let place = place(flags, &environment, is_embedded);
        let (lines, file_fault) = match place.as_ref().map(file::read).transpose() {
            Ok(lines) => (lines.flatten(), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let file_is_named = place.as_ref().is_some_and(|place| place.is_named);
        let file = place.map(|place| place.path);
        let source = Source {
            flags,
            environment: &environment,
            path: file.clone().unwrap_or_default(),
            lines: lines.as_deref().unwrap_or_default(),
        };
        let held = table::all().map(|setting| source.hold(setting)).collect();
        let warnings = source.unknown();
        let file_is_there = lines.is_some();
        Settled { held, file, file_is_there, file_is_named, file_fault, warnings }
    }

    /// Fails if the file cannot be read, and is the agent's or was named. Other verbs go on without the host's: a wrong
    /// line of it must not keep anybody from ending an agent.
    ///
    /// # Errors
    /// It names the file, the line, and what is taken.
    pub fn check_file(&self, of_agent: bool) -> anyhow::Result<()> {
        match &self.file_fault {
            Some(fault) if of_agent || self.file_is_named => bail!("{fault}"),
            Some(fault) => eprintln!("mitosis: {fault}; going on without this file"),
            None => {}
        }
        Ok(())
    }

    /// Fails for the first wrong value that the agent, or every verb, would read.
    ///
    /// # Errors
    /// It names where the value comes from, the value, and what is taken.
    pub fn check(&self, of_agent: bool) -> anyhow::Result<()> {
        if of_agent {
            self.check_file(true)?;
        }
        let read = self.held.iter().filter(|held| match held.setting.reader {
            Reader::Command => true,
            Reader::Agent => of_agent,
            Reader::Other(_) => false,
        });
        if let Some(complaint) = read.filter_map(Held::complaint).next() {
            bail!(complaint);
        }
        Ok(())
    }

    /// Tells people of names that are not known.
    pub fn warn(&self) {
        self.warnings.iter().for_each(|warning| eprintln!("mitosis: {warning}"));
    }

    /// A value as it was told.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.held(name).value.as_deref()
    }

    /// The parts of a list.
    pub fn list(&self, name: &str) -> Vec<&str> {
        let parts = self.text(name).into_iter().flat_map(|text| text.split(','));
        parts.map(str::trim).filter(|part| !part.is_empty()).collect()
    }

    /// A number; none if it is wrong or not told.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok().filter(|_| self.held(name).fault.is_none())
    }

    /// An address; none if it is wrong or not told.
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        table::parse_address(self.text(name)?).ok()
    }

    /// Whether a switch is on.
    pub fn switch(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| table::parse_switch(text) == Ok(true))
    }

    /// What is asked for of RDMA.
    ///
    /// # Errors
    /// As [`Settled::check`].
    pub fn rdma(&self) -> anyhow::Result<RdmaSettings> {
        let mut own = self.held.iter().filter(|held| held.setting.kind == Kind::Rdma);
        if let Some(complaint) = own.find_map(Held::complaint) {
            bail!(complaint);
        }
        let mut settings = RdmaSettings::from_variables(|variable| {
            let held = self.held.iter().find(|held| held.setting.variable == variable)?;
            held.value.clone()
        })?;
        if self.switch("encrypt_reads") {
            let wish = &mut settings.fabric;
            let is_card = wish.fabric.map_or(wish.required, |fabric| fabric != FabricName::Tcp);
            if is_card {
                bail!(
                    "{}: what an RDMA card READs is not encrypted, and encrypt_reads is set: give tcp, or take \
                     encrypt_reads away",
                    self.held("fabric")
                );
            }
            wish.fabric = Some(FabricName::Tcp);
        }
        Ok(settings)
    }

    fn held(&self, name: &str) -> &Held {
        let found = self.held.iter().find(|held| held.setting.name == name);
        found.unwrap_or_else(|| unreachable!("{name} is not in the table of settings"))
    }
}

/// The file that is meant; none for a program's own agent, unless it is named.
fn place(
    flags: &Flags,
    environment: &BTreeMap<String, OsString>,
    is_embedded: bool,
) -> Option<Place> {
    let config = table::all().find(|setting| setting.name == CONFIG)?;
    let variable = environment.get(config.variable).filter(|value| !value.is_empty());
    let named = flags.get(config.name).map(PathBuf::from).or_else(|| variable.map(PathBuf::from));
    match named {
        Some(path) => Some(Place { path, is_named: true }),
        None if is_embedded => None,
        None => Some(Place { path: file::HOST_FILE.into(), is_named: false }),
    }
}

/// Whence values come.
struct Source<'a> {
    flags: &'a Flags,
    environment: &'a BTreeMap<String, OsString>,
    path: PathBuf,
    lines: &'a [Line],
}

impl Source<'_> {
    fn hold(&self, setting: &'static Setting) -> Held {
        let (value, origin) = self.find(setting);
        let fault = match &value {
            Some(Ok(value)) if origin != Origin::Default => setting.check(value).err(),
            Some(Err(_)) => Some("it is not UTF-8".to_owned()),
            _ => None,
        };
        let value = value.map(|value| value.unwrap_or_else(|lossy| lossy));
        Held { setting, value, origin, fault }
    }

    fn find(&self, setting: &'static Setting) -> (Option<Result<String, String>>, Origin) {
        if let Some(value) = self.flags.get(setting.name) {
            return (Some(Ok(value.clone())), Origin::Flag);
        }
        let variable = self.environment.get(setting.variable).filter(|value| !value.is_empty());
        if let Some(value) = variable {
            let value = value.clone().into_string();
            let value = value.map_err(|value| value.to_string_lossy().into_owned());
            return (Some(value), Origin::Variable);
        }
        let mut lines = self.lines.iter().filter(|line| !line.value.is_empty());
        match lines.find(|line| setting.is_in_file() && line.name == setting.name) {
            Some(line) => {
                let origin = Origin::File(self.path.clone(), line.number);
                (Some(Ok(line.value.clone())), origin)
            }
            None => (setting.default.map(|value| Ok(value.to_owned())), Origin::Default),
        }
    }

    fn unknown(&self) -> Vec<String> {
        let variables = || table::all().map(|setting| setting.variable);
        let names = || table::all().filter(|setting| setting.is_in_file()).map(|own| own.name);
        let unknown = self.environment.keys().filter(|name| {
            !variables().any(|known| known == *name) && !name.starts_with(TESTS_PREFIX)
        });
        let mut warnings: Vec<String> =
            unknown.map(|name| warning("", name, nearest(name, variables()))).collect();
        for line in self.lines.iter().filter(|line| !names().any(|name| name == line.name)) {
            let place = format!("{}:{}: ", self.path.display(), line.number);
            warnings.push(warning(&place, &line.name, nearest(&line.name, names())));
        }
        warnings
    }
}

fn warning(place: &str, name: &str, nearest: Option<&str>) -> String {
    let told = nearest.map_or(String::new(), |nearest| format!("; is {nearest} meant?"));
    format!("{place}{name} is no setting of Mitosis{told} ('mitosis info -c' lists them)")
}

#[cfg(test)]
mod tests;
