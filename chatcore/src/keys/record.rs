//! User records: a hash chain, signed by the identity key, that lists a user's devices.

use super::device::DeviceCert;
use super::identity::{IdentityKey, IdentityKeyPair};
use super::nickname::{Nickname, NicknameError};
use super::signed::{SignatureError, Signed};
use crate::crypto::kdf::LABEL_USER_RECORD;
use crate::ids::{DeviceId, UserId};
use crate::wire::{self, WireError};

/// Most devices of a user.
pub const MAX_DEVICES: usize = 8;

/// Why a user record is refused. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RecordError {
    /// The signature does not verify.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The bytes are no record.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The nickname breaks a rule.
    #[error(transparent)]
    Nickname(#[from] NicknameError),
    /// Parts contradict each other: user id, version, previous hash, devices.
    #[error("the record contradicts itself")]
    Inconsistent,
    /// The record is another user's.
    #[error("the record belongs to another user")]
    OtherUser,
    /// The record is older than what is known, or another branch.
    #[error("the record is rolled back or forked")]
    ForkedOrRolledBack,
    /// It names a device by an id that had other keys: ids keep theirs for life.
    #[error("the record names a known device with other keys")]
    ChangedKeys,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UserRecordFields {
    pub(crate) identity_key: IdentityKey,
    pub(crate) nickname: String,
    pub(crate) version: u64,
    pub(crate) prev_hash: [u8; 32],
    pub(crate) devices: Vec<Signed>,
}

/// A verified user record (PROTOCOL.md section 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserRecord {
    signed: Signed,
    identity_key: IdentityKey,
    nickname: Nickname,
    version: u64,
    prev_hash: [u8; 32],
    devices: Vec<DeviceCert>,
}

impl UserRecord {
    /// Verifies a record by itself; how it stands to others says [`RecordHistory`].
    ///
    /// # Errors
    /// [`RecordError`] says what is wrong.
    pub fn verify(signed: Signed) -> Result<Self, RecordError> {
        let fields = wire::directory::decode_user_record(&signed)?;
        signed.verify(fields.identity_key.as_bytes(), LABEL_USER_RECORD)?;
        Self::checked(signed, fields, DeviceCert::verify)
    }

    /// Takes a record that was verified before it was stored.
    pub(crate) fn restore(signed: Signed) -> Result<Self, RecordError> {
        let fields = wire::directory::decode_user_record(&signed)?;
        Self::checked(signed, fields, DeviceCert::restore)
    }

    fn checked(
        signed: Signed,
        fields: UserRecordFields,
        certificate: impl Fn(Signed, &IdentityKey) -> Result<DeviceCert, RecordError>,
    ) -> Result<Self, RecordError> {
        let nickname = Nickname::new(&fields.nickname)?;
        let first = fields.version == 1;
        if fields.version == 0 || first != (fields.prev_hash == [0; 32]) {
            return Err(RecordError::Inconsistent);
        }
        let mut devices = Vec::with_capacity(fields.devices.len());
        for cert in fields.devices {
            let cert = certificate(cert, &fields.identity_key)?;
            if devices.iter().any(|d: &DeviceCert| d.device_id() == cert.device_id()) {
                return Err(RecordError::Inconsistent);
            }
            devices.push(cert);
        }
        let (identity_key, version) = (fields.identity_key, fields.version);
        Ok(Self { signed, identity_key, nickname, version, prev_hash: fields.prev_hash, devices })
    }

    /// Makes the first record of a user.
    #[must_use]
    pub fn first(identity: &IdentityKeyPair, nickname: Nickname, device: DeviceCert) -> Self {
        Self::sign(identity, nickname, 1, [0; 32], vec![device])
    }

    /// Makes the record that follows this one.
    #[must_use]
    pub fn next(
        &self,
        identity: &IdentityKeyPair,
        nickname: Nickname,
        devices: Vec<DeviceCert>,
    ) -> Self {
        Self::sign(identity, nickname, self.version + 1, self.hash(), devices)
    }

    fn sign(
        identity: &IdentityKeyPair,
        nickname: Nickname,
        version: u64,
        prev_hash: [u8; 32],
        devices: Vec<DeviceCert>,
    ) -> Self {
        let body = wire::directory::encode_user_record(&UserRecordFields {
            identity_key: identity.public(),
            nickname: nickname.as_str().to_owned(),
            version,
            prev_hash,
            devices: devices.iter().map(|d| d.signed().clone()).collect(),
        });
        let signed = identity.sign(LABEL_USER_RECORD, body);
        Self { signed, identity_key: identity.public(), nickname, version, prev_hash, devices }
    }

    /// Tells whether this record directly follows `earlier`.
    #[must_use]
    pub fn extends(&self, earlier: &Self) -> bool {
        self.identity_key == earlier.identity_key
            && earlier.version.checked_add(1) == Some(self.version)
            && self.prev_hash == earlier.hash()
            && !earlier.devices.is_empty()
    }

