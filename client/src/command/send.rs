//! `chat send WHO TEXT|-` and `chat send-file WHO PATH…`.

use std::io::Read;

use chatcore::net::Reconnect;
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
    let text = match args.text.as_str() {
        "-" => read_stdin()?,
        text => text.to_owned(),
    };
    if text.is_empty() {
        return Err(CommandError::new(ExitCode::Usage, "there is nothing to send"));
    }
    let mut online = Online::connect(context, Reconnect::Never).await?;
    if args.verified_only {
        online.require_verified(&args.who).await?;
    }
    let id = online.client.send_text(&args.who, &text).await?;
    online.at_relay(id).await?;
    online.finish().await?;
    sent(context, id, &args.who, "sent")
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
            context.output.say(&format!("{what}; {} gets it, also later", render::name(to)))
        }
    }
}

fn read_stdin() -> Result<String, CommandError> {
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
    for path in &args.paths {
        let is_folder =
            std::fs::metadata(path).map_err(|error| CommandError::file(path, &error))?.is_dir();
        if is_folder {
            let what = format_args!("{} is a folder", path.display());
            return Err(CommandError::new(ExitCode::File, what)
                .hint("pack it first: tar czf folder.tar.gz folder"));
        }
    }
    let mut online = Online::connect(context, Reconnect::Never).await?;
    if args.verified_only {
        online.require_verified(&args.who).await?;
    }
    for path in &args.paths {
        let size = std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let label = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut progress = Progress::new(&label, size);
        let result =
            online.client.send_file(&args.who, path, &mut |bytes| progress.advance(bytes)).await;
        let id = result?;
        progress.finish();
        online.at_relay(id).await?;
        sent(context, id, &args.who, &format!("{} sent", render::name(&label)))?;
    }
    online.finish().await
}
