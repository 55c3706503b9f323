//! The link after its handshake: relay messages in encrypted records.

use std::fmt;

use snow::{HandshakeState, TransportState};
use zeroize::Zeroizing;

use super::handshake::{HandshakeError, MAX_NOISE_MESSAGE};
use crate::wire::limits::MAX_LINK_MESSAGE;

/// Most bytes of a message in one record: less flag byte and tag.
pub const MAX_FRAGMENT: usize = MAX_NOISE_MESSAGE - 17;
/// Records after which a direction takes a new key.
pub const REKEY_EVERY: u64 = 1 << 16;

/// Bytes of buffer that a waiting link may keep.
const KEPT_BUFFER: usize = 2_048;

const LAST: u8 = 0;
const MORE: u8 = 1;

/// The link is broken and to be closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TransportError {
    /// A record does not authenticate, or has flags that are not allowed.
    #[error("a record on the link does not authenticate")]
    NotAuthentic,
    /// A message is longer than [`MAX_LINK_MESSAGE`].
    #[error("a message on the link is over its limit of {MAX_LINK_MESSAGE} bytes")]
    TooLong,
}

/// Seals and opens messages of an established link; counts records and rekeys.
pub struct Transport {
    noise: TransportState,
    handshake_hash: [u8; 32],
    sent: u64,
    received: u64,
    partial: Vec<u8>,
    limit: usize,
    plain: Zeroizing<Vec<u8>>,
}

impl Transport {
    pub(super) fn new(noise: HandshakeState) -> Result<Self, HandshakeError> {
        let hash = noise.get_handshake_hash().first_chunk::<32>();
        let handshake_hash = *hash.ok_or(HandshakeError::NotAuthentic)?;
        Ok(Self {
            noise: noise.into_transport_mode()?,
            handshake_hash,
            sent: 0,
            received: 0,
            partial: Vec::new(),
            limit: MAX_LINK_MESSAGE,
            plain: Zeroizing::new(Vec::new()),
        })
    }

    /// Returns the hash that both sides share and nobody else can choose.
    #[must_use]
    pub const fn handshake_hash(&self) -> &[u8; 32] {
        &self.handshake_hash
    }

    /// Frees the buffer that long messages left behind, on a link that is about to wait.
    pub fn release(&mut self) {
        if self.plain.capacity() > KEPT_BUFFER {
            self.plain = Zeroizing::new(Vec::new());
        }
    }

    /// Returns the bytes of a message whose end has not come.
    #[must_use]
    pub const fn partial(&self) -> usize {
        self.partial.len()
    }

    /// Refuses messages longer than `max` bytes from now on; never more than [`MAX_LINK_MESSAGE`].
    pub fn limit_messages(&mut self, max: usize) {
        self.limit = max.min(MAX_LINK_MESSAGE);
    }

    /// Appends the records of one message to `out`, each with its length.
    ///
    /// # Errors
    /// [`TransportError::TooLong`], nothing is appended then.
    pub fn seal(&mut self, message: &[u8], out: &mut Vec<u8>) -> Result<(), TransportError> {
        if message.len() > MAX_LINK_MESSAGE {
            return Err(TransportError::TooLong);
        }
        let records = message.len() / MAX_FRAGMENT + 1;
        out.reserve(message.len() + records * (2 + 1 + 16));
        let mut rest = message;
        loop {
            let (fragment, after) = rest.split_at(rest.len().min(MAX_FRAGMENT));
            let flag = if after.is_empty() { LAST } else { MORE };
            self.seal_record(flag, fragment, out)?;
            if after.is_empty() {
                return Ok(());
            }
            rest = after;
        }
    }

    pub(crate) fn seal_record(
        &mut self,
        flag: u8,
        fragment: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), TransportError> {
        self.plain.clear();
        self.plain.push(flag);
        self.plain.extend_from_slice(fragment);
        let len = u16::try_from(self.plain.len() + 16).map_err(|_| TransportError::TooLong)?;
        let start = out.len();
        out.extend_from_slice(&len.to_be_bytes());
        out.resize(start + 2 + usize::from(len), 0);
        let record = out.get_mut(start + 2..).ok_or(TransportError::TooLong)?;
        self.noise.write_message(&self.plain, record).map_err(|_| TransportError::NotAuthentic)?;
        self.sent += 1;
        if self.sent.is_multiple_of(REKEY_EVERY) {
            self.noise.rekey_outgoing();
        }
        Ok(())
    }

    /// Opens one record, without its length; returns a message when it is whole.
    ///
    /// # Errors
    /// [`TransportError`]: the link is broken.
    pub fn open(&mut self, record: &[u8]) -> Result<Option<Vec<u8>>, TransportError> {
        self.plain.resize(record.len(), 0);
        let len = self
            .noise
            .read_message(record, &mut self.plain)
            .map_err(|_| TransportError::NotAuthentic)?;
        self.received += 1;
        if self.received.is_multiple_of(REKEY_EVERY) {
            self.noise.rekey_incoming();
        }
        let plain = self.plain.get(..len).unwrap_or_default();
        let (flag, fragment) = plain.split_first().ok_or(TransportError::NotAuthentic)?;
        if self.partial.len() + fragment.len() > self.limit {
            return Err(TransportError::TooLong);
        }
        self.partial.extend_from_slice(fragment);
        match *flag {
            LAST => Ok(Some(std::mem::take(&mut self.partial))),
            MORE => Ok(None),
            _ => Err(TransportError::NotAuthentic),
        }
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { noise: _, handshake_hash: _, sent, received, partial: _, limit: _, plain: _ } =
            self;
        write!(f, "Transport(sent {sent}, received {received})")
    }
}

