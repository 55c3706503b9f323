//! Announcements: what the relay itself says, signed with its pinned key.

use super::RoomError;
use crate::addresses::RelayAddress;
use crate::crypto::kdf::LABEL_ANNOUNCEMENT;
use crate::ids::{RoomId, Timestamp};
use crate::keys::{RelayKey, RelayKeyPair, SignatureError, Signed};
use crate::wire::{self, WireError};

/// Why an announcement is refused. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AnnouncementError {
    /// The relay's key did not sign it.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The bytes are no announcement.
    #[error(transparent)]
    Wire(#[from] WireError),
}

impl From<AnnouncementError> for RoomError {
    fn from(error: AnnouncementError) -> Self {
        match error {
            AnnouncementError::Signature(error) => Self::Signature(error),
            AnnouncementError::Wire(error) => Self::Wire(error),
        }
    }
}

/// A verified announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// To the members of this open room; `None`: to everybody.
    pub room: Option<RoomId>,
    /// Ascending; a device shows each number once and never goes back.
    pub seq: u64,
    /// The text.
    pub text: String,
    /// The relay's clock.
    pub at: Timestamp,
    /// Where the relay will be.
    pub moved: Option<RelayAddress>,
}

impl Announcement {
    /// Verifies an announcement of the relay with this key.
    ///
    /// # Errors
    /// [`AnnouncementError`].
    pub fn verify(signed: &Signed, relay: &RelayKey) -> Result<Self, AnnouncementError> {
        signed.verify(&relay.signing_key(), LABEL_ANNOUNCEMENT)?;
        Ok(wire::room::decode_announcement(&signed.body)?)
    }

    /// Signs the announcement.
    #[must_use]
    pub fn sign(&self, keys: &RelayKeyPair) -> Signed {
        keys.sign(LABEL_ANNOUNCEMENT, wire::room::encode_announcement(self))
    }
}
