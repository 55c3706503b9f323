//! The logs behind rooms: what the relay signed, what it lost, and what it took back.
//!
//! Registers and open rooms are read alike: a page of entries with a head over the log up to its end.
//!
//! ```text
//! page ─┬─ its head extends what we read ──▶ settled, for good
//!       ├─ its head is a beginning of it ──▶ loss: the relay is given back what it lost, verbatim
//!       └─ its head contradicts it ────────▶ fork: the other branch is evidence (`fork`)
//! ```

use bytes::Bytes;

use super::super::EngineError;
use super::super::query::damaged;
use super::super::transaction::Transaction;
use super::RoomAsk;
use super::Rooms;
use super::loaded::Room;
use crate::ids::{LogHash, LogId, MessageId, RegisterId, RoomId, Timestamp, UserId};
use crate::keys::{RelayKey, Signed};
use crate::membership::{
    Act, Chain, Event as RoomEvent, Joined, LogHead, MAX_EVENTS, RoomError, RoomKind,
};
use crate::room::RegisterSecret;
use crate::store::row::ReadRows;
use crate::store::rows::{LogEntry, Profile, RoomRow, RoomStanding, Unsent};
use crate::store::{Direction, StoreError};
use crate::wire::content::{LogPoint, ShownLog};
use crate::wire::directory::{decode_signed, encode_signed};
use crate::wire::limits::{MAX_ENTRIES, MAX_SHOWN_ENTRIES};
use crate::wire::relay::{Answer, ErrorCode, Request};
use crate::wire::room::{decode_head, decode_register_entry};

/// No log of an honest relay is longer: a register has its entries and candidates, an open room the events
/// that count and those that do not.
const MAX_LOG: u64 = 2 + 2 * MAX_EVENTS;
/// Most bytes of entries given back to the relay at a time.
const MAX_GIVEN_BACK: usize = 768 * 1_024;
/// Most entries that are looked at to show them to a member.
const MAX_SHOWN: u64 = 64;

/// A page of a log, as the relay answers.
pub(super) struct Page {
    pub(super) head: Signed,
    pub(super) entries: Vec<Bytes>,
    /// Entries in the whole log, as far as the relay says.
    pub(super) length: u64,
}

/// Relation of a page to what was read before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// It goes on where we were; these entries are settled now.
    Extends,
    /// The relay has only a beginning of what we read.
    Loss { length: u64 },
    /// The relay has something else.
    Fork,
}

/// Returns what the first `length` entries of a log came to; `None` if they are not kept.
pub(super) fn hash_at<S: ReadRows + ?Sized>(
    store: &S,
    log: &LogId,
    length: u64,
) -> Result<Option<LogHash>, EngineError> {
    let Some(last) = length.checked_sub(1) else { return Ok(Some(LogHash::begin(log))) };
    Ok(store.get::<LogEntry>(&(*log, last))?.map(|entry| entry.hash))
}

pub(super) fn entries_from<S: ReadRows + ?Sized>(
    store: &S,
    log: &LogId,
    from: u64,
) -> Result<Vec<LogEntry>, EngineError> {
    let rows = store.range(log, from, Direction::Forward, usize::MAX)?;
    Ok(rows.into_iter().map(|(_, entry)| entry).collect())
}

/// Returns how far a log was read.
pub(super) fn end_of<S: ReadRows + ?Sized>(
    store: &S,
    log: &LogId,
) -> Result<LogPoint, EngineError> {
    let last = store.range::<LogEntry>(log, u64::MAX, Direction::Backward, 1)?.pop();
    Ok(match last {
        Some((number, entry)) => LogPoint { id: *log, length: number + 1, hash: entry.hash },
        None => LogPoint::begin(*log),
    })
}

/// Returns the newest head of the relay that we hold, of any log: by it a relay that was set back sees it.
///
/// # Errors
/// [`EngineError::Store`].
pub(in crate::engine) fn newest_head<S: ReadRows + ?Sized>(
    store: &S,
) -> Result<Option<Signed>, EngineError> {
    let mut newest: Option<((u64, Timestamp), Signed)> = None;
    for row in store.all::<RoomRow>()? {
        let Some(signed) = row.head else { continue };
        let head = decode_head(&signed.body).map_err(damaged)?;
        let rank = (head.epoch, head.at);
        if newest.as_ref().is_none_or(|(other, _)| rank > *other) {
            newest = Some((rank, signed));
        }
    }
    Ok(newest.map(|(_, signed)| signed))
}

/// What opens the entries of one log of a room, and folds them.
pub(super) struct Reader {
    own: UserId,
    relay: RelayKey,
    room: RoomId,
    kind: RoomKind,
    log: LogId,
    /// Of a register.
    secret: Option<RegisterSecret>,
}

impl Reader {
    pub(super) fn new<S: ReadRows + ?Sized>(
        store: &S,
        room: &RoomRow,
        log: LogId,
    ) -> Result<Self, EngineError> {
        let secret = room.secret_of(&RegisterId::from_bytes(*log.as_bytes())).cloned();
        let profile = store.get::<Profile>(&())?.ok_or(StoreError::Damaged)?;
        let (own, relay) = (profile.user(), profile.relay);
        Ok(Self { own, relay, room: room.id, kind: room.kind, log, secret })
    }

