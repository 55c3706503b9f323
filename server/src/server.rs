//! The relay as a whole: opening its folder, accepting connections, stopping.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::Poll;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use chatcore::ids::{DeviceAddress, InviteToken, LogHash, LogId, RoomId, Timestamp, UserId};
use chatcore::invite::InviteLink;
use chatcore::keys::{Nickname, RelayKey, Signed};
use chatcore::membership::LogHead;
use rand::RngExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio::task::JoinSet;

use crate::backup::{SUMS_FILE, forget_partial};
use crate::clock::{CarefulClock, Clock, SystemClock};
use crate::config::{Config, Registration, Storage};
#[cfg(unix)]
use crate::control::Control;
use crate::error::RelayError;
use crate::half_open::HalfOpenTable;
use crate::health::LastLook;
use crate::identity::Identity;
use crate::limits::{Limits, Live, Rate, RateTable, address_key};
use crate::lock::lock;
use crate::login;
use crate::mailboxes::Mailboxes;
use crate::memory::Memory;
use crate::metrics::Metrics;
use crate::open_files;
use crate::operator::Operator;
use crate::registry::Registry;
use crate::rights::RightsTable;
use crate::rooms::Rooms;
use crate::seen::{Seen, retire_members};
use crate::store::{
    Epoch, FreeSpace, Health, MailboxBatch, Queued, Recovering, Reopen, StoreError, Stores,
    disk_of, guard,
};
use crate::turns::Turns;

/// Time between sweeps of what is over its time.
const SWEEP_EVERY: Duration = Duration::from_secs(3_600);
/// Time between checkpoints of incomplete uploads and of who came.
const CHECKPOINT_EVERY: Duration = Duration::from_secs(30);
/// Most clients that are told at a time that they are to come again.
const MAX_REFUSALS: usize = 64;
/// Lines of the log about what one user breaks.
const COMPLAINTS: Rate = Rate { burst: 3, interval_us: 600 * 1_000_000 };
/// Pause when the system has no more sockets.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// As fast as they come; nobody counts.
const NO_RATE: Rate = Rate { burst: u32::MAX, interval_us: 1 };
/// Bytes of a user's files that a relay without a disk keeps.
const EPHEMERAL_PER_USER: u64 = 1 << 30;
/// How long reading all that is kept may take at the end.
const SEALING: Duration = Duration::from_secs(60);
/// Newcomers that whoever hosts was not told of yet; of more the first are not told.
const MAX_NEWCOMERS: usize = 64;
/// Name of the file that keeps a second relay out.
pub(crate) const LOCK_FILE: &str = "lock";

/// State that all connections share.
pub(crate) struct Shared {
    pub(crate) identity: Identity,
    registration: Live<Registration>,
    limits: Arc<Live<Limits>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stores: Arc<Stores>,
    pub(crate) health: Arc<Health>,
    pub(crate) mailboxes: Arc<Mailboxes>,
    pub(crate) registry: Registry,
    pub(crate) stopping: watch::Sender<bool>,
    /// The operator wants the relay to stop.
    pub(crate) quit: Notify,
    /// Tells whoever hosts who is new.
    pub(crate) newcomers: broadcast::Sender<Nickname>,
    pub(crate) handshakes: RateTable<u64>,
    pub(crate) half_open: Arc<HalfOpenTable>,
    pub(crate) sends: RateTable<UserId>,
    pub(crate) logins: RateTable<UserId>,
    pub(crate) complaints: RateTable<UserId>,
    pub(crate) verifications: RateTable<UserId>,
    pub(crate) claims: RateTable<(UserId, DeviceAddress)>,
    pub(crate) claims_in_all: RateTable<UserId>,
    pub(crate) record_updates: RateTable<UserId>,
    pub(crate) room_acts: RateTable<UserId>,
    pub(crate) lists: RateTable<UserId>,
    pub(crate) prekey_uploads: RateTable<UserId>,
    pub(crate) register_appends: RateTable<UserId>,
    pub(crate) memory: Memory,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) last_look: LastLook,
    /// Places for those who are told that the relay takes no more of them now.
    refusals: Arc<Semaphore>,
    pub(crate) turns: Turns,
    pub(crate) seen: Seen,
    /// New accounts by one link, by the hash of its token.
    pub(crate) invited: RateTable<[u8; 32]>,
    pub(crate) rooms: Rooms,
    pub(crate) rights: RightsTable,
    /// How often the relay was set back to a backup.
    epoch: Mutex<Epoch>,
    /// Held while a higher one is stored.
    raising: Mutex<()>,
    /// Held while an announcement gets its number.
    pub(crate) announcing: Mutex<()>,
    /// Host and port that links say, once the relay listens.
    address: Live<Option<(String, u16)>>,
    /// Where it listens.
    listening: OnceLock<SocketAddr>,
    storage: Storage,
}

