//! Thin, typed wrappers around the primitives; nothing here is our own cryptography.

#[cfg(feature = "engine")]
pub mod aead;
pub mod dh;
pub mod kdf;
pub mod kem;

pub use dh::{DhPublicKey, DhSecret, LowOrderPoint};
pub use kem::{InvalidKemKey, KemCiphertext, KemPublicKey, KemSecret};
