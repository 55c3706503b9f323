//! `chat send WHO TEXT|-` and `chat send-file WHO PATH…`.

use std::io::Read;
use std::path::PathBuf;

use chatcore::engine::{ContactStanding, ContactView};
use chatcore::ids::{Conversation, MessageId};
use chatcore::net::os_rng;
use chatcore::trust::Trust;
use chatcore::wire::limits::MAX_TEXT;

use crate::cli::{SendArgs, SendFileArgs};
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::online::Online;
use crate::output::progress::Progress;
use crate::output::render;
use crate::sending::Sent;

/// Sends a text. Once it is in the outbox it has succeeded, unless `--wait` asks for more.
///
/// # Errors
/// Name, limits, or the relay where nothing can be kept.
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
    // Also what shows as nothing.
    if render::text(&text).trim().is_empty() {
        return Err(usage("there is nothing to send"));
    }
    let online = Online::to_send(context, &args.sending).await?;
    match who {
        Some(who) => to_one(context, online, who, &text, args).await,
        None => to_all(context, online, &text, args).await,
    }
}

async fn to_one(
    context: &Context,
    mut online: Online,
    who: &str,
    text: &str,
    args: &SendArgs,
) -> Result<(), CommandError> {
    if who.starts_with('#') {
        // Who belongs to the room may have changed while we were away.
        online.catch_up().await;
    }
    if args.verified_only {
        online.require_verified(who).await?;
    }
    let to = online.find(who).await?;
    let message = args.id.unwrap_or_else(|| MessageId::generate(&mut os_rng()));
    online.client.send_text_as(message, to, text).await?;
    let sent = Sent { message, to, name: who, file: None };
    let followed = online.follow(&context.output, sent, &args.sending).await;
    online.finish_sending().await;
    followed
}

/// Sends a text to each contact alone.
async fn to_all(
    context: &Context,
    mut online: Online,
    text: &str,
    args: &SendArgs,
) -> Result<(), CommandError> {
    let contacts = online.client.contacts().await?;
    let is_meant = |c: &&ContactView| {
        c.standing == ContactStanding::Contact
            && (!args.verified_only || c.trust == Trust::Verified)
    };
    let (mut count, mut failed, mut late) = (0, None, None);
    for contact in contacts.iter().filter(is_meant) {
        let name = contact.nickname.as_str();
        let to = Conversation::User(contact.user);
        let done = match online.client.send_text_to(to, text).await {
            Ok(message) => {
                let sent = Sent { message, to, name, file: None };
                online.follow(&context.output, sent, &args.sending).await
            }
            Err(error) => Err(error.into()),
        };
        // One who can't be written to does not keep it from the others.
        match done {
            Ok(()) => count += 1,
            // What is kept goes out: what can't be sent at all is told rather.
            Err(error) if error.code() == ExitCode::Kept => late = late.or(Some(error)),
            Err(error) => failed = Some(error.about(format_args!("to {}", render::name(name)))),
        }
    }
    online.finish_sending().await;
    if count == 0 && failed.is_none() && late.is_none() {
        return Err(CommandError::new(ExitCode::UnknownRecipient, "you have no contacts yet")
            .hint("write to somebody first: chat send NAME 'hello'"));
    }
    failed.or(late).map_or(Ok(()), Err)
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

/// Sends files one after the other; each goes on where an earlier attempt broke off. Without the relay they are kept.
///
/// # Errors
/// The first file that can't be sent ends the command.
pub(super) async fn files(context: &Context, args: &SendFileArgs) -> Result<(), CommandError> {
    let parcels = parcels(context, args)?;
    let mut online = Online::to_send(context, &args.sending).await?;
    if args.who.starts_with('#') {
        online.catch_up().await;
    }
    if args.verified_only {
        online.require_verified(&args.who).await?;
    }
    let to = online.find(&args.who).await?;
    let mut late = None;
    for parcel in parcels {
        let label = parcel.name();
        let (client, shown) = (&online.client, parcel.shown());
        let message = match parcel {
            Parcel::Stream { name, open, .. } => client.queue_stream_to(to, &name, open).await,
            Parcel::File(path) => {
                let size = std::fs::metadata(&path).map_or(0, |metadata| metadata.len());
                let mut progress = Progress::new(&context.output, &label, size);
                let mut at_relay = 0;
                let mut advance = |bytes| {
                    at_relay = bytes;
                    progress.advance(bytes);
                };
                let message = match args.sending.no_queue {
                    true => client.send_file_to(to, &path, &mut advance).await,
                    false => client.send_or_keep_file(to, &path, &mut advance).await,
                };
                // What is kept is not there yet.
                if message.is_ok() && at_relay >= size {
                    progress.finish();
                }
                message
            }
        };
        let message = message.map_err(|error| CommandError::from(error).about(shown))?;
        let sent = Sent { message, to, name: &args.who, file: Some(&label) };
        match online.follow(&context.output, sent, &args.sending).await {
            // It is kept, and so are the others.
            Err(error) if error.code() == ExitCode::Kept => late = Some(error),
            followed => followed?,
        }
    }
    online.finish_sending().await;
    late.map_or(Ok(()), Err)
}

/// Opens what can be read only once.
type Opening = Box<dyn FnOnce() -> std::io::Result<Box<dyn Read>> + Send>;

/// Source of a file to be sent.
enum Parcel {
    File(PathBuf),
    /// A source that can be read only once.
    Stream {
        name: String,
        /// As the person named it.
        given: String,
        open: Opening,
    },
}

impl Parcel {
    fn name(&self) -> String {
        match self {
            Self::File(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            Self::Stream { name, .. } => name.clone(),
        }
    }

    /// Returns what an error names.
    fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Stream { given, .. } => given.clone(),
        }
    }
}

