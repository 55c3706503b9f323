//! Why a client can't do what it was asked.

use std::io;

use super::builder::BuildError;
use super::transfer::FileError;
use crate::engine::{EngineError, LookupError, is_for_ever};
use crate::noise::{HandshakeError, TransportError};
use crate::store::StoreError;
use crate::wire::WireError;
use crate::wire::relay::{ErrorCode, Failure};

/// Why a client can't do what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No connection, or it broke. What was saved is sent on the next one.
    #[error("the relay can't be reached ({})", why(*.0))]
    Unreachable(io::ErrorKind),
    /// The proxy does not answer, or refuses.
    #[error("the proxy does not lead to the relay")]
    Proxy,
    /// The proxy wants a user name and a password, or others.
    #[error("the proxy does not accept the user name and password")]
    ProxyLogin,
    /// Names that end with `.onion` lead nowhere without Tor, and asking for them elsewhere tells others.
    #[error("the relay's address is a Tor address, and no proxy is given")]
    OnionNeedsProxy,
    /// Something answers at that address, but not with the pinned key.
    #[error("what answers there is not the relay of the invite link, or hung up")]
    WrongRelay,
    /// The handshake failed.
    #[error("the relay could not prove its key: {0}")]
    Handshake(#[from] HandshakeError),
    /// The link broke the rules.
    #[error(transparent)]
    Link(TransportError),
    /// A frame is not what it should be.
    #[error("the relay sent something that is no frame: {0}")]
    Wire(WireError),
    /// The relay refused us.
    #[error("{}", .0.code)]
    Refused(Failure),
    /// The engine refused, or the store failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A name leads nowhere.
    #[error(transparent)]
    Lookup(#[from] LookupError),
    /// A file can't be sent or saved.
    #[error(transparent)]
    File(#[from] FileError),
    /// The caller left something out, or gave it twice.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The client was closed.
    #[error("the client is closed")]
    Closed,
}

/// Says why an address can't be reached.
fn why(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::NotFound => "no host has the name that its address begins with".to_owned(),
        kind => kind.to_string(),
    }
}

/// Whose doing a failure is; it says who can mend it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The profile's store, or this computer's disk.
    Store,
    /// The relay: it is away, refuses, or is not what it should be.
    Relay,
    /// The caller, or the person behind it: what was asked for is not possible as things are.
    Caller,
    /// The other side of a conversation: their key changed, or what they sent is not what it should be.
    Peer,
}

impl ClientError {
    /// Tells whose doing it is.
    #[must_use]
    pub const fn blame(&self) -> Blame {
        match self {
            Self::Unreachable(_)
            | Self::Proxy
            | Self::ProxyLogin
            | Self::WrongRelay
            | Self::Handshake(_)
            | Self::Link(_)
            | Self::Wire(_)
            | Self::Refused(_)
            | Self::Lookup(LookupError::BadAnswer | LookupError::Refused(_))
            | Self::File(FileError::Gone | FileError::Refused(_))
            | Self::Engine(EngineError::Offline | EngineError::RelayMisbehaved) => Blame::Relay,
            Self::Engine(EngineError::Store(_))
            | Self::File(FileError::NoSpace { .. } | FileError::Io(_)) => Blame::Store,
            Self::Engine(EngineError::IdentityChanged | EngineError::AccountClosed)
            | Self::Lookup(LookupError::IdentityChanged)
            | Self::File(FileError::Chunk(_) | FileError::NotText) => Blame::Peer,
            Self::OnionNeedsProxy
            | Self::Engine(_)
            | Self::Lookup(_)
            | Self::File(_)
            | Self::Build(_)
            | Self::Closed => Blame::Caller,
        }
    }
    /// Tells whether there was no connection, or it broke: the relay may be there later.
    #[must_use]
    pub const fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Proxy | Self::ProxyLogin | Self::OnionNeedsProxy
        )
    }

    /// Tells whether a file may be taken later as it is: the relay is away, or has no room for it now.
    pub(crate) const fn may_pass(&self) -> bool {
        match self {
            Self::File(FileError::Refused(code)) => !is_for_ever(*code),
            Self::Refused(failure) => !self.is_final() && !is_for_ever(failure.code),
            _ => self.is_unreachable(),
        }
    }

    /// Tells whether trying again does not mend it: a client that meets it ends.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self {
            Self::Engine(EngineError::Store(_) | EngineError::Revoked) => true,
            Self::Refused(failure) => matches!(
                failure.code,
                ErrorCode::Malformed
                    | ErrorCode::BadToken
                    | ErrorCode::RegistrationClosed
                    | ErrorCode::NicknameTaken
                    | ErrorCode::BadRecord
                    | ErrorCode::Unsupported
                    | ErrorCode::Banned
            ),
            _ => false,
        }
    }
}

impl From<StoreError> for ClientError {
    fn from(error: StoreError) -> Self {
        Self::Engine(EngineError::Store(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failure_is_laid_at_the_right_door() {
        let of = |error: ClientError| error.blame();
        assert_eq!(of(ClientError::Unreachable(io::ErrorKind::TimedOut)), Blame::Relay);
        assert_eq!(of(StoreError::Damaged.into()), Blame::Store);
        assert_eq!(of(EngineError::IdentityChanged.into()), Blame::Peer);
        assert_eq!(of(EngineError::Busy.into()), Blame::Caller);
        assert_eq!(of(LookupError::Unknown.into()), Blame::Caller);
        assert_eq!(of(FileError::NoSpace { needed: 2, free: 1 }.into()), Blame::Store);
        assert_eq!(of(BuildError::NoRelay.into()), Blame::Caller);
    }
}
