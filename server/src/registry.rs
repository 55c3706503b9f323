//! Connected devices: a handle for each logged-in connection, through which others reach it.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

use chatcore::ids::{DeliveryTag, DeviceAddress, RoomId, UserId};
use chatcore::keys::Signed;
use chatcore::wire::relay::{Answer, CloseReason, ErrorCode, RequestId, RoomPresence};
use tokio::sync::Notify;

use crate::handler::internal;
use crate::lock::lock;
use crate::mailboxes::Waiting;
use crate::memory::Taken;
use crate::server::Shared;
use crate::store::{Body, StoreError};

/// Number of a connection in this process.
pub(crate) type ConnectionId = u64;

/// Results of storage work for a connection.
#[derive(Debug)]
pub(crate) enum Completion {
    /// An answer to one of its requests.
    Answer(RequestId, Answer),
    /// There is memory for the rest of a large message.
    LargeMessage(Taken),
    /// There is memory for what was to be sent first.
    Memory(Taken),
    /// There is memory for what the lane would do next.
    LargeAnswer(Taken),
    /// The lane has done everything it took.
    LaneIdle,
    /// The mailboxes that the directory knows are known now.
    LookedUp(Result<(), StoreError>),
    /// Envelopes read from the store, ascending.
    Fetched(Result<Vec<(u64, Option<Body>)>, StoreError>),
}

/// A logged-in connection as others see it.
#[derive(Debug)]
pub(crate) struct PeerHandle {
    pub(crate) id: ConnectionId,
    wake: Notify,
    closing: AtomicU8,
    completions: Mutex<VecDeque<Completion>>,
    /// Users who may see that the device is here, ascending.
    visible_to: Mutex<Box<[DeliveryTag]>>,
    /// Whether members of common open rooms may, and who of them may not, ascending.
    in_rooms: Mutex<Option<Box<[UserId]>>>,
    pushes: Mutex<Pushes>,
}

/// Frames to be pushed to a connection.
#[derive(Debug, Default)]
struct Pushes {
    rooms: Vec<RoomId>,
    announcements: VecDeque<Signed>,
}

/// Rooms and announcements each that wait for a slow connection; beyond it, it has to come again.
const MAX_PUSHES: usize = 512;

impl PeerHandle {
    /// Says who of common open rooms may see that the device is here.
    pub(crate) fn show_in_rooms(&self, in_rooms: RoomPresence, mut hidden_from: Vec<UserId>) {
        hidden_from.sort_unstable();
        let shown = in_rooms == RoomPresence::Shown;
        *lock(&self.in_rooms) = shown.then(|| hidden_from.into());
    }

    /// Tells whether a member of a common open room may see that the device is here.
    pub(crate) fn is_visible_in_rooms(&self, to: Option<&UserId>) -> bool {
        let hidden = |from: &[UserId]| to.is_some_and(|user| from.binary_search(user).is_ok());
        lock(&self.in_rooms).as_deref().is_some_and(|from| !hidden(from))
    }

    /// Has the connection told that a room changed, once however often it does.
    pub(crate) fn push_room(&self, room: RoomId) {
        let mut pushes = lock(&self.pushes);
        if pushes.rooms.contains(&room) {
            return;
        }
        let has_space = pushes.rooms.len() < MAX_PUSHES;
        if has_space {
            pushes.rooms.push(room);
        }
        drop(pushes);
        if has_space { self.wake() } else { self.close(CloseReason::Shutdown) }
    }

    /// Has an announcement pushed.
    pub(crate) fn push_announcement(&self, announcement: Signed) {
        let mut pushes = lock(&self.pushes);
        let has_space = pushes.announcements.len() < MAX_PUSHES;
        if has_space {
            pushes.announcements.push_back(announcement);
        }
        drop(pushes);
        if has_space { self.wake() } else { self.close(CloseReason::Shutdown) }
    }

