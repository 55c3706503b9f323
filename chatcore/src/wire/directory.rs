//! Signed objects, user records and device certificates.

use prost::Message;
use proto::directory as pb;

use super::limits::MAX_RECORD;
use super::{WireError, array, at_most};
use crate::crypto::DhPublicKey;
use crate::ids::{DeviceId, Timestamp, UserId};
use crate::keys::{
    DeviceCertFields, IdentityKey, MAX_DEVICES, Signed, SigningPublicKey, UserRecordFields,
};

/// Decodes a signed object.
///
/// # Errors
/// [`WireError`].
pub fn decode_signed(bytes: &[u8]) -> Result<Signed, WireError> {
    signed_from(pb::Signed::decode(bytes)?)
}

/// Encodes a signed object.
#[must_use]
pub fn encode_signed(signed: &Signed) -> Vec<u8> {
    signed_into(signed).encode_to_vec()
}

pub(crate) fn signed_from(signed: pb::Signed) -> Result<Signed, WireError> {
    Ok(Signed { signature: array(&signed.signature, "signature")?, body: signed.body })
}

pub(crate) fn signed_into(signed: &Signed) -> pb::Signed {
    pb::Signed { body: signed.body.clone(), signature: signed.signature.to_vec() }
}

pub(crate) fn decode_user_record(signed: &Signed) -> Result<UserRecordFields, WireError> {
    at_most(signed_into(signed).encoded_len(), MAX_RECORD, "record")?;
    let body = pb::UserRecordBody::decode(signed.body.as_slice())?;
    at_most(body.devices.len(), MAX_DEVICES, "devices")?;
    Ok(UserRecordFields {
        identity_key: IdentityKey::from_bytes(array(&body.identity_key, "identity_key")?),
        nickname: body.nickname,
        version: body.version,
        prev_hash: array(&body.prev_hash, "prev_hash")?,
        devices: body.devices.into_iter().map(signed_from).collect::<Result<_, _>>()?,
    })
}

pub(crate) fn encode_user_record(fields: &UserRecordFields) -> Vec<u8> {
    pb::UserRecordBody {
        identity_key: fields.identity_key.as_bytes().to_vec(),
        nickname: fields.nickname.clone(),
        version: fields.version,
        prev_hash: fields.prev_hash.to_vec(),
        devices: fields.devices.iter().map(signed_into).collect(),
    }
    .encode_to_vec()
}

pub(crate) fn decode_device_cert(body: &[u8]) -> Result<DeviceCertFields, WireError> {
    let body = pb::DeviceCertBody::decode(body)?;
    Ok(DeviceCertFields {
        user_id: UserId::from_bytes(array(&body.user_id, "user_id")?),
        device_id: DeviceId::new(body.device_id).ok_or(WireError::BadValue("device_id"))?,
        signing_key: SigningPublicKey::from_bytes(array(&body.signing_key, "signing_key")?),
        agreement_key: DhPublicKey::from_bytes(array(&body.agreement_key, "agreement_key")?),
        link_key: DhPublicKey::from_bytes(array(&body.link_key, "link_key")?),
        issued_at: Timestamp(body.issued_at),
        not_after: Timestamp(body.not_after),
    })
}

pub(crate) fn encode_device_cert(fields: &DeviceCertFields) -> Vec<u8> {
    pb::DeviceCertBody {
        user_id: fields.user_id.as_bytes().to_vec(),
        device_id: fields.device_id.get(),
        signing_key: fields.signing_key.as_bytes().to_vec(),
        agreement_key: fields.agreement_key.as_bytes().to_vec(),
        link_key: fields.link_key.as_bytes().to_vec(),
        issued_at: fields.issued_at.0,
        not_after: fields.not_after.0,
    }
    .encode_to_vec()
}
