//! A client written by hand, which does what no honest one does.
#![allow(dead_code, reason = "each test file uses some of it")]

use chatcore::agreement::{Offer, open_first, publish_prekey, start_session};
use chatcore::crypto::kdf::sha256;
use chatcore::ids::{
    DeliveryTag, DeviceAddress, DeviceId, IdempotencyKey, MessageId, PrekeyId, RoomId, Timestamp,
    UserId,
};
use chatcore::keys::{
    DeviceCert, DeviceKeys, IdentityKeyPair, Nickname, PrekeyKind, PrekeyRecord, PrekeySecret,
    Signed, UserRecord,
};
use chatcore::membership::{Event, EventDraft, Joined, Signer, Statement, StatementFields};
use chatcore::ratchet::Session;
use chatcore::wire::content::{Body, ChainPosition, Content, Receipt, ReceiptKind};
use chatcore::wire::envelope::{Envelope, EnvelopeKind, FirstBlock};
use chatcore::wire::limits::MAX_TTL;
use chatcore::wire::relay::{Answer, DeviceFrame, MailQueue, RelayFrame, Request, Who};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::world::World;

pub(crate) struct Stranger {
    pub(crate) identity: IdentityKeyPair,
    /// Of the identity key.
    seed: [u8; 32],
    pub(crate) keys: DeviceKeys,
    pub(crate) record: UserRecord,
    prekey: Option<PrekeySecret>,
    pub(crate) session: Option<Session>,
    rng: StdRng,
    tag: DeliveryTag,
    /// Tag that the victim gave us, once it has answered.
    pub(crate) their_tag: Option<DeliveryTag>,
    position: ChainPosition,
}

impl Stranger {
    pub(crate) fn new(world: &mut World, name: &str, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut seed = [0; 32];
        rng.fill_bytes(&mut seed);
        let identity = IdentityKeyPair::from_seed(&seed);
        let keys = DeviceKeys::generate(DeviceId::FIRST, &mut rng);
        let cert = keys.certify(&identity, world.now);
        let record = UserRecord::first(&identity, Nickname::new(name).unwrap(), cert);
        let stranger = Self::with(identity, seed, keys, record, rng);
        let record = stranger.record.signed().clone();
        stranger.ask(world, Request::Register { token: None, record });
        stranger
    }

    /// One with these keys, that the relay need not know.
    pub(crate) fn with(
        identity: IdentityKeyPair,
        seed: [u8; 32],
        keys: DeviceKeys,
        record: UserRecord,
        mut rng: StdRng,
    ) -> Self {
        let position = ChainPosition { seq: 0, previous: [0; 32] };
        let tag = DeliveryTag::generate(&mut rng);
        let (session, their_tag) = (None, None);
        Self { identity, seed, keys, record, prekey: None, session, rng, tag, their_tag, position }
    }

    /// The same user's second device, which the relay and the first one know from now on.
    pub(crate) fn second_device(&mut self, world: &mut World, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let identity = IdentityKeyPair::from_seed(&self.seed);
        let keys = DeviceKeys::generate(DeviceId::new(2).unwrap(), &mut rng);
        let first = self.record.devices()[0].clone();
        let devices = vec![first, keys.certify(&identity, world.now)];
        self.record = self.naming(&self.record, self.record.nickname().as_str(), devices);
        self.ask(world, Request::UpdateRecord(self.record.signed().clone()));
        Self::with(identity, self.seed, keys, self.record.clone(), rng)
    }

    /// Signs the record that follows another, with the device as it is.
    pub(crate) fn after(&self, record: &UserRecord, name: &str) -> UserRecord {
        let cert = self.record.device(self.keys.id).unwrap().clone();
        self.naming(record, name, vec![cert])
    }

    /// Signs the record that follows another, with these devices.
    pub(crate) fn naming(
        &self,
        record: &UserRecord,
        name: &str,
        devices: Vec<DeviceCert>,
    ) -> UserRecord {
        record.next(&self.identity, Nickname::new(name).unwrap(), devices)
    }

    /// Somebody who wrote to peer 0 and was answered.
    pub(crate) fn acquainted(world: &mut World, seed: u64) -> Self {
        let mut stranger = Self::new(world, "mallory", seed);
        stranger.start(world, 0, 0);
        stranger.send(world, 0, Body::Text("hi".to_owned()));
        world.say(0, stranger.user(), "hello");
        stranger.receive_and_receipt(world, 0);
        stranger
    }

