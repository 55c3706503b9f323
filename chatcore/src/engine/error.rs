//! Why a command is refused, or the engine can't go on.

use super::rooms::RoomFailure;
use crate::store::StoreError;
use crate::wire::WireError;

/// Why a command is refused, or the engine can't go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EngineError {
    /// Local failure: the store does not answer. The engine is to be dropped.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The user is not known here; look the name up first. State is unchanged.
    #[error("the recipient is not known")]
    UnknownContact,
    /// The contact's identity key changed and the person has not decided. State is unchanged.
    #[error("the contact's identity key changed")]
    IdentityChanged,
    /// The contact is blocked. State is unchanged.
    #[error("the contact is blocked")]
    Blocked,
    /// The user did not ask to write to us, or it was decided. State is unchanged.
    #[error("nobody of that name waits for an answer")]
    NoRequest,
    /// The contact has closed the account. State is unchanged.
    #[error("the contact has closed the account")]
    AccountClosed,
    /// The own account is being closed. State is unchanged.
    #[error("your account is being closed")]
    Closing,
    /// The text is longer than allowed. State is unchanged.
    #[error("the text is longer than {max} bytes")]
    TextTooLong {
        /// The limit.
        max: usize,
    },
    /// Another message has that id. State is unchanged.
    #[error("another message has that id")]
    IdInUse,
    /// The profile belongs to another relay. State is unchanged.
    #[error("the profile belongs to another relay")]
    OtherRelay,
    /// The relay knows the profile by another nickname. State is unchanged.
    #[error("you have a name here already")]
    AlreadyNamed,
    /// A change of the account is under way; try again when it is done. State is unchanged.
    #[error("a change of the account is under way")]
    Busy,
    /// Too many programs follow the profile. State is unchanged.
    #[error("more than {max} programs follow this profile")]
    TooManyPrograms {
        /// The limit.
        max: usize,
    },
    /// The program does not follow, or fell too far behind. State is unchanged.
    #[error("the program does not follow this profile")]
    NotFollowing,
    /// The account lives on another device, or is closed. State is unchanged.
    #[error("this device is not part of your account any more")]
    Revoked,
    /// Nobody writes to himself. State is unchanged.
    #[error("that is yourself")]
    OwnUser,
    /// The command needs the relay. State is unchanged.
    #[error("not connected to the relay")]
    Offline,
    /// Something in a room is not possible. State is unchanged.
    #[error(transparent)]
    Room(#[from] RoomFailure),
    /// The relay broke the protocol; the connection is to be closed. State is unchanged.
    #[error("the relay broke the protocol")]
    RelayMisbehaved,
}

/// A row of ours is not what it was when it was written.
pub(super) fn damaged(_: WireError) -> EngineError {
    EngineError::Store(StoreError::Damaged)
}
