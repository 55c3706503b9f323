//! `chat files` and `chat save ID…`: what others sent, and is not saved yet.

use std::path::{Path, PathBuf};

use chatcore::engine::query::WaitingFile;
use chatcore::engine::{Acquaintance, FileKind, Message};
use chatcore::net::{Client, Fetched, Reconnect};
use chatcore::trust::Trust;

use super::fetch::{fetch, what};
use crate::cli::SaveArgs;
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::online::Online;
use crate::output::OutputMode;
use crate::output::json::{Line, Named};
use crate::output::names::Names;
use crate::output::render;
use crate::output::show::{no_file, short};
use crate::paths::download_folder;

/// Fewest digits of an id.
const FEWEST_DIGITS: usize = 4;

/// Lists the files that are not saved yet; needs no connection.
///
/// # Errors
/// The store's.
pub(super) async fn list(context: &Context) -> Result<(), CommandError> {
    let known = context.known()?;
    let names = Names::new(&known.profile().await?, known.contacts().await?);
    let files = only_files(known.waiting_files().await?);
    if files.is_empty() && context.output.mode() == OutputMode::People {
        return context.output.say("No files are waiting.");
    }
    for file in &files {
        match context.output.mode() {
            OutputMode::Json => context.output.json(&line(file))?,
            OutputMode::People => context.output.say(&words(&names, file))?,
        }
    }
    Ok(())
}

fn only_files(mut waiting: Vec<WaitingFile>) -> Vec<WaitingFile> {
    waiting.retain(|file| file.kind == FileKind::File);
    waiting
}

fn line(file: &WaitingFile) -> Line<'_> {
    let Message { id, from, room, received_at, .. } = &file.message;
    let name = from.nickname.as_str();
    Line::FileWaiting {
        id: *id,
        from: if from.is_claimed() { Named::Claimed(name) } else { Named::Known(name) },
        user_id: from.user,
        verified: from.trust == Trust::Verified,
        name: &file.manifest.name,
        size: file.manifest.size,
        received_at: *received_at,
        reason: file.given_up.map(|failure| failure.as_str()),
        room: room.as_ref().map(|room| room.name.as_str()),
        room_id: room.as_ref().map(|room| room.id),
    }
}

fn words(names: &Names, file: &WaitingFile) -> String {
    let Message { id, from, room, .. } = &file.message;
    let id = short(id);
    let room = match room {
        Some(room) => format!(" in #{}", render::name(&room.name)),
        None => String::new(),
    };
    let fate = match file.given_up {
        None => format!("chat save {id}"),
        Some(failure) => format!("{}; chat save {id} --retry", no_file(failure)),
    };
    let is_new = from.acquaintance == Acquaintance::Stranger;
    let new = if is_new { " (new to you)" } else { "" };
    format!(
        "{id}  {} ({}) from {}{new}{room}: {fate}",
        render::name(&file.manifest.name),
        render::size(file.manifest.size),
        names.marked(&from.user, from.nickname.as_str()),
    )
}

/// Saves files by their ids.
///
/// # Errors
/// An id leads nowhere; the first file that can't be had.
pub(super) async fn save(context: &Context, args: &SaveArgs) -> Result<(), CommandError> {
    let folder = folder(context, args.to.as_deref())?;
    let online = Online::connect(context, Reconnect::Never).await?;
    // What came in between may be meant.
    online.client.settle().await?;
    let saved = save_all(context, &online.client, args, &folder).await;
    online.finish().await?;
    saved
}

async fn save_all(
    context: &Context,
    client: &Client,
    args: &SaveArgs,
    folder: &Path,
) -> Result<(), CommandError> {
    let waiting = only_files(client.waiting_files().await?);
    let files: Result<Vec<_>, _> = args.ids.iter().map(|id| find(&waiting, id)).collect();
    for file in files? {
        if let Some(failure) = file.given_up {
            if !args.retry {
                let (what, why) = (what(file), no_file(failure));
                return Err(CommandError::new(ExitCode::Integrity, format_args!("{what}: {why}"))
                    .hint("try it once more: --retry"));
            }
            let (from, message) = (file.message.from.user, file.message.id);
            client.retry_fetch(from, message).await?;
        }
        let fetched = fetch(context, client, folder, file).await;
        match fetched.map_err(|error| CommandError::from(error).about(what(file)))? {
            Fetched::Saved(path) => said(context, file, &path)?,
            Fetched::Text => {}
        }
    }
    Ok(())
}

/// Returns the folder to save in, as the asking process means it.
fn folder(context: &Context, to: Option<&Path>) -> Result<PathBuf, CommandError> {
    let here = context.asker.folder.as_deref();
    let to = to.map(|to| context.asker.path(to));
    download_folder(to.as_deref().or(here))
}

/// Finds a file by the beginning of its id.
fn find<'f>(waiting: &'f [WaitingFile], id: &str) -> Result<&'f WaitingFile, CommandError> {
    let digits = id.to_lowercase();
    let hint = "'chat files' lists them";
    let is_meant = |file: &&WaitingFile| {
        digits.len() >= FEWEST_DIGITS && file.message.id.to_hex().starts_with(&digits)
    };
    let mut found = waiting.iter().filter(is_meant);
    let unknown = || {
        let what = format_args!("no file with the id {} waits", render::line(id));
        CommandError::new(ExitCode::UnknownRecipient, what).hint(hint)
    };
    let file = found.next().ok_or_else(unknown)?;
    match found.next() {
        None => Ok(file),
        Some(_) => {
            let what =
                format_args!("several files have an id that begins with {}", render::line(id));
            Err(CommandError::new(ExitCode::Usage, what).hint("give more of its digits"))
        }
    }
}

fn said(context: &Context, file: &WaitingFile, path: &Path) -> Result<(), CommandError> {
    let path = path.to_string_lossy();
    match context.output.mode() {
        OutputMode::Json => context.output.json(&Line::Saved { id: file.message.id, path: &path }),
        OutputMode::People => context.output.say(&format!(
            "{} saved as {}",
            render::name(&file.manifest.name),
            render::line(&path)
        )),
    }
}
