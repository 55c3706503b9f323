//! Long-term keys, and the signed objects that bind them to people.
//!
//! Records arrive as a [`Signed`]; `verify` turns it into a [`UserRecord`] or a [`PrekeyRecord`], and
//! nothing else makes those types. PROTOCOL.md sections 1 and 2.

mod device;
mod identity;
pub(crate) mod nickname;
mod prekey;
mod record;
mod register;
mod relay;
mod signed;

pub(crate) use device::DeviceCertFields;
pub use device::{CERT_LIFE, CERT_RENEWAL, DeviceCert, DeviceKeys, SigningKey, SigningPublicKey};
pub use identity::{IdentityKey, IdentityKeyPair};
pub use nickname::{Nickname, NicknameError, is_printable};
pub(crate) use prekey::PrekeyFields;
pub use prekey::{LAST_RESORT_LIFE, ONE_TIME_LIFE, PrekeyKind, PrekeyRecord, PrekeySecret, SUITE};
pub(crate) use record::UserRecordFields;
pub use record::{
    KnownRecord, MAX_DEVICES, RecordError, RecordHistory, RecordSource, Standing, UserRecord,
};
#[cfg(feature = "engine")]
pub(crate) use register::append_body;
pub use register::{register_id, verify_append};
pub use relay::{RelayKey, RelayKeyPair};
pub use signed::{SignatureError, Signed};
