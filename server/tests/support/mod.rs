//! A relay on a free port, and a device that speaks to it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

pub mod process;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chatcore::agreement::publish_prekey;
use chatcore::crypto::DhSecret;
use chatcore::ids::{
    DeliveryTag, DeviceAddress, DeviceId, IdempotencyKey, InviteToken, PrekeyId, Timestamp,
};
use chatcore::keys::{
    DeviceCert, DeviceKeys, IdentityKeyPair, Nickname, PrekeyKind, PrekeySecret, RelayKey, Signed,
    UserRecord,
};
use chatcore::noise::transport::{frame_record, split_record};
use chatcore::noise::{ClientHandshake, Transport};
use chatcore::wire::envelope::{Envelope, EnvelopeKind};
use chatcore::wire::relay::{
    Answer, CloseReason, Delivery, DeviceFrame, ErrorCode, LoggedIn, MailQueue, RelayFrame, Request,
};
use server::clock::{Clock, SystemClock, Uptime};
use server::operator::{Command, Operator};
use server::store::Stores;
use server::{Config, Relay, RelayError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// A clock that moves only when told.
pub struct ManualClock {
    shown: AtomicU64,
    uptime: AtomicU64,
}

impl ManualClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self { shown: AtomicU64::new(SystemClock.now().0), uptime: AtomicU64::new(0) })
    }

    pub fn advance(&self, millis: u64) {
        self.shown.fetch_add(millis, Ordering::Relaxed);
        self.uptime.fetch_add(millis, Ordering::Relaxed);
    }

    /// Somebody sets the clock; no time passes.
    pub fn set(&self, to: Timestamp) {
        self.shown.store(to.0, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        Timestamp(self.shown.load(Ordering::Relaxed))
    }

    fn uptime(&self) -> Uptime {
        Uptime(self.uptime.load(Ordering::Relaxed))
    }
}

/// A running relay.
pub struct TestRelay {
    pub address: SocketAddr,
    pub key: RelayKey,
    pub token: Option<InviteToken>,
    operator: Operator,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
}

impl TestRelay {
    pub async fn start(config: Config) -> Self {
        Self::start_with_clock(config, Arc::new(SystemClock)).await
    }

    pub async fn start_with_clock(config: Config, clock: Arc<dyn Clock>) -> Self {
        Self::start_with(config, clock, |stores| stores).await
    }

    pub async fn start_with(
        config: Config,
        clock: Arc<dyn Clock>,
        wrap: impl FnOnce(Stores) -> Stores,
    ) -> Self {
        let relay = Relay::open_with(config, clock, wrap).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        let (key, token) = (relay.key(), relay.invite_link(address).token);
        let operator = relay.operator();
        let serving = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            relay.serve(vec![listener], shutdown).await.unwrap();
        });
        Self { address, key, token, operator, stop, serving }
    }

    /// Gives it a command of its operator's.
    pub fn operator(&self, line: &str) -> Result<String, RelayError> {
        self.operator.run(&Command::parse(line).unwrap()).map(|said| said.text)
    }

    /// Stops it; its data folder is free afterwards.
    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.serving.await.unwrap();
    }

    /// Registers a new user and stays connected.
    pub async fn join(&self, nick: &str) -> (User, Device) {
        let user = User::new(nick);
        let (device, answer) = self.register(&user).await;
        assert!(matches!(answer, Answer::LoggedIn(_)), "{answer:?}");
        (user, device)
    }

    pub async fn register(&self, user: &User) -> (Device, Answer) {
        let record = user.record.signed().clone();
        let token = self.token.clone();
        let register = Request::Register { token, record };
        Device::connect(self.address, &self.key, &user.keys.link, register).await
    }

    pub async fn login(&self, user: &User) -> Device {
        let (device, answer) = self.try_login(user).await;
        assert!(matches!(answer, Answer::LoggedIn(_)), "{answer:?}");
        device
    }

    pub async fn try_login(&self, user: &User) -> (Device, Answer) {
        Device::connect(
            self.address,
            &self.key,
            &user.keys.link,
            Request::Login { newest_head: None },
        )
        .await
    }
}

/// A user with one device.
pub struct User {
    pub identity: IdentityKeyPair,
    pub keys: DeviceKeys,
    pub cert: DeviceCert,
    pub record: UserRecord,
}

