//! One command's time with the relay.

use std::future::Future;
use std::sync::Arc;

use chatcore::engine::{ContactView, Event};
use chatcore::ids::MessageId;
use chatcore::net::{Client, ClientError, Events, Notice, Options, Reconnect};
use chatcore::trust::Trust;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::store::RedbStore;

/// A connected profile, ours alone or shared with whoever opened it.
#[derive(Debug)]
pub(crate) struct Online {
    pub(crate) client: Arc<Client>,
    pub(crate) notices: Notices,
}

/// What the client tells.
#[derive(Debug)]
pub(crate) enum Notices {
    Own(Events),
    Shared(broadcast::Receiver<Notice>),
}

impl Notices {
    /// Waits for the next; `None` when the client is closed.
    pub(crate) async fn next(&mut self) -> Option<Notice> {
        match self {
            Self::Own(events) => events.next().await,
            Self::Shared(told) => loop {
                match told.recv().await {
                    Ok(notice) => return Some(notice),
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return None,
                }
            },
        }
    }
}

impl Online {
    /// Opens the profile and connects, or uses the client that has it open.
    pub(crate) async fn connect(
        context: &Context,
        reconnect: Reconnect,
    ) -> Result<Self, CommandError> {
        if let Some(session) = &context.session {
            let notices = Notices::Shared(session.listen());
            session.online().await?;
            return Ok(Self { client: session.client.clone(), notices });
        }
        Self::with_store(context.open_store()?, reconnect).await
    }

    /// Connects a profile that is open already: nobody is asked for a passphrase twice.
    pub(crate) async fn with_store(
        store: RedbStore,
        reconnect: Reconnect,
    ) -> Result<Self, CommandError> {
        let (client, events) = Client::open(store, Options { reconnect })?;
        let online = Self { client: Arc::new(client), notices: Notices::Own(events) };
        match online.client.online().await {
            Ok(()) => Ok(online),
            Err(error) => {
                // The profile is free again when this returns.
                online.close().await;
                Err(error.into())
            }
        }
    }

    /// Does all that is due, so that the next command finds nothing left over, and disconnects.
    pub(crate) async fn finish(self) -> Result<(), CommandError> {
        if let Notices::Shared(_) = self.notices {
            return Ok(());
        }
        let settled = self.client.settle().await;
        self.close().await;
        settled.map_err(CommandError::from)
    }

    /// Disconnects and gives the profile back, if it is ours.
    pub(crate) async fn close(self) {
        if let (Notices::Own(mut events), Some(client)) =
            (self.notices, Arc::into_inner(self.client))
        {
            let drain = async { while events.next().await.is_some() {} };
            tokio::join!(client.close(), drain);
        }
    }

    /// Waits until the relay has a message, or says why not.
    pub(crate) async fn at_relay(&mut self, wanted: MessageId) -> Result<(), CommandError> {
        loop {
            match self.notices.next().await {
                Some(Notice::Event(event)) => match *event {
                    Event::AtRelay { message } if message == wanted => return Ok(()),
                    // A fast recipient's receipt may come before the relay's own answer.
                    Event::Receipt { message, .. } if message == wanted => return Ok(()),
                    Event::Delayed { message, code } if message == wanted => {
                        return Err(CommandError::refused(code));
                    }
                    Event::NotSentToRoom { message, .. } if message == wanted => {
                        let what = "you may not write to that room any more";
                        return Err(CommandError::new(ExitCode::Refused, what));
                    }
                    _ => {}
                },
                Some(Notice::Stopped(error) | Notice::Disconnected(error)) => {
                    let kept = "it is kept, and sent when the relay is there again";
                    return Err(CommandError::from(error).hint(kept));
                }
                Some(_) => {}
                None => return Err(ClientError::Closed.into()),
            }
        }
    }

    /// Finds a person by name.
    pub(crate) async fn contact(&self, name: &str) -> Result<ContactView, CommandError> {
        contact(&self.client, name).await
    }

    /// Refuses a person whose safety number was not compared.
    pub(crate) async fn require_verified(&self, name: &str) -> Result<(), CommandError> {
        if name.starts_with('#') {
            return self.require_verified_room(name).await;
        }
        let contact = self.contact(name).await?;
        if contact.trust == Trust::Verified {
            return Ok(());
        }
        Err(CommandError::new(ExitCode::Identity, "you have not verified them")
            .hint(format_args!("compare first: chat verify {}", contact.nickname)))
    }
}

impl Online {
    /// Refuses a room with anybody whose safety number was not compared.
    async fn require_verified_room(&self, name: &str) -> Result<(), CommandError> {
        let id = self.client.find_room(name).await?;
        self.client.refresh_roster(id).await?;
        let own = self.client.profile().await?.user;
        let roster = self.client.room(id).await?.roster;
        let others = roster.iter().filter(|member| member.user != own);
        let unverified = others.filter(|member| member.trust != Trust::Verified).count();
        if unverified == 0 {
            return Ok(());
        }
        let what = format_args!("you have not verified {unverified} of the members");
        Err(CommandError::new(ExitCode::Identity, what).hint("compare first: chat verify NAME"))
    }
}

/// Finds a person by name.
///
/// # Errors
/// The name leads nowhere, or to ourselves.
pub(crate) async fn contact(client: &Client, name: &str) -> Result<ContactView, CommandError> {
    let user = client.lookup(name).await?;
    let contacts = client.contacts().await?;
    let found = contacts.into_iter().find(|contact| contact.user == user);
    found.ok_or_else(|| {
        CommandError::new(ExitCode::Usage, "that is yourself").hint("choose somebody else")
    })
}

/// Runs asynchronous work until it is done or the person presses Ctrl-C.
pub(crate) fn block_on<T>(
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    serve(async {
        tokio::select! {
            result = work => result,
            _ = tokio::signal::ctrl_c() => Err(CommandError::interrupted()),
        }
    })
}

/// Runs asynchronous work that handles Ctrl-C itself.
pub(crate) fn serve<T>(
    work: impl Future<Output = Result<T, CommandError>>,
) -> Result<T, CommandError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| CommandError::new(ExitCode::Other, error))?;
    let done = runtime.block_on(work);
    // A read of standard input that nobody waits for any more would hold the process up.
    runtime.shutdown_background();
    done
}