/// Opens what can be read only once, and refuses what can't be sent, before anything is sent.
fn parcels(context: &Context, args: &SendFileArgs) -> Result<Vec<Parcel>, CommandError> {
    let usage = |what: &str| CommandError::new(ExitCode::Usage, what);
    if args.name.is_some() && args.paths.len() > 1 {
        return Err(usage("with --name only one file is given"));
    }
    let mut parcels = Vec::new();
    for given in &args.paths {
        let shown = given.display().to_string();
        if given.as_os_str() == "-" {
            let name = args.name.clone();
            let name = name.ok_or_else(|| usage("what is it called?").hint("add --name NAME"))?;
            if context.asker.input.is_some() {
                let what =
                    "another `chat` has the profile open, and does not see your standard input";
                return Err(usage(what).hint("put it into a file, and send that"));
            }
            let open: Opening = Box::new(|| Ok(Box::new(std::io::stdin())));
            parcels.push(Parcel::Stream { name, given: "standard input".to_owned(), open });
            continue;
        }
        let path = context.asker.path(given);
        let failed = |error| CommandError::file(&path, &error);
        let kind = std::fs::metadata(&path).map_err(failed)?;
        if kind.is_dir() {
            let what = format_args!("{shown} is a folder");
            return Err(CommandError::new(ExitCode::File, what)
                .hint("pack it first: tar czf folder.tar.gz folder"));
        }
        if kind.is_file() {
            // Before another one is on its way.
            std::fs::File::open(&path).map_err(failed)?;
        }
        // Of what the system makes up as it is read (/proc) it does not know the length.
        if kind.is_file() && kind.len() > 0 && args.name.is_none() {
            parcels.push(Parcel::File(path));
            continue;
        }
        if !kind.is_file() && context.session.is_some() {
            let what =
                format_args!("{shown}: another `chat` has the profile open, and reads files only");
            return Err(
                CommandError::new(ExitCode::Usage, what).hint("put it into a file, and send that")
            );
        }
        // A pipe, or a file under another name.
        let opened = path.clone();
        let open: Opening = Box::new(move || Ok(Box::new(std::fs::File::open(opened)?)));
        let base = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = args.name.clone().unwrap_or(base);
        parcels.push(Parcel::Stream { name, given: shown, open });
    }
    Ok(parcels)
}
