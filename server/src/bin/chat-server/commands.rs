//! Commands for a running relay, and for the folder of one that is stopped.

use std::io::IsTerminal;
use std::path::Path;

use chatcore::wire::relay::AnswerForm;
use clap::CommandFactory;
use server::backup::Verified;
use server::config::Settings;
#[cfg(unix)]
use server::control::{self, STREAM, Wait};
use server::manual::Manual;
use server::store::StoreError;
use server::{RelayError, backup};

use crate::cli::{Command, Flags};
use crate::{home_data, print, say};

/// Sections of the manual page beside the flags.
const MANUAL: Manual<'_> = Manual {
    codes: &[
        (0, "done; health: the relay does its work"),
        (
            1,
            "something else failed, such as an address that can't be listened on; health: it does not do its work",
        ),
        (2, "wrong flags, settings or command"),
        (3, "no relay answers"),
        (4, "refused"),
        (5, "not found"),
        (7, "the data folder is in use, damaged, or failed: it has to be looked at"),
    ],
    environment: &[
        ("XDG_DATA_HOME", "where the data folder is unless told otherwise"),
        ("NOTIFY_SOCKET, WATCHDOG_USEC", "set by systemd, which is told that the relay serves"),
    ],
    files: &[
        ("~/.local/share/chat-server", "the data folder: keys, users, rooms, what waits for whom"),
        ("relay.key", "in it: what every link and every profile is bound to"),
        ("control.sock", "in it: where chat-server ctl and health ask"),
    ],
};

/// Carries out a command.
pub(crate) fn run(command: Command, settings: &Settings) -> Result<(), RelayError> {
    match command {
        // Shown before, with where they come from.
        Command::Config => Ok(()),
        Command::Backup { dir } if dir.as_os_str() == "-" => {
            stream(&settings.data_folder(home_data())?)
        }
        Command::Backup { dir } => back_up(&settings.data_folder(home_data())?, &dir),
        #[cfg(unix)]
        Command::Ctl { json, command } => {
            let form = if json { AnswerForm::Json } else { AnswerForm::Words };
            let command = from_here(command)?;
            ask(&settings.data_folder(home_data())?, &command.join(" "), form, Wait::UntilDone)
        }
        #[cfg(unix)]
        Command::Health => {
            let folder = settings.data_folder(home_data())?;
            let asked = ask(&folder, "health", AnswerForm::Words, Wait::Shortly);
            // There is one way not to be healthy, for whoever watches.
            asked.map_err(|error| RelayError::Operator { code: 1, said: error.to_string() })
        }
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Flags::command(), "chat-server", &mut script);
            print(&script)
        }
        Command::Man { to: Some(folder) } => MANUAL
            .write_all(Flags::command(), &folder)
            .map_err(|source| RelayError::File { path: folder, source }),
        Command::Man { to: None } => {
            let mut page = Vec::new();
            MANUAL.write_page(&Flags::command(), &mut page).map_err(RelayError::System)?;
            print(&page)
        }
        Command::Restore { dir } => {
            let folder = settings.data_folder(home_data())?;
            backup::restore(&dir, &folder)?;
            say(format_args!("restored to {}", folder.display()))
        }
        Command::Verify { dir } => {
            let folder = dir.map_or_else(|| settings.data_folder(home_data()), Ok)?;
            let name = folder.display();
            match backup::verify(&folder)? {
                Verified::Backup { files } => {
                    say(format_args!("{name}: all {files} files are what was written"))
                }
                Verified::DataFolder => say(format_args!(
                    "{name}: keys, users, rooms and messages are what was written, and of files that \
                     users sent all that is known to be stored is there; whether it is what they sealed \
                     is checked by who fetches them"
                )),
            }
        }
    }
}

