//! The loop of one logged-in device: requests, answers, deliveries, end.
//!
//! ```text
//! socket ─▶ request ─┬─ Ack, questions in memory, Ping: at once, in memory
//!                    ├─ SendMany: held until its mailboxes are known and there is memory for it
//!                    └─ all else: the lane, one blocking job at a time, in order
//! socket ◀─ answers ◀── completions, settled tickets, deliveries that are due
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chatcore::wire::envelope::Envelope;
use chatcore::wire::limits::MAX_LINK_MESSAGE;
use chatcore::wire::relay::{
    Answer, CloseReason, Delivery, DeviceFrame, ErrorCode, RelayFrame, Request, RequestId,
};
use tokio::time::Instant;

use crate::connection::{LARGE, Link, LinkError, Reading};
use crate::handler::{self, Caller, LaneItem};
use crate::login::{self, Entered};
use crate::mailboxes::Ack;
use crate::memory::{Share, Taken};
use crate::registry::{Completion, PeerHandle, Seat, Ticket};
use crate::server::Shared;
use crate::store::{Arrival, Body, StoreError};

/// Unwritten bytes above which nothing more is read, delivered or begun.
const MAX_UNWRITTEN: usize = 256 << 10;
/// The same for a large answer, so that it waits alone.
const MAX_BEFORE_LARGE: usize = 16 << 10;
/// Time for the rest of a large message, when others wait for its place.
const LARGE_TIME: Duration = Duration::from_secs(10);
/// Time after which it is looked whether it goes on.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// Bytes of it that have to come in a second, when others wait for its place.
const LARGE_A_SECOND: usize = 64 << 10;
/// Logins that somebody pays for who was cut since they were slow.
const LOGINS_OF_SLOW: usize = 10;
/// Time for what is under way on a connection that is to end.
const ENDING_TIME: Duration = Duration::from_secs(2);
/// Bytes of one pushed frame's envelopes.
const MAX_DELIVER: usize = 256 << 10;
/// Requests under way above which nothing more is read.
const MAX_UNDER_WAY: usize = 256;
/// Bytes that requests under way may hold or bring.
const MAX_LANE_COST: usize = 1 << 20;
/// Requests of one connection that are carried out before others have their turn: each may wait for the disk.
const MAX_LANE_ITEMS: usize = 16;
/// Bytes that an envelope takes besides its blob.
const ENVELOPE_COST: usize = 256;

/// One connected device.
pub(crate) struct Peer {
    shared: Arc<Shared>,
    handle: Arc<PeerHandle>,
    seat: Seat,
    caller: Caller,
    link: Link,
    messages: Vec<Bytes>,
    sends: VecDeque<(RequestId, Arc<Ticket>)>,
    /// Envelopes whose turn has not come, in their order.
    held: VecDeque<Held>,
    turn: Turn,
    share: Share,
    large: Large,
    /// Until when memory is held for what can't begin yet.
    holds_until: Option<Instant>,
    /// Bytes of the large message when its progress was last looked at.
    large_read: usize,
    ends_at: Option<Instant>,
    lane: Lane,
    is_fetching: bool,
}

/// A `SendMany`, with the memory that it was read into if it is large.
struct Held {
    ticket: Arc<Ticket>,
    envelopes: Vec<Envelope>,
    memory: Option<Taken>,
}

/// The large message that is being read.
enum Large {
    /// There is none, or nobody asked for memory yet.
    None,
    Waiting,
    Reading {
        memory: Taken,
        until: Instant,
    },
}

/// Requests that need the store, in their order.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<(LaneItem, Option<Taken>)>,
    waiting_cost: usize,
    is_busy: bool,
    /// Memory of what is under way.
    input: Vec<Taken>,
    /// Memory for the large answer that is made, or next.
    memory: Option<Taken>,
    waits_for_memory: bool,
}

/// Reason for which the first of the held sends waits. No memory is taken before it can be used, else
/// those who do not read would keep it from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// To be looked at.
    New,
    /// The directory is asked about mailboxes that nobody used yet.
    LookUp,
    /// All mailboxes are known that will be.
    Known,
    Memory,
}

