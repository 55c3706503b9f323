//! Logs at the relay: what it signs when it orders something, and how two of its signatures show that it
//! lied.
//!
//! A log is a register or an open room: entries in one order, of which nothing is ever undone. The relay
//! signs a head over what it has stored durably, with every append and every read. Whoever has a head
//! knows the log up to there for good: a relay may withhold what follows, and can't change what came
//! before without two heads that contradict each other.
//!
//! ```text
//! h(0) = SHA-256("chatcore/1/register-chain" ‖ id)      h(n + 1) = SHA-256(h(n) ‖ SHA-256(entry n))
//! head = relay's signature over {id, epoch, length n, h(n), time}
//! ```
//! A head alone proves nothing about a room: anybody can begin a register and have heads signed for it.

use bytes::Bytes;

use crate::crypto::kdf::{LABEL_REGISTER_CHAIN, LABEL_REGISTER_HEAD, sha256};
use crate::ids::{LogHash, LogId, Timestamp};
use crate::keys::{RelayKey, RelayKeyPair, SignatureError, Signed};
use crate::wire::{self, WireError};

impl LogHash {
    /// Returns the hash of a log without entries.
    #[must_use]
    pub fn begin(log: &LogId) -> Self {
        Self::from_bytes(sha256(&[LABEL_REGISTER_CHAIN, log.as_bytes()]))
    }

    /// Returns the hash with one more entry.
    #[must_use]
    pub fn then(&self, entry: &[u8]) -> Self {
        Self::from_bytes(sha256(&[self.as_bytes(), &sha256(&[entry])]))
    }

    /// Returns the hash with more entries.
    #[must_use]
    pub fn then_all(&self, entries: &[Bytes]) -> Self {
        entries.iter().fold(*self, |hash, entry| hash.then(entry))
    }
}

/// Why a head is refused. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeadError {
    /// The relay's key did not sign it.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The bytes are no head.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// State of a log, as the relay signs it (PROTOCOL.md section 15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogHead {
    /// Which log.
    pub log: LogId,
    /// Counts how often the relay was set back to a backup. It explains a shorter log and decides
    /// nothing.
    pub epoch: u64,
    /// Entries.
    pub length: u64,
    /// The hash over all of them.
    pub hash: LogHash,
    /// The relay's clock.
    pub at: Timestamp,
}

impl LogHead {
    /// Signs the head.
    #[must_use]
    pub fn sign(&self, keys: &RelayKeyPair) -> Signed {
        keys.sign(LABEL_REGISTER_HEAD, wire::room::encode_head(self))
    }

    /// Verifies a head of the relay with this key.
    ///
    /// # Errors
    /// [`HeadError`].
    pub fn verify(signed: &Signed, relay: &RelayKey) -> Result<Self, HeadError> {
        signed.verify(&relay.signing_key(), LABEL_REGISTER_HEAD)?;
        Ok(wire::room::decode_head(&signed.body)?)
    }
}

/// A head with its signature, which is verified where it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedHead {
    signed: Signed,
    head: LogHead,
}

impl SignedHead {
    /// Decodes a head; nothing of it is verified.
    ///
    /// # Errors
    /// [`WireError`].
    pub fn decode(signed: Signed) -> Result<Self, WireError> {
        let head = wire::room::decode_head(&signed.body)?;
        Ok(Self { signed, head })
    }

    /// Verifies the relay's signature.
    ///
    /// # Errors
    /// [`SignatureError`].
    pub fn verify(&self, relay: &RelayKey) -> Result<(), SignatureError> {
        self.signed.verify(&relay.signing_key(), LABEL_REGISTER_HEAD)
    }

    /// Returns the bytes and signature.
    #[must_use]
    pub const fn signed(&self) -> &Signed {
        &self.signed
    }

    /// Returns what it says.
    #[must_use]
    pub const fn head(&self) -> &LogHead {
        &self.head
    }
}

/// One side of a fork: a head, and all the entries that lead to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Branch {
    /// As the relay signed it.
    pub head: Signed,
    /// From the first one on.
    pub entries: Vec<Bytes>,
}

