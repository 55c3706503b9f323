//! One mailbox: two queues of envelopes, and who reads them.
//!
//! Those with a tag come from people whom the device knows; those without one may come from anybody, have a share of
//! their own, and hold nobody up.

use std::collections::VecDeque;
use std::sync::Arc;

use chatcore::ids::{IdempotencyKey, Timestamp};
use chatcore::wire::envelope::Envelope;
use chatcore::wire::relay::{Delivery, ErrorCode, MailQueue};

use super::sender_counts::{SenderCounts, SenderMark};
use crate::committer::Queue;
use crate::limits::Limits;
use crate::registry::{PeerHandle, Ticket};
use crate::store::{Arrival, Body, Queued};

/// Bytes kept for a connected recipient who reads slowly.
const MAX_ATTACHED: usize = 256 << 10;

/// Names an envelope that left a mailbox.
pub(super) type Left = (Arrival, IdempotencyKey);

/// Envelopes that wait in a mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Waiting {
    /// To be delivered.
    pub(crate) queued: u64,
    /// Set aside: the device had no place for them.
    pub(crate) kept: u64,
}

/// Next work of a connection; all of one queue.
#[derive(Debug, Default)]
pub(crate) struct Due {
    /// To be sent now.
    pub(crate) ready: Vec<Delivery>,
    /// To be read from the store and sent; nothing after it may be sent before.
    pub(crate) fetch: Vec<(u64, Arrival)>,
}

#[derive(Default)]
pub(super) struct Mailbox {
    tagged: Lane,
    /// Made when the first one comes: most mailboxes have none.
    untagged: Option<Box<Untagged>>,
    bytes: u64,
    last_n: u64,
    senders: SenderCounts,
    reader: Option<Reader>,
}

/// Envelopes of those who know no tag.
#[derive(Default)]
struct Untagged {
    lane: Lane,
    /// Delivered, and the device had no place for them; by arrival.
    kept: VecDeque<Entry>,
    bytes: u64,
    senders: SenderCounts,
}

/// A queue, and how far its reader is.
#[derive(Default)]
struct Lane {
    entries: VecDeque<Entry>,
    /// Everything up to this number was delivered on this connection.
    delivered: u64,
    in_flight: usize,
    in_flight_bytes: usize,
}

struct Entry {
    n: u64,
    arrival: Arrival,
    key: IdempotencyKey,
    expires: Timestamp,
    size: u32,
    sender: SenderMark,
    body: Option<Box<Body>>,
}

/// Whether what was set aside still counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kept {
    Stays,
    GivesWay,
}

/// The connection that reads a mailbox.
struct Reader {
    handle: Arc<PeerHandle>,
    attached: usize,
    is_woken: bool,
}

impl Mailbox {
    pub(super) fn reader(&self) -> Option<&PeerHandle> {
        self.reader.as_ref().map(|reader| &*reader.handle)
    }

    pub(super) fn len(&self) -> usize {
        self.tagged.entries.len() + self.untagged.as_ref().map_or(0, |untagged| untagged.len())
    }

    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn waiting(&self) -> Waiting {
        let kept = self.untagged.as_ref().map_or(0, |untagged| untagged.kept.len());
        Waiting { queued: (self.len() - kept) as u64, kept: kept as u64 }
    }

    /// Makes a connection the reader; returns the former one.
    pub(super) fn attach(&mut self, handle: &Arc<PeerHandle>) -> Option<Arc<PeerHandle>> {
        let former = self.detach();
        let handle = Arc::clone(handle);
        self.reader = Some(Reader { handle, attached: 0, is_woken: true });
        former
    }

    pub(super) fn detach(&mut self) -> Option<Arc<PeerHandle>> {
        let reader = self.reader.take()?;
        for lane in self.lanes() {
            lane.rewind(reader.attached > 0);
        }
        Some(reader.handle)
    }

    fn lanes(&mut self) -> impl Iterator<Item = &mut Lane> {
        let untagged = self.untagged.as_mut().map(|untagged| &mut untagged.lane);
        std::iter::once(&mut self.tagged).chain(untagged)
    }

    /// Takes over what is stored.
    pub(super) fn restore(&mut self, queued: &Queued) {
        self.push(queued, SenderMark::UNKNOWN);
    }