enum End {
    Link(LinkError),
    Malformed(Bytes),
    Asked(CloseReason),
    Silent,
    /// A large message did not come to its end while others waited.
    Slow,
    /// Stored envelopes could not be read: nothing may be acked past them.
    Store(StoreError),
}

impl End {
    const fn is_their_fault(&self) -> bool {
        match self {
            Self::Malformed(_) => true,
            Self::Link(error) => !matches!(error, LinkError::Ended(_)),
            _ => false,
        }
    }
}

impl From<LinkError> for End {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl Peer {
    pub(crate) fn new(shared: Arc<Shared>, entered: Entered) -> Self {
        Self {
            shared,
            handle: Arc::clone(&entered.seat.handle),
            caller: Caller { address: entered.seat.address, link_key: entered.link_key },
            seat: entered.seat,
            link: entered.link,
            messages: entered.messages,
            sends: VecDeque::new(),
            held: VecDeque::new(),
            turn: Turn::New,
            share: Share::default(),
            large: Large::None,
            holds_until: None,
            large_read: 0,
            ends_at: None,
            lane: Lane::default(),
            is_fetching: false,
        }
    }

    /// Serves the device until one side ends it.
    pub(crate) async fn run(mut self) {
        let end = self.serve().await;
        // Nobody fills the log.
        let is_said = end.is_their_fault() && {
            let (complaints, now) = (&self.shared.complaints, self.shared.clock.uptime());
            complaints.pay(self.caller.address.user, now).is_ok()
        };
        // Nothing is kept from others while the last bytes go.
        let mut link = self.into_link();
        match end {
            End::Link(LinkError::Ended(_)) => {}
            End::Link(error) if is_said => tracing::warn!(%error, "a device broke the link"),
            End::Link(_) => {}
            End::Store(error) => tracing::error!(%error, "envelopes could not be read"),
            End::Slow => tracing::debug!("a device was slow while others waited"),
            End::Silent => tracing::debug!("a device was silent for too long"),
            End::Malformed(message) => {
                if is_said {
                    tracing::warn!("a device sent a request that is not understood");
                }
                let _ = login::refuse(link, &message).await;
            }
            End::Asked(reason) if is_left_unread(&link, reason) => {}
            End::Asked(reason) => {
                let answer = Answer::Closing(reason);
                let request_id = 0;
                if link.push(&RelayFrame { request_id, answer }).is_ok() {
                    link.close().await;
                }
            }
        }
    }

    fn into_link(self) -> Link {
        let Self { link, seat, .. } = self;
        drop(seat);
        link
    }

    /// Returns until when what is under way may come to its end, once the connection is to be closed.
    fn ends_at(&mut self) -> Option<(Instant, CloseReason)> {
        let reason = self.handle.close_reason()?;
        if reason == CloseReason::Shutdown {
            // All of them have the same time, and what is accepted is answered.
            return None;
        }
        if is_left_unread(&self.link, reason) {
            return Some((Instant::now(), reason));
        }
        let ends_at = self.ends_at.get_or_insert_with(|| Instant::now() + ENDING_TIME);
        Some((*ends_at, reason))
    }

