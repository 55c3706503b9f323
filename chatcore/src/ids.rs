//! Ids: what names users, devices, messages and stored things.

use std::fmt;

use rand::CryptoRng;
use subtle::ConstantTimeEq;

use crate::crypto::kdf::{LABEL_USER, sha256};

/// Returns the first 8 hex characters, for logs.
pub(crate) fn short_hex(bytes: &[u8]) -> String {
    let short = bytes.get(..4).unwrap_or(bytes);
    data_encoding::HEXLOWER.encode(short)
}

/// Digits of an id's beginning by which a person may name it.
pub const SHORT_ID: usize = 8;

macro_rules! byte_id {
    ($(#[$doc:meta])* $name:ident, $len:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; $len]);

        impl $name {
            /// Length in bytes.
            pub const LEN: usize = $len;

            /// Takes the bytes as they are.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $len]) -> Self {
                Self(bytes)
            }

            /// Takes a slice of exactly the right length.
            #[must_use]
            pub fn from_slice(bytes: &[u8]) -> Option<Self> {
                Some(Self(bytes.try_into().ok()?))
            }

            /// Returns the bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $len] {
                &self.0
            }

            /// Returns the first 8 hex characters, for logs.
            #[must_use]
            pub fn fmt_short(&self) -> String {
                short_hex(&self.0)
            }

            /// Returns all bytes as lower-case hex, for a person who asked.
            #[must_use]
            pub fn to_hex(&self) -> String {
                data_encoding::HEXLOWER.encode(&self.0)
            }

            /// Reads what [`Self::to_hex`] wrote, in any case; `None` if it is not that.
            #[must_use]
            pub fn from_hex(hex: &str) -> Option<Self> {
                let bytes = data_encoding::HEXLOWER_PERMISSIVE.decode(hex.as_bytes()).ok()?;
                Some(Self(bytes.try_into().ok()?))
            }
        }

        impl $name {
            /// Tells whether a text is the id in hex, or its beginning of 8 digits or more.
            #[must_use]
            pub fn begins_as(&self, text: &str) -> bool {
                text.len() >= SHORT_ID && self.to_hex().starts_with(&text.to_ascii_lowercase())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.fmt_short())
            }
        }
    };
}

macro_rules! random_id {
    ($($name:ident),*) => {$(
        impl $name {
            /// Draws a new id from `rng`.
            pub fn generate(rng: &mut dyn CryptoRng) -> Self {
                let mut id = Self([0; Self::LEN]);
                rng.fill_bytes(&mut id.0);
                id
            }
        }
    )*};
}

byte_id!(
    /// A user: the hash of the identity key.
    UserId, 32
);
byte_id!(
    /// A pairwise session, derived by the key agreement.
    SessionId, 16
);
byte_id!(
    /// One message, the same across resends.
    MessageId, 16
);
byte_id!(
    /// Names a peer device to the recipient of its envelopes; chosen by the recipient.
    DeliveryTag, 16
);
byte_id!(
    /// Makes sending the same envelope twice harmless.
    IdempotencyKey, 16
);
byte_id!(
    /// A stored file at the relay.
    BlobId, 16
);
byte_id!(
    /// A file, bound into each of its chunks.
    FileId, 16
);
byte_id!(
    /// A room: the hash of the event that created it.
    RoomId, 32
);
byte_id!(
    /// A log at the relay: a register or an open room, by its id.
    LogId, 32
);
byte_id!(
    /// Chain hash over the entries of a log, up to one of them.
    LogHash, 32
);
byte_id!(
    /// A register at the relay: the hash of the key that writes it.
    RegisterId, 32
);
byte_id!(
    /// A room event: the hash of its body.
    EventHash, 32
);
impl From<RegisterId> for LogId {
    fn from(register: RegisterId) -> Self {
        Self::from_bytes(*register.as_bytes())
    }
}

impl From<RoomId> for LogId {
    fn from(room: RoomId) -> Self {
        Self::from_bytes(*room.as_bytes())
    }
}

random_id!(MessageId, DeliveryTag, IdempotencyKey, BlobId, FileId);

impl UserId {
    /// Derives the id from an identity key (PROTOCOL.md section 1).
    #[must_use]
    pub fn derive(identity_key: &[u8; 32]) -> Self {
        Self(sha256(&[LABEL_USER, identity_key]))
    }
}

impl DeliveryTag {
    /// The tag of first messages.
    pub const ZERO: Self = Self([0; 16]);
}

/// One device of a user, from 1.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceId(u32);

impl DeviceId {
    /// Takes a number; 0 is no device.
    #[must_use]
    pub const fn new(id: u32) -> Option<Self> {
        if id == 0 { None } else { Some(Self(id)) }
    }

    /// The first device of every user.
    pub const FIRST: Self = Self(1);

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Where an envelope goes: one device of one user. Names its mailbox as well.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceAddress {
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
}

/// Where a message belongs: to a person or to a room.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Conversation {
    /// With one person.
    User(UserId),
    /// In a room.
    Room(RoomId),
}

impl Conversation {
    /// Returns the bytes of the user's or room's id.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        match self {
            Self::User(user) => user.as_bytes(),
            Self::Room(room) => room.as_bytes(),
        }
    }
}

/// Number of a prekey, from 1, never reused by its device.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PrekeyId(pub u64);

/// Unix time in milliseconds; only ever passed in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns this time and `millis` more, at most the end of time.
    #[must_use]
    pub const fn plus(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis))
    }

    /// Returns the milliseconds since `earlier`, 0 if it is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Milliseconds of a second.
pub const SECOND: u64 = 1_000;
/// Milliseconds of a minute.
pub const MINUTE: u64 = 60 * SECOND;
/// Milliseconds of an hour.
pub const HOUR: u64 = 60 * MINUTE;
/// Milliseconds of a day.
pub const DAY: u64 = 24 * HOUR;

/// Registration token of an invite link; compared in constant time.
#[derive(Clone)]
pub struct InviteToken([u8; 16]);

impl InviteToken {
    /// Draws a new token.
    pub fn generate(rng: &mut dyn CryptoRng) -> Self {
        let mut token = Self([0; 16]);
        rng.fill_bytes(&mut token.0);
        token
    }

    /// Takes a slice of exactly 16 bytes.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    /// Returns the bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl PartialEq for InviteToken {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for InviteToken {}

impl fmt::Debug for InviteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(_) = self;
        f.write_str("InviteToken")
    }
}
