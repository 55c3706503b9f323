//! The own account: registration, login, prekeys, certificates, nickname.

use super::tx::{Context, Tx};
use super::{Engine, EngineError, Event, Link, Pending, QUERY_EVERY, Step};
use crate::agreement::publish_prekey;
use crate::ids::{DAY, DeviceId, InviteToken, PrekeyId, Timestamp};
use crate::keys::{
    CERT_RENEWAL, DeviceCert, DeviceKeys, IdentityKeyPair, Nickname, PrekeyKind, PrekeySecret,
    RelayKey, Signed, UserRecord,
};
use crate::store::rows::Profile;
use crate::wire::relay::{DeviceFrame, Failure, LoggedIn, Request};

/// One-time prekeys that a device keeps at the relay.
const ONE_TIME_PREKEYS: u32 = 20;
/// Below this many they are refilled.
const REFILL_BELOW: u32 = 10;
/// Milliseconds after which the last-resort prekey is replaced.
const LAST_RESORT_ROTATION: u64 = 7 * DAY;
/// Milliseconds a secret is kept after its prekey can't be claimed any more: a first message to it
/// may wait that long at the relay.
const KEEP_SECRET: u64 = 30 * DAY;

/// What a new profile is made of.
#[derive(Debug, Clone)]
pub struct NewProfile {
    /// The person's name.
    pub nickname: Nickname,
    /// The relay's pinned key.
    pub relay: RelayKey,
    /// `HOST:PORT`.
    pub address: String,
    /// From the invite link.
    pub token: Option<InviteToken>,
}

impl NewProfile {
    /// Makes all keys; the step's changes are the new profile.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn create(self, context: &mut Context<'_>) -> Result<Step, EngineError> {
        let mut tx = Tx::new(context);
        let identity = IdentityKeyPair::generate(tx.rng);
        let device = DeviceKeys::generate(DeviceId::FIRST, tx.rng);
        let cert = device.certify(&identity, tx.now);
        let record = UserRecord::first(&identity, self.nickname, cert);
        tx.save_profile(&Profile {
            identity,
            device,
            record,
            pending_record: None,
            relay: self.relay,
            address: self.address,
            token: self.token,
            registered: false,
            next_prekey_id: 1,
            last_resort: None,
            swept_at: tx.now,
        });
        tx.finish()
    }
}

/// A link used again on a profile that exists.
#[derive(Debug, Clone)]
pub struct Rejoin {
    /// Another name; only before the relay knows the profile.
    pub nickname: Option<Nickname>,
    /// The relay's pinned key.
    pub relay: RelayKey,
    /// `HOST:PORT`.
    pub address: String,
    /// From the invite link.
    pub token: Option<InviteToken>,
}

impl Rejoin {
    /// Changes the address; before registration also relay, token and name.
    ///
    /// # Errors
    /// [`EngineError::OtherRelay`] once the profile is registered elsewhere.
    pub fn apply(self, context: &mut Context<'_>) -> Result<Step, EngineError> {
        let mut tx = Tx::new(context);
        let mut profile = tx.profile()?;
        if profile.registered && profile.relay != self.relay {
            return Err(EngineError::OtherRelay);
        }
        profile.address = self.address;
        if !profile.registered {
            profile.relay = self.relay;
            profile.token = self.token;
            if let Some(nickname) = self.nickname {
                let cert = profile.device.certify(&profile.identity, tx.now);
                profile.record = UserRecord::first(&profile.identity, nickname, cert);
            }
        }
        tx.save_profile(&profile);
        tx.finish()
    }
}

