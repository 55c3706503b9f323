use super::{Script, array, hex, list, number, read, records, text};
use crate::agreement::{AgreementError, Offer, open_first, publish_prekey, start_session};
use crate::crypto::{DhSecret, KemSecret};
use crate::ids::{DeliveryTag, DeviceAddress, DeviceId, PrekeyId, Timestamp, UserId};
use crate::keys::{DeviceCert, PrekeyKind, PrekeyRecord, PrekeySecret, RelayKey, UserRecord};
use crate::wire::content::Content;
use crate::wire::directory::decode_signed;
use crate::wire::envelope::{EnvelopeKind, FirstBlock};
use serde_json::Value;

struct Run {
    vector: Value,
    relay: RelayKey,
    now: Timestamp,
    b: DeviceAddress,
    b_record: UserRecord,
}

impl Run {
    fn new() -> Self {
        let vector = read("first_message");
        let relay = RelayKey::from_slice(&hex(&vector, "relay_key")).unwrap();
        let now = Timestamp(number(&vector, "now"));
        let b = DeviceAddress {
            user: UserId::from_bytes(array(&vector["b"], "user_id")),
            device: DeviceId::new(u32::try_from(number(&vector["b"], "device_id")).unwrap())
                .unwrap(),
        };
        let record = decode_signed(&hex(&vector["b"], "record")).unwrap();
        Self { relay, now, b, b_record: UserRecord::verify(record).unwrap(), vector }
    }

    fn cert(&self) -> &DeviceCert {
        self.b_record.device(self.b.device).unwrap()
    }

    fn secret(&self) -> PrekeySecret {
        let v = &self.vector;
        PrekeySecret {
            id: PrekeyId(number(v, "prekey_id")),
            kind: PrekeyKind::OneTime,
            cert_hash: self.cert().hash(),
            not_after: Timestamp(number(v, "not_after")),
            dh: DhSecret::from_bytes(&array(v, "prekey_secret")),
            kem: KemSecret::from_seed(&array(v, "kem_seed")),
        }
    }

    fn start(
        &self,
        prekey: &[u8],
        random: Vec<u8>,
    ) -> Result<crate::ratchet::Session, AgreementError> {
        let a = records::device(&self.vector["a"]);
        let record = decode_signed(&hex(&self.vector["a"], "record")).unwrap();
        let record = UserRecord::verify(record).unwrap();
        let offer = Offer {
            relay: &self.relay,
            device: &a,
            record: &record,
            delivery_tag: DeliveryTag::from_bytes(array(&self.vector, "delivery_tag")),
            generation: 0,
        };
        let signed = decode_signed(prekey)?;
        let prekey = PrekeyRecord::verify(signed, &self.b.user, self.cert())?;
        let mut rng = Script::new(random);
        start_session(&offer, self.cert(), self.b, &prekey, self.now, &mut rng)
    }

    fn open(&self, blob: &[u8]) -> Option<Vec<u8>> {
        let (block, message) = FirstBlock::decode(blob).ok()?;
        let secret = self.secret();
        if block.prekey_id != secret.id {
            return None;
        }
        let device = records::device(&self.vector["b"]);
        let mut accepted =
            open_first(&self.relay, self.b, &device, &secret, &block, self.now).ok()?;
        Some(accepted.session.open(message, self.now).ok()?.to_vec())
    }
}

#[test]
fn first_messages_are_made_byte_for_byte() {
    let run = Run::new();
    let v = &run.vector;
    let device = records::device(&v["b"]);
    let published = publish_prekey(&run.relay, run.b, &device, run.cert(), &run.secret()).unwrap();
    assert_eq!(published.fields().msg1[..], hex(v, "msg1"));
    assert_eq!(published.signed().body, hex(v, "prekey_body"));
    assert_eq!(published.signed().signature[..], hex(v, "prekey_signature"));

    // X25519 secret first, then the seed of both halves of the ML-KEM key.
    let mut rng = Script::new(hex(v, "b_random"));
    let drawn =
        PrekeySecret::generate(run.secret().id, PrekeyKind::OneTime, run.cert(), run.now, &mut rng);
    rng.assert_spent();
    assert_eq!(drawn.dh.public(), run.secret().dh.public());
    assert_eq!(drawn.kem.public().as_bytes()[..], hex(v, "kem_ek"));

    // The last-resort prekey says so in its prologue, and is good up to its last millisecond.
    let last_resort = &v["last_resort"];
    let secret = PrekeySecret {
        kind: PrekeyKind::LastResort,
        not_after: Timestamp(number(last_resort, "not_after")),
        ..run.secret()
    };
    let published = publish_prekey(&run.relay, run.b, &device, run.cert(), &secret).unwrap();
    assert_eq!(published.fields().msg1[..], hex(last_resort, "msg1"));
    assert!(run.start(&hex(last_resort, "prekey"), vec![5; 96]).is_ok());

    // The delivery tag is drawn by the caller, before all this.
    let draws = ["encapsulation_randomness", "a0_secret", "a_ephemeral_secret"];
    let random = draws.map(|name| hex(v, name)).concat();
    let mut session = run.start(&hex(v, "prekey"), random).unwrap();
    assert_eq!(session.id().as_bytes()[..], hex(v, "session_id"));
    let state = session.snapshot();
    assert_eq!(state.root.expose()[..], hex(v, "root_key"));
    let sending = state.sending.as_ref().unwrap();
    assert_eq!(sending.key.expose()[..], hex(v, "first_chain_key"));
    assert_eq!(sending.header.expose()[..], hex(v, "first_header_key"));
    assert_eq!(state.next_sending_header.expose()[..], hex(v, "next_header_key_a"));
    assert_eq!(state.next_receiving_header.expose()[..], hex(v, "next_header_key_b"));
    let block = state.block.as_ref().unwrap();
    assert_eq!(block.kem_ct.as_bytes()[..], hex(v, "kem_ct"));
    assert_eq!(block.msg2, hex(v, "msg2"));

    let content = hex(v, "content");
    assert_eq!(Content::decode(&content).unwrap().encode().to_vec(), content);
    let mut rng = Script::new(hex(&v["ratchet_message"], "nonce"));
    let (kind, blob) = session.seal(&content, run.now, &mut rng).unwrap();
    assert_eq!((kind, blob), (EnvelopeKind::First, hex(v, "blob")));
    assert_eq!(run.open(&hex(v, "blob")), Some(content));
}

#[test]
fn forged_first_messages_are_refused() {
    let run = Run::new();
    for case in list(&run.vector, "refused") {
        assert_eq!(run.open(&hex(case, "bytes")), None, "{}", text(case, "name"));
    }
}

#[test]
fn forged_prekeys_are_refused() {
    let run = Run::new();
    for case in list(&run.vector, "prekeys_refused") {
        let random = vec![5; 96];
        assert!(run.start(&hex(case, "bytes"), random).is_err(), "{}", text(case, "name"));
    }
}
