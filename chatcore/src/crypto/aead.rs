//! The two AEADs: ChaCha20-Poly1305 (ring) and XChaCha20-Poly1305.

use chacha20poly1305::aead::AeadInOut;
use chacha20poly1305::{KeyInit, XChaCha20Poly1305};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// Bytes that sealing adds.
pub const TAG_LEN: usize = 16;
/// Nonce length of XChaCha20-Poly1305.
pub const XNONCE_LEN: usize = 24;

/// The ciphertext, its associated data or its key is not what was sealed. State is unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("does not authenticate")]
pub struct OpenError;

fn chacha_key(key: &[u8; 32]) -> LessSafeKey {
    #[allow(clippy::expect_used, reason = "the key length is right by type")]
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes"))
}

/// A ChaCha20-Poly1305 key ready for use; the caller never uses a nonce twice.
pub(crate) struct ChaChaKey(LessSafeKey);

impl ChaChaKey {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        Self(chacha_key(key))
    }

    /// Encrypts `buffer` in place and appends the tag (RFC 8439).
    pub(crate) fn seal(&self, nonce: [u8; 12], ad: &[u8], buffer: &mut Vec<u8>) {
        let tag = self.seal_detached(nonce, ad, buffer);
        buffer.extend_from_slice(&tag);
    }

    /// Encrypts `buffer` in place and returns the tag.
    pub(crate) fn seal_detached(&self, nonce: [u8; 12], ad: &[u8], buffer: &mut [u8]) -> [u8; 16] {
        #[allow(clippy::expect_used, reason = "fails only beyond 256 GiB")]
        let tag = self
            .0
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(ad), buffer)
            .expect("buffers are far below the limit");
        let mut out = [0; TAG_LEN];
        out.copy_from_slice(tag.as_ref());
        out
    }

    /// Decrypts `buffer` (ciphertext and tag) in place and returns the plaintext part.
    ///
    /// # Errors
    /// [`OpenError`]: the buffer's contents are then unspecified.
    pub(crate) fn open<'b>(
        &self,
        nonce: [u8; 12],
        ad: &[u8],
        buffer: &'b mut [u8],
    ) -> Result<&'b mut [u8], OpenError> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        self.0.open_in_place(nonce, Aad::from(ad), buffer).map_err(|_| OpenError)
    }
}

/// Seals `plaintext` with XChaCha20-Poly1305.
pub fn xseal(key: &[u8; 32], nonce: &[u8; XNONCE_LEN], ad: &[u8], plaintext: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(plaintext.len() + TAG_LEN);
    out.extend_from_slice(plaintext);
    #[allow(clippy::expect_used, reason = "fails only beyond 256 GiB")]
    XChaCha20Poly1305::new(key.into())
        .encrypt_in_place(nonce.into(), ad, &mut out)
        .expect("buffers are far below the limit");
    out
}

/// Opens what [`xseal`] sealed.
///
/// # Errors
/// [`OpenError`]. State is unchanged.
pub fn xopen(
    key: &[u8; 32],
    nonce: &[u8; XNONCE_LEN],
    ad: &[u8],
    sealed: &[u8],
) -> Result<zeroize::Zeroizing<Vec<u8>>, OpenError> {
    let mut out = zeroize::Zeroizing::new(sealed.to_vec());
    XChaCha20Poly1305::new(key.into())
        .decrypt_in_place(nonce.into(), ad, &mut *out)
        .map_err(|_| OpenError)?;
    Ok(out)
}
