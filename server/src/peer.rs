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
use chatcore::wire::relay::{
    Answer, CloseReason, Delivery, DeviceFrame, ErrorCode, RelayFrame, Request, RequestId,
};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use crate::connection::{Link, LinkError, Reading};
use crate::handler::{self, Caller, LaneItem};
use crate::login::{self, Entered};
use crate::registry::{Completion, PeerHandle, Seat, Ticket};
use crate::server::{MAX_UNSTORED, Shared};
use crate::store::{Arrival, Body, StoreError};

/// Unwritten bytes above which nothing more is read, delivered or begun.
const MAX_UNWRITTEN: usize = 256 << 10;
/// Bytes of one pushed frame's envelopes.
const MAX_DELIVER: usize = 256 << 10;
/// Requests under way above which nothing more is read.
const MAX_UNDER_WAY: usize = 256;
/// Bytes that requests under way may hold or bring.
const MAX_LANE_COST: usize = 1 << 20;
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
    held: VecDeque<(Arc<Ticket>, Vec<Envelope>)>,
    turn: Turn,
    lane: Lane,
    is_fetching: bool,
}

/// Requests that need the store, in their order.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<LaneItem>,
    waiting_cost: usize,
    is_busy: bool,
}

/// What the first of the sends that are held waits for. No memory is taken before it can be used, else
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
    /// Stored envelopes could not be read: nothing may be acked past them.
    Store(StoreError),
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
            lane: Lane::default(),
            is_fetching: false,
        }
    }

    /// Serves the device until one side ends it.
    pub(crate) async fn run(mut self) {
        let end = self.serve().await;
        let Self { mut link, seat, .. } = self;
        drop(seat);
        match end {
            End::Link(LinkError::Ended(_)) => {}
            End::Link(error) => tracing::warn!(%error, "a device broke the link"),
            End::Store(error) => tracing::error!(%error, "envelopes could not be read"),
            End::Silent => tracing::debug!("a device was silent for too long"),
            End::Malformed(message) => {
                tracing::warn!("a device sent a request that is not understood");
                let _ = login::refuse(link, &message).await;
            }
            End::Asked(reason) => {
                let answer = Answer::Closing(reason);
                let request_id = 0;
                if link.push(&RelayFrame { request_id, answer }).is_ok() {
                    link.close().await;
                }
            }
        }
    }

    async fn serve(&mut self) -> End {
        let idle_time = self.shared.limits.idle_time;
        let silence = tokio::time::sleep(idle_time);
        tokio::pin!(silence);
        let mut messages = std::mem::take(&mut self.messages);
        loop {
            if let Err(end) = self.advance(&mut messages) {
                return end;
            }
            let was_full = self.link.unwritten() > MAX_UNWRITTEN;
            if let Err(error) = self.link.write_some().await {
                return error.into();
            }
            if was_full && self.link.unwritten() <= MAX_UNWRITTEN {
                // What had to wait for room can begin now, and nothing else would wake us for it.
                continue;
            }
            let reading = self.reading();
            let result = tokio::select! {
                () = self.handle.woken() => Ok(()),
                result = self.link.exchange(reading, &mut messages) => result,
                () = &mut silence => {
                    let more = match idle_time.checked_sub(self.link.silence()) {
                        Some(more) => more.max(Duration::from_millis(1)),
                        // Who is not read because others use the memory is not silent.
                        None if self.turn == Turn::Memory => idle_time,
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
                Completion::Memory(permit) => {
                    self.begin_send(permit);
                    self.send_held();
                }
                Completion::LaneIdle => self.lane.is_busy = false,
                Completion::LookedUp(Ok(())) => {
                    self.turn = Turn::Known;
                    self.send_held();
                }
                Completion::LookedUp(Err(error)) => {
                    self.turn = Turn::New;
                    if let Some((ticket, _)) = self.held.pop_front() {
                        ticket.fail(error);
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

    fn reading(&self) -> Reading {
        let is_full = self.link.unwritten() > MAX_UNWRITTEN
            || self.lane.waiting_cost > MAX_LANE_COST
            || self.lane.waiting.len() + self.sends.len() > MAX_UNDER_WAY
            || !self.held.is_empty();
        if is_full || self.handle.close_reason().is_some() { Reading::Off } else { Reading::On }
    }

    fn answer(&mut self, request_id: RequestId, answer: Answer) -> Result<(), LinkError> {
        self.link.push(&RelayFrame { request_id, answer })
    }

    fn handle_message(&mut self, message: Bytes) -> Result<(), End> {
        let Ok(frame) = DeviceFrame::decode(message.clone()) else {
            return Err(End::Malformed(message));
        };
        drop(message);
        let id = frame.request_id;
        match frame.request {
            Request::Ping => self.answer(id, Answer::Pong)?,
            Request::Ack { epoch, up_to } => {
                let mailboxes = &self.shared.mailboxes;
                mailboxes.ack(&self.caller.address, self.handle.id, epoch, up_to);
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
            Request::SendMany(envelopes) => self.send(id, envelopes),
            Request::Login { .. } | Request::Register { .. } => {
                self.answer(id, Answer::Failure(ErrorCode::AlreadyRegistered.into()))?;
            }
            request => self.lane.push(LaneItem::Request(id, request)),
        }
        Ok(())
    }

    /// Takes envelopes in as soon as there is memory for them: what is not stored yet has a bound for the whole
    /// relay, and connections get it in turn. What is sent later never overtakes them.
    fn send(&mut self, id: RequestId, envelopes: Vec<Envelope>) {
        let ticket = Ticket::new(Arc::clone(&self.handle));
        self.sends.push_back((id, Arc::clone(&ticket)));
        self.held.push_back((ticket, envelopes));
        self.send_held();
    }

    fn send_held(&mut self) {
        while let (Turn::New | Turn::Known, Some((_, envelopes))) = (self.turn, self.held.front()) {
            if self.turn == Turn::New {
                let mailboxes = &self.shared.mailboxes;
                let unknown = envelopes.iter().map(|e| e.to).filter(|to| !mailboxes.knows(to));
                let unknown: Vec<_> = unknown.collect();
                if !unknown.is_empty() {
                    self.turn = Turn::LookUp;
                    self.lane.push(LaneItem::LookUp(unknown));
                    return;
                }
            }
            let cost = cost_of(envelopes);
            let memory = Arc::clone(&self.shared.unstored);
            if let Ok(permit) = Arc::clone(&memory).try_acquire_many_owned(cost) {
                self.begin_send(permit);
                continue;
            }
            self.turn = Turn::Memory;
            let handle = Arc::clone(&self.handle);
            tokio::spawn(async move {
                // It is never closed.
                if let Ok(permit) = memory.acquire_many_owned(cost).await {
                    handle.complete(Completion::Memory(permit));
                }
            });
        }
    }

    fn begin_send(&mut self, permit: OwnedSemaphorePermit) {
        self.turn = Turn::New;
        if let Some((ticket, envelopes)) = self.held.pop_front() {
            ticket.hold(permit);
            handler::send(&self.shared, &self.caller, envelopes, &ticket);
        }
    }

    fn start_lane(&mut self) {
        let is_startable = !self.lane.is_busy && self.link.unwritten() <= MAX_UNWRITTEN;
        if self.lane.waiting.is_empty() || !is_startable {
            return;
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

/// Returns the KiB of memory that envelopes take until they are stored.
fn cost_of(envelopes: &[Envelope]) -> u32 {
    let bytes: usize = envelopes.iter().map(|e| e.blob.len() + ENVELOPE_COST).sum();
    let kib = u32::try_from(bytes.div_ceil(1_024)).unwrap_or(u32::MAX);
    kib.min(MAX_UNSTORED)
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

impl Lane {
    fn push(&mut self, item: LaneItem) {
        self.waiting_cost += item.cost();
        self.waiting.push_back(item);
    }

    /// Takes as much as may be under way at once, at least one.
    fn take(&mut self) -> Vec<LaneItem> {
        let (mut items, mut cost) = (Vec::new(), 0);
        while let Some(next) = self.waiting.front()
            && (items.is_empty() || cost + next.cost() <= MAX_LANE_COST)
        {
            cost += next.cost();
            items.extend(self.waiting.pop_front());
        }
        self.waiting_cost = self.waiting_cost.saturating_sub(cost);
        items
    }
}