impl User {
    pub fn new(nick: &str) -> Self {
        let rng = &mut rand::rng();
        let identity = IdentityKeyPair::generate(rng);
        let keys = DeviceKeys::generate(DeviceId::FIRST, rng);
        let cert = keys.certify(&identity, SystemClock.now());
        let nick = Nickname::new(nick).unwrap();
        let record = UserRecord::first(&identity, nick, cert.clone());
        Self { identity, keys, cert, record }
    }

    pub fn address(&self) -> DeviceAddress {
        DeviceAddress { user: self.record.user_id(), device: self.keys.id }
    }

    /// Returns the record that follows, with another nickname and devices.
    pub fn next(&self, nick: &str, devices: Vec<DeviceCert>) -> UserRecord {
        self.record.next(&self.identity, Nickname::new(nick).unwrap(), devices)
    }

    pub fn prekey(&self, relay: &RelayKey, id: u64, kind: PrekeyKind) -> Signed {
        let rng = &mut rand::rng();
        let now = SystemClock.now();
        let secret = PrekeySecret::generate(PrekeyId(id), kind, &self.cert, now, rng);
        let record = publish_prekey(relay, self.address(), &self.keys, &self.cert, &secret);
        record.unwrap().signed().clone()
    }
}

/// The device's end of a connection.
pub struct Device {
    pub stream: TcpStream,
    transport: Transport,
    buffer: Vec<u8>,
    next_id: u64,
    arrived: VecDeque<RelayFrame>,
}

impl Device {
    pub async fn connect(
        address: SocketAddr,
        relay: &RelayKey,
        link: &DhSecret,
        first: Request,
    ) -> (Self, Answer) {
        let stream = TcpStream::connect(address).await.unwrap();
        Self::over(stream, relay, link, first).await
    }

    /// The same over a connection that is there.
    pub async fn over(
        mut stream: TcpStream,
        relay: &RelayKey,
        link: &DhSecret,
        first: Request,
    ) -> (Self, Answer) {
        stream.set_nodelay(true).unwrap();
        let (one, state) = ClientHandshake::start(relay, link, &mut rand::rng()).unwrap();
        stream.write_all(&frame_record(&one)).await.unwrap();
        let mut buffer = Vec::new();
        let end = loop {
            if let Some((_, end)) = split_record(&buffer) {
                break end;
            }
            assert!(stream.read_buf(&mut buffer).await.unwrap() > 0, "closed in the handshake");
        };
        let mut request = Vec::new();
        DeviceFrame { request_id: 1, request: first }.encode(&mut request);
        let (three, transport) = state.finish(&buffer[2..end], &request).unwrap();
        stream.write_all(&frame_record(&three)).await.unwrap();
        let mut device = Self {
            stream,
            transport,
            buffer: buffer[end..].to_vec(),
            next_id: 2,
            arrived: VecDeque::new(),
        };
        let answer = device.answer(1).await;
        (device, answer)
    }

    /// Sends bytes as one message, whatever they are.
    pub async fn send_raw(&mut self, message: &[u8]) {
        let mut out = Vec::new();
        self.transport.seal(message, &mut out).unwrap();
        self.stream.write_all(&out).await.unwrap();
    }

    /// Sends the beginning of a message that is long, and not its end.
    pub async fn send_most(&mut self, len: usize) {
        let mut out = Vec::new();
        self.transport.seal(&vec![0; len], &mut out).unwrap();
        let most = out.len() - 1;
        let _ = self.stream.write_all(&out[..most]).await;
    }

    /// Sends a request without waiting; returns its number.
    pub async fn send(&mut self, request: Request) -> u64 {
        let request_id = if matches!(request, Request::Ack { .. }) {
            0
        } else {
            self.next_id += 1;
            self.next_id
        };
        let mut message = Vec::new();
        DeviceFrame { request_id, request }.encode(&mut message);
        self.send_raw(&message).await;
        request_id
    }

    pub async fn request(&mut self, request: Request) -> Answer {
        let id = self.send(request).await;
        self.answer(id).await
    }

    /// Asks for something that must be refused.
    pub async fn refusal(&mut self, request: Request) -> ErrorCode {
        match self.request(request).await {
            Answer::Failure(failure) => failure.code,
            answer => panic!("not refused: {answer:?}"),
        }
    }

