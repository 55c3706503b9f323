//! `chat nick NAME` and `chat account delete`.

use chatcore::engine::{Event, Registration, query};
use chatcore::net::{ClientError, Notice, Reconnect};

use crate::cli::{DeleteArgs, NickArgs};
use crate::context::Context;
use crate::error::CommandError;
use crate::online::Online;
use crate::output::render;

/// Waits for the relay's word on a change of the account.
async fn outcome(online: &mut Online, done: impl Fn(&Event) -> bool) -> Result<(), CommandError> {
    loop {
        match online.notices.next().await {
            Some(Notice::Event(event)) => match *event {
                Event::RequestRefused(failure) => return Err(CommandError::refused(failure.code)),
                event if done(&event) => return Ok(()),
                _ => {}
            },
            Some(Notice::Stopped(error) | Notice::Disconnected(error)) => {
                return Err(error.into());
            }
            Some(_) => {}
            None => return Err(ClientError::Closed.into()),
        }
    }
}

/// Changes the nickname.
///
/// # Errors
/// The name, or the relay.
pub(super) async fn nick(context: &Context, args: &NickArgs) -> Result<(), CommandError> {
    let nickname = super::join::parse_nickname(&args.name)?;
    let mut online = Online::connect(context, Reconnect::Never).await?;
    online.client.rename(nickname.clone()).await?;
    outcome(&mut online, |event| matches!(event, Event::Renamed(_))).await?;
    online.finish().await?;
    context.output.say(&format!("You are now {}.", render::name(nickname.as_str())))
}

/// Deletes the account at the relay, then the profile.
///
/// # Errors
/// The relay's; the profile stays then.
pub(super) async fn delete(context: &Context, args: &DeleteArgs) -> Result<(), CommandError> {
    let store = context.open_store()?;
    if query::profile(&store)?.registration == Registration::Revoked {
        // The account is not ours to delete any more.
        let question = "Delete what is left of your account on this device, for good?";
        if !args.yes && !context.prompt.confirm(question, "--yes")? {
            return Err(CommandError::interrupted());
        }
        store.destroy()?;
        return context.output.say("What was here is gone. The account itself is not touched.");
    }
    let question = "Delete your account and everything in this profile, for good?";
    if !args.yes && !context.prompt.confirm(question, "--yes")? {
        return Err(CommandError::interrupted());
    }
    let mut online = Online::with_store(context, store, Reconnect::Never).await?;
    online.client.close_account().await?;
    outcome(&mut online, |event| matches!(event, Event::AccountClosed)).await?;
    online.close().await;
    context.open_store()?.destroy()?;
    context.output.say("The account and its profile are gone.")
}
