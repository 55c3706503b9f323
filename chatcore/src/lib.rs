#![doc = include_str!("../README.md")]

pub mod addresses;
pub mod agreement;
pub mod crypto;
pub mod engine;
pub mod file;
pub mod ids;
pub mod invite;
pub mod keys;
pub mod membership;
pub mod net;
pub mod noise;
pub mod ratchet;
pub mod room;
pub mod store;
pub mod trust;
pub mod wire;

#[cfg(test)]
mod redaction;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod vectors;
