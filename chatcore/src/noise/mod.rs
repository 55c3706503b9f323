//! Noise, with snow behind it: the link to the relay and the handshake of first messages.
//!
//! Every primitive comes from a resolver of ours; snow's own are not compiled in.

pub mod handshake;
pub(crate) mod resolver;
pub mod transport;

pub use handshake::{
    ClientAwaitsReply, ClientHandshake, HandshakeError, RelayAwaitsFinish, RelayHandshake,
};
pub use transport::{Transport, TransportError};

/// Protocol version of the link.
pub const LINK_VERSION: u16 = 1;
