//! The handle that a program holds.

use std::path::PathBuf;
use std::thread;

use tokio::sync::{mpsc, oneshot, watch};

use super::connection::Connection;
use super::dial::Proxy;
use super::error::ClientError;
use super::op::{Asked, Op};
use super::{driver, now, os_rng};
use crate::addresses::RelayAddress;
use crate::crypto::DhSecret;
use crate::engine::backup::{Changed, Restore, Restored};
use crate::engine::query::Requests;
use crate::engine::{
    Command, ContactView, Context, EngineError, Event, FileKind, HistoryView, MAX_INLINE,
    MessageStatus, NewProfile, ProfileView, ProgramName, Reader, Rejoin, query,
};
use crate::ids::{Conversation, MessageId, UserId};
use crate::keys::{Nickname, RelayKey};
use crate::store::{ApplyChanges, Changes, Store, StoreError, Value};
use crate::wire::limits::MAX_ROOM_INLINE;
use crate::wire::relay::{Answer, Request};

/// Behaviour of a client when a connection can't be made or breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reconnect {
    /// Tells so and ends.
    Never,
    /// Tries again, later each time, as long as it is open, and nobody sees that we are here: for who only sends.
    Unseen,
    /// Tries again, later each time, for ever: a program that stays. While it is connected, contacts
    /// may see that we are here, unless [`Visibility::Hidden`](crate::engine::Visibility) was chosen.
    Always,
}

/// How a client behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// After a broken connection.
    pub reconnect: Reconnect,
    /// Folder of the profile for sealed copies of files that wait for the relay; without one
    /// [`Client::queue_file_to`] is refused.
    pub spool: Option<PathBuf>,
    /// Through which the relay is reached; without one it is reached directly.
    pub proxy: Option<Proxy>,
}

impl Options {
    /// Without a spool and a proxy.
    #[must_use]
    pub const fn new(reconnect: Reconnect) -> Self {
        Self { reconnect, spool: None, proxy: None }
    }

    /// With a folder that is for this profile alone.
    #[must_use]
    pub fn with_spool(self, folder: PathBuf) -> Self {
        Self { spool: Some(folder), ..self }
    }

    /// With a proxy through which the relay is reached.
    #[must_use]
    pub fn with_proxy(self, proxy: Option<Proxy>) -> Self {
        Self { proxy, ..self }
    }
}

/// News of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    /// Something happened in a conversation or account.
    Event(Box<Event>),
    /// The connection is gone; a new one is tried, unless [`Reconnect::Never`] was chosen.
    Disconnected(ClientError),
    /// The client stopped; nothing follows.
    Stopped(ClientError),
}

/// The stream of what happens; bounded: a slow reader slows the relay down, and loses nothing.
#[derive(Debug)]
pub struct Events {
    notices: mpsc::Receiver<Notice>,
    pulse: watch::Sender<Pulse>,
}

impl Events {
    /// Waits for the next notice; `None` when the client is closed.
    pub async fn next(&mut self) -> Option<Notice> {
        let notice = self.notices.recv().await;
        if let Some(notice) = &notice {
            self.pulse.send_modify(|pulse| pulse.note(notice));
        }
        notice
    }
}

/// Wake-up of subscribers; the events themselves stand in the journal.
#[derive(Debug, Clone, Default)]
pub(super) struct Pulse {
    /// How often a long text may have become due to be fetched.
    pub(super) texts: u64,
    /// Why the client ended.
    pub(super) stopped: Option<ClientError>,
}

impl Pulse {
    fn note(&mut self, notice: &Notice) {
        match notice {
            Notice::Stopped(error) => self.stopped = Some(*error),
            Notice::Event(event) => {
                let is_long_text = matches!(**event, Event::File { kind: FileKind::LongText, .. });
                if is_long_text || matches!(**event, Event::Connected { .. }) {
                    self.texts += 1;
                }
            }
            Notice::Disconnected(_) => {}
        }
    }
}

