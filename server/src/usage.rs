//! Errors of a command line in words of our own, for the relay's program and the client's.

use chatcore::keys::is_printable;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// A variable that is set to nothing is as good as not set.
#[must_use]
pub fn without_empty_environment(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| {
            let is_empty =
                arg.get_env().and_then(std::env::var_os).is_some_and(|value| value.is_empty());
            if is_empty { arg.env(None) } else { arg }
        })
        .mut_subcommands(without_empty_environment)
}

/// An error of a command line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrong {
    /// Lower case, no full stop.
    pub what: String,
    /// Lines about what would be right.
    pub hint: Vec<String>,
}

/// Puts an error of clap into words.
#[must_use]
pub fn wrong(error: &clap::Error) -> Wrong {
    let all = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => vec![clean(text)],
        Some(ContextValue::Strings(texts)) => texts.iter().map(|text| clean(text)).collect(),
        Some(ContextValue::StyledStr(text)) => vec![clean(&text.to_string())],
        Some(ContextValue::StyledStrs(texts)) => {
            texts.iter().map(|text| clean(&text.to_string())).collect()
        }
        _ => Vec::new(),
    };
    let one = |kind| all(kind).into_iter().next().unwrap_or_default();
    let argument = one(ContextKind::InvalidArg);
    let value = one(ContextKind::InvalidValue);
    // The nearest comes last.
    let near = |kind| all(kind).pop();
    let mut hint = Vec::new();
    let what = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let given = one(ContextKind::InvalidSubcommand);
            hint.push(match near(ContextKind::SuggestedSubcommand) {
                Some(near) => format!("did you mean '{near}'?"),
                None => "--help lists what there is".to_owned(),
            });
            format!("there is no command '{given}'")
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            hint.extend(
                near(ContextKind::SuggestedArg).map(|near| format!("did you mean {near}?")),
            );
            format!("there is no flag {argument}")
        }
        ErrorKind::UnknownArgument => {
            hint.push("put text with spaces in quotes".to_owned());
            format!("'{argument}' was not expected")
        }
        ErrorKind::MissingRequiredArgument => {
            format!("something is missing: {}", all(ContextKind::InvalidArg).join(" "))
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("{argument} wants a value"),
        ErrorKind::InvalidValue => {
            let possible = all(ContextKind::ValidValue);
            if !possible.is_empty() {
                hint.push(format!("possible: {}", possible.join(", ")));
            }
            format!("'{value}' can't be used for {argument}")
        }
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error);
            if why.is_some_and(|why| why.is::<std::num::ParseIntError>()) {
                format!("{argument} is a number, and '{value}' is none that fits")
            } else {
                let why = why.map(|why| clean(&why.to_string())).unwrap_or_default();
                format!("'{value}' can't be used for {argument}: {why}")
            }
        }
        ErrorKind::ArgumentConflict => {
            let other = all(ContextKind::PriorArg);
            if other.is_empty() || other.contains(&argument) {
                format!("{argument} can be given once")
            } else {
                format!("{argument} does not go together with {}", other.join(", "))
            }
        }
        ErrorKind::NoEquals => format!("a value of {argument} follows an equals sign"),
        ErrorKind::InvalidUtf8 => "an argument is no text".to_owned(),
        // What is left says it in its first line.
        _ => {
            let text = error.to_string();
            let line = text.lines().next().unwrap_or_default();
            clean(line.trim_start_matches("error: "))
        }
    };
    if let Some(ContextValue::StyledStr(usage)) = error.get(ContextKind::Usage) {
        hint.extend(usage_line(usage));
    }
    Wrong { what, hint }
}

fn usage_line(usage: &StyledStr) -> Option<String> {
    let usage = usage.to_string();
    let line = usage.lines().next()?.trim_start_matches("Usage: ");
    Some(format!("usage: {}", clean(line.trim())))
}

/// Typed text may hold characters that a terminal obeys.
fn clean(text: &str) -> String {
    text.chars().filter(|c| *c == ' ' || is_printable(*c)).collect()
}
