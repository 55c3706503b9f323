//! The messenger's protocol.

pub mod agreement;
pub mod crypto;
pub mod file;
pub mod ids;
pub mod invite;
pub mod keys;
pub mod noise;
pub mod ratchet;
pub mod store;
pub mod trust;
pub mod wire;

#[cfg(test)]
mod vectors;
