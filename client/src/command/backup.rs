//! `chat export FILE` and `chat import FILE`.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::{Path, PathBuf};

use chatcore::engine::backup::{self, Changed, Restored};
use chatcore::engine::{EngineError, ProfileView, Registration, query};
use chatcore::keys::Nickname;
use chatcore::net::{self, Client, Reconnect};
use chatcore::store::StoreError;
use chatcore::wire::relay::ErrorCode;

use super::join::{parse_address, parse_nickname};
use crate::cli::{ExportArgs, ImportArgs};
use crate::context::{ATTEMPTS, Context};
use crate::error::{CommandError, ExitCode};
use crate::online::Online;
use crate::output::OutputMode;
use crate::output::json::Line;
use crate::output::render;
use crate::passphrase::from_file;
use crate::prompt::Prompt;
use chatcore::profile::{
    BackupError, BackupReader, LockedBackup, ProfileStore, Protection, create_backup,
};

const FLAG: &str = "--backup-passphrase-file FILE";

/// Writes everything but what belongs to this device into one sealed file.
///
/// # Errors
/// The store's; [`ExitCode::File`] for the file.
pub(super) fn export(context: &Context, args: &ExportArgs) -> Result<(), CommandError> {
    let store = context.open_store()?;
    // Before a passphrase is asked for in vain.
    if is_revoked(&store) {
        return Err(EngineError::Revoked.into());
    }
    if args.file.symlink_metadata().is_ok() {
        return Err(failed(&args.file, BackupError::Io(ErrorKind::AlreadyExists)));
    }
    let passphrase = match &args.backup_passphrase_file {
        Some(path) => from_file(path)?,
        None => context.prompt.new_passphrase("Passphrase for the backup", FLAG)?,
    };
    let broken = |error| failed(&args.file, error);
    let saved = create_backup(&args.file, &passphrase, context.cost, |writer| {
        let write = |row: &[u8]| writer.row(row).map_err(Broken::Backup);
        backup::save(&store, net::now(), write)
    });
    let saved = saved.map_err(|error| match error {
        Broken::Backup(error) => broken(error),
        Broken::Command(error) => error,
    })?;
    if context.output.mode() == OutputMode::Json {
        return context.output.json(&Line::Exported {
            path: &args.file.to_string_lossy(),
            contacts: saved.contacts,
            rooms: saved.rooms,
            messages: saved.messages,
            waiting: saved.waiting,
            left_out: saved.left_out,
        });
    }
    let what = contents(saved.contacts, saved.rooms, saved.messages);
    context.output.say(&format!("Saved {what} in {}.", shown(&args.file)))?;
    if saved.left_out > 0 {
        let what =
            "Files that were being sent are not in it: send them again from the new computer.";
        context.output.say(what)?;
    }
    context.output.say(
        "Whoever has this file and its passphrase can be you: keep both safe.\n\
         On the new computer: chat import FILE. This computer is signed out then.",
    )
}

/// Makes a profile of such a file, on a device of its own; the one that it came from is out.
///
/// # Errors
/// The file's, the passphrase's, or the relay's: as [`let_in`].
pub(super) async fn import(context: &Context, args: &ImportArgs) -> Result<(), CommandError> {
    let another = "import it as another profile: --profile NAME";
    context.require_no_profile().map_err(|error| error.hint(another))?;
    let address = args.connect.as_deref().map(parse_address).transpose()?;
    let nickname = args.nick.as_deref().map(parse_nickname).transpose()?;
    let changed = Changed { address, nickname };
    let rows = open(context, &args.file, args.backup_passphrase_file.as_deref())?;
    let protection = context.new_protection()?;
    let restored = restore(context, rows, changed, &protection)?;
    let profile = let_in(context, &protection).await?;
    if context.output.mode() == OutputMode::Json {
        return context.output.json(&Line::Imported {
            nickname: profile.nickname.as_str(),
            user_id: profile.user,
            saved_at: restored.saved_at,
            contacts: restored.contacts,
            rooms: restored.rooms,
            messages: restored.messages,
        });
    }
    context.output.say(&words(&restored, &profile.nickname))?;
    let talk = context.paths.command();
    let words = format!("The computer that the backup came from is out.\nTalk: {talk}");
    context.output.say(&words)
}

/// Has the relay let a restored profile in, and does what is due then.
///
/// # Errors
/// The relay's. The profile stays in any case: its record may have reached the relay, whatever that
/// says, and restoring the backup once more would sign another one in its place.
pub(crate) async fn let_in(
    context: &Context,
    protection: &Protection,
) -> Result<ProfileView, CommandError> {
    let folder = context.paths.profile_folder();
    let reopen = || ProfileStore::open(&folder, protection.passphrase());
    let error = match come_in(context, reopen()?).await {
        Ok(profile) => return Ok(profile),
        Err(error) => error,
    };
    if error.is_refusal(ErrorCode::NicknameTaken) {
        return Err(
            error.hint("everything is restored; come in under another name: chat --nick NAME")
        );
    }
    if reopen().is_ok_and(|store| is_revoked(&store)) {
        return Err(error);
    }
    // It may have been let in, and only the answer was lost.
    Err(error.hint(
        "everything is restored; the old computer is out, and what waited goes out, as soon as the \
         relay is reached: chat receive",
    ))
}

