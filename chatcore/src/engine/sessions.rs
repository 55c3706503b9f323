//! Which session speaks, when a new one is needed, and how it comes about.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use super::clock::{Timer, is_due};
use super::copy::QUERY_EVERY;
use super::error::EngineError;
use super::follow_ups::Tell;
use super::requests::Pending;
use super::transaction::Transaction;
use crate::agreement::{Offer, start_session_between};
use crate::ids::{DAY, DeliveryTag, DeviceAddress, SECOND, SessionId, Timestamp};
use crate::keys::{PrekeyRecord, Signed};
use crate::ratchet::Session;
use crate::store::StoreError;
use crate::store::row::ReadRows;
use crate::store::rows::{Contact, PeerDevice, TagOwner};
use crate::wire::limits::MAX_CLAIMS;
use crate::wire::relay::{ErrorCode, Request};

/// Milliseconds until prekeys that were not there are asked for again; twice as many each time.
const FIRST_CLAIM_AGAIN: u64 = 5 * SECOND;
/// Most sessions with one peer device.
const MAX_SESSIONS: usize = 5;
/// Milliseconds after which a session that was not used speaks no more.
const SESSION_LIFE: u64 = 30 * DAY;
/// Milliseconds a session of a lower generation still opens messages.
const OLD_GENERATION_LIFE: u64 = 7 * DAY;

/// Returns the tag that a peer device calls us by, a new one if there is none.
pub(super) fn incoming_tag(
    tx: &mut Transaction<'_, '_>,
    device: &mut PeerDevice,
    address: &DeviceAddress,
) -> DeliveryTag {
    if let Some(tag) = device.incoming_tag {
        return tag;
    }
    let tag = DeliveryTag::generate(tx.rng);
    device.incoming_tag = Some(tag);
    device.tag_confirmed = false;
    tx.put(&TagOwner { tag, device: *address });
    tx.has_tags_to_tell();
    tag
}

/// One of the sessions with a device, as far as the choice between them goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) id: SessionId,
    pub(crate) generation: u32,
    pub(crate) confirmed: Confirmed,
    pub(crate) used_at: Timestamp,
}

/// Whether the other side is known to have a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Confirmed {
    No,
    Yes,
}

impl From<&Session> for Confirmed {
    fn from(session: &Session) -> Self {
        if session.is_confirmed() { Self::Yes } else { Self::No }
    }
}

impl From<&Session> for Known {
    fn from(session: &Session) -> Self {
        let confirmed = Confirmed::from(session);
        let (generation, used_at) = (session.generation(), session.used_at());
        Self { id: session.id(), generation, confirmed, used_at }
    }
}

impl Known {
    const fn is_stale(&self, now: Timestamp) -> bool {
        now.since(self.used_at) >= SESSION_LIFE
    }
}

/// Returns the session to send in (PROTOCOL.md section 8). `generation` is the highest that either side has named; a
/// confirmed session needs a `tag` of the peer.
pub(crate) fn speaking(
    sessions: &[Known],
    generation: u32,
    tag: Option<DeliveryTag>,
    now: Timestamp,
) -> Option<SessionId> {
    let speaks = |known: &&Known| {
        known.generation >= generation
            && !known.is_stale(now)
            && (known.confirmed == Confirmed::No || tag.is_some())
    };
    let rank = |known: &&Known| (known.generation, known.confirmed, Reverse(known.id));
    sessions.iter().filter(speaks).max_by_key(rank).map(|known| known.id)
}

/// Returns which of the sessions with a device go once the last of them was added or confirmed (PROTOCOL.md
/// section 8).
///
/// Until somebody has answered in the new one, age deletes none: the other side may know only the former ones, and its
/// receipts come in those.
pub(crate) fn leaving(sessions: &[Known], generation: u32, now: Timestamp) -> Vec<SessionId> {
    let Some((new, former)) = sessions.split_last() else { return Vec::new() };
    let is_over = |known: &Known| {
        let is_former = known.generation < generation;
        let is_old =
            known.is_stale(now) || is_former && now.since(known.used_at) >= OLD_GENERATION_LIFE;
        is_old && new.confirmed == Confirmed::Yes
    };
    let (mut gone, mut kept): (Vec<Known>, Vec<Known>) =
        former.iter().partition(|known| is_over(known));
    kept.sort_unstable_by_key(|known| (known.generation, known.used_at, known.id));
    gone.extend(kept.drain(..kept.len().saturating_sub(MAX_SESSIONS - 1)));
    gone.into_iter().map(|known| known.id).collect()
}