impl Engine {
    /// Returns the frame that goes into the handshake: a login, or a registration.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn first_request(&mut self, context: &mut Context<'_>) -> Result<DeviceFrame, EngineError> {
        let tx = Tx::new(context);
        let profile = tx.profile()?;
        let request = if profile.registered {
            Request::Login
        } else {
            let record = profile.record.signed().clone();
            Request::Register { token: profile.token, record }
        };
        self.disconnected();
        let request_id = self.next_request;
        self.next_request += 1;
        self.pending.insert(request_id, Pending::Login);
        Ok(DeviceFrame { request_id, request })
    }

    pub(super) fn logged_in(
        &mut self,
        tx: &mut Tx<'_, '_>,
        login: &LoggedIn,
    ) -> Result<(), EngineError> {
        let mut profile = tx.profile()?;
        if login.address != profile.own_address() {
            return Err(EngineError::RelayMisbehaved);
        }
        self.link = Link::Online;
        self.undelivered = login.queued;
        self.next_query = tx.now.plus(QUERY_EVERY);
        if !profile.registered {
            profile.registered = true;
            profile.token = None;
        }
        tx.event(Event::Connected { queued: login.queued });
        if tx.now.since(profile.swept_at) >= DAY {
            profile.swept_at = tx.now;
            drop_old_prekeys(tx)?;
            tx.forget_seen()?;
        }
        self.settle_record(tx, &mut profile, login.record_version)?;
        self.top_up_prekeys(tx, &mut profile, login)?;
        tx.save_profile(&profile);
        self.drive_outbox(tx)
    }

    /// Goes on with a record whose update was cut off, or renews the certificate.
    fn settle_record(
        &mut self,
        tx: &mut Tx<'_, '_>,
        profile: &mut Profile,
        version_at_relay: u64,
    ) -> Result<(), EngineError> {
        if let Some(pending) = profile.pending_record.take() {
            if version_at_relay == pending.version() {
                return self.adopt_record(tx, profile, pending);
            }
            self.submit_record(tx, profile, pending);
            return Ok(());
        }
        let Some(cert) = profile.cert() else {
            return Ok(());
        };
        if tx.now.since(cert.issued_at()) >= CERT_RENEWAL {
            let renewed = profile.device.certify(&profile.identity, tx.now);
            let nickname = profile.record.nickname().clone();
            let record = profile.record.next(&profile.identity, nickname, vec![renewed]);
            self.submit_record(tx, profile, record);
        }
        Ok(())
    }

    fn submit_record(&mut self, tx: &mut Tx<'_, '_>, profile: &mut Profile, record: UserRecord) {
        let request = Request::UpdateRecord(record.signed().clone());
        profile.pending_record = Some(record);
        self.ask(tx, request, Pending::UpdateRecord);
    }

    pub(super) fn record_updated(&mut self, tx: &mut Tx<'_, '_>) -> Result<(), EngineError> {
        let mut profile = tx.profile()?;
        if let Some(pending) = profile.pending_record.take() {
            self.adopt_record(tx, &mut profile, pending)?;
            tx.save_profile(&profile);
        }
        Ok(())
    }

    fn adopt_record(
        &mut self,
        tx: &mut Tx<'_, '_>,
        profile: &mut Profile,
        record: UserRecord,
    ) -> Result<(), EngineError> {
        let renamed = profile.record.nickname() != record.nickname();
        let recertified = profile.cert().map(DeviceCert::hash)
            != record.device(profile.device.id).map(DeviceCert::hash);
        profile.record = record;
        if recertified {
            self.publish(tx, profile, ONE_TIME_PREKEYS, LastResort::Replace)?;
        }
        if renamed {
            tx.event(Event::Renamed(profile.record.nickname().clone()));
            self.tell_contacts(tx, profile)?;
        }
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        tx: &mut Tx<'_, '_>,
        nickname: Nickname,
    ) -> Result<(), EngineError> {
        let mut profile = tx.profile()?;
        if !profile.registered {
            // Nobody has seen version 1 yet.
            let cert = profile.device.certify(&profile.identity, tx.now);
            profile.record = UserRecord::first(&profile.identity, nickname.clone(), cert);
            tx.event(Event::Renamed(nickname));
            tx.save_profile(&profile);
            return Ok(());
        }
        if self.link == Link::Offline {
            return Err(EngineError::Offline);
        }
        let devices = profile.record.devices().to_vec();
        let record = profile.record.next(&profile.identity, nickname, devices);
        self.submit_record(tx, &mut profile, record);
        tx.save_profile(&profile);
        Ok(())
    }

    pub(super) fn close_account(&mut self, tx: &mut Tx<'_, '_>) -> Result<(), EngineError> {
        if self.link == Link::Offline {
            return Err(EngineError::Offline);
        }
        let profile = tx.profile()?;
        let nickname = profile.record.nickname().clone();
        let record = profile.record.next(&profile.identity, nickname, Vec::new());
        let request = Request::CloseAccount(record.signed().clone());
        self.ask(tx, request, Pending::CloseAccount);
        Ok(())
    }

    fn top_up_prekeys(
        &mut self,
        tx: &mut Tx<'_, '_>,
        profile: &mut Profile,
        login: &LoggedIn,
    ) -> Result<(), EngineError> {
        let missing = match login.one_time_prekeys {
            left if left < REFILL_BELOW => ONE_TIME_PREKEYS - left,
            _ => 0,
        };
        let last_resort = match profile.last_resort {
            Some((id, at))
                if login.last_resort == Some(id) && tx.now.since(at) < LAST_RESORT_ROTATION =>
            {
                LastResort::Keep
            }
            _ => LastResort::Replace,
        };
        if missing > 0 || last_resort == LastResort::Replace {
            self.publish(tx, profile, missing, last_resort)?;
        }
        Ok(())
    }

    /// Makes prekeys, keeps their secrets, and uploads them.
    fn publish(
        &mut self,
        tx: &mut Tx<'_, '_>,
        profile: &mut Profile,
        one_time: u32,
        last_resort: LastResort,
    ) -> Result<(), EngineError> {
        let mut records = Vec::new();
        for _ in 0..one_time {
            records.extend(make_prekey(tx, profile, PrekeyKind::OneTime).map(|(_, r)| r));
        }
        if last_resort == LastResort::Replace {
            if let Some((old, _)) = profile.last_resort
                && let Some((secret, None)) = tx.prekey(old)?
            {
                tx.save_prekey(&secret, Some(tx.now));
            }
            if let Some((id, record)) = make_prekey(tx, profile, PrekeyKind::LastResort) {
                profile.last_resort = Some((id, tx.now));
                records.push(record);
            }
        }
        self.ask(tx, Request::UploadPrekeys(records), Pending::UploadPrekeys);
        Ok(())
    }
}

