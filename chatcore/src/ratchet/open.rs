//! Opening a message: everything is worked out beside the state, and committed last.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use super::header::Header;
use super::keys::{ChainKey, HeaderKey, MessageKey, RootKey};
use super::pq::EkHash;
use super::session::{ReceivingChain, Session};
use super::skipped::MAX_KEYS;
use crate::crypto::aead::XNONCE_LEN;
use crate::ids::Timestamp;
use crate::wire::WireError;
use crate::wire::envelope::unpad;

/// Largest jump in a chain.
pub(super) const MAX_JUMP: u32 = 2_000;

/// Why a message does not open. The session is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OpenMessageError {
    /// No header key of this session fits: the message belongs to another session, or is forged.
    #[error("the message is not of this session")]
    NotOfThisSession,
    /// The header fits, the rest was changed.
    #[error("the message was changed on its way")]
    NotAuthentic,
    /// The message was opened before, or its key is gone.
    #[error("the message was opened before")]
    Replayed,
    /// The chain jumps too far.
    #[error("the message jumps {gap} ahead, more than {max}")]
    TooManySkipped {
        /// How far.
        gap: u32,
        /// The limit.
        max: u32,
    },
}

impl From<WireError> for OpenMessageError {
    fn from(_: WireError) -> Self {
        Self::NotAuthentic
    }
}

/// A ratchet message cut into its parts.
struct Parts<'a> {
    nonce: &'a [u8; XNONCE_LEN],
    sealed_header: &'a [u8],
    sealed_body: &'a [u8],
}

impl<'a> Parts<'a> {
    fn split(message: &'a [u8]) -> Option<Self> {
        let (nonce, rest) = message.split_first_chunk::<XNONCE_LEN>()?;
        let (len, rest) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_be_bytes(*len));
        let (sealed_header, sealed_body) = rest.split_at_checked(len)?;
        Some(Self { nonce, sealed_header, sealed_body })
    }
}

/// Where a message's header key was found.
enum Place {
    Skipped { chain: usize },
    Current,
    Next,
}

/// A chain moved forward, not yet committed.
struct Advanced {
    skipped: BTreeMap<u32, MessageKey>,
    message_key: MessageKey,
    next: ChainKey,
}

/// Steps a chain from `from` to `to` and one further, keeping the keys between.
fn advance(key: &ChainKey, from: u32, to: u32) -> Result<Advanced, OpenMessageError> {
    let (skipped, key) = skip(key, from, to)?;
    let (message_key, next) = key.step();
    Ok(Advanced { skipped, message_key, next })
}

fn skip(
    key: &ChainKey,
    from: u32,
    to: u32,
) -> Result<(BTreeMap<u32, MessageKey>, ChainKey), OpenMessageError> {
    let gap = to.saturating_sub(from);
    if gap > MAX_JUMP {
        return Err(OpenMessageError::TooManySkipped { gap, max: MAX_JUMP });
    }
    let mut key = key.duplicate();
    let mut skipped = BTreeMap::new();
    for n in from..to {
        let (message_key, next) = key.step();
        skipped.insert(n, message_key);
        key = next;
    }
    Ok((skipped, key))
}

impl Session {
    /// Opens a ratchet message and returns its content.
    ///
    /// # Errors
    /// [`OpenMessageError`]; the session is unchanged then.
    pub fn open(
        &mut self,
        message: &[u8],
        now: Timestamp,
    ) -> Result<Zeroizing<Vec<u8>>, OpenMessageError> {
        self.open_at(message, now, now)
    }

