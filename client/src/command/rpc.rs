//! `chat rpc`, and what `chat receive` does when another process has the profile open.

#[cfg(unix)]
use std::io::{BufRead, Write};
use std::sync::Arc;
#[cfg(unix)]
use std::sync::atomic::{AtomicBool, Ordering};

use chatcore::net::{Client, ClientError, Notice, Options, Reconnect};
#[cfg(unix)]
use serde_json::{Value, json};

#[cfg(unix)]
use super::exec;
use super::receive::serve;
#[cfg(unix)]
use crate::cli::ReceiveArgs;
use crate::context::Context;
use crate::error::CommandError;
#[cfg(unix)]
use crate::error::ExitCode;
use crate::online::{Notices, Online};
#[cfg(unix)]
use crate::session::remote::{Heard, Remote};
use crate::session::{Session, rpc};

#[cfg(unix)]
type Socket = std::os::unix::net::UnixStream;

/// Opens the profile and serves programs over standard input and output, until the input ends.
///
/// # Errors
/// Relay or store.
pub(super) async fn run(context: &Context) -> Result<(), CommandError> {
    let store = context.open_store()?;
    let (client, events) = Client::open(store, Options { reconnect: Reconnect::Always })?;
    let client = Arc::new(client);
    let mut notices = Notices::Own(events);
    let result = talk(context, Session::new(client.clone()), &mut notices).await;
    result.and(Online { client, notices }.finish().await)
}

async fn talk(
    context: &Context,
    session: Session,
    notices: &mut Notices,
) -> Result<(), CommandError> {
    let _serving = serve(context, &session);
    let context = Context { session: Some(session.clone()), ..context.clone() };
    let input = tokio::io::BufReader::new(tokio::io::stdin());
    let talk = rpc::serve(&context, &session, input, tokio::io::stdout());
    tokio::pin!(talk);
    loop {
        tokio::select! {
            () = &mut talk => return Ok(()),
            notice = notices.next() => {
                let notice = notice.ok_or(ClientError::Closed)?;
                session.teller().tell(&notice);
                if let Notice::Stopped(error) = notice {
                    return Err(error.into());
                }
            }
        }
    }
}

#[cfg(unix)]
fn in_use() -> CommandError {
    let what = "another `chat` has the profile open, and shows what arrives";
    CommandError::new(ExitCode::Store, what)
        .hint("a program of yours gets everything as well under a name of its own: --as NAME")
}

/// Receives through the process that has the profile open.
///
/// # Errors
/// Without a name of its own; a command that failed; the other process ended.
#[cfg(unix)]
pub(super) fn receive(
    context: &Context,
    args: &ReceiveArgs,
    mut remote: Remote<Socket>,
) -> Result<(), CommandError> {
    let Some(name) = &args.reader else { return Err(in_use()) };
    let name = json!({"name": name.as_str()});
    if !args.follow {
        loop {
            let events = remote.call("events", &name, |_, _| Ok(()))?;
            let events = events.as_array().cloned().unwrap_or_default();
            if events.is_empty() {
                return Ok(());
            }
            // What is acknowledged is acknowledged on a subscription.
            remote.call("subscribe", &name, |_, _| Ok(()))?;
            for event in &events {
                take(context, args, event)?;
                let number = json!({"number": event.get("number")});
                remote.call("acknowledge", &number, |_, _| Ok(()))?;
            }
        }
    }
    remote.call("subscribe", &name, |_, _| Ok(()))?;
    loop {
        let Heard::Notification(method, event) = remote.hear()? else { continue };
        if method != "event" {
            continue;
        }
        match take(context, args, &event) {
            // It is told again.
            Err(error) if error.code() == ExitCode::Other => crate::show::trouble(&error),
            done => {
                done?;
                remote.ask("acknowledge", &json!({"number": event.get("number")}))?;
            }
        }
    }
}

#[cfg(unix)]
fn take(context: &Context, args: &ReceiveArgs, event: &Value) -> Result<(), CommandError> {
    let Some(line) = event.get("event") else { return Ok(()) };
    let kind = line.get("type").and_then(Value::as_str);
    let is_message = matches!(kind, Some("text" | "file" | "announcement"));
    match &args.exec {
        Some(command) if is_message => exec::run(command, &line.to_string()),
        // Without the profile there are no words for a person.
        _ => context.output.raw(format!("{line}\n").as_bytes()),
    }
}

/// Passes standard input on to the process that has the profile open, and its answers back.
///
/// # Errors
/// The other process ended.
#[cfg(unix)]
pub(super) fn pass_on(remote: Remote<Socket>) -> Result<(), CommandError> {
    let gone = |_| CommandError::new(ExitCode::Store, "the other `chat` ended");
    let (mut answers, mut stream) = remote.into_parts().map_err(gone)?;
    let is_asked = Arc::new(AtomicBool::new(false));
    let all_asked = is_asked.clone();
    std::thread::spawn(move || {
        if std::io::copy(&mut std::io::stdin().lock(), &mut stream).is_ok() {
            all_asked.store(true, Ordering::SeqCst);
        }
        // What was asked is still answered.
        let _gone = stream.shutdown(std::net::Shutdown::Write);
    });
    let mut out = std::io::stdout().lock();
    loop {
        let mut line = Vec::new();
        if answers.read_until(b'\n', &mut line).map_err(gone)? == 0 {
            break;
        }
        if out.write_all(&line).and_then(|()| out.flush()).is_err() {
            return Err(CommandError::silent());
        }
    }
    // It ended because nothing more was asked, or because the other process did.
    match is_asked.load(Ordering::SeqCst) {
        true => Ok(()),
        false => Err(CommandError::new(ExitCode::Store, "the other `chat` ended")),
    }
}
