//! Root, chain, message and header keys.

use std::fmt;

use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::crypto::aead::{ChaChaKey, OpenError, XNONCE_LEN, xopen, xseal};
use crate::crypto::kdf::{LABEL_BODY, LABEL_ROOT, hkdf, hmac, sha256};
use crate::crypto::{DhPublicKey, DhSecret, KemCiphertext, LowOrderPoint};
use crate::ids::SessionId;

macro_rules! secret_key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Zeroize, ZeroizeOnDrop)]
        pub struct $name([u8; 32]);

        impl $name {
            pub(crate) const fn from_bytes(bytes: &[u8; 32]) -> Self {
                Self(*bytes)
            }

            pub(crate) const fn expose(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self(_) = self;
                f.write_str(stringify!($name))
            }
        }
    };
}

secret_key!(
    /// Mixes every new Diffie-Hellman and ML-KEM secret.
    RootKey
);
secret_key!(
    /// Steps once per message of a chain.
    ChainKey
);
secret_key!(
    /// Opens exactly one message.
    MessageKey
);
secret_key!(
    /// Seals the headers of one chain.
    HeaderKey
);

/// A ciphertext that steps a root, and the secret in it.
pub(super) type PqSecret<'a> = Option<(&'a KemCiphertext, &'a [u8; 32])>;

impl RootKey {
    /// Returns the next root key, the new chain's key, and the header key of the chain after it.
    pub(super) fn step(
        &self,
        own: &DhSecret,
        peer: &DhPublicKey,
        pq: PqSecret<'_>,
    ) -> Result<(Self, ChainKey, HeaderKey), LowOrderPoint> {
        let dh = own.dh(peer)?;
        let (flag, ct, secret) = match pq {
            None => (0, &[][..], &[][..]),
            Some((ct, secret)) => (1, ct.as_bytes().as_slice(), secret.as_slice()),
        };
        let ikm = Zeroizing::new([dh.as_slice(), secret].concat());
        let okm = hkdf::<96>(&self.0, &ikm, &[LABEL_ROOT, &[flag], &sha256(&[ct])]);
        let mut keys = [[0; 32]; 3];
        keys.iter_mut().zip(okm.as_chunks::<32>().0).for_each(|(to, from)| *to = *from);
        let mut keys = Zeroizing::new(keys);
        let [root, chain, header] = &mut *keys;
        Ok((Self(*root), ChainKey(*chain), HeaderKey(*header)))
    }
}

impl ChainKey {
    /// Makes the copy that working beside the state needs.
    pub(super) const fn duplicate(&self) -> Self {
        Self(self.0)
    }

    /// Returns this step's message key and the next chain key.
    pub(super) fn step(&self) -> (MessageKey, Self) {
        (MessageKey(*hmac(&self.0, &[&[1]])), Self(*hmac(&self.0, &[&[2]])))
    }
}

impl HeaderKey {
    /// Makes the copy that names a chain of skipped keys.
    pub(super) const fn duplicate(&self) -> Self {
        Self(self.0)
    }

    pub(super) fn seal(
        &self,
        nonce: &[u8; XNONCE_LEN],
        session: &SessionId,
        header: &[u8],
    ) -> Vec<u8> {
        xseal(&self.0, nonce, session.as_bytes(), header)
    }

    pub(super) fn open(
        &self,
        nonce: &[u8; XNONCE_LEN],
        session: &SessionId,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        xopen(&self.0, nonce, session.as_bytes(), sealed)
    }

    pub(super) fn same_as(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl MessageKey {
    fn body_key(&self, nonce: &[u8; XNONCE_LEN]) -> (ChaChaKey, [u8; 12]) {
        let okm = hkdf::<44>(nonce, &self.0, &[LABEL_BODY]);
        let mut key = Zeroizing::new([0; 32]);
        let mut body_nonce = [0; 12];
        key.iter_mut().chain(&mut body_nonce).zip(okm.iter()).for_each(|(to, from)| *to = *from);
        (ChaChaKey::new(&key), body_nonce)
    }

    /// Encrypts in place and appends the tag; the key is spent.
    pub(super) fn encrypt(self, nonce: &[u8; XNONCE_LEN], ad: &[u8], body: &mut Vec<u8>) {
        let (key, body_nonce) = self.body_key(nonce);
        key.seal(body_nonce, ad, body);
    }

    /// Decrypts a body; on failure the key may be tried on another message.
    pub(super) fn decrypt(
        &self,
        nonce: &[u8; XNONCE_LEN],
        ad: &[u8],
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, OpenError> {
        let (key, body_nonce) = self.body_key(nonce);
        let mut buffer = Zeroizing::new(sealed.to_vec());
        let len = key.open(body_nonce, ad, &mut buffer)?.len();
        buffer.truncate(len);
        Ok(buffer)
    }
}
