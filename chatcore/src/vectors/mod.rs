//! The test vectors of PROTOCOL.md section 13, made by `tests/vectors/generate.py`.
//!
//! They stand inside the crate because they look at keys that no public function gives away.

mod content;
mod delivery;
mod files;
mod first_message;
mod link;
mod ratchet;
mod records;
mod rooms;

use std::convert::Infallible;

use rand::{TryCryptoRng, TryRng};
use serde_json::Value;

/// Randomness from a vector: gives its bytes once, in order.
pub(crate) struct Script(Vec<u8>);

impl Script {
    pub(crate) fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub(crate) fn assert_spent(&self) {
        assert!(self.0.is_empty(), "{} random bytes were not drawn", self.0.len());
    }
}

impl TryRng for Script {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        panic!("only bytes are drawn")
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        panic!("only bytes are drawn")
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        let rest = self.0.split_off(dst.len());
        dst.copy_from_slice(&self.0);
        self.0 = rest;
        Ok(())
    }
}

impl TryCryptoRng for Script {}

pub(crate) fn read(name: &str) -> Value {
    let path = format!("{}/tests/vectors/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// The bytes of a hex field.
pub(crate) fn hex(value: &Value, field: &str) -> Vec<u8> {
    let text = value[field].as_str().unwrap_or_else(|| panic!("no hex field {field}"));
    data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
}

/// The bytes of a hex field of known length.
pub(crate) fn array<const N: usize>(value: &Value, field: &str) -> [u8; N] {
    hex(value, field).try_into().unwrap()
}

pub(crate) fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no number {field}"))
}

pub(crate) fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value[field].as_str().unwrap_or_else(|| panic!("no text {field}"))
}

pub(crate) fn list<'v>(value: &'v Value, field: &str) -> &'v [Value] {
    value[field].as_array().unwrap_or_else(|| panic!("no list {field}"))
}
