//! Login, registration and user records.

use std::sync::Arc;

use chatcore::crypto::kdf::sha256;
use chatcore::ids::{DeviceAddress, InviteToken, UserId};
use chatcore::keys::{Nickname, Signed, UserRecord};
use chatcore::wire::limits::MAX_RECORDS;
use chatcore::wire::relay::{Answer, ErrorCode, Failure, LoggedIn, Who};

use super::{Caller, internal};
use crate::config::Registration;
use crate::login::{Registered, Welcome};
use crate::registry::Seat;
use crate::server::Shared;
use crate::store::Put;

/// Finds the device of a link key.
pub(crate) fn login(shared: &Arc<Shared>, link_key: &[u8; 32]) -> Result<Welcome, Failure> {
    let device = shared.stores.directory.device(link_key).map_err(internal)?;
    let address = device.ok_or(ErrorCode::NotRegistered)?;
    if shared.rights.of(&address.user).is_banned {
        return Err(ErrorCode::Banned.into());
    }
    welcome(shared, link_key, address)
}

fn welcome(
    shared: &Arc<Shared>,
    link_key: &[u8; 32],
    address: DeviceAddress,
) -> Result<Welcome, Failure> {
    shared.logins.pay(address.user, shared.clock.uptime())?;
    let stores = &shared.stores;
    let version = stores.directory.version(&address.user).map_err(internal)?;
    let prekeys = stores.prekeys.status(&address, shared.clock.now()).map_err(internal)?;
    let seat = Seat::take(shared, address);
    shared.seen.came(address.user);
    // Who was banned, or a device that was removed, meanwhile must not keep the seat.
    if shared.rights.of(&address.user).is_banned {
        return Err(ErrorCode::Banned.into());
    }
    let device = stores.directory.device(link_key).map_err(internal)?;
    if device != Some(address) {
        shared.mailboxes.remove(&address);
        return Err(ErrorCode::NotRegistered.into());
    }
    let answer = Answer::LoggedIn(LoggedIn {
        address,
        record_version: version.unwrap_or(0),
        one_time_prekeys: prekeys.one_time,
        last_resort: prekeys.last_resort,
        queued: seat.waiting.queued,
        kept: seat.waiting.kept,
        lobby: shared.lobby_for(&address.user),
        announced: stores.announcements.newest().map_err(internal)?,
        moved: stores.announcements.newest_move().map_err(internal)?,
        time: shared.clock.now(),
    });
    Ok(Welcome { seat, answer })
}

/// Takes in a new user, one who asks again with the same record, or one who comes with another
/// device; who signed on top of an older record is shown the newest ones.
pub(crate) fn register(
    shared: &Arc<Shared>,
    link_key: &[u8; 32],
    token: Option<&InviteToken>,
    record: Signed,
    from: u64,
) -> Result<Registered, Failure> {
    let now = shared.clock.now();
    shared.handshakes.pay(from, shared.clock.uptime())?;
    let directory = &shared.stores.directory;
    let record = UserRecord::verify(record).map_err(|_| ErrorCode::BadRecord)?;
    let [device] = record.devices() else {
        return Err(ErrorCode::BadRecord.into());
    };
    if device.link_key().as_bytes() != link_key {
        return Err(ErrorCode::BadRecord.into());
    }
    let address = DeviceAddress { user: record.user_id(), device: device.device_id() };
    if shared.rights.of(&address.user).is_banned {
        return Err(ErrorCode::Banned.into());
    }
    let former = newest(shared, &address.user)?;
    let mut invited = None;
    if former.is_none() {
        match shared.registration() {
            Registration::Closed => return Err(ErrorCode::RegistrationClosed.into()),
            // `InviteToken` compares in constant time.
            Registration::Invite if !is_in_time(shared, token) => {
                return Err(Failure {
                    code: ErrorCode::RateLimited,
                    limit: 0,
                    retry_after_ms: shared.invited.retry_after_ms(),
                });
            }
            Registration::Invite if token != Some(&shared.identity.token()) => {
                let found = token.and_then(|token| shared.rights.invited(token, now));
                invited = Some(found.ok_or(ErrorCode::BadToken)?);
            }
            Registration::Invite | Registration::Open => {}
        }
    }
    if let Some(former) = former.as_ref().filter(|former| former.version() < record.version()) {
        may_follow(shared, &record, former)?;
    }
    let privileges = &*shared.stores.privileges;
    if let Some(invited) = &mut invited {
        invited.store(privileges).map_err(internal)?;
    }
    let stored = directory.put(&record, link_key, now);
    if let (Ok(Put::Stored), None, Some(token)) = (&stored, &former, token) {
        // Only who came in counts.
        let _ = shared.invited.pay(key_of(token), shared.clock.uptime());
    }
    match (&stored, invited) {
        (Ok(Put::Stored), Some(mut invited)) => invited.used(),
        (_, Some(invited)) => invited.give_back(privileges),
        (_, None) => {}
    }
    match stored.map_err(internal)? {
        Put::Stored => {
            forget_former(shared, &record, former.as_ref())?;
            if former.is_none() {
                // Nobody may listen.
                let _ = shared.newcomers.send(record.nickname().clone());
                shared.metrics.registrations.inc();
            }
            welcome(shared, link_key, address).map(Registered::Welcome)
        }
        Put::Same => {
            forget_again(shared, &record)?;
            welcome(shared, link_key, address).map(Registered::Welcome)
        }
        Put::NicknameTaken => Err(ErrorCode::NicknameTaken.into()),
        Put::Refused if former.is_some() => {
            records(shared, &Who::User(address.user), 0).map(Registered::Superseded)
        }
        Put::Refused => Err(ErrorCode::BadRecord.into()),
    }
}

