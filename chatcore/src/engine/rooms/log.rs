//! The logs behind rooms: what the relay signed, what it lost, and what it took back.
//!
//! Registers and open rooms are read alike: a page of entries with a head over the log up to its end.
//!
//! ```text
//! page ─┬─ its head extends what we read ──▶ settled, for good
//!       ├─ its head is a beginning of it ──▶ loss: the relay is given back what it lost, verbatim
//!       └─ its head contradicts it ────────▶ fork: the whole other branch is read, kept and told
//! ```

use bytes::Bytes;

use super::super::query::damaged;
use super::super::tx::Tx;
use super::super::{Engine, EngineError, Event};
use super::acts::{own_actor, signer};
use super::loaded::Room;
use super::{Freshness, RoomAsk, RoomFailure};
use crate::ids::{LogHash, LogId, MessageId, RegisterId, Timestamp};
use crate::keys::Signed;
use crate::membership::{
    Act, Branch, Chain, Event as RoomEvent, EventDraft, ForkProof, Joined, LogHead, MAX_EVENTS,
    Role, RoomError, RoomKind,
};
use crate::store::rows::{LogEntry, RoomStanding, Unsent};
use crate::store::{Direction, Key, Store, Table};
use crate::wire::content::{LogPoint, ShownLog};
use crate::wire::directory::{decode_signed, encode_signed};
use crate::wire::limits::MAX_SHOWN_ENTRIES;
use crate::wire::relay::{Answer, ErrorCode, Failure, More, Request};
use crate::wire::room::{decode_fork_proof, decode_register_entry, encode_fork_proof};
use crate::wire::storage;

/// Most bytes of entries given back to the relay at a time.
const MAX_GIVEN_BACK: usize = 768 * 1_024;
/// Most bytes of another branch that are read and kept: what a log can hold.
const MAX_EVIDENCE: usize = 128 << 20;

/// A page of a log, as the relay answers.
pub(super) struct Page {
    pub(super) head: Signed,
    pub(super) entries: Vec<Bytes>,
    /// Entries in the whole log, as far as the relay says.
    pub(super) length: u64,
}

/// What a page turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Read {
    /// It goes on where we were; these entries are settled now.
    Extends,
    /// The relay has only a beginning of what we read.
    Loss { length: u64 },
    /// The relay has something else.
    Fork,
}

/// Another branch of a log, as far as it was read.
#[derive(Debug)]
pub(super) struct Evidence {
    log: LogId,
    entries: Vec<Bytes>,
}

impl Evidence {
    pub(super) const fn of(log: LogId) -> Self {
        Self { log, entries: Vec::new() }
    }
}

/// Returns what the first `length` entries of a log came to; `None` if they are not kept.
fn hash_at(store: &dyn Store, log: &LogId, length: u64) -> Result<Option<LogHash>, EngineError> {
    let Some(last) = length.checked_sub(1) else { return Ok(Some(LogHash::begin(log))) };
    let row = store.load(&Key::numbered(Table::RoomLogs, log.as_bytes(), last))?;
    row.map(|row| storage::decode_log_entry(&row).map(|e| e.hash).map_err(damaged)).transpose()
}

fn entries_from(store: &dyn Store, log: &LogId, from: u64) -> Result<Vec<LogEntry>, EngineError> {
    let group = log.as_bytes();
    let rows = store.scan(Table::RoomLogs, group, from, Direction::Forward, usize::MAX)?;
    rows.iter().map(|(_, row)| storage::decode_log_entry(row).map_err(damaged)).collect()
}

/// Returns how far a log was read.
pub(super) fn end_of(store: &dyn Store, log: &LogId) -> Result<LogPoint, EngineError> {
    let last = store.scan(Table::RoomLogs, log.as_bytes(), u64::MAX, Direction::Backward, 1)?;
    let Some((number, row)) = last.into_iter().next() else { return Ok(LogPoint::begin(*log)) };
    let hash = storage::decode_log_entry(&row).map_err(damaged)?.hash;
    Ok(LogPoint { id: *log, length: number + 1, hash })
}

/// Returns everything that we were shown of a log.
fn own_branch(store: &dyn Store, log: &LogId) -> Result<Option<Branch>, EngineError> {
    let mut entries = entries_from(store, log, 0)?;
    // Whatever was stored last was stored with a head over it.
    let head = entries.last_mut().and_then(|entry| entry.head.take());
    let entries = entries.into_iter().map(|entry| entry.entry).collect();
    Ok(head.map(|head| Branch { head, entries }))
}

