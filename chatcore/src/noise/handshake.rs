//! The link handshake: `Noise_XKpsk2` made hybrid by a psk from ML-KEM (PROTOCOL.md section 3).
//!
//! ```text
//! device:  ClientHandshake ──record 1──▶ ClientAwaitsReply ──record 3──▶ Transport
//! relay:   RelayHandshake ◀──record 1──  RelayAwaitsFinish ◀──record 3── Transport
//!                          ──record 2──▶
//! ```
//! Each step consumes its state: what failed once is dropped.

use rand::CryptoRng;
use snow::{Builder, HandshakeState};
use zeroize::Zeroizing;

use super::LINK_VERSION;
use super::resolver::Resolver;
use super::transport::Transport;
use crate::crypto::kdf::{LABEL_LINK, LABEL_LINK_PSK, hkdf, sha256};
use crate::crypto::kem::{KEM_CT_LEN, KEM_EK_LEN};
use crate::crypto::{DhPublicKey, DhSecret, KemCiphertext, KemPublicKey, KemSecret};
use crate::keys::{RelayKey, RelayKeyPair};

const PROTOCOL: &str = "Noise_XKpsk2_25519_ChaChaPoly_SHA256";
/// Most bytes of a Noise message.
pub const MAX_NOISE_MESSAGE: usize = 65_535;
/// Bytes of record 1.
pub const RECORD_1_LEN: usize = 32 + KEM_EK_LEN + 16;
/// Bytes of record 2.
pub const RECORD_2_LEN: usize = KEM_CT_LEN + 48;
/// Most bytes of the request inside record 3.
pub const MAX_FIRST_REQUEST: usize = 16_384;

/// The link could not be made; the connection is to be closed. No state is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// The other side does not have the key it should have, or the bytes were changed on the way.
    #[error("the other side could not prove that it has the right key")]
    NotAuthentic,
    /// The record has a length it can't have.
    #[error("a handshake record has a wrong length")]
    BadLength,
    /// The first request is longer than [`MAX_FIRST_REQUEST`].
    #[error("the first request is too long for the handshake")]
    RequestTooLong,
}

impl From<snow::Error> for HandshakeError {
    fn from(_: snow::Error) -> Self {
        Self::NotAuthentic
    }
}

fn prologue(relay: &RelayKey) -> Vec<u8> {
    [LABEL_LINK, relay.as_bytes(), &LINK_VERSION.to_be_bytes()].concat()
}

fn link_psk(secret: &[u8; 32], ek: &KemPublicKey, ct: &KemCiphertext) -> Zeroizing<[u8; 32]> {
    let (ek, ct) = (sha256(&[ek.as_bytes()]), sha256(&[ct.as_bytes()]));
    hkdf(&[], secret, &[LABEL_LINK_PSK, &ek, &ct])
}

fn builder<'a>(
    rng: &mut dyn CryptoRng,
    prologue: &'a [u8],
    local: &'a [u8; 32],
) -> Result<Builder<'a>, HandshakeError> {
    Ok(Resolver::drawing(rng).builder(PROTOCOL)?.prologue(prologue)?.local_private_key(local)?)
}

fn write(noise: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut out = vec![0; payload.len() + 128];
    let len = noise.write_message(payload, &mut out)?;
    out.truncate(len);
    Ok(out)
}

/// A device about to connect.
#[derive(Debug)]
pub struct ClientHandshake(());

impl ClientHandshake {
    /// Writes record 1. Draws 64 bytes, then 32.
    ///
    /// # Errors
    /// [`HandshakeError::NotAuthentic`] when the relay key is of small order.
    pub fn start(
        relay: &RelayKey,
        link: &DhSecret,
        rng: &mut dyn CryptoRng,
    ) -> Result<(Vec<u8>, ClientAwaitsReply), HandshakeError> {
        let kem = KemSecret::generate(rng);
        let local = link.to_bytes();
        let prologue = prologue(relay);
        let remote = relay.link_key();
        let mut noise = builder(rng, &prologue, &local)?
            .remote_public_key(remote.as_bytes())?
            .build_initiator()?;
        let record = write(&mut noise, kem.public().as_bytes())?;
        Ok((record, ClientAwaitsReply { noise, kem }))
    }
}