    /// Takes the next thing to push.
    pub(crate) fn next_push(&self) -> Option<Answer> {
        let mut pushes = lock(&self.pushes);
        if let Some(room) = pushes.rooms.pop() {
            return Some(Answer::RoomChanged(room));
        }
        let next = pushes.announcements.pop_front();
        if next.is_none() {
            // An idle connection holds no buffer.
            *pushes = Pushes::default();
        }
        next.map(Answer::Announced)
    }

    /// Replaces the set of tags whose holders may see that the device is here.
    pub(crate) fn show_to(&self, mut tags: Vec<DeliveryTag>) {
        tags.sort_unstable();
        tags.dedup();
        *lock(&self.visible_to) = tags.into();
    }

    /// Tells whether the holder of a tag may see that the device is here.
    pub(crate) fn is_visible_to(&self, tag: &DeliveryTag) -> bool {
        lock(&self.visible_to).binary_search(tag).is_ok()
    }

    /// Wakes the connection's task.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }

    /// Waits for [`Self::wake`].
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// Hands something to the connection's task. Bounded: a connection has a bounded number of
    /// requests under way.
    pub(crate) fn complete(&self, completion: Completion) {
        lock(&self.completions).push_back(completion);
        self.wake();
    }

    /// Takes the next thing that is ready.
    pub(crate) fn next_completion(&self) -> Option<Completion> {
        let mut completions = lock(&self.completions);
        let next = completions.pop_front();
        if completions.is_empty() {
            // An idle connection holds no buffer.
            *completions = VecDeque::new();
        }
        next
    }

    /// Asks the connection to end; the first reason stays.
    pub(crate) fn close(&self, reason: CloseReason) {
        let code = match reason {
            CloseReason::Shutdown => 1,
            CloseReason::Replaced => 2,
            CloseReason::Revoked => 3,
            CloseReason::Kicked => 4,
        };
        let swap = self.closing.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
        if swap.is_ok() {
            self.wake();
        }
    }

    /// Returns why the connection should end, if it should.
    pub(crate) fn close_reason(&self) -> Option<CloseReason> {
        match self.closing.load(Ordering::Acquire) {
            1 => Some(CloseReason::Shutdown),
            2 => Some(CloseReason::Replaced),
            3 => Some(CloseReason::Revoked),
            4 => Some(CloseReason::Kicked),
            _ => None,
        }
    }
}

/// All logged-in connections.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    next: AtomicU64,
    is_closing: AtomicBool,
    peers: Mutex<HashMap<ConnectionId, Arc<PeerHandle>>>,
    users: Mutex<HashMap<UserId, Vec<Arc<PeerHandle>>>>,
}

impl Registry {
    /// Adds a connection; one that comes while the relay stops is asked to end at once.
    pub(crate) fn add(&self, user: UserId) -> Arc<PeerHandle> {
        let handle = Arc::new(PeerHandle {
            id: self.next.fetch_add(1, Ordering::Relaxed),
            wake: Notify::new(),
            closing: AtomicU8::new(0),
            completions: Mutex::new(VecDeque::new()),
            visible_to: Mutex::default(),
            in_rooms: Mutex::default(),
            pushes: Mutex::default(),
        });
        lock(&self.peers).insert(handle.id, Arc::clone(&handle));
        lock(&self.users).entry(user).or_default().push(Arc::clone(&handle));
        if self.is_closing.load(Ordering::Acquire) {
            handle.close(CloseReason::Shutdown);
        }
        handle
    }

    /// Returns how many are connected.
    pub(crate) fn count(&self) -> usize {
        lock(&self.peers).len()
    }

    /// Has an announcement pushed to everybody.
    pub(crate) fn announce(&self, announcement: &Signed) {
        for peer in lock(&self.peers).values() {
            peer.push_announcement(announcement.clone());
        }
    }

    /// Returns a user's connections, by whichever device.
    pub(crate) fn connections(&self, user: &UserId) -> Vec<Arc<PeerHandle>> {
        lock(&self.users).get(user).cloned().unwrap_or_default()
    }

    /// Tells whether a user is here and lets another one, or the operator, see it in open rooms.
    pub(crate) fn is_here(&self, user: &UserId, to: Option<&UserId>) -> bool {
        let users = lock(&self.users);
        users.get(user).is_some_and(|all| all.iter().any(|handle| handle.is_visible_in_rooms(to)))
    }

