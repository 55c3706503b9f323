//! `chat rpc`, and what `chat receive` does when another process has the profile open.

#[cfg(unix)]
use std::io::{BufRead, Write};
use std::sync::Arc;
#[cfg(unix)]
use std::sync::atomic::{AtomicBool, Ordering};

use std::time::Duration;

#[cfg(unix)]
use chatcore::engine::EngineError;
use chatcore::engine::Event;
use chatcore::net::{Client, ClientError, Notice, Reconnect};
#[cfg(unix)]
use serde_json::{Value, json};

#[cfg(unix)]
use super::remote::{Heard, Remote};
use super::{Phase, Serving, Session, methods};
#[cfg(unix)]
use crate::cli::ReceiveArgs;
use crate::cli::RpcArgs;
#[cfg(unix)]
use crate::command::exec::Running;
use crate::command::fetch::Fetching;
#[cfg(unix)]
use crate::command::receive::TRY_AGAIN;
use crate::context::Context;
use crate::error::CommandError;
#[cfg(unix)]
use crate::error::ExitCode;
use crate::online::{Notices, Online};
use crate::output::OutputMode;
#[cfg(unix)]
use crate::output::json::of_value;
use crate::output::show;
use crate::paths::download_folder;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, watch};

#[cfg(unix)]
type Socket = std::os::unix::net::UnixStream;

/// How long the way out may take: what is due goes out the next time.
const LEAVING: Duration = Duration::from_secs(3);

/// Opens the profile and serves programs over standard input and output, until the input ends.
///
/// # Errors
/// Relay or store.
pub(crate) async fn run(context: &Context, args: &RpcArgs) -> Result<(), CommandError> {
    let folder = download_folder(args.to.as_deref())?;
    let store = context.open_store()?;
    let (client, events) = Client::open(store, context.options(Reconnect::Always))?;
    let client = Arc::new(client);
    let mut notices = Notices::Own(events);
    let session = Session::new(client.clone());
    let fetching = Fetching::new(context, &client, &folder, args.wanted.wanted());
    let result = talk(context, &session, &mut notices, fetching).await;
    if session.is_online() {
        let _late = tokio::time::timeout(LEAVING, client.settle()).await;
    }
    drop(session);
    Online { client, notices, away: None }.close().await;
    result
}

async fn talk(
    context: &Context,
    session: &Session,
    notices: &mut Notices,
    fetching: Fetching<'_>,
) -> Result<(), CommandError> {
    let serving = Serving::new(context, session);
    let context = Context { session: Some(session.clone()), ..context.clone() };
    let input = tokio::io::BufReader::new(tokio::io::stdin());
    let (_serves, ending) = watch::channel(Phase::Serves);
    let talk = methods::serve(&context, session, input, tokio::io::stdout(), ending);
    let fetch = fetch_what_comes(session, fetching);
    tokio::pin!(talk, fetch);
    let result = loop {
        tokio::select! {
            () = &mut talk => break Ok(()),
            error = &mut fetch => break Err(error.into()),
            notice = notices.next() => {
                let Some(notice) = notice else { break Err(ClientError::Closed.into()) };
                session.teller().tell(&notice);
                if let Notice::Stopped(error) = notice {
                    break Err(error.into());
                }
            }
        }
    };
    // Others are answered by what still comes.
    let tell = async {
        while let Some(notice) = notices.next().await {
            session.teller().tell(&notice);
        }
    };
    tokio::select! {
        () = serving.close() => {}
        () = tell => {}
    }
    result
}

