//! Public part of a register's keys: the write key, which names it and proves appends.

use super::device::SigningPublicKey;
use super::signed::{SignatureError, Signed};
use crate::crypto::kdf::{LABEL_REGISTER, LABEL_REGISTER_APPEND, sha256};
use crate::ids::RegisterId;

/// Returns the id of the register that a key writes.
#[must_use]
pub fn register_id(write_key: &SigningPublicKey) -> RegisterId {
    RegisterId::from_bytes(sha256(&[LABEL_REGISTER, write_key.as_bytes()]))
}

/// Verifies that the holder of a register's secret appends this entry at this position.
///
/// # Errors
/// [`SignatureError`].
pub fn verify_append(
    write_key: &SigningPublicKey,
    position: u64,
    entry: &[u8],
    proof: [u8; 64],
) -> Result<RegisterId, SignatureError> {
    let id = register_id(write_key);
    let signed = Signed { body: append_body(&id, position, entry), signature: proof };
    signed.verify(write_key.as_bytes(), LABEL_REGISTER_APPEND)?;
    Ok(id)
}

pub(crate) fn append_body(id: &RegisterId, position: u64, entry: &[u8]) -> Vec<u8> {
    [id.as_bytes().as_slice(), &position.to_be_bytes(), &sha256(&[entry])].concat()
}
