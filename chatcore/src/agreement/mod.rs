//! Key agreement: prekeys of a device that is away → a shared session secret.
//!
//! `Noise_KXpsk2_25519_ChaChaPoly_SHA256` where the recipient is the Noise initiator: his published
//! prekey record carries message 1, the sender's first message carries message 2, and an ML-KEM
//! secret is the psk. PROTOCOL.md section 5.
//!
//! - Goals: the session is secret if X25519 or ML-KEM holds; both ends are authenticated by their
//!   certified agreement keys; a replayed first message makes no second session.
//! - Non-goals: hiding the sender from the recipient's relay; authentication against a quantum computer.

mod initiator;
mod responder;

pub(crate) use initiator::start_session_between;
pub use initiator::{Offer, start_session};
pub use responder::{Accepted, open_first, publish_prekey};

use snow::HandshakeState;
use zeroize::Zeroizing;

use crate::crypto::kdf::{LABEL_E2E, LABEL_PSK, LABEL_SESSION, hkdf, sha256};
use crate::crypto::{KemCiphertext, KemPublicKey};
use crate::ids::{DeviceAddress, PrekeyId, SessionId};
use crate::keys::{PrekeyKind, RecordError, RelayKey, SUITE};
use crate::ratchet::{ChainKey, HeaderKey, RootKey};
use crate::wire::WireError;

/// Protocol version of sessions.
pub const VERSION: u32 = 1;

const PROTOCOL: &str = "Noise_KXpsk2_25519_ChaChaPoly_SHA256";

/// Why no session came about. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AgreementError {
    /// Peer or relay misbehaved: the Noise message does not authenticate.
    #[error("the first message does not authenticate")]
    NotAuthentic,
    /// Peer or relay misbehaved: bytes are not the message they should be.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// Peer or relay misbehaved: a record is refused.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Certificate or prekey expired.
    #[error("the recipient's keys have expired; he must connect once")]
    Expired,
    /// The peer speaks no version that we speak.
    #[error("the other side speaks no common protocol version")]
    Incompatible,
}

impl From<snow::Error> for AgreementError {
    fn from(_: snow::Error) -> Self {
        Self::NotAuthentic
    }
}

/// Facts that both ends know before; they are bound into the handshake.
pub(crate) struct Context<'a> {
    pub(crate) relay: &'a RelayKey,
    pub(crate) recipient: DeviceAddress,
    pub(crate) cert_hash: &'a [u8; 32],
    pub(crate) prekey_id: PrekeyId,
    pub(crate) kind: PrekeyKind,
    pub(crate) kem_ek: &'a KemPublicKey,
}

impl Context<'_> {
    fn prologue(&self) -> Vec<u8> {
        [
            LABEL_E2E,
            &SUITE.to_be_bytes(),
            self.relay.as_bytes(),
            self.recipient.user.as_bytes(),
            &self.recipient.device.get().to_be_bytes(),
            self.cert_hash,
            &self.prekey_id.0.to_be_bytes(),
            &[self.kind.byte()],
            &sha256(&[self.kem_ek.as_bytes()]),
        ]
        .concat()
    }

    fn psk(&self, secret: &[u8; 32], ct: &KemCiphertext, msg1: &[u8]) -> Zeroizing<[u8; 32]> {
        let hashes = [self.kem_ek.as_bytes().as_slice(), ct.as_bytes(), msg1];
        let [ek, ct, msg1] = hashes.map(|bytes| sha256(&[bytes]));
        hkdf(&[], secret, &[LABEL_PSK, &ek, &ct, &msg1])
    }
}

/// Secrets that both ends derive from a finished agreement.
pub struct SessionSecrets {
    pub(crate) id: SessionId,
    pub(crate) root: RootKey,
    pub(crate) first_chain: ChainKey,
    pub(crate) first_header: HeaderKey,
    pub(crate) next_header_a: HeaderKey,
    pub(crate) next_header_b: HeaderKey,
}

impl std::fmt::Debug for SessionSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            id,
            root: _,
            first_chain: _,
            first_header: _,
            next_header_a: _,
            next_header_b: _,
        } = self;
        write!(f, "SessionSecrets({id:?})")
    }
}

impl SessionSecrets {
    /// Takes the raw split once, as HKDF input under the transcript hash; no Noise transport exists.
    fn derive(mut noise: HandshakeState) -> Result<Self, AgreementError> {
        if !noise.is_handshake_finished() {
            return Err(AgreementError::NotAuthentic);
        }
        let (k1, k2) = noise.dangerously_get_raw_split();
        let keys = Zeroizing::new([Zeroizing::new(k1), Zeroizing::new(k2)]);
        let [k1, k2] = &*keys;
        let ikm = Zeroizing::new([k1.as_slice(), k2.as_slice()].concat());
        let okm = hkdf::<176>(noise.get_handshake_hash(), &ikm, &[LABEL_SESSION]);
        let (id, rest) = okm.split_first_chunk::<16>().ok_or(AgreementError::NotAuthentic)?;
        let mut keys = rest.as_chunks::<32>().0.iter();
        let mut next = || keys.next().ok_or(AgreementError::NotAuthentic);
        Ok(Self {
            id: SessionId::from_bytes(*id),
            root: RootKey::from_bytes(next()?),
            first_chain: ChainKey::from_bytes(next()?),
            first_header: HeaderKey::from_bytes(next()?),
            next_header_a: HeaderKey::from_bytes(next()?),
            next_header_b: HeaderKey::from_bytes(next()?),
        })
    }
}