    /// Returns everybody who is connected.
    pub(crate) fn connected(&self) -> Vec<UserId> {
        lock(&self.users).keys().copied().collect()
    }

    /// Tells users that a room changed.
    pub(crate) fn tell(&self, room: RoomId, users: &[UserId]) {
        let connections = users.iter().flat_map(|user| self.connections(user));
        connections.for_each(|handle| handle.push_room(room));
    }

    /// Removes a connection that ended.
    pub(crate) fn remove(&self, user: &UserId, id: ConnectionId) {
        lock(&self.peers).remove(&id);
        let mut users = lock(&self.users);
        if let Some(handles) = users.get_mut(user) {
            handles.retain(|handle| handle.id != id);
            if handles.is_empty() {
                users.remove(user);
            }
        }
    }

    /// Asks every connection to end.
    pub(crate) fn close_all(&self) {
        self.is_closing.store(true, Ordering::Release);
        for peer in lock(&self.peers).values() {
            peer.close(CloseReason::Shutdown);
        }
    }
}

/// A connection's place in registry and mailbox; given up when dropped.
pub(crate) struct Seat {
    shared: Arc<Shared>,
    pub(crate) handle: Arc<PeerHandle>,
    pub(crate) address: DeviceAddress,
    /// Envelopes that were waiting.
    pub(crate) waiting: Waiting,
}

impl Seat {
    /// Makes a new connection the one of its device.
    pub(crate) fn take(shared: &Arc<Shared>, address: DeviceAddress) -> Self {
        let handle = shared.registry.add(address.user);
        let waiting = shared.mailboxes.attach(&address, &handle);
        Self { shared: Arc::clone(shared), handle, address, waiting }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.mailboxes.detach(&self.address, self.handle.id);
        self.shared.registry.remove(&self.address.user, self.handle.id);
    }
}

/// A `SendMany` on its way to being durable.
///
/// ```text
/// open: results are being collected ──done()──▶ waiting for `left` envelopes ──▶ answered
/// ```
#[derive(Debug)]
pub(crate) struct Ticket {
    left: AtomicUsize,
    failure: OnceLock<StoreError>,
    /// Memory that its envelopes take until they are stored.
    memory: Mutex<Option<Taken>>,
    results: Mutex<Vec<Result<(), ErrorCode>>>,
    sender: Arc<PeerHandle>,
}

impl Ticket {
    /// Makes a ticket that is open until [`Self::settle`] is called once for its maker.
    pub(crate) fn new(sender: Arc<PeerHandle>) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(1),
            failure: OnceLock::new(),
            memory: Mutex::new(None),
            results: Mutex::new(Vec::new()),
            sender,
        })
    }

    /// Keeps memory until the ticket is settled.
    pub(crate) fn hold(&self, memory: Taken) {
        *lock(&self.memory) = Some(memory);
    }

    /// Adds an envelope that the answer waits for.
    pub(crate) fn expect_one(&self) {
        self.left.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that one of what the answer waits for is done.
    pub(crate) fn settle(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            drop(lock(&self.memory).take());
            self.sender.wake();
        }
    }

    /// Notes that an envelope could not be stored.
    pub(crate) fn fail(&self, error: StoreError) {
        let _first = self.failure.set(error);
        self.settle();
    }

    /// Keeps the results for the answer.
    pub(crate) fn set_results(&self, results: Vec<Result<(), ErrorCode>>) {
        *lock(&self.results) = results;
    }

    /// Tells whether the answer may go out.
    pub(crate) fn is_settled(&self) -> bool {
        self.left.load(Ordering::Acquire) == 0
    }

    /// Returns the answer of a settled ticket.
    pub(crate) fn answer(&self) -> Answer {
        if let Some(error) = self.failure.get() {
            return Answer::Failure(internal(*error));
        }
        Answer::SendResults(std::mem::take(&mut *lock(&self.results)))
    }
}
