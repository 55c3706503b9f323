//! Rules that both engines share.

use bytes::Bytes;
use chatcore::ids::{Timestamp, UserId};
use chatcore::keys::{Signed, UserRecord};

use super::{KEYS_FILE, NICKNAME_RESERVATION, Put, StoreError};

/// Verdict on a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nothing; this is the answer.
    Answer(Put),
    /// It goes behind the newest one.
    Append,
    /// It takes the place of the chain: the relay lost what lies between, or all of it.
    Begin,
}

/// Judges a record by the newest one stored.
pub(super) fn judge(record: &UserRecord, newest: Option<&UserRecord>) -> Judgement {
    let Some(newest) = newest else {
        // A device brings back a chain that the relay lost by its newest record.
        return match record.devices() {
            [] => Judgement::Answer(Put::Refused),
            _ => Judgement::Begin,
        };
    };
    if record.signed() == newest.signed() {
        Judgement::Answer(Put::Same)
    } else if record.extends(newest) {
        Judgement::Append
    } else if record.version() > newest.version().saturating_add(1) && !newest.devices().is_empty()
    {
        // Signed by the same identity and newer: the relay was restored from a backup, or a device
        // that was removed since came first after the directory was lost.
        Judgement::Begin
    } else {
        Judgement::Answer(Put::Refused)
    }
}

/// A record that was verified on its way in verifies again, unless the disk changed it.
pub(super) fn verified(newest: Option<Signed>) -> Result<Option<UserRecord>, StoreError> {
    newest.map(UserRecord::verify).transpose().map_err(|_| StoreError::Damaged(KEYS_FILE))
}

/// Owner of a nickname, and until when if it was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NicknameRow {
    pub(super) owner: UserId,
    pub(super) until: Option<Timestamp>,
}

impl NicknameRow {
    pub(super) const fn live(owner: UserId) -> Self {
        Self { owner, until: None }
    }

    pub(super) const fn given_up(owner: UserId, now: Timestamp) -> Self {
        Self { owner, until: Some(now.plus(NICKNAME_RESERVATION)) }
    }

    pub(super) fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_some_and(|until| until <= now)
    }

    /// Tells whether a user has it now. One that the operator freed may be somebody else's by now.
    pub(super) fn is_of(&self, user: &UserId) -> bool {
        self.owner == *user && self.until.is_none()
    }

    pub(super) fn refuses(&self, user: &UserId, now: Timestamp) -> bool {
        self.owner != *user && !self.is_over(now)
    }
}

/// A nickname change that comes with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rename {
    pub(super) user: UserId,
    pub(super) former: Option<String>,
    pub(super) new: Option<String>,
    pub(super) now: Timestamp,
}

impl Rename {
    pub(super) fn of(record: &UserRecord, newest: Option<&UserRecord>, now: Timestamp) -> Self {
        let new = (!record.devices().is_empty()).then(|| record.nickname().fold());
        let former = newest.map(|n| n.nickname().fold());
        Self {
            user: record.user_id(),
            former: former.filter(|f| new.as_ref() != Some(f)),
            new,
            now,
        }
    }
}

/// Which chunks are stored: bit i, least significant first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bitmap {
    bits: Vec<u8>,
    count: u32,
}

impl Bitmap {
    pub(super) fn new(count: u32) -> Self {
        let bits = vec![0; chatcore::wire::relay::bitmap_len(count)];
        Self { bits, count }
    }

    /// Takes stored bits; missing bytes are zero, bits beyond `count` are dropped.
    pub(super) fn from_bits(count: u32, stored: &[u8]) -> Self {
        let mut bitmap = Self::new(count);
        for index in 0..count {
            let byte = usize::try_from(index / 8).unwrap_or(usize::MAX);
            if stored.get(byte).is_some_and(|b| b >> (index % 8) & 1 == 1) {
                bitmap.set(index);
            }
        }
        bitmap
    }

    /// Returns what [`Self::from_disk`] reads.
    pub(super) fn for_disk(bits: &[u8]) -> Vec<u8> {
        bits.repeat(2)
    }

    /// Takes bits that are stored twice. What is set in one copy only was torn by a crash, or changed by the disk:
    /// such a chunk is taken as missing and comes again.
    pub(super) fn from_disk(count: u32, stored: &[u8]) -> Self {
        let len = chatcore::wire::relay::bitmap_len(count);
        let Some((one, two)) = stored.split_at_checked(len).filter(|(_, two)| two.len() == len)
        else {
            return Self::new(count);
        };
        let both: Vec<u8> = one.iter().zip(two).map(|(one, two)| one & two).collect();
        Self::from_bits(count, &both)
    }

    pub(super) fn full(count: u32) -> Self {
        let mut bitmap = Self::new(count);
        (0..count).for_each(|index| bitmap.set(index));
        bitmap
    }

    pub(super) const fn holds(&self, index: u32) -> bool {
        index < self.count
    }

    pub(super) fn is_set(&self, index: u32) -> bool {
        let byte = usize::try_from(index / 8).unwrap_or(usize::MAX);
        let set = self.bits.get(byte).is_some_and(|b| b >> (index % 8) & 1 == 1);
        self.holds(index) && set
    }

    pub(super) fn set(&mut self, index: u32) {
        let byte = usize::try_from(index / 8).unwrap_or(usize::MAX);
        if let Some(byte) = self.bits.get_mut(byte).filter(|_| index < self.count) {
            *byte |= 1 << (index % 8);
        }
    }

    /// Returns how many are set.
    pub(super) fn count(&self) -> u32 {
        self.bits.iter().map(|b| b.count_ones()).sum()
    }

    pub(super) fn is_full(&self) -> bool {
        self.count() == self.count
    }

    pub(super) fn to_bytes(&self) -> Bytes {
        Bytes::copy_from_slice(&self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_keeps_to_its_count() {
        let mut bitmap = Bitmap::new(9);
        bitmap.set(0);
        bitmap.set(8);
        bitmap.set(9);
        assert_eq!(&bitmap.to_bytes()[..], &[1, 1]);
        assert!(bitmap.is_set(8) && !bitmap.is_set(9) && !bitmap.is_full());
        assert_eq!(Bitmap::from_bits(9, &[0xff, 0xff]), Bitmap::full(9));
        assert_eq!(Bitmap::from_bits(9, &[1]).to_bytes()[..], [1, 0]);
        assert!(Bitmap::full(9).is_full());
    }

    #[test]
    fn a_bit_that_the_disk_changed_is_no_chunk() {
        let mut bitmap = Bitmap::new(20);
        (0..7).chain([19]).for_each(|index| bitmap.set(index));
        let stored = Bitmap::for_disk(&bitmap.to_bytes());
        assert_eq!(Bitmap::from_disk(20, &stored), bitmap);
        for bit in 0..stored.len() * 8 {
            let mut changed = stored.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let read = Bitmap::from_disk(20, &changed);
            assert!((0..20).all(|index| bitmap.is_set(index) || !read.is_set(index)), "{bit}");
        }
        for cut in 0..stored.len() {
            assert_eq!(Bitmap::from_disk(20, &stored[..cut]), Bitmap::new(20), "cut to {cut}");
        }
    }
}
