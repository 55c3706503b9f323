//! `chat-server config`: what holds, and where each setting comes from.

use clap::ArgMatches;
use clap::parser::ValueSource;
use server::RelayError;
use server::config::Settings;

use crate::{home_data, say};

/// Prints a configuration file of what holds; what is not set is a comment.
pub(crate) fn show(
    matches: &ArgMatches,
    effective: Settings,
    file: Option<&Settings>,
) -> Result<(), RelayError> {
    // What can't hold is said, not shown.
    effective.config(home_data())?;
    effective.addresses()?;
    effective.metrics_address()?;
    let in_file = file.map(Settings::table).unwrap_or_default();
    let table = effective.or(Settings::defaults(home_data())).table();
    let names = Settings::names();
    let lines: Vec<_> = names.iter().map(|name| (name, table.get(name))).collect();
    let width = lines.iter().map(|(name, value)| line(name, *value).len()).max().unwrap_or(0);
    for (name, value) in lines {
        let from = match matches.value_source(&name.replace('-', "_")) {
            Some(ValueSource::CommandLine) => format!("--{name}"),
            Some(ValueSource::EnvVariable) => variable(name),
            _ if in_file.contains_key(name) => "the file".to_owned(),
            _ if value.is_some() => "default".to_owned(),
            _ => "not set".to_owned(),
        };
        say(format_args!("{:width$}  # {from}", line(name, value)))?;
    }
    Ok(())
}

fn line(name: &str, value: Option<&toml::Value>) -> String {
    value.map_or_else(|| format!("# {name} ="), |value| format!("{name} = {value}"))
}

fn variable(name: &str) -> String {
    format!("CHAT_SERVER_{}", name.replace('-', "_").to_uppercase())
}
