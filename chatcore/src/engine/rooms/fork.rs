//! Forks: another branch of a log is read as evidence, kept as a proof, and followed if the owner says so.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::super::error::EngineError;
use super::super::event::Event;
use super::super::transaction::Transaction;
use super::acts::{own_actor, signer};
use super::loaded::Room;
use super::log::{Evidence, Page, Reader, end_of, entries_from, hash_at};
use super::sync::Ordering;
use super::{Freshness, RoomAsk, RoomFailure, Rooms};
use crate::ids::{LogHash, LogId, RegisterId, RoomId, UserId};
use crate::keys::Signed;
use crate::membership::{
    Act, Branch, Chain, Event as RoomEvent, EventDraft, ForkProof, LogHead, Refusal, Role,
    RoomError, RoomKind,
};
use crate::store::Store;
use crate::store::row::ReadRows;
use crate::store::rows::LogEntry;
use crate::wire::content::{LogPoint, ShownLog};
use crate::wire::relay::{Answer, Failure, More, Request};
use crate::wire::room::encode_register_entry;

/// Most bytes of another branch that are read and kept: the size of the largest log.
const MAX_EVIDENCE: usize = 128 << 20;

/// Returns everything that we were shown of a log.
fn own_branch<S: ReadRows + ?Sized>(store: &S, log: &LogId) -> Result<Option<Branch>, EngineError> {
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
pub fn fork_proof(store: &dyn Store, room: &RoomId) -> Result<Option<ForkProof>, EngineError> {
    Ok(store.get(room)?)
}

/// Returns the end of the branch that others hold, by the proof that is kept, if we are in the one that the
/// relay goes on with.
fn left_branch(
    tx: &Transaction<'_, '_>,
    room: &RoomId,
    log: LogId,
) -> Result<Option<LogPoint>, EngineError> {
    let Some(proof) = tx.get::<ForkProof>(room)? else { return Ok(None) };
    for branch in [&proof.theirs, &proof.ours] {
        let Ok(end) = branch.check(&proof.relay) else { continue };
        if end.log == log && hash_at(tx, &end.log, end.length)? != Some(end.hash) {
            return Ok(Some(LogPoint { id: end.log, length: end.length, hash: end.hash }));
        }
    }
    Ok(None)
}

/// The place where the relay's branch of a log parts from ours.
struct Parting {
    log: LogId,
    /// Entries that both have.
    shared: u64,
    /// The room as the relay's branch has it.
    chain: Chain,
    /// The room after the last shared entry.
    ancestor: Chain,
    /// Entries of ours in the relay's branch.
    of_ours: u32,
}

fn is_owner(chain: &Chain, user: UserId) -> bool {
    chain.state().role(&user) == Some(Role::Owner)
}

impl Parting {
    /// Folds a branch; `None` if the room does not begin in it.
    fn find(
        tx: &Transaction<'_, '_>,
        room: &Room,
        branch: &Branch,
        log: LogId,
        shared: u64,
    ) -> Result<Option<Self>, EngineError> {
        let Some(ours) = &room.chain else { return Ok(None) };
        let mut chain = ours.first(room.events_before(&log)).ok();
        let reader = Reader::new(tx, &room.row, log)?;
        let shared_count = usize::try_from(shared).unwrap_or(usize::MAX);
        let mut entries = (0..).zip(&branch.entries);
        let mut of_ours = reader.fold(&mut chain, entries.by_ref().take(shared_count));
        let ancestor = chain.clone();
        of_ours += reader.fold(&mut chain, entries);
        Ok(chain.zip(ancestor).map(|(chain, ancestor)| Self {
            log,
            shared,
            chain,
            ancestor,
            of_ours,
        }))
    }

    /// Tells whether the branch holds a resume that we follow: by somebody who owns the room where the
    /// branches part, in our own state, and where it stands.
    fn is_resumed(&self, tx: &Transaction<'_, '_>, room: &Room) -> Result<bool, EngineError> {
        let Some(ours) = &room.chain else { return Ok(false) };
        if !(ours.state().version().is_known() && self.chain.state().version().is_known()) {
            // Who owns the room can't be told.
            return Ok(false);
        }
        let end = end_of(tx, &self.log)?;
        for event in self.chain.events_from(self.ancestor.head().0 + 1) {
            let (Act::Resume { log, length, hash }, Some(user)) =
                (event.act(), event.actor().user())
            else {
                continue;
            };
            // A resume that we have settled has had its effect: it leads into no other branch. The owner
            // may have read more of what is abandoned than we did, or less: our part must be the same.
            let is_ours = *log == self.log
                && !ours.knows(&event.hash())
                && *length > self.shared
                && (*length > end.length || hash_at(tx, log, *length)? == Some(*hash));
            // Where it stands its author owns the room, or it would not be in the chain.
            if is_ours && is_owner(&self.ancestor, user) && is_owner(ours, user) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Signs a resume at the end of the branch.
    ///
    /// # Errors
    /// [`EngineError::Room`] when the rules or the keys do not allow it.
    fn resume_request(
        &self,
        tx: &mut Transaction<'_, '_>,
        room: &Room,
        branch: &Branch,
    ) -> Result<Request, EngineError> {
        let (log, profile) = (self.log, tx.profile()?);
        if self.chain.state().register().is_some_and(|register| LogId::from(register) != log) {
            return Err(RoomFailure::MovedOn.into());
        }
        let (Some(actor), Some(signer)) = (own_actor(&profile), signer(&profile)) else {
            return Err(EngineError::AccountClosed);
        };
        let owns = |chain: &Chain| is_owner(chain, profile.user());
        if !owns(&self.ancestor) || !room.chain.as_ref().is_some_and(owns) {
            let refusal = Refusal::RoleTooLow { needed: Role::Owner };
            return Err(RoomFailure::from(RoomError::NotAllowed(refusal)).into());
        }
        let end = end_of(&*tx, &log)?;
        let act = Act::Resume { log, length: end.length, hash: end.hash };
        self.chain.state().check(&actor, &act).map_err(RoomFailure::from)?;
        let (seq, head) = self.chain.head();
        let event =
            EventDraft { after: Some((room.id(), seq, head)), at: tx.now, act }.sign(signer);
        if room.row.kind == RoomKind::Open {
            return Ok(Request::AppendRoom(event.signed().clone()));
        }
        let secret = room
            .row
            .secret_of(&RegisterId::from_bytes(*log.as_bytes()))
            .ok_or(RoomFailure::Locked)?;
        let position = branch.entries.len() as u64;
        let events = encode_register_entry(&[event.signed()]);
        let (write_key, entry, proof) =
            secret.seal(position, &events, tx.rng).map_err(|_| EngineError::RelayMisbehaved)?;
        Ok(Request::AppendRegister { write_key, position, entry: entry.into(), proof })
    }
}

impl Rooms {
    /// Asks for the next page of another branch, from its beginning.
    pub(super) fn ask_for_evidence(&mut self, tx: &mut Transaction<'_, '_>, room: &Room) -> bool {
        let sync = self.sync(&room.id());
        let Some(evidence) = &sync.search else { return false };
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
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        answer: Answer,
    ) -> Result<(), EngineError> {
        let sync = self.sync(&room.id());
        let from = sync.search.as_ref().map_or(0, |evidence| evidence.entries.len() as u64);
        let page = match answer {
            Answer::RegisterEntries { length, entries, head } => Page { head, entries, length },
            Answer::RoomData { events, head, more, .. } => {
                Self::page_of_events(from, &events, head, more == More::Yes)
            }
            Answer::Failure(failure) => {
                sync.search = None;
                sync.ordering = Ordering::Refused;
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
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        page: Page,
    ) -> Result<(), EngineError> {
        let id = room.id();
        let Some(mut evidence) = self.sync(&id).search.take() else { return Ok(()) };
        let is_empty = page.entries.is_empty();
        for entry in page.entries {
            evidence.hash = evidence.hash.then(&entry);
            evidence.size += entry.len();
            evidence.entries.push(entry);
        }
        let relay = tx.profile()?.relay;
        let head = LogHead::verify(&page.head, &relay).map_err(|_| EngineError::RelayMisbehaved)?;
        // A head without the entries that lead to it is no log.
        let length = evidence.entries.len() as u64;
        if (head.log, head.length, head.hash) != (evidence.log, length, evidence.hash) {
            return Err(EngineError::RelayMisbehaved);
        }
        evidence.heads.insert(evidence.entries.len(), page.head.clone());
        if page.length > length && evidence.size < MAX_EVIDENCE {
            if is_empty {
                return Err(EngineError::RelayMisbehaved);
            }
            self.sync(&id).search = Some(evidence);
            return Ok(());
        }
        let Some(ours) = own_branch(&*tx, &evidence.log)? else {
            self.finish_resume(tx, room, Err(RoomFailure::NotForked));
            return Ok(());
        };
        let theirs = Branch { head: page.head, entries: evidence.entries };
        let (proof, log) = (ForkProof { relay, ours, theirs }, evidence.log);
        match proof.check() {
            Ok((log, shared)) => self.forked(tx, room, (&proof, &evidence.heads), (log, shared)),
            Err(_) => {
                // It goes on from ours by now, or is a beginning of it.
                self.sync(&id).grow_stale();
                if let Some(left) = left_branch(tx, &id, log)? {
                    self.resume_here(tx, room, left);
                    return Ok(());
                }
                self.finish_resume(tx, room, Err(RoomFailure::NotForked));
                Ok(())
            }
        }
    }

    /// The relay showed two branches of a room, and we hold one of them.
    fn forked(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        (proof, heads): (&ForkProof, &BTreeMap<usize, Signed>),
        (log, shared): (LogId, u64),
    ) -> Result<(), EngineError> {
        let id = room.id();
        Self::tell_forked(tx, room);
        tx.put_at(&id, proof);
        let Some(parting) = Parting::find(tx, room, &proof.theirs, log, shared)? else {
            self.finish_resume(tx, room, Err(RoomFailure::NotForked));
            return Ok(());
        };
        if parting.is_resumed(tx, room)? {
            self.switch_to(tx, room, (&proof.theirs, heads), parting)
        } else if self.sync(&id).resumes.is_some() {
            self.sign_resume(tx, room, &proof.theirs, &parting)
        } else {
            Ok(())
        }
    }

    fn tell_forked(tx: &mut Transaction<'_, '_>, room: &mut Room) {
        if !std::mem::replace(&mut room.row.forked, true) {
            tx.event(Event::RoomForked { room: room.reference() });
        }
    }

    /// Goes on with the relay's branch, as its owner says there.
    fn switch_to(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &mut Room,
        (branch, heads): (&Branch, &BTreeMap<usize, Signed>),
        parting: Parting,
    ) -> Result<(), EngineError> {
        let Parting { log, shared, chain, ancestor, of_ours } = parting;
        let Some(ours) = room.chain.clone() else { return Ok(()) };
        for later in room.logs().into_iter().skip_while(|other| *other != log).skip(1) {
            tx.delete_group::<LogEntry>(&later, 0)?;
        }
        tx.delete_group::<LogEntry>(&log, shared)?;
        let mut hash = LogHash::begin(&log);
        for (place, (number, entry)) in (0..).zip(&branch.entries).enumerate() {
            hash = hash.then(entry);
            if number >= shared {
                let head = heads.get(&(place + 1)).cloned();
                tx.put_at(&(log, number), &LogEntry { entry: entry.clone(), hash, head });
            }
        }
        room.row.log = Some(LogPoint { id: log, length: branch.entries.len() as u64, hash });
        room.row.head = Some(branch.head.clone());
        (room.row.forked, room.row.own_entries) = (false, of_ours);
        room.row.attempt.clear();
        let parted = ancestor.head().0 + 1;
        room.switch(chain, parted);
        let own = tx.profile()?.user();
        let lost: Vec<RoomEvent> = ours.events_from(parted).cloned().collect();
        // Our acts that we still may do, we do again.
        for event in lost.iter().filter(|event| event.actor().user() == Some(own)) {
            if !matches!(
                event.act(),
                Act::Move(_) | Act::Checkpoint(_) | Act::Resume { .. } | Act::Join | Act::Leave
            ) {
                room.push_intent(event.act().clone());
            }
        }
        tx.event(Event::RoomResumed { room: room.reference(), lost });
        self.settle_standing(tx, room, &own)?;
        self.sync(&room.id()).change_branch();
        Ok(())
    }

    /// The owner goes on in the relay's branch, and has the others go on there.
    fn sign_resume(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &Room,
        branch: &Branch,
        parting: &Parting,
    ) -> Result<(), EngineError> {
        match parting.resume_request(tx, room, branch) {
            Ok(request) => {
                let ask = RoomAsk::Resume { log: parting.log };
                self.ask_room(tx, room.id(), request, ask);
                Ok(())
            }
            Err(EngineError::Room(failure)) => {
                self.finish_resume(tx, room, Err(failure));
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// The word of ours stands in the other branch: read again, it is gone on with.
    pub(super) fn resume_appended(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &Room,
        log: LogId,
        answer: &Answer,
    ) -> Result<(), EngineError> {
        match answer {
            Answer::Appended(_) => {
                self.finish_resume(tx, room, Ok(()));
                self.sync(&room.id()).search = Some(Evidence::of(log));
                Ok(())
            }
            // On a conflict somebody was faster there: signed again by the person's wish only.
            Answer::Failure(Failure { code, .. }) => {
                self.finish_resume(tx, room, Err(RoomFailure::Refused(*code)));
                Ok(())
            }
            _ => Err(EngineError::RelayMisbehaved),
        }
    }

    /// The room goes on where we are, and others hold a branch that the relay lost: they are led back.
    fn resume_here(&mut self, tx: &mut Transaction<'_, '_>, room: &mut Room, left: LogPoint) {
        let Some(ticket) = self.sync(&room.id()).resumes.take() else { return };
        if room.current_log() != Some(left.id) {
            let result = Err(RoomFailure::MovedOn);
            tx.event(Event::RoomDone { ticket, result });
            return;
        }
        let LogPoint { id: log, length, hash } = left;
        let number = room.push_intent(Act::Resume { log, length, hash });
        self.tickets.insert((room.id(), number), ticket);
        self.sync(&room.id()).try_again();
    }

    fn finish_resume(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        room: &Room,
        result: Result<(), RoomFailure>,
    ) {
        if let Some(ticket) = self.sync(&room.id()).resumes.take() {
            tx.event(Event::RoomDone { ticket, result: result.map(|()| room.id()) });
        }
    }

    /// A person who owns a room that the relay was set back in goes on with what the relay has.
    pub(in crate::engine) fn resume_room(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        ticket: u64,
        id: RoomId,
    ) -> Result<(), EngineError> {
        tx.needs_relay()?;
        match self.look_room(tx, &id, |room| room.row.forked)? {
            None => return Err(RoomFailure::UnknownRoom.into()),
            Some(false) => return Err(RoomFailure::NotForked.into()),
            Some(true) => {}
        }
        let proof = tx.get::<ForkProof>(&id)?.and_then(|proof| proof.check().ok());
        let current = self.look_room(tx, &id, Room::current_log)?.flatten();
        let log = proof.map(|(log, _)| log).or(current);
        let sync = self.sync(&id);
        sync.resumes = Some(ticket);
        if let Some(log) = log {
            sync.look_for_evidence(log);
        }
        self.touch(&id, Freshness::Same);
        self.drive_rooms(tx)
    }

    /// Holds what a member says to have read against what we read; tells whether it contradicts it.
    pub(super) fn contradicts(
        tx: &Transaction<'_, '_>,
        room: &Room,
        said: &LogPoint,
    ) -> Result<bool, EngineError> {
        let known = hash_at(tx, &said.id, said.length)?;
        // Whose log it is takes the whole chain to tell: asked last.
        let differs = known.is_some_and(|known| known != said.hash);
        Ok(differs && room.logs().contains(&said.id))
    }

    /// A member shows what the relay signed for them.
    pub(super) fn take_shown_log(
        &mut self,
        tx: &mut Transaction<'_, '_>,
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
        Self::tell_forked(tx, room);
        let Some(ours) = own_branch(&*tx, &head.log)? else { return Ok(()) };
        let from = usize::try_from(shown.from).unwrap_or(usize::MAX);
        let mut entries: Vec<Bytes> = ours.entries.iter().take(from).cloned().collect();
        entries.extend(shown.entries);
        let theirs = Branch { head: shown.head, entries };
        let proof = ForkProof { relay, ours, theirs };
        if proof.check().is_ok() {
            tx.put_at(&room.id(), &proof);
        }
        Ok(())
    }
}