    async fn serve(&mut self) -> End {
        let idle_time = self.shared.limits().idle_time;
        let silence = tokio::time::sleep(idle_time);
        tokio::pin!(silence);
        let mut messages = std::mem::take(&mut self.messages);
        loop {
            if let Err(end) = self.advance(&mut messages) {
                return end;
            }
            let has_room = |link: &Link| {
                (link.unwritten() <= MAX_UNWRITTEN, link.unwritten() <= MAX_BEFORE_LARGE)
            };
            let before = has_room(&self.link);
            if let Err(error) = self.link.write_some().await {
                return error.into();
            }
            if has_room(&self.link) != before {
                // What had to wait for room can begin now, and nothing else would wake us for it.
                continue;
            }
            let reading = self.reading();
            let (is_slow, until) = self.must_go_on();
            let ending = self.ends_at();
            let ends_at = ending.map_or_else(Instant::now, |(at, _)| at);
            let result = tokio::select! {
                () = tokio::time::sleep_until(ends_at), if ending.is_some() => {
                    return ending.map_or(End::Silent, |(_, reason)| End::Asked(reason));
                }
                () = tokio::time::sleep_until(until), if is_slow => {
                    let is_theirs = reading == Reading::On || self.link.unwritten() > 0;
                    let read = self.link.partial();
                    let goes_on = read.saturating_sub(self.large_read) >= LARGE_A_SECOND
                        && self.holds_until.is_none_or(|until| until > Instant::now());
                    self.large_read = read;
                    if is_theirs && !goes_on && self.shared.memory.is_scarce() {
                        // Who was slow comes back a little later.
                        for _ in 0..LOGINS_OF_SLOW {
                            let uptime = self.shared.clock.uptime();
                            let _ = self.shared.logins.pay(self.caller.address.user, uptime);
                        }
                        return End::Slow;
                    }
                    let more = Instant::now() + Duration::from_secs(1);
                    self.large.give(more);
                    self.holds_until = self.holds_until.map(|until| until.max(more));
                    Ok(())
                }
                () = self.handle.woken() => Ok(()),
                result = self.link.exchange(reading, &mut messages) => result,
                () = &mut silence => {
                    let more = match idle_time.checked_sub(self.link.silence()) {
                        Some(more) => more.max(Duration::from_millis(1)),
                        // Who is not read because others use the memory is not silent.
                        None if self.waits_for_memory() => idle_time,
                        None => return End::Silent,
                    };
                    silence.as_mut().reset(Instant::now() + more);
                    Ok(())
                }
            };
            if let Err(error) = result {
                return error.into();
            }
        }
    }

    /// Does all that can be done without waiting.
    fn advance(&mut self, messages: &mut Vec<Bytes>) -> Result<(), End> {
        if !messages.is_empty() {
            for message in messages.drain(..) {
                self.handle_message(message)?;
            }
            *messages = Vec::new();
        }
        while let Some(completion) = self.handle.next_completion() {
            match completion {
                Completion::Answer(request_id, answer) => self.answer(request_id, answer)?,
                Completion::Memory(memory) => {
                    self.begin_send(Some(memory));
                    self.send_held();
                }
                Completion::LargeMessage(memory) => {
                    self.large = Large::Reading { memory, until: Instant::now() + FIRST_LOOK };
                    self.large_read = self.link.partial();
                }
                Completion::LargeAnswer(memory) => {
                    self.lane.memory = Some(memory);
                    self.lane.waits_for_memory = false;
                }
                Completion::LaneIdle => {
                    // Its answers are sealed by now.
                    self.lane.is_busy = false;
                    self.lane.input = Vec::new();
                    self.lane.memory = None;
                }
                Completion::LookedUp(Ok(())) => {
                    self.turn = Turn::Known;
                    self.send_held();
                }
                Completion::LookedUp(Err(error)) => {
                    self.turn = Turn::New;
                    if let Some(held) = self.held.pop_front() {
                        held.ticket.fail(error);
                    }
                    self.send_held();
                }
                Completion::Fetched(bodies) => {
                    self.is_fetching = false;
                    self.deliver_fetched(bodies.map_err(End::Store)?)?;
                }
            }
        }
        while let Some((request_id, ticket)) = self.sends.front()
            && ticket.is_settled()
        {
            let (request_id, answer) = (*request_id, ticket.answer());
            self.sends.pop_front();
            self.answer(request_id, answer)?;
        }
        self.start_lane();
        if let Some(reason) = self.handle.close_reason() {
            let is_drained =
                self.sends.is_empty() && self.lane.waiting.is_empty() && !self.lane.is_busy;
            if is_drained {
                return Err(End::Asked(reason));
            }
        } else {
            while self.link.unwritten() <= MAX_UNWRITTEN
                && let Some(push) = self.handle.next_push()
            {
                self.answer(0, push)?;
            }
            self.deliver()?;
        }
        Ok(())
    }