fn sessions_with(
    tx: &Transaction<'_, '_>,
    device: &PeerDevice,
) -> Result<Vec<Session>, EngineError> {
    let found: Result<_, StoreError> =
        device.sessions.iter().filter_map(|id| tx.get(id).transpose()).collect();
    Ok(found?)
}

/// Returns the session to send in.
pub(super) fn sending_session(
    tx: &Transaction<'_, '_>,
    device: &PeerDevice,
) -> Result<Option<Session>, EngineError> {
    let mut sessions = sessions_with(tx, device)?;
    let known: Vec<_> = sessions.iter().map(Known::from).collect();
    let best = speaking(&known, device.generation, device.outgoing_tag, tx.settled);
    Ok(best.and_then(|id| sessions.drain(..).find(|session| session.id() == id)))
}

/// Adds a session to a device and lets those go that are over the limits.
pub(super) fn add_session(
    tx: &mut Transaction<'_, '_>,
    device: &mut PeerDevice,
    session: &Session,
) -> Result<(), EngineError> {
    device.generation = device.generation.max(session.generation());
    device.sessions.push(session.id());
    tx.put(session);
    release_sessions(tx, device)
}

/// Stores a session in which something was opened. If that is what confirmed it, sessions that it replaces go.
pub(super) fn save_opened(
    tx: &mut Transaction<'_, '_>,
    device: &mut PeerDevice,
    session: &Session,
    before: Confirmed,
) -> Result<(), EngineError> {
    tx.put(session);
    if before == Confirmed::Yes {
        return Ok(());
    }
    device.sessions.retain(|id| *id != session.id());
    device.sessions.push(session.id());
    release_sessions(tx, device)
}

/// Deletes the sessions with a device that its newest one, the last, replaces, and those over the limit.
fn release_sessions(
    tx: &mut Transaction<'_, '_>,
    device: &mut PeerDevice,
) -> Result<(), EngineError> {
    let known: Vec<_> = sessions_with(tx, device)?.iter().map(Known::from).collect();
    let leaving = leaving(&known, device.generation, tx.settled);
    for id in &leaving {
        tx.delete::<Session>(id);
    }
    device.sessions = known.iter().map(|known| known.id).collect();
    device.sessions.retain(|id| !leaving.contains(id));
    Ok(())
}

/// Which prekeys were asked for.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    claiming: BTreeSet<DeviceAddress>,
    /// Devices that had no prekeys at the relay: until when they are not asked for, and how long that was.
    claim_again: BTreeMap<DeviceAddress, (Option<Timer>, u64)>,
}

impl Sessions {
    /// Forgets what belonged to a connection.
    pub(super) fn disconnected(&mut self) {
        self.claiming.clear();
        self.claim_again.clear();
    }

    /// Tells whether no prekey is on its way.
    pub(super) fn is_settled(&self) -> bool {
        self.claiming.is_empty()
    }

    /// Returns when prekeys that were not there are asked for again.
    pub(super) fn timers(&self) -> impl Iterator<Item = Timer> {
        self.claim_again.values().filter_map(|(again, _)| *again)
    }

    /// Asks for prekeys of devices that need a session, each once.
    pub(super) fn claim(&mut self, tx: &mut Transaction<'_, '_>, devices: Vec<DeviceAddress>) {
        if !tx.is_online() {
            return;
        }
        let now = tx.now;
        let is_paused = |device: &DeviceAddress| {
            let again = self.claim_again.get(device).and_then(|(again, _)| *again);
            again.is_some_and(|again| !again.is_due(now))
        };
        let devices: Vec<_> = devices.into_iter().filter(|device| !is_paused(device)).collect();
        let fresh: Vec<_> = devices.into_iter().filter(|d| self.claiming.insert(*d)).collect();
        for batch in fresh.chunks(MAX_CLAIMS) {
            let batch = batch.to_vec();
            tx.ask(Request::ClaimPrekeys(batch.clone()), Pending::Claim(batch));
        }
    }

