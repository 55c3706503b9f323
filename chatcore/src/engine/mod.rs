//! The engine: commands, frames and time go in; changes, frames and events come out.
//!
//! ```text
//! handle_command ─┐                       ┌─▶ changes   saved first, in one durable transaction
//! handle_frame   ─┼─▶ Engine ──▶ Step ────┼─▶ frames    sent next
//! handle_timeout ─┘                       └─▶ events    shown last
//! ```
//! It only routes: what a session, a record or a file may do is decided in their own modules, and what one of them
//! leaves to another goes through `follow_ups`. It holds nothing that must survive: after a crash a new engine goes on
//! from the store alone. When saving a step fails, the engine is dropped with it.
//!
//! # Driving the engine yourself
//!
//! `net` is one driver; `examples/driver.rs` is another, without tokio, over pipes in memory. A driver
//!
//! 1. makes a profile ([`NewProfile::create`]) and saves it, or opens a store that has one ([`query::has_profile`]);
//! 2. connects to one of [`ProfileView::addresses`], and shakes hands as [`ClientHandshake`](crate::noise::ClientHandshake)
//!    with [`ProfileView::relay`] and [`query::link_key`], the frame of [`Engine::first_request`] inside the third record;
//! 3. hands in each frame that comes, each command of a person, and the time whenever [`Engine::poll_timeout`] is over,
//!    one after the other, and does with each [`Step`] what stands above, in that order;
//! 4. says [`Engine::disconnected`] when the connection ends, and comes again at 2;
//! 5. drops the engine when saving fails, or when it returns [`EngineError::RelayMisbehaved`] the connection.
//!
//! Requests of its own, such as those of file transfers, have ids from [`DRIVER_REQUESTS`] on; answers to them are not for
//! the engine. Blobs that wait are named by [`Engine::next_upload`]; [`Command::Uploaded`] and its like say what became
//! of them, and [`spooled`] which sealed copies are still needed.

mod account;
mod alarms;
pub mod backup;
mod clock;
mod command;
mod contacts;
pub(crate) mod copy;
pub(crate) mod devices;
mod error;
mod event;
mod fate;
mod files;
mod follow_ups;
mod inbound;
mod incoming;
mod journal;
mod message;
mod outbound;
mod outbox;
mod presence;
pub mod query;
pub(crate) mod readers;
mod receipts;
pub(crate) mod registration;
mod requests;
pub(crate) mod rooms;
mod sealing;
pub(crate) mod sequence;
pub(crate) mod sessions;
mod step;
mod strangers;
mod transaction;
mod transfers;
mod uploads;

pub use account::{NewProfile, Rejoin};
pub use command::Command;
pub use error::EngineError;
pub use event::{Event, LookupError};
pub use files::Upload;
pub use message::{Acquaintance, Message, Sender};
pub use query::{ContactView, HistoryView, ProfileView, Registration};
pub use readers::Reader;
pub use requests::DRIVER_REQUESTS;
pub use rooms::{NewRoom, RefusedBecause, RoomFailure, RoomMemberView, RoomRef, RoomView};
pub use sealing::MAX_INLINE;
pub use step::{Context, Step};
pub use strangers::{MAX_REQUESTS, PersonWaiting};
pub use uploads::{NextUpload, is_for_ever, spooled};

pub use crate::file::FileKind;
pub use crate::store::rows::{
    BadProgramName, ContactStanding, Direction, FetchFailure, Lobby, MessageStatus, ProgramName,
    QueuedUpload, RoomStanding, UploadSource, Visibility, Wanted,
};

use contacts::Directory;
use devices::DeviceUpdates;
use follow_ups::{Tell, Turned};
use outbox::{Outbox, Overdue};
use presence::Presence;
use receipts::{Flush, Receipts};
use requests::{Asker, Link, Pending, Requests};
use rooms::Rooms;
use sessions::Sessions;
use strangers::Strangers;
use transaction::Transaction;
use uploads::Uploads;

