//! `chat admin COMMAND…`: what the relay's operator lets us do.

use chatcore::net::{Client, Reconnect};
use chatcore::wire::relay::{AnswerForm, ErrorCode};
use serde_json::Value;

use crate::cli::AdminArgs;
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::online::Online;
use crate::output::OutputMode;
use crate::output::json::of_value;
use crate::output::render;

/// Has the relay carry out a command, and prints what it says.
///
/// # Errors
/// [`ExitCode::Refused`] for who is no administrator; else the exit code that the relay gives.
pub(super) async fn run(context: &Context, args: &AdminArgs) -> Result<(), CommandError> {
    let online = Online::connect(context, Reconnect::Never).await?;
    let done = act(context, &online.client, &args.command.join(" ")).await;
    online.finish().await?;
    done
}

/// As [`run`], with a client that is there.
///
/// # Errors
/// As [`run`].
pub(crate) async fn act(
    context: &Context,
    client: &Client,
    command: &str,
) -> Result<(), CommandError> {
    let form = match context.output.mode() {
        OutputMode::Json => AnswerForm::Json,
        OutputMode::People => AnswerForm::Words,
    };
    let answered = client.admin(command.to_owned(), form).await.map_err(CommandError::from);
    let (code, text) = answered.map_err(|error| match error.code() {
        ExitCode::Refused if error.is_refusal(ErrorCode::Forbidden) => {
            CommandError::new(ExitCode::Refused, "you are no administrator of this relay")
                .hint("its operator makes you one: !grant NAME admin")
        }
        _ => error,
    })?;
    if code != 0 {
        return Err(CommandError::new(ExitCode::of_relay(code), text));
    }
    match context.output.mode() {
        OutputMode::Json => context.output.raw(format!("{}\n", one_line(&text)).as_bytes()),
        OutputMode::People => context.output.say(render::text(&text).trim_end()),
    }
}

/// JSON lines stay lines, whatever a relay sends.
fn one_line(text: &str) -> String {
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    of_value(&value)
}
