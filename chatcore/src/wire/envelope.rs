//! Envelopes: what the relay sees of a message, and the padding inside.

use bytes::Bytes;
use zeroize::Zeroizing;

use super::WireError;
use super::limits::BLOB_SIZES;
use crate::crypto::KemCiphertext;
use crate::crypto::kem::KEM_CT_LEN;
use crate::ids::{DeliveryTag, DeviceAddress, IdempotencyKey, PrekeyId};

/// Kinds of blobs in envelopes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeKind {
    /// Starts a session.
    First,
    /// A message of a session.
    Session,
}

impl EnvelopeKind {
    pub(crate) const fn from_wire(kind: u32) -> Result<Self, WireError> {
        match kind {
            1 => Ok(Self::First),
            2 => Ok(Self::Session),
            _ => Err(WireError::BadValue("kind")),
        }
    }

    pub(crate) const fn to_wire(self) -> u32 {
        match self {
            Self::First => 1,
            Self::Session => 2,
        }
    }
}

/// A sealed message on its way to one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The recipient's mailbox.
    pub to: DeviceAddress,
    /// Names the sending device to the recipient; zero in first messages.
    pub tag: DeliveryTag,
    /// Kind of the blob.
    pub kind: EnvelopeKind,
    /// The ciphertext, of one of the sizes of [`BLOB_SIZES`].
    pub blob: Bytes,
    /// Seconds the relay keeps it.
    pub ttl: u32,
    /// The same in every attempt to send this envelope.
    pub idempotency_key: IdempotencyKey,
}

/// Content and its overhead exceed the largest envelope; it must travel as a file. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the content is too long for an envelope")]
pub struct ContentTooLong;

/// Pads `content` so that it and `overhead` bytes make a blob of an allowed size.
///
/// # Errors
/// [`ContentTooLong`].
pub fn pad(content: &[u8], overhead: usize) -> Result<Zeroizing<Vec<u8>>, ContentTooLong> {
    let needed = content.len().saturating_add(overhead).saturating_add(1);
    let size = BLOB_SIZES.into_iter().find(|size| *size >= needed).ok_or(ContentTooLong)?;
    let mut padded = Zeroizing::new(Vec::with_capacity(size));
    padded.extend_from_slice(content);
    padded.push(0x80);
    padded.resize(size - overhead, 0);
    Ok(padded)
}

/// Returns the content without its padding.
///
/// # Errors
/// [`WireError::Malformed`] when there is no padding.
pub fn unpad(padded: &[u8]) -> Result<&[u8], WireError> {
    let end = padded.iter().rposition(|byte| *byte != 0).ok_or(WireError::Malformed)?;
    match padded.get(end) {
        Some(0x80) => padded.get(..end).ok_or(WireError::Malformed),
        _ => Err(WireError::Malformed),
    }
}

/// Block before the ratchet message in an envelope of kind [`EnvelopeKind::First`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstBlock {
    /// Which prekey was used.
    pub prekey_id: PrekeyId,
    /// ML-KEM ciphertext to it.
    pub kem_ct: KemCiphertext,
    /// Noise message 2.
    pub msg2: Vec<u8>,
}

impl FirstBlock {
    /// Appends the block's bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.prekey_id.0.to_be_bytes());
        out.extend_from_slice(self.kem_ct.as_bytes());
        let len = u16::try_from(self.msg2.len()).unwrap_or(u16::MAX);
        out.extend_from_slice(&len.to_be_bytes());
        out.extend_from_slice(&self.msg2);
    }

    /// Returns the number of bytes [`Self::encode`] appends.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        8 + KEM_CT_LEN + 2 + self.msg2.len()
    }

    /// Splits a blob into block and ratchet message.
    ///
    /// # Errors
    /// [`WireError::Malformed`] when it is too short.
    pub fn decode(blob: &[u8]) -> Result<(Self, &[u8]), WireError> {
        let split = |bytes, at| <[u8]>::split_at_checked(bytes, at).ok_or(WireError::Malformed);
        let (prekey_id, rest) = blob.split_first_chunk::<8>().ok_or(WireError::Malformed)?;
        let (kem_ct, rest) = split(rest, KEM_CT_LEN)?;
        let (len, rest) = rest.split_first_chunk::<2>().ok_or(WireError::Malformed)?;
        let (msg2, message) = split(rest, u16::from_be_bytes(*len).into())?;
        let block = Self {
            prekey_id: PrekeyId(u64::from_be_bytes(*prekey_id)),
            kem_ct: KemCiphertext::from_slice(kem_ct).ok_or(WireError::Malformed)?,
            msg2: msg2.to_vec(),
        };
        Ok((block, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn padding_meets_each_size_exactly() {
        for size in BLOB_SIZES {
            let content = vec![0; size - 100 - 1];
            assert_eq!(pad(&content, 100).unwrap().len() + 100, size);
            assert_eq!(unpad(&pad(&content, 100).unwrap()).unwrap(), content);
        }
        assert!(pad(&vec![1; 32_768 - 99], 100).is_err());
        assert!(unpad(&[0, 0]).is_err());
        assert!(unpad(&[1, 0]).is_err());
    }

    proptest! {
        #[test]
        fn unpad_undoes_pad(content: Vec<u8>, overhead in 0usize..3000) {
            let padded = pad(&content, overhead).unwrap();
            prop_assert_eq!(unpad(&padded).unwrap(), content);
        }
    }
}
