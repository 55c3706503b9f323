//! Payload of the Noise message that starts a session.

use prost::Message;
use proto::first_message as pb;

use super::directory::{signed_from, signed_into};
use super::{WireError, array};
use crate::crypto::DhPublicKey;
use crate::ids::{DeliveryTag, DeviceId};
use crate::keys::Signed;

/// Payload of the starter of a session, inside Noise message 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstMessagePayload {
    /// Newest user record of the sender, not yet verified.
    pub record: Signed,
    /// Which certificate of it speaks.
    pub device_id: DeviceId,
    /// A0.
    pub ratchet_key: DhPublicKey,
    /// Lowest protocol version the sender speaks.
    pub min_version: u32,
    /// Highest protocol version the sender speaks.
    pub max_version: u32,
    /// 0, more after resets.
    pub generation: u32,
    /// Tag for envelopes to the sender.
    pub delivery_tag: DeliveryTag,
}

impl FirstMessagePayload {
    /// Decodes a payload.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let payload = pb::FirstMessagePayload::decode(bytes)?;
        let tag = DeliveryTag::from_bytes(array(&payload.delivery_tag, "delivery_tag")?);
        if tag == DeliveryTag::ZERO {
            return Err(WireError::BadValue("delivery_tag"));
        }
        Ok(Self {
            record: signed_from(payload.record.ok_or(WireError::Missing("record"))?)?,
            device_id: DeviceId::new(payload.device_id).ok_or(WireError::BadValue("device_id"))?,
            ratchet_key: DhPublicKey::from_bytes(array(&payload.ratchet_key, "ratchet_key")?),
            min_version: payload.min_version,
            max_version: payload.max_version,
            generation: payload.generation,
            delivery_tag: tag,
        })
    }

    /// Encodes the payload.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        pb::FirstMessagePayload {
            record: Some(signed_into(&self.record)),
            device_id: self.device_id.get(),
            ratchet_key: self.ratchet_key.as_bytes().to_vec(),
            min_version: self.min_version,
            max_version: self.max_version,
            generation: self.generation,
            delivery_tag: self.delivery_tag.as_bytes().to_vec(),
        }
        .encode_to_vec()
    }
}
