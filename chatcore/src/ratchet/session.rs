//! The state of one session.

use super::keys::{ChainKey, HeaderKey, RootKey};
use super::pq::{Answer, PqState};
use super::skipped::Skipped;
use crate::agreement::SessionSecrets;
use crate::crypto::{DhPublicKey, DhSecret};
use crate::ids::{SessionId, Timestamp};
use crate::wire::envelope::FirstBlock;

#[derive(Debug)]
pub(crate) struct SendingChain {
    pub(crate) key: ChainKey,
    pub(crate) header: HeaderKey,
    pub(crate) n: u32,
    pub(crate) answer: Option<Answer>,
}

#[derive(Debug)]
pub(crate) struct ReceivingChain {
    pub(crate) key: ChainKey,
    pub(crate) header: HeaderKey,
    pub(crate) n: u32,
}

/// Every field of a session; what is stored of it.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) id: SessionId,
    pub(crate) generation: u32,
    pub(crate) used_at: Timestamp,
    pub(crate) root: RootKey,
    pub(crate) own: Option<DhSecret>,
    pub(crate) peer: Option<DhPublicKey>,
    /// `None` until we send after having received a chain.
    pub(crate) sending: Option<SendingChain>,
    /// Messages in the sending chain before.
    pub(crate) previous_len: u32,
    pub(crate) next_sending_header: HeaderKey,
    pub(crate) receiving: Option<ReceivingChain>,
    pub(crate) next_receiving_header: HeaderKey,
    pub(crate) skipped: Skipped,
    pub(crate) pq: PqState,
    /// Precedes our messages until the peer has answered.
    pub(crate) block: Option<FirstBlock>,
}

/// A pairwise session between two devices.
#[derive(Debug)]
pub struct Session(pub(super) Snapshot);

impl Session {
    /// The state of the side that starts.
    pub(crate) fn start(
        secrets: SessionSecrets,
        own: DhSecret,
        block: FirstBlock,
        generation: u32,
        now: Timestamp,
    ) -> Self {
        let sending = SendingChain {
            key: secrets.first_chain,
            header: secrets.first_header,
            n: 0,
            answer: None,
        };
        Self(Snapshot {
            id: secrets.id,
            generation,
            used_at: now,
            root: secrets.root,
            own: Some(own),
            peer: None,
            sending: Some(sending),
            previous_len: 0,
            next_sending_header: secrets.next_header_a,
            receiving: None,
            next_receiving_header: secrets.next_header_b,
            skipped: Skipped::default(),
            pq: PqState::new(now),
            block: Some(block),
        })
    }

    /// The state of the side that was found through its prekey.
    pub(crate) fn accept(
        secrets: SessionSecrets,
        peer: DhPublicKey,
        generation: u32,
        now: Timestamp,
    ) -> Self {
        let receiving =
            ReceivingChain { key: secrets.first_chain, header: secrets.first_header, n: 0 };
        Self(Snapshot {
            id: secrets.id,
            generation,
            used_at: now,
            root: secrets.root,
            own: None,
            peer: Some(peer),
            sending: None,
            previous_len: 0,
            next_sending_header: secrets.next_header_b,
            receiving: Some(receiving),
            next_receiving_header: secrets.next_header_a,
            skipped: Skipped::default(),
            pq: PqState::new(now),
            block: None,
        })
    }

    pub(crate) const fn from_snapshot(snapshot: Snapshot) -> Self {
        Self(snapshot)
    }

    pub(crate) const fn snapshot(&self) -> &Snapshot {
        &self.0
    }

    /// Makes a starter confirmed without an answer.
    #[cfg(test)]
    pub(crate) fn forget_block_for_testing_only(&mut self) {
        self.0.block = None;
    }

    /// Returns the session's id.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.0.id
    }

    /// Returns the generation: higher ones replace lower ones.
    #[must_use]
    pub const fn generation(&self) -> u32 {
        self.0.generation
    }

    /// Returns when the session last sealed or opened a message.
    #[must_use]
    pub const fn used_at(&self) -> Timestamp {
        self.0.used_at
    }

    /// Tells whether the peer is known to have the session.
    #[must_use]
    pub const fn is_confirmed(&self) -> bool {
        self.0.block.is_none()
    }
}