impl Shared {
    /// Returns every limit, as it is now.
    pub(crate) fn limits(&self) -> Arc<Limits> {
        self.limits.get()
    }

    /// Returns who may register now.
    pub(crate) fn registration(&self) -> Registration {
        *self.registration.get()
    }

    /// Has other settings hold from now on: who may register, limits, the address in links. The others are those of the
    /// start.
    pub(crate) fn reconfigure(&self, config: Config) {
        let limits = bounded(config.limits, &self.storage);
        self.handshakes.set_rate(limits.handshakes);
        self.sends.set_rate(limits.sends);
        self.invited.set_rate(limits.invites.unwrap_or(NO_RATE));
        self.half_open.set_most(limits.connections);
        self.limits.set(limits);
        self.registration.set(config.registration);
        if let Some(listening) = self.listening.get() {
            self.address.set(Some(in_links(config.public_address.as_ref(), *listening)));
        }
    }

    /// Returns the data folder, for messages.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.storage.folder()
    }

    /// Returns the data folder, if there is one.
    pub(crate) fn folder_on_disk(&self) -> Option<&std::path::Path> {
        match &self.storage {
            Storage::Memory => None,
            Storage::Folder(folder) => Some(folder.as_path()),
        }
    }

    /// Returns the room that a user comes into.
    pub(crate) fn lobby_for(&self, user: &UserId) -> Option<RoomId> {
        let (store, keys) = (&*self.stores.open_rooms, &self.identity.keys);
        self.rooms.lobby_for(store, keys, user, self.clock.now())
    }

    /// Signs what a log comes to; everything up to there is stored durably.
    pub(crate) fn sign_head(&self, log: LogId, (length, hash): (u64, LogHash)) -> Signed {
        let (epoch, at) = (lock(&self.epoch).number, self.clock.now());
        LogHead { log, epoch, length, hash, at }.sign(&self.identity.keys)
    }

    /// Returns what holds up new entries in logs that may have lost some.
    pub(crate) fn recovering(&self) -> Recovering {
        let began = lock(&self.epoch).began;
        let healing = self.limits().recovery;
        let rest = healing.checked_sub(self.clock.latest().since(began)).filter(|rest| *rest > 0);
        let set_back = rest.filter(|_| began != Timestamp(0) && began <= self.clock.latest());
        Recovering { set_back, healing }
    }

    /// A device shows a head. One of a later epoch, or of this one before it began, says that the relay
    /// was set back without being told: a new epoch begins, and what is lost is waited for.
    pub(crate) fn shown_head(&self, head: &Signed) {
        let Ok(head) = LogHead::verify(head, &self.identity.keys.public()) else { return };
        let _raising = lock(&self.raising);
        let epoch = *lock(&self.epoch);
        let is_known =
            head.epoch < epoch.number || (head.epoch == epoch.number && head.at >= epoch.began);
        if is_known || head.epoch == u64::MAX {
            return;
        }
        let next = Epoch { number: head.epoch + 1, began: self.clock.latest() };
        match self.stores.registers.set_epoch(next) {
            Ok(()) => {
                tracing::warn!(
                    epoch = next.number,
                    "a device has seen newer rooms than this relay has: its data folder was set back; \
                     changes of rooms wait until devices have brought back what is missing"
                );
                *lock(&self.epoch) = next;
            }
            Err(error) => tracing::error!(%error, "the relay's epoch could not be stored"),
        }
    }

    /// Returns an invite link with a token; `None` before the relay listens.
    pub(crate) fn link(&self, token: Option<InviteToken>) -> Option<InviteLink> {
        let (host, port) = self.address.get().as_ref().clone()?;
        let relay = self.identity.keys.public();
        let has_token = self.registration() == Registration::Invite;
        Some(InviteLink { host, port, relay, token: token.filter(|_| has_token) })
    }
}