use crate::ids::{BlobId, Conversation, Timestamp, UserId};
use crate::keys::Signed;
use crate::store::Store;
use crate::store::row::ReadRows;
use crate::store::rows::{Clock, Contact, Payload};
use crate::wire::content::Body;
use crate::wire::relay::{Answer, ErrorCode, Failure, RelayFrame};

/// The protocol state of one device that is not in its store.
#[derive(Debug)]
pub struct Engine {
    link: Link,
    requests: Requests,
    /// Envelopes that waited at login and have not come yet.
    undelivered: u64,
    unknown_tags: u64,
    /// Prekeys that the relay did not take now.
    refused_prekeys: Vec<Signed>,
    outbox: Outbox,
    sessions: Sessions,
    receipts: Receipts,
    directory: Directory,
    devices: DeviceUpdates,
    presence: Presence,
    strangers: Strangers,
    uploads: Uploads,
    rooms: Rooms,
    clock: Clock,
}

impl Engine {
    /// Begins with what the store holds.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn new(context: &mut Context<'_>) -> Result<Self, EngineError> {
        let tx = Transaction::new(context);
        let (mut receipts, mut devices) = (Receipts::default(), DeviceUpdates::default());
        for contact in tx.all::<Contact>()? {
            receipts.find(&contact, tx.now);
            devices.find(&contact);
        }
        Ok(Self {
            link: Link::Offline,
            requests: Requests::default(),
            undelivered: 0,
            unknown_tags: 0,
            refused_prekeys: Vec::new(),
            outbox: Outbox::default(),
            sessions: Sessions::default(),
            receipts,
            directory: Directory::default(),
            devices,
            presence: Presence::default(),
            strangers: Strangers::default(),
            uploads: Uploads::default(),
            rooms: Rooms::default(),
            clock: tx.profile().map(|profile| profile.clock).unwrap_or_default(),
        })
    }

    /// Begins a step.
    fn begin<'c, 'a>(&mut self, context: &'c mut Context<'a>) -> Transaction<'c, 'a> {
        let mut tx = Transaction::new(context);
        tx.settled = self.clock.step(tx.now);
        tx.set_link(self.link);
        tx
    }

    /// Ends a step, once everything is done that it leaves to others.
    fn finish(&mut self, mut tx: Transaction<'_, '_>) -> Result<Step, EngineError> {
        self.follow_all(&mut tx)?;
        self.presence.note(&tx);
        journal::write_down(&mut tx)?;
        self.link = tx.link();
        Ok(tx.finish(&mut self.requests))
    }

    /// Does what was left to others, and what that leaves.
    fn follow_all(&mut self, tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
        while !tx.follow.is_empty() {
            self.follow_up(tx)?;
        }
        Ok(())
    }

    /// Does what was left to others; that may leave more.
    fn follow_up(&mut self, tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
        let follow = std::mem::take(&mut tx.follow);
        self.receipts.take_due(follow.receipts);
        self.devices.take_owed(follow.profiles);
        for (device, version) in follow.told {
            self.devices.told(tx, device, version)?;
        }
        for Turned { user, name, wanted } in follow.turned_away {
            strangers::note_unplaced(tx, &mut self.rooms, user, &name, wanted)?;
        }
        for room in &follow.read_rooms {
            self.strangers.ask_for_kept_of(tx, &mut self.rooms, room)?;
        }
        for (room, message) in follow.lost {
            self.rooms.lose_unsent(tx, &room, message)?;
        }
        if !follow.rooms.is_empty() {
            self.rooms.go_on(tx, follow.rooms)?;
        }
        for device in follow.renew {
            outbox::reset(tx, device)?;
        }
        for device in follow.renewed {
            outbox::announce_reset(tx, device)?;
        }
        let (outbox, rooms) = (&mut self.outbox, &mut self.rooms);
        let mut judge = |tx: &Transaction<'_, '_>, user: &UserId, payload: &Payload| {
            rooms.judge_late(tx, user, payload)
        };
        outbox.take_placed(tx, follow.placed, &follow.paired, &mut judge)?;
        for user in &follow.seal {
            outbox.drive(tx, user, &mut judge)?;
        }
        for device in &follow.paired {
            outbox.paired(tx, device, &mut judge)?;
        }
        for (device, code) in follow.delayed {
            outbox.delay(tx, &device, code)?;
        }
        if follow.tell == Some(Tell::Everybody) {
            self.devices.owe_everybody(tx, &mut self.rooms)?;
        }
        if follow.tell.is_some() {
            self.devices.tell_owed(tx, &mut self.rooms)?;
        }
        // Behind our record, which is receipted as the first content alone.
        for device in &follow.paired {
            self.rooms.paired(tx, &device.user)?;
        }
        for (name, user) in follow.claimed_names {
            self.directory.ask(tx, name.as_str(), Asker::Own(user));
        }
        for user in follow.refresh {
            self.directory.refresh_if_old(tx, user);
        }
        self.sessions.claim(tx, follow.claim);
        Ok(())
    }

    /// Stores what is known of the clock, if it is much more than what is stored.
    fn save_clock(&self, tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
        let mut profile = tx.profile()?;
        if self.clock.is_worth_saving(&profile.clock) {
            profile.clock = self.clock;
            tx.put(&profile);
        }
        Ok(())
    }

    /// Carries out a command.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn handle_command(
        &mut self,
        context: &mut Context<'_>,
        command: Command,
    ) -> Result<Step, EngineError> {
        let step = self.carry_out(context, command);
        if step.is_err() {
            self.rooms.step_failed();
        }
        step
    }

    fn carry_out(
        &mut self,
        context: &mut Context<'_>,
        command: Command,
    ) -> Result<Step, EngineError> {
        let mut tx = self.begin(context);
        match command {
            Command::Lookup { ticket, name } => self.directory.look_up(&mut tx, ticket, name)?,
            Command::SendText { to, message, text } => {
                let place = (Conversation::User(to), message);
                self.send_once(&mut tx, place, (Body::Text(text), None), None)?;
            }
            Command::SaveUpload(upload) => files::save_upload(&mut tx, upload),
            Command::DropUpload(blob) => files::drop_upload(&mut tx, &blob)?,
            Command::SendFile { to, message, manifest, upload } => {
                self.send_once(&mut tx, (to, message), (Body::File(manifest), None), upload)?;
            }
            Command::SendLongText { to, message, manifest, text, upload } => {
                let bodies = (Body::LongText(manifest), Some(Body::Text(text)));
                self.send_once(&mut tx, (to, message), bodies, upload)?;
            }
            Command::SendRoomText { room, message, text } => {
                let place = (Conversation::Room(room), message);
                self.send_once(&mut tx, place, (Body::Text(text), None), None)?;
            }
            Command::Uploaded(blob) => self.uploads.uploaded(&mut tx, blob)?,
            Command::UploadRefused { blob, failure } => {
                self.uploads.upload_refused(&mut tx, blob, failure)?;
            }
            Command::UploadLost(blob) => self.uploads.upload_lost(&mut tx, blob)?,
            Command::CreateRoom { ticket, room } => {
                self.rooms.create_room(&mut tx, ticket, room)?
            }
            Command::JoinRoom { ticket, room } => self.rooms.join_room(&mut tx, ticket, room)?,
            Command::LeaveRoom { ticket, room } => self.rooms.leave_room(&mut tx, ticket, room)?,
            Command::ActInRoom { ticket, room, act } => {
                self.rooms.act_in_room(&mut tx, ticket, room, act)?;
            }
            Command::SucceedInRoom { ticket, room } => {
                self.rooms.succeed_in_room(&mut tx, ticket, room)?;
            }
            Command::RebuildRoom { ticket, room, name } => {
                self.rooms.rebuild_room(&mut tx, ticket, room, name)?;
            }
            Command::ResumeRoom { ticket, room } => {
                self.rooms.resume_room(&mut tx, ticket, room)?
            }
            Command::ListRooms { ticket } => self.rooms.list_rooms(&mut tx, ticket)?,
            Command::QueryRoomPresence { ticket, room } => {
                self.rooms.query_room_presence(&mut tx, ticket, room)?;
            }
            Command::RefreshRoster { ticket, room } => {
                self.rooms.refresh_roster(&mut tx, ticket, room)?
            }
            Command::DeclineLobby => Rooms::decline_lobby(&mut tx)?,
            Command::Admin { ticket, line, form } => {
                self.rooms.admin(&mut tx, ticket, line, form)?
            }
            Command::LongTextFetched { from, message, text } => {
                files::long_text_fetched(&mut tx, &from, &message, text)?;
            }
            Command::FetchFailed { from, message, failure } => {
                files::fetch_failed(&mut tx, &from, &message, failure)?;
            }
            Command::FetchInto { from, message, folder } => {
                files::fetch_into(&mut tx, &from, &message, folder)?;
            }
            Command::RetryFetch { from, message } => files::retry(&mut tx, &from, &message)?,
            Command::FileSaved { from, message, path } => {
                files::file_saved(&mut tx, &from, &message, path)?;
            }
            Command::Verify(user) => contacts::verify(&mut tx, &user)?,
            Command::AcceptIdentity { known, new } => {
                contacts::accept_identity(&mut tx, &known, &new)?;
            }
            Command::KeepIdentity(user) => contacts::keep_identity(&mut tx, &user)?,
            Command::AcceptRequest(user) => strangers::accept_request(&mut tx, &user)?,
            Command::DeclineRequest(user) => {
                strangers::decline_request(&mut tx, &mut self.rooms, &user)?
            }
            Command::Block(user) => {
                contacts::block(&mut tx, &user)?;
                self.presence.show(&mut tx, &mut self.rooms)?;
            }
            Command::Unblock(user) => contacts::unblock(&mut tx, &user)?,
            Command::Rename(nickname) => account::rename(&mut tx, &self.requests, nickname)?,
            Command::CloseAccount => account::close_account(&mut tx)?,
            Command::Shown(up_to) => readers::acknowledge(&mut tx, &Reader::Person, up_to)?,
            Command::Follow(name) => readers::follow(&mut tx, name)?,
            Command::Unfollow(name) => readers::unfollow(&mut tx, &name)?,
            Command::Acknowledge { program, up_to } => {
                readers::acknowledge(&mut tx, &Reader::Program(program), up_to)?;
            }
            Command::MarkRead { from, messages } => receipts::mark_read(&mut tx, &from, &messages)?,
            Command::Keep { name, number, value } => tx.keep(name, number, value),
            Command::SetVisibility(visibility) => {
                self.presence.set_visibility(&mut tx, &mut self.rooms, visibility)?;
            }
            Command::QueryPresence { ticket } => presence::query(&mut tx, &mut self.rooms, ticket)?,
            Command::FlushReceipts => self.receipts.flush(&mut tx, Flush::Everything)?,
        }
        // A place may be free now.
        self.strangers.ask_for_kept(&mut tx)?;
        self.finish(tx)
    }

    /// Takes in a frame from the relay.
    ///
    /// # Errors
    /// [`EngineError::Store`], or [`EngineError::RelayMisbehaved`] when the connection must end.
    pub fn handle_frame(
        &mut self,
        context: &mut Context<'_>,
        frame: RelayFrame,
    ) -> Result<Step, EngineError> {
        let step = self.take_frame(context, frame);
        if step.is_err() {
            self.rooms.step_failed();
        }
        step
    }

    fn take_frame(
        &mut self,
        context: &mut Context<'_>,
        frame: RelayFrame,
    ) -> Result<Step, EngineError> {
        let mut tx = self.begin(context);
        match frame.answer {
            Answer::Deliver { epoch, envelopes } => self.deliver(&mut tx, epoch, envelopes)?,
            Answer::Closing(reason) => tx.event(Event::Closing(reason)),
            Answer::Pong => {}
            Answer::RoomChanged(room) => self.rooms.room_changed(&mut tx, room)?,
            Answer::Announced(signed) => self.rooms.announced(&mut tx, signed)?,
            answer => {
                let pending = self.requests.answered(frame.request_id);
                self.answered(&mut tx, pending.ok_or(EngineError::RelayMisbehaved)?, answer)?;
            }
        }
        self.finish(tx)
    }

    fn answered(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        pending: Pending,
        answer: Answer,
    ) -> Result<(), EngineError> {
        match (pending, answer) {
            (Pending::Login, Answer::LoggedIn(login)) => {
                if login.address == tx.profile()?.own_address() {
                    self.logged_in(tx, &login)
                } else {
                    registration::mistaken(tx)
                }
            }
            (Pending::Register, Answer::LoggedIn(login)) => self.logged_in(tx, &login),
            (Pending::Register, Answer::Records(records)) => self.superseded(tx, records),
            (Pending::Register, Answer::Failure(failure)) => {
                // Its word alone: it changes nothing of what we signed.
                tx.event(Event::Refused(failure));
                Ok(())
            }
            (Pending::Login, Answer::Failure(failure)) => self.login_refused(tx, failure),
            (Pending::OwnRecords, answer) => account::own_records(tx, answer),
            (Pending::Lookup { name, asker }, answer) => {
                self.directory.looked_up(tx, &name, asker, answer)
            }
            (Pending::Mismatch { name, contact, other, ticket }, answer) => {
                self.directory.mismatch_answered(tx, &name, contact, other, ticket, answer)
            }
            (Pending::Refresh { user, ticket }, answer) => {
                self.directory.refreshed(tx, &user, ticket, answer)
            }
            (Pending::UpdateRecord { hash }, Answer::Done) => account::record_updated(tx, &hash),
            (Pending::UpdateRecord { hash }, Answer::Failure(failure)) => {
                account::record_refused(tx, &hash, failure)
            }
            (Pending::CloseAccount, Answer::Done) => {
                tx.event(Event::AccountClosed);
                Ok(())
            }
            (Pending::CloseAccount, Answer::Failure(failure)) => {
                tx.event(Event::RequestRefused(failure));
                Ok(())
            }
            (Pending::UploadPrekeys(_), Answer::PrekeyStatus { .. }) => Ok(()),
            (Pending::UploadPrekeys(records), Answer::Failure(failure)) => {
                // Without them nobody can write to us first: they go again, the same ones.
                if failure.code != ErrorCode::BadPrekey {
                    self.refused_prekeys = records;
                }
                Ok(())
            }
            (Pending::Claim(devices), Answer::ClaimedPrekeys(prekeys)) => {
                if devices.len() != prekeys.len() {
                    return Err(EngineError::RelayMisbehaved);
                }
                self.sessions.claimed(tx, devices.into_iter().zip(prekeys))
            }
            (Pending::Claim(devices), Answer::Failure(Failure { code, .. })) => {
                self.sessions.claimed(tx, devices.into_iter().map(|d| (d, Err(code))))
            }
            (Pending::Send(sent), Answer::SendResults(results)) => {
                if sent.len() != results.len() {
                    return Err(EngineError::RelayMisbehaved);
                }
                self.outbox.sent(tx, sent.into_iter().zip(results))
            }
            (Pending::Send(sent), Answer::Failure(Failure { code, .. })) => {
                self.outbox.sent(tx, sent.into_iter().map(|s| (s, Err(code))))
            }
            (Pending::Query(asked), Answer::Queued(queued)) => {
                if asked.len() != queued.len() {
                    return Err(EngineError::RelayMisbehaved);
                }
                self.outbox.queried(tx, asked.into_iter().zip(queued))
            }
            (Pending::Presence { ticket, users }, Answer::Presence(online)) => {
                presence::answered(tx, ticket, users, &online)
            }
            (Pending::Presence { ticket, .. }, Answer::Failure(_)) => {
                tx.event(Event::Presence { ticket, online: Vec::new() });
                Ok(())
            }
            (Pending::Room { room, ask }, answer) => self.rooms.answered(tx, room, ask, answer),
            (
                Pending::Query(_)
                | Pending::DeleteBlob
                | Pending::RenewBlob
                | Pending::ShowPresence,
                Answer::Failure(_) | Answer::Done,
            )
            | (Pending::DeliverKept, Answer::Failure(_)) => Ok(()),
            (Pending::DeliverKept, Answer::DeliveringKept { count, left }) => {
                self.undelivered = self.undelivered.saturating_add(count);
                self.strangers.set_kept(left);
                Ok(())
            }
            _ => Err(EngineError::RelayMisbehaved),
        }
    }

    /// Does what is due.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn handle_timeout(&mut self, context: &mut Context<'_>) -> Result<Step, EngineError> {
        let mut tx = self.begin(context);
        if self.link == Link::Online {
            if self.outbox.timer().is_some_and(|timer| timer.is_due(tx.now)) {
                self.save_clock(&mut tx)?;
                let records = std::mem::take(&mut self.refused_prekeys);
                if !records.is_empty() {
                    account::upload(&mut tx, records);
                }
                self.devices.try_again();
                tx.follow.tell(Tell::Untried);
                self.devices.forget_left(&mut tx)?;
                self.outbox.go_through(&mut tx, Overdue::GiveUp)?;
            }
            // They ride on what is sealed.
            self.follow_all(&mut tx)?;
            self.receipts.flush(&mut tx, Flush::Due)?;
            self.sessions.claim_due(&mut tx);
            self.presence.show_if_due(&mut tx, &mut self.rooms)?;
            self.rooms.timeout(&mut tx)?;
        }
        self.finish(tx)
    }

    /// Returns when [`Self::handle_timeout`] has something to do. Asked again whenever the clock may have been
    /// put back, it says so at once.
    #[must_use]
    pub fn poll_timeout(&self, now: Timestamp) -> Option<Timestamp> {
        if self.link == Link::Offline {
            return None;
        }
        let due = self.receipts.timers().chain(self.presence.timer());
        let due = due.chain(self.rooms.timers()).chain(self.uploads.timers());
        let due = due.chain(self.sessions.timers()).chain(self.outbox.timer());
        due.map(|timer| timer.when(now)).min()
    }

    /// Tells the engine that the connection is gone.
    pub fn disconnected(&mut self) {
        self.link = Link::Offline;
        self.requests.disconnected();
        self.outbox.disconnected();
        self.sessions.disconnected();
        self.devices.try_again();
        self.refused_prekeys.clear();
        self.presence.disconnected();
        self.undelivered = 0;
        self.strangers.set_kept(0);
        self.rooms.disconnected();
    }

    /// Tells whether the relay knows us on this connection.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.link == Link::Online
    }

    /// Says that this program stays: while it is connected, others may see that we are here.
    pub fn attend(&mut self) {
        self.presence.attend();
    }

    /// The bytes of a blob can't be reached now: it waits for another run.
    pub fn skip_upload(&mut self, blob: &BlobId) {
        self.uploads.skip(blob);
    }

    /// Returns what to bring to the relay next, if anything is to be brought there now.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn next_upload(
        &mut self,
        store: &dyn Store,
        now: Timestamp,
    ) -> Result<Option<NextUpload>, EngineError> {
        if self.is_online() { self.uploads.next_upload(store, now) } else { Ok(None) }
    }

    /// Tells whether nothing is under way: no answer outstanding, nothing waiting at the relay.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.link == Link::Online
            && self.requests.is_empty()
            && self.sessions.is_settled()
            && self.undelivered == 0
            && !self.uploads.is_under_way()
    }

    /// Tells whether receipts wait to be sent.
    #[must_use]
    pub fn has_due_receipts(&self) -> bool {
        !self.receipts.is_empty()
    }

    /// Returns how many envelopes with unknown tags were dropped.
    #[must_use]
    pub const fn unknown_tags(&self) -> u64 {
        self.unknown_tags
    }
}
