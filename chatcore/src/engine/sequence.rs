//! The numbers and hashes of one sending device (PROTOCOL.md section 7): loss and reordering become visible.

use crate::ids::Timestamp;
use crate::store::rows::Sequence;
use crate::wire::content::ChainPosition;

/// Most missing numbers remembered of one device, in a room of each device there.
const MAX_MISSING: usize = 2_000;
/// Milliseconds that a sender's clock may be ahead of ours before its time is put back.
const MAX_AHEAD: u64 = 5 * crate::ids::MINUTE;

/// Where a content stands among those of its sender that came before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// It follows the last one.
    Next,
    /// So many before it did not come.
    Gap(u64),
    /// It was missing until now.
    Late,
    /// It contradicts what came before.
    Wrong,
}

impl Sequence {
    /// Begins with the first content that is seen of a sender.
    pub(crate) const fn begin(seq: u64, hash: [u8; 32]) -> Self {
        Self { seq, hash, missing: Vec::new() }
    }

    /// Tells whether a content goes on with the sequence; another device of the sender may have sent before what it
    /// says.
    pub(crate) const fn is_before(&self, position: &ChainPosition) -> bool {
        self.seq < position.seq
    }

    /// Takes in a content that stands at `position` and has the hash `hash`.
    pub(crate) fn follow(&mut self, position: &ChainPosition, hash: [u8; 32]) -> Order {
        let ChainPosition { seq, previous } = *position;
        let next = self.seq.saturating_add(1);
        if seq < next {
            let Some(late) = self.missing.iter().position(|n| *n == seq) else {
                return Order::Wrong;
            };
            self.missing.remove(late);
            return Order::Late;
        }
        let order = match seq - next {
            0 if previous == self.hash => Order::Next,
            0 => Order::Wrong,
            missing => Order::Gap(missing),
        };
        // Ascending, so that those that go are the oldest.
        self.missing.extend(next.max(seq.saturating_sub(MAX_MISSING as u64))..seq);
        let excess = self.missing.len().saturating_sub(MAX_MISSING);
        self.missing.drain(..excess);
        (self.seq, self.hash) = (seq, hash);
        order
    }
}

/// Returns the time at which something was said, as it is shown: by the sender's clock, but for one that is far ahead.
pub(crate) fn said_at(sent_at: Timestamp, now: Timestamp) -> Timestamp {
    sent_at.min(now.plus(MAX_AHEAD))
}
