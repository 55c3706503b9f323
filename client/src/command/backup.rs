//! `chat export FILE` and `chat import FILE`.

use std::fs::File;
use std::io::{BufReader, ErrorKind};
use std::path::Path;

use chatcore::engine::backup::{self, Changed, Restored};
use chatcore::engine::{EngineError, Registration, query};
use chatcore::invite::split_address;
use chatcore::keys::Nickname;
use chatcore::net::{self, Client, Reconnect};
use chatcore::store::StoreError;
use chatcore::wire::relay::ErrorCode;

use super::join::parse_nickname;
use crate::cli::{ExportArgs, ImportArgs};
use crate::context::{ATTEMPTS, Context};
use crate::error::{CommandError, ExitCode};
use crate::json::Line;
use crate::online::Online;
use crate::output::OutputMode;
use crate::passphrase::from_file;
use crate::prompt::Prompt;
use crate::render;
use crate::store::{BackupError, BackupReader, LockedBackup, Protection, RedbStore, create_backup};

const FLAG: &str = "--backup-passphrase-file FILE";

/// Writes everything but what belongs to this device into one sealed file.
///
/// # Errors
/// The store's; [`ExitCode::File`] for the file.
pub(super) fn export(context: &Context, args: &ExportArgs) -> Result<(), CommandError> {
    let store = context.open_store()?;
    // Before a passphrase is asked for in vain.
    if query::profile(&store)?.registration == Registration::Revoked {
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
         On the new computer: chat import FILE. From then on this one is out.",
    )
}

/// Makes a profile of such a file, on a device of its own; the one that it came from is out.
///
/// # Errors
/// The file's, the passphrase's, or the relay's: the profile is there then, and goes on when the
/// relay is reached.
pub(super) async fn import(context: &Context, args: &ImportArgs) -> Result<(), CommandError> {
    let another = "import it as another profile: --profile NAME";
    context.require_no_profile().map_err(|error| error.hint(another))?;
    if let Some(address) = &args.connect {
        split_address(address).map_err(|error| CommandError::new(ExitCode::Usage, error))?;
    }
    args.nick.as_deref().map(parse_nickname).transpose()?;
    let rows = open(context, args)?;
    let protection = context.new_protection()?;
    let (store, restored) = restore(context, args, rows, &protection)?;
    let online = match Online::with_store(store, Reconnect::Never).await {
        Ok(online) => online,
        Err(error) => return Err(not_let_in(context, &protection, error)),
    };
    online.client.settle().await?;
    let profile = online.client.profile().await?;
    online.finish().await?;
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
    context.output.say("The computer that the backup came from is out.\nTalk: chat")
}

/// Says what becomes of a profile that the relay has not let in yet.
fn not_let_in(context: &Context, protection: &Protection, error: CommandError) -> CommandError {
    if error.code() == ExitCode::RelayUnreachable || error.is_refusal(ErrorCode::RateLimited) {
        return error.hint(
            "everything is restored; the old computer is out, and what waited goes out, as soon as \
             the relay is reached: chat receive",
        );
    }
    // The relay does not have it: the next attempt begins anew.
    let passphrase = match protection {
        Protection::KeyFile => None,
        Protection::Passphrase { passphrase, .. } => Some(passphrase),
    };
    let folder = context.paths.profile_folder();
    let _left = RedbStore::open(&folder, passphrase).and_then(RedbStore::destroy);
    if error.is_refusal(ErrorCode::NicknameTaken) {
        return error.hint("somebody has your name now; choose another one: --nick NAME");
    }
    error
}

/// Says who is back.
pub(crate) fn words(restored: &Restored, nickname: &Nickname) -> String {
    let what = contents(restored.contacts, restored.rooms, restored.messages);
    let at = render::time(restored.saved_at, net::now());
    let name = render::name(nickname.as_str());
    format!("You are {name} again: {what}, as of {at}. Your safety numbers are the same.")
}

/// Opens a backup; asks for its passphrase unless a flag gives it.
///
/// # Errors
/// The file's, or the passphrase's.
pub(crate) fn open(
    context: &Context,
    args: &ImportArgs,
) -> Result<BackupReader<BufReader<File>>, CommandError> {
    let file = File::open(&args.file).map_err(|error| CommandError::file(&args.file, &error))?;
    let mut locked: LockedBackup<_> =
        BackupReader::locked(BufReader::new(file)).map_err(|error| failed(&args.file, error))?;
    if let Some(path) = &args.backup_passphrase_file {
        return locked.open(&from_file(path)?).map_err(|(_, error)| failed(&args.file, error));
    }
    let mut question = "Passphrase of the backup";
    let tries = if context.prompt == Prompt::Attended { ATTEMPTS } else { 1 };
    for _ in 1..tries {
        match locked.open(&context.prompt.passphrase(question, FLAG)?) {
            Ok(reader) => return Ok(reader),
            Err((again, BackupError::WrongPassphrase)) => locked = again,
            Err((_, error)) => return Err(failed(&args.file, error)),
        }
        question = "That is not it. Passphrase of the backup";
    }
    let last = context.prompt.passphrase(question, FLAG)?;
    locked.open(&last).map_err(|(_, error)| failed(&args.file, error))
}

/// Makes a profile of a backup, or none.
///
/// # Errors
/// The file's, or the store's.
pub(crate) fn restore(
    context: &Context,
    args: &ImportArgs,
    rows: BackupReader<BufReader<File>>,
    protection: &Protection,
) -> Result<(RedbStore, Restored), CommandError> {
    let mut restored = None;
    let folder = context.paths.profile_folder();
    let store = RedbStore::create_with(&folder, protection, |store| {
        let rows = rows.map(|row| row.map_err(|error| failed(&args.file, error)));
        let nickname = args.nick.as_deref().map(parse_nickname).transpose()?;
        let changed = Changed { address: args.connect.clone(), nickname };
        let all = Client::restore(store, rows, changed);
        restored = Some(all.map_err(|error: CommandError| error)?);
        Ok::<_, CommandError>(())
    })?;
    let restored = restored.ok_or(StoreError::Damaged)?;
    Ok((store, restored))
}

/// What can go wrong while a backup is written.
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
