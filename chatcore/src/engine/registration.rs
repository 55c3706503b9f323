//! From a connection to a relay that knows us: registration, login, and what stands in their way.

use rand::{CryptoRng, RngExt};

use super::Engine;
use super::account::{drop_old_prekeys, settle_record, top_up_prekeys};
use super::clock::is_due;
use super::error::EngineError;
use super::event::Event;
use super::follow_ups::Tell;
use super::outbox::Overdue;
use super::requests::{Link, Pending};
use super::rooms::newest_head;
use super::step::{Context, Step};
use super::strangers::REQUEST_LIFE;
use super::transaction::Transaction;
use super::uploads::forget_offers;
use crate::ids::{DAY, DeviceId};
use crate::keys::{DeviceKeys, RecordSource, Signed, UserRecord};
use crate::store::row::ReadRows;
use crate::store::rows::{Admission, Profile, Seen};
use crate::wire::relay::{DeviceFrame, ErrorCode, Failure, LoggedIn, Request};

impl Engine {
    /// Returns the frame that goes into the handshake, a login or a registration, and what is to
    /// be saved before it leaves.
    ///
    /// # Errors
    /// [`EngineError::Revoked`], [`EngineError::Store`].
    pub fn first_request(
        &mut self,
        context: &mut Context<'_>,
    ) -> Result<(DeviceFrame, Step), EngineError> {
        self.disconnected();
        let mut tx = self.begin(context);
        let mut profile = tx.profile()?;
        if !profile.is_named_in(&profile.record) {
            return Err(EngineError::Revoked);
        }
        let logs_in = profile.admission.was_admitted() && profile.admission != Admission::Mistaken;
        let (request, pending) = if logs_in {
            (Request::Login { newest_head: newest_head(&tx)? }, Pending::Login)
        } else {
            if profile.admission == Admission::New {
                profile.admission = Admission::Sent;
                tx.put(&profile);
            }
            (registration(&profile), Pending::Register)
        };
        let frame = self.requests.ask(request, pending);
        Ok((frame, self.finish(tx)?))
    }

    /// The relay refused a login. That is its word alone: it changes nothing of what we signed.
    pub(super) fn login_refused(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        failure: Failure,
    ) -> Result<(), EngineError> {
        if failure.code != ErrorCode::NotRegistered {
            tx.event(Event::Refused(failure));
            return Ok(());
        }
        // It lost its directory, or another device took our place: our newest record brings us back,
        // or the relay shows why not.
        let mut profile = tx.profile()?;
        profile.admission = Admission::Forgotten;
        tx.put(&profile);
        tx.ask(registration(&profile), Pending::Register);
        Ok(())
    }

    /// The relay knows us by other records than the one we registered with: shows them.
    pub(super) fn superseded(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        records: Vec<Signed>,
    ) -> Result<(), EngineError> {
        let mut profile = tx.profile()?;
        let chain = UserRecord::verify_chain(records).map_err(|_| EngineError::RelayMisbehaved)?;
        let origin = match profile.admission {
            Admission::Restoring => Origin::Restored,
            _ => Origin::Admitted,
        };
        let own = Own { record: &profile.record, device: &profile.device, origin };
        let newest = match place(&own, &chain) {
            None => return Err(EngineError::RelayMisbehaved),
            Some(Place::Refused) => {
                tx.event(Event::RecordRefused {
                    user: profile.user(),
                    source: RecordSource::Directory,
                });
                tx.event(Event::Refused(ErrorCode::BadRecord.into()));
                return Ok(());
            }
            Some(Place::Named(newest)) => {
                // A later one of ours, of which the answer was lost.
                (profile.record, profile.admission) = (newest.clone(), Admission::Admitted);
                tx.put(&profile);
                tx.ask(Request::Login { newest_head: None }, Pending::Login);
                return Ok(());
            }
            Some(Place::Revoked(newest)) => {
                profile.record = newest.clone();
                tx.put(&profile);
                tx.event(Event::Revoked);
                return Ok(());
            }
            Some(Place::Behind(newest)) => newest.clone(),
        };
        // The backup is older than what happened since: goes on from there.
        if newest.device(profile.device.id).is_some() {
            profile.device.id = new_device_id(&newest, tx.rng);
        }
        let cert = profile.device.certify(&profile.identity, tx.now);
        let nickname = newest.nickname().clone();
        profile.record = newest;
        profile.record = profile.sign_next(nickname, vec![cert]);
        tx.put(&profile);
        tx.ask(registration(&profile), Pending::Register);
        Ok(())
    }

