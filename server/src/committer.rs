//! The queue of writes, and the thread that stores them.
//!
//! ```text
//! append ──▶ pending ──2 ms──▶ committing ──durable──▶ stored
//!               │ ack: dropped, never written   │ ack: deleted with the next batch
//! ```

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::lock::lock;
use crate::registry::Ticket;
use crate::store::{Arrival, Body, MailboxBatch, Queued, StoreError};

/// Time an envelope waits for others, and for its ack.
const BATCH_TIME: Duration = Duration::from_millis(2);
/// Time a deletion alone waits: an ack has no answer, nobody waits for it.
const REMOVAL_TIME: Duration = Duration::from_millis(100);
/// Time until deletions alone are tried again that failed.
const FAILED_REMOVAL_TIME: Duration = Duration::from_secs(5);
/// Envelopes after which a batch does not wait any longer.
const BATCH_SIZE: usize = 8_192;

/// An envelope that is not stored yet.
#[derive(Debug)]
struct Pending {
    queued: Queued,
    body: Body,
    ticket: Arc<Ticket>,
    /// Further senders of the same envelope who wait for it.
    more: Vec<Arc<Ticket>>,
}

impl Pending {
    fn settle(self) {
        self.ticket.settle();
        self.more.iter().for_each(|t| t.settle());
    }
}

/// The queue in front of the store.
#[derive(Debug)]
pub(crate) struct Committer {
    queue: Mutex<Queue>,
    work: Condvar,
}

/// The queue while it is locked.
#[derive(Debug)]
pub(crate) struct Queue {
    /// Slot i holds arrival `base + i`, `None` once acked.
    slots: VecDeque<Option<Pending>>,
    base: Arrival,
    live: usize,
    since: Option<Instant>,
    removed: Vec<Arrival>,
    committing: Arc<MailboxBatch>,
    /// Senders who wait for an envelope that is being committed.
    late: Vec<Arc<Ticket>>,
    is_stopping: bool,
    /// After a failure: when deletions alone are tried again.
    removals_wait: Option<Instant>,
}

/// A batch on its way, with those who wait for it.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) changes: Arc<MailboxBatch>,
    tickets: Vec<Arc<Ticket>>,
}

impl Queue {
    /// Adds an envelope; returns its arrival number.
    pub(crate) fn push(
        &mut self,
        queued: impl FnOnce(Arrival) -> Queued,
        body: Body,
        ticket: &Arc<Ticket>,
    ) -> Arrival {
        let arrival = self.base + self.slots.len() as u64;
        ticket.expect_one();
        self.slots.push_back(Some(Pending {
            queued: queued(arrival),
            body,
            ticket: Arc::clone(ticket),
            more: Vec::new(),
        }));
        self.live += 1;
        self.since.get_or_insert_with(Instant::now);
        arrival
    }

    /// Has another sender wait for an envelope, if it is not durable yet.
    pub(crate) fn wait_for(&mut self, arrival: Arrival, ticket: &Arc<Ticket>) {
        if let Some(pending) = self.slot(arrival).and_then(Option::as_mut) {
            ticket.expect_one();
            pending.more.push(Arc::clone(ticket));
        } else if self.being_committed(arrival).is_some() {
            ticket.expect_one();
            self.late.push(Arc::clone(ticket));
        }
    }

    fn slot(&mut self, arrival: Arrival) -> Option<&mut Option<Pending>> {
        let index = usize::try_from(arrival.checked_sub(self.base)?).ok()?;
        self.slots.get_mut(index)
    }

    fn being_committed(&self, arrival: Arrival) -> Option<&Body> {
        let appended = &self.committing.appended;
        let found = appended.binary_search_by_key(&arrival, |(queued, _)| queued.arrival);
        found.ok().and_then(|index| appended.get(index)).map(|(_, body)| body)
    }

    fn take(&mut self) -> Batch {
        let slots = std::mem::take(&mut self.slots);
        self.base += slots.len() as u64;
        let mut appended = Vec::with_capacity(self.live);
        let mut tickets = Vec::with_capacity(self.live);
        for pending in slots.into_iter().flatten() {
            appended.push((pending.queued, pending.body));
            tickets.push(pending.ticket);
            tickets.extend(pending.more);
        }
        self.live = 0;
        self.since = None;
        self.removals_wait = None;
        self.committing =
            Arc::new(MailboxBatch { appended, removed: std::mem::take(&mut self.removed) });
        Batch { changes: Arc::clone(&self.committing), tickets }
    }
}