    fn waits_for_memory(&self) -> bool {
        self.turn == Turn::Memory
            || matches!(self.large, Large::Waiting)
            || self.lane.waits_for_memory
    }

    /// Tells whether the peer holds memory that others may wait for, and until when.
    fn must_go_on(&mut self) -> (bool, Instant) {
        let holds = self.lane.waiting.iter().any(|(_, memory)| memory.is_some())
            || self.held.iter().any(|held| held.memory.is_some());
        self.holds_until = match self.holds_until {
            _ if !holds => None,
            None => Some(Instant::now() + LARGE_TIME),
            until => until,
        };
        let reading = match &self.large {
            Large::Reading { until, .. } => Some(*until),
            _ => None,
        };
        let until = [reading, self.holds_until].into_iter().flatten().min();
        until.map_or_else(|| (false, Instant::now()), |until| (true, until))
    }

    /// Says what may be read; asks for memory for what is large.
    fn reading(&mut self) -> Reading {
        let is_full = self.link.unwritten() > MAX_UNWRITTEN
            || self.lane.waiting_cost > MAX_LANE_COST
            || self.lane.waiting.len() + self.sends.len() > MAX_UNDER_WAY
            || !self.held.is_empty();
        if is_full || self.handle.close_reason().is_some() {
            return Reading::Off;
        }
        match self.large {
            Large::Reading { .. } => Reading::On,
            Large::Waiting => Reading::Off,
            Large::None if self.link.is_reading_large() => {
                let memory = &self.shared.memory;
                if let Some(memory) = memory.try_take_large() {
                    self.large = Large::Reading { memory, until: Instant::now() + FIRST_LOOK };
                    self.large_read = self.link.partial();
                    return Reading::On;
                }
                self.large = Large::Waiting;
                let (handle, memory) = (Arc::clone(&self.handle), memory.take(MAX_LINK_MESSAGE));
                tokio::spawn(
                    async move { handle.complete(Completion::LargeMessage(memory.await)) },
                );
                Reading::Off
            }
            Large::None => Reading::Small,
        }
    }

    fn answer(&mut self, request_id: RequestId, answer: Answer) -> Result<(), LinkError> {
        self.shared.metrics.answered(&answer);
        self.link.push(&RelayFrame { request_id, answer })
    }

    fn handle_message(&mut self, message: Bytes) -> Result<(), End> {
        let Ok(frame) = DeviceFrame::decode(message.clone()) else {
            return Err(End::Malformed(message));
        };
        // The memory for a large message stays with what becomes of it.
        let memory = if message.len() > LARGE { self.large.end() } else { None };
        drop(message);
        let id = frame.request_id;
        match frame.request {
            Request::Ping => self.answer(id, Answer::Pong)?,
            Request::Ack { epoch, up_to, queue, kept } => {
                let ack = Ack { epoch, queue, up_to, kept };
                let acked = self.shared.mailboxes.ack(&self.caller.address, self.handle.id, &ack);
                self.shared.metrics.acked.inc_by(acked as u64);
            }
            Request::DeliverKept { most } => {
                let mailboxes = &self.shared.mailboxes;
                let (count, left) =
                    mailboxes.deliver_kept(&self.caller.address, self.handle.id, most);
                self.answer(id, Answer::DeliveringKept { count, left })?;
            }
            Request::QueryQueued(keys) => {
                let mailboxes = &self.shared.mailboxes;
                let queued = keys.iter().map(|key| mailboxes.is_queued(key)).collect();
                self.answer(id, Answer::Queued(queued))?;
            }
            Request::ShowPresence { tags, in_rooms, hidden_from } => {
                self.handle.show_to(tags);
                self.handle.show_in_rooms(in_rooms, hidden_from);
                self.answer(id, Answer::Done)?;
            }
            Request::QueryPresence(devices) => {
                let mailboxes = &self.shared.mailboxes;
                let online = devices.iter().map(|(device, tag)| mailboxes.is_present(device, tag));
                self.answer(id, Answer::Presence(online.collect()))?;
            }
            Request::SendMany(envelopes) => self.send(id, envelopes, memory),
            Request::Login { .. } | Request::Register { .. } => {
                self.answer(id, Answer::Failure(ErrorCode::AlreadyRegistered.into()))?;
            }
            request => self.lane.push(LaneItem::Request(id, request), memory),
        }
        Ok(())
    }

