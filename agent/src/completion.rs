//! `mitosis completion`: what a shell needs to complete this command line.

use std::io::Write;
use std::process::ExitCode;

use clap::{Command, CommandFactory, ValueEnum};
use clap_complete::generate;
use clap_complete::shells::{Bash, Fish, Zsh};

use crate::settings::with_flags;

/// A shell that can be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shell {
    /// GNU bash.
    Bash,
    /// zsh.
    Zsh,
    /// fish.
    Fish,
}

/// Prints it.
pub fn run(shell: Shell) -> anyhow::Result<ExitCode> {
    let mut command = visible(&with_flags(crate::Cli::command()));
    let mut script = Vec::new();
    match shell {
        Shell::Bash => generate(Bash, &mut command, "mitosis", &mut script),
        Shell::Zsh => generate(Zsh, &mut command, "mitosis", &mut script),
        Shell::Fish => generate(Fish, &mut command, "mitosis", &mut script),
    }
    std::io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}

/// Without what `--help` hides, which generators offer all the same.
fn visible(command: &Command) -> Command {
    let verbs = command.get_subcommands().filter(|verb| !verb.is_hide_set()).map(visible);
    let arguments = command.get_arguments().filter(|argument| !argument.is_hide_set());
    let bare = Command::new(command.get_name().to_owned());
    let bare = match command.get_about() {
        Some(about) => bare.about(about.clone()),
        None => bare,
    };
    bare.args(arguments.cloned()).subcommands(verbs)
}