impl Committer {
    /// Makes an empty queue whose first arrival number is `first`.
    pub(crate) fn new(first: Arrival) -> Self {
        let queue = Queue {
            slots: VecDeque::new(),
            base: first,
            live: 0,
            since: None,
            removed: Vec::new(),
            committing: Arc::default(),
            late: Vec::new(),
            is_stopping: false,
            removals_wait: None,
        };
        Self { queue: Mutex::new(queue), work: Condvar::new() }
    }

    /// Locks the queue. A mailbox may be locked while holding it, never the other way round.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Queue> {
        lock(&self.queue)
    }

    /// Tells the thread that `queue` has changed, and unlocks it.
    pub(crate) fn submit(&self, queue: MutexGuard<'_, Queue>) {
        let is_urgent = queue.live > 0;
        drop(queue);
        if is_urgent {
            self.work.notify_one();
        }
    }

    /// Forgets envelopes: those not written yet never are, the others are deleted.
    pub(crate) fn remove(&self, arrivals: &[Arrival]) {
        if arrivals.is_empty() {
            return;
        }
        let mut dropped = Vec::new();
        let mut queue = self.lock();
        let was_idle = queue.removed.is_empty();
        for arrival in arrivals {
            match queue.slot(*arrival).map(Option::take) {
                Some(Some(pending)) => {
                    queue.live -= 1;
                    dropped.push(pending);
                }
                Some(None) => {}
                None => queue.removed.push(*arrival),
            }
        }
        if queue.live == 0 {
            queue.since = None;
        }
        let is_first = was_idle && !queue.removed.is_empty();
        drop(queue);
        if is_first {
            self.work.notify_one();
        }
        dropped.into_iter().for_each(Pending::settle);
    }

    /// Returns the bytes of an envelope that is not stored yet.
    pub(crate) fn body(&self, arrival: Arrival) -> Option<Body> {
        let mut queue = self.lock();
        if let Some(Some(pending)) = queue.slot(arrival) {
            return Some(pending.body.clone());
        }
        queue.being_committed(arrival).cloned()
    }

    /// Waits for the next batch; `None` when the relay stops and everything is taken.
    pub(crate) fn next_batch(&self) -> Option<Batch> {
        let mut queue = self.lock();
        let mut removal_since: Option<Instant> = None;
        loop {
            let now = Instant::now();
            if queue.live > 0 {
                let due = queue.since.map_or(now, |since| since + BATCH_TIME);
                if now >= due || queue.live >= BATCH_SIZE || queue.is_stopping {
                    return Some(queue.take());
                }
                queue = self.wait(queue, due - now);
            } else if queue.is_stopping
                && (queue.removed.is_empty() || queue.removals_wait.is_some())
            {
                return None;
            } else if !queue.removed.is_empty() {
                let due = *removal_since.get_or_insert(now) + REMOVAL_TIME;
                let due = queue.removals_wait.map_or(due, |at| at.max(due));
                if now >= due || queue.is_stopping {
                    return Some(queue.take());
                }
                queue = self.wait(queue, due - now);
            } else {
                let woken = self.work.wait(queue);
                queue = woken.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn wait<'a>(&self, queue: MutexGuard<'a, Queue>, time: Duration) -> MutexGuard<'a, Queue> {
        let woken = self.work.wait_timeout(queue, time);
        woken.unwrap_or_else(PoisonError::into_inner).0
    }

    /// Answers those who wait for a batch that is durable, or failed; `removed`: what became of its deletions.
    pub(crate) fn finish(
        &self,
        batch: Batch,
        stored: Result<(), StoreError>,
        removed: Result<(), StoreError>,
    ) {
        let mut queue = self.lock();
        queue.committing = Arc::default();
        let late = std::mem::take(&mut queue.late);
        if removed.is_err() {
            // What was acked goes with a later batch; at the end it comes again after the start.
            queue.removed.extend_from_slice(&batch.changes.removed);
            queue.removals_wait = Some(Instant::now() + FAILED_REMOVAL_TIME);
        }
        drop(queue);
        for ticket in batch.tickets.iter().chain(&late) {
            match stored {
                Ok(()) => ticket.settle(),
                Err(error) => ticket.fail(error),
            }
        }
    }

    /// Has the thread take what is left and end.
    pub(crate) fn stop(&self) {
        self.lock().is_stopping = true;
        self.work.notify_one();
    }
}