/// Splits the first record off a receive buffer: its bytes without the length, and its end.
///
/// Returns `None` while the record is not complete.
#[must_use]
pub fn split_record(buffer: &[u8]) -> Option<(&[u8], usize)> {
    let (len, rest) = buffer.split_first_chunk::<2>()?;
    let len = usize::from(u16::from_be_bytes(*len));
    Some((rest.get(..len)?, len + 2))
}

/// Prepends the length to a handshake record.
#[must_use]
pub fn frame_record(record: &[u8]) -> Vec<u8> {
    let len = u16::try_from(record.len()).unwrap_or(u16::MAX);
    [&len.to_be_bytes(), record].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::DhSecret;
    use crate::keys::RelayKeyPair;
    use crate::noise::{ClientHandshake, RelayHandshake};

    fn link() -> (Transport, Transport) {
        let relay = RelayKeyPair::generate(&mut crate::testing::rng());
        let device = DhSecret::generate(&mut crate::testing::rng());
        let (one, client) =
            ClientHandshake::start(&relay.public(), &device, &mut crate::testing::rng()).unwrap();
        let (two, server) =
            RelayHandshake::respond(&relay, &one, &mut crate::testing::rng()).unwrap();
        let (three, client) = client.finish(&two, b"login").unwrap();
        let (key, request, server) = server.finish(&three).unwrap();
        assert_eq!((key, request.as_slice()), (*device.public(), b"login".as_slice()));
        assert_eq!(client.handshake_hash(), server.handshake_hash());
        (client, server)
    }

    fn carry(from: &mut Transport, to: &mut Transport, message: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        from.seal(message, &mut wire).unwrap();
        let mut rest = wire.as_slice();
        while let Some((record, end)) = split_record(rest) {
            let opened = to.open(record).unwrap();
            rest = &rest[end..];
            if let Some(message) = opened {
                assert!(rest.is_empty());
                return message;
            }
        }
        panic!("no whole message");
    }

    #[test]
    fn messages_of_every_size_pass_both_ways() {
        let (mut client, mut server) = link();
        for len in [0, 1, MAX_FRAGMENT, MAX_FRAGMENT + 1, MAX_LINK_MESSAGE] {
            let message = vec![7; len];
            assert_eq!(carry(&mut client, &mut server, &message), message);
            assert_eq!(carry(&mut server, &mut client, &message), message);
        }
        let too_long = vec![0; MAX_LINK_MESSAGE + 1];
        assert_eq!(client.seal(&too_long, &mut Vec::new()), Err(TransportError::TooLong));
    }

    #[test]
    fn a_direction_rekeys_and_goes_on() {
        let (mut client, mut server) = link();
        for n in 0..REKEY_EVERY + 10 {
            let message = n.to_be_bytes();
            assert_eq!(carry(&mut client, &mut server, &message), message);
        }
    }

    #[test]
    fn changed_and_replayed_records_are_refused() {
        let (mut client, mut server) = link();
        let mut wire = Vec::new();
        client.seal(b"hello", &mut wire).unwrap();
        let record = wire[2..].to_vec();
        server.open(&record).unwrap();
        assert_eq!(server.open(&record), Err(TransportError::NotAuthentic));
        let (mut client, mut server) = link();
        let mut wire = Vec::new();
        client.seal(b"hello", &mut wire).unwrap();
        wire[5] ^= 1;
        assert_eq!(server.open(&wire[2..]), Err(TransportError::NotAuthentic));
    }

    #[test]
    fn a_relay_with_another_key_is_refused() {
        let (real, other) = (
            RelayKeyPair::generate(&mut crate::testing::rng()),
            RelayKeyPair::generate(&mut crate::testing::rng()),
        );
        let device = DhSecret::generate(&mut crate::testing::rng());
        let (one, _) =
            ClientHandshake::start(&real.public(), &device, &mut crate::testing::rng()).unwrap();
        assert!(RelayHandshake::respond(&other, &one, &mut crate::testing::rng()).is_err());
    }

    #[test]
    fn a_message_without_an_end_is_bounded() {
        let (mut client, mut server) = link();
        let fragment = vec![0; MAX_FRAGMENT];
        let mut result = Ok(None);
        for _ in 0..20 {
            let mut wire = Vec::new();
            client.seal_record(MORE, &fragment, &mut wire).unwrap();
            result = server.open(&wire[2..]);
            if result.is_err() {
                break;
            }
        }
        assert_eq!(result, Err(TransportError::TooLong));
    }
}