/// Tells whether a link may let somebody in now. One that lets nobody in is refused for that.
fn is_in_time(shared: &Shared, token: Option<&InviteToken>) -> bool {
    let Some(token) = token else { return true };
    let is_ours = *token == shared.identity.token() || shared.rights.has_invite(token);
    !is_ours || shared.invited.available(&key_of(token), shared.clock.uptime()) > 0
}

fn key_of(token: &InviteToken) -> [u8; 32] {
    sha256(&[token.as_bytes()])
}

/// Replaces the caller's record by its next version.
pub(super) fn update(
    shared: &Arc<Shared>,
    caller: &Caller,
    record: Signed,
) -> Result<Answer, Failure> {
    shared.verifications.pay(caller.address.user, shared.clock.uptime())?;
    let record = UserRecord::verify(record).map_err(|_| ErrorCode::BadRecord)?;
    let own = record.device(caller.address.device);
    let is_kept = own.is_some_and(|d| *d.link_key().as_bytes() == caller.link_key);
    if !is_kept || has_twins(&record) {
        return Err(ErrorCode::BadRecord.into());
    }
    replace(shared, caller, &record)
}

/// Ends the caller's account.
pub(super) fn close(
    shared: &Arc<Shared>,
    caller: &Caller,
    record: Signed,
) -> Result<Answer, Failure> {
    shared.verifications.pay(caller.address.user, shared.clock.uptime())?;
    let record = UserRecord::verify(record).map_err(|_| ErrorCode::BadRecord)?;
    if !record.devices().is_empty() {
        return Err(ErrorCode::BadRecord.into());
    }
    let user = caller.address.user;
    let former = newest(shared, &user)?.ok_or(ErrorCode::Internal)?;
    let follows = record.extends(&former) || record.version() > former.version();
    if record.user_id() != user || !follows {
        return Err(ErrorCode::BadRecord.into());
    }
    // Paid before anything is done.
    may_follow(shared, &record, &former)?;
    // The record is last: until then the device comes in, and repeats it if the relay died in between.
    let stores = &shared.stores;
    stores.blobs.remove_owned(&user).map_err(internal)?;
    shared.rooms.forget(&*stores.open_rooms, &user).map_err(internal)?;
    for device in former.devices() {
        let address = DeviceAddress { user, device: device.device_id() };
        stores.prekeys.retain(&address, None).map_err(internal)?;
    }
    let answer = put(shared, caller, &record, &former)?;
    shared.seen.forget(&user);
    // Also what another device did in between.
    shared.rooms.forget(&*stores.open_rooms, &user).map_err(internal)?;
    stores.blobs.remove_owned(&user).map_err(internal)?;
    Ok(answer)
}

