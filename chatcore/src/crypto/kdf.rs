//! Hashes and key derivation; every label of the protocol is a constant here.
//!
//! PROTOCOL.md section 12 lists the same labels.

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Prefix of the hash that makes a user id.
pub(crate) const LABEL_USER: &[u8] = b"chatcore/1/user";
/// Signature label of user records.
pub(crate) const LABEL_USER_RECORD: &[u8] = b"chatcore/1/user-record";
/// Signature label of device certificates.
pub(crate) const LABEL_DEVICE_CERT: &[u8] = b"chatcore/1/device-cert";
/// Signature label of prekey records.
pub(crate) const LABEL_PREKEY: &[u8] = b"chatcore/1/prekey";
/// Prologue of the link handshake.
pub(crate) const LABEL_LINK: &[u8] = b"chatcore/1/link";
/// Derivation of the link's psk.
pub(crate) const LABEL_LINK_PSK: &[u8] = b"chatcore/1/link-psk";
/// Prologue of the first message.
pub(crate) const LABEL_E2E: &[u8] = b"chatcore/1/e2e";
/// Derivation of the first message's psk.
pub(crate) const LABEL_PSK: &[u8] = b"chatcore/1/psk";
/// Expansion of a new session's keys.
pub(crate) const LABEL_SESSION: &[u8] = b"chatcore/1/session";
/// Root step of the ratchet.
pub(crate) const LABEL_ROOT: &[u8] = b"chatcore/1/rk";
/// Key of one message body.
pub(crate) const LABEL_BODY: &[u8] = b"chatcore/1/body";
/// Key of one file chunk.
pub(crate) const LABEL_CHUNK: &[u8] = b"chatcore/1/chunk";
/// Signature label of room events.
pub(crate) const LABEL_ROOM_EVENT: &[u8] = b"chatcore/1/room-event";
/// Signature label of joins and leaves of open rooms.
pub(crate) const LABEL_ROOM_STATEMENT: &[u8] = b"chatcore/1/room-statement";
/// Hash of a room's state, for checkpoints.
pub(crate) const LABEL_ROOM_STATE: &[u8] = b"chatcore/1/room-state";
/// Signature label of announcements.
pub(crate) const LABEL_ANNOUNCEMENT: &[u8] = b"chatcore/1/announcement";
/// Id of a register.
pub(crate) const LABEL_REGISTER: &[u8] = b"chatcore/1/register";
/// Derivation of a register's two keys from its secret.
pub(crate) const LABEL_REGISTER_KEYS: &[u8] = b"chatcore/1/register-keys";
/// Associated data of a register's entries.
pub(crate) const LABEL_REGISTER_ENTRY: &[u8] = b"chatcore/1/register-entry";
/// Signature label of an append to a register.
pub(crate) const LABEL_REGISTER_APPEND: &[u8] = b"chatcore/1/register-append";
/// Hash over the entries of a log.
pub(crate) const LABEL_REGISTER_CHAIN: &[u8] = b"chatcore/1/register-chain";
/// Signature of the relay over the head of a log.
pub(crate) const LABEL_REGISTER_HEAD: &[u8] = b"chatcore/1/register-head";
/// Iterated hash of the safety number.
pub(crate) const LABEL_SAFETY_NUMBER: &[u8] = b"chatcore/1/safety-number";

/// Returns the SHA-256 of the joined parts.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// Derives `N` bytes with HKDF-SHA-256 (RFC 5869); `info` is joined.
pub(crate) fn hkdf<const N: usize>(salt: &[u8], ikm: &[u8], info: &[&[u8]]) -> Zeroizing<[u8; N]> {
    const { assert!(N <= 255 * 32, "longer than HKDF-SHA-256 can give") };
    let mut okm = Zeroizing::new([0; N]);
    let extracted = Hkdf::<Sha256>::new(Some(salt), ikm);
    #[allow(clippy::expect_used, reason = "the length is checked at compile time")]
    extracted.expand_multi_info(info, okm.as_mut_slice()).expect("N is at most 255 blocks");
    okm
}

/// Returns HMAC-SHA-256 of `message` under `key` (RFC 2104).
pub fn hmac(key: &[u8; 32], message: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    #[allow(clippy::expect_used, reason = "HMAC takes keys of every length")]
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("any length fits");
    for part in message {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}
