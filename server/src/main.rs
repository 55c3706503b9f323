//! `chat-server`: flags, signals, exit code.

#![forbid(unsafe_code)]

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use chatcore::invite::{DEFAULT_PORT, InviteLink, complete_address};
use chatcore::wire::relay::AnswerForm;
use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;
use server::backup::Verified;
use server::config::{DEFAULT_LISTEN, Settings};
#[cfg(unix)]
use server::control;
use server::store::StoreError;
use server::usage::{Wrong, without_empty_environment, wrong};
use server::{Relay, RelayError, backup, console};
use tokio::net::TcpListener;

/// Relay of an end-to-end encrypted messenger: it stores and forwards what it can't read.
///
/// Settings come from flags, then CHAT_SERVER_* variables, then the file given by --config.
#[derive(Debug, Parser)]
#[command(name = "chat-server", version)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
    /// TOML file with the same names as the flags
    #[arg(long, value_name = "FILE", env = "CHAT_SERVER_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Copy everything the relay keeps to DIR; it may be running
    Backup {
        /// Folder to write; absent or empty
        dir: PathBuf,
    },
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

/// Threads for work that waits for the disk.
const BLOCKING_THREADS: usize = 64;

fn main() -> ExitCode {
    let command = without_empty_environment(Flags::command().args_override_self(true));
    let matches = command.try_get_matches();
    let flags = match matches.and_then(|mut matches| Flags::from_arg_matches_mut(&mut matches)) {
        Ok(flags) => flags,
        Err(error)
            if error.kind() == ErrorKind::DisplayHelp
                || error.kind() == ErrorKind::DisplayVersion =>
        {
            // Who stops reading has read enough.
            let _gone = write!(std::io::stdout().lock(), "{error}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            let Wrong { what, hint } = wrong(&error);
            tell(format_args!("chat-server: {what}"));
            hint.iter().for_each(|line| tell(format_args!("  {line}")));
            return ExitCode::from(2);
        }
    };
    let filter = tracing_subscriber::EnvFilter::try_from_env("CHAT_SERVER_LOG");
    tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| "server=info,chat_server=info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match run(flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tell(format_args!("chat-server: {error}"));
            if let Some(what) = error.refused() {
                tell(format_args!("  {what}"));
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(flags: Flags) -> Result<(), RelayError> {
    let file = flags.config.as_deref().map(Settings::from_file).transpose()?;
    let settings = flags.settings.or(file.unwrap_or_default());
    match flags.command {
        None => {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .enable_all()
                .max_blocking_threads(BLOCKING_THREADS)
                .build()
                .map_err(RelayError::System)?;
            let served = runtime.block_on(serve(settings));
            // A disk that does not answer keeps nobody.
            runtime.shutdown_timeout(Duration::from_secs(1));
            served
        }
        Some(Command::Backup { dir }) => back_up(&settings.data_folder(home_data())?, &dir),
        #[cfg(unix)]
        Some(Command::Ctl { json, command }) => {
            let form = if json { AnswerForm::Json } else { AnswerForm::Words };
            let command = from_here(command)?;
            ask(&settings.data_folder(home_data())?, &command.join(" "), form)
        }
        Some(Command::Restore { dir }) => {
            let folder = settings.data_folder(home_data())?;
            backup::restore(&dir, &folder)?;
            say(format_args!("restored to {}", folder.display()))
        }
        Some(Command::Verify { dir }) => {
            let folder = dir.map_or_else(|| settings.data_folder(home_data()), Ok)?;
            let name = folder.display();
            match backup::verify(&folder)? {
                Verified::Backup { files } => {
                    say(format_args!("{name}: all {files} files are what was written"))
                }
                Verified::DataFolder => say(format_args!(
                    "{name}: keys, users, rooms and messages are what was written; files that \
                     users sent are checked by who fetches them"
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
        let here = std::path::absolute(&*folder).map_err(RelayError::System)?;
        *folder = here.display().to_string();
    }
    Ok(command)
}

async fn serve(settings: Settings) -> Result<(), RelayError> {
    let config = settings.config(home_data())?;
    let has_public_address = config.public_address.is_some();
    let address = settings.listen.as_deref().unwrap_or(DEFAULT_LISTEN);
    // What can't be an address is the system's to refuse.
    let address = &complete_address(address, DEFAULT_PORT).unwrap_or_else(|_| address.to_owned());
    // Before the stores: who can't listen changes nothing.
    let listen_error = |source| RelayError::Listen { address: address.to_owned(), source };
    let listener = TcpListener::bind(address).await.map_err(listen_error)?;
    let local = listener.local_addr().map_err(listen_error)?;
    let relay = tokio::task::spawn_blocking(move || Relay::open(config));
    let relay = relay.await.map_err(|e| RelayError::System(e.into()))??;
    let stop = shutdown()?;
    outlive_hangups()?;
    console::start(relay.operator());
    let link = relay.invite_link(local);
    if let Some(path) = &settings.link_file {
        write_link(path, &link)?;
    }
    if local.ip().is_unspecified() && !has_public_address {
        tell(format_args!(
            "chat-server: the link names no machine; start with --public-address HOST:PORT so \
             that others can use it"
        ));
    }
    match &settings.link_file {
        // What is printed may be kept for good where it goes to, as a journal does.
        Some(path) if !std::io::stdout().is_terminal() => {
            say(format_args!("the invite link is in {}", path.display()))?;
        }
        _ => show_link(&link)?,
    }
    relay.serve(listener, stop).await
}

/// Copies a relay; one that runs does it itself.
fn back_up(folder: &Path, to: &Path) -> Result<(), RelayError> {
    match backup::backup(folder, to) {
        #[cfg(unix)]
        Err(RelayError::Store { source: StoreError::Locked, .. }) => {
            let to = std::path::absolute(to).map_err(RelayError::System)?;
            let text = to.to_str().filter(|text| !text.contains('\n'));
            let text = text.ok_or(RelayError::Setting {
                setting: "DIR",
                hint: "a running relay needs a name of plain text",
            })?;
            ask(folder, &format!("backup {text}"), AnswerForm::Words)
        }
        Err(error) => Err(error),
        Ok(()) => say(format_args!("backed up to {}", to.display())),
    }
}

/// Has the relay that runs in a folder carry out a command, and prints what it says.
#[cfg(unix)]
fn ask(folder: &Path, line: &str, form: AnswerForm) -> Result<(), RelayError> {
    let asked = control::ask(folder, line, form);
    let (code, said) = asked.map_err(|error| RelayError::Operator {
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
                format!("no relay answers in {name}{why}; start one there, or name its folder with --data")
            }
        },
    })?;
    if code != 0 {
        return Err(RelayError::Operator { code, said });
    }
    say(format_args!("{said}"))
}

/// Goes on when the terminal that it was started in is closed, and when somebody asks for files to be read anew.
fn outlive_hangups() -> Result<(), RelayError> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangup = signal(SignalKind::hangup()).map_err(RelayError::System)?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                tracing::info!("a hangup changes nothing: settings are read at the start");
            }
        });
    }
    Ok(())
}

