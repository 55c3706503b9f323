//! The own account: its making, prekeys, certificates, nickname, end.

use super::clock::is_due;
use super::error::EngineError;
use super::event::Event;
use super::follow_ups::Tell;
use super::requests::{Pending, Requests};
use super::step::{Context, Step};
use super::transaction::Transaction;
use crate::addresses::{RelayAddress, RelayAddresses};
use crate::agreement::publish_prekey;
use crate::ids::{DAY, DeviceId, InviteToken, PrekeyId};
use crate::keys::{
    CERT_RENEWAL, DeviceCert, DeviceKeys, IdentityKeyPair, Nickname, PrekeyKind, PrekeySecret,
    RecordSource, RelayKey, Signed, UserRecord,
};
use crate::store::row::ReadRows;
use crate::store::rows::{Admission, Clock, Lobby, PrekeyRow, Profile, Visibility};
use crate::wire::relay::{Answer, Failure, LoggedIn, Request, Who};

/// One-time prekeys that a device keeps at the relay.
const ONE_TIME_PREKEYS: u32 = 20;
/// Secrets of published prekeys that are kept.
const MAX_PREKEY_SECRETS: usize = 400;
/// Below this many they are refilled.
const REFILL_BELOW: u32 = 10;
/// Milliseconds after which the last-resort prekey is replaced.
const LAST_RESORT_ROTATION: u64 = 7 * DAY;
/// Milliseconds a secret is kept after its prekey can't be claimed any more: a first message to it
/// may wait that long at the relay.
pub(super) const KEEP_SECRET: u64 = 30 * DAY;

/// Properties of a new profile.
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
    /// Whether it joins the relay's Lobby.
    pub lobby: Lobby,
}

impl NewProfile {
    /// Makes all keys; the step's changes are the new profile.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub fn create(self, context: &mut Context<'_>) -> Result<Step, EngineError> {
        let mut tx = Transaction::new(context);
        let identity = IdentityKeyPair::generate(tx.rng);
        let device = DeviceKeys::generate(DeviceId::FIRST, tx.rng);
        let cert = device.certify(&identity, tx.now);
        let record = UserRecord::first(&identity, self.nickname, cert);
        tx.put(&Profile {
            identity,
            device,
            record,
            pending_record: None,
            relay: self.relay,
            addresses: RelayAddresses::only(self.address),
            token: self.token,
            refused_record: None,
            admission: Admission::New,
            next_prekey_id: 1,
            last_resort: None,
            swept_at: tx.now,
            clock: Clock { believed: tx.now, ..Clock::default() },
            unplaced: Vec::new(),
            unplaced_told: 0,
            visibility: Visibility::Shown,
            announced: 0,
            moved: 0,
            lobby: self.lobby,
        });
        Ok(tx.finish(&mut Requests::default()))
    }
}

/// A link used again on a profile that exists.
#[derive(Debug, Clone)]
pub struct Rejoin {
    /// Another name, for a profile that the relay does not know yet.
    pub nickname: Option<Nickname>,
    /// The relay's pinned key.
    pub relay: RelayKey,
    /// `HOST:PORT`.
    pub address: String,
    /// From the invite link.
    pub token: Option<InviteToken>,
}

impl Rejoin {
    /// Changes the address; while the relay does not know the profile also token and name, and before
    /// it ever did the relay.
    ///
    /// # Errors
    /// [`EngineError::OtherRelay`] once the profile belongs to another relay, [`EngineError::AlreadyNamed`] once the relay
    /// knows it by another name.
    pub fn apply(self, context: &mut Context<'_>) -> Result<Step, EngineError> {
        let mut tx = Transaction::new(context);
        let mut profile = tx.profile()?;
        let is_new = matches!(profile.admission, Admission::New | Admission::Sent);
        if !is_new && profile.relay != self.relay {
            return Err(EngineError::OtherRelay);
        }
        let is_named = |nickname| *profile.record.nickname() != nickname;
        if profile.admission == Admission::Admitted && self.nickname.clone().is_some_and(is_named) {
            return Err(EngineError::AlreadyNamed);
        }
        if profile.relay != self.relay {
            profile.addresses = RelayAddresses::only(self.address);
        } else if profile.addresses.newest().address != self.address {
            profile.addresses.learn(RelayAddress::given(self.address));
        }
        if profile.admission != Admission::Admitted {
            if self.token.is_some() || profile.relay != self.relay {
                profile.token = self.token;
            }
            profile.relay = self.relay;
            if let Some(nickname) = self.nickname {
                rename_unregistered(&mut profile, nickname);
            }
        }
        tx.put(&profile);
        Ok(tx.finish(&mut Requests::default()))
    }
}

