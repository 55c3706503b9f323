//! Why a relay does not start, or stops.

use std::io::{self, ErrorKind};
use std::path::PathBuf;

use chatcore::invite::split_address;
use chatcore::keys::is_printable;

use crate::permissions::{refused, refused_in};
use crate::size::Size;
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
    #[error("{}; choose another one with --listen", cannot_listen(address, source))]
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
        /// The form that it should have.
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
    #[error("{folder} is damaged: {}; use another backup", some_of(files))]
    BadBackup {
        /// Which folder.
        folder: PathBuf,
        /// Those that differ or are missing.
        files: Vec<String>,
    },
    /// Of files that users sent there is less than what is known to be stored.
    #[error(
        "{folder}: files that users sent are missing or cut: {}; who sent them is asked again, or restore a backup",
        some_of(files)
    )]
    FilesMissing {
        /// Which folder.
        folder: PathBuf,
        /// Which.
        files: Vec<String>,
    },
    /// The databases can't lie on the disk twice.
    #[error(
        "{folder} has no space for a copy of the databases, which a stream begins with: {needed} have to be free"
    )]
    NoSpaceToStream {
        /// Which folder.
        folder: PathBuf,
        /// The space that is needed.
        needed: Size,
    },
    /// An archive could not be written.
    #[error("the archive was not written to its end: {0}")]
    Stream(io::Error),
    /// Users have a name and no keys: they were lost in a crash, or damaged.
    #[error(
        "{folder}: keys/db lacks the keys of {users} users; they come back when those users do; \
         if the disk is to blame, restore a backup"
    )]
    KeysMissing {
        /// Which folder.
        folder: PathBuf,
        /// How many.
        users: usize,
    },
    /// The checksums of the databases, written when a relay stops, can't be read.
    #[error(
        "{folder}: stores.seal was damaged, so nothing says whether the databases are what was written; \
         they can be read, and are sealed again now"
    )]
    SealDamaged {
        /// Which folder.
        folder: PathBuf,
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
    /// The configuration file has a setting that nobody knows.
    #[error("{}: there is no setting {name}; did you mean {near}?", path.display())]
    UnknownSetting {
        /// Which file.
        path: PathBuf,
        /// The unknown name.
        name: String,
        /// The known name that is nearest to it.
        near: String,
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
        /// Its words.
        said: String,
    },
    /// The operating system refused a thread or a signal.
    #[error("the operating system refused: {0}")]
    System(io::Error),
}

/// Names in a line.
const NAMED: usize = 10;

/// Returns the first of some names, which may be somebody else's.
fn some_of(names: &[String]) -> String {
    let clean = |name: &String| -> String {
        name.chars().filter(|c| *c == ' ' || is_printable(*c)).collect()
    };
    let mut shown = names.iter().take(NAMED).map(clean).collect::<Vec<_>>().join(", ");
    if let more @ 1.. = names.len().saturating_sub(NAMED) {
        shown.push_str(&format!(", and {more} more"));
    }
    shown
}

/// Ports below belong to the system.
const FIRST_FREE_PORT: u16 = 1_024;

/// Says why nothing can listen at an address.
#[must_use]
pub fn cannot_listen(address: &str, error: &io::Error) -> String {
    let port = split_address(address).map_or(u16::MAX, |(_, port)| port);
    match error.kind() {
        ErrorKind::AddrInUse => {
            format!(
                "can't listen on {address}: another program does, perhaps another relay of yours"
            )
        }
        ErrorKind::PermissionDenied if port < FIRST_FREE_PORT => format!(
            "can't listen on {address}: the system lets only its administrator use ports below \
             {FIRST_FREE_PORT}"
        ),
        ErrorKind::AddrNotAvailable => {
            format!("can't listen on {address}: this computer has no such address")
        }
        _ => format!("can't listen on {address}: {error}"),
    }
}

impl RelayError {
    /// Returns what the system refuses, if that may be why: a file with its owner and mode.
    #[must_use]
    pub fn refused(&self) -> Option<String> {
        match self {
            Self::Store { folder, source: StoreError::Failed } => refused_in(folder),
            Self::File { path, source } if source.kind() == ErrorKind::PermissionDenied => {
                refused([path.clone()])
            }
            _ => None,
        }
    }

    /// Returns the exit code of the process.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Setting { .. } | Self::ConfigFile { .. } | Self::UnknownSetting { .. } => 2,
            Self::Store { .. }
            | Self::BadFile { .. }
            | Self::BadBackup { .. }
            | Self::IsBackup { .. }
            | Self::KeysMissing { .. }
            | Self::SealDamaged { .. }
            | Self::FilesMissing { .. }
            | Self::NotEmpty { .. } => 7,
            Self::Operator { code, .. } => *code,
            _ => 1,
        }
    }
}
