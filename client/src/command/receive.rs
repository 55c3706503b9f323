//! `chat receive [--follow] [--to DIR] [--as NAME] [--exec COMMAND]`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use chatcore::engine::{EngineError, Event, Message, ProgramName};
use chatcore::net::{Client, ClientError, Notice, Reconnect};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, sleep_until};

use super::exec::{Running, is_message};
use super::fetch::Fetching;
use crate::cli::ReceiveArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::online::{Notices, Online, is_for_now};
use crate::output::names::Names;
use crate::output::show;
use crate::paths::download_folder;
use crate::rpc::{Serving, Session};

/// Journal entries shown at a time.
const BATCH: usize = 256;
/// Time until a command that failed is tried again.
pub(crate) const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Shows what waits, saves files, sends receipts; with `--follow` goes on.
///
/// # Errors
/// Relay, store, a file that can't be saved, or a command that failed.
pub(super) async fn run(context: &Context, args: &ReceiveArgs) -> Result<(), CommandError> {
    let folder = download_folder(args.to.as_deref())?;
    let running = Arc::new(Running::default());
    let receive = async {
        match args.follow {
            true => follow(context, args, &folder, &running).await,
            false => drain(context, args, &folder, &running).await,
        }
    };
    tokio::select! {
        result = receive => result,
        () = running.stopped() => Err(CommandError::interrupted()),
    }
}

async fn drain(
    context: &Context,
    args: &ReceiveArgs,
    folder: &Path,
    running: &Arc<Running>,
) -> Result<(), CommandError> {
    let Online { client, notices, .. } = Online::connect(context, Reconnect::Never).await?;
    let session = Session::new(client.clone());
    // A command for each message may ask something of this process.
    let serving = match args.exec {
        Some(_) => Serving::new(context, &session),
        None => Serving::default(),
    };
    let mut told = session.listen();
    let telling = tokio::spawn(session.teller().tell_all(notices));
    begin(&client, args).await?;
    let take_in = async {
        client.settle().await?;
        // What is here is shown before anything is fetched, which may take long.
        let printed = print_journal(context, &client, args, running).await?;
        // Receipts for fetched files are due only after fetching.
        let wanted = args.wanted.wanted();
        let failed = Fetching::new(context, &client, folder, wanted).once().await?;
        Ok::<_, CommandError>((printed, failed))
    };
    let listen = async { while !matches!(told.recv().await, Err(RecvError::Closed)) {} };
    let result = tokio::select! {
        result = take_in => result,
        () = listen => Err(ClientError::Closed.into()),
    };
    let printed = match &result {
        Ok((Printed::Failed(_), _)) => Printed::All,
        _ => print_journal(context, &client, args, running).await?,
    };
    let (first, failed) = result?;
    let settled = client.settle().await;
    serving.close().await;
    drop(session);
    if let Some(client) = Arc::into_inner(client) {
        client.close().await;
        let _ended = telling.await;
    }
    settled?;
    match (first, printed) {
        (Printed::Failed(error), _) | (_, Printed::Failed(error)) => Err(error),
        (Printed::All, Printed::All) => failed.map_or(Ok(()), Err),
    }
}

async fn follow(
    context: &Context,
    args: &ReceiveArgs,
    folder: &Path,
    running: &Arc<Running>,
) -> Result<(), CommandError> {
    let options = context.options(Reconnect::Always);
    let (client, events) = Client::open(context.open_store()?, options)?;
    let client = Arc::new(client);
    let session = Session::new(client.clone());
    let _serving = Serving::new(context, &session);
    let mut told = session.listen();
    // Beside what follows: a command for a message may ask something that a notice answers.
    tokio::spawn(session.teller().tell_all(Notices::Own(events)));
    let mut is_offline = match client.online().await {
        Err(error) if is_for_now(&error) => {
            show::offline(&error);
            true
        }
        online => online.map(|()| false)?,
    };
    begin(&client, args).await?;
    let something_came = Notify::new();
    // Beside what is shown: a large file holds nothing up.
    let wanted = args.wanted.wanted();
    let fetching = Fetching::new(context, &client, folder, wanted).go_on(&something_came);
    tokio::pin!(fetching);
    let mut again = shown(context, &client, args, running).await?;
    loop {
        let notice = tokio::select! {
            told = told.recv() => match told {
                Ok(notice) => Some(notice),
                // What was missed stands in the journal.
                Err(RecvError::Lagged(_)) => None,
                Err(RecvError::Closed) => return Err(ClientError::Closed.into()),
            },
            error = &mut fetching => return Err(error.into()),
            () = sleep_until(again.unwrap_or_else(Instant::now)), if again.is_some() => {
                again = shown(context, &client, args, running).await?;
                continue;
            }
        };
        match notice {
            // Said once, however often it is tried.
            Some(Notice::Disconnected(error)) => {
                if !is_offline {
                    is_offline = true;
                    show::offline(&error);
                }
                continue;
            }
            Some(Notice::Stopped(error)) => return Err(error.into()),
            Some(Notice::Event(event)) => match *event {
                Event::Connected { .. } if is_offline => {
                    is_offline = false;
                    show::online();
                }
                Event::Closing(reason) => {
                    is_offline = true;
                    show::closing(reason);
                }
                _ => {}
            },
            _ => {}
        }
        something_came.notify_one();
        if again.is_none() {
            again = shown(context, &client, args, running).await?;
        }
    }
}