/// A device that waits for record 2.
#[derive(Debug)]
pub struct ClientAwaitsReply {
    noise: HandshakeState,
    kem: KemSecret,
}

impl ClientAwaitsReply {
    /// Reads record 2 and writes record 3 with the first request inside.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub fn finish(
        mut self,
        record: &[u8],
        request: &[u8],
    ) -> Result<(Vec<u8>, Transport), HandshakeError> {
        if record.len() != RECORD_2_LEN {
            return Err(HandshakeError::BadLength);
        }
        if request.len() > MAX_FIRST_REQUEST {
            return Err(HandshakeError::RequestTooLong);
        }
        let (ct, message) = record.split_at_checked(KEM_CT_LEN).ok_or(HandshakeError::BadLength)?;
        let ct = KemCiphertext::from_slice(ct).ok_or(HandshakeError::BadLength)?;
        let secret = self.kem.decapsulate(&ct);
        let psk = link_psk(&secret, self.kem.public(), &ct);
        self.noise.set_psk(2, psk.as_slice())?;
        self.noise.read_message(message, &mut [0; 16])?;
        let record = write(&mut self.noise, request)?;
        let transport = Transport::new(self.noise)?;
        Ok((record, transport))
    }
}

/// A relay that waits for record 1.
#[derive(Debug)]
pub struct RelayHandshake(());

impl RelayHandshake {
    /// Reads record 1 and writes record 2. Draws 32 bytes twice.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub fn respond(
        keys: &RelayKeyPair,
        record: &[u8],
        rng: &mut dyn CryptoRng,
    ) -> Result<(Vec<u8>, RelayAwaitsFinish), HandshakeError> {
        if record.len() != RECORD_1_LEN {
            return Err(HandshakeError::BadLength);
        }
        let local = keys.link().to_bytes();
        let prologue = prologue(&keys.public());
        let mut encapsulation = Zeroizing::new([0; 32]);
        rng.fill_bytes(encapsulation.as_mut_slice());
        let mut noise = builder(rng, &prologue, &local)?.build_responder()?;
        let mut ek = vec![0; RECORD_1_LEN];
        let len = noise.read_message(record, &mut ek)?;
        let ek = KemPublicKey::from_slice(ek.get(..len).unwrap_or_default())
            .map_err(|_| HandshakeError::NotAuthentic)?;
        let (ct, secret) = ek.encapsulate_with(&encapsulation);
        noise.set_psk(2, link_psk(&secret, &ek, &ct).as_slice())?;
        let mut out = ct.as_bytes().to_vec();
        out.extend_from_slice(&write(&mut noise, &[])?);
        Ok((out, RelayAwaitsFinish { noise }))
    }
}

/// A relay that waits for record 3.
#[derive(Debug)]
pub struct RelayAwaitsFinish {
    noise: HandshakeState,
}

impl RelayAwaitsFinish {
    /// Reads record 3: gives the device's link key, the first request, and the transport.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub fn finish(
        mut self,
        record: &[u8],
    ) -> Result<(DhPublicKey, Vec<u8>, Transport), HandshakeError> {
        if record.len() > MAX_FIRST_REQUEST + 64 {
            return Err(HandshakeError::BadLength);
        }
        let mut request = vec![0; record.len()];
        let len = self.noise.read_message(record, &mut request)?;
        request.truncate(len);
        let key = self.noise.get_remote_static().and_then(|k| k.first_chunk::<32>());
        let key = DhPublicKey::from_bytes(*key.ok_or(HandshakeError::NotAuthentic)?);
        Ok((key, request, Transport::new(self.noise)?))
    }
}
