//! Why a relay does not start, or stops.

use std::io;
use std::path::PathBuf;

use crate::store::StoreError;

/// A failure of the relay itself; what a device is told is `ErrorCode`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RelayError {
    /// The store can't be used. Nothing was changed.
    #[error("data folder {folder}: {source}")]
    Store {
        /// The data folder.
        folder: PathBuf,
        /// Why.
        source: StoreError,
    },
    /// A file can't be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A key or token file is missing, or the disk changed it; nothing was written.
    #[error("{path} is missing or damaged; take it from a backup")]
    BadFile {
        /// Which file.
        path: PathBuf,
    },
    /// The address can't be listened on.
    #[error("can't listen on {address}: {source}; choose another one with --listen")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// A setting is wrong.
    #[error("{setting}: {hint}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What it should be.
        hint: &'static str,
    },
    /// The configuration file can't be understood.
    #[error("{path}: {source}")]
    ConfigFile {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: Box<toml::de::Error>,
    },
    /// A folder that should be empty or absent is not.
    #[error("{path} is not empty; nothing was written")]
    NotEmpty {
        /// Which folder.
        path: PathBuf,
    },
    /// Files of a backup are not what was written.
    #[error("{folder} is damaged: {}; use another backup", files.join(", "))]
    BadBackup {
        /// Which folder.
        folder: PathBuf,
        /// Those that differ, are missing, or were not in it.
        files: Vec<String>,
    },
    /// The folder holds a backup, and a relay would change it.
    #[error("{path} is a backup; make a data folder of it with: chat-server restore {path}")]
    IsBackup {
        /// Which folder.
        path: PathBuf,
    },
    /// The folder holds no backup.
    #[error("{path} is no backup: it has no SHA256SUMS; make one with: chat-server backup DIR")]
    NoBackup {
        /// Which folder.
        path: PathBuf,
    },
    /// The folder holds no relay.
    #[error("{path} holds no relay")]
    NoRelay {
        /// Which folder.
        path: PathBuf,
    },
    /// The running relay refused a command of its operator.
    #[error("{said}")]
    Operator {
        /// The exit code it gave.
        code: u8,
        /// What it said.
        said: String,
    },
    /// The operating system refused a thread or a signal.
    #[error("the operating system refused: {0}")]
    System(io::Error),
}

impl RelayError {
    /// Returns the exit code of the process.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Setting { .. } | Self::ConfigFile { .. } => 2,
            Self::Store { .. }
            | Self::BadFile { .. }
            | Self::BadBackup { .. }
            | Self::IsBackup { .. }
            | Self::NotEmpty { .. } => 7,
            Self::Operator { code, .. } => *code,
            _ => 1,
        }
    }
}
