//! Why a measurement ended early.

use std::io;

use chatcore::noise::{HandshakeError, TransportError};
use chatcore::wire::WireError;
use chatcore::wire::relay::ErrorCode;
use server::RelayError;
use server::store::StoreError;

/// A measurement could not be made. What was measured before it still holds.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BenchError {
    /// The machine did not do what it was asked.
    #[error("{what}: {source}")]
    System {
        /// The work that failed.
        what: &'static str,
        /// The system's words.
        source: io::Error,
    },
    /// The link to the relay could not be made.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The link to the relay broke.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The relay sent what it must not send.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The relay refused a request; its limits are to be raised for a load.
    #[error("the relay refused: {0}; a relay under load needs higher limits (chat-server --help)")]
    Refused(ErrorCode),
    /// The relay, or the process beside it, said something that fits no request.
    #[error("not the answer that was expected: {0}")]
    Unexpected(String),
    /// Messages were accepted and did not arrive.
    #[error("{sent} messages were sent and {delivered} delivered")]
    Lost {
        /// Handed to the relay.
        sent: u64,
        /// Arrived.
        delivered: u64,
    },
    /// The system allows too few open files.
    #[error("{needed} open files are needed and {allowed} allowed; run: ulimit -n {needed}")]
    OpenFiles {
        /// For the connections asked for.
        needed: u64,
        /// By the system, now.
        allowed: u64,
    },
    /// The relay did not open.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl BenchError {
    /// Returns what makes an [`io::Error`] say what was being done.
    pub const fn system(what: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { what, source }
    }
}
