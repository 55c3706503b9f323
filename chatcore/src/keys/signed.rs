//! A body and its signature; the bytes received are the bytes verified.

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::crypto::kdf::sha256;

/// The signature does not fit body, label and key. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct SignatureError;

/// A signed object as it travels: the body's bytes and an Ed25519 signature over `label ‖ 0 ‖ body`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The signed bytes, an encoded protobuf message.
    pub body: Vec<u8>,
    /// The signature.
    pub signature: [u8; 64],
}

impl Signed {
    pub(crate) fn sign(key: &SigningKey, label: &[u8], body: Vec<u8>) -> Self {
        let signature = key.sign(&message(label, &body)).to_bytes();
        Self { body, signature }
    }

    /// Verifies strictly: canonical encodings, no small-order keys.
    pub(crate) fn verify(&self, key: &[u8; 32], label: &[u8]) -> Result<(), SignatureError> {
        let key = VerifyingKey::from_bytes(key).map_err(|_| SignatureError)?;
        let signature = Signature::from_bytes(&self.signature);
        key.verify_strict(&message(label, &self.body), &signature).map_err(|_| SignatureError)
    }

    /// Returns SHA-256 of the body: the object's name in chains.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        sha256(&[&self.body])
    }
}

fn message(label: &[u8], body: &[u8]) -> Vec<u8> {
    [label, &[0], body].concat()
}
