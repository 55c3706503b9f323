//! People, sessions and files for the suites.
#![allow(clippy::unwrap_used, reason = "made from keys drawn here: no input can make it fail")]

use chatcore::agreement::{Accepted, Offer, open_first, publish_prekey, start_session};
use chatcore::file::{FileKey, Manifest};
use chatcore::ids::{
    BlobId, DeliveryTag, DeviceAddress, DeviceId, FileId, MINUTE, PrekeyId, Timestamp,
};
use chatcore::keys::{
    DeviceCert, DeviceKeys, IdentityKeyPair, Nickname, PrekeyKind, PrekeyRecord, PrekeySecret,
    RelayKey, RelayKeyPair, UserRecord,
};
use chatcore::ratchet::Session;
use chatcore::wire::envelope::FirstBlock;
use server::clock::{Clock, SystemClock};

/// Returns the time at which everything here is fresh.
#[must_use]
pub fn now() -> Timestamp {
    SystemClock.now()
}

/// A user with one device.
#[derive(Debug)]
pub struct User {
    /// The device's secrets.
    pub keys: DeviceKeys,
    /// Its certificate.
    pub cert: DeviceCert,
    /// The user's first record.
    pub record: UserRecord,
}

impl User {
    /// Draws a user; `nickname` is taken as it is.
    #[must_use]
    pub fn new(nickname: &str) -> Self {
        let rng = &mut rand::rng();
        let identity = IdentityKeyPair::generate(rng);
        let keys = DeviceKeys::generate(DeviceId::FIRST, rng);
        let cert = keys.certify(&identity, now());
        let nickname = Nickname::new(nickname).unwrap();
        let record = UserRecord::first(&identity, nickname, cert.clone());
        Self { keys, cert, record }
    }

    /// Returns where envelopes to the user go.
    #[must_use]
    pub fn address(&self) -> DeviceAddress {
        DeviceAddress { user: self.record.user_id(), device: self.keys.id }
    }
}

/// Two users of one relay; one of them has published a prekey.
#[derive(Debug)]
pub struct Strangers {
    /// The relay both are at.
    pub relay: RelayKey,
    /// The one who writes first.
    pub alice: User,
    /// The one who is found through a prekey.
    pub bob: User,
    /// Bob's secret.
    pub secret: PrekeySecret,
    /// Prekeys that bob published.
    pub prekey: PrekeyRecord,
}

impl Strangers {
    /// Draws all keys.
    #[must_use]
    pub fn meet() -> Self {
        let relay = RelayKeyPair::generate(&mut rand::rng()).public();
        let (alice, bob) = (User::new("alice"), User::new("bob"));
        // Older than everything that uses it, as it would be.
        let made = Timestamp(now().0.saturating_sub(MINUTE));
        let (id, kind) = (PrekeyId(1), PrekeyKind::OneTime);
        let secret = PrekeySecret::generate(id, kind, &bob.cert, made, &mut rand::rng());
        let prekey = publish_prekey(&relay, bob.address(), &bob.keys, &bob.cert, &secret).unwrap();
        Self { relay, alice, bob, secret, prekey }
    }

    /// Starts a session and seals the first message: what alice does.
    #[must_use]
    pub fn start(&self, prekey: &PrekeyRecord, content: &[u8]) -> (Session, Vec<u8>) {
        let rng = &mut rand::rng();
        let offer = Offer {
            relay: &self.relay,
            device: &self.alice.keys,
            record: &self.alice.record,
            delivery_tag: DeliveryTag::from_bytes([9; 16]),
            generation: 0,
        };
        let (cert, peer) = (&self.bob.cert, self.bob.address());
        let mut session = start_session(&offer, cert, peer, prekey, now(), rng).unwrap();
        let (_, blob) = session.seal(content, now(), rng).unwrap();
        (session, blob)
    }

    /// Opens the first message: what bob does.
    #[must_use]
    pub fn accept(&self, blob: &[u8]) -> Accepted {
        let (block, message) = FirstBlock::decode(blob).unwrap();
        let Self { relay, bob, secret, .. } = self;
        let mut accepted =
            open_first(relay, bob.address(), &bob.keys, secret, &block, now()).unwrap();
        accepted.session.open(message, now()).unwrap();
        accepted
    }

    /// Returns both ends of a session that each side knows the other has.
    #[must_use]
    pub fn befriend(&self) -> (Session, Session) {
        let (mut alice, blob) = self.start(&self.prekey, b"hello");
        let mut bob = self.accept(&blob).session;
        carry(&mut bob, &mut alice, b"hello", now());
        (alice, bob)
    }
}

/// Seals on one side and opens on the other.
pub fn carry(from: &mut Session, to: &mut Session, content: &[u8], now: Timestamp) {
    let (_, blob) = from.seal(content, now, &mut rand::rng()).unwrap();
    to.open(&blob, now).unwrap();
}

/// Returns a file of `chunks` chunks of `chunk_size` bytes.
#[must_use]
pub fn manifest(chunk_size: u32, chunks: u32) -> Manifest {
    let rng = &mut rand::rng();
    Manifest {
        key: FileKey::generate(rng),
        file_id: FileId::generate(rng),
        blob_id: BlobId::generate(rng),
        size: u64::from(chunk_size) * u64::from(chunks),
        chunk_size,
        chunk_count: chunks,
        root: [0; 32],
        name: "photo.png".to_owned(),
        media_type: "image/png".to_owned(),
    }
}