    /// Takes envelopes in as soon as there is memory for them: what is not stored yet has a bound for the whole
    /// relay, and connections get it in turn. What is sent later never overtakes them.
    fn send(&mut self, id: RequestId, envelopes: Vec<Envelope>, memory: Option<Taken>) {
        let ticket = Ticket::new(Arc::clone(&self.handle));
        self.sends.push_back((id, Arc::clone(&ticket)));
        self.held.push_back(Held { ticket, envelopes, memory });
        self.send_held();
    }

    fn send_held(&mut self) {
        while let (Turn::New | Turn::Known, Some(held)) = (self.turn, self.held.front()) {
            let envelopes = &held.envelopes;
            if self.turn == Turn::New {
                let mailboxes = &self.shared.mailboxes;
                let unknown = envelopes.iter().map(|e| e.to).filter(|to| !mailboxes.knows(to));
                let unknown: Vec<_> = unknown.collect();
                if !unknown.is_empty() {
                    self.turn = Turn::LookUp;
                    self.lane.push(LaneItem::LookUp(unknown), None);
                    return;
                }
            }
            let cost = cost_of(envelopes);
            let has_memory = held.memory.is_some();
            let memory = (!has_memory).then(|| self.shared.memory.try_take(&self.share, cost));
            let memory = memory.flatten();
            if has_memory || memory.is_some() {
                self.begin_send(memory);
                continue;
            }
            self.turn = Turn::Memory;
            let (handle, memory) = (Arc::clone(&self.handle), self.shared.memory.take(cost));
            tokio::spawn(async move { handle.complete(Completion::Memory(memory.await)) });
        }
    }

    fn begin_send(&mut self, memory: Option<Taken>) {
        self.turn = Turn::New;
        if let Some(held) = self.held.pop_front() {
            held.memory.or(memory).into_iter().for_each(|memory| held.ticket.hold(memory));
            handler::send(&self.shared, &self.caller, held.envelopes, &held.ticket);
        }
    }

    fn start_lane(&mut self) {
        if self.lane.is_busy || self.lane.waits_for_memory {
            return;
        }
        let unwritten = self.link.unwritten();
        let may_begin = |item: &LaneItem| {
            unwritten <= if item.is_large() { MAX_BEFORE_LARGE } else { MAX_UNWRITTEN }
        };
        let next = self.lane.waiting.front().filter(|(item, _)| may_begin(item));
        let Some(next) = next else {
            // Who does not read keeps it from nobody.
            self.lane.memory = None;
            return;
        };
        if next.0.is_large() && self.lane.memory.is_none() {
            self.lane.memory = self.shared.memory.try_answer();
            if self.lane.memory.is_none() {
                self.lane.waits_for_memory = true;
                let (handle, memory) = (Arc::clone(&self.handle), self.shared.memory.answer());
                tokio::spawn(async move { handle.complete(Completion::LargeAnswer(memory.await)) });
                return;
            }
        }
        self.lane.is_busy = true;
        let items = self.lane.take();
        let (shared, handle) = (Arc::clone(&self.shared), Arc::clone(&self.handle));
        let caller = self.caller;
        tokio::task::spawn_blocking(move || handler::run_lane(&shared, &caller, &handle, items));
    }

    fn deliver(&mut self) -> Result<(), LinkError> {
        while !self.is_fetching && self.link.unwritten() <= MAX_UNWRITTEN {
            let now = self.shared.clock.now();
            let due = self.shared.mailboxes.due(&self.caller.address, self.handle.id, now);
            if due.ready.is_empty() && due.fetch.is_empty() {
                return Ok(());
            }
            self.push_deliveries(due.ready)?;
            if !due.fetch.is_empty() {
                self.fetch(due.fetch);
            }
        }
        Ok(())
    }

