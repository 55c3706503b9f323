//! Prekeys: kept for their device, handed out once.

use chatcore::ids::DeviceAddress;
use chatcore::keys::{PrekeyRecord, Signed, UserRecord};
use chatcore::wire::relay::{Answer, ErrorCode, Failure};

use super::{Caller, internal};
use crate::server::Shared;
use crate::store::StoredPrekey;

/// Stores the caller's prekeys.
pub(super) fn upload(
    shared: &Shared,
    caller: &Caller,
    records: Vec<Signed>,
) -> Result<Answer, Failure> {
    let DeviceAddress { user, device } = caller.address;
    shared.prekey_uploads.pay(user, shared.clock.uptime())?;
    let newest = shared.stores.directory.newest(&user).map_err(internal)?;
    let newest = newest.and_then(|signed| UserRecord::verify(signed).ok());
    let newest = newest.ok_or(ErrorCode::Internal)?;
    let cert = newest.device(device).ok_or(ErrorCode::BadPrekey)?;
    let now = shared.clock.now();
    let mut prekeys = Vec::with_capacity(records.len());
    for signed in records {
        let record = PrekeyRecord::verify(signed, &user, cert);
        let record = record.map_err(|_| ErrorCode::BadPrekey)?;
        if !record.is_fresh(now) {
            return Err(ErrorCode::BadPrekey.into());
        }
        prekeys.push(StoredPrekey {
            kind: record.kind(),
            id: record.id(),
            not_after: record.not_after(),
            cert_hash: cert.hash(),
            signed: record.signed().clone(),
        });
    }
    let store = &shared.stores.prekeys;
    let status = store.upload(&caller.address, &prekeys, now).map_err(internal)?;
    Ok(Answer::PrekeyStatus { one_time_prekeys: status.one_time, last_resort: status.last_resort })
}

/// Hands out one prekey for each device.
pub(super) fn claim(
    shared: &Shared,
    caller: &Caller,
    devices: &[DeviceAddress],
) -> Result<Answer, Failure> {
    let (now, uptime) = (shared.clock.now(), shared.clock.uptime());
    let (mut results, mut granted) = (Vec::with_capacity(devices.len()), Vec::new());
    let wanted = u32::try_from(devices.len()).unwrap_or(u32::MAX);
    let allowed = shared.claims_in_all.take(caller.address.user, wanted, uptime) as usize;
    for (place, device) in devices.iter().enumerate() {
        results.push(if place >= allowed {
            Err(ErrorCode::RateLimited)
        } else if !shared.stores.directory.has_device(device).map_err(internal)? {
            Err(ErrorCode::UnknownDevice)
        } else if shared.claims.take((caller.address.user, *device), 1, uptime) == 0 {
            Err(ErrorCode::RateLimited)
        } else {
            granted.push(*device);
            Ok(())
        });
    }
    let claimed = shared.stores.prekeys.claim(&granted, now).map_err(internal)?;
    let mut claimed = claimed.into_iter();
    let prekeys = results
        .into_iter()
        .map(|result| result.and_then(|()| claimed.next().flatten().ok_or(ErrorCode::NoPrekey)));
    Ok(Answer::ClaimedPrekeys(prekeys.collect()))
}