    /// As [`Self::open`] where the clock may be doubted: what begins to count begins at `now`, and keys that were
    /// kept are over by `settled`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_at(
        &mut self,
        message: &[u8],
        now: Timestamp,
        settled: Timestamp,
    ) -> Result<Zeroizing<Vec<u8>>, OpenMessageError> {
        let parts = Parts::split(message).ok_or(OpenMessageError::NotOfThisSession)?;
        let (place, header) = self.find_header(&parts)?;
        let content = match place {
            Place::Skipped { chain } => self.open_skipped(&parts, &header, chain, settled)?,
            Place::Current => self.open_current(&parts, &header, (now, settled))?,
            Place::Next => self.open_next(&parts, &header, (now, settled))?,
        };
        let state = &mut self.0;
        if !matches!(place, Place::Skipped { .. }) {
            state.pq.take_peer_offer(header.offer);
        }
        state.pq.messages = state.pq.messages.saturating_add(1);
        state.block = None;
        state.used_at = now;
        Ok(content)
    }

    fn find_header(&self, parts: &Parts<'_>) -> Result<(Place, Header), OpenMessageError> {
        let state = &self.0;
        let open = |key: &HeaderKey| key.open(parts.nonce, &state.id, parts.sealed_header).ok();
        let current = state.receiving.as_ref();
        for (index, chain) in state.skipped.0.iter().enumerate() {
            if let Some(header) = open(&chain.header) {
                let header = Header::decode(&header)?;
                if chain.keys.contains_key(&header.n) {
                    return Ok((Place::Skipped { chain: index }, header));
                }
                let is_current = current.is_some_and(|c| c.header.same_as(&chain.header));
                if !is_current {
                    return Err(OpenMessageError::Replayed);
                }
            }
        }
        if let Some(chain) = current
            && let Some(header) = open(&chain.header)
        {
            let header = Header::decode(&header)?;
            if header.n < chain.n {
                return Err(OpenMessageError::Replayed);
            }
            return Ok((Place::Current, header));
        }
        if let Some(header) = open(&state.next_receiving_header) {
            return Ok((Place::Next, Header::decode(&header)?));
        }
        Err(OpenMessageError::NotOfThisSession)
    }

    fn open_body(
        &self,
        key: &MessageKey,
        parts: &Parts<'_>,
    ) -> Result<Zeroizing<Vec<u8>>, OpenMessageError> {
        let ad = [self.0.id.as_bytes(), parts.nonce.as_slice(), parts.sealed_header].concat();
        let mut body = key
            .decrypt(parts.nonce, &ad, parts.sealed_body)
            .map_err(|_| OpenMessageError::NotAuthentic)?;
        let len = unpad(&body)?.len();
        body.truncate(len);
        Ok(body)
    }

    fn open_skipped(
        &mut self,
        parts: &Parts<'_>,
        header: &Header,
        chain: usize,
        settled: Timestamp,
    ) -> Result<Zeroizing<Vec<u8>>, OpenMessageError> {
        let keys = self.0.skipped.0.get(chain).filter(|c| c.is_kept(settled)).map(|c| &c.keys);
        let key = keys.and_then(|k| k.get(&header.n)).ok_or(OpenMessageError::Replayed)?;
        let content = self.open_body(key, parts)?;
        self.0.skipped.remove(chain, header.n);
        Ok(content)
    }

    fn open_current(
        &mut self,
        parts: &Parts<'_>,
        header: &Header,
        times: (Timestamp, Timestamp),
    ) -> Result<Zeroizing<Vec<u8>>, OpenMessageError> {
        let chain = self.0.receiving.as_ref().ok_or(OpenMessageError::NotOfThisSession)?;
        let advanced = advance(&chain.key, chain.n, header.n)?;
        let content = self.open_body(&advanced.message_key, parts)?;
        if let Some(chain) = &mut self.0.receiving {
            chain.key = advanced.next;
            chain.n = header.n.saturating_add(1);
            self.0.skipped.add(&chain.header, advanced.skipped, times);
        }
        Ok(content)
    }

    fn open_next(
        &mut self,
        parts: &Parts<'_>,
        header: &Header,
        times: (Timestamp, Timestamp),
    ) -> Result<Zeroizing<Vec<u8>>, OpenMessageError> {
        let state = &self.0;
        let rest_of_former = match &state.receiving {
            Some(chain) => skip(&chain.key, chain.n, header.previous_len)?.0,
            None => BTreeMap::new(),
        };
        let (root, key, next_header) = self.step_root(header)?;
        let advanced = advance(&key, 0, header.n)?;
        if rest_of_former.len() + advanced.skipped.len() > 2 * MAX_KEYS {
            return Err(OpenMessageError::NotAuthentic);
        }
        let content = self.open_body(&advanced.message_key, parts)?;

        let state = &mut self.0;
        let header_key = std::mem::replace(&mut state.next_receiving_header, next_header);
        if let Some(former) = state.receiving.take() {
            state.skipped.add(&former.header, rest_of_former, times);
        }
        state.skipped.add(&header_key, advanced.skipped, times);
        state.receiving = Some(ReceivingChain {
            key: advanced.next,
            header: header_key,
            n: header.n.saturating_add(1),
        });
        state.root = root;
        state.peer = Some(header.ratchet_key);
        if let Some(former) = state.sending.take() {
            state.previous_len = former.n;
        }
        if header.answer.is_some() {
            state.pq.own_offer = None;
            state.pq.stepped(times.0);
        }
        Ok(content)
    }

    fn step_root(
        &self,
        header: &Header,
    ) -> Result<(RootKey, ChainKey, HeaderKey), OpenMessageError> {
        let refused = OpenMessageError::NotAuthentic;
        let own = self.0.own.as_ref().ok_or(refused)?;
        let secret = match &header.answer {
            None => None,
            Some(answer) => {
                let offer = self.0.pq.own_offer.as_ref().ok_or(refused)?;
                if EkHash::of(offer.public()) != answer.to {
                    return Err(refused);
                }
                Some((&answer.ct, offer.decapsulate(&answer.ct)))
            }
        };
        let pq = secret.as_ref().map(|(ct, secret)| (*ct, &**secret));
        self.0.root.step(own, &header.ratchet_key, pq).map_err(|_| refused)
    }
}