    pub(super) fn claimed(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        claimed: impl Iterator<Item = (DeviceAddress, Result<Signed, ErrorCode>)>,
    ) -> Result<(), EngineError> {
        let mut asked = Vec::new();
        for (address, result) in claimed {
            asked.push(address);
            let Some(mut contact) = tx.contact(&address.user)? else {
                continue;
            };
            match result {
                Ok(signed) => {
                    if start(tx, &mut contact, address, signed)? == Start::Refused {
                        tx.put(&contact);
                        // The prekey may name a certificate that is newer than what we know.
                        tx.follow.refresh.insert(address.user);
                        tx.follow.delayed.push((address, ErrorCode::BadPrekey));
                        continue;
                    }
                    self.claim_again.remove(&address);
                    let replaces = contact.device_mut(address.device).generation > 0;
                    tx.put(&contact);
                    if replaces {
                        tx.follow.renewed.push(address);
                    }
                    tx.follow.paired.insert(address);
                }
                Err(code) => {
                    if code == ErrorCode::UnknownDevice {
                        tx.follow.refresh.insert(address.user);
                    }
                    if code == ErrorCode::NoPrekey {
                        // A newcomer's are on their way.
                        let former = self.claim_again.get(&address);
                        let wait = former.map_or(FIRST_CLAIM_AGAIN, |(_, wait)| 2 * wait);
                        let wait = wait.min(QUERY_EVERY);
                        let again = Some(Timer::after(wait, tx.now));
                        self.claim_again.insert(address, (again, wait));
                    }
                    tx.follow.delayed.push((address, code));
                }
            }
        }
        for address in asked {
            self.claiming.remove(&address);
        }
        tx.follow.tell(Tell::Untried);
        Ok(())
    }

    /// Asks again for prekeys that were not there.
    pub(super) fn claim_due(&mut self, tx: &mut Transaction<'_, '_>) {
        for (device, (again, _)) in &mut self.claim_again {
            if again.take_if(|again| again.is_due(tx.now)).is_some() {
                tx.follow.seal.insert(device.user);
            }
        }
    }
}

/// Whether a session was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    Done,
    /// The prekey is not what it should be.
    Refused,
}

/// Begins a session with a device.
fn start(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    address: DeviceAddress,
    signed: Signed,
) -> Result<Start, EngineError> {
    let Some(cert) = contact.records.newest().device(address.device).cloned() else {
        return Ok(Start::Refused);
    };
    let Ok(prekey) = PrekeyRecord::verify(signed, &address.user, &cert) else {
        return Ok(Start::Refused);
    };
    let profile = tx.profile()?;
    let device = contact.device_mut(address.device);
    let delivery_tag = incoming_tag(tx, device, &address);
    let offer = Offer {
        relay: &profile.relay,
        device: &profile.device,
        record: &profile.record,
        delivery_tag,
        generation: device.generation,
    };
    let times = (tx.earlier(), tx.begins());
    let Ok(session) = start_session_between(&offer, (&cert, address), &prekey, times, tx.rng)
    else {
        return Ok(Start::Refused);
    };
    add_session(tx, device, &session)?;
    Ok(Start::Done)
}

/// Milliseconds between two resets of sessions with one device.
const RESET_EVERY: u64 = crate::ids::HOUR;

/// Tells whether a new session may replace those with a device, and notes that it does.
pub(crate) fn begin_reset(device: &mut PeerDevice, now: Timestamp) -> bool {
    if !is_due(device.last_reset_at, RESET_EVERY, now) {
        return false;
    }
    device.last_reset_at = now;
    device.generation = device.generation.saturating_add(1);
    true
}

/// Tells whether a reset by a device makes everything go out again, and notes that it does. Else a few small contents
/// would do so again and again.
pub(crate) fn heed_reset(device: &mut PeerDevice, now: Timestamp) -> bool {
    let is_heeded = is_due(device.their_reset_at, RESET_EVERY, now);
    if is_heeded {
        device.their_reset_at = now;
    }
    is_heeded
}