/// A profile that is connected, or tries to be.
#[derive(Debug)]
pub struct Client {
    ops: mpsc::Sender<Op>,
    pub(super) spool: Option<PathBuf>,
    /// Wake-ups of subscribers.
    pub(super) pulse: watch::Receiver<Pulse>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Bytes of a backup's rows written in one transaction, and held until then.
const RESTORED_AT_ONCE: usize = 1 << 20;
/// Notices that wait for a slow reader.
const NOTICES: usize = 1_024;

impl Client {
    /// Makes the keys of a new profile and stores them; nothing is sent.
    ///
    /// # Errors
    /// [`ClientError::Engine`] when the store fails.
    pub fn create_profile(
        store: &mut dyn ApplyChanges,
        profile: NewProfile,
    ) -> Result<(), ClientError> {
        let mut rng = os_rng();
        let mut context = Context { store: &*store, now: now(), rng: &mut rng };
        let step = profile.create(&mut context)?;
        Ok(store.apply(&step.changes)?)
    }

    /// Makes a profile of an empty store and the rows of a backup, on a new device; nothing is sent.
    ///
    /// # Errors
    /// Those of `rows`; [`ClientError::Engine`] when they are no backup or the store fails: what was
    /// written until then is of no use.
    pub fn restore<E: From<ClientError>>(
        store: &mut dyn ApplyChanges,
        rows: impl IntoIterator<Item = Result<Value, E>>,
        changed: Changed,
    ) -> Result<Restored, E> {
        let (mut restore, mut changes, mut size) = (Restore::default(), Changes::default(), 0);
        for row in rows {
            let row = row?;
            restore.take(&row, &mut changes).map_err(ClientError::from)?;
            size += row.len();
            if size >= RESTORED_AT_ONCE {
                store.apply(&std::mem::take(&mut changes)).map_err(ClientError::from)?;
                size = 0;
            }
        }
        store.apply(&changes).map_err(ClientError::from)?;
        let mut rng = os_rng();
        let mut context = Context { store: &*store, now: now(), rng: &mut rng };
        let (restored, step) = restore.finish(&mut context, changed).map_err(ClientError::from)?;
        store.apply(&step.changes).map_err(ClientError::from)?;
        Ok(restored)
    }

    /// Connects to a relay, has it prove its key, and goes again: whether there is a relay at `address` (`HOST:PORT`) is
    /// known before a profile is made for it.
    ///
    /// # Errors
    /// [`ClientError`] when the address can't be reached, or another relay is there.
    pub async fn probe(
        relay: &RelayKey,
        address: String,
        proxy: Option<&Proxy>,
    ) -> Result<(), ClientError> {
        let unknown = DhSecret::generate(&mut os_rng());
        Connection::probe((&RelayAddress::given(address), proxy), relay, &unknown).await
    }

    /// Uses a link again on a profile that exists: its address may have changed.
    ///
    /// # Errors
    /// [`EngineError::OtherRelay`], [`EngineError::AlreadyNamed`], or when the store fails.
    pub fn rejoin(store: &mut dyn ApplyChanges, rejoin: Rejoin) -> Result<(), ClientError> {
        let mut rng = os_rng();
        let mut context = Context { store: &*store, now: now(), rng: &mut rng };
        let step = rejoin.apply(&mut context)?;
        Ok(store.apply(&step.changes)?)
    }

    /// Starts a client on a profile; it connects in the background.
    ///
    /// # Errors
    /// [`ClientError::Engine`] when the store does not hold a profile.
    pub fn open(
        store: impl ApplyChanges + Send + 'static,
        options: Options,
    ) -> Result<(Self, Events), ClientError> {
        Self::start(Box::new(store), options)
    }

