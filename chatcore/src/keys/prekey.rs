//! Prekeys: published keys that let a first message find a device that is away.

use std::fmt;

use rand::CryptoRng;

use super::device::{DeviceCert, DeviceKeys};
use super::record::RecordError;
use super::signed::Signed;
use crate::crypto::kdf::LABEL_PREKEY;
use crate::crypto::{DhSecret, KemPublicKey, KemSecret};
use crate::ids::{DAY, DeviceId, PrekeyId, Timestamp, UserId};
use crate::wire;

/// The suite of PROTOCOL.md: how a session is agreed on with a prekey.
pub const SUITE: u16 = 1;
/// Milliseconds a one-time prekey may be used.
pub const ONE_TIME_LIFE: u64 = 30 * DAY;
/// Milliseconds a last-resort prekey may be used.
pub const LAST_RESORT_LIFE: u64 = 400 * DAY;

/// Whether a prekey serves one first message or any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PrekeyKind {
    /// Handed out once; its secret is deleted after one use.
    OneTime,
    /// Handed out when one-time prekeys are out.
    LastResort,
}

impl PrekeyKind {
    /// Returns the byte of the prologue.
    pub(crate) const fn byte(self) -> u8 {
        match self {
            Self::OneTime => 1,
            Self::LastResort => 2,
        }
    }

    /// Returns how long a prekey of this kind may be used, in milliseconds.
    #[must_use]
    pub const fn life(self) -> u64 {
        match self {
            Self::OneTime => ONE_TIME_LIFE,
            Self::LastResort => LAST_RESORT_LIFE,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PrekeyFields {
    pub(crate) user_id: UserId,
    pub(crate) device_id: DeviceId,
    pub(crate) cert_hash: [u8; 32],
    pub(crate) prekey_id: PrekeyId,
    pub(crate) kind: PrekeyKind,
    pub(crate) msg1: [u8; 48],
    pub(crate) kem_ek: KemPublicKey,
    pub(crate) not_after: Timestamp,
}

/// A verified prekey record (PROTOCOL.md section 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrekeyRecord {
    signed: Signed,
    fields: PrekeyFields,
}

impl PrekeyRecord {
    /// Verifies a prekey against the certificate of the device it should belong to.
    ///
    /// # Errors
    /// [`RecordError`]: bad signature, bad bytes, or another device's prekey.
    pub fn verify(signed: Signed, user: &UserId, cert: &DeviceCert) -> Result<Self, RecordError> {
        signed.verify(cert.signing_key().as_bytes(), LABEL_PREKEY)?;
        let fields = wire::prekey::decode(&signed.body)?;
        let fits = fields.user_id == *user
            && fields.device_id == cert.device_id()
            && fields.cert_hash == cert.hash();
        if fits { Ok(Self { signed, fields }) } else { Err(RecordError::Inconsistent) }
    }

    pub(crate) fn sign(device: &DeviceKeys, fields: PrekeyFields) -> Self {
        let signed = device.signing.sign(LABEL_PREKEY, wire::prekey::encode(&fields));
        Self { signed, fields }
    }

    /// Returns the bytes and signature.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// Returns the prekey's number.
    #[must_use]
    pub const fn id(&self) -> PrekeyId {
        self.fields.prekey_id
    }

    /// Returns the prekey's kind.
    #[must_use]
    pub const fn kind(&self) -> PrekeyKind {
        self.fields.kind
    }

    /// Returns when it expires.
    #[must_use]
    pub const fn not_after(&self) -> Timestamp {
        self.fields.not_after
    }

    /// Tells whether it may still be used at `now`.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now <= self.fields.not_after
    }

    pub(crate) const fn fields(&self) -> &PrekeyFields {
        &self.fields
    }
}

/// The secrets of a prekey and what its prologue needs; zeroized on drop.
pub struct PrekeySecret {
    /// Number, never reused.
    pub id: PrekeyId,
    /// Kind.
    pub kind: PrekeyKind,
    /// Certificate it was published under.
    pub cert_hash: [u8; 32],
    /// When the record expires.
    pub not_after: Timestamp,
    /// Noise `e` of message 1.
    pub dh: DhSecret,
    /// ML-KEM half.
    pub kem: KemSecret,
}

impl PrekeySecret {
    /// Draws a new prekey: 96 bytes of `rng`.
    pub fn generate(
        id: PrekeyId,
        kind: PrekeyKind,
        cert: &DeviceCert,
        now: Timestamp,
        rng: &mut dyn CryptoRng,
    ) -> Self {
        let dh = DhSecret::generate(rng);
        let kem = KemSecret::generate(rng);
        Self { id, kind, cert_hash: cert.hash(), not_after: now.plus(kind.life()), dh, kem }
    }
}

impl fmt::Debug for PrekeySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, kind, cert_hash: _, not_after: _, dh: _, kem: _ } = self;
        write!(f, "PrekeySecret({} {kind:?})", id.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agreement::publish_prekey;
    use crate::ids::{DAY, DeviceAddress, DeviceId};
    use crate::keys::{DeviceKeys, IdentityKeyPair, RelayKeyPair};

    #[test]
    fn prekeys_and_certificates_are_good_up_to_their_last_millisecond() {
        let (rng, now) = (&mut crate::testing::rng(), Timestamp(1_800_000_000_000));
        let relay = RelayKeyPair::generate(rng).public();
        let identity = IdentityKeyPair::generate(rng);
        let keys = DeviceKeys::generate(DeviceId::FIRST, rng);
        let cert = keys.certify(&identity, now);
        let own = DeviceAddress { user: identity.public().user_id(), device: keys.id };
        for (kind, days) in [(PrekeyKind::OneTime, 30), (PrekeyKind::LastResort, 400)] {
            let secret = PrekeySecret::generate(PrekeyId(1), kind, &cert, now, rng);
            let prekey = publish_prekey(&relay, own, &keys, &cert, &secret).unwrap();
            assert!(prekey.is_fresh(now.plus(days * DAY)));
            assert!(!prekey.is_fresh(now.plus(days * DAY + 1)));
        }
        assert!(cert.is_fresh(now.plus(180 * DAY)) && !cert.is_fresh(now.plus(180 * DAY + 1)));
    }
}
