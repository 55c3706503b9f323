//! How many envelopes of each sender wait in one mailbox; known in memory only.

use std::collections::HashMap;

/// Stands for a sender in this process; says nothing outside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SenderMark(u64);

impl SenderMark {
    /// Whoever sent before this process started.
    pub(super) const UNKNOWN: Self = Self(0);

    pub(super) const fn new(hash: u64) -> Self {
        Self(hash | 1)
    }
}

/// Counts of a mailbox; made only when there can be a sender at the limit.
#[derive(Debug, Default)]
// Boxed: there is one of these in every mailbox, and few are ever used.
#[allow(clippy::box_collection)]
pub(super) struct SenderCounts(Option<Box<HashMap<SenderMark, u32>>>);

impl SenderCounts {
    /// Tells whether `sender` has `limit` envelopes among those that are queued: how many there are, and whose.
    pub(super) fn is_at(
        &mut self,
        limit: u32,
        sender: SenderMark,
        (count, queued): (usize, impl Iterator<Item = SenderMark>),
    ) -> bool {
        if count < limit as usize {
            return false;
        }
        let counts = self.0.get_or_insert_with(|| {
            let mut counts = HashMap::new();
            for mark in queued {
                *counts.entry(mark).or_insert(0) += 1;
            }
            Box::new(counts)
        });
        counts.get(&sender).is_some_and(|count| *count >= limit)
    }

    pub(super) fn add(&mut self, sender: SenderMark) {
        if let Some(counts) = &mut self.0 {
            *counts.entry(sender).or_insert(0) += 1;
        }
    }

    /// Takes one off; `left` envelopes remain in the mailbox.
    pub(super) fn remove(&mut self, sender: SenderMark, left: usize) {
        if left == 0 {
            self.0 = None;
        }
        if let Some(counts) = &mut self.0
            && let Some(count) = counts.get_mut(&sender)
        {
            *count = count.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sender_is_counted_at_the_limit_and_not_below() {
        const A: SenderMark = SenderMark::new(8);
        const B: SenderMark = SenderMark::new(16);
        let (a, b) = (A, B);
        let mut counts = SenderCounts::default();
        let queued = |marks: &'static [SenderMark]| (marks.len(), marks.iter().copied());
        assert!(!counts.is_at(3, a, queued(&[A, A])));
        assert!(!counts.is_at(3, a, queued(&[A, A, B])));
        counts.add(a);
        assert!(counts.is_at(3, a, queued(&[A, A, B, A])));
        assert!(!counts.is_at(3, b, queued(&[A, A, B, A])));
        counts.remove(a, 3);
        assert!(!counts.is_at(3, a, queued(&[A, A, B])));
    }
}
