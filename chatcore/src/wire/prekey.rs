//! Prekey records.

use prost::Message;
use proto::prekey as pb;

use super::{WireError, array};
use crate::crypto::KemPublicKey;
use crate::ids::{DeviceId, PrekeyId, Timestamp, UserId};
use crate::keys::SUITE;
use crate::keys::{PrekeyFields, PrekeyKind};

pub(crate) fn decode(body: &[u8]) -> Result<PrekeyFields, WireError> {
    let body = pb::PrekeyBody::decode(body)?;
    if body.suite != u32::from(SUITE) {
        return Err(WireError::BadValue("suite"));
    }
    if body.prekey_id == 0 {
        return Err(WireError::BadValue("prekey_id"));
    }
    Ok(PrekeyFields {
        user_id: UserId::from_bytes(array(&body.user_id, "user_id")?),
        device_id: DeviceId::new(body.device_id).ok_or(WireError::BadValue("device_id"))?,
        cert_hash: array(&body.cert_hash, "cert_hash")?,
        prekey_id: PrekeyId(body.prekey_id),
        kind: match body.kind() {
            pb::PrekeyKind::OneTime => PrekeyKind::OneTime,
            pb::PrekeyKind::LastResort => PrekeyKind::LastResort,
            pb::PrekeyKind::Unspecified => return Err(WireError::BadValue("kind")),
        },
        msg1: array(&body.msg1, "msg1")?,
        kem_ek: KemPublicKey::from_slice(&body.kem_ek)
            .map_err(|_| WireError::BadValue("kem_ek"))?,
        not_after: Timestamp(body.not_after),
    })
}

pub(crate) fn encode(fields: &PrekeyFields) -> Vec<u8> {
    let kind = match fields.kind {
        PrekeyKind::OneTime => pb::PrekeyKind::OneTime,
        PrekeyKind::LastResort => pb::PrekeyKind::LastResort,
    };
    pb::PrekeyBody {
        suite: SUITE.into(),
        user_id: fields.user_id.as_bytes().to_vec(),
        device_id: fields.device_id.get(),
        cert_hash: fields.cert_hash.to_vec(),
        prekey_id: fields.prekey_id.0,
        kind: kind.into(),
        msg1: fields.msg1.to_vec(),
        kem_ek: fields.kem_ek.as_bytes().to_vec(),
        not_after: fields.not_after.0,
    }
    .encode_to_vec()
}
