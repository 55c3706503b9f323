//! What the operator may ask of a running relay, at its terminal or through a socket in its data
//! folder that only its own user can open.

use std::path::{Path, PathBuf};
use std::sync::Weak;

use crate::backup;
use crate::error::RelayError;
use crate::server::Shared;

/// A command of the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Lists the commands.
    Help,
    /// Copies everything into a folder.
    Backup(PathBuf),
    /// Stops the relay.
    Quit,
}

/// Why a line is no command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Nobody knows it.
    #[error("no such command; !help lists them")]
    Unknown,
    /// Something is missing behind it.
    #[error("!backup needs a folder: !backup DIR")]
    NoFolder,
}

/// What `!help` prints.
const HELP: &str = "!backup DIR   copy everything into DIR, absent or empty, without stopping\n\
                    !quit         stop; nothing that was accepted is lost\n\
                    !help         this list";

impl Command {
    /// Understands a line; the `!` may be left out.
    ///
    /// # Errors
    /// [`CommandError`].
    pub fn parse(line: &str) -> Result<Self, CommandError> {
        let line = line.trim();
        let line = line.strip_prefix('!').unwrap_or(line);
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        match (name, rest.trim()) {
            ("help", "") => Ok(Self::Help),
            ("quit", "") => Ok(Self::Quit),
            ("backup", "") => Err(CommandError::NoFolder),
            ("backup", folder) => Ok(Self::Backup(PathBuf::from(folder))),
            _ => Err(CommandError::Unknown),
        }
    }
}

/// Carries out the operator's commands; outlives the relay without keeping it.
#[derive(Debug, Clone)]
pub struct Operator {
    shared: Weak<Shared>,
    folder: PathBuf,
}

impl Operator {
    pub(crate) fn new(shared: Weak<Shared>, folder: &Path) -> Self {
        Self { shared, folder: folder.to_owned() }
    }

    /// Carries out a command; returns what to print. Blocks.
    ///
    /// # Errors
    /// [`RelayError`].
    pub fn run(&self, command: &Command) -> Result<String, RelayError> {
        let Some(shared) = self.shared.upgrade() else {
            return Ok("the relay has stopped".to_owned());
        };
        match command {
            Command::Help => Ok(HELP.to_owned()),
            Command::Quit => {
                shared.quit.notify_one();
                Ok("stopping".to_owned())
            }
            Command::Backup(to) => {
                backup::backup_of(&self.folder, &shared.stores, to)?;
                tracing::info!("a backup was made");
                Ok(format!("backed up to {}", to.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_understood_with_and_without_the_mark() {
        for line in ["!quit", " quit ", "!quit\r"] {
            assert_eq!(Command::parse(line), Ok(Command::Quit), "{line:?}");
        }
        let folder = Command::Backup("/a folder/b".into());
        assert_eq!(Command::parse("!backup  /a folder/b "), Ok(folder));
        assert_eq!(Command::parse("!backup"), Err(CommandError::NoFolder));
        for line in ["", "!", "hello", "!quit now", "!!quit", "!Quit"] {
            assert_eq!(Command::parse(line), Err(CommandError::Unknown), "{line:?}");
        }
    }
}