/// Takes another name while the relay does not know the profile: a record that nobody can have seen is
/// made again, any other is followed by the next version.
fn rename_unregistered(profile: &mut Profile, nickname: Nickname) {
    if *profile.record.nickname() == nickname {
        return;
    }
    let devices = profile.record.devices().to_vec();
    profile.record = match (profile.admission, devices.first()) {
        (Admission::New, Some(cert)) => {
            UserRecord::first(&profile.identity, nickname, cert.clone())
        }
        _ => profile.sign_next(nickname, devices),
    };
}

/// Goes on with a record whose update was cut off, or renews the certificate.
pub(super) fn settle_record(
    tx: &mut Transaction<'_, '_>,
    profile: &mut Profile,
    version_at_relay: u64,
) -> Result<(), EngineError> {
    let expected = profile.record.version();
    if version_at_relay < expected && profile.pending_record.is_none() {
        // The relay was restored from a backup, or brought back by a device that was removed.
        let hash = profile.record.hash();
        let request = Request::UpdateRecord(profile.record.signed().clone());
        tx.ask(request, Pending::UpdateRecord { hash });
        return Ok(());
    }
    if version_at_relay > expected {
        // Ours got through and the answer was lost, or something went wrong: what counts is
        // what we signed.
        let request = Request::GetRecords { who: Who::User(profile.user()), after_version: 0 };
        tx.ask(request, Pending::OwnRecords);
        return Ok(());
    }
    if let Some(pending) = profile.pending_record.take() {
        submit_record(tx, profile, pending);
        return Ok(());
    }
    if profile.is_closing() {
        return Ok(());
    }
    let Some(cert) = profile.cert() else {
        return Ok(());
    };
    if is_due(cert.issued_at(), CERT_RENEWAL, tx.settled) {
        let renewed = profile.device.certify(&profile.identity, tx.settled);
        let nickname = profile.record.nickname().clone();
        let record = profile.sign_next(nickname, vec![renewed]);
        submit_record(tx, profile, record);
    }
    Ok(())
}

fn submit_record(tx: &mut Transaction<'_, '_>, profile: &mut Profile, record: UserRecord) {
    let (signed, hash) = (record.signed().clone(), record.hash());
    let (request, pending) = if record.devices().is_empty() {
        (Request::CloseAccount(signed), Pending::CloseAccount)
    } else {
        (Request::UpdateRecord(signed), Pending::UpdateRecord { hash })
    };
    profile.pending_record = Some(record);
    tx.ask(request, pending);
}

/// Takes over the newest record of ours that the relay has: we signed it.
pub(super) fn own_records(tx: &mut Transaction<'_, '_>, answer: Answer) -> Result<(), EngineError> {
    let Answer::Records(records) = answer else { return Ok(()) };
    let mut profile = tx.profile()?;
    let own = profile.user();
    let newest = records.into_iter().filter_map(|r| UserRecord::verify(r).ok()).next_back();
    match newest.filter(|record| record.user_id() == own) {
        Some(record) if record.version() > profile.record.version() => {
            profile.drop_settled(&record);
            if profile.is_named_in(&record) {
                adopt_record(tx, &mut profile, record)?;
            } else {
                profile.record = record;
                tx.event(Event::Revoked);
            }
            tx.put(&profile);
        }
        _ => tx.event(Event::RecordRefused { user: own, source: RecordSource::Directory }),
    }
    Ok(())
}

pub(super) fn record_updated(
    tx: &mut Transaction<'_, '_>,
    hash: &[u8; 32],
) -> Result<(), EngineError> {
    let mut profile = tx.profile()?;
    if let Some(pending) = profile.pending_record.take_if(|record| record.hash() == *hash) {
        adopt_record(tx, &mut profile, pending)?;
        tx.put(&profile);
    }
    Ok(())
}

fn adopt_record(
    tx: &mut Transaction<'_, '_>,
    profile: &mut Profile,
    record: UserRecord,
) -> Result<(), EngineError> {
    let renamed = profile.record.nickname() != record.nickname();
    let recertified = profile.cert().map(DeviceCert::hash)
        != record.device(profile.device.id).map(DeviceCert::hash);
    profile.drop_settled(&record);
    profile.record = record;
    if recertified {
        publish(tx, profile, ONE_TIME_PREKEYS, LastResort::Replace)?;
    }
    if renamed {
        tx.event(Event::Renamed(profile.record.nickname().clone()));
    }
    // Those who are told read it from the store.
    tx.put(profile);
    tx.follow.tell(Tell::Everybody);
    Ok(())
}