/// Returns the proof that the relay forked a room, if there is one.
///
/// # Errors
/// [`EngineError::Store`].
pub fn fork_proof(
    store: &dyn Store,
    room: &crate::ids::RoomId,
) -> Result<Option<ForkProof>, EngineError> {
    let row = store.load(&Key::numbered(Table::RoomForks, room.as_bytes(), 0))?;
    row.map(|row| decode_fork_proof(&row).map_err(damaged)).transpose()
}

/// Opens an entry of a log; what does not open or verify counts for nothing.
fn events_in(
    tx: &Tx<'_, '_>,
    room: &Room,
    log: &LogId,
    position: u64,
    entry: &[u8],
) -> Result<Vec<RoomEvent>, EngineError> {
    let signed = match room.row.kind {
        RoomKind::Open => decode_signed(entry).into_iter().collect(),
        RoomKind::Private => {
            let secret = room.row.secrets.iter().find(|s| LogId::from(s.id()) == *log);
            let opened = secret.and_then(|secret| secret.open(position, entry).ok());
            opened.and_then(|bytes| decode_register_entry(&bytes).ok()).unwrap_or_default()
        }
    };
    let relay = tx.profile()?.relay;
    Ok(signed.into_iter().filter_map(|s| RoomEvent::verify(s, &relay).ok()).collect())
}

impl Engine {
    /// Begins with the log that the room goes on in, unless we are there already.
    pub(super) fn follow_log(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        log: LogId,
    ) -> Result<(), EngineError> {
        if room.row.log.is_some_and(|point| point.id == log) {
            return Ok(());
        }
        // Of a branch that was abandoned nothing is left, nor of an invitation that was dropped.
        tx.delete_log(&log, 0)?;
        room.row.log = Some(LogPoint::begin(log));
        room.row.head = None;
        let sync = self.rooms.sync(&room.id());
        (sync.fresh, sync.last_conflict, sync.evidence) = (false, None, None);
        Ok(())
    }

    /// Tells what a page is for somebody who has read a log up to `point`.
    pub(super) fn classify(
        tx: &Tx<'_, '_>,
        point: &LogPoint,
        page: &Page,
    ) -> Result<(Read, LogHead), EngineError> {
        let relay = tx.profile()?.relay;
        let head = LogHead::verify(&page.head, &relay).map_err(|_| EngineError::RelayMisbehaved)?;
        let count = page.entries.len() as u64;
        // No log of an honest relay is longer than the longest register, or the longest open room.
        if head.log != point.id || head.length > MAX_EVENTS + 1 {
            return Err(EngineError::RelayMisbehaved);
        }
        let read = if head.length < point.length {
            let is_beginning = hash_at(tx.store(), &point.id, head.length)? == Some(head.hash);
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
        tx: &mut Tx<'_, '_>,
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
            tx.save_log_entry(&point.id, number, &LogEntry { entry: entry.clone(), hash, head });
        }
        room.row.log = Some(LogPoint { id: point.id, length: head.length, hash });
        let before = room.length();
        for (position, entry) in (point.length..).zip(&page.entries) {
            if room.current_log().is_some_and(|log| log != point.id) {
                // What stands behind a move does not count.
                break;
            }
            for event in events_in(tx, room, &point.id, position, entry)? {
                let _counts = room.append(event);
                if room.current_log().is_some_and(|log| log != point.id) {
                    break;
                }
            }
        }
        self.follow_events(tx, room, before)?;
        Ok(Read::Extends)
    }

    /// The relay was set back to a backup: every register is looked at, and who joined an open room since
    /// is put there again.
    pub(super) fn note_epoch(
        &mut self,
        tx: &Tx<'_, '_>,
        room: &mut Room,
        epoch: u64,
    ) -> Result<(), EngineError> {
        let before = room.row.epoch;
        room.row.epoch = epoch.max(before);
        // Once on a connection: a relay that says so in every head has nobody ask for ever.
        let sync = self.rooms.sync(&room.id());
        if before == 0 || epoch <= before || std::mem::replace(&mut sync.was_set_back, true) {
            return Ok(());
        }
        if room.row.kind == RoomKind::Private {
            room.row.kept_at = Timestamp(0);
            self.rooms.sync(&room.id()).looking = false;
            return Ok(());
        }
        room.row.statements_cursor = 0;
        let own = tx.profile()?.user();
        if room.row.standing == RoomStanding::Member
            && room.row.wanted.is_none()
            && room.is_member(&own)
        {
            self.rooms.sync(&room.id()).rejoins = true;
            room.row.wanted = Some(Joined::Yes);
        }
        Ok(())
    }