async fn come_in(context: &Context, store: ProfileStore) -> Result<ProfileView, CommandError> {
    let online = Online::with_store(context, store, Reconnect::Never).await?;
    let done = async {
        online.client.settle().await?;
        online.client.profile().await
    };
    let done = done.await;
    online.close().await;
    Ok(done?)
}

fn is_revoked(store: &ProfileStore) -> bool {
    query::profile(store).is_ok_and(|own| own.registration == Registration::Revoked)
}

/// Says who is back.
pub(crate) fn words(restored: &Restored, nickname: &Nickname) -> String {
    let what = contents(restored.contacts, restored.rooms, restored.messages);
    let at = render::time(restored.saved_at, net::now());
    let name = render::name(nickname.as_str());
    format!("You are {name} again: {what}, as of {at}. Your safety numbers are the same.")
}

/// A backup that a passphrase has opened.
pub(crate) struct Backup {
    path: PathBuf,
    rows: BackupReader<BufReader<File>>,
}

/// Opens a backup; asks for its passphrase unless a flag gives it.
///
/// # Errors
/// The file's, or the passphrase's.
pub(crate) fn open(
    context: &Context,
    path: &Path,
    passphrase: Option<&Path>,
) -> Result<Backup, CommandError> {
    let file = File::open(path).map_err(|error| CommandError::file(path, &error))?;
    let opened = |rows| Backup { path: path.to_owned(), rows };
    let broken = |error| failed(path, error);
    let mut locked: LockedBackup<_> = BackupReader::locked(BufReader::new(file)).map_err(broken)?;
    if let Some(written) = passphrase {
        return locked.open(&from_file(written)?).map(opened).map_err(|(_, error)| broken(error));
    }
    let mut question = "Passphrase of the backup";
    let tries = if context.prompt == Prompt::Attended { ATTEMPTS } else { 1 };
    for _ in 1..tries {
        match locked.open(&context.prompt.passphrase(question, FLAG)?) {
            Ok(rows) => return Ok(opened(rows)),
            Err((again, BackupError::WrongPassphrase)) => locked = again,
            Err((_, error)) => return Err(broken(error)),
        }
        question = "Wrong passphrase. Passphrase of the backup";
    }
    let last = context.prompt.passphrase(question, FLAG)?;
    locked.open(&last).map(opened).map_err(|(_, error)| broken(error))
}

/// Makes a profile of a backup, or none.
///
/// # Errors
/// The file's, or the store's.
pub(crate) fn restore(
    context: &Context,
    backup: Backup,
    changed: Changed,
    protection: &Protection,
) -> Result<Restored, CommandError> {
    let Backup { path, rows } = backup;
    let mut restored = None;
    let folder = context.paths.profile_folder();
    ProfileStore::create_with(&folder, protection, |store| {
        let rows = rows.map(|row| row.map_err(|error| failed(&path, error)));
        restored = Some(Client::restore::<CommandError>(store, rows, changed)?);
        Ok::<_, CommandError>(())
    })
    .map_err(|error| context.explained(error))?;
    Ok(restored.ok_or(StoreError::Damaged)?)
}

/// Failures while a backup is written.
enum Broken {
    Backup(BackupError),
    Command(CommandError),
}

impl From<BackupError> for Broken {
    fn from(error: BackupError) -> Self {
        Self::Backup(error)
    }
}

impl From<EngineError> for Broken {
    fn from(error: EngineError) -> Self {
        Self::Command(error.into())
    }
}

fn failed(path: &Path, error: BackupError) -> CommandError {
    let say = |code, hint: &str| {
        CommandError::new(code, format_args!("{}: {error}", path.display())).hint(hint)
    };
    match error {
        BackupError::Io(ErrorKind::AlreadyExists) => {
            let what = format_args!("{} exists already", path.display());
            CommandError::new(ExitCode::File, what).hint("choose another name")
        }
        BackupError::Io(kind) => CommandError::file(path, &kind.into()),
        BackupError::NoBackup => say(ExitCode::File, "'chat export FILE' makes one"),
        BackupError::Newer => say(ExitCode::File, "install the newest version of `chat`"),
        BackupError::WrongPassphrase => {
            say(ExitCode::Store, "it is the one that was chosen when the backup was made")
        }
        BackupError::Damaged => say(ExitCode::Integrity, "copy it again, or use another backup"),
    }
}

fn contents(contacts: u64, rooms: u64, messages: u64) -> String {
    let many = |count, one: &str| match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    };
    let (contacts, rooms) = (many(contacts, "contact"), many(rooms, "room"));
    format!("{contacts}, {rooms} and {}", many(messages, "message"))
}

fn shown(path: &Path) -> String {
    render::line(&path.to_string_lossy())
}
