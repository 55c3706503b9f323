//! Sealing a message.

use rand::CryptoRng;

use super::header::Header;
use super::pq::{Answer, EkHash, PqState};
use super::session::{SendingChain, Session};
use crate::crypto::aead::{TAG_LEN, XNONCE_LEN};
use crate::crypto::{DhSecret, KemSecret};
use crate::ids::Timestamp;
use crate::wire::envelope::{ContentTooLong, EnvelopeKind, pad};

/// Why a message could not be sealed. The session is not to be used any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The content must travel as a file. The session is unchanged.
    #[error(transparent)]
    TooLong(#[from] ContentTooLong),
    /// The peer's ratchet key is of small order, or 2^32 messages were sent. The session is unchanged.
    #[error("the session can't send any more")]
    Unusable,
}

impl Session {
    /// Seals a content into a blob of an allowed size, with the first block before it while the
    /// peer has not answered.
    ///
    /// Draws, where needed: ratchet secret (32), encapsulation randomness (32), ML-KEM seed (64);
    /// then the nonce (24). The caller stores the session before the blob leaves.
    ///
    /// # Errors
    /// [`SealError`]; the session is unchanged then.
    pub fn seal(
        &mut self,
        content: &[u8],
        now: Timestamp,
        rng: &mut dyn CryptoRng,
    ) -> Result<(EnvelopeKind, Vec<u8>), SealError> {
        // Checked with the largest header before any key moves.
        let block_len =
            self.0.block.as_ref().map_or(0, crate::wire::envelope::FirstBlock::encoded_len);
        pad(content, block_len + XNONCE_LEN + 2 + MAX_HEADER + 2 * TAG_LEN)?;

        self.begin_sending_chain(now, rng)?;
        if self.0.pq.is_offer_due(now) {
            self.0.pq.own_offer = Some(KemSecret::generate(rng));
        }
        let mut nonce = [0; XNONCE_LEN];
        rng.fill_bytes(&mut nonce);

        let state = &mut self.0;
        let own = state.own.as_ref().ok_or(SealError::Unusable)?;
        let chain = state.sending.as_mut().ok_or(SealError::Unusable)?;
        let following = chain.n.checked_add(1).ok_or(SealError::Unusable)?;
        let offer = state.pq.own_offer.as_ref().filter(|_| PqState::rides_in(chain.n));
        let header = Header {
            ratchet_key: *own.public(),
            previous_len: state.previous_len,
            n: chain.n,
            offer: offer.map(|secret| secret.public().clone()),
            answer: chain.answer.clone(),
        };
        let sealed_header = chain.header.seal(&nonce, &state.id, &header.encode());
        let overhead = block_len + XNONCE_LEN + 2 + sealed_header.len() + TAG_LEN;
        let mut body = pad(content, overhead)?;
        let (message_key, next) = chain.key.step();
        let ad = [state.id.as_bytes(), nonce.as_slice(), &sealed_header].concat();
        message_key.encrypt(&nonce, &ad, &mut body);
        chain.key = next;
        chain.n = following;

        let mut blob = Vec::with_capacity(overhead + body.len());
        let kind = match &state.block {
            Some(block) => {
                block.encode(&mut blob);
                EnvelopeKind::First
            }
            None => EnvelopeKind::Session,
        };
        blob.extend_from_slice(&nonce);
        let header_len = u16::try_from(sealed_header.len()).unwrap_or(u16::MAX);
        blob.extend_from_slice(&header_len.to_be_bytes());
        blob.extend_from_slice(&sealed_header);
        blob.extend_from_slice(&body);

        state.pq.messages = state.pq.messages.saturating_add(1);
        state.used_at = now;
        Ok((kind, blob))
    }

    /// Steps the root with a fresh ratchet key, if we have received since we last did.
    fn begin_sending_chain(
        &mut self,
        now: Timestamp,
        rng: &mut dyn CryptoRng,
    ) -> Result<(), SealError> {
        let state = &mut self.0;
        if state.sending.is_some() {
            return Ok(());
        }
        let peer = state.peer.ok_or(SealError::Unusable)?;
        let own = DhSecret::generate(rng);
        let pq = state.pq.peer_offer.as_ref().map(|key| {
            let (ct, secret) = key.encapsulate(rng);
            (Answer { to: EkHash::of(key), ct }, secret)
        });
        let pq_secret = pq.as_ref().map(|(answer, secret)| (&answer.ct, &**secret));
        let (root, key, next_header) =
            state.root.step(&own, &peer, pq_secret).map_err(|_| SealError::Unusable)?;
        let header = std::mem::replace(&mut state.next_sending_header, next_header);
        state.root = root;
        state.own = Some(own);
        if let Some((answer, _)) = &pq {
            state.pq.answered = Some(answer.to);
            state.pq.peer_offer = None;
            state.pq.stepped(now);
        }
        state.sending =
            Some(SendingChain { key, header, n: 0, answer: pq.map(|(answer, _)| answer) });
        Ok(())
    }
}

/// Bytes of a header with key and ciphertext.
const MAX_HEADER: usize = 1 + 32 + 4 + 4 + 1184 + 8 + 1088;
