use super::{Script, array, hex, list, number, read, text};
use crate::crypto::DhSecret;
use crate::invite::InviteLink;
use crate::keys::RelayKeyPair;
use crate::noise::{
    ClientAwaitsReply, ClientHandshake, RelayAwaitsFinish, RelayHandshake, Transport,
};
use serde_json::Value;

struct Run {
    vector: Value,
    relay: RelayKeyPair,
    device: DhSecret,
}

impl Run {
    fn new() -> Self {
        let vector = read("link");
        let seeds = [hex(&vector, "relay_ed25519_seed"), hex(&vector, "relay_x25519_secret")];
        let relay = RelayKeyPair::from_bytes(&seeds.concat().try_into().unwrap());
        let device = DhSecret::from_bytes(&array(&vector, "device_link_secret"));
        Self { vector, relay, device }
    }

    fn record(&self, name: &str) -> Vec<u8> {
        hex(&self.vector, name)[2..].to_vec()
    }

    fn start(&self) -> (Vec<u8>, ClientAwaitsReply) {
        let mut rng = Script::new(hex(&self.vector, "device_random"));
        let started = ClientHandshake::start(&self.relay.public(), &self.device, &mut rng);
        rng.assert_spent();
        started.unwrap()
    }

    fn respond(&self) -> (Vec<u8>, RelayAwaitsFinish) {
        let mut rng = Script::new(hex(&self.vector, "relay_random"));
        let answer = RelayHandshake::respond(&self.relay, &self.record("record1"), &mut rng);
        rng.assert_spent();
        answer.unwrap()
    }

    fn transports(&self) -> (Transport, Transport) {
        let payload = hex(&self.vector, "record3_payload");
        let (record1, client) = self.start();
        assert_eq!(record1, self.record("record1"));
        let (record2, server) = self.respond();
        assert_eq!(record2, self.record("record2"));
        let (record3, client) = client.finish(&record2, &payload).unwrap();
        assert_eq!(record3, self.record("record3"));
        let (key, request, server) = server.finish(&record3).unwrap();
        assert_eq!((key, request), (*self.device.public(), payload));
        assert_eq!(client.handshake_hash()[..], hex(&self.vector, "handshake_hash"));
        assert_eq!(server.handshake_hash()[..], hex(&self.vector, "handshake_hash"));
        (client, server)
    }
}

#[test]
fn handshake_and_records_are_byte_for_byte() {
    let run = Run::new();
    assert_eq!(run.relay.public().as_bytes()[..], hex(&run.vector, "relay_key"));
    let (mut client, mut server) = run.transports();
    let mut message = Vec::new();
    for record in list(&run.vector, "transport") {
        let from_device = text(record, "from") == "device";
        let (from, to) =
            if from_device { (&mut client, &mut server) } else { (&mut server, &mut client) };
        let fragment = hex(record, "fragment");
        let mut wire = Vec::new();
        from.seal_record(u8::try_from(number(record, "flags")).unwrap(), &fragment, &mut wire)
            .unwrap();
        assert_eq!(wire, hex(record, "bytes"));
        message.extend(fragment);
        match to.open(&wire[2..]).unwrap() {
            Some(opened) => assert_eq!(opened, std::mem::take(&mut message)),
            None => assert_eq!(number(record, "flags"), 1),
        }
    }
}

#[test]
fn changed_records_are_refused() {
    let run = Run::new();
    for case in list(&run.vector, "refused") {
        let name = text(case, "name");
        let bytes = hex(case, "bytes");
        let record = bytes.get(2..).unwrap_or_default();
        let refused = match &case["record"] {
            Value::Number(n) if n.as_u64() == Some(1) => {
                RelayHandshake::respond(&run.relay, record, &mut crate::testing::rng()).is_err()
            }
            Value::Number(n) if n.as_u64() == Some(2) => {
                run.start().1.finish(record, b"request").is_err()
            }
            Value::Number(_) => run.respond().1.finish(record).is_err(),
            _ => run.transports().1.open(record).is_err(),
        };
        assert!(refused, "{name}");
    }
}

#[test]
fn invite_links_are_as_written() {
    let vector = read("link");
    let invite = &vector["invite_link"];
    for (field, has_token) in [("with_token", true), ("without_token", false)] {
        let link: InviteLink = text(invite, field).parse().unwrap();
        assert_eq!(link.host, text(invite, "host"));
        assert_eq!(u64::from(link.port), number(invite, "port"));
        assert_eq!(link.relay.as_bytes()[..], hex(&vector, "relay_key"));
        assert_eq!(
            link.token.as_ref().map(|t| t.as_bytes().to_vec()),
            has_token.then(|| hex(invite, "token"))
        );
        assert_eq!(link.to_string(), text(invite, field));
    }
}