    pub(super) fn logged_in(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        login: &LoggedIn,
    ) -> Result<(), EngineError> {
        let mut profile = tx.profile()?;
        if login.address != profile.own_address() {
            return Err(EngineError::RelayMisbehaved);
        }
        tx.set_link(Link::Online);
        self.undelivered = login.queued;
        self.strangers.set_kept(login.kept);
        let is_new = matches!(profile.admission, Admission::New | Admission::Sent);
        if is_new && profile.announced == 0 {
            // What was announced before we came was not for us.
            profile.announced = login.announced;
        }
        profile.admission = Admission::Admitted;
        tx.event(Event::Connected { queued: login.queued });
        self.clock.logged_in(tx.now, login.time);
        tx.settled = self.clock.step(tx.now);
        profile.clock = self.clock;
        if is_due(profile.swept_at, DAY, tx.now) {
            profile.swept_at = tx.now;
            profile.unplaced.retain(|waiting| tx.earlier().since(waiting.at) < REQUEST_LIFE);
            profile.unplaced_told = profile.unplaced_told.min(profile.unplaced.len());
            drop_old_prekeys(tx)?;
            for seen in tx.all::<Seen>()? {
                if seen.keep_until < tx.settled {
                    tx.delete::<Seen>(&seen.hash);
                }
            }
            forget_offers(tx)?;
            self.devices.find_leaving(tx)?;
        }
        settle_record(tx, &mut profile, login.record_version)?;
        top_up_prekeys(tx, &mut profile, login)?;
        tx.put(&profile);
        self.presence.show(tx, &mut self.rooms)?;
        tx.follow.tell(Tell::Untried);
        self.uploads.find_uploads(tx)?;
        self.rooms.catch_up(tx, login.announced, login.moved)?;
        self.rooms.logged_in(tx, login.lobby)?;
        self.strangers.ask_for_kept(tx)?;
        let overdue = if self.undelivered == 0 {
            // What waits at the relay is not believed for ever.
            self.devices.forget_left(tx)?;
            Overdue::GiveUp
        } else {
            Overdue::MayCome
        };
        self.outbox.go_through(tx, overdue)
    }
}

/// By what a device finds its place among the records that the relay has of its user.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Own<'a> {
    /// The newest record that it signed or took over.
    pub(crate) record: &'a UserRecord,
    pub(crate) device: &'a DeviceKeys,
    pub(crate) origin: Origin,
}

/// Whether a device was ever let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was made of a backup, and has not been in yet.
    Restored,
    Admitted,
}

/// Where the records leave a device (PROTOCOL.md section 4, *Another device*).
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// They end before its own, or branch off: only what is newer can stand in its way.
    Refused,
    /// The newest names it.
    Named(&'a UserRecord),
    /// It was in, and the newest does not name it; or the account is closed.
    Revoked(&'a UserRecord),
    /// It has yet to come in, with a record that follows this one.
    Behind(&'a UserRecord),
}

/// Finds a device's place in a chain that was verified; `None` if that is no chain of its user.
pub(crate) fn place<'a>(own: &Own<'_>, chain: &'a [UserRecord]) -> Option<Place<'a>> {
    let is_ours = |record: &UserRecord| record.user_id() == own.record.user_id();
    let newest = chain.last().filter(|_| chain.iter().all(is_ours))?;
    let is_restored = own.origin == Origin::Restored;
    let contradicts =
        |record: &UserRecord| record.version() == own.record.version() && record != own.record;
    if newest.version() < own.record.version() || !is_restored && chain.iter().any(contradicts) {
        return Some(Place::Refused);
    }
    if own.device.is_named_in(newest) {
        return Some(Place::Named(newest));
    }
    let link = own.device.link.public();
    let names_us = |record: &UserRecord| record.devices().iter().any(|d| d.link_key() == link);
    let was_in = !is_restored || chain.iter().any(names_us);
    Some(match was_in || newest.devices().is_empty() {
        true => Place::Revoked(newest),
        false => Place::Behind(newest),
    })
}

fn registration(profile: &Profile) -> Request {
    Request::Register { token: profile.token.clone(), record: profile.record.signed().clone() }
}

/// Draws the id of a device that comes in: none that the record names, and by its size none that was
/// ever used.
pub(super) fn new_device_id(record: &UserRecord, rng: &mut dyn CryptoRng) -> DeviceId {
    loop {
        let id = DeviceId::new(rng.random());
        if let Some(id) = id.filter(|id| record.device(*id).is_none()) {
            return id;
        }
    }
}

/// The relay took this device for another one: somebody named its link key while the relay did not know it. Whoever
/// registers with the key has it, as the first thing on a connection.
pub(super) fn mistaken(tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
    let mut profile = tx.profile()?;
    profile.admission = Admission::Mistaken;
    tx.put(&profile);
    tx.event(Event::Refused(ErrorCode::NotRegistered.into()));
    Ok(())
}