    /// Opens what came in the session, and receipts it.
    pub(crate) fn receive_and_receipt(&mut self, world: &mut World, victim: usize) {
        let numbered = self.receive(world).into_iter().filter(|c| c.position.is_some());
        let kind = ReceiptKind::Delivered;
        let receipts: Vec<_> =
            numbered.map(|c| Receipt { message_id: c.message_id, kind }).collect();
        assert!(!receipts.is_empty());
        let envelope = self.seal(world, victim, Body::Empty, receipts);
        self.put(world, envelope);
        world.run_until_quiet();
    }

    pub(crate) fn user(&self) -> UserId {
        self.record.user_id()
    }

    pub(crate) fn address(&self) -> DeviceAddress {
        DeviceAddress { user: self.user(), device: self.keys.id }
    }

    pub(crate) fn ask(&self, world: &mut World, request: Request) -> Answer {
        let frame = DeviceFrame { request_id: 1, request };
        world.relay.handle(self.address(), frame).remove(0).answer
    }

    /// Begins a session of a generation with a peer.
    pub(crate) fn start(&mut self, world: &mut World, victim: usize, generation: u32) {
        let to = world.peers[victim].address;
        let ask = Request::GetRecords { who: Who::User(to.user), after_version: 0 };
        let Answer::Records(records) = self.ask(world, ask) else { panic!("no records") };
        let newest = UserRecord::verify(records.last().unwrap().clone()).unwrap();
        let cert = newest.device(to.device).unwrap();
        let claim = self.ask(world, Request::ClaimPrekeys(vec![to]));
        let Answer::ClaimedPrekeys(claimed) = claim else { panic!("no prekeys") };
        let prekey: Signed = claimed.into_iter().next().unwrap().unwrap();
        let prekey = PrekeyRecord::verify(prekey, &to.user, cert).unwrap();
        let relay = world.relay.public();
        let offer = Offer {
            relay: &relay,
            device: &self.keys,
            record: &self.record,
            delivery_tag: self.tag,
            generation,
        };
        let session = start_session(&offer, cert, to, &prekey, world.now, &mut self.rng);
        self.session = Some(session.unwrap());
    }

    pub(crate) fn content(&mut self, at: Timestamp, body: Body, receipts: Vec<Receipt>) -> Content {
        let is_chained = matches!(body, Body::Text(_) | Body::File(_) | Body::LongText(_));
        let position =
            is_chained.then(|| ChainPosition { seq: self.position.seq + 1, ..self.position });
        let message_id = MessageId::generate(&mut self.rng);
        let next_tag = Some(self.tag);
        let content = Content { message_id, position, sent_at: at, receipts, next_tag, body };
        if let Some(position) = position {
            let previous = sha256(&[&content.encode()]);
            self.position = ChainPosition { seq: position.seq, previous };
        }
        content
    }

    /// Seals a body; nothing is sent.
    pub(crate) fn seal(
        &mut self,
        world: &World,
        victim: usize,
        body: Body,
        receipts: Vec<Receipt>,
    ) -> Envelope {
        let content = self.content(world.now, body, receipts);
        self.seal_content(world, victim, &content)
    }

    /// Brings a prekey, so that others can begin sessions.
    pub(crate) fn bring_prekey(&mut self, world: &mut World) {
        let cert = self.record.device(self.keys.id).unwrap().clone();
        let (id, kind) = (PrekeyId(1), PrekeyKind::LastResort);
        let secret = PrekeySecret::generate(id, kind, &cert, world.now, &mut self.rng);
        let relay = world.relay.public();
        let prekey = publish_prekey(&relay, self.address(), &self.keys, &cert, &secret).unwrap();
        self.ask(world, Request::UploadPrekeys(vec![prekey.signed().clone()]));
        self.prekey = Some(secret);
    }

    /// Opens a first message with the prekey that was brought.
    fn accept(&mut self, world: &World, blob: &[u8]) -> Option<Vec<u8>> {
        let (block, message) = FirstBlock::decode(blob).ok()?;
        if self.session.is_none() {
            let (relay, own, secret) =
                (world.relay.public(), self.address(), self.prekey.as_ref()?);
            let accepted = open_first(&relay, own, &self.keys, secret, &block, world.now).ok()?;
            self.session = Some(accepted.session);
            self.their_tag = Some(accepted.delivery_tag);
        }
        let content = self.session.as_mut()?.open(message, world.now).ok()?;
        Some(content.to_vec())
    }

