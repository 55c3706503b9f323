//! The engine: commands, frames and time go in; changes, frames and events come out.
//!
//! ```text
//! handle_command ─┐                       ┌─▶ changes   saved first, in one durable transaction
//! handle_frame   ─┼─▶ Engine ──▶ Step ────┼─▶ frames    sent next
//! handle_timeout ─┘                       └─▶ events    shown last
//! ```
//! It only routes: what a session, a record or a file may do is decided in their own modules. It
//! holds nothing that must survive: after a crash a new engine goes on from the store alone. When
//! saving a step fails, the engine is dropped with it.

mod account;
pub mod backup;
mod clock;
mod command;
mod contacts;
pub(crate) mod copy;
mod deliver;
pub(crate) mod devices;
mod error;
mod event;
mod files;
mod inbound;
mod journal;
mod outbound;
mod presence;
pub mod query;
pub(crate) mod readers;
mod receipts;
pub(crate) mod registration;
mod requests;
pub(crate) mod rooms;
pub(crate) mod sequence;
pub(crate) mod sessions;
mod step;
mod strangers;
mod transaction;
mod uploads;

pub use account::{NewProfile, Rejoin};
pub use command::Command;
pub use error::EngineError;
pub use event::{Acquaintance, Event, LookupError, Sender};
pub use files::Upload;
pub use query::{ContactView, HistoryView, ProfileView, Registration};
pub use readers::Reader;
pub use rooms::{NewRoom, RefusedBecause, RoomFailure, RoomMemberView, RoomRef, RoomView};
pub use step::{Context, Step};

use crate::store::Store;
use crate::store::row::ReadRows;
use crate::store::rows::{Clock, Contact};
use clock::Timer;
pub(crate) use outbound::MAX_INLINE;
pub(crate) use uploads::{NextUpload, spooled};

pub use crate::file::FileKind;
pub use crate::store::rows::{
    BadProgramName, ContactStanding, Direction, FetchFailure, Lobby, MessageStatus, ProgramName,
    QueuedUpload, RoomStanding, UploadSource, Visibility, Wanted,
};
pub(crate) use requests::DRIVER_REQUESTS;
use requests::{Asker, Link, Pending, Requests, Sent};
pub use strangers::{MAX_REQUESTS, PersonWaiting};

use std::collections::{BTreeMap, BTreeSet};

use transaction::Transaction;
use uploads::Uploads;

use crate::ids::{Conversation, DeviceAddress, MINUTE, Timestamp, UserId};
use crate::keys::Signed;
use crate::wire::content::Body;
use crate::wire::relay::{Answer, ErrorCode, Failure, RelayFrame};
use rooms::Rooms;

/// Milliseconds between looks at what the relay still holds of ours.
const QUERY_EVERY: u64 = 10 * MINUTE;

