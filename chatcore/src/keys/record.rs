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

    /// Verifies the records of one user, the oldest first: each follows the one before it.
    ///
    /// # Errors
    /// [`RecordError`] says what is wrong.
    pub fn verify_chain(records: Vec<Signed>) -> Result<Vec<Self>, RecordError> {
        let mut chain: Vec<Self> = Vec::with_capacity(records.len());
        for signed in records {
            let record = Self::verify(signed)?;
            if chain.last().is_some_and(|last| !record.extends(last)) {
                return Err(RecordError::ForkedOrRolledBack);
            }
            chain.push(record);
        }
        Ok(chain)
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

/// Where a record came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordSource {
    /// The relay's directory shows it to everybody.
    Directory,
    /// A device of the user told it to us, and perhaps to nobody else.
    Owner,
}

/// One link of a chain that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownRecord {
    /// The version.
    pub version: u64,
    /// SHA-256 of the body.
    pub hash: [u8; 32],
    /// The directory showed it.
    pub is_listed: bool,
}

impl KnownRecord {
    fn of(record: &UserRecord, source: RecordSource) -> Self {
        let is_listed = source == RecordSource::Directory;
        Self { version: record.version, hash: record.hash(), is_listed }
    }
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

/// Records that a device has seen of one user's chain; versions never go back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordHistory {
    newest: UserRecord,
    known: Vec<KnownRecord>,
}

/// Links kept; older ones count as rolled back.
const MAX_KNOWN: usize = 64;

impl RecordHistory {
    /// Begins with a record that its user told us.
    #[must_use]
    pub fn new(record: UserRecord) -> Self {
        let known = vec![KnownRecord::of(&record, RecordSource::Owner)];
        Self { newest: record, known }
    }

