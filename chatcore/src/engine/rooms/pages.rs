//! Pages of a log as the relay shows them: followed, given back, and told to members.

use bytes::Bytes;

use super::super::error::EngineError;
use super::super::transaction::Transaction;
use super::loaded::Room;
use super::log::{Page, Read, Reader, entries_from, hash_at};
use super::sync::{Once, Ordering, OwnStatement, Round};
use super::{RoomAsk, Rooms};
use crate::ids::{LogId, MessageId, RegisterId, Timestamp};
use crate::keys::Signed;
use crate::membership::{Joined, LogHead, MAX_EVENTS, RoomKind};
use crate::store::rows::{LogEntry, RoomStanding, Unsent};
use crate::wire::content::{LogPoint, ShownLog};
use crate::wire::directory::encode_signed;
use crate::wire::limits::{MAX_ENTRIES, MAX_SHOWN_ENTRIES};
use crate::wire::relay::{Answer, ErrorCode, Request};

/// Most bytes of entries given back to the relay at a time.
const MAX_GIVEN_BACK: usize = 768 * 1_024;

/// Most entries that are looked at to show them to a member.
const MAX_SHOWN: u64 = 64;

/// No log of an honest relay is longer: a register has its entries and candidates, an open room the events
/// that count and those that do not.
const MAX_LOG: u64 = 2 + 2 * MAX_EVENTS;

impl Rooms {
    /// Begins with the log that the room goes on in, unless we are there already.
    pub(super) fn follow_log(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        log: LogId,
    ) -> Result<(), EngineError> {
        if room.row.log.is_some_and(|point| point.id == log) {
            return Ok(());
        }
        // Of a branch that was abandoned nothing is left, nor of an invitation that was dropped.
        tx.delete_group::<LogEntry>(&log, 0)?;
        room.row.log = Some(LogPoint::begin(log));
        (room.row.head, room.row.own_entries) = (None, 0);
        self.sync(&room.id()).change_log();
        Ok(())
    }

    /// Tells what a page is for somebody who has read a log up to `point`.
    pub(super) fn classify(
        tx: &Transaction<'_, '_>,
        point: &LogPoint,
        page: &Page,
    ) -> Result<(Read, LogHead), EngineError> {
        let relay = tx.profile()?.relay;
        let head = LogHead::verify(&page.head, &relay).map_err(|_| EngineError::RelayMisbehaved)?;
        let count = page.entries.len() as u64;
        if head.log != point.id || head.length > MAX_LOG {
            return Err(EngineError::RelayMisbehaved);
        }
        let read = if head.length < point.length {
            let is_beginning = hash_at(tx, &point.id, head.length)? == Some(head.hash);
            let length = head.length;
            if is_beginning && count == 0 { Read::Loss { length } } else { Read::Fork }
        } else if head.length == point.length + count
            && point.hash.then_all(&page.entries) == head.hash
        {
            Read::Extends
        } else {
            Read::Fork
        };
        Ok((read, head))
    }

    /// Takes a page of the log that the room goes on in; its entries are settled if its head goes on from
    /// ours.
    pub(super) fn take_page(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        page: &Page,
    ) -> Result<Read, EngineError> {
        let point = room.row.log.ok_or(EngineError::RelayMisbehaved)?;
        let (read, head) = Self::classify(tx, &point, page)?;
        self.note_epoch(tx, room, head.epoch)?;
        if read != Read::Extends {
            return Ok(read);
        }
        room.row.head = Some(page.head.clone());
        let mut hash = point.hash;
        for (number, entry) in (point.length..).zip(&page.entries) {
            hash = hash.then(entry);
            let head = (number + 1 == head.length).then(|| page.head.clone());
            tx.put_at(&(point.id, number), &LogEntry { entry: entry.clone(), hash, head });
        }
        room.row.log = Some(LogPoint { id: point.id, length: head.length, hash });
        let before = room.length();
        let reader = Reader::new(&*tx, &room.row, point.id)?;
        let of_ours = reader.fold(&mut room.chain, (point.length..).zip(&page.entries));
        room.row.own_entries = room.row.own_entries.saturating_add(of_ours);
        self.follow_events(tx, room, before)?;
        Ok(Read::Extends)
    }

    /// The relay was set back to a backup: every register is looked at, and who joined an open room since
    /// is put there again.
    pub(super) fn note_epoch(
        &mut self,
        tx: &Transaction<'_, '_>,
        room: &mut Room,
        epoch: u64,
    ) -> Result<(), EngineError> {
        let before = room.row.epoch;
        room.row.epoch = epoch.max(before);
        // Once on a connection: a relay that says so in every head has nobody ask for ever.
        if before == 0 || epoch <= before || !self.sync(&room.id()).is_first(Once::SetBack) {
            return Ok(());
        }
        if room.row.kind == RoomKind::Private {
            room.row.kept_at = Timestamp(0);
            self.sync(&room.id()).left.round = Round::None;
            return Ok(());
        }
        // All of them; to who asks from 0 on no leaves are shown.
        room.row.statements_cursor = room.row.statements_cursor.min(1);
        let own = tx.profile()?.user();
        if room.row.standing == RoomStanding::Member
            && room.row.wanted.is_none()
            && room.is_member(&own)
        {
            self.sync(&room.id()).statement = OwnStatement::PutAgain;
            room.row.wanted = Some(Joined::Yes);
        }
        Ok(())
    }