    pub(super) fn start(
        store: Box<dyn ApplyChanges + Send>,
        options: Options,
    ) -> Result<(Self, Events), ClientError> {
        query::profile(&*store)?;
        let (pulse, beats) = watch::channel(Pulse::default());
        let (ops, ops_receiver) = mpsc::channel(64);
        let (notices, notices_receiver) = mpsc::channel(NOTICES);
        let spool = options.spool.clone();
        let thread = thread::Builder::new()
            .name("chat-client".to_owned())
            .spawn(move || driver::run(store, options, ops_receiver, notices))
            .map_err(|e| ClientError::Engine(EngineError::Store(StoreError::Io(e.kind()))))?;
        let client = Self { ops, spool, pulse: beats, thread: Some(thread) };
        Ok((client, Events { notices: notices_receiver, pulse }))
    }

    async fn call<T>(
        &self,
        op: impl FnOnce(oneshot::Sender<Result<T, ClientError>>) -> Op,
    ) -> Result<T, ClientError> {
        let (reply, answer) = oneshot::channel();
        self.ops.send(op(reply)).await.map_err(|_| ClientError::Closed)?;
        answer.await.map_err(|_| ClientError::Closed)?
    }

    /// Carries out a command; returns when its changes are durable.
    ///
    /// # Errors
    /// [`ClientError`].
    pub(super) async fn command(&self, command: Command) -> Result<(), ClientError> {
        self.call(|reply| Op::Command { command, reply }).await
    }

    /// As every act above it, of any command: tests say with it what no program of ours says.
    ///
    /// # Errors
    /// [`ClientError`].
    #[doc(hidden)]
    pub async fn command_for_testing_only(&self, command: Command) -> Result<(), ClientError> {
        self.command(command).await
    }

    /// Waits until the relay knows us.
    ///
    /// # Errors
    /// [`ClientError`] when a connection can't be made.
    pub async fn online(&self) -> Result<(), ClientError> {
        self.call(|reply| Op::Online { reply }).await
    }

    /// Sends a request of a file transfer; the receiver gets the answer.
    pub(super) async fn request(
        &self,
        request: Request,
    ) -> Result<oneshot::Receiver<Result<Answer, ClientError>>, ClientError> {
        let (reply, answer) = oneshot::channel();
        let op = Op::Request { request, reply };
        self.ops.send(op).await.map_err(|_| ClientError::Closed)?;
        Ok(answer)
    }

    /// Finds who is meant by a name: a contact first, else the relay's directory.
    ///
    /// # Errors
    /// [`ClientError::Lookup`].
    pub async fn lookup(&self, name: &str) -> Result<UserId, ClientError> {
        let name = name.to_owned();
        self.ask(Asked::Lookup, move |ticket| Command::Lookup { ticket, name }).await
    }

    /// Carries out a command, and waits for what answers it.
    pub(super) async fn ask<T>(
        &self,
        asked: impl FnOnce(oneshot::Sender<Result<T, ClientError>>) -> Asked,
        command: impl FnOnce(u64) -> Command + Send + 'static,
    ) -> Result<T, ClientError> {
        let command = Box::new(command);
        self.call(|reply| Op::Ask { command, asked: asked(reply) }).await
    }

    /// Queues a text to a person or, as `#name`, to a room, durably; [`Event::AtRelay`] and [`Event::Receipt`] tell how far it came.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_text(&self, who: &str, text: &str) -> Result<MessageId, ClientError> {
        let to = self.conversation(who).await?;
        self.send_text_to(to, text).await
    }

