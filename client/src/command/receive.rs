//! `chat receive [--follow] [--to DIR]`.

use std::path::Path;

use chatcore::engine::query::WaitingFile;
use chatcore::engine::{Event, FileKind};
use chatcore::net::{Client, ClientError, Notice, Reconnect};

use crate::cli::ReceiveArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::names::Names;
use crate::online::Online;
use crate::paths::download_folder;
use crate::progress::Progress;
use crate::show;

/// Journal entries shown at a time.
const BATCH: usize = 256;

/// Shows what waits, saves files, sends receipts; with `--follow` goes on.
///
/// # Errors
/// Relay, store, or a file that can't be saved.
pub(super) async fn run(context: &Context, args: &ReceiveArgs) -> Result<(), CommandError> {
    let folder = download_folder(args.to.as_deref())?;
    if args.follow { follow(context, &folder).await } else { drain(context, &folder).await }
}

async fn drain(context: &Context, folder: &Path) -> Result<(), CommandError> {
    let mut online = Online::connect(context, Reconnect::Never).await?;
    let mut failed = None;
    let settle = async {
        // Receipts for fetched files are due only after fetching.
        let mut result = online.client.settle().await.map_err(CommandError::from);
        if result.is_ok() {
            result = fetch_all(&online.client, folder, &mut failed).await;
        }
        result
    };
    let events = &mut online.events;
    let listen = async { while events.next().await.is_some() {} };
    let result = tokio::select! {
        result = settle => result,
        () = listen => Err(ClientError::Closed.into()),
    };
    print_journal(context, &online.client).await?;
    result?;
    online.finish().await?;
    failed.map_or(Ok(()), Err)
}

async fn follow(context: &Context, folder: &Path) -> Result<(), CommandError> {
    let Online { client, mut events } = Online::connect(context, Reconnect::Always).await?;
    let mut failed = None;
    fetch_all(&client, folder, &mut failed).await?;
    print_journal(context, &client).await?;
    let mut is_offline = false;
    while let Some(notice) = events.next().await {
        match notice {
            Notice::Event(event) => {
                if is_offline && matches!(*event, Event::Connected { .. }) {
                    is_offline = false;
                    show::online();
                }
                if let Event::Closing(reason) = *event {
                    is_offline = true;
                    show::closing(reason);
                }
                fetch_all(&client, folder, &mut failed).await?;
                print_journal(context, &client).await?;
            }
            // Said once, however often it is tried.
            Notice::Disconnected(error) if !is_offline => {
                is_offline = true;
                show::offline(&error);
            }
            Notice::Stopped(error) => return Err(error.into()),
            _ => {}
        }
        if let Some(error) = failed.take() {
            show::trouble(&error);
        }
    }
    Err(ClientError::Closed.into())
}

/// Prints what was not shown yet, then takes it off the list.
async fn print_journal(context: &Context, client: &Client) -> Result<(), CommandError> {
    loop {
        let events = client.journal(BATCH).await?;
        let Some((last, _)) = events.last() else {
            return Ok(());
        };
        let names = Names::load(client).await?;
        for (_, event) in &events {
            if let Some(event) = event {
                show::event(context, &names, event)?;
            }
        }
        client.shown(*last).await?;
    }
}

/// Saves every file that waits; one that can't be saved does not hold up the others.
async fn fetch_all(
    client: &Client,
    folder: &Path,
    failed: &mut Option<CommandError>,
) -> Result<(), CommandError> {
    for waiting in client.waiting_files().await? {
        match fetch(client, folder, &waiting).await {
            Ok(()) => {}
            Err(error @ ClientError::File(_)) => *failed = Some(error.into()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn fetch(client: &Client, folder: &Path, waiting: &WaitingFile) -> Result<(), ClientError> {
    let label = match waiting.kind {
        FileKind::File => waiting.manifest.name.clone(),
        FileKind::LongText => "a long text".to_owned(),
    };
    let mut progress = Progress::new(&label, waiting.manifest.size);
    client.fetch_file(waiting, folder, &mut |bytes| progress.advance(bytes)).await?;
    progress.finish();
    Ok(())
}