fn replace(shared: &Shared, caller: &Caller, record: &UserRecord) -> Result<Answer, Failure> {
    let user = caller.address.user;
    if record.user_id() != user {
        return Err(ErrorCode::BadRecord.into());
    }
    let former = newest(shared, &user)?.ok_or(ErrorCode::Internal)?;
    may_follow(shared, record, &former)?;
    put(shared, caller, record, &former)
}

fn put(
    shared: &Shared,
    caller: &Caller,
    record: &UserRecord,
    former: &UserRecord,
) -> Result<Answer, Failure> {
    let (directory, now) = (&shared.stores.directory, shared.clock.now());
    match directory.put(record, &caller.link_key, now).map_err(internal)? {
        Put::Stored => forget_former(shared, record, Some(former))?,
        Put::Same => forget_again(shared, record)?,
        Put::NicknameTaken => return Err(ErrorCode::NicknameTaken.into()),
        Put::Refused => return Err(ErrorCode::BadRecord.into()),
    }
    Ok(Answer::Done)
}

/// Tells whether a user may have another record now, and one with these devices.
fn may_follow(shared: &Shared, record: &UserRecord, former: &UserRecord) -> Result<(), Failure> {
    // Records are kept for good, and each former name for 30 days.
    shared.record_updates.pay(record.user_id(), shared.clock.uptime())?;
    // A device keeps its link key for life; a new key is a new device.
    let has_new_key = record.devices().iter().any(|new| {
        let old = former.device(new.device_id());
        old.is_some_and(|old| old.link_key() != new.link_key())
    });
    if has_new_key { Err(ErrorCode::BadRecord.into()) } else { Ok(()) }
}

fn newest(shared: &Shared, user: &UserId) -> Result<Option<UserRecord>, Failure> {
    let newest = shared.stores.directory.newest(user).map_err(internal)?;
    let newest = newest.map(UserRecord::verify).transpose();
    Ok(newest.map_err(|_| ErrorCode::Internal)?)
}

/// Drops what belongs to devices and certificates that the new record does not name.
fn forget_former(
    shared: &Shared,
    record: &UserRecord,
    former: Option<&UserRecord>,
) -> Result<(), Failure> {
    for old in former.iter().flat_map(|former| former.devices()) {
        let device = old.device_id();
        let address = DeviceAddress { user: record.user_id(), device };
        let new = record.device(device).map(|cert| cert.hash());
        if new.is_none() {
            shared.mailboxes.remove(&address);
        }
        if new != Some(old.hash()) {
            let prekeys = &shared.stores.prekeys;
            prekeys.retain(&address, new.as_ref()).map_err(internal)?;
        }
    }
    Ok(())
}

/// Does the same for a record that was stored before: what was to be dropped may still be there.
fn forget_again(shared: &Shared, record: &UserRecord) -> Result<(), Failure> {
    let Some(before) = record.version().checked_sub(2) else { return Ok(()) };
    let directory = &shared.stores.directory;
    // The newest two: the record itself is the other.
    let before = directory.records(&record.user_id(), before, 2).map_err(internal)?;
    let former = before.into_iter().next().map(UserRecord::verify).transpose();
    forget_former(shared, record, former.map_err(|_| ErrorCode::Internal)?.as_ref())
}

/// Tells whether two devices of a record share a link key.
fn has_twins(record: &UserRecord) -> bool {
    let devices = record.devices();
    devices.iter().enumerate().any(|(index, device)| {
        let others = devices.iter().skip(index + 1);
        others.map(|o| o.link_key()).any(|key| key == device.link_key())
    })
}

/// Returns a user's records.
pub(super) fn records(shared: &Shared, who: &Who, after: u64) -> Result<Answer, Failure> {
    let directory = &shared.stores.directory;
    let user = match who {
        Who::User(user) => *user,
        Who::Nickname(text) => {
            let nickname = Nickname::from_input(text).map_err(|_| ErrorCode::UnknownUser)?;
            let owner = directory.owner(&nickname.fold()).map_err(internal)?;
            owner.ok_or(ErrorCode::UnknownUser)?
        }
    };
    let records = directory.records(&user, after, MAX_RECORDS).map_err(internal)?;
    if records.is_empty() && directory.version(&user).map_err(internal)?.is_none() {
        return Err(ErrorCode::UnknownUser.into());
    }
    Ok(Answer::Records(records))
}
