//! Message keys kept for messages that are late.

use std::collections::BTreeMap;

use super::keys::{HeaderKey, MessageKey};
use crate::ids::{DAY, Timestamp};

/// Most skipped keys of a session.
pub(super) const MAX_KEYS: usize = 2_000;
/// Most chains with skipped keys.
pub(super) const MAX_CHAINS: usize = 5;
/// Milliseconds a skipped key is kept.
pub(super) const KEEP: u64 = 30 * DAY;

/// Skipped keys of one chain.
#[derive(Debug)]
pub(crate) struct SkippedChain {
    pub(crate) header: HeaderKey,
    pub(crate) keys: BTreeMap<u32, MessageKey>,
    pub(crate) since: Timestamp,
}

impl SkippedChain {
    /// Tells whether its keys are still kept.
    pub(super) const fn is_kept(&self, now: Timestamp) -> bool {
        now.since(self.since) < KEEP
    }
}

/// All skipped keys of a session, oldest chain first.
#[derive(Debug, Default)]
pub(crate) struct Skipped(pub(crate) Vec<SkippedChain>);

impl Skipped {
    /// Adds keys of the chain with this header key, kept from the first of these times on, and drops what is over
    /// the limits, or too old by the second.
    pub(super) fn add(
        &mut self,
        header: &HeaderKey,
        keys: BTreeMap<u32, MessageKey>,
        (now, settled): (Timestamp, Timestamp),
    ) {
        self.0.retain(|chain| chain.is_kept(settled) && !chain.keys.is_empty());
        if keys.is_empty() {
            return;
        }
        match self.0.iter_mut().find(|chain| chain.header.same_as(header)) {
            Some(chain) => chain.keys.extend(keys),
            None => self.0.push(SkippedChain { header: header.duplicate(), keys, since: now }),
        }
        if self.0.len() > MAX_CHAINS {
            self.0.remove(0);
        }
        let mut excess = self.len().saturating_sub(MAX_KEYS);
        for chain in &mut self.0 {
            while excess > 0 && chain.keys.pop_first().is_some() {
                excess -= 1;
            }
        }
    }

    pub(super) fn remove(&mut self, chain: usize, n: u32) {
        if let Some(chain) = self.0.get_mut(chain) {
            chain.keys.remove(&n);
        }
        self.0.retain(|chain| !chain.keys.is_empty());
    }

    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|chain| chain.keys.len()).sum()
    }
}