    /// Waits for the answer to one request; keeps what else arrives.
    pub async fn answer(&mut self, id: u64) -> Answer {
        loop {
            if let Some(at) = self.arrived.iter().position(|f| f.request_id == id) {
                return self.arrived.remove(at).unwrap().answer;
            }
            assert!(self.receive().await, "closed before the answer");
        }
    }

    /// Waits until `count` envelopes were delivered.
    pub async fn deliveries(&mut self, count: usize) -> (u64, Vec<Delivery>) {
        let (mut all, mut last) = (Vec::new(), 0);
        while all.len() < count {
            match self.answer(0).await {
                Answer::Deliver { epoch, envelopes } => {
                    last = epoch;
                    all.extend(envelopes);
                }
                other => panic!("not a delivery: {other:?}"),
            }
        }
        assert_eq!(all.len(), count);
        (last, all)
    }

    /// Shows that nothing was delivered before now.
    pub async fn nothing_delivered(&mut self) {
        assert_eq!(self.request(Request::Ping).await, Answer::Pong);
        assert!(self.arrived.is_empty(), "{:?}", self.arrived);
    }

    /// Reads until the relay closes the connection; returns the reason it gave.
    pub async fn closing(&mut self) -> Option<CloseReason> {
        while self.receive().await {}
        self.arrived.iter().find_map(|frame| match frame.answer {
            Answer::Closing(reason) => Some(reason),
            _ => None,
        })
    }

    /// Reads more; `false` at the end.
    async fn receive(&mut self) -> bool {
        loop {
            let mut has_message = false;
            while let Some((record, end)) = split_record(&self.buffer) {
                let message = self.transport.open(record).unwrap();
                self.buffer.drain(..end);
                if let Some(message) = message {
                    self.arrived.push_back(RelayFrame::decode(Bytes::from(message)).unwrap());
                    has_message = true;
                }
            }
            if has_message {
                return true;
            }
            if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return false;
            }
        }
    }

    pub async fn send_many(&mut self, envelopes: Vec<Envelope>) -> Vec<Result<(), ErrorCode>> {
        match self.request(Request::SendMany(envelopes)).await {
            Answer::SendResults(results) => results,
            answer => panic!("not results: {answer:?}"),
        }
    }

    pub async fn ack(&mut self, epoch: u64, up_to: u64) {
        self.keep(MailQueue::Tagged, epoch, up_to, &[]).await;
    }

    /// Acks all of a queue up to a number but some.
    pub async fn keep(&mut self, queue: MailQueue, epoch: u64, up_to: u64, kept: &[u64]) {
        self.send(Request::Ack { epoch, up_to, queue, kept: kept.to_vec() }).await;
        // The answer shows that the ack before it was handled.
        assert_eq!(self.request(Request::Ping).await, Answer::Pong);
    }
}

pub fn logged_in(answer: &Answer) -> &LoggedIn {
    match answer {
        Answer::LoggedIn(logged_in) => logged_in,
        other => panic!("not logged in: {other:?}"),
    }
}

pub fn random_key() -> IdempotencyKey {
    IdempotencyKey::generate(&mut rand::rng())
}

/// An envelope whose blob begins with `mark`.
pub fn envelope(to: DeviceAddress, mark: u8) -> Envelope {
    sized_envelope(to, mark, 512)
}

pub fn sized_envelope(to: DeviceAddress, mark: u8, size: usize) -> Envelope {
    Envelope {
        to,
        tag: DeliveryTag::from_bytes([9; 16]),
        kind: EnvelopeKind::Session,
        blob: vec![mark; size].into(),
        ttl: 30 * 24 * 3_600,
        idempotency_key: random_key(),
    }
}

pub fn marks(deliveries: &[Delivery]) -> Vec<u8> {
    deliveries.iter().map(|d| d.blob[0]).collect()
}

/// A relay in memory and one in a folder, for tests that hold for both.
pub fn both() -> Vec<(Config, Option<tempfile::TempDir>)> {
    let folder = tempfile::tempdir().unwrap();
    vec![(Config::ephemeral(), None), (Config::in_folder(folder.path().join("data")), Some(folder))]
}
