//! One command's time with the relay.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use chatcore::engine::ContactView;
use chatcore::ids::Conversation;
use chatcore::net::{Client, ClientError, Events, Notice, Reconnect};
use chatcore::trust::Trust;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;

use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::sending::{ANSWERS_WITHIN, SendingArgs};
use chatcore::profile::ProfileStore;

/// How long the way out may take after something was sent.
const LEAVING: Duration = Duration::from_secs(15);

/// A connected profile, ours alone or shared with whoever opened it.
#[derive(Debug)]
pub(crate) struct Online {
    pub(crate) client: Arc<Client>,
    pub(crate) notices: Notices,
    /// Why there was no connection when it was opened to send.
    pub(crate) away: Option<ClientError>,
}

/// Notices of the client.
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
            return Ok(Self { client: session.client.clone(), notices, away: None });
        }
        Self::with_store(context, context.open_store()?, reconnect).await
    }

    /// As [`Self::connect`], to send something: without the relay, what is sent is kept for later, unless that is not
    /// wanted.
    pub(crate) async fn to_send(
        context: &Context,
        sending: &SendingArgs,
    ) -> Result<Self, CommandError> {
        if sending.no_queue {
            return Self::connect(context, Reconnect::Never).await;
        }
        let (mut online, result) = match &context.session {
            Some(session) => {
                let notices = Notices::Shared(session.listen());
                let online = Self { client: session.client.clone(), notices, away: None };
                let result = session.online().await;
                (online, result)
            }
            None => {
                let online = Self::open(context, context.open_store()?, Reconnect::Unseen)?;
                let result = online.client.online().await;
                (online, result)
            }
        };
        match result {
            Ok(()) => Ok(online),
            Err(error) if is_for_now(&error) => {
                online.away = Some(error);
                Ok(online)
            }
            Err(error) => {
                online.close().await;
                Err(error.into())
            }
        }
    }

    fn open(
        context: &Context,
        store: ProfileStore,
        reconnect: Reconnect,
    ) -> Result<Self, CommandError> {
        let (client, events) = Client::open(store, context.options(reconnect))?;
        Ok(Self { client: Arc::new(client), notices: Notices::Own(events), away: None })
    }

    /// Connects a profile that is open already: nobody is asked for a passphrase twice.
    pub(crate) async fn with_store(
        context: &Context,
        store: ProfileStore,
        reconnect: Reconnect,
    ) -> Result<Self, CommandError> {
        let online = Self::open(context, store, reconnect)?;
        match online.client.online().await {
            Ok(()) => Ok(online),
            Err(error) => {
                // The profile is free again when this returns.
                online.close().await;
                Err(error.into())
            }
        }
    }

    /// Waits until what came while we were away was taken in, if the relay is there and goes on.
    pub(crate) async fn catch_up(&self) {
        if self.away.is_none() {
            let _late = tokio::time::timeout(ANSWERS_WITHIN, self.client.settle()).await;
        }
    }

    /// Finds whom or what a name means, in a time in which a relay answers.
    pub(crate) async fn find(&self, who: &str) -> Result<Conversation, CommandError> {
        let found = tokio::time::timeout(ANSWERS_WITHIN, self.client.conversation(who)).await;
        let late = || CommandError::new(ExitCode::RelayUnreachable, "the relay does not answer");
        Ok(found.map_err(|_| late().hint("nothing was sent; repeat the command"))??)
    }

    /// After something was sent: does what is due if the relay is there, and disconnects. The message is kept,
    /// whatever becomes of this.
    pub(crate) async fn finish_sending(self) {
        if let Notices::Shared(_) = self.notices {
            return;
        }
        if self.away.is_none() {
            // What is not done now is done the next time.
            let _later = tokio::time::timeout(LEAVING, self.client.settle()).await;
        }
        self.close().await;
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

/// Tells whether the relay may take later what it does not take now.
pub(crate) fn is_for_now(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(_) => !error.is_final(),
        error => error.is_unreachable(),
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
