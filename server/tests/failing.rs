//! A relay whose stores fail, or whose code does: nobody is told that something is stored which may not be,
//! and the relay ends, so that its supervisor looks at it again.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use chatcore::ids::{BlobId, DeviceAddress, Timestamp, UserId};
use chatcore::keys::{PrekeyKind, RelayKey, Signed, UserRecord};
use chatcore::wire::relay::{Answer, BlobShape, ErrorCode, Request, WriteKey};
use server::clock::{Clock, SystemClock};
use server::store::{
    Arrival, Body, Directory, Mailbox, MailboxBatch, PrekeyStatus, Prekeys, Put, Queued,
    StoreError, StoredPrekey, Stores,
};
use server::{Config, Relay, RelayError};
use support::{Device, TestRelay, User, envelope};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Failure from now on: 0 nothing, 1 the disk, 2 the code, 3 for want of space.
static FAULT: AtomicU8 = AtomicU8::new(0);

struct Failing(Box<dyn Mailbox>);

impl Mailbox for Failing {
    fn index(&self) -> Result<Vec<Queued>, StoreError> {
        self.0.index()
    }

    fn bodies(&self, arrivals: &[Arrival]) -> Result<Vec<Option<Body>>, StoreError> {
        self.0.bodies(arrivals)
    }

    fn commit(&self, batch: Arc<MailboxBatch>) -> Result<(), StoreError> {
        match FAULT.load(Ordering::Relaxed) {
            0 => self.0.commit(batch),
            1 => Err(StoreError::Failed),
            3 => Err(StoreError::NoSpace),
            _ => panic!("a fault of the code"),
        }
    }
}

#[tokio::test]
async fn a_relay_ends_with_an_error_when_its_store_fails_or_panics() {
    for fault in 1..=3 {
        FAULT.store(0, Ordering::Relaxed);
        let folder = tempfile::tempdir().unwrap();
        let config = Config::in_folder(folder.path().join("data"));
        let wrap = |mut stores: Stores| {
            stores.mailbox = Box::new(Failing(stores.mailbox));
            stores
        };
        let relay = Relay::open_with(config.clone(), Arc::new(SystemClock), wrap).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (key, token) = (relay.key(), relay.invite_link(address).token);
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let serving = tokio::spawn(relay.serve(vec![listener], async move { drop(stopped.await) }));
        let mut devices = Vec::new();
        let users = [User::new("alice"), User::new("bob")];
        for user in &users {
            let record = user.record.signed().clone();
            let register = Request::Register { token: token.clone(), record };
            devices.push(Device::connect(address, &key, &user.keys.link, register).await.0);
        }
        drop(devices.pop());
        FAULT.store(fault, Ordering::Relaxed);
        let mut alice = devices.pop().unwrap();
        let bob = users[1].address();
        alice.send(Request::SendMany(vec![envelope(bob, 1)])).await;
        if fault == 3 {
            // The first batch finds no space, and the stores are opened again for the next.
            let mut answer = alice.answer(3).await;
            assert_eq!(answer, {
                let retry_after_ms = 60_000;
                let code = ErrorCode::DiskFull;
                Answer::Failure(chatcore::wire::relay::Failure { code, limit: 0, retry_after_ms })
            });
            answer = alice.request(Request::SendMany(vec![envelope(bob, 2)])).await;
            assert_eq!(answer, Answer::SendResults(vec![Ok(())]));
            stop.send(()).unwrap();
            assert!(serving.await.unwrap().is_ok());
            continue;
        }
        let ended = tokio::time::timeout(std::time::Duration::from_secs(10), serving).await;
        let error = ended.expect("the relay goes on").unwrap().unwrap_err();
        assert_eq!(error.exit_code(), 7);
        assert!(matches!(error, RelayError::Store { source: StoreError::Failed, .. }), "{error}");
        // The folder is free, and what was not stored is not there.
        FAULT.store(0, Ordering::Relaxed);
        let again = Relay::open(config).unwrap();
        assert!(
            again
                .operator()
                .run(&server::operator::Command::Stats)
                .unwrap()
                .text
                .contains("waiting 0")
        );
    }
}

/// Starts a relay with stores that fail somewhere, and registers somebody; the relay's end is awaited.
async fn serve(
    config: &Config,
    wrap: impl FnOnce(Stores) -> Stores,
    user: &User,
) -> (Device, RelayKey, JoinHandle<Result<(), RelayError>>) {
    let relay = Relay::open_with(config.clone(), Arc::new(SystemClock), wrap).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (key, token) = (relay.key(), relay.invite_link(address).token);
    let serving = tokio::spawn(relay.serve(vec![listener], std::future::pending()));
    let register = Request::Register { token, record: user.record.signed().clone() };
    let (device, _) = Device::connect(address, &key, &user.keys.link, register).await;
    (device, key, serving)
}

/// A directory in which no account can be closed.
struct Unclosable(Box<dyn Directory>);

impl Directory for Unclosable {
    fn device(&self, link_key: &[u8; 32]) -> Result<Option<DeviceAddress>, StoreError> {
        self.0.device(link_key)
    }

    fn has_device(&self, device: &DeviceAddress) -> Result<bool, StoreError> {
        self.0.has_device(device)
    }