    fn push(&mut self, queued: &Queued, sender: SenderMark) -> &mut Entry {
        self.last_n += 1;
        self.bytes += u64::from(queued.size);
        let lane = match queued.queue {
            MailQueue::Tagged => &mut self.tagged,
            MailQueue::Untagged => {
                let untagged = self.untagged.get_or_insert_default();
                untagged.bytes += u64::from(queued.size);
                &mut untagged.lane
            }
        };
        lane.entries.push_back_mut(Entry {
            n: self.last_n,
            arrival: queued.arrival,
            key: queued.key,
            expires: queued.expires,
            size: queued.size,
            sender,
            body: None,
        })
    }

    /// Tells whether an envelope has a place, and which give way to it: of those that were set aside the oldest. The
    /// device has seen them; their senders send them again if they still mean it.
    pub(super) fn accepts(
        &mut self,
        envelope: &Envelope,
        sender: SenderMark,
        limits: &Limits,
    ) -> Result<Vec<Left>, ErrorCode> {
        let size = envelope.blob.len() as u64;
        let queue = MailQueue::of(&envelope.tag);
        let is_over = match (queue, &mut self.untagged) {
            (MailQueue::Tagged, _) => {
                if self.tagged.entries.len() >= limits.mailbox_envelopes {
                    return Err(ErrorCode::MailboxFull);
                }
                let entries = &self.tagged.entries;
                let marks = (entries.len(), entries.iter().map(|entry| entry.sender));
                self.senders.is_at(limits.mailbox_per_sender, sender, marks)
            }
            (MailQueue::Untagged, None) => false,
            (MailQueue::Untagged, Some(untagged)) => {
                // The more there are, the fewer are of one: nobody fills it alone, nor with a handful of accounts.
                let share = match untagged.len() >= limits.mailbox_untagged / 2 {
                    true => limits.untagged_per_sender_when_many,
                    false => limits.untagged_per_sender,
                };
                untagged.is_at(share, sender)
            }
        };
        if is_over {
            return Err(ErrorCode::SenderQuota);
        }
        let mut yields = Vec::new();
        if self.has_place(queue, size, limits, Kept::Stays) {
            return Ok(yields);
        }
        if !self.has_place(queue, size, limits, Kept::GivesWay) {
            // Nothing gives way in vain.
            return Err(ErrorCode::MailboxFull);
        }
        while !self.has_place(queue, size, limits, Kept::Stays)
            && let Some(untagged) = &mut self.untagged
            && let Some(oldest) = untagged.kept.pop_front()
        {
            yields.push(self.leave(MailQueue::Untagged, oldest));
        }
        Ok(yields)
    }

    /// Tells whether there is a place for so many bytes. Those without a tag have half of them.
    fn has_place(&self, queue: MailQueue, size: u64, limits: &Limits, kept: Kept) -> bool {
        let Some(untagged) = &self.untagged else {
            return self.bytes + size <= limits.mailbox_bytes;
        };
        let (count, bytes) = match kept {
            Kept::Stays => (0, 0),
            Kept::GivesWay => {
                let bytes = untagged.kept.iter().map(|entry| u64::from(entry.size)).sum();
                (untagged.kept.len(), bytes)
            }
        };
        let has_bytes = self.bytes - bytes + size <= limits.mailbox_bytes;
        let is_in_share = untagged.bytes - bytes + size <= limits.mailbox_bytes / 2
            && untagged.len() - count < limits.mailbox_untagged;
        has_bytes && (queue == MailQueue::Tagged || is_in_share)
    }

    /// Appends; returns the arrival, and the reader if it is to be woken.
    pub(super) fn append(
        &mut self,
        queue: &mut Queue,
        envelope: Envelope,
        sender: SenderMark,
        ticket: &Arc<Ticket>,
        now: Timestamp,
    ) -> (Arrival, Option<Arc<PeerHandle>>) {
        let size = envelope.blob.len();
        let mut queued = Queued {
            arrival: 0,
            to: envelope.to,
            key: envelope.idempotency_key,
            expires: now.plus(u64::from(envelope.ttl) * chatcore::ids::SECOND),
            size: u32::try_from(size).unwrap_or(u32::MAX),
            queue: MailQueue::of(&envelope.tag),
        };
        let body = Body { tag: envelope.tag, kind: envelope.kind, blob: envelope.blob };
        let kept = self.reader.as_mut().filter(|r| r.attached < MAX_ATTACHED);
        let kept = kept.map(|reader| {
            reader.attached += size;
            Box::new(body.clone())
        });
        let number = |arrival| {
            queued.arrival = arrival;
            queued
        };
        queued.arrival = queue.push(number, body, ticket);
        match queued.queue {
            MailQueue::Tagged => self.senders.add(sender),
            MailQueue::Untagged => self.untagged.get_or_insert_default().senders.add(sender),
        }
        self.push(&queued, sender).body = kept;
        let woken = self.reader.as_mut().filter(|r| !r.is_woken).map(|reader| {
            reader.is_woken = true;
            Arc::clone(&reader.handle)
        });
        (queued.arrival, woken)
    }