    fn fetch(&mut self, wanted: Vec<(u64, Arrival)>) {
        self.is_fetching = true;
        let (shared, handle) = (Arc::clone(&self.shared), Arc::clone(&self.handle));
        tokio::task::spawn_blocking(move || {
            let mut fetched = FetchedOnDrop { handle, bodies: Err(StoreError::Failed) };
            fetched.bodies = handler::read_bodies(&shared, &wanted);
            drop(shared);
        });
    }

    fn deliver_fetched(&mut self, bodies: Vec<(u64, Option<Body>)>) -> Result<(), LinkError> {
        let deliveries = bodies.into_iter().filter_map(|(n, body)| {
            let body = body?;
            Some(Delivery { n, tag: body.tag, kind: body.kind, blob: body.blob })
        });
        self.push_deliveries(deliveries.collect())
    }

    fn push_deliveries(&mut self, deliveries: Vec<Delivery>) -> Result<(), LinkError> {
        let epoch = self.shared.mailboxes.epoch();
        let mut rest = deliveries.into_iter().peekable();
        while rest.peek().is_some() {
            let (mut envelopes, mut bytes) = (Vec::new(), 0);
            while let Some(next) =
                rest.next_if(|d| bytes == 0 || bytes + d.blob.len() <= MAX_DELIVER)
            {
                bytes += next.blob.len();
                envelopes.push(next);
            }
            self.answer(0, Answer::Deliver { epoch, envelopes })?;
        }
        Ok(())
    }
}

/// Tells whether a device came again and left much unread: nobody waits for that any more, and who comes again and
/// again would have the relay keep it all.
fn is_left_unread(link: &Link, reason: CloseReason) -> bool {
    reason == CloseReason::Replaced && link.unwritten() > MAX_BEFORE_LARGE
}

/// Returns the bytes of memory that envelopes take until they are stored.
fn cost_of(envelopes: &[Envelope]) -> usize {
    envelopes.iter().map(|e| e.blob.len() + ENVELOPE_COST).sum()
}

/// Says what was read, or that reading failed, even by a panic: else nothing would ever be
/// delivered on this connection again.
struct FetchedOnDrop {
    handle: Arc<PeerHandle>,
    bodies: Result<Vec<(u64, Option<Body>)>, StoreError>,
}

impl Drop for FetchedOnDrop {
    fn drop(&mut self) {
        let bodies = std::mem::replace(&mut self.bodies, Err(StoreError::Failed));
        self.handle.complete(Completion::Fetched(bodies));
    }
}

impl Large {
    /// Ends the reading; returns the memory.
    fn end(&mut self) -> Option<Taken> {
        match std::mem::replace(self, Self::None) {
            Self::Reading { memory, .. } => Some(memory),
            other => {
                *self = other;
                None
            }
        }
    }

    /// Gives it more time.
    const fn give(&mut self, more: Instant) {
        if let Self::Reading { until, .. } = self {
            *until = more;
        }
    }
}

impl Lane {
    fn push(&mut self, item: LaneItem, memory: Option<Taken>) {
        self.waiting_cost += item.cost();
        self.waiting.push_back((item, memory));
    }

    /// Takes as much as may be under way at once, at least one.
    fn take(&mut self) -> Vec<LaneItem> {
        let (mut items, mut cost) = (Vec::new(), 0);
        while let Some((next, _)) = self.waiting.front()
            && (items.is_empty() || cost + next.cost() <= MAX_LANE_COST)
            && items.len() < MAX_LANE_ITEMS
        {
            cost += next.cost();
            if let Some((item, memory)) = self.waiting.pop_front() {
                items.push(item);
                self.input.extend(memory);
            }
        }
        self.waiting_cost = self.waiting_cost.saturating_sub(cost);
        items
    }
}
