//! Memory that may be used at a time, so that no crowd makes the relay take more than it has.
//!
//! Envelopes that are not stored yet, and large messages that are being read, share a bound, in turn. Each connection may
//! have a few KiB outside of that turn: who writes a line does not wait behind those who write as much as they can.

use std::num::NonZero;
use std::sync::Arc;

use chatcore::wire::limits::MAX_LINK_MESSAGE;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// KiB for those who take their turn.
const MANY: u32 = 16 << 10;
/// KiB of envelopes outside of the turn.
const FEW: u32 = 8 << 10;
/// KiB that one connection may have outside of the turn.
const FEW_OF_ONE: u32 = 64;

/// Memory of all connections.
#[derive(Debug)]
pub(crate) struct Memory {
    many: Arc<Semaphore>,
    few: Arc<Semaphore>,
    large_answers: Arc<Semaphore>,
}

/// Memory of one connection outside of the turn.
#[derive(Debug)]
pub(crate) struct Share(Arc<Semaphore>);

/// Memory in use; free again when dropped.
#[derive(Debug)]
pub(crate) struct Taken(#[expect(dead_code, reason = "dropped")] [Option<OwnedSemaphorePermit>; 2]);

impl Memory {
    pub(crate) fn new() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        // Half of the processors are left to those who ask for little.
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self {
            many: semaphore(MANY as usize),
            few: semaphore(FEW as usize),
            large_answers: semaphore((processors / 2).max(1)),
        }
    }

    /// Takes memory for envelopes, if there is some now.
    pub(crate) fn try_take(&self, share: &Share, bytes: usize) -> Option<Taken> {
        let cost = in_kib(bytes);
        let take = |from: &Arc<Semaphore>| Arc::clone(from).try_acquire_many_owned(cost).ok();
        if let Some(own) = take(&share.0)
            && let Some(few) = take(&self.few)
        {
            return Some(Taken([Some(own), Some(few)]));
        }
        take(&self.many).map(|many| Taken([Some(many), None]))
    }

    /// Takes memory for a large message, if there is some now.
    pub(crate) fn try_take_large(&self) -> Option<Taken> {
        let cost = in_kib(MAX_LINK_MESSAGE);
        let taken = Arc::clone(&self.many).try_acquire_many_owned(cost).ok()?;
        Some(Taken([Some(taken), None]))
    }

    /// Takes memory when it is their turn.
    pub(crate) fn take(&self, bytes: usize) -> impl Future<Output = Taken> + use<> {
        let taking = Arc::clone(&self.many).acquire_many_owned(in_kib(bytes));
        // They are never closed.
        async { Taken([taking.await.ok(), None]) }
    }

    /// Tells whether others have to wait for memory.
    pub(crate) fn is_scarce(&self) -> bool {
        self.many.available_permits() < MAX_LINK_MESSAGE / 1_024
    }

    /// Takes memory for a large answer, if there is some now.
    pub(crate) fn try_answer(&self) -> Option<Taken> {
        let permit = Arc::clone(&self.large_answers).try_acquire_owned().ok()?;
        Some(Taken([Some(permit), None]))
    }

    /// Takes memory for a large answer when it is its turn.
    pub(crate) fn answer(&self) -> impl Future<Output = Taken> + use<> {
        let taking = Arc::clone(&self.large_answers).acquire_owned();
        async { Taken([taking.await.ok(), None]) }
    }
}

impl Default for Share {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(FEW_OF_ONE as usize)))
    }
}

fn in_kib(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(1_024)).unwrap_or(MANY).min(MANY)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1_024;

    #[tokio::test]
    async fn who_sends_little_does_not_wait_for_those_who_send_much() {
        let (memory, greedy, modest) = (Memory::new(), Share::default(), Share::default());
        let much = memory.try_take(&greedy, 1 << 30).unwrap();
        assert!(memory.try_take(&greedy, 65 * KIB).is_none());
        let waiting = memory.take(KIB);
        let own = memory.try_take(&greedy, 64 * KIB).unwrap();
        assert!(memory.try_take(&greedy, 1).is_none(), "the share is used");
        let little = memory.try_take(&modest, KIB).unwrap();
        drop(own);
        assert!(memory.try_take(&greedy, 1).is_some());
        drop((much, little));
        drop(waiting.await);
    }

    #[tokio::test]
    async fn the_shares_of_all_have_a_bound() {
        let memory = Memory::new();
        let _much = memory.try_take(&Share::default(), 1 << 30).unwrap();
        let shares: Vec<_> = (0..=FEW / FEW_OF_ONE).map(|_| Share::default()).collect();
        let taken: Vec<_> = shares.iter().map(|share| memory.try_take(share, 64 * KIB)).collect();
        assert_eq!(taken.iter().filter(|taken| taken.is_none()).count(), 1);
    }
}