/// The protocol state of one device that is not in its store.
#[derive(Debug)]
pub struct Engine {
    link: Link,
    requests: Requests,
    /// Envelopes that waited at login and have not come yet.
    undelivered: u64,
    /// Of whom a device has left, and is heard until what waited at the relay was taken in.
    leaving: BTreeSet<UserId>,
    /// Envelopes that the relay keeps, as there was no place for them here.
    kept: u64,
    claiming: BTreeSet<DeviceAddress>,
    /// Devices that had no prekeys at the relay: until when they are not asked for, and how long that was.
    claim_again: BTreeMap<DeviceAddress, (Option<Timer>, u64)>,
    /// Users with outbox entries that have no ciphertext.
    waiting: BTreeSet<UserId>,
    receipts_due: BTreeMap<DeviceAddress, Timer>,
    /// Peer devices for whom the relay has not accepted our newest record.
    profiles_owed: BTreeSet<DeviceAddress>,
    /// Those of them who were tried since the outbox was last gone through.
    profiles_tried: BTreeSet<(DeviceAddress, devices::Tried)>,
    next_query: Timer,
    looked_up: BTreeMap<UserId, Timestamp>,
    unknown_tags: u64,
    /// Prekeys that the relay did not take now.
    refused_prekeys: Vec<Signed>,
    attending: bool,
    /// When the relay is to be told who may see us.
    presence_due: Option<Timer>,
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
        let (mut receipts_due, mut profiles_owed) = (BTreeMap::new(), BTreeSet::new());
        for contact in tx.all::<Contact>()? {
            for device in &contact.devices {
                let address = DeviceAddress { user: contact.user(), device: device.id };
                if !device.due_receipts.is_empty() {
                    receipts_due.insert(address, receipts::timer(device, tx.now));
                }
                if device.profile_owed {
                    profiles_owed.insert(address);
                }
            }
        }
        Ok(Self {
            link: Link::Offline,
            requests: Requests::default(),
            undelivered: 0,
            leaving: BTreeSet::new(),
            kept: 0,
            claiming: BTreeSet::new(),
            claim_again: BTreeMap::new(),
            waiting: tx.users_owed()?.into_iter().collect(),
            receipts_due,
            profiles_owed,
            profiles_tried: BTreeSet::new(),
            next_query: Timer::after(0, tx.now),
            looked_up: BTreeMap::new(),
            unknown_tags: 0,
            refused_prekeys: Vec::new(),
            attending: false,
            presence_due: None,
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

    /// Ends a step.
    fn finish(&mut self, tx: Transaction<'_, '_>) -> Result<Step, EngineError> {
        self.link = tx.link();
        tx.finish(&mut self.requests)
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
            Command::Lookup { ticket, name } => self.look_up(&mut tx, ticket, name)?,
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
            Command::Uploaded(blob) => self.uploaded(&mut tx, blob)?,
            Command::UploadRefused { blob, failure } => {
                self.upload_refused(&mut tx, blob, failure)?;
            }
            Command::UploadLost(blob) => self.upload_lost(&mut tx, blob)?,
            Command::CreateRoom { ticket, room } => self.create_room(&mut tx, ticket, room)?,
            Command::JoinRoom { ticket, room } => self.join_room(&mut tx, ticket, room)?,
            Command::LeaveRoom { ticket, room } => self.leave_room(&mut tx, ticket, room)?,
            Command::ActInRoom { ticket, room, act } => {
                self.act_in_room(&mut tx, ticket, room, act)?;
            }
            Command::SucceedInRoom { ticket, room } => {
                self.succeed_in_room(&mut tx, ticket, room)?;
            }
            Command::RebuildRoom { ticket, room, name } => {
                self.rebuild_room(&mut tx, ticket, room, name)?;
            }
            Command::ResumeRoom { ticket, room } => self.resume_room(&mut tx, ticket, room)?,
            Command::ListRooms { ticket } => self.list_rooms(&mut tx, ticket)?,
            Command::QueryRoomPresence { ticket, room } => {
                self.query_room_presence(&mut tx, ticket, room)?;
            }
            Command::RefreshRoster { ticket, room } => {
                self.refresh_roster(&mut tx, ticket, room)?
            }
            Command::DeclineLobby => Self::decline_lobby(&mut tx)?,
            Command::Admin { ticket, line, form } => self.admin(&mut tx, ticket, line, form)?,
            Command::LongTextFetched { from, message, text } => {
                self.long_text_fetched(&mut tx, &from, &message, text)?;
            }
            Command::FetchFailed { from, message, failure } => {
                self.fetch_failed(&mut tx, &from, &message, failure)?;
            }
            Command::FetchInto { from, message, folder } => {
                files::fetch_into(&mut tx, &from, &message, folder)?;
            }
            Command::RetryFetch { from, message } => files::retry(&mut tx, &from, &message)?,
            Command::FileSaved { from, message, path } => {
                self.file_saved(&mut tx, &from, &message, path)?;
            }
            Command::Verify(user) => {
                let rest = contacts::verify(&mut tx, &user)?;
                self.ask_for(&mut tx, rest)?;
            }
            Command::AcceptIdentity { known, new } => {
                let rest = contacts::accept_identity(&mut tx, &known, &new)?;
                self.ask_for(&mut tx, rest)?;
            }
            Command::KeepIdentity(user) => contacts::keep_identity(&mut tx, &user)?,
            Command::AcceptRequest(user) => self.accept_request(&mut tx, &user)?,
            Command::DeclineRequest(user) => self.decline_request(&mut tx, &user)?,
            Command::Block(user) => self.block(&mut tx, &user)?,
            Command::Unblock(user) => contacts::unblock(&mut tx, &user)?,
            Command::Rename(nickname) => self.rename(&mut tx, nickname)?,
            Command::CloseAccount => self.close_account(&mut tx)?,
            Command::Shown(up_to) => readers::acknowledge(&mut tx, &Reader::Person, up_to)?,
            Command::Follow(name) => readers::follow(&mut tx, name)?,
            Command::Unfollow(name) => readers::unfollow(&mut tx, &name)?,
            Command::Acknowledge { program, up_to } => {
                readers::acknowledge(&mut tx, &Reader::Program(program), up_to)?;
            }
            Command::MarkRead { from, messages } => self.mark_read(&mut tx, &from, &messages)?,
            Command::Keep { name, number, value } => tx.keep(name, number, value),
            Command::SetVisibility(visibility) => self.set_visibility(&mut tx, visibility)?,
            Command::QueryPresence { ticket } => self.query_presence(&mut tx, ticket)?,
            Command::FlushReceipts => self.flush_receipts(&mut tx, Flush::Everything)?,
        }
        self.note_presence(&tx);
        // A place may be free now.
        self.ask_for_kept(&mut tx)?;
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
            Answer::RoomChanged(room) => self.room_changed(&mut tx, room)?,
            Answer::Announced(signed) => self.announced(&mut tx, signed)?,
            answer => {
                let pending = self.requests.answered(frame.request_id);
                self.answered(&mut tx, pending.ok_or(EngineError::RelayMisbehaved)?, answer)?;
            }
        }
        self.note_presence(&tx);
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
            (Pending::OwnRecords, answer) => self.own_records(tx, answer),
            (Pending::Lookup { name, asker }, answer) => self.looked_up(tx, &name, asker, answer),
            (Pending::Mismatch { name, contact, other, ticket }, answer) => {
                self.mismatch_answered(tx, &name, contact, other, ticket, answer)
            }
            (Pending::Refresh { user, ticket }, answer) => {
                self.refreshed(tx, &user, ticket, answer)
            }
            (Pending::UpdateRecord { hash }, Answer::Done) => self.record_updated(tx, &hash),
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
                self.claimed(tx, devices.into_iter().zip(prekeys))
            }
            (Pending::Claim(devices), Answer::Failure(Failure { code, .. })) => {
                self.claimed(tx, devices.into_iter().map(|d| (d, Err(code))))
            }
            (Pending::Send(sent), Answer::SendResults(results)) => {
                if sent.len() != results.len() {
                    return Err(EngineError::RelayMisbehaved);
                }
                self.sent(tx, sent.into_iter().zip(results))
            }
            (Pending::Send(sent), Answer::Failure(Failure { code, .. })) => {
                self.sent(tx, sent.into_iter().map(|s| (s, Err(code))))
            }
            (Pending::Query(asked), Answer::Queued(queued)) => {
                if asked.len() != queued.len() {
                    return Err(EngineError::RelayMisbehaved);
                }
                self.queried(tx, asked.into_iter().zip(queued))
            }
            (Pending::Presence { ticket, users }, Answer::Presence(online)) => {
                presence::answered(tx, ticket, users, &online)
            }
            (Pending::Presence { ticket, .. }, Answer::Failure(_)) => {
                tx.event(Event::Presence { ticket, online: Vec::new() });
                Ok(())
            }
            (Pending::Room { room, ask }, answer) => self.room_answered(tx, room, ask, answer),
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
                self.kept = left;
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
            if self.next_query.is_due(tx.now) {
                self.save_clock(&mut tx)?;
                let records = std::mem::take(&mut self.refused_prekeys);
                if !records.is_empty() {
                    self.upload(&mut tx, records);
                }
                self.profiles_tried.clear();
                self.tell_owed(&mut tx)?;
                self.drive_outbox(&mut tx, deliver::Round::Later)?;
            }
            self.flush_receipts(&mut tx, Flush::Due)?;
            self.claim_due(&mut tx)?;
            if self.presence_due.is_some_and(|timer| timer.is_due(tx.now)) {
                self.show_presence(&mut tx)?;
            }
            self.rooms_timeout(&mut tx)?;
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
        let due = self.receipts_due.values().copied().chain(self.presence_due);
        let due = due.chain(self.rooms.timers()).chain(self.uploads.timers());
        let due = due.chain(self.claim_again.values().filter_map(|(again, _)| *again));
        let due = due.chain([self.next_query]);
        due.map(|timer| timer.when(now)).min()
    }

    /// Tells the engine that the connection is gone.
    pub fn disconnected(&mut self) {
        self.link = Link::Offline;
        self.requests.disconnected();
        self.claiming.clear();
        self.claim_again.clear();
        self.profiles_tried.clear();
        self.refused_prekeys.clear();
        self.presence_due = None;
        (self.undelivered, self.kept) = (0, 0);
        self.rooms.disconnected();
    }

    /// Tells whether the relay knows us on this connection.
    #[must_use]
    pub fn is_online(&self) -> bool {
        self.link == Link::Online
    }

    /// Returns what to bring to the relay next, if anything is to be brought there now.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub(crate) fn next_upload(
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
            && self.claiming.is_empty()
            && self.undelivered == 0
            && !self.uploads.is_under_way()
    }

    /// Tells whether receipts wait to be sent.
    #[must_use]
    pub fn has_due_receipts(&self) -> bool {
        !self.receipts_due.is_empty()
    }

    /// Returns how many envelopes with unknown tags were dropped.
    #[must_use]
    pub const fn unknown_tags(&self) -> u64 {
        self.unknown_tags
    }
}

/// Which receipts to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Flush {
    Due,
    Everything,
}
