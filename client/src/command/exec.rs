//! A command of the person's for each message.

#[cfg(unix)]
use std::io::IsTerminal;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;

use chatcore::engine::Event;
use serde::Serialize;
use tokio::sync::{Mutex, MutexGuard};

use super::host::stopped;
use crate::error::{CommandError, ExitCode};
use crate::output::json::to_line;

/// Tells whether an event is something that somebody says.
pub(super) const fn is_message(event: &Event) -> bool {
    matches!(event, Event::Text { .. } | Event::FileSaved { .. } | Event::Announcement { .. })
}

/// The command that runs for a message, at most one at a time.
#[derive(Debug, Default)]
pub(crate) struct Running {
    /// Held until the message is done with.
    turn: Mutex<Next>,
    /// The process to end if the person insists.
    #[cfg(unix)]
    child: std::sync::Mutex<Option<Target>>,
}

/// Processes that are ended with a command.
#[cfg(unix)]
#[derive(Debug, Clone, Copy)]
enum Target {
    /// The command, and all that it started.
    Group(rustix::process::Pid),
    /// The command alone.
    Process(rustix::process::Pid),
}

/// Whether a command may begin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum Next {
    #[default]
    MayBegin,
    /// The person has said stop.
    Stopped,
}

/// Held while a message is dealt with.
pub(crate) type Turn<'r> = MutexGuard<'r, Next>;

fn free(turn: Turn<'_>) -> Result<Turn<'_>, CommandError> {
    match *turn {
        Next::MayBegin => Ok(turn),
        Next::Stopped => Err(CommandError::interrupted()),
    }
}

impl Running {
    /// Waits until no command runs; none begins while the result is held.
    ///
    /// # Errors
    /// [`ExitCode::Interrupted`]: none begins any more.
    pub(super) async fn turn(&self) -> Result<Turn<'_>, CommandError> {
        free(self.turn.lock().await)
    }

    /// As [`Self::turn`], for a thread that may wait.
    ///
    /// # Errors
    /// As [`Self::turn`].
    #[cfg(unix)]
    pub(crate) fn blocking_turn(&self) -> Result<Turn<'_>, CommandError> {
        free(self.turn.blocking_lock())
    }

    /// Ends when the person has said stop and no command runs; none begins after that. Said twice, the command is ended
    /// too, with all that it started.
    pub(crate) async fn stopped(&self) {
        stopped().await;
        tokio::select! {
            mut idle = self.turn.lock() => *idle = Next::Stopped,
            () = stopped() => self.end(),
        }
    }

    #[cfg(unix)]
    fn end(&self) {
        use rustix::process::{Signal, kill_process, kill_process_group};
        // It may have ended by itself.
        let _ended = match *self.child() {
            Some(Target::Group(group)) => kill_process_group(group, Signal::TERM),
            Some(Target::Process(process)) => kill_process(process, Signal::TERM),
            None => Ok(()),
        };
    }

    #[cfg(not(unix))]
    fn end(&self) {}

    #[cfg(unix)]
    fn child(&self) -> std::sync::MutexGuard<'_, Option<Target>> {
        self.child.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Runs a command of the shell with a JSON line on its standard input.
    ///
    /// # Errors
    /// [`ExitCode::Other`] unless it ends with 0.
    pub(super) async fn exec(
        self: &Arc<Self>,
        command: &str,
        line: &impl Serialize,
    ) -> Result<(), CommandError> {
        let json = to_line(line).map_err(|error| {
            CommandError::new(ExitCode::Other, format_args!("no JSON: {error}"))
        })?;
        let (command, running) = (command.to_owned(), self.clone());
        let ended = tokio::task::spawn_blocking(move || running.run(&command, &json)).await;
        ended.map_err(|error| CommandError::new(ExitCode::Other, error))?
    }

    /// As [`Self::exec`], for a thread that may wait.
    ///
    /// # Errors
    /// As [`Self::exec`].
    pub(crate) fn run(&self, command: &str, json: &str) -> Result<(), CommandError> {
        let failed = |what: &dyn std::fmt::Display| {
            CommandError::new(ExitCode::Other, format_args!("the command {what}"))
                .hint("the message is kept and given to it again")
        };
        let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
        let mut command_line = Command::new(shell);
        command_line.args([flag, command]).stdin(Stdio::piped());
        // A group of its own can be ended with all that it started. At a terminal it would be one that may not ask there.
        #[cfg(unix)]
        let is_grouped = !std::io::stdin().is_terminal();
        #[cfg(unix)]
        if is_grouped {
            std::os::unix::process::CommandExt::process_group(&mut command_line, 0);
        }
        let mut child = command_line
            .spawn()
            .map_err(|error| failed(&format_args!("can't be started: {error}")))?;
        #[cfg(unix)]
        {
            let pid = rustix::process::Pid::from_child(&child);
            let target = if is_grouped { Target::Group(pid) } else { Target::Process(pid) };
            *self.child() = Some(target);
        }
        if let Some(mut input) = child.stdin.take() {
            // A command that does not read its input may be content all the same.
            let _unread = writeln!(input, "{json}");
        }
        let status = child.wait();
        #[cfg(unix)]
        {
            *self.child() = None;
        }
        let status = status.map_err(|error| failed(&format_args!("failed: {error}")))?;
        if status.success() { Ok(()) } else { Err(failed(&format_args!("ended with {status}"))) }
    }
}
