use std::collections::BTreeMap;

use super::{Script, array, hex, list, number, read, text};
use crate::agreement::SessionSecrets;
use crate::crypto::{DhSecret, KemCiphertext};
use crate::ids::{PrekeyId, SessionId, Timestamp};
use crate::ratchet::{ChainKey, HeaderKey, RootKey, Session};
use crate::store::codec;
use crate::wire::envelope::{EnvelopeKind, FirstBlock};
use serde_json::Value;

fn secrets(v: &Value) -> SessionSecrets {
    SessionSecrets {
        id: SessionId::from_bytes(array(v, "session_id")),
        root: RootKey::from_bytes(&array(v, "root_key")),
        first_chain: ChainKey::from_bytes(&array(v, "first_chain_key")),
        first_header: HeaderKey::from_bytes(&array(v, "first_header_key")),
        next_header_a: HeaderKey::from_bytes(&array(v, "next_header_key_a")),
        next_header_b: HeaderKey::from_bytes(&array(v, "next_header_key_b")),
    }
}

fn both(v: &Value) -> (Session, Session) {
    let a0 = DhSecret::from_bytes(&array(v, "a0_secret"));
    let peer = *a0.public();
    let started = Timestamp(number(v, "started_at"));
    // The vectors begin after the first block: an empty one, dropped before A seals.
    let kem_ct = KemCiphertext::from_slice(&[0; 1088]).unwrap();
    let block = FirstBlock { prekey_id: PrekeyId(1), kem_ct, msg2: vec![] };
    let mut a = Session::start(secrets(v), a0, block, 0, started);
    a.forget_block_for_testing_only();
    (a, Session::accept(secrets(v), peer, 0, started))
}

fn state(session: &Session) -> Vec<u8> {
    codec::encode_session(session).to_vec()
}

#[test]
fn the_conversation_is_byte_for_byte() {
    let v = read("ratchet");
    let (mut a, mut b) = both(&v);
    let messages: BTreeMap<_, _> =
        list(&v, "messages").iter().map(|m| (text(m, "name"), m)).collect();
    for (index, event) in list(&v, "events").iter().enumerate() {
        let message = messages[text(event, "name")];
        let now = Timestamp(number(event, "now"));
        if text(event, "event") == "send" {
            let sender =
                if text(message, "sender").eq_ignore_ascii_case("a") { &mut a } else { &mut b };
            let mut rng = Script::new(hex(message, "random"));
            let (kind, blob) = sender.seal(&hex(message, "content"), now, &mut rng).unwrap();
            rng.assert_spent();
            assert_eq!(kind, EnvelopeKind::Session);
            assert_eq!(blob, hex(message, "bytes"), "{}", text(event, "name"));
            *sender = codec::decode_session(&state(sender)).unwrap();
        } else {
            let receiver =
                if text(event, "to").eq_ignore_ascii_case("a") { &mut a } else { &mut b };
            let content = receiver.open(&hex(message, "bytes"), now).unwrap();
            assert_eq!(content.to_vec(), hex(message, "content"));
        }
        for case in list(&v, "refused") {
            if number(case, "after_event") == index as u64 {
                let receiver =
                    if text(case, "to").eq_ignore_ascii_case("a") { &mut a } else { &mut b };
                let before = state(receiver);
                let refused = receiver.open(&hex(case, "bytes"), now);
                assert!(refused.is_err(), "{}", text(case, "name"));
                assert_eq!(state(receiver), before, "{}", text(case, "name"));
            }
        }
    }
}