/// Returns what ends on SIGTERM or SIGINT.
fn shutdown() -> Result<impl Future<Output = ()>, RelayError> {
    #[cfg(unix)]
    let mut terminate = {
        use tokio::signal::unix::{SignalKind, signal};
        signal(SignalKind::terminate()).map_err(RelayError::System)?
    };
    Ok(async move {
        #[cfg(unix)]
        let terminated = terminate.recv();
        #[cfg(not(unix))]
        let terminated = std::future::pending::<()>();
        tokio::select! {
            _ = terminated => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("stopping");
    })
}

fn write_link(path: &Path, link: &InviteLink) -> Result<(), RelayError> {
    let line = format!("{link}\n");
    if cfg!(unix) && path.starts_with("/dev") {
        // Such as /dev/stdout, which is no file that another could take the place of.
        let file = std::fs::File::options().append(true).open(path);
        return file
            .and_then(|mut file| file.write_all(line.as_bytes()))
            .map_err(RelayError::System);
    }
    server::write_private(path, line.as_bytes())
}

fn show_link(link: &InviteLink) -> Result<(), RelayError> {
    let text = link.to_string();
    say(format_args!("{text}"))?;
    if std::io::stdout().is_terminal()
        && let Ok(code) = QrCode::new(&text)
    {
        let mut picture = code.render::<Dense1x2>();
        say(format_args!("{}", picture.quiet_zone(true).build()))?;
    }
    Ok(())
}

/// Says something on standard error. If that is gone nobody can be told.
fn tell(words: std::fmt::Arguments<'_>) {
    let _gone = writeln!(std::io::stderr().lock(), "{words}");
}

fn say(text: std::fmt::Arguments<'_>) -> Result<(), RelayError> {
    writeln!(std::io::stdout().lock(), "{text}").map_err(RelayError::System)
}

/// Returns the user's folder for data.
fn home_data() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let xdg = variable("XDG_DATA_HOME").map(PathBuf::from);
    let home = || Some(PathBuf::from(variable("HOME")?).join(".local/share"));
    xdg.filter(|path| path.is_absolute()).or_else(home)
}