    /// Opens an entry; what does not open or verify counts for nothing. Tells whether all of it is events.
    fn events(&self, position: u64, entry: &[u8]) -> (Vec<RoomEvent>, Whole) {
        let signed = match self.kind {
            RoomKind::Open => decode_signed(entry).into_iter().collect::<Vec<_>>(),
            RoomKind::Private => {
                let opened = self.secret.as_ref().and_then(|s| s.open(position, entry).ok());
                opened.and_then(|bytes| decode_register_entry(&bytes).ok()).unwrap_or_default()
            }
        };
        let all = signed.len();
        let verified = signed.into_iter().filter_map(|s| RoomEvent::verify(s, &self.relay).ok());
        let events: Vec<_> = verified.collect();
        let whole = if events.len() == all { Whole::Yes } else { Whole::No };
        (events, whole)
    }

    /// Tells whether a room goes on in this log.
    fn is_current(&self, chain: Option<&Chain>) -> bool {
        let register = chain.and_then(|chain| chain.state().register());
        register.is_none_or(|register| LogId::from(register) == self.log)
    }

    /// Takes entries into a chain, `None` before it begins. What is not allowed where it stands, and what
    /// stands behind a move, counts for nothing. Returns how many of our share in a register they took.
    pub(super) fn fold<'a>(
        &self,
        chain: &mut Option<Chain>,
        entries: impl IntoIterator<Item = (u64, &'a Bytes)>,
    ) -> u32 {
        let mut of_ours = 0;
        for (position, entry) in entries {
            if !self.is_current(chain.as_ref()) {
                break;
            }
            let (events, whole) = self.events(position, entry);
            if self.kind == RoomKind::Private && position >= MAX_ENTRIES {
                // Taken whole or not at all.
                let may_count = whole == Whole::Yes && is_candidate(&events);
                if let Some(chain) = chain.as_mut().filter(|_| may_count) {
                    let _counts = chain.append_all(events);
                }
                continue;
            }
            // Anybody can put acts of others into an entry: again they do not count.
            let mut is_ours = false;
            for event in events {
                let of_us = event.actor().user() == Some(self.own);
                is_ours |= self.append(chain, event).is_ok() && of_us;
                if !self.is_current(chain.as_ref()) {
                    break;
                }
            }
            of_ours += u32::from(is_ours);
        }
        of_ours
    }

    fn append(&self, chain: &mut Option<Chain>, event: RoomEvent) -> Result<(), RoomError> {
        match chain {
            Some(chain) => chain.append(event),
            None => {
                *chain = Some(begin(self.room, self.kind, event)?);
                Ok(())
            }
        }
    }
}

/// Whether everything in an entry is an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whole {
    Yes,
    No,
}

/// Tells whether events behind the end of a register are a candidate for the move: perhaps a checkpoint, for
/// want of places, then removals, and the move.
fn is_candidate(events: &[RoomEvent]) -> bool {
    let events = match events.split_first() {
        Some((first, rest)) if matches!(first.act(), Act::Checkpoint(_)) => rest,
        _ => events,
    };
    let is_removal = |event: &RoomEvent| matches!(event.act(), Act::Kick { .. } | Act::Ban { .. });
    let Some((last, before)) = events.split_last() else { return false };
    matches!(last.act(), Act::Move(_)) && before.iter().all(is_removal)
}

/// Begins the chain of a known room.
pub(super) fn begin(room: RoomId, kind: RoomKind, event: RoomEvent) -> Result<Chain, RoomError> {
    let chain = Chain::create(event)?;
    let is_it = chain.room() == room && chain.state().kind() == kind;
    if is_it { Ok(chain) } else { Err(RoomError::OtherRoom) }
}

/// Folds a room anew from what its logs hold: the chain as this program understands it.
pub(super) fn fold_logs<S: ReadRows + ?Sized>(
    store: &S,
    room: &RoomRow,
    first: Option<LogId>,
) -> Result<Option<Chain>, EngineError> {
    let (mut chain, mut next) = (None, first);
    while let Some(log) = next {
        let reader = Reader::new(store, room, log)?;
        let entries = entries_from(store, &log, 0)?;
        reader.fold(&mut chain, (0..).zip(entries.iter().map(|entry| &entry.entry)));
        // Nobody goes on in a register of before: the chain refuses such a move.
        let register = chain.as_ref().and_then(|chain| chain.state().register());
        next = register.map(LogId::from).filter(|register| *register != log);
    }
    Ok(chain)
}

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
        let sync = self.sync(&room.id());
        (sync.fresh, sync.last_conflict, sync.evidence) = (false, None, None);
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
        let sync = self.sync(&room.id());
        if before == 0 || epoch <= before || std::mem::replace(&mut sync.was_set_back, true) {
            return Ok(());
        }
        if room.row.kind == RoomKind::Private {
            room.row.kept_at = Timestamp(0);
            self.sync(&room.id()).looking = false;
            return Ok(());
        }
        // All of them; to who asks from 0 on no leaves are shown.
        room.row.statements_cursor = room.row.statements_cursor.min(1);
        let own = tx.profile()?.user();
        if room.row.standing == RoomStanding::Member
            && room.row.wanted.is_none()
            && room.is_member(&own)
        {
            self.sync(&room.id()).rejoins = true;
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
        self.sync(&room.id()).was_read |= read != Read::Extends || end >= page.length;
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
                sync.refused = true;
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
            sync.fresh = false;
        } else {
            sync.looks.push(RegisterId::from_bytes(*log.as_bytes()));
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
