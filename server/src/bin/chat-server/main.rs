//! `chat-server`: flags, signals, exit code.

#![forbid(unsafe_code)]

mod cli;
mod commands;
mod config;
mod logging;
mod serve;
mod supervisor;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use server::RelayError;
use server::config::Settings;
use server::usage::{Wrong, without_empty_environment, wrong};

use crate::cli::{Command, Flags};
use crate::logging::Log;
use crate::serve::Source;

fn main() -> ExitCode {
    let command = without_empty_environment(Flags::command().args_override_self(true));
    let parsed = command.try_get_matches().and_then(|matches| {
        let flags = Flags::from_arg_matches(&matches)?;
        Ok((matches, flags))
    });
    let (matches, flags) = match parsed {
        Ok(parsed) => parsed,
        Err(error)
            if error.kind() == ErrorKind::DisplayHelp
                || error.kind() == ErrorKind::DisplayVersion =>
        {
            // Who stops reading has read enough.
            let _gone = write!(std::io::stdout().lock(), "{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let Wrong { what, hint } = wrong(&error);
            tell(format_args!("chat-server: {what}"));
            hint.iter().for_each(|line| tell(format_args!("  {line}")));
            return ExitCode::from(2);
        }
    };
    match run(&matches, flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("chat-server: {error}"));
            if let Some(what) = error.refused() {
                tell(format_args!("  {what}"));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(matches: &ArgMatches, flags: Flags) -> Result<(), RelayError> {
    let file = flags.config.as_deref().map(Settings::from_file).transpose()?;
    let effective = flags.settings.clone().or(file.clone().unwrap_or_default());
    let log = Log::start(&effective)?;
    match flags.command {
        None => serve::run(Source { given: flags.settings, file: flags.config }, effective, log),
        Some(Command::Config) => config::show(matches, effective, file.as_ref()),
        Some(command) => commands::run(command, &effective),
    }
}

/// Says something on standard error. If that is gone nobody can be told.
fn tell(words: std::fmt::Arguments<'_>) {
    let _gone = writeln!(std::io::stderr().lock(), "{words}");
}

fn say(text: std::fmt::Arguments<'_>) -> Result<(), RelayError> {
    print(format!("{text}\n").as_bytes())
}

/// Prints bytes; who stops reading has read enough.
fn print(bytes: &[u8]) -> Result<(), RelayError> {
    match std::io::stdout().lock().write_all(bytes) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(RelayError::System),
    }
}

/// Returns the user's folder for data.
fn home_data() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let xdg = variable("XDG_DATA_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(variable("HOME")?).join(".local/share"));
    xdg.filter(|path| path.is_absolute()).or_else(home)
}
