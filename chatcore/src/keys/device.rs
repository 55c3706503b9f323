//! A device's three keys and the certificate that binds them to its user.

use std::fmt;

use ed25519_dalek::SigningKey as DalekKey;
use rand::CryptoRng;
use zeroize::Zeroizing;

use super::identity::{IdentityKey, IdentityKeyPair};
use super::record::{RecordError, UserRecord};
use super::signed::Signed;
use crate::crypto::kdf::LABEL_DEVICE_CERT;
use crate::crypto::{DhPublicKey, DhSecret};
use crate::ids::{DAY, DeviceId, Timestamp, UserId, short_hex};
use crate::wire;

/// Milliseconds from issue to expiry of a device certificate.
pub const CERT_LIFE: u64 = 180 * DAY;
/// Milliseconds from issue to renewal.
pub const CERT_RENEWAL: u64 = 90 * DAY;

/// Public half of a device signing key (Ed25519).
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SigningPublicKey([u8; 32]);

impl SigningPublicKey {
    /// Takes the bytes as they are; verifying with a bad point fails.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for SigningPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(bytes) = self;
        write!(f, "SigningPublicKey({})", short_hex(bytes))
    }
}

/// Device signing key: signs prekeys and room events. Zeroized on drop.
pub struct SigningKey(DalekKey);

impl SigningKey {
    /// Derives the key from a stored seed.
    #[must_use]
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(DalekKey::from_bytes(seed))
    }

    /// Returns the seed for storage.
    #[must_use]
    pub fn seed(&self) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(self.0.to_bytes())
    }

    /// Returns the public key.
    #[must_use]
    pub fn public(&self) -> SigningPublicKey {
        SigningPublicKey(self.0.verifying_key().to_bytes())
    }

    pub(crate) fn sign(&self, label: &[u8], body: Vec<u8>) -> Signed {
        Signed::sign(&self.0, label, body)
    }
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        write!(f, "SigningKey(public {:?})", self.public())
    }
}

/// The secrets of one device.
#[derive(Debug)]
pub struct DeviceKeys {
    /// Which device of the user.
    pub id: DeviceId,
    /// Signs prekeys and room events.
    pub signing: SigningKey,
    /// Noise `s` of first messages.
    pub agreement: DhSecret,
    /// Noise `s` towards the relay.
    pub link: DhSecret,
}

impl DeviceKeys {
    /// Draws the keys of a new device.
    pub fn generate(id: DeviceId, rng: &mut dyn CryptoRng) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        rng.fill_bytes(seed.as_mut_slice());
        let signing = SigningKey::from_seed(&seed);
        Self { id, signing, agreement: DhSecret::generate(rng), link: DhSecret::generate(rng) }
    }

    /// Tells whether a record names this device, by its id and with these keys.
    #[must_use]
    pub fn is_named_in(&self, record: &UserRecord) -> bool {
        record.device(self.id).is_some_and(|cert| {
            cert.link_key() == self.link.public()
                && cert.agreement_key() == self.agreement.public()
                && *cert.signing_key() == self.signing.public()
        })
    }

    /// Has the user's identity key certify these keys from `now` on.
    #[must_use]
    pub fn certify(&self, identity: &IdentityKeyPair, now: Timestamp) -> DeviceCert {
        let fields = DeviceCertFields {
            user_id: identity.public().user_id(),
            device_id: self.id,
            signing_key: self.signing.public(),
            agreement_key: *self.agreement.public(),
            link_key: *self.link.public(),
            issued_at: now,
            not_after: now.plus(CERT_LIFE),
        };
        let body = wire::directory::encode_device_cert(&fields);
        DeviceCert { signed: identity.sign(LABEL_DEVICE_CERT, body), fields }
    }
}

/// Contents of a certificate; only [`DeviceCert`] says that it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DeviceCertFields {
    pub(crate) user_id: UserId,
    pub(crate) device_id: DeviceId,
    pub(crate) signing_key: SigningPublicKey,
    pub(crate) agreement_key: DhPublicKey,
    pub(crate) link_key: DhPublicKey,
    pub(crate) issued_at: Timestamp,
    pub(crate) not_after: Timestamp,
}

/// A verified device certificate (PROTOCOL.md section 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceCert {
    signed: Signed,
    fields: DeviceCertFields,
}

impl DeviceCert {
    pub(crate) fn verify(signed: Signed, identity: &IdentityKey) -> Result<Self, RecordError> {
        signed.verify(identity.as_bytes(), LABEL_DEVICE_CERT)?;
        Self::restore(signed, identity)
    }

    /// Takes a certificate whose signature was verified when it came.
    pub(crate) fn restore(signed: Signed, identity: &IdentityKey) -> Result<Self, RecordError> {
        let fields = wire::directory::decode_device_cert(&signed.body)?;
        if fields.user_id != identity.user_id() {
            return Err(RecordError::Inconsistent);
        }
        Ok(Self { signed, fields })
    }

    /// Tells whether all its keys are those of another certificate.
    #[must_use]
    pub fn has_keys_of(&self, other: &Self) -> bool {
        self.signing_key() == other.signing_key()
            && self.agreement_key() == other.agreement_key()
            && self.link_key() == other.link_key()
    }

    /// Returns the user whose identity key signed it.
    #[must_use]
    pub const fn user_id(&self) -> UserId {
        self.fields.user_id
    }

    /// Returns the device's id.
    #[must_use]
    pub const fn device_id(&self) -> DeviceId {
        self.fields.device_id
    }

    /// Returns the key that signs the device's prekeys.
    #[must_use]
    pub const fn signing_key(&self) -> &SigningPublicKey {
        &self.fields.signing_key
    }

    /// Returns the Noise static key of first messages.
    #[must_use]
    pub const fn agreement_key(&self) -> &DhPublicKey {
        &self.fields.agreement_key
    }

    /// Returns the Noise static key towards the relay.
    #[must_use]
    pub const fn link_key(&self) -> &DhPublicKey {
        &self.fields.link_key
    }

    /// Returns when the certificate was issued.
    #[must_use]
    pub const fn issued_at(&self) -> Timestamp {
        self.fields.issued_at
    }

    /// Tells whether sessions may be started with it at `now`.
    #[must_use]
    pub fn is_fresh(&self, now: Timestamp) -> bool {
        now <= self.fields.not_after
    }

    /// Returns SHA-256 of the body.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.signed.hash()
    }

    pub(crate) const fn signed(&self) -> &Signed {
        &self.signed
    }
}
