//! Error codes of the relay.

use proto::relay as pb;

use super::super::WireError;

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// Codes of refusal; the text is for people.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
        pub enum ErrorCode {
            $($(#[$doc])* #[error($text)] $name,)*
        }

        impl ErrorCode {
            pub(super) fn from_wire(code: i32) -> Result<Option<Self>, WireError> {
                match pb::ErrorCode::try_from(code) {
                    Ok(pb::ErrorCode::Unspecified) => Ok(None),
                    $(Ok(pb::ErrorCode::$name) => Ok(Some(Self::$name)),)*
                    Err(_) => Err(WireError::BadValue("error code")),
                }
            }

            pub(super) fn to_wire(self) -> i32 {
                match self { $(Self::$name => pb::ErrorCode::$name,)* }.into()
            }

            /// Every code, for tests.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }
    };
}

error_codes! {
    /// The request is not understood; the connection ends.
    Malformed = "the relay did not understand the request",
    /// The device is not registered here.
    NotRegistered = "this device is not registered at the relay",
    /// The user exists with another record.
    AlreadyRegistered = "this user is registered already",
    /// The invite token is wrong.
    BadToken = "the link has no invite token, or one that is not valid any more",
    /// The relay takes no new users.
    RegistrationClosed = "the relay takes no new users",
    /// The nickname belongs to somebody else.
    NicknameTaken = "the nickname is taken",
    /// There is no such user.
    UnknownUser = "there is no such user",
    /// There is no such device.
    UnknownDevice = "there is no such device",
    /// The record does not verify or does not extend the stored one.
    BadRecord = "the user record was refused",
    /// The prekey does not verify.
    BadPrekey = "a prekey was refused",
    /// The device has no prekey at the relay.
    NoPrekey = "the recipient has published no prekeys yet",
    /// The recipient's mailbox is full.
    MailboxFull = "the recipient's mailbox is full",
    /// Too many envelopes of this sender wait in that mailbox.
    SenderQuota = "too many of your messages wait in that mailbox",
    /// Too much at once.
    RateLimited = "too many requests",
    /// There is no such blob.
    UnknownBlob = "there is no such file at the relay any more",
    /// The blob id is in use.
    BlobExists = "that file id is in use",
    /// The chunk is stored with other bytes.
    ChunkExists = "that chunk is stored already",
    /// No space for more.
    StorageQuota = "no space for more files at the relay",
    /// The write key is wrong.
    Forbidden = "not allowed",
    /// Chunks are missing.
    BlobIncomplete = "the file is not complete at the relay",
    /// Larger than the limit.
    TooLarge = "larger than the relay allows",
    /// Not served by this relay.
    Unsupported = "the relay does not know this request",
    /// The relay failed.
    Internal = "the relay had a failure of its own",
    /// The operator has banned the user.
    Banned = "the relay's operator has banned you",
    /// There is no such open room.
    UnknownRoom = "there is no such room at the relay",
    /// Another open room has the name.
    RoomNameTaken = "another room has that name",
    /// The room has as many members as it can have.
    RoomFull = "the room is full",
    /// Somebody else was first.
    Conflict = "somebody else was faster",
    /// There is no such register.
    UnknownRegister = "the relay has lost the room's register",
    /// The user has as many rooms as the relay allows.
    RoomQuota = "you have as many rooms as the relay allows",
    /// The relay was set back to a backup and waits for what it lost.
    Recovering = "the relay was set back to a backup and waits for what it lost",
    /// The relay has no space to store anything for now.
    DiskFull = "the relay's disk is full",
}