/// A program that reads under its own name follows from now on; the first time it is said that nothing older comes.
async fn begin(client: &Client, args: &ReceiveArgs) -> Result<(), CommandError> {
    let Some(name) = &args.reader else { return Ok(()) };
    let known = client.journal_of(name.clone(), 1).await;
    client.follow(name.clone()).await?;
    match known {
        Err(ClientError::Engine(EngineError::NotFollowing)) => {
            show::begins(name);
            Ok(())
        }
        known => Ok(known.map(|_| ())?),
    }
}

/// How far the journal was printed.
enum Printed {
    All,
    /// The command failed for a message; that and what follows waits.
    Failed(CommandError),
}

/// Prints what was not shown yet; returns when to try again if a command failed.
async fn shown(
    context: &Context,
    client: &Client,
    args: &ReceiveArgs,
    running: &Arc<Running>,
) -> Result<Option<Instant>, CommandError> {
    match print_journal(context, client, args, running).await? {
        Printed::All => Ok(None),
        Printed::Failed(error) => {
            show::trouble(&error);
            Ok(Some(Instant::now() + TRY_AGAIN))
        }
    }
}

/// Prints what the reader does not have yet, then takes it off the list; a message goes to the
/// command, if there is one, and off the list when that succeeds.
async fn print_journal(
    context: &Context,
    client: &Client,
    args: &ReceiveArgs,
    running: &Arc<Running>,
) -> Result<Printed, CommandError> {
    loop {
        let events = match &args.reader {
            Some(name) => client.journal_of(name.clone(), BATCH).await?,
            None => client.journal(BATCH).await?,
        };
        let Some((last, _)) = events.last() else {
            return Ok(Printed::All);
        };
        let last = *last;
        let names = Names::load(client).await?;
        for (number, event) in &events {
            let Some(event) = event else { continue };
            match (&args.exec, is_message(event)) {
                (Some(command), true) => {
                    // What was printed before is not printed again if the command fails.
                    has(client, args.reader.as_ref(), number.saturating_sub(1)).await?;
                    let _turn = running.turn().await?;
                    if let Some(line) = show::json(&names, event)
                        && let Err(error) = running.exec(command, &line).await
                    {
                        return Ok(Printed::Failed(error));
                    }
                    has(client, args.reader.as_ref(), *number).await?;
                }
                _ if is_fetched_at_once(args, event) => {}
                _ => show::event(context, &names, event)?,
            }
        }
        has(client, args.reader.as_ref(), last).await?;
    }
}

/// Tells whether nobody need hear of an offer, since the file itself follows.
fn is_fetched_at_once(args: &ReceiveArgs, event: &Event) -> bool {
    let Event::File { message: Message { from, .. }, manifest, .. } = event else { return false };
    args.wanted.wanted().takes(from.acquaintance, from.trust, manifest.size)
}

async fn has(
    client: &Client,
    reader: Option<&ProgramName>,
    up_to: u64,
) -> Result<(), CommandError> {
    match reader {
        Some(name) => {
            let program = name.clone();
            Ok(client.acknowledge(program, up_to).await?)
        }
        None => Ok(client.shown(up_to).await?),
    }
}