pub(super) fn rename(
    tx: &mut Transaction<'_, '_>,
    requests: &Requests,
    nickname: Nickname,
) -> Result<(), EngineError> {
    let mut profile = tx.profile()?;
    let is_entering = |pending: &Pending| matches!(pending, Pending::Login | Pending::Register);
    if profile.is_closing() {
        return Err(EngineError::Closing);
    }
    if profile.pending_record.is_some() || requests.is_any(is_entering) {
        return Err(EngineError::Busy);
    }
    if *profile.record.nickname() == nickname {
        tx.event(Event::Renamed(nickname));
        return Ok(());
    }
    if profile.admission != Admission::Admitted {
        rename_unregistered(&mut profile, nickname.clone());
        tx.event(Event::Renamed(nickname));
        tx.put(&profile);
        return Ok(());
    }
    tx.needs_relay()?;
    let devices = profile.record.devices().to_vec();
    let record = profile.sign_next(nickname, devices);
    submit_record(tx, &mut profile, record);
    tx.put(&profile);
    Ok(())
}

pub(super) fn close_account(tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
    tx.needs_relay()?;
    let mut profile = tx.profile()?;
    let record = match profile.pending_record.take() {
        // Asked for before: the same record again.
        Some(record) if record.devices().is_empty() => record,
        Some(_) => return Err(EngineError::Busy),
        None => profile.sign_next(profile.record.nickname().clone(), Vec::new()),
    };
    submit_record(tx, &mut profile, record);
    tx.put(&profile);
    Ok(())
}

pub(super) fn top_up_prekeys(
    tx: &mut Transaction<'_, '_>,
    profile: &mut Profile,
    login: &LoggedIn,
) -> Result<(), EngineError> {
    let missing = match login.one_time_prekeys {
        left if left < REFILL_BELOW => ONE_TIME_PREKEYS - left,
        _ => 0,
    };
    let last_resort = match profile.last_resort {
        Some((id, at))
            if login.last_resort == Some(id) && !is_due(at, LAST_RESORT_ROTATION, tx.settled) =>
        {
            LastResort::Keep
        }
        _ => LastResort::Replace,
    };
    // A relay that keeps saying "none left" must not fill our disk with secrets.
    let (missing, last_resort) = if tx.all::<PrekeyRow>()?.len() > MAX_PREKEY_SECRETS {
        (0, LastResort::Keep)
    } else {
        (missing, last_resort)
    };
    if missing > 0 || last_resort == LastResort::Replace {
        publish(tx, profile, missing, last_resort)?;
    }
    Ok(())
}

pub(super) fn upload(tx: &mut Transaction<'_, '_>, records: Vec<Signed>) {
    let pending = Pending::UploadPrekeys(records.clone());
    tx.ask(Request::UploadPrekeys(records), pending);
}

/// Makes prekeys, keeps their secrets, and uploads them.
fn publish(
    tx: &mut Transaction<'_, '_>,
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
            && let Some(PrekeyRow { secret, replaced_at: None }) = tx.get(&old)?
        {
            let replaced_at = Some(tx.begins());
            tx.put(&PrekeyRow { secret, replaced_at });
        }
        if let Some((id, record)) = make_prekey(tx, profile, PrekeyKind::LastResort) {
            profile.last_resort = Some((id, tx.settled));
            records.push(record);
        }
    }
    upload(tx, records);
    Ok(())
}

pub(super) fn drop_old_prekeys(tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
    for PrekeyRow { secret: prekey, replaced_at } in tx.all()? {
        let end = match prekey.kind {
            PrekeyKind::OneTime => Some(prekey.not_after),
            // Also one that was never replaced: what was sent with it is remembered for as long.
            PrekeyKind::LastResort => {
                Some(replaced_at.unwrap_or(prekey.not_after).min(prekey.not_after))
            }
        };
        if end.is_some_and(|end| tx.settled >= end.plus(KEEP_SECRET)) {
            tx.delete::<PrekeyRow>(&prekey.id);
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
    tx: &mut Transaction<'_, '_>,
    profile: &mut Profile,
    kind: PrekeyKind,
) -> Option<(PrekeyId, Signed)> {
    let cert = profile.cert()?.clone();
    let id = PrekeyId(profile.next_prekey_id);
    profile.next_prekey_id += 1;
    let secret = PrekeySecret::generate(id, kind, &cert, tx.settled, tx.rng);
    let own = profile.own_address();
    let record = publish_prekey(&profile.relay, own, &profile.device, &cert, &secret).ok()?;
    tx.put(&PrekeyRow { secret, replaced_at: None });
    Some((id, record.signed().clone()))
}

/// The relay refused a new version of our record: the old one counts. The relay may have kept the new
/// one all the same, so the next one follows that.
pub(super) fn record_refused(
    tx: &mut Transaction<'_, '_>,
    hash: &[u8; 32],
    failure: Failure,
) -> Result<(), EngineError> {
    let mut profile = tx.profile()?;
    if let Some(refused) = profile.pending_record.take_if(|record| record.hash() == *hash) {
        profile.refused_record = Some(refused);
        tx.put(&profile);
    }
    tx.event(Event::RequestRefused(failure));
    Ok(())
}
