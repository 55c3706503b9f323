//! Thin, typed wrappers around the primitives; nothing here is our own cryptography.

pub mod aead;
pub mod dh;
pub mod kdf;
pub mod kem;

pub use dh::{DhPublicKey, DhSecret, LowOrderPoint};
pub use kem::{InvalidKemKey, KemCiphertext, KemPublicKey, KemSecret};
