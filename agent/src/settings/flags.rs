//! The table as clap has it.

use std::collections::BTreeMap;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::table::{self, Kind, Reader, Setting};

/// Values of flags, by their setting's name.
pub type Flags = BTreeMap<&'static str, String>;

/// Gives the command line its flags: some to all verbs, the rest to `mitosis agent`.
pub fn with_flags(command: Command) -> Command {
    let everybodys = table::all().filter(|setting| setting.reader == Reader::Command);
    command
        .args(everybodys.map(|setting| argument(setting).global(true)))
        .mut_subcommand("agent", |agent| agent.args(agents()))
}

fn agents() -> impl Iterator<Item = Arg> {
    table::all().filter(|setting| setting.reader == Reader::Agent).map(argument)
}

fn argument(setting: &'static Setting) -> Arg {
    let default = setting.default.filter(|_| setting.kind != Kind::Switch);
    let default = default.map_or(String::new(), |default| format!("[default: {default}] "));
    let help = format!("{} {default}[env: {}]", setting.doc, setting.variable);
    let argument = Arg::new(setting.name).long(setting.flag.unwrap_or_default()).help(help);
    match setting.kind {
        Kind::Switch => argument.action(ArgAction::SetTrue),
        Kind::List | Kind::Numbers => argument.value_name(setting.value).action(ArgAction::Append),
        _ => argument.value_name(setting.value),
    }
}

/// What the flags of this command line say.
pub fn of_command(matches: &ArgMatches) -> Flags {
    match matches.subcommand() {
        Some((verb, matches)) => of_verb(matches, verb == "agent"),
        None => of_verb(matches, false),
    }
}

/// What `mitosis agent` would make of these arguments.
pub fn of_agent(arguments: &[String]) -> Result<Flags, clap::Error> {
    let everybodys = table::all().filter(|setting| setting.reader == Reader::Command);
    let command = Command::new("mitosis VERB --").no_binary_name(true).args(agents());
    let command = command.args(everybodys.map(argument));
    Ok(of_verb(&command.try_get_matches_from(arguments)?, true))
}

/// Other verbs have arguments of the same names.
fn of_verb(matches: &ArgMatches, is_agent: bool) -> Flags {
    let own = table::all().filter(|setting| match setting.reader {
        Reader::Command => true,
        Reader::Agent => is_agent,
        Reader::Other(_) => false,
    });
    own.filter_map(|setting| Some((setting.name, told(matches, setting)?))).collect()
}

fn told(matches: &ArgMatches, setting: &Setting) -> Option<String> {
    if setting.kind == Kind::Switch {
        let is_on = matches.try_get_one::<bool>(setting.name).ok().flatten().copied()?;
        return is_on.then(|| "true".to_owned());
    }
    let values: Vec<&str> =
        matches.try_get_many::<String>(setting.name).ok()??.map(String::as_str).collect();
    Some(values.join(","))
}
