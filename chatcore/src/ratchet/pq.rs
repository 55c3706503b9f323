//! The sparse ML-KEM step: who offers a key, who answers, and when.

use crate::crypto::kdf::sha256;
use crate::crypto::{KemCiphertext, KemPublicKey, KemSecret};
use crate::ids::{DAY, Timestamp};

/// Messages, both ways, after which a step is due.
pub(super) const DUE_MESSAGES: u32 = 50;
/// Milliseconds after which a step is due.
pub(super) const DUE_AFTER: u64 = DAY;

/// First 8 bytes of SHA-256 of an encapsulation key: names it in an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EkHash([u8; 8]);

impl EkHash {
    pub(crate) const fn from_bytes(bytes: [u8; 8]) -> Self {
        Self(bytes)
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 8] {
        &self.0
    }

    pub(super) fn of(key: &KemPublicKey) -> Self {
        let mut short = [0; 8];
        short.iter_mut().zip(sha256(&[key.as_bytes()])).for_each(|(to, from)| *to = from);
        Self(short)
    }
}

/// A ciphertext to the peer's encapsulation key; rides in every message of its chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) to: EkHash,
    pub(crate) ct: KemCiphertext,
}

/// One side's view of the ML-KEM steps of a session.
#[derive(Debug)]
pub(crate) struct PqState {
    /// Our outstanding key, repeated until its answer has stepped the root.
    pub(crate) own_offer: Option<KemSecret>,
    /// The peer's key that we have not answered yet.
    pub(crate) peer_offer: Option<KemPublicKey>,
    /// The peer's last key that we answered; it may still arrive again.
    pub(crate) answered: Option<EkHash>,
    /// Messages since the last step.
    pub(crate) messages: u32,
    /// When the last step was.
    pub(crate) stepped_at: Timestamp,
}

impl PqState {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { own_offer: None, peer_offer: None, answered: None, messages: 0, stepped_at: now }
    }

    pub(super) const fn is_offer_due(&self, now: Timestamp) -> bool {
        self.own_offer.is_none()
            && self.peer_offer.is_none()
            && (self.messages >= DUE_MESSAGES || now.since(self.stepped_at) >= DUE_AFTER)
    }

    /// Tells whether message `n` of a chain carries our outstanding key.
    pub(super) const fn rides_in(n: u32) -> bool {
        n < 3 || n.is_multiple_of(16)
    }

    pub(super) const fn stepped(&mut self, now: Timestamp) {
        self.messages = 0;
        self.stepped_at = now;
    }

    pub(super) fn take_peer_offer(&mut self, offer: Option<KemPublicKey>) {
        if let Some(key) = offer
            && self.answered != Some(EkHash::of(&key))
        {
            self.peer_offer = Some(key);
        }
    }
}
