//! A command of the person's for each message.

use std::io::Write;
use std::process::{Command, Stdio};

use chatcore::engine::Event;
use serde::Serialize;

use crate::error::{CommandError, ExitCode};
use crate::json::to_line;

/// Tells whether an event is something that somebody says.
pub(super) const fn is_message(event: &Event) -> bool {
    matches!(event, Event::Text { .. } | Event::FileSaved { .. } | Event::Announcement { .. })
}

/// Runs a command of the shell with a JSON line on its standard input.
///
/// # Errors
/// [`ExitCode::Other`] unless it ends with 0.
pub(super) async fn exec(command: &str, line: &impl Serialize) -> Result<(), CommandError> {
    let json = to_line(line)
        .map_err(|error| CommandError::new(ExitCode::Other, format_args!("no JSON: {error}")))?;
    let command = command.to_owned();
    let ended = tokio::task::spawn_blocking(move || run(&command, &json)).await;
    ended.map_err(|error| CommandError::new(ExitCode::Other, error))?
}

/// As [`exec`], for who may wait.
///
/// # Errors
/// As [`exec`].
pub(super) fn run(command: &str, json: &str) -> Result<(), CommandError> {
    let failed = |what: &dyn std::fmt::Display| {
        CommandError::new(ExitCode::Other, format_args!("the command {what}"))
            .hint("the message is kept and given to it again")
    };
    let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
    let mut child = Command::new(shell)
        .args([flag, command])
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| failed(&format_args!("can't be started: {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        // A command that does not read its input may be content all the same.
        let _unread = writeln!(input, "{json}");
    }
    let status = child.wait().map_err(|error| failed(&format_args!("failed: {error}")))?;
    if status.success() { Ok(()) } else { Err(failed(&format_args!("ended with {status}"))) }
}