    fn newest(&self, user: &UserId) -> Result<Option<Signed>, StoreError> {
        self.0.newest(user)
    }

    fn version(&self, user: &UserId) -> Result<Option<u64>, StoreError> {
        self.0.version(user)
    }

    fn records(&self, user: &UserId, after: u64, max: usize) -> Result<Vec<Signed>, StoreError> {
        self.0.records(user, after, max)
    }

    fn owner(&self, folded: &str) -> Result<Option<UserId>, StoreError> {
        self.0.owner(folded)
    }

    fn names(&self, max: usize) -> Result<Vec<(String, UserId)>, StoreError> {
        self.0.names(max)
    }

    fn release(&self, folded: &str) -> Result<bool, StoreError> {
        self.0.release(folded)
    }

    fn put(
        &self,
        record: &UserRecord,
        proven: &[u8; 32],
        now: Timestamp,
    ) -> Result<Put, StoreError> {
        if record.devices().is_empty() {
            return Err(StoreError::Failed);
        }
        self.0.put(record, proven, now)
    }
}

#[tokio::test]
async fn closing_an_account_can_be_repeated_when_the_relay_ends_in_between() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let config = Config::in_folder(&data);
    let wrap = |mut stores: Stores| {
        stores.directory = Box::new(Unclosable(stores.directory));
        stores
    };
    let alice = User::new("alice");
    let (mut device, _, serving) = serve(&config, wrap, &alice).await;
    let shape = BlobShape { chunk_size: 65_568, chunk_count: 1 };
    let (blob, write_key) = (BlobId::from_bytes([1; 16]), WriteKey([2; 32]));
    device.request(Request::CreateBlob { blob, write_key: write_key.clone(), shape }).await;
    let chunk = vec![7; 65_568].into();
    device.request(Request::PutChunk { blob, write_key: write_key.clone(), index: 0, chunk }).await;
    let done = device.request(Request::CompleteBlob { blob, write_key }).await;
    assert_eq!(done, Answer::Done);
    let closed = alice.next("alice", vec![]);
    let close = Request::CloseAccount(closed.signed().clone());
    device.send(close.clone()).await;
    assert!(serving.await.unwrap().is_err(), "the store failed");
    // What was theirs is gone, and the device comes in to ask once more.
    let relay = TestRelay::start(config).await;
    assert_eq!(std::fs::read_dir(data.join("blobs")).unwrap().count(), 0);
    let mut device = relay.login(&alice).await;
    assert_eq!(device.request(close).await, Answer::Done);
    let (_, answer) = relay.try_login(&alice).await;
    assert_eq!(answer, Answer::Failure(ErrorCode::NotRegistered.into()));
}

/// Prekeys that can't be deleted.
struct Undeletable(Box<dyn Prekeys>);

impl Prekeys for Undeletable {
    fn status(&self, device: &DeviceAddress, now: Timestamp) -> Result<PrekeyStatus, StoreError> {
        self.0.status(device, now)
    }

    fn upload(
        &self,
        device: &DeviceAddress,
        prekeys: &[StoredPrekey],
        now: Timestamp,
    ) -> Result<PrekeyStatus, StoreError> {
        self.0.upload(device, prekeys, now)
    }

    fn claim(
        &self,
        devices: &[DeviceAddress],
        now: Timestamp,
    ) -> Result<Vec<Option<Signed>>, StoreError> {
        self.0.claim(devices, now)
    }

    fn retain(&self, _: &DeviceAddress, _: Option<&[u8; 32]>) -> Result<(), StoreError> {
        Err(StoreError::Failed)
    }
}

/// The record was stored, and the relay ended before it forgot what the record leaves out: that is made
/// good when the device, which had no answer, says the same again.
#[tokio::test]
async fn a_record_that_is_repeated_ends_what_it_leaves_out() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let config = Config::in_folder(&data);
    let wrap = |mut stores: Stores| {
        stores.prekeys = Box::new(Undeletable(stores.prekeys));
        stores
    };
    let alice = User::new("alice");
    let (mut device, key, serving) = serve(&config, wrap, &alice).await;
    let upload = Request::UploadPrekeys(vec![alice.prekey(&key, 1, PrekeyKind::OneTime)]);
    assert!(matches!(device.request(upload).await, Answer::PrekeyStatus { .. }));
    // A certificate of today for the same keys: what was signed under the old one is of no use.
    let cert = alice.keys.certify(&alice.identity, SystemClock.now().plus(1));
    let update = Request::UpdateRecord(alice.next("alice", vec![cert]).signed().clone());
    device.send(update.clone()).await;
    assert!(serving.await.unwrap().is_err(), "the store failed");
    let relay = TestRelay::start(config).await;
    let left = |(_, answer): (Device, Answer)| match answer {
        Answer::LoggedIn(logged_in) => logged_in.one_time_prekeys,
        answer => panic!("{answer:?}"),
    };
    assert_eq!(left(relay.try_login(&alice).await), 1);
    let mut device = relay.login(&alice).await;
    assert_eq!(device.request(update).await, Answer::Done);
    assert_eq!(left(relay.try_login(&alice).await), 0);
}
