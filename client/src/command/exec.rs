//! A command of the person's for each message.

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use chatcore::engine::Event;
use serde::Serialize;
use tokio::sync::{Mutex, MutexGuard};

use super::host::stopped;
use crate::error::{CommandError, ExitCode};
use crate::json::to_line;

/// Tells whether an event is something that somebody says.
pub(super) const fn is_message(event: &Event) -> bool {
    matches!(event, Event::Text { .. } | Event::FileSaved { .. } | Event::Announcement { .. })
}

/// The command that runs for a message, at most one at a time.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// Held until the message is done with.
    turn: Mutex<()>,
    /// What to end if the person insists.
    #[cfg(unix)]
    group: std::sync::Mutex<Option<rustix::process::Pid>>,
}

impl Running {
    /// Waits until no command runs; none begins while the result is held.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// As [`Self::turn`], for a thread that may wait.
    #[cfg(unix)]
    pub(super) fn blocking_turn(&self) -> MutexGuard<'_, ()> {
        self.turn.blocking_lock()
    }

    /// Ends when the person has said stop and no command runs. Said twice, the command is ended too, with all that it
    /// started.
    pub(super) async fn stopped(&self) {
        stopped().await;
        tokio::select! {
            _idle = self.turn() => {}
            () = stopped() => self.end(),
        }
    }

    #[cfg(unix)]
    fn end(&self) {
        use rustix::process::{Signal, kill_process_group};
        if let Some(group) = *self.group() {
            // It may have ended by itself.
            let _ended = kill_process_group(group, Signal::TERM);
        }
    }

    #[cfg(not(unix))]
    fn end(&self) {}

    #[cfg(unix)]
    fn group(&self) -> std::sync::MutexGuard<'_, Option<rustix::process::Pid>> {
        self.group.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn began(&self, child: &Child) {
        #[cfg(unix)]
        {
            *self.group() = Some(rustix::process::Pid::from_child(child));
        }
        #[cfg(not(unix))]
        let _ = child;
    }

    fn ended(&self) {
        #[cfg(unix)]
        {
            *self.group() = None;
        }
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
    pub(super) fn run(&self, command: &str, json: &str) -> Result<(), CommandError> {
        let failed = |what: &dyn std::fmt::Display| {
            CommandError::new(ExitCode::Other, format_args!("the command {what}"))
                .hint("the message is kept and given to it again")
        };
        let (shell, flag) = if cfg!(windows) { ("cmd", "/C") } else { ("sh", "-c") };
        let mut command_line = Command::new(shell);
        command_line.args([flag, command]).stdin(Stdio::piped());
        // A group of its own: Ctrl-C reaches us alone, and we let it end.
        #[cfg(unix)]
        std::os::unix::process::CommandExt::process_group(&mut command_line, 0);
        let mut child = command_line
            .spawn()
            .map_err(|error| failed(&format_args!("can't be started: {error}")))?;
        self.began(&child);
        if let Some(mut input) = child.stdin.take() {
            // A command that does not read its input may be content all the same.
            let _unread = writeln!(input, "{json}");
        }
        let status = child.wait();
        self.ended();
        let status = status.map_err(|error| failed(&format_args!("failed: {error}")))?;
        if status.success() { Ok(()) } else { Err(failed(&format_args!("ended with {status}"))) }
    }
}
