//! The profile's header: who may open it.
//!
//! | bytes | what |
//! |---|---|
//! | 8 | `chatprof` |
//! | 4 | version, big-endian |
//! | 1 | 0: the key lies in a file beside it; 1: it is wrapped under a passphrase |
//! | 100 | only for 1: the [`wrapped`](super::wrapped) key |
//! | 32 | SHA-256 of all before, in every version: tells damage from a wrong passphrase |

use crate::crypto::kdf::sha256;
use crate::store::StoreError;

use super::keys::{KdfCost, MasterKey, Passphrase};
use super::wrapped::WrappedKey;

/// A decoded header.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) wrapping: Wrapping,
}

/// Where the master key is.
#[derive(Debug)]
pub(super) enum Wrapping {
    KeyFile,
    Passphrase(WrappedKey),
}

impl Wrapping {
    /// Wraps a key under a passphrase.
    pub(super) fn under(
        passphrase: &Passphrase,
        cost: KdfCost,
        master: &MasterKey,
    ) -> Result<Self, StoreError> {
        let prefix = start(KIND_PASSPHRASE);
        Ok(Self::Passphrase(WrappedKey::wrap(&prefix, master, passphrase, cost)?))
    }

    /// Unwraps the key that stands in a header.
    pub(super) fn unwrap_with(
        wrapped: &WrappedKey,
        passphrase: &Passphrase,
    ) -> Result<MasterKey, StoreError> {
        wrapped.unwrap_with(&start(KIND_PASSPHRASE), passphrase)
    }
}

impl Header {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = match &self.wrapping {
            Wrapping::KeyFile => start(KIND_KEY_FILE),
            Wrapping::Passphrase(wrapped) => {
                let mut out = start(KIND_PASSPHRASE);
                wrapped.encode(&mut out);
                out
            }
        };
        let checksum = sha256(&[&out]);
        out.extend_from_slice(&checksum);
        out
    }

    /// Decodes.
    ///
    /// # Errors
    /// [`StoreError::Damaged`], [`StoreError::NewerSchema`].
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, StoreError> {
        let damaged = StoreError::Damaged;
        let (body, checksum) = bytes.split_last_chunk::<32>().ok_or(damaged)?;
        let rest = body.strip_prefix(MAGIC).ok_or(damaged)?;
        if sha256(&[body]) != *checksum {
            return Err(damaged);
        }
        let mut rest = Reader(rest);
        let version = rest.number()?;
        if version > VERSION {
            return Err(StoreError::NewerSchema { found: version, known: VERSION });
        }
        let [kind] = rest.take()?;
        let wrapping = match (version, kind) {
            (VERSION, KIND_KEY_FILE) => Wrapping::KeyFile,
            (VERSION, KIND_PASSPHRASE) => {
                Wrapping::Passphrase(WrappedKey::decode(&rest.take()?).ok_or(damaged)?)
            }
            _ => return Err(damaged),
        };
        if !rest.0.is_empty() {
            return Err(damaged);
        }
        Ok(Self { wrapping })
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(StoreError::Damaged)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn number(&mut self) -> Result<u32, StoreError> {
        self.take().map(u32::from_be_bytes)
    }
}

fn start(kind: u8) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_be_bytes());
    out.push(kind);
    out
}

const MAGIC: &[u8] = b"chatprof";
const VERSION: u32 = 1;
const KIND_KEY_FILE: u8 = 0;
const KIND_PASSPHRASE: u8 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn passphrase(text: &str) -> Passphrase {
        Passphrase::new(Zeroizing::new(text.to_owned())).unwrap()
    }

    fn wrapped() -> (MasterKey, Header) {
        let master = MasterKey::generate().unwrap();
        let cost = KdfCost::CHEAP_FOR_TESTING_ONLY;
        let wrapping = Wrapping::under(&passphrase("right"), cost, &master).unwrap();
        (master, Header { wrapping })
    }

    fn with_checksum(mut body: Vec<u8>) -> Vec<u8> {
        let checksum = sha256(&[&body]);
        body.extend_from_slice(&checksum);
        body
    }

    #[test]
    fn a_header_survives_encoding() {
        let (master, header) = wrapped();
        let decoded = Header::decode(&header.encode()).unwrap();
        let Wrapping::Passphrase(wrapped) = decoded.wrapping else {
            panic!("another kind");
        };
        let opened = Wrapping::unwrap_with(&wrapped, &passphrase("right")).unwrap();
        assert_eq!(opened.as_bytes(), master.as_bytes());
        let wrong = Wrapping::unwrap_with(&wrapped, &passphrase("wrong"));
        assert_eq!(wrong.unwrap_err(), StoreError::WrongPassphrase);
    }

    #[test]
    fn a_damaged_header_is_told_from_a_wrong_passphrase() {
        let plain = Header { wrapping: Wrapping::KeyFile };
        for good in [wrapped().1.encode(), plain.encode()] {
            for n in 0..good.len() {
                let cut = Header::decode(&good[..n]);
                assert_eq!(cut.unwrap_err(), StoreError::Damaged, "cut at {n}");
                let mut flipped = good.clone();
                flipped[n] ^= 0x10;
                let flipped = Header::decode(&flipped);
                assert_eq!(flipped.unwrap_err(), StoreError::Damaged, "flipped at {n}");
            }
            let mut long = good.clone();
            long.push(0);
            assert_eq!(Header::decode(&long).unwrap_err(), StoreError::Damaged);
        }
    }

    #[test]
    fn only_known_versions_kinds_and_lengths_are_read() {
        let newer = [MAGIC, &2u32.to_be_bytes(), b"whatever"].concat();
        let newer = Header::decode(&with_checksum(newer));
        let expected = StoreError::NewerSchema { found: 2, known: 1 };
        assert_eq!(newer.unwrap_err(), expected);
        let older = [MAGIC, &0u32.to_be_bytes(), &[0]].concat();
        let mut trailing = start(KIND_KEY_FILE);
        trailing.push(0);
        for bad in [older, start(2), trailing, start(KIND_PASSPHRASE), MAGIC.to_vec()] {
            let bad = Header::decode(&with_checksum(bad));
            assert_eq!(bad.unwrap_err(), StoreError::Damaged);
        }
    }

    #[test]
    fn a_header_cannot_ask_for_unbearable_memory() {
        let (_, header) = wrapped();
        let mut body = header.encode();
        body.truncate(body.len() - 32);
        body[13..17].copy_from_slice(&u32::MAX.to_be_bytes());
        let decoded = Header::decode(&with_checksum(body));
        assert_eq!(decoded.unwrap_err(), StoreError::Damaged);
    }
}