    /// As [`Self::send_text`], to a person or room that is known.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send_text_to(
        &self,
        to: Conversation,
        text: &str,
    ) -> Result<MessageId, ClientError> {
        let message = MessageId::generate(&mut os_rng());
        self.send_text_as(message, to, text).await?;
        Ok(message)
    }

    /// As [`Self::send_text_to`], under an id of one's own: to say the same again is no second message, whatever
    /// became of the first.
    ///
    /// # Errors
    /// [`ClientError`]; [`EngineError::IdInUse`] if another message has the id.
    pub async fn send_text_as(
        &self,
        message: MessageId,
        to: Conversation,
        text: &str,
    ) -> Result<(), ClientError> {
        let most = match to {
            Conversation::User(_) => MAX_INLINE,
            Conversation::Room(_) => MAX_ROOM_INLINE,
        };
        if text.len() > most {
            return self.send_long_text(to, message, text).await;
        }
        let text = text.to_owned();
        self.command(match to {
            Conversation::User(to) => Command::SendText { to, message, text },
            Conversation::Room(room) => Command::SendRoomText { room, message, text },
        })
        .await
    }

    /// Returns how far a message of ours came; `None` for one that is not there.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn status(
        &self,
        to: Conversation,
        message: MessageId,
    ) -> Result<Option<MessageStatus>, ClientError> {
        self.look(move |store| query::status(store, to, &message)).await
    }

    /// Changes the nickname; [`Event::Renamed`] tells when it is done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rename(&self, nickname: Nickname) -> Result<(), ClientError> {
        self.command(Command::Rename(nickname)).await
    }

    /// Waits until all that waited at the relay was received, and all that was to be sent was
    /// answered, receipts included.
    ///
    /// # Errors
    /// [`ClientError`] when the connection can't be made or breaks before.
    pub async fn settle(&self) -> Result<(), ClientError> {
        self.call(|reply| Op::Settle { reply }).await
    }

    pub(super) async fn look<T: Send + 'static>(
        &self,
        look: impl FnOnce(&dyn Store) -> Result<T, EngineError> + Send + 'static,
    ) -> Result<T, ClientError> {
        self.call(|reply| {
            Op::Look(Box::new(move |store| {
                // Whoever asked may have gone.
                let _gone = reply.send(look(store).map_err(ClientError::Engine));
            }))
        })
        .await
    }

    /// Returns who we are.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn profile(&self) -> Result<ProfileView, ClientError> {
        self.look(|store| query::profile(store)).await
    }

    /// Returns everyone we know.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn contacts(&self) -> Result<Vec<ContactView>, ClientError> {
        self.look(|store| query::contacts(store)).await
    }

    /// Returns who asks to write to us, and who can't for want of a place.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn requests(&self) -> Result<Requests, ClientError> {
        self.look(|store| query::requests(store)).await
    }

    /// Returns which contacts are here and let us see it, each once.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn online_contacts(&self) -> Result<Vec<UserId>, ClientError> {
        self.ask(Asked::Presence, |ticket| Command::QueryPresence { ticket }).await
    }

    /// Returns the last messages with a user or in a room, oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn history(
        &self,
        conversation: Conversation,
        limit: usize,
    ) -> Result<Vec<HistoryView>, ClientError> {
        self.look(move |store| query::history(store, conversation, limit)).await
    }

    /// Returns what was not shown yet, oldest first; [`Self::shown`] takes it off the list.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn journal(&self, limit: usize) -> Result<Vec<(u64, Option<Event>)>, ClientError> {
        self.look(move |store| query::journal(store, &Reader::Person, limit)).await
    }

    /// Returns what a program that follows does not have yet, oldest first; it takes it off its list
    /// with [`Command::Acknowledge`].
    ///
    /// # Errors
    /// [`EngineError::NotFollowing`].
    pub async fn journal_of(
        &self,
        program: ProgramName,
        limit: usize,
    ) -> Result<Vec<(u64, Option<Event>)>, ClientError> {
        let reader = Reader::Program(program);
        self.look(move |store| query::journal(store, &reader, limit)).await
    }

    /// Says that everything up to a number of the journal was shown.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn shown(&self, up_to: u64) -> Result<(), ClientError> {
        self.command(Command::Shown(up_to)).await
    }

    /// Returns the newest things that the program kept under a name, oldest first.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn kept(
        &self,
        name: &'static str,
        limit: usize,
    ) -> Result<Vec<(u64, Value)>, ClientError> {
        self.look(move |store| query::kept(store, name, limit)).await
    }

    /// Stops the client: what was queued on the connection is written, the store is closed.
    pub async fn close(mut self) {
        let _closed = self.ops.send(Op::Close).await;
        if let Some(thread) = self.thread.take() {
            let _joined = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}