impl Branch {
    /// Checks that the relay signed this head over these entries.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn check(&self, relay: &RelayKey) -> Result<LogHead, ProofError> {
        let head = LogHead::verify(&self.head, relay)?;
        let is_whole = head.length == self.entries.len() as u64;
        if is_whole && LogHash::begin(&head.log).then_all(&self.entries) == head.hash {
            Ok(head)
        } else {
            Err(ProofError::Entries)
        }
    }
}

/// Why something is no proof of a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProofError {
    /// The bytes are no proof.
    #[error("it is no proof of a fork")]
    Wire(#[from] WireError),
    /// A head is not signed by the relay.
    #[error("a head in it is not signed by the relay that it names")]
    Head(#[from] HeadError),
    /// Entries do not lead to the head that they come with.
    #[error("the entries in it do not lead to the heads in it")]
    Entries,
    /// The heads are of two logs.
    #[error("it is about two rooms")]
    OtherLog,
    /// One side goes on from the other: nothing was taken back.
    #[error("one side goes on where the other ends: that is no fork")]
    NoFork,
}

/// Two heads of one log with their entries, of which neither is the beginning of the other: only the
/// relay's key can have made that. Anybody can check it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForkProof {
    /// Whose heads these are.
    pub relay: RelayKey,
    /// The branch that we were shown first.
    pub ours: Branch,
    /// The branch that was shown later, or to somebody else.
    pub theirs: Branch,
}

impl ForkProof {
    /// Checks the proof; returns the log and how many entries both sides share.
    ///
    /// # Errors
    /// [`ProofError`].
    pub fn check(&self) -> Result<(LogId, u64), ProofError> {
        let (ours, theirs) = (self.ours.check(&self.relay)?, self.theirs.check(&self.relay)?);
        if ours.log != theirs.log {
            return Err(ProofError::OtherLog);
        }
        let pairs = self.ours.entries.iter().zip(&self.theirs.entries);
        let shared = pairs.take_while(|(a, b)| a == b).count() as u64;
        if shared == ours.length.min(theirs.length) {
            return Err(ProofError::NoFork);
        }
        Ok((ours.log, shared))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(keys: &RelayKeyPair, log: LogId, entries: &[&'static [u8]]) -> Branch {
        let entries: Vec<Bytes> = entries.iter().map(|entry| Bytes::from_static(entry)).collect();
        let hash = LogHash::begin(&log).then_all(&entries);
        let length = entries.len() as u64;
        let head = LogHead { log, epoch: 1, length, hash, at: Timestamp(5) };
        Branch { head: head.sign(keys), entries }
    }

    #[test]
    fn two_heads_of_which_neither_begins_the_other_prove_a_fork() {
        let keys = RelayKeyPair::generate(&mut crate::testing::rng());
        let other = RelayKeyPair::generate(&mut crate::testing::rng());
        let (log, elsewhere) = (LogId::from_bytes([1; 32]), LogId::from_bytes([2; 32]));
        let proof = |ours, theirs| ForkProof { relay: keys.public(), ours, theirs }.check();
        let ours = || branch(&keys, log, &[b"a", b"b", b"c"]);
        assert_eq!(proof(ours(), branch(&keys, log, &[b"a", b"x"])), Ok((log, 1)));
        assert_eq!(proof(ours(), branch(&keys, log, &[b"x", b"b", b"c", b"d"])), Ok((log, 0)));
        let all: [&[u8]; 4] = [b"a", b"b", b"c", b"d"];
        for length in 0..=4 {
            let same_way = branch(&keys, log, &all[..length]);
            assert_eq!(proof(ours(), same_way), Err(ProofError::NoFork), "{length}");
        }
        let elsewhere = branch(&keys, elsewhere, &[b"x"]);
        assert_eq!(proof(ours(), elsewhere), Err(ProofError::OtherLog));
        let forged = branch(&other, log, &[b"x"]);
        assert!(matches!(proof(ours(), forged), Err(ProofError::Head(_))));
        let mut bent = branch(&keys, log, &[b"a", b"x"]);
        bent.entries.pop();
        assert_eq!(proof(ours(), bent.clone()), Err(ProofError::Entries));
        bent.entries.push(Bytes::from_static(b"y"));
        assert_eq!(proof(ours(), bent), Err(ProofError::Entries));
    }
}