    /// Begins with a verified chain of the directory, ascending; `None` for an empty one.
    #[must_use]
    pub fn of_chain(chain: &[UserRecord]) -> Option<Self> {
        let newest = chain.last()?.clone();
        let link = |r: &UserRecord| KnownRecord::of(r, RecordSource::Directory);
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
        if self.link_of(record).is_some() {
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

    fn link_of(&self, record: &UserRecord) -> Option<usize> {
        let hash = record.hash();
        self.known.iter().position(|link| link.version == record.version && link.hash == hash)
    }

    /// Returns whence another record of the same version is known, the directory before the user's own word.
    #[must_use]
    pub fn contradicts(&self, record: &UserRecord) -> Option<RecordSource> {
        let hash = record.hash();
        let is_other = |link: &&KnownRecord| link.version == record.version && link.hash != hash;
        let mut others = self.known.iter().filter(is_other).map(|link| link.is_listed);
        let first = others.next()?;
        Some(match first || others.any(|is_listed| is_listed) {
            true => RecordSource::Directory,
            false => RecordSource::Owner,
        })
    }

    /// Returns the highest version that the directory showed; 0 if it showed none.
    #[must_use]
    pub fn listed_version(&self) -> u64 {
        let listed = self.known.iter().filter(|link| link.is_listed);
        listed.map(|link| link.version).max().unwrap_or(0)
    }

    /// Tells whether the directory showed the newest record: nobody else at the relay has its name.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed_version() == self.newest.version
    }

    /// Takes a record in; tells how it stood.
    ///
    /// # Errors
    /// As [`Self::standing`]; the history is unchanged then.
    pub fn accept(
        &mut self,
        record: UserRecord,
        source: RecordSource,
    ) -> Result<Standing, RecordError> {
        let standing = self.standing(&record)?;
        if standing == Standing::Known {
            if let Some(link) = self.link_of(&record).and_then(|at| self.known.get_mut(at)) {
                link.is_listed |= source == RecordSource::Directory;
            }
        } else {
            self.known.push(KnownRecord::of(&record, source));
            if self.known.len() > MAX_KNOWN {
                self.known.remove(0);
            }
            self.newest = record;
        }
        Ok(standing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::DhSecret;
    use crate::ids::Timestamp;
    use crate::keys::{DeviceKeys, SigningKey};

    const NOW: Timestamp = Timestamp(1_800_000_000_000);

    struct User {
        identity: IdentityKeyPair,
        keys: DeviceKeys,
        first: UserRecord,
    }

    impl User {
        fn new() -> Self {
            let rng = &mut crate::testing::rng();
            let identity = IdentityKeyPair::generate(rng);
            let keys = DeviceKeys::generate(DeviceId::FIRST, rng);
            let cert = keys.certify(&identity, NOW);
            let first = UserRecord::first(&identity, Nickname::new("bob").unwrap(), cert);
            Self { identity, keys, first }
        }

        /// The record that follows, under another name.
        fn after(&self, record: &UserRecord, name: &str) -> UserRecord {
            let name = Nickname::new(name).unwrap();
            record.next(&self.identity, name, vec![self.keys.certify(&self.identity, NOW)])
        }

        fn closed(&self, record: &UserRecord) -> UserRecord {
            record.next(&self.identity, record.nickname().clone(), Vec::new())
        }

        fn chain(&self, length: usize) -> Vec<UserRecord> {
            let next = |record: &UserRecord| Some(self.after(record, "bob"));
            std::iter::successors(Some(self.first.clone()), next).take(length).collect()
        }
    }

    #[test]
    fn what_is_newer_is_taken_and_what_is_known_changes_nothing() {
        let bob = User::new();
        let two = bob.after(&bob.first, "bob 2");
        let four = bob.after(&bob.after(&two, "bob 3"), "bob 4");
        let mut history = RecordHistory::new(bob.first.clone());
        assert_eq!(history.accept(two.clone(), RecordSource::Directory), Ok(Standing::Extends));
        assert_eq!(history.accept(bob.first.clone(), RecordSource::Directory), Ok(Standing::Known));
        assert_eq!(*history.newest(), two, "an ancestor that comes again is no news");
        assert_eq!(history.accept(four.clone(), RecordSource::Directory), Ok(Standing::Ahead));
        assert_eq!(history.accept(four.clone(), RecordSource::Directory), Ok(Standing::Known));
        assert_eq!(*history.newest(), four);
    }

    #[test]
    fn forks_and_rollbacks_are_refused_and_change_nothing() {
        let bob = User::new();
        let two = bob.after(&bob.first, "bob 2");
        let other_two = bob.after(&bob.first, "another 2");
        let other_three = bob.after(&other_two, "another 3");
        let mut history = RecordHistory::new(bob.first.clone());
        history.accept(two.clone(), RecordSource::Directory).unwrap();
        for forked in [&other_two, &other_three] {
            assert_eq!(
                history.accept(forked.clone(), RecordSource::Directory),
                Err(RecordError::ForkedOrRolledBack)
            );
            assert_eq!(*history.newest(), two);
        }
        assert_eq!(history.contradicts(&other_two), Some(RecordSource::Directory));
        assert_eq!(history.contradicts(&two), None);
        let five = bob.chain(5).pop().unwrap();
        history.accept(five.clone(), RecordSource::Directory).unwrap();
        let never_seen = bob.after(&two, "bob 3");
        assert_eq!(
            history.accept(never_seen, RecordSource::Directory),
            Err(RecordError::ForkedOrRolledBack)
        );
        assert_eq!(*history.newest(), five);
    }

    #[test]
    fn nothing_follows_a_closed_account() {
        let bob = User::new();
        let closed = bob.closed(&bob.first);
        let three = bob.after(&closed, "bob 3");
        let four = bob.after(&three, "bob 4");
        let mut history = RecordHistory::new(bob.first.clone());
        history.accept(closed.clone(), RecordSource::Directory).unwrap();
        for later in [three, four] {
            assert_eq!(
                history.accept(later, RecordSource::Directory),
                Err(RecordError::ForkedOrRolledBack)
            );
        }
        assert_eq!(*history.newest(), closed);
    }

    #[test]
    fn a_record_of_somebody_else_is_refused_whatever_its_version() {
        let (bob, carol) = (User::new(), User::new());
        let history = RecordHistory::new(bob.first.clone());
        for record in carol.chain(3) {
            assert_eq!(history.standing(&record), Err(RecordError::OtherUser));
        }
    }

    #[test]
    fn each_key_of_a_device_is_kept_for_life() {
        let identity = IdentityKeyPair::generate(&mut crate::testing::rng());
        let certificate = |signing: u8, agreement: u8, link: u8| {
            let keys = DeviceKeys {
                id: DeviceId::FIRST,
                signing: SigningKey::from_seed(&[signing; 32]),
                agreement: DhSecret::from_bytes(&[agreement; 32]),
                link: DhSecret::from_bytes(&[link; 32]),
            };
            keys.certify(&identity, NOW)
        };
        let name = Nickname::new("bob").unwrap();
        let first = UserRecord::first(&identity, name.clone(), certificate(1, 2, 3));
        let history = RecordHistory::new(first.clone());
        let follow = |cert| history.standing(&first.next(&identity, name.clone(), vec![cert]));
        assert_eq!(follow(certificate(1, 2, 3)), Ok(Standing::Extends));
        for changed in [certificate(9, 2, 3), certificate(1, 9, 3), certificate(1, 2, 9)] {
            assert_eq!(follow(changed), Err(RecordError::ChangedKeys));
        }
    }

    #[test]
    fn the_newest_64_links_are_remembered() {
        let bob = User::new();
        let chain = bob.chain(65);
        let mut one_by_one = RecordHistory::new(bob.first.clone());
        for record in &chain {
            one_by_one.accept(record.clone(), RecordSource::Directory).unwrap();
        }
        for history in [one_by_one, RecordHistory::of_chain(&chain).unwrap()] {
            assert_eq!(history.known().len(), 64);
            assert_eq!(history.standing(&chain[1]), Ok(Standing::Known));
            assert_eq!(history.standing(&chain[0]), Err(RecordError::ForkedOrRolledBack));
        }
    }
}