fn drop_old_prekeys(tx: &mut Tx<'_, '_>) -> Result<(), EngineError> {
    for (prekey, replaced_at) in tx.prekeys()? {
        let end = match prekey.kind {
            PrekeyKind::OneTime => Some(prekey.not_after),
            PrekeyKind::LastResort => replaced_at,
        };
        if end.is_some_and(|end| tx.now >= end.plus(KEEP_SECRET)) {
            tx.delete_prekey(prekey.id);
        }
    }
    Ok(())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LastResort {
    Keep,
    Replace,
}

fn make_prekey(
    tx: &mut Tx<'_, '_>,
    profile: &mut Profile,
    kind: PrekeyKind,
) -> Option<(PrekeyId, Signed)> {
    let cert = profile.cert()?.clone();
    let id = PrekeyId(profile.next_prekey_id);
    profile.next_prekey_id += 1;
    let secret = PrekeySecret::generate(id, kind, &cert, tx.now, tx.rng);
    let own = profile.own_address();
    let record = publish_prekey(&profile.relay, own, &profile.device, &cert, &secret).ok()?;
    tx.save_prekey(&secret, None::<Timestamp>);
    Some((id, record.signed().clone()))
}

/// The relay refused a new version of our record: the old one stays.
pub(super) fn record_refused(tx: &mut Tx<'_, '_>, failure: Failure) -> Result<(), EngineError> {
    let mut profile = tx.profile()?;
    profile.pending_record = None;
    tx.save_profile(&profile);
    tx.event(Event::RequestRefused(failure));
    Ok(())
}
