//! The command line.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use clap_complete::Shell;
use server::config::Settings;

/// Relay of an end-to-end encrypted messenger: it stores and forwards what it can't read.
///
/// Settings come from flags, then CHAT_SERVER_* variables, then the file given by --config.
#[derive(Debug, Parser)]
#[command(name = "chat-server", version)]
pub(crate) struct Flags {
    #[command(flatten)]
    pub(crate) settings: Settings,
    /// TOML file with the same names as the flags
    #[arg(long, value_name = "FILE", env = "CHAT_SERVER_CONFIG", global = true)]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copy everything the relay keeps to DIR; it may be running
    Backup {
        /// Folder to write, absent or empty; - writes a tar archive to standard output
        dir: PathBuf,
    },
    /// Print the settings that hold, each with where it comes from, as a file for --config
    Config,
    /// Have the relay that runs in --data DIR carry out a command, such as: ctl announce "tea is ready"
    #[cfg(unix)]
    Ctl {
        /// Print JSON
        #[arg(long)]
        json: bool,
        /// The command and what belongs to it; help lists them
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Look whether the relay that runs in --data DIR does its work: 0 if it does, else 1 and why not
    #[cfg(unix)]
    Health,
    /// Print completions for your shell
    Completions {
        /// Which shell
        shell: Shell,
    },
    /// Print the manual page, or write one per command
    Man {
        /// Folder to write them to
        #[arg(long, value_name = "DIR")]
        to: Option<PathBuf>,
    },
    /// Make a data folder of the backup in DIR; never overwrites one
    Restore {
        /// Folder to read
        dir: PathBuf,
    },
    /// Look whether files are still what was written: of a backup, or of a relay that doesn't run
    Verify {
        /// Backup or data folder; the one of --data unless given
        dir: Option<PathBuf>,
    },
}