    /// Tells whether a device that `earlier` names has other keys here.
    #[must_use]
    pub fn changes_keys(&self, earlier: &Self) -> bool {
        let has_other = |known: &DeviceCert| {
            self.device(known.device_id()).is_some_and(|cert| !cert.has_keys_of(known))
        };
        earlier.devices.iter().any(has_other)
    }

    /// Returns the bytes and signature it was verified from.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// Returns the user's identity key.
    #[must_use]
    pub const fn identity_key(&self) -> &IdentityKey {
        &self.identity_key
    }

    /// Returns the user's id.
    #[must_use]
    pub fn user_id(&self) -> UserId {
        self.identity_key.user_id()
    }

    /// Returns the nickname.
    #[must_use]
    pub const fn nickname(&self) -> &Nickname {
        &self.nickname
    }

    /// Returns the version, from 1.
    #[must_use]
    pub const fn version(&self) -> u64 {
        self.version
    }

    /// Returns SHA-256 of the body.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        self.signed.hash()
    }

    /// Returns the devices; none when the account is closed.
    #[must_use]
    pub fn devices(&self) -> &[DeviceCert] {
        &self.devices
    }

    /// Returns the certificate of one device.
    #[must_use]
    pub fn device(&self, id: DeviceId) -> Option<&DeviceCert> {
        self.devices.iter().find(|d| d.device_id() == id)
    }
}

/// One link of a chain that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownRecord {
    /// The version.
    pub version: u64,
    /// SHA-256 of the body.
    pub hash: [u8; 32],
}

/// How a record stands to what is known of its user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Seen before: the newest or an ancestor of it.
    Known,
    /// Follows the newest one directly.
    Extends,
    /// Newer, with unseen versions between.
    Ahead,
}

/// What a device has seen of one user's chain; versions never go back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHistory {
    newest: UserRecord,
    known: Vec<KnownRecord>,
}

/// Links kept; older ones count as rolled back.
const MAX_KNOWN: usize = 64;

impl RecordHistory {
    /// Begins with the first record seen of a user.
    #[must_use]
    pub fn new(record: UserRecord) -> Self {
        let known = vec![KnownRecord { version: record.version, hash: record.hash() }];
        Self { newest: record, known }
    }

    /// Begins with a verified chain, ascending; `None` for an empty one.
    #[must_use]
    pub fn of_chain(chain: &[UserRecord]) -> Option<Self> {
        let newest = chain.last()?.clone();
        let link = |r: &UserRecord| KnownRecord { version: r.version, hash: r.hash() };
        let first = chain.len().saturating_sub(MAX_KNOWN);
        Some(Self { newest, known: chain.iter().skip(first).map(link).collect() })
    }

    /// Restores a history from its parts.
    #[must_use]
    pub const fn from_parts(newest: UserRecord, known: Vec<KnownRecord>) -> Self {
        Self { newest, known }
    }

    /// Returns the newest record.
    #[must_use]
    pub const fn newest(&self) -> &UserRecord {
        &self.newest
    }

    /// Returns the links that were seen.
    #[must_use]
    pub fn known(&self) -> &[KnownRecord] {
        &self.known
    }

    /// Tells how `record` stands to this history.
    ///
    /// # Errors
    /// [`RecordError::OtherUser`], [`RecordError::ForkedOrRolledBack`] or [`RecordError::ChangedKeys`].
    pub fn standing(&self, record: &UserRecord) -> Result<Standing, RecordError> {
        if record.identity_key != self.newest.identity_key {
            return Err(RecordError::OtherUser);
        }
        let link = KnownRecord { version: record.version, hash: record.hash() };
        if self.known.contains(&link) {
            return Ok(Standing::Known);
        }
        if record.changes_keys(&self.newest) {
            return Err(RecordError::ChangedKeys);
        }
        if record.extends(&self.newest) {
            return Ok(Standing::Extends);
        }
        let gap = self.newest.version.saturating_add(1);
        if record.version > gap && !self.newest.devices.is_empty() {
            return Ok(Standing::Ahead);
        }
        Err(RecordError::ForkedOrRolledBack)
    }

    /// Tells whether `record` is another record of a version that was seen.
    #[must_use]
    pub fn contradicts(&self, record: &UserRecord) -> bool {
        let hash = record.hash();
        self.known.iter().any(|link| link.version == record.version && link.hash != hash)
    }

    /// Takes a record in; tells how it stood.
    ///
    /// # Errors
    /// As [`Self::standing`]; the history is unchanged then.
    pub fn accept(&mut self, record: UserRecord) -> Result<Standing, RecordError> {
        let standing = self.standing(&record)?;
        if standing != Standing::Known {
            self.known.push(KnownRecord { version: record.version, hash: record.hash() });
            if self.known.len() > MAX_KNOWN {
                self.known.remove(0);
            }
            self.newest = record;
        }
        Ok(standing)
    }
}
