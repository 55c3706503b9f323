//! Messages on the wire; with `store::codec` the only user of `proto`. Two functions per message, `decode` and `encode`.
//!
//! Decoding is strict: a missing field, a wrong length, an unknown enum value or a value over its
//! limit is refused. The one exception is the body of a content, where an unknown kind is kept.

#[cfg(feature = "engine")]
pub mod content;
pub mod directory;
pub mod envelope;
#[cfg(feature = "engine")]
pub mod file;
#[cfg(feature = "engine")]
pub mod first_message;
pub mod limits;
pub mod prekey;
pub mod relay;
pub mod room;

/// Why bytes are not the message they should be. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// Not protobuf, or truncated.
    #[error("malformed message")]
    Malformed,
    /// A field that must be there is not.
    #[error("field {0} is missing")]
    Missing(&'static str),
    /// A field has a length it can't have.
    #[error("field {0} has a wrong length")]
    BadLength(&'static str),
    /// A field has a value that this version does not know or allow.
    #[error("field {0} has a value that is not allowed")]
    BadValue(&'static str),
    /// More than the limit.
    #[error("field {field} is over its limit of {limit}")]
    OverLimit {
        /// Which field.
        field: &'static str,
        /// The limit.
        limit: usize,
    },
}

impl From<prost::DecodeError> for WireError {
    fn from(_: prost::DecodeError) -> Self {
        Self::Malformed
    }
}

/// Takes a field of exactly `N` bytes.
pub(crate) fn array<const N: usize>(
    bytes: &[u8],
    field: &'static str,
) -> Result<[u8; N], WireError> {
    bytes.try_into().map_err(|_| WireError::BadLength(field))
}

/// Refuses a count or length over its limit.
pub(crate) fn at_most(value: usize, limit: usize, field: &'static str) -> Result<(), WireError> {
    if value > limit { Err(WireError::OverLimit { field, limit }) } else { Ok(()) }
}