/// A relay whose stores are open.
pub struct Relay {
    shared: Arc<Shared>,
    public_address: Option<(String, u16)>,
    committer: Option<JoinHandle<()>>,
    /// Released last.
    _lock: Option<File>,
}

impl Relay {
    /// Opens the relay's stores; makes key, token and stores in a new data folder.
    ///
    /// # Errors
    /// [`RelayError`]; a damaged, newer or used data folder is left as it is.
    pub fn open(config: Config) -> Result<Self, RelayError> {
        Self::open_with_clock(config, Arc::new(SystemClock))
    }

    /// The same with another clock.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with_clock(config: Config, clock: Arc<dyn Clock>) -> Result<Self, RelayError> {
        Self::open_with(config, clock, |stores| stores)
    }

    /// The same with what is wrapped around the stores: other engines, measurements, failures.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(
        config: Config,
        clock: Arc<dyn Clock>,
        wrap: impl FnOnce(Stores) -> Stores,
    ) -> Result<Self, RelayError> {
        let limits = bounded(config.limits, &config.storage);
        let (lock, identity, stores) = match &config.storage {
            Storage::Memory => (None, Identity::generate(), Stores::in_memory()),
            Storage::Folder(folder) => {
                let lock = lock_folder(folder)?;
                if folder.join(SUMS_FILE).exists() {
                    return Err(RelayError::IsBackup { path: folder.clone() });
                }
                forget_partial(folder);
                // Before the stores: a used folder without a key is one that lost it.
                let identity = Identity::load(folder)?;
                let stores = Stores::open(folder).map_err(|source| store_error(folder, source))?;
                (Some(lock), identity, stores)
            }
        };
        let folder = config.storage.folder();
        let (free, reopen): (FreeSpace, Reopen) = match &config.storage {
            Storage::Memory => (Box::new(|| None), Box::new(|| Err(StoreError::Failed))),
            Storage::Folder(folder) => {
                let of = folder.clone();
                (disk_of(folder), Box::new(move || Stores::open(&of)))
            }
        };
        let (stores, health) = guard(wrap(stores), folder, free, reopen);
        let stored = queued(&stores).map_err(|e| store_error(folder, e))?;
        let last = stores.retention.last_time().map_err(|e| store_error(folder, e))?;
        let clock: Arc<dyn Clock> = Arc::new(CarefulClock::new(clock, last, config.clock));
        let (store, now) = (&*stores.open_rooms, clock.now());
        let most = (limits.members, limits.event_bytes_per_user);
        let rooms =
            Rooms::open(store, &identity.keys, now, most).map_err(|e| store_error(folder, e))?;
        let rights = RightsTable::load(&*stores.privileges).map_err(|e| store_error(folder, e))?;
        let epoch = stores.registers.epoch().map_err(|e| store_error(folder, e))?;
        let seen = Seen::load(&*stores.open_rooms).map_err(|e| store_error(folder, e))?;
        let live = Arc::new(Live::new(limits.clone()));
        let mailboxes = Mailboxes::new(rand::rng().random(), &stored, Arc::clone(&live));
        let shared = Arc::new_cyclic(|this| Shared {
            metrics: Arc::new(Metrics::new(Weak::clone(this))),
            last_look: LastLook::default(),
            identity,
            registration: Live::new(config.registration),
            clock,
            stores: Arc::new(stores),
            health,
            mailboxes: Arc::new(mailboxes),
            registry: Registry::default(),
            stopping: watch::Sender::new(false),
            quit: Notify::new(),
            newcomers: broadcast::Sender::new(MAX_NEWCOMERS),
            handshakes: RateTable::new(limits.handshakes),
            half_open: Arc::new(HalfOpenTable::new(limits.connections)),
            sends: RateTable::new(limits.sends),
            logins: RateTable::new(limits.logins),
            complaints: RateTable::new(COMPLAINTS),
            verifications: RateTable::new(limits.verifications),
            claims: RateTable::new(limits.claims),
            claims_in_all: RateTable::new(limits.claims_in_all),
            record_updates: RateTable::new(limits.record_updates),
            room_acts: RateTable::new(limits.room_acts),
            lists: RateTable::new(limits.lists),
            prekey_uploads: RateTable::new(limits.prekey_uploads),
            register_appends: RateTable::new(limits.register_appends),
            memory: Memory::new(),
            refusals: Arc::new(Semaphore::new(MAX_REFUSALS)),
            turns: Turns::default(),
            seen,
            invited: RateTable::new(limits.invites.unwrap_or(NO_RATE)),
            rooms,
            rights,
            epoch: Mutex::new(epoch),
            raising: Mutex::new(()),
            announcing: Mutex::new(()),
            address: Live::new(None),
            listening: OnceLock::new(),
            storage: config.storage,
            limits: live,
        });
        let committer = spawn_committer(&shared).map_err(RelayError::System)?;
        Ok(Self {
            shared,
            public_address: config.public_address,
            committer: Some(committer),
            _lock: lock,
        })
    }

    /// Returns the relay's public key.
    #[must_use]
    pub fn key(&self) -> RelayKey {
        self.shared.identity.keys.public()
    }

    /// Returns what carries out the operator's commands.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator::new(Arc::downgrade(&self.shared))
    }

    /// Returns the nicknames of who registers from now on, for whoever hosts it to be told; a receiver that is slow misses
    /// some.
    #[must_use]
    pub fn newcomers(&self) -> broadcast::Receiver<Nickname> {
        self.shared.newcomers.subscribe()
    }

    /// Returns the link that people join with, for a relay that listens on `address`. It says the
    /// public address, if there is one, with the port of `address` where that says 0.
    #[must_use]
    pub fn invite_link(&self, address: SocketAddr) -> InviteLink {
        let listening = *self.shared.listening.get_or_init(|| address);
        let (host, port) = in_links(self.public_address.as_ref(), listening);
        self.shared.address.set(Some((host.clone(), port)));
        let has_token = self.shared.registration() == Registration::Invite;
        let token = has_token.then(|| self.shared.identity.token());
        InviteLink { host, port, relay: self.key(), token }
    }

    /// Serves until `shutdown` ends or the operator quits: then stops accepting, finishes what must be durable, tells the
    /// devices, and leaves. The data folder is free afterwards.
    ///
    /// # Errors
    /// [`RelayError`] when what was accepted could not be stored at the end.
    pub async fn serve(
        self,
        listeners: Vec<TcpListener>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<(), RelayError> {
        let (mut connections, mut turn) = (JoinSet::new(), 0_usize);
        self.spawn_work(sweep_all);
        let in_a_while = tokio::time::Instant::now() + SWEEP_EVERY;
        let mut sweep = tokio::time::interval_at(in_a_while, SWEEP_EVERY);
        let mut checkpoint = tokio::time::interval(CHECKPOINT_EVERY);
        tokio::pin!(shutdown);
        let control = self.control();
        tokio::pin!(control);
        loop {
            let has_room = connections.len() < self.shared.limits().connections as usize;
            tokio::select! {
                () = &mut shutdown => break,
                () = self.shared.health.failed() => break,
                () = self.shared.quit.notified() => break,
                () = &mut control => {}
                accepted = accept(&listeners, turn), if has_room => match accepted {
                    Ok((stream, from)) => {
                        turn = turn.wrapping_add(1);
                        self.admit(&mut connections, stream, from);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a connection could not be accepted");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                _ = connections.join_next(), if !connections.is_empty() => {}
                _ = sweep.tick() => self.spawn_work(sweep_all),
                _ = checkpoint.tick() => self.spawn_work(checkpoint_all),
            }
        }
        drop(listeners);
        let (health, folder) = (Arc::clone(&self.shared.health), self.shared.folder().to_owned());
        self.stop(connections).await;
        // Also what failed only at the end.
        if health.has_failed() {
            return Err(RelayError::Store { folder, source: StoreError::Failed });
        }
        Ok(())
    }

    /// Serves the control socket for ever.
    #[cfg(unix)]
    fn control(&self) -> impl Future<Output = ()> + use<> {
        let operator = self.operator();
        let control = match &self.shared.storage {
            Storage::Memory => None,
            Storage::Folder(folder) => Control::open(folder)
                .inspect_err(|error| tracing::warn!(%error, "no control socket"))
                .ok(),
        };
        async move {
            match control {
                Some(control) => control.serve(&operator).await,
                None => std::future::pending().await,
            }
        }
    }

    #[cfg(not(unix))]
    fn control(&self) -> impl Future<Output = ()> + use<> {
        std::future::pending()
    }

    fn admit(&self, connections: &mut JoinSet<()>, stream: TcpStream, from: SocketAddr) {
        let shared = &self.shared;
        shared.metrics.connections.inc();
        let address = address_key(from.ip());
        // What is under way counts as if it had failed already: silent ones cost no token yet.
        let most = shared.handshakes.available(&address, shared.clock.uptime());
        let Some(half_open) = shared.half_open.enter(address, most) else {
            tracing::debug!("an address made too many attempts");
            shared.metrics.refused_connection("busy");
            self.refuse(connections, stream);
            return;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended at once");
            return;
        }
        connections.spawn(login::serve(Arc::clone(shared), stream, from.ip(), half_open));
    }

    /// Tells a client that it is to come again, if not too many are told already.
    fn refuse(&self, connections: &mut JoinSet<()>, stream: TcpStream) {
        if let Ok(place) = Arc::clone(&self.shared.refusals).try_acquire_owned() {
            connections.spawn(async move {
                login::say_busy(stream).await;
                drop(place);
            });
        }
    }

    fn spawn_work(&self, work: impl FnOnce(&Shared) + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || work(&shared));
    }

    /// Ends what is under way; takes no longer than the time for it, whatever the disk does.
    async fn stop(mut self, mut connections: JoinSet<()>) {
        let drain_time = self.shared.limits().drain_time;
        let until = tokio::time::Instant::now() + drain_time;
        self.shared.stopping.send_replace(true);
        self.shared.registry.close_all();
        if !self.shared.health.has_failed() {
            let drained = async { while connections.join_next().await.is_some() {} };
            let some_of_it = tokio::time::Instant::now() + drain_time.mul_f32(0.7);
            if tokio::time::timeout_at(some_of_it, drained).await.is_err() {
                tracing::warn!("connections did not end in time and were cut");
            }
        }
        connections.shutdown().await;
        // Blocking jobs of cut connections hold the stores a moment longer. The committer holds
        // its own references.
        let rest = until - drain_time.mul_f32(0.2);
        while Arc::strong_count(&self.shared) > 1 && tokio::time::Instant::now() < rest {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        let work = tokio::task::spawn_blocking(move || {
            checkpoint_all(&self.shared);
            let _ = self.shared.stores.retention.note_time(self.shared.clock.note());
            self.stop_committer();
            self
        });
        let Ok(stopped) = tokio::time::timeout_at(until, work).await else {
            tracing::warn!("the disk does not answer: the relay ends without waiting for it");
            return;
        };
        // All is durable. What is kept is read once more, so that damage of it does not go unnoticed.
        let sealing = tokio::task::spawn_blocking(move || drop(stopped));
        if tokio::time::timeout(SEALING, sealing).await.is_err() {
            tracing::warn!(
                "the stores were not sealed in time: damage of their files may go unnoticed"
            );
        }
    }

    fn stop_committer(&mut self) {
        self.shared.mailboxes.committer().stop();
        if let Some(thread) = self.committer.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop_committer();
    }
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Relay({:?})", self.key())
    }
}

/// Takes the next connection of whichever address; `turn` is where it begins to look, so that none waits behind another.
async fn accept(listeners: &[TcpListener], turn: usize) -> io::Result<(TcpStream, SocketAddr)> {
    poll_fn(|context| {
        let (behind, first) = listeners.split_at(turn % listeners.len().max(1));
        let in_turn = first.iter().chain(behind);
        let mut accepted = in_turn.map(|listener| listener.poll_accept(context));
        accepted.find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

/// Returns limits that the system and the storage allow.
fn bounded(mut limits: Limits, storage: &Storage) -> Limits {
    if let Some(most) = open_files::connections()
        && most < u64::from(limits.connections)
    {
        tracing::debug!(most, "the system allows fewer open files than connections are wanted");
        limits.connections = u32::try_from(most).unwrap_or(u32::MAX);
    }
    if *storage == Storage::Memory {
        limits.stored_per_user = limits.stored_per_user.min(EPHEMERAL_PER_USER);
    }
    limits
}

/// Returns host and port that links say, for a relay that listens on `address`.
fn in_links(public: Option<&(String, u16)>, address: SocketAddr) -> (String, u16) {
    match public {
        Some((host, 0)) => (host.clone(), address.port()),
        Some((host, port)) => (host.clone(), *port),
        None => (address.ip().to_string(), address.port()),
    }
}

/// Returns what is queued, without what is for devices that were removed just before a crash. A
/// user who is not known at all may come back with a directory that was lost.
fn queued(stores: &Stores) -> Result<Vec<Queued>, StoreError> {
    let mut stored = stores.mailbox.index()?;
    let mut keeps = HashMap::new();
    for to in stored.iter().map(|queued| queued.to) {
        if let Entry::Vacant(entry) = keeps.entry(to) {
            let is_removed = stores.directory.version(&to.user)?.is_some()
                && !stores.directory.has_device(&to)?;
            entry.insert(!is_removed);
        }
    }
    let (kept, removed): (Vec<_>, Vec<_>) =
        stored.drain(..).partition(|queued| keeps.get(&queued.to) != Some(&false));
    if !removed.is_empty() {
        let removed = removed.iter().map(|queued| queued.arrival).collect();
        stores.mailbox.commit(Arc::new(MailboxBatch { appended: Vec::new(), removed }))?;
    }
    Ok(kept)
}

fn sweep_all(shared: &Shared) {
    let now = shared.clock.now();
    shared.mailboxes.sweep(now);
    let oldest = Timestamp(now.0.saturating_sub(shared.limits().blob_life));
    let since = |life| Timestamp(now.0.saturating_sub(life));
    // Said in the log; the next sweep tries again.
    let _ = shared.stores.retention.note_time(shared.clock.note());
    let _ = shared.stores.retention.sweep(now, oldest);
    let _ = shared.stores.registers.sweep(since(shared.limits().register_life));
    let _ = shared.stores.announcements.sweep(since(shared.limits().announcement_life));
    let _ = retire_members(shared);
}

/// Stores what need not be stored at once.
fn checkpoint_all(shared: &Shared) {
    // Said in the log; the next one tries again.
    let _ = shared.stores.blobs.checkpoint();
    let _ = shared.seen.store(&*shared.stores.open_rooms, shared.clock.now());
}

/// Starts the thread that stores envelopes.
fn spawn_committer(shared: &Shared) -> io::Result<JoinHandle<()>> {
    let (stores, mailboxes) = (Arc::clone(&shared.stores), Arc::clone(&shared.mailboxes));
    let metrics = Arc::clone(&shared.metrics);
    let run = move || {
        let committer = mailboxes.committer();
        while let Some(batch) = committer.next_batch() {
            let began = Instant::now();
            let stored = stores.mailbox.commit(Arc::clone(&batch.changes));
            metrics.committed(batch.changes.appended.len(), began.elapsed());
            if stored.is_err() {
                mailboxes.discard(&batch);
            }
            // What makes room goes on when nothing more is taken in.
            let is_alone = batch.changes.appended.is_empty();
            let removed = match stored {
                Err(StoreError::NoSpace) if !is_alone => {
                    stores.mailbox.commit(Arc::new(batch.changes.removals()))
                }
                stored => stored,
            };
            committer.finish(batch, stored, removed);
        }
    };
    let thread = std::thread::Builder::new().name("committer".to_owned());
    thread.spawn(run)
}

/// Makes the data folder, private to its user, and keeps other relays out of it.
pub(crate) fn lock_folder(folder: &std::path::Path) -> Result<File, RelayError> {
    let file_error = |source| RelayError::File { path: folder.to_owned(), source };
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(file_error)?;
    keep_private(folder).map_err(file_error)?;
    let mut options = File::options();
    options.write(true).create(true).truncate(false);
    let lock = options.open(folder.join(LOCK_FILE)).map_err(file_error)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(std::fs::TryLockError::WouldBlock) => Err(store_error(folder, StoreError::Locked)),
        Err(std::fs::TryLockError::Error(source)) => Err(file_error(source)),
    }
}

/// Keeps others out of an empty folder that was there before. One with anything in it may not be ours
/// alone: it is left as it is, and said.
fn keep_private(folder: &std::path::Path) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mut permissions = std::fs::metadata(folder)?.permissions();
        let is_open = permissions.mode() & 0o077 != 0;
        if is_open && std::fs::read_dir(folder)?.next().is_none() {
            permissions.set_mode(0o700);
            std::fs::set_permissions(folder, permissions)?;
        } else if is_open {
            tracing::warn!("others can enter the data folder; better: chmod 700");
        }
    }
    #[cfg(not(unix))]
    let _ = folder;
    Ok(())
}

pub(crate) fn store_error(folder: &std::path::Path, source: StoreError) -> RelayError {
    RelayError::Store { folder: folder.to_owned(), source }
}