    /// Signs an event of a room, allowed or not.
    pub(crate) fn sign(&self, draft: EventDraft) -> Event {
        let identity = self.identity.public();
        let cert = self.record.device(self.keys.id).unwrap();
        draft.sign(Signer::Device { identity: &identity, cert, keys: &self.keys })
    }

    /// Joins an open room, or leaves it.
    pub(crate) fn state_in(&self, world: &mut World, room: RoomId, counter: u64, joined: Joined) {
        self.ask(world, Request::PutStatement(self.statement(room, counter, joined)));
        world.run_until_quiet();
    }

    /// Signs a join or a leave.
    pub(crate) fn statement(&self, room: RoomId, counter: u64, joined: Joined) -> Signed {
        let fields = StatementFields { room, counter, joined };
        let cert = self.record.device(self.keys.id).unwrap();
        Statement::sign(fields, &self.identity.public(), cert, &self.keys).signed().clone()
    }

    /// Seals a content as it is; nothing is sent.
    pub(crate) fn seal_content(
        &mut self,
        world: &World,
        victim: usize,
        content: &Content,
    ) -> Envelope {
        let session = self.session.as_mut().unwrap();
        let sealed = session.seal(&content.encode(), world.now, &mut self.rng).unwrap();
        let tag = match sealed.0 {
            EnvelopeKind::First => DeliveryTag::ZERO,
            EnvelopeKind::Session => self.their_tag.unwrap(),
        };
        self.envelope(world, victim, (sealed.0, tag, sealed.1))
    }

    pub(crate) fn envelope(
        &mut self,
        world: &World,
        victim: usize,
        (kind, tag, blob): (EnvelopeKind, DeliveryTag, Vec<u8>),
    ) -> Envelope {
        let mut key = [0; 16];
        self.rng.fill_bytes(&mut key);
        let idempotency_key = IdempotencyKey::from_bytes(key);
        let to = world.peers[victim].address;
        Envelope { to, tag, kind, blob: blob.into(), ttl: MAX_TTL, idempotency_key }
    }

    /// Seals a text for peer 0; nothing is sent.
    pub(crate) fn text(&mut self, world: &World, text: &str) -> Envelope {
        self.seal(world, 0, Body::Text(text.to_owned()), Vec::new())
    }

    pub(crate) fn put(&self, world: &mut World, envelope: Envelope) {
        self.ask(world, Request::SendMany(vec![envelope]));
    }

    pub(crate) fn send(&mut self, world: &mut World, victim: usize, body: Body) {
        let envelope = self.seal(world, victim, body, Vec::new());
        self.put(world, envelope);
        world.run_until_quiet();
    }

    /// Opens what came in the session.
    pub(crate) fn receive(&mut self, world: &mut World) -> Vec<Content> {
        let mut contents = Vec::new();
        while let Some(RelayFrame { answer: Answer::Deliver { epoch, envelopes }, .. }) =
            world.relay.deliver(self.address())
        {
            let last = envelopes.last().unwrap();
            let (up_to, queue) = (last.n, MailQueue::of(&last.tag));
            for delivery in envelopes {
                let opened = match delivery.kind {
                    EnvelopeKind::First => self.accept(world, &delivery.blob),
                    EnvelopeKind::Session => {
                        let session = self.session.as_mut().unwrap();
                        session.open(&delivery.blob, world.now).ok().map(|bytes| bytes.to_vec())
                    }
                };
                let Some(bytes) = opened else { continue };
                let content = Content::decode(&bytes).unwrap();
                self.their_tag = content.next_tag.or(self.their_tag);
                contents.push(content);
            }
            self.ack(world, epoch, up_to, queue);
        }
        contents
    }

    fn ack(&self, world: &mut World, epoch: u64, up_to: u64, queue: MailQueue) {
        let request = Request::Ack { epoch, up_to, queue, kept: Vec::new() };
        let frame = DeviceFrame { request_id: 0, request };
        world.relay.handle(self.address(), frame);
    }
}