/// A backup goes where it was asked for, not where the relay runs.
#[cfg(unix)]
fn from_here(mut command: Vec<String>) -> Result<Vec<String>, RelayError> {
    if let [name, rest @ ..] = command.as_mut_slice()
        && matches!(name.as_str(), "backup" | "!backup")
        && let [folder, ..] = rest
    {
        if folder == STREAM {
            return Err(NOT_TO_READ);
        }
        let here = std::path::absolute(&*folder).map_err(RelayError::System)?;
        *folder = here.display().to_string();
    }
    Ok(command)
}

/// Writes a copy of a relay into a folder: from the stream of one that runs, else from its files.
fn back_up(folder: &Path, to: &Path) -> Result<(), RelayError> {
    match backup::backup(folder, to) {
        #[cfg(unix)]
        Err(RelayError::Store { source: StoreError::Locked, .. }) => {
            backup::require_outside(folder, to)?;
            // Written here, not by the relay: it may see other folders under these names, and be another user.
            let (read, mut write) = std::io::pipe().map_err(RelayError::System)?;
            let from = folder.to_owned();
            let fetching = std::thread::spawn(move || fetch(&from, &mut write));
            let unpacked = backup::unpack(read, to);
            // Why it broke off comes before what was missing then.
            let fetched = fetching
                .join()
                .unwrap_or_else(|_| Err(RelayError::System(std::io::ErrorKind::Other.into())));
            match unpacked {
                // What is wrong here, and not that the stream broke off for that.
                Err(error) if !matches!(error, RelayError::Stream(_)) => Err(error),
                unpacked => fetched.and(unpacked),
            }
        }
        copied => copied,
    }?;
    say(format_args!("backed up to {}", to.display()))
}

/// Has the relay that runs in a folder stream a backup.
#[cfg(unix)]
fn fetch(folder: &Path, out: &mut impl std::io::Write) -> Result<(), RelayError> {
    match control::fetch_backup(folder, out) {
        Ok((0, _)) => Ok(()),
        Ok((code, said)) => Err(RelayError::Operator { code, said }),
        Err(control::FetchError::Relay(error)) => Err(unanswered(folder, &error)),
        Err(control::FetchError::Stream(error)) => Err(RelayError::Stream(error)),
    }
}

/// A stream is no answer.
const NOT_TO_READ: RelayError = RelayError::Setting {
    setting: "DIR",
    hint: "a backup is nothing to read: chat-server backup - > FILE",
};

/// Streams a copy of a relay to standard output; one that runs does it itself.
fn stream(folder: &Path) -> Result<(), RelayError> {
    let out = std::io::stdout();
    if out.is_terminal() {
        return Err(NOT_TO_READ);
    }
    let mut out = out.lock();
    match backup::stream(folder, &mut out) {
        #[cfg(unix)]
        Err(RelayError::Store { source: StoreError::Locked, .. }) => fetch(folder, &mut out),
        streamed => streamed,
    }
}

/// Has the relay that runs in a folder carry out a command, and prints what it says.
#[cfg(unix)]
fn ask(folder: &Path, line: &str, form: AnswerForm, wait: Wait) -> Result<(), RelayError> {
    let asked = control::ask(folder, line, form, wait);
    let (code, said) = asked.map_err(|error| unanswered(folder, &error))?;
    if code != 0 {
        return Err(RelayError::Operator { code, said });
    }
    say(format_args!("{said}"))
}

/// Says that no relay answers in a folder.
#[cfg(unix)]
fn unanswered(folder: &Path, error: &std::io::Error) -> RelayError {
    RelayError::Operator {
        code: 3,
        said: match error.kind() {
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut => format!(
                "the relay in {} does not answer; it may be stopped (Ctrl-Z): fg in its terminal lets it go on",
                folder.display()
            ),
            kind => {
                let name = folder.display();
                let why = match kind {
                    std::io::ErrorKind::PermissionDenied => " (permission denied)",
                    _ => "",
                };
                format!(
                    "no relay answers in {name}{why}; start one there, or name its folder with --data"
                )
            }
        },
    }
}