/// Saves files, and gets long texts: only then programs are told of them.
async fn fetch_what_comes(session: &Session, fetching: Fetching<'_>) -> ClientError {
    let mut told = session.listen();
    let something_came = Notify::new();
    let listen = async {
        loop {
            match told.recv().await {
                Err(RecvError::Closed) => return ClientError::Closed,
                Ok(Notice::Event(event))
                    if !matches!(*event, Event::File { .. } | Event::Connected { .. }) => {}
                Ok(Notice::Event(_)) | Err(RecvError::Lagged(_)) => something_came.notify_one(),
                Ok(_) => {}
            }
        }
    };
    tokio::select! {
        error = listen => error,
        error = fetching.go_on(&something_came) => error,
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
pub(crate) async fn receive(
    context: &Context,
    args: &ReceiveArgs,
    remote: Remote<Socket>,
) -> Result<(), CommandError> {
    let running = Arc::new(Running::default());
    let (context, args, ours) = (context.clone(), args.clone(), running.clone());
    let receive = tokio::task::spawn_blocking(move || read(&context, &args, remote, &ours));
    tokio::select! {
        result = receive => result.map_err(|error| CommandError::new(ExitCode::Other, error))?,
        () = running.stopped() => Err(CommandError::interrupted()),
    }
}

#[cfg(unix)]
fn read(
    context: &Context,
    args: &ReceiveArgs,
    remote: Remote<Socket>,
    running: &Running,
) -> Result<(), CommandError> {
    let Some(name) = &args.reader else { return Err(in_use()) };
    if args.to.is_some() || args.wanted.is_given() {
        let what = "another `chat` has the profile open, and saves files as it was told";
        let hint = "leave --to, --accept and --max-size out";
        return Err(CommandError::new(ExitCode::Usage, what).hint(hint));
    }
    let words = context.output.mode() == OutputMode::People;
    let wanted = json!({"name": name.as_str(), "words": words});
    if args.follow {
        follow(context, args, remote, &wanted, running)
    } else {
        drain(context, args, remote, &wanted, running)
    }
}

#[cfg(unix)]
fn drain(
    context: &Context,
    args: &ReceiveArgs,
    mut remote: Remote<Socket>,
    wanted: &Value,
    running: &Running,
) -> Result<(), CommandError> {
    let name = &wanted["name"];
    let mut done = 0;
    loop {
        let events = remote.call("events", wanted, |_, _| Ok(()))?;
        let events = events.as_array().cloned().unwrap_or_default();
        if events.is_empty() {
            return Ok(());
        }
        for event in &events {
            let number = number(event);
            if number <= done {
                return Err(misbehaves());
            }
            let _turn = running.blocking_turn()?;
            match executable(args, event) {
                Some((command, line)) => running.run(command, &line)?,
                None => print(context, event)?,
            }
            done = number;
            let acknowledged = json!({"number": number, "name": name});
            remote.call("acknowledge", &acknowledged, |_, _| Ok(()))?;
        }
    }
}

#[cfg(unix)]
fn follow(
    context: &Context,
    args: &ReceiveArgs,
    mut remote: Remote<Socket>,
    wanted: &Value,
    running: &Running,
) -> Result<(), CommandError> {
    remote.ask("subscribe", wanted)?;
    let mut done = 0;
    loop {
        let event = match remote.hear()? {
            Heard::Answer(answer) => {
                answer?;
                continue;
            }
            Heard::Notification(method, event) if method == "event" => event,
            Heard::Notification(method, _) if method == "forgotten" => {
                return Err(CommandError::from(EngineError::NotFollowing));
            }
            Heard::Notification(..) => continue,
        };
        let number = number(&event);
        // What took long was told again meanwhile.
        if number <= done {
            continue;
        }
        let mut turn = running.blocking_turn()?;
        match executable(args, &event) {
            Some((command, line)) => {
                while let Err(error) = running.run(command, &line) {
                    drop(turn);
                    show::trouble(&error);
                    std::thread::sleep(TRY_AGAIN);
                    turn = running.blocking_turn()?;
                }
            }
            None => print(context, &event)?,
        }
        done = number;
        remote.ask("acknowledge", &json!({"number": number}))?;
    }
}

#[cfg(unix)]
fn number(event: &Value) -> u64 {
    event.get("number").and_then(Value::as_u64).unwrap_or_default()
}

#[cfg(unix)]
fn misbehaves() -> CommandError {
    CommandError::new(ExitCode::Integrity, "the other `chat` tells again what was acknowledged")
}

/// Returns the command and its input, if one is to be run for an event.
#[cfg(unix)]
fn executable<'a>(args: &'a ReceiveArgs, event: &Value) -> Option<(&'a str, String)> {
    let line = event.get("event")?;
    let kind = line.get("type").and_then(Value::as_str)?;
    let command = args.exec.as_deref()?;
    matches!(kind, "text" | "file" | "announcement").then(|| (command, of_value(line)))
}

/// Prints an event as it would be printed without the other process.
#[cfg(unix)]
fn print(context: &Context, event: &Value) -> Result<(), CommandError> {
    match context.output.mode() {
        OutputMode::Json => {
            let line = event.get("event").unwrap_or(&Value::Null);
            context.output.raw(format!("{}\n", of_value(line)).as_bytes())
        }
        OutputMode::People => match event.get("words").and_then(Value::as_str) {
            Some(words) => context.output.say(words),
            None => Ok(()),
        },
    }
}

/// Passes standard input on to the process that has the profile open, and its answers back.
///
/// # Errors
/// The other process ended.
#[cfg(unix)]
pub(crate) fn pass_on(remote: Remote<Socket>) -> Result<(), CommandError> {
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