    /// Returns what may be sent now, of one queue: in the order of arrival, so that nobody's envelopes overtake each
    /// other, but for those of a queue of which enough is on its way.
    pub(super) fn due(&mut self, limits: &Limits, now: Timestamp) -> Due {
        let mut due = Due::default();
        let Some(reader) = self.reader.as_mut() else {
            return due;
        };
        reader.is_woken = false;
        let tagged_window = (limits.window_envelopes, limits.window_bytes);
        let untagged_window = (limits.window_untagged, limits.window_bytes);
        // What is over its time is passed over: a run of that is none.
        while due.ready.is_empty() && due.fetch.is_empty() {
            let tagged = self.tagged.next(tagged_window);
            let untagged = self.untagged.as_ref().and_then(|u| u.lane.next(untagged_window));
            let end = tagged.unwrap_or(u64::MAX);
            match (&mut self.untagged, untagged) {
                (Some(queue), Some(n)) if n < end => {
                    queue.lane.due(reader, untagged_window, (end, now), &mut due);
                }
                _ if tagged.is_none() => break,
                _ => {
                    let end = untagged.unwrap_or(u64::MAX);
                    self.tagged.due(reader, tagged_window, (end, now), &mut due);
                }
            }
        }
        due
    }

    /// Takes what was acked out; what was kept stays, and is not delivered again before it is asked for.
    pub(super) fn ack(&mut self, queue: MailQueue, up_to: u64, kept: &[u64]) -> Vec<Left> {
        let acked = match (queue, &mut self.untagged) {
            (MailQueue::Tagged, _) => self.tagged.ack(up_to),
            (MailQueue::Untagged, None) => Vec::new(),
            (MailQueue::Untagged, Some(untagged)) => {
                let acked = untagged.lane.ack(up_to);
                let is_kept = |entry: &Entry| kept.binary_search(&entry.n).is_ok();
                let (kept, acked): (Vec<_>, Vec<_>) = acked.into_iter().partition(is_kept);
                untagged.kept.extend(kept);
                untagged.kept.make_contiguous().sort_by_key(|entry| entry.arrival);
                acked
            }
        };
        acked.into_iter().map(|entry| self.leave(queue, entry)).collect()
    }

    /// Has the oldest of what was set aside delivered once more; returns how many, and how many are left.
    pub(super) fn deliver_kept(&mut self, most: usize) -> (u64, u64) {
        let Some(untagged) = &mut self.untagged else { return (0, 0) };
        let count = most.min(untagged.kept.len());
        for mut entry in untagged.kept.drain(..count) {
            self.last_n += 1;
            entry.n = self.last_n;
            untagged.lane.entries.push_back(entry);
        }
        (count as u64, untagged.kept.len() as u64)
    }

    /// Takes an entry that is out of its queue out of all counts.
    fn leave(&mut self, queue: MailQueue, entry: Entry) -> Left {
        self.bytes = self.bytes.saturating_sub(u64::from(entry.size));
        match (queue, &mut self.untagged) {
            (MailQueue::Tagged, _) => self.senders.remove(entry.sender, self.tagged.entries.len()),
            (MailQueue::Untagged, None) => {}
            (MailQueue::Untagged, Some(untagged)) => {
                untagged.bytes = untagged.bytes.saturating_sub(u64::from(entry.size));
                untagged.senders.remove(entry.sender, untagged.len());
                if untagged.len() == 0 {
                    // Others of them may leave in the same step; there is nothing to count any more.
                    self.untagged = None;
                }
            }
        }
        if let (Some(reader), Some(_)) = (&mut self.reader, &entry.body) {
            reader.attached = reader.attached.saturating_sub(entry.size as usize);
        }
        (entry.arrival, entry.key)
    }

    /// Takes all entries out that something holds for.
    fn take_if(&mut self, is_it: impl Fn(&Entry) -> bool + Copy) -> Vec<Left> {
        let of_tagged = self.tagged.take_if(is_it);
        let of_untagged = self.untagged.as_mut().map(|untagged| {
            let mut taken = untagged.lane.take_if(is_it);
            let (more, rest): (Vec<_>, Vec<_>) =
                std::mem::take(&mut untagged.kept).into_iter().partition(is_it);
            untagged.kept = rest.into();
            taken.extend(more);
            taken
        });
        let mut left: Vec<_> =
            of_tagged.into_iter().map(|entry| self.leave(MailQueue::Tagged, entry)).collect();
        for entry in of_untagged.into_iter().flatten() {
            left.push(self.leave(MailQueue::Untagged, entry));
        }
        left
    }