    /// Does what a page calls for; tells whether the log was read to its end.
    pub(super) fn page_read(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        page: &Page,
    ) -> Result<bool, EngineError> {
        let before = room.row.log.map_or(0, |log| log.length);
        let read = self.take_page(tx, room, page)?;
        // Also where it shows less than we have, or something else: there is no more to judge by.
        let end = room.row.log.map_or(0, |log| log.length);
        self.rooms.sync(&room.id()).was_read |= read != Read::Extends || end >= page.length;
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
                    self.rooms.sync(&room.id()).look_for_evidence(log.id);
                }
                Ok(true)
            }
        }
    }

    /// Gives the relay back what it lost of a log, once from each place on a connection.
    pub(super) fn give_back(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        log: LogId,
        from: u64,
    ) -> Result<(), EngineError> {
        let sync = self.rooms.sync(&room.id());
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
        for row in entries_from(tx.store(), &log, from)? {
            size += row.entry.len();
            if size > MAX_GIVEN_BACK && found.is_some() {
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
        tx: &mut Tx<'_, '_>,
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
        let sync = self.rooms.sync(&room.id());
        if is_current {
            sync.fresh = false;
        } else {
            sync.looks.push(RegisterId::from_bytes(*log.as_bytes()));
        }
        Ok(())
    }

    /// Asks for the next page of another branch, from its beginning.
    pub(super) fn ask_for_evidence(&mut self, tx: &mut Tx<'_, '_>, room: &Room) -> bool {
        let sync = self.rooms.sync(&room.id());
        let Some(evidence) = &sync.evidence else { return false };
        let (log, from) = (evidence.log, evidence.entries.len() as u64);
        let request = match room.row.kind {
            RoomKind::Private => {
                let register = RegisterId::from_bytes(*log.as_bytes());
                Request::ReadRegister { register, from }
            }
            RoomKind::Open => {
                let (room, after_statement) = (room.id(), u64::MAX);
                Request::GetRoom { room, from_seq: from, after_statement }
            }
        };
        self.ask_room(tx, room.id(), request, RoomAsk::Evidence);
        true
    }

    /// The relay's answer to a question for another branch.
    pub(super) fn evidence_answered(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        answer: Answer,
    ) -> Result<(), EngineError> {
        let sync = self.rooms.sync(&room.id());
        let from = sync.evidence.as_ref().map_or(0, |evidence| evidence.entries.len() as u64);
        let page = match answer {
            Answer::RegisterEntries { length, entries, head } => Page { head, entries, length },
            Answer::RoomData { events, head, more, .. } => {
                Self::page_of_events(from, &events, head, more == More::Yes)
            }
            Answer::Failure(failure) => {
                (sync.evidence, sync.refused) = (None, true);
                self.finish_resume(tx, room, Err(RoomFailure::Refused(failure.code)));
                return Ok(());
            }
            _ => return Err(EngineError::RelayMisbehaved),
        };
        self.evidence_came(tx, room, page)
    }

    /// A page of another branch came; when it is whole it is kept, told, and gone on with if the owner
    /// says so there.
    pub(super) fn evidence_came(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        page: Page,
    ) -> Result<(), EngineError> {
        let id = room.id();
        let Some(mut evidence) = self.rooms.sync(&id).evidence.take() else { return Ok(()) };
        let is_empty = page.entries.is_empty();
        evidence.entries.extend(page.entries);
        let branch = Branch { head: page.head, entries: evidence.entries.clone() };
        let relay = tx.profile()?.relay;
        // A head without the entries that lead to it is no log.
        let head = branch.check(&relay).map_err(|_| EngineError::RelayMisbehaved)?;
        if head.log != evidence.log {
            return Err(EngineError::RelayMisbehaved);
        }
        let size: usize = evidence.entries.iter().map(Bytes::len).sum();
        if page.length > branch.entries.len() as u64 && size < MAX_EVIDENCE {
            if is_empty {
                return Err(EngineError::RelayMisbehaved);
            }
            self.rooms.sync(&id).evidence = Some(evidence);
            return Ok(());
        }
        let Some(ours) = own_branch(tx.store(), &evidence.log)? else {
            self.finish_resume(tx, room, Err(RoomFailure::NotForked));
            return Ok(());
        };
        let proof = ForkProof { relay, ours, theirs: branch };
        match proof.check() {
            Ok((log, shared)) => self.forked(tx, room, &proof, (log, shared)),
            Err(_) => {
                // It goes on from ours by now, or is a beginning of it.
                self.rooms.sync(&id).fresh = false;
                self.finish_resume(tx, room, Err(RoomFailure::NotForked));
                Ok(())
            }
        }
    }

    /// The relay showed two branches of a room, and we hold one of them.
    fn forked(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        proof: &ForkProof,
        place: (LogId, u64),
    ) -> Result<(), EngineError> {
        let id = room.id();
        if !std::mem::replace(&mut room.row.forked, true) {
            tx.event(Event::RoomForked { room: room.reference() });
        }
        tx.save_fork(&id, encode_fork_proof(proof));
        self.resume(tx, room, &proof.theirs, place)?;
        if self.rooms.sync(&id).resumes.is_some() && room.row.forked {
            self.sign_resume(tx, room, &proof.theirs, place)?;
        }
        Ok(())
    }

    /// Folds a branch of a log; returns its chain, the one where it leaves ours, and that one's
    /// length.
    fn fold_branch(
        tx: &Tx<'_, '_>,
        room: &Room,
        branch: &Branch,
        (log, shared): (LogId, u64),
    ) -> Result<Option<(Chain, Chain)>, EngineError> {
        let Some(ours) = &room.chain else { return Ok(None) };
        let mut chain = ours.first(room.events_before(&log)).ok();
        let mut ancestor = chain.clone();
        'entries: for (position, entry) in (0..).zip(&branch.entries) {
            if position == shared {
                ancestor.clone_from(&chain);
            }
            for event in events_in(tx, room, &log, position, entry)? {
                match &mut chain {
                    Some(chain) => drop(chain.append(event)),
                    None if event.room() == room.id() => chain = Chain::create(event).ok(),
                    None => {}
                }
                let register = chain.as_ref().and_then(|chain| chain.state().register());
                if register.is_some_and(|register| LogId::from(register) != log) {
                    if position < shared {
                        // Where they part nothing counts any more: up to here they are the same.
                        ancestor.clone_from(&chain);
                    }
                    break 'entries;
                }
            }
        }
        Ok(chain.zip(ancestor))
    }

    /// Goes on with a branch if it holds the word of somebody who owns the room in every light: where the
    /// branches part, in what we hold, and where the word stands.
    fn resume(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        branch: &Branch,
        (log, shared): (LogId, u64),
    ) -> Result<(), EngineError> {
        let Some((chain, ancestor)) = Self::fold_branch(tx, room, branch, (log, shared))? else {
            return Ok(());
        };
        let (point, Some(ours)) = (end_of(tx.store(), &log)?, room.chain.clone()) else {
            return Ok(());
        };
        let is_owner = |chain: &Chain, user| chain.state().role(&user) == Some(Role::Owner);
        let parted = ancestor.head().0 + 1;
        let resumes = |event: &RoomEvent| -> Result<bool, EngineError> {
            let (Act::Resume { log: named, length, hash }, Some(user)) =
                (event.act(), event.actor().user())
            else {
                return Ok(false);
            };
            // One that we have settled has had its effect: it leads into no other branch. The owner may have
            // read more of what is abandoned than we did, or less: what we have of it must be the same.
            let is_ours = *named == log
                && !ours.knows(&event.hash())
                && *length > shared
                && (*length > point.length || hash_at(tx.store(), &log, *length)? == Some(*hash));
            // Where it stands its author owns the room, or it would not be in the chain.
            Ok(is_ours && is_owner(&ancestor, user) && is_owner(&ours, user))
        };
        let mut is_resumed = false;
        for event in chain.events_from(parted) {
            is_resumed |= resumes(event)?;
        }
        if !is_resumed {
            return Ok(());
        }
        let relay = tx.profile()?.relay;
        let Ok(head) = branch.check(&relay) else { return Ok(()) };
        for later in room.logs().into_iter().skip_while(|other| *other != log).skip(1) {
            tx.delete_log(&later, 0)?;
        }
        tx.delete_log(&log, shared)?;
        let mut hash = hash_at(tx.store(), &log, shared)?.unwrap_or(head.hash);
        let skip = usize::try_from(shared).unwrap_or(usize::MAX);
        for (number, entry) in (shared..).zip(branch.entries.iter().skip(skip)) {
            hash = hash.then(entry);
            let head = (number + 1 == head.length).then(|| branch.head.clone());
            tx.save_log_entry(&log, number, &LogEntry { entry: entry.clone(), hash, head });
        }
        room.row.log = Some(LogPoint { id: log, length: head.length, hash: head.hash });
        room.row.head = Some(branch.head.clone());
        room.row.forked = false;
        room.row.attempt.clear();
        room.switch(chain, parted);
        let own = tx.profile()?.user();
        let lost: Vec<RoomEvent> = ours.events_from(parted).cloned().collect();
        // What we did there and still may do, we do again.
        for event in lost.iter().filter(|event| event.actor().user() == Some(own)) {
            if !matches!(
                event.act(),
                Act::Move(_) | Act::Checkpoint(_) | Act::Resume { .. } | Act::Join | Act::Leave
            ) {
                room.push_intent(event.act().clone());
            }
        }
        tx.event(Event::RoomResumed { room: room.reference(), lost });
        Self::settle_standing(room, &own);
        let sync = self.rooms.sync(&room.id());
        (sync.fresh, sync.refused, sync.last_conflict) = (false, false, None);
        sync.looks.clear();
        Ok(())
    }

    /// The owner goes on in the relay's branch, and has the others go on there.
    fn sign_resume(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        branch: &Branch,
        (log, shared): (LogId, u64),
    ) -> Result<(), EngineError> {
        let id = room.id();
        let point = end_of(tx.store(), &log)?;
        let Some((chain, ancestor)) = Self::fold_branch(tx, room, branch, (log, shared))? else {
            self.finish_resume(tx, room, Err(RoomFailure::NotForked));
            return Ok(());
        };
        if chain.state().register().is_some_and(|register| LogId::from(register) != log) {
            self.finish_resume(tx, room, Err(RoomFailure::MovedOn));
            return Ok(());
        }
        let profile = tx.profile()?;
        let (Some(actor), Some(signer)) = (own_actor(&profile), signer(&profile)) else {
            return Err(EngineError::AccountClosed);
        };
        let act = Act::Resume { log, length: point.length, hash: point.hash };
        let owns = |chain: &Chain| chain.state().role(&profile.user()) == Some(Role::Owner);
        let refusal = if owns(&ancestor) && room.chain.as_ref().is_some_and(owns) {
            chain.state().check(&actor, &act).err()
        } else {
            Some(RoomError::NotAllowed(crate::membership::Refusal::RoleTooLow {
                needed: Role::Owner,
            }))
        };
        if let Some(refusal) = refusal {
            self.finish_resume(tx, room, Err(refusal.into()));
            return Ok(());
        }
        let (seq, head) = chain.head();
        let event = EventDraft { after: Some((id, seq, head)), at: tx.now, act }.sign(signer);
        let position = branch.entries.len() as u64;
        match room.row.kind {
            RoomKind::Open => {
                let signed = event.signed().clone();
                self.ask_room(tx, id, Request::AppendRoom(signed), RoomAsk::Resume { log });
            }
            RoomKind::Private => {
                let secret = room.row.secrets.iter().find(|secret| LogId::from(secret.id()) == log);
                let Some(secret) = secret.cloned() else {
                    self.finish_resume(tx, room, Err(RoomFailure::Locked));
                    return Ok(());
                };
                let events = crate::wire::room::encode_register_entry(&[event.signed()]);
                let Ok((write_key, entry, proof)) = secret.seal(position, &events, tx.rng) else {
                    self.finish_resume(tx, room, Err(RoomFailure::NotForked));
                    return Ok(());
                };
                let entry = Bytes::from(entry);
                let request = Request::AppendRegister { write_key, position, entry, proof };
                self.ask_room(tx, id, request, RoomAsk::Resume { log });
            }
        }
        Ok(())
    }

    /// The word of ours stands in the other branch: read again, it is gone on with.
    pub(super) fn resume_appended(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &Room,
        log: LogId,
        answer: &Answer,
    ) -> Result<(), EngineError> {
        match answer {
            Answer::Appended(_) => {
                self.finish_resume(tx, room, Ok(()));
                self.rooms.sync(&room.id()).evidence = Some(Evidence::of(log));
                Ok(())
            }
            Answer::Failure(Failure { code: ErrorCode::Conflict, .. }) => {
                // Somebody was faster there: read to its end and signed anew, by the person's wish only.
                self.finish_resume(tx, room, Err(RoomFailure::Refused(ErrorCode::Conflict)));
                Ok(())
            }
            Answer::Failure(Failure { code, .. }) => {
                self.finish_resume(tx, room, Err(RoomFailure::Refused(*code)));
                Ok(())
            }
            _ => Err(EngineError::RelayMisbehaved),
        }
    }

    fn finish_resume(&mut self, tx: &mut Tx<'_, '_>, room: &Room, result: Result<(), RoomFailure>) {
        if let Some(ticket) = self.rooms.sync(&room.id()).resumes.take() {
            tx.event(Event::RoomDone { ticket, result: result.map(|()| room.id()) });
        }
    }

    /// A person who owns a room that the relay was set back in goes on with what the relay has.
    pub(in crate::engine) fn resume_room(
        &mut self,
        tx: &mut Tx<'_, '_>,
        ticket: u64,
        id: crate::ids::RoomId,
    ) -> Result<(), EngineError> {
        if self.link == super::super::Link::Offline {
            return Err(EngineError::Offline);
        }
        match self.look_room(tx, &id, |room| room.row.forked)? {
            None => return Err(RoomFailure::UnknownRoom.into()),
            Some(false) => return Err(RoomFailure::NotForked.into()),
            Some(true) => {}
        }
        let proof = fork_proof(tx.store(), &id)?.and_then(|proof| proof.check().ok());
        let current = self.look_room(tx, &id, Room::current_log)?.flatten();
        let log = proof.map(|(log, _)| log).or(current);
        let sync = self.rooms.sync(&id);
        sync.resumes = Some(ticket);
        if let Some(log) = log {
            sync.look_for_evidence(log);
        }
        self.rooms.touch(&id, Freshness::Same);
        self.drive_rooms(tx)
    }

    /// Holds what a member says to have read against what we read; tells whether it contradicts it.
    pub(super) fn contradicts(
        tx: &Tx<'_, '_>,
        room: &Room,
        said: &LogPoint,
    ) -> Result<bool, EngineError> {
        let known = hash_at(tx.store(), &said.id, said.length)?;
        // Whose log it is takes the whole chain to tell: asked last.
        let differs = known.is_some_and(|known| known != said.hash);
        Ok(differs && room.logs().contains(&said.id))
    }

    /// A member shows what the relay signed for them.
    pub(super) fn take_shown_log(
        &mut self,
        tx: &mut Tx<'_, '_>,
        room: &mut Room,
        shown: ShownLog,
    ) -> Result<(), EngineError> {
        let relay = tx.profile()?.relay;
        let Ok(head) = LogHead::verify(&shown.head, &relay) else { return Ok(()) };
        let point = LogPoint { id: head.log, length: head.length, hash: head.hash };
        // A branch that the owner has left behind in this log is no news.
        let is_left_behind = room
            .chain
            .iter()
            .flat_map(|chain| chain.events_from(0))
            .any(|event| matches!(event.act(), Act::Resume { log, .. } if *log == head.log));
        if is_left_behind || !Self::contradicts(tx, room, &point)? {
            return Ok(());
        }
        if !std::mem::replace(&mut room.row.forked, true) {
            tx.event(Event::RoomForked { room: room.reference() });
        }
        let Some(ours) = own_branch(tx.store(), &head.log)? else { return Ok(()) };
        let from = usize::try_from(shown.from).unwrap_or(usize::MAX);
        let mut entries: Vec<Bytes> = ours.entries.iter().take(from).cloned().collect();
        entries.extend(shown.entries);
        let theirs = Branch { head: shown.head, entries };
        let proof = ForkProof { relay, ours, theirs };
        if proof.check().is_ok() {
            tx.save_fork(&room.id(), encode_fork_proof(&proof));
        }
        Ok(())
    }

    /// Shows a member how a log goes on, as far as that fits a message.
    pub(super) fn log_to_show(
        tx: &Tx<'_, '_>,
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
        let entries: Vec<Bytes> =
            entries_from(tx.store(), log, from)?.into_iter().map(|entry| entry.entry).collect();
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