    /// Does what a page calls for; tells whether the log was read to its end.
    pub(super) fn page_read(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        page: &Page,
    ) -> Result<bool, EngineError> {
        let before = room.row.log.map_or(0, |log| log.length);
        let read = self.take_page(tx, room, page)?;
        // Also where it shows less than we have, or something else: there is no more to judge by.
        let end = room.row.log.map_or(0, |log| log.length);
        if read != Read::Extends || end >= page.length {
            let sync = self.sync(&room.id());
            sync.reading = sync.reading.seen_to_end();
        }
        match read {
            Read::Extends => {
                let now = room.row.log.map_or(0, |log| log.length);
                if page.length > now && now == before {
                    // It says that there is more and shows nothing.
                    return Err(EngineError::RelayMisbehaved);
                }
                Ok(now >= page.length)
            }
            Read::Loss { length } => {
                if let Some(log) = room.row.log {
                    self.give_back(tx, room, log.id, length)?;
                }
                Ok(true)
            }
            Read::Fork => {
                if let Some(log) = room.row.log {
                    self.sync(&room.id()).look_for_evidence(log.id);
                }
                Ok(true)
            }
        }
    }

    /// Gives the relay back what it lost of a log, once from each place on a connection.
    pub(super) fn give_back(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        log: LogId,
        from: u64,
    ) -> Result<(), EngineError> {
        let sync = self.sync(&room.id());
        if sync.gave_back.get(&log).is_some_and(|last| from <= *last) {
            if room.current_log() == Some(log) {
                // It does not want it back: nothing can be ordered behind what it has.
                sync.ordering = Ordering::Refused;
                self.give_up_intents(tx, room, ErrorCode::Recovering);
            }
            return Ok(());
        }
        sync.gave_back.insert(log, from);
        let (mut entries, mut size, mut found) = (Vec::new(), 0, None);
        for row in entries_from(&*tx, &log, from)? {
            size += row.entry.len();
            let is_much = size > MAX_GIVEN_BACK || entries.len() as u64 >= MAX_ENTRIES;
            if is_much {
                break;
            }
            entries.push(row.entry);
            if let Some(head) = row.head {
                found = Some((head, entries.len()));
            }
        }
        let Some((head, count)) = found else { return Ok(()) };
        entries.truncate(count);
        self.ask_room(tx, room.id(), Request::Recover { head, entries }, RoomAsk::GiveBack { log });
        Ok(())
    }

    /// The relay took back what it had lost, or did not.
    pub(super) fn given_back(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        log: LogId,
        answer: &Answer,
    ) -> Result<(), EngineError> {
        match answer {
            Answer::Appended(_) if room.row.kind == RoomKind::Private => {
                // Those who had read to the end of what was left do not look again by themselves.
                let message = MessageId::generate(tx.rng);
                room.row.unsent.push(Unsent::Update { message, keys: false, only: None });
            }
            Answer::Appended(_) | Answer::Failure(_) => {}
            _ => return Err(EngineError::RelayMisbehaved),
        }
        // Taken, or somebody else was faster: that shows when it is read again.
        let is_current = room.current_log() == Some(log);
        let sync = self.sync(&room.id());
        if is_current {
            sync.grow_stale();
        } else {
            sync.left.due.push(RegisterId::from_bytes(*log.as_bytes()));
        }
        Ok(())
    }

    /// Shows a member how a log goes on, as far as that fits a message.
    pub(super) fn log_to_show(
        tx: &Transaction<'_, '_>,
        room: &Room,
        log: &LogId,
        from: u64,
    ) -> Result<Option<ShownLog>, EngineError> {
        let (Some(own), Some(head)) = (room.row.log, room.row.head.clone()) else {
            return Ok(None);
        };
        if own.id != *log || from > own.length {
            return Ok(None);
        }
        if own.length - from > MAX_SHOWN {
            return Ok(Some(ShownLog { head, from, entries: Vec::new() }));
        }
        let entries: Vec<Bytes> =
            entries_from(tx, log, from)?.into_iter().map(|entry| entry.entry).collect();
        let size: usize = entries.iter().map(Bytes::len).sum();
        let entries = if size <= MAX_SHOWN_ENTRIES { entries } else { Vec::new() };
        Ok(Some(ShownLog { head, from, entries }))
    }

    /// Returns a page out of an answer about an open room.
    pub(super) fn page_of_events(from: u64, events: &[Signed], head: Signed, more: bool) -> Page {
        let entries: Vec<Bytes> = events.iter().map(|event| encode_signed(event).into()).collect();
        let length = from + entries.len() as u64 + u64::from(more && !entries.is_empty());
        Page { head, entries, length }
    }
}