    pub(super) fn expire(&mut self, now: Timestamp) -> Vec<Left> {
        self.take_if(|entry| entry.expires <= now)
    }

    pub(super) fn drain(&mut self) -> Vec<Left> {
        self.take_if(|_| true)
    }

    pub(super) fn discard(&mut self, arrival: Arrival) -> bool {
        !self.take_if(|entry| entry.arrival == arrival).is_empty()
    }
}

impl Untagged {
    fn len(&self) -> usize {
        self.lane.entries.len() + self.kept.len()
    }

    fn is_at(&mut self, limit: u32, sender: SenderMark) -> bool {
        let entries = self.lane.entries.iter().chain(&self.kept);
        let marks = (self.lane.entries.len() + self.kept.len(), entries.map(|entry| entry.sender));
        self.senders.is_at(limit, sender, marks)
    }
}

impl Lane {
    /// Begins again for the next reader.
    fn rewind(&mut self, holds_bodies: bool) {
        (self.delivered, self.in_flight, self.in_flight_bytes) = (0, 0, 0);
        if holds_bodies {
            self.entries.iter_mut().for_each(|entry| entry.body = None);
        }
    }

    fn first_undelivered(&self) -> usize {
        self.entries.partition_point(|e| e.n <= self.delivered)
    }

    /// Returns the number of what may be sent next.
    fn next(&self, window: (usize, usize)) -> Option<u64> {
        let next = self.entries.get(self.first_undelivered())?;
        let on_the_way = (self.in_flight, self.in_flight_bytes);
        (!is_full(on_the_way, window, next.size as usize)).then_some(next.n)
    }

    /// Adds what may be sent and comes before a number.
    fn due(
        &mut self,
        reader: &mut Reader,
        window: (usize, usize),
        (end, now): (u64, Timestamp),
        due: &mut Due,
    ) {
        let first = self.first_undelivered();
        for entry in self.entries.range_mut(first..) {
            let size = entry.size as usize;
            if entry.n >= end || is_full((self.in_flight, self.in_flight_bytes), window, size) {
                break;
            }
            // What must be read ends what is ready; what is ready ends what must be read.
            match entry.body.take() {
                Some(body) if due.fetch.is_empty() => {
                    reader.attached = reader.attached.saturating_sub(size);
                    due.ready.push(Delivery {
                        n: entry.n,
                        tag: body.tag,
                        kind: body.kind,
                        blob: body.blob,
                    });
                }
                Some(body) => {
                    entry.body = Some(body);
                    break;
                }
                None if entry.expires > now => due.fetch.push((entry.n, entry.arrival)),
                // Left for the sweep; acked with what follows.
                None => {}
            }
            self.delivered = entry.n;
            self.in_flight += 1;
            self.in_flight_bytes += size;
        }
    }

    fn ack(&mut self, up_to: u64) -> Vec<Entry> {
        let end = self.entries.partition_point(|e| e.n <= up_to.min(self.delivered));
        let acked: Vec<_> = self.entries.drain(..end).collect();
        if self.entries.is_empty() {
            // An empty mailbox holds no buffer.
            self.entries = VecDeque::new();
        }
        acked.iter().for_each(|entry| self.count_out(entry));
        acked
    }

    fn count_out(&mut self, entry: &Entry) {
        if entry.n <= self.delivered {
            self.in_flight = self.in_flight.saturating_sub(1);
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(entry.size as usize);
        }
    }

    fn take_if(&mut self, is_it: impl Fn(&Entry) -> bool) -> Vec<Entry> {
        if !self.entries.iter().any(&is_it) {
            return Vec::new();
        }
        let entries = std::mem::take(&mut self.entries);
        let (taken, rest): (Vec<_>, Vec<_>) = entries.into_iter().partition(is_it);
        self.entries = rest.into();
        taken.iter().for_each(|entry| self.count_out(entry));
        taken
    }
}

/// Tells whether there is no place in the window for so many bytes more; one envelope always has one.
const fn is_full((count, bytes): (usize, usize), window: (usize, usize), size: usize) -> bool {
    count > 0 && (count >= window.0 || bytes + size > window.1)
}
