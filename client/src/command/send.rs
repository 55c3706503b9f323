//! `chat send WHO TEXT|-` and `chat send-file WHO PATH…`.

use std::io::Read;

use chatcore::engine::{ContactStanding, ContactView};
use chatcore::ids::Conversation;
use chatcore::net::Reconnect;
use chatcore::trust::Trust;
use chatcore::wire::limits::MAX_TEXT;

use crate::cli::{SendArgs, SendFileArgs};
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::json::Line;
use crate::online::Online;
use crate::output::OutputMode;
use crate::progress::Progress;
use crate::render;

/// Sends a text; returns when the relay has it.
///
/// # Errors
/// Name, relay, or limits.
pub(super) async fn text(context: &Context, args: &SendArgs) -> Result<(), CommandError> {
    let usage = |what: &str| CommandError::new(ExitCode::Usage, what);
    let (who, text) = match (args.all, &args.who, &args.text) {
        (true, Some(text), None) => (None, text),
        (false, Some(who), Some(text)) => (Some(who), text),
        (true, ..) => return Err(usage("with --all only the text is given")),
        (false, ..) => return Err(usage("give a name and a text")),
    };
    let text = match text.as_str() {
        "-" => read_input(context)?,
        text => text.to_owned(),
    };
    if text.is_empty() {
        return Err(usage("there is nothing to send"));
    }
    let online = Online::connect(context, Reconnect::Never).await?;
    match who {
        Some(who) => to_one(context, online, who, &text, args.verified_only).await,
        None => to_all(context, online, &text, args.verified_only).await,
    }
}

async fn to_one(
    context: &Context,
    mut online: Online,
    who: &str,
    text: &str,
    verified_only: bool,
) -> Result<(), CommandError> {
    if who.starts_with('#') {
        // Who belongs to the room may have changed while we were away.
        online.client.settle().await?;
    }
    if verified_only {
        online.require_verified(who).await?;
    }
    let id = online.client.send_text(who, text).await?;
    online.at_relay(id).await?;
    online.finish().await?;
    sent(context, id, who, "sent")
}

/// Sends a text to each contact alone.
async fn to_all(
    context: &Context,
    mut online: Online,
    text: &str,
    verified_only: bool,
) -> Result<(), CommandError> {
    let contacts = online.client.contacts().await?;
    let is_meant = |c: &&ContactView| {
        c.standing == ContactStanding::Contact && (!verified_only || c.trust == Trust::Verified)
    };
    let (mut count, mut failed) = (0, None);
    for contact in contacts.iter().filter(is_meant) {
        let name = contact.nickname.as_str();
        let to = Conversation::User(contact.user);
        let done = match online.client.send_text_to(to, text).await {
            Ok(id) => online.at_relay(id).await.map(|()| id),
            Err(error) => Err(error.into()),
        };
        // One who can't be written to does not keep it from the others.
        match done {
            Ok(id) => {
                count += 1;
                sent(context, id, name, "sent")?;
            }
            Err(error) => failed = Some(error.hint(format_args!("to {}", render::name(name)))),
        }
    }
    online.finish().await?;
    if count == 0 && failed.is_none() {
        return Err(CommandError::new(ExitCode::UnknownRecipient, "you have no contacts yet")
            .hint("write to somebody first: chat send NAME 'hello'"));
    }
    failed.map_or(Ok(()), Err)
}

fn sent(
    context: &Context,
    id: chatcore::ids::MessageId,
    to: &str,
    what: &str,
) -> Result<(), CommandError> {
    match context.output.mode() {
        OutputMode::Json => context.output.json(&Line::Sent { id, to }),
        OutputMode::People => {
            let name = render::name(to);
            let who = if to.starts_with('#') { format!("everybody in {name}") } else { name };
            context.output.say(&format!("{what}; {who} gets it, also later"))
        }
    }
}

fn read_input(context: &Context) -> Result<String, CommandError> {
    match &context.asker.input {
        Some(text) => Ok(text.trim_end_matches('\n').to_owned()),
        None => read_stdin(),
    }
}

/// Reads a text from standard input.
///
/// # Errors
/// It is too long, or no text.
pub(crate) fn read_stdin() -> Result<String, CommandError> {
    let mut bytes = Vec::new();
    let limit = MAX_TEXT as u64 + 1;
    std::io::stdin()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| CommandError::new(ExitCode::File, error))?;
    if bytes.len() > MAX_TEXT {
        let what = format_args!("the text is longer than {MAX_TEXT} bytes");
        return Err(CommandError::new(ExitCode::Limit, what)
            .hint("put it into a file and use 'chat send-file'"));
    }
    let text = String::from_utf8(bytes).map_err(|_| {
        CommandError::new(ExitCode::Usage, "standard input is not text")
            .hint("use 'chat send-file' for everything else")
    })?;
    Ok(text.trim_end_matches('\n').to_owned())
}

/// Sends files one after the other; each goes on where an earlier attempt broke off.
///
/// # Errors
/// The first file that can't be sent ends the command.
pub(super) async fn files(context: &Context, args: &SendFileArgs) -> Result<(), CommandError> {
    let paths: Vec<_> = args.paths.iter().map(|path| context.asker.path(path)).collect();
    for path in &paths {
        let is_folder =
            std::fs::metadata(path).map_err(|error| CommandError::file(path, &error))?.is_dir();
        if is_folder {
            let what = format_args!("{} is a folder", path.display());
            return Err(CommandError::new(ExitCode::File, what)
                .hint("pack it first: tar czf folder.tar.gz folder"));
        }
    }
    let mut online = Online::connect(context, Reconnect::Never).await?;
    if args.who.starts_with('#') {
        online.client.settle().await?;
    }
    if args.verified_only {
        online.require_verified(&args.who).await?;
    }
    for path in &paths {
        let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let label = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut progress = Progress::new(&context.output, &label, size);
        let result =
            online.client.send_file(&args.who, path, &mut |bytes| progress.advance(bytes)).await;
        let id = result?;
        progress.finish();
        online.at_relay(id).await?;
        sent(context, id, &args.who, &format!("{} sent", render::name(&label)))?;
    }
    online.finish().await
}
