//! Our primitives for snow: X25519 that refuses low-order points, ring's cipher and hash, and the
//! randomness that the caller passed in.

use rand::CryptoRng;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};
use snow::params::{CipherChoice, DHChoice, HashChoice, NoiseParams};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error};
use zeroize::Zeroizing;

use crate::crypto::{DhPublicKey, DhSecret};

/// Gives snow one ephemeral secret, drawn beforehand; a second draw fails.
pub(crate) struct Resolver {
    ephemeral: Zeroizing<[u8; 32]>,
}

impl Resolver {
    pub(crate) fn with_ephemeral(ephemeral: &DhSecret) -> Self {
        Self { ephemeral: ephemeral.to_bytes() }
    }

    pub(crate) fn drawing(rng: &mut dyn CryptoRng) -> Self {
        let mut ephemeral = Zeroizing::new([0; 32]);
        rng.fill_bytes(ephemeral.as_mut_slice());
        Self { ephemeral }
    }

    /// Starts a builder for a protocol name of ours.
    pub(crate) fn builder<'a>(self, protocol: &str) -> Result<Builder<'a>, Error> {
        let params: NoiseParams = protocol.parse()?;
        Ok(Builder::with_resolver(params, Box::new(self)))
    }
}

impl CryptoResolver for Resolver {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        Some(Box::new(OneDraw(Some(self.ephemeral.clone()))))
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        match choice {
            DHChoice::Curve25519 => Some(Box::new(Dh25519::empty())),
            _ => None,
        }
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        match choice {
            HashChoice::SHA256 => Some(Box::new(HashSha256(Context::new(&SHA256)))),
            _ => None,
        }
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        match choice {
            CipherChoice::ChaChaPoly => Some(Box::new(CipherChaCha(None))),
            _ => None,
        }
    }
}

struct OneDraw(Option<Zeroizing<[u8; 32]>>);

impl Random for OneDraw {
    fn try_fill_bytes(&mut self, dest: &mut [u8]) -> Result<(), Error> {
        let secret = self.0.take().ok_or(Error::Rng)?;
        if dest.len() != secret.len() {
            return Err(Error::Rng);
        }
        dest.copy_from_slice(secret.as_slice());
        Ok(())
    }
}

struct Dh25519 {
    secret: Option<DhSecret>,
    private: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl Dh25519 {
    fn empty() -> Self {
        Self { secret: None, private: Zeroizing::new([0; 32]), public: [0; 32] }
    }

    fn load(&mut self, private: Zeroizing<[u8; 32]>) {
        let secret = DhSecret::from_bytes(&private);
        self.public = *secret.public().as_bytes();
        self.private = private;
        self.secret = Some(secret);
    }
}

impl Dh for Dh25519 {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, privkey: &[u8]) {
        let mut private = Zeroizing::new([0; 32]);
        private.iter_mut().zip(privkey).for_each(|(to, from)| *to = *from);
        self.load(private);
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut private = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(private.as_mut_slice())?;
        self.load(private);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        &self.public
    }

    fn privkey(&self) -> &[u8] {
        self.private.as_slice()
    }

    fn dh(&self, pubkey: &[u8], out: &mut [u8]) -> Result<(), Error> {
        let peer = pubkey.first_chunk::<32>().ok_or(Error::Dh)?;
        let secret = self.secret.as_ref().ok_or(Error::Dh)?;
        let shared = secret.dh(&DhPublicKey::from_bytes(*peer)).map_err(|_| Error::Dh)?;
        out.get_mut(..32).ok_or(Error::Dh)?.copy_from_slice(shared.as_slice());
        Ok(())
    }
}

struct HashSha256(Context);

impl Hash for HashSha256 {
    fn name(&self) -> &'static str {
        "SHA256"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Context::new(&SHA256);
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let digest = std::mem::replace(&mut self.0, Context::new(&SHA256)).finish();
        out.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    }
}

struct CipherChaCha(Option<LessSafeKey>);

fn noise_nonce(n: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce.iter_mut().skip(4).zip(n.to_le_bytes()).for_each(|(to, from)| *to = from);
    Nonce::assume_unique_for_key(nonce)
}

impl Cipher for CipherChaCha {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = UnboundKey::new(&CHACHA20_POLY1305, key).ok().map(LessSafeKey::new);
    }

    #[allow(clippy::expect_used, reason = "snow sets the key and sizes the buffer beforehand")]
    fn encrypt(&self, nonce: u64, authtext: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let key = self.0.as_ref().expect("snow sets a key before it encrypts");
        let (body, rest) = out.split_at_mut(plaintext.len());
        body.copy_from_slice(plaintext);
        let tag = key
            .seal_in_place_separate_tag(noise_nonce(nonce), Aad::from(authtext), body)
            .expect("messages are at most 65,535 bytes");
        let tag = tag.as_ref();
        rest.iter_mut().zip(tag).for_each(|(to, from)| *to = *from);
        plaintext.len() + tag.len()
    }

    fn decrypt(
        &self,
        nonce: u64,
        authtext: &[u8],
        ciphertext: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Error> {
        let key = self.0.as_ref().ok_or(Error::Decrypt)?;
        let len = ciphertext.len().checked_sub(16).ok_or(Error::Decrypt)?;
        // ring opens in place; snow sizes `out` for the plaintext alone in the middle of handshakes.
        if let Some(buffer) = out.get_mut(..ciphertext.len()) {
            buffer.copy_from_slice(ciphertext);
            key.open_in_place(noise_nonce(nonce), Aad::from(authtext), buffer)
                .map_err(|_| Error::Decrypt)?;
        } else {
            let mut buffer = Zeroizing::new(ciphertext.to_vec());
            let plain = key
                .open_in_place(noise_nonce(nonce), Aad::from(authtext), &mut buffer)
                .map_err(|_| Error::Decrypt)?;
            out.get_mut(..len).ok_or(Error::Decrypt)?.copy_from_slice(plain);
        }
        Ok(len)
    }
}
