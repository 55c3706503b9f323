//! The header of a ratchet message, before sealing.

use super::pq::{Answer, EkHash};
use crate::crypto::kem::{KEM_CT_LEN, KEM_EK_LEN};
use crate::crypto::{DhPublicKey, KemCiphertext, KemPublicKey};
use crate::wire::WireError;

const FLAG_OFFER: u8 = 1;
const FLAG_ANSWER: u8 = 2;

/// Header of a message: its place in the ratchet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) ratchet_key: DhPublicKey,
    pub(super) previous_len: u32,
    pub(super) n: u32,
    pub(super) offer: Option<KemPublicKey>,
    pub(super) answer: Option<Answer>,
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let offer = self.offer.as_ref().map_or(0, |_| FLAG_OFFER);
        let answer = self.answer.as_ref().map_or(0, |_| FLAG_ANSWER);
        let mut out = vec![offer | answer];
        out.extend_from_slice(self.ratchet_key.as_bytes());
        out.extend_from_slice(&self.previous_len.to_be_bytes());
        out.extend_from_slice(&self.n.to_be_bytes());
        if let Some(ek) = &self.offer {
            out.extend_from_slice(ek.as_bytes());
        }
        if let Some(answer) = &self.answer {
            out.extend_from_slice(answer.to.as_bytes());
            out.extend_from_slice(answer.ct.as_bytes());
        }
        out
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let bad = WireError::Malformed;
        let ([flags], rest) = bytes.split_first_chunk::<1>().ok_or(bad)?;
        if flags & !(FLAG_OFFER | FLAG_ANSWER) != 0 {
            return Err(WireError::BadValue("flags"));
        }
        let (key, rest) = rest.split_first_chunk::<32>().ok_or(bad)?;
        let (previous_len, rest) = rest.split_first_chunk::<4>().ok_or(bad)?;
        let (n, mut rest) = rest.split_first_chunk::<4>().ok_or(bad)?;
        let mut offer = None;
        if flags & FLAG_OFFER != 0 {
            let (ek, after) = rest.split_at_checked(KEM_EK_LEN).ok_or(bad)?;
            offer = Some(KemPublicKey::from_slice(ek).map_err(|_| WireError::BadValue("offer"))?);
            rest = after;
        }
        let mut answer = None;
        if flags & FLAG_ANSWER != 0 {
            let (to, after) = rest.split_first_chunk::<8>().ok_or(bad)?;
            let (ct, after) = after.split_at_checked(KEM_CT_LEN).ok_or(bad)?;
            let ct = KemCiphertext::from_slice(ct).ok_or(bad)?;
            answer = Some(Answer { to: EkHash::from_bytes(*to), ct });
            rest = after;
        }
        if !rest.is_empty() {
            return Err(bad);
        }
        Ok(Self {
            ratchet_key: DhPublicKey::from_bytes(*key),
            previous_len: u32::from_be_bytes(*previous_len),
            n: u32::from_be_bytes(*n),
            offer,
            answer,
        })
    }
}
