use super::records::{device, identity};
use super::{Script, array, hex, list, number, read, text};
use crate::addresses::{RelayAddress, Source};
use crate::ids::{LogHash, LogId, MessageId, RegisterId, RoomId, Timestamp};
use crate::keys::{
    DeviceCert, DeviceKeys, IdentityKeyPair, RelayKeyPair, SigningPublicKey, register_id,
    verify_append,
};
use crate::membership::{
    Act, Announcement, Chain, Event, EventDraft, Joined, LogHead, RoomState, Signer, Statement,
    StatementFields, Statements,
};
use crate::room::RegisterSecret;
use crate::wire::content::{Body, Content, Receipt, ReceiptKind, RoomContent};
use crate::wire::directory::{decode_signed, encode_signed};
use crate::wire::room::{
    decode_fork_proof, decode_register_entry, encode_fork_proof, encode_register_entry,
};
use bytes::Bytes;
use serde_json::Value;

struct User {
    identity: IdentityKeyPair,
    keys: DeviceKeys,
    cert: DeviceCert,
}

fn users(v: &Value) -> Vec<User> {
    let issued_at = Timestamp(number(v, "issued_at"));
    let user = |user: &Value| {
        let (identity, keys) = (identity(user), device(user));
        let cert = keys.certify(&identity, issued_at);
        assert_eq!(encode_signed(cert.signed()), hex(user, "cert"));
        User { identity, keys, cert }
    };
    list(v, "users").iter().map(user).collect()
}

fn relay(v: &Value) -> RelayKeyPair {
    let keys = RelayKeyPair::from_bytes(&array(&v["relay"], "secret"));
    assert_eq!(keys.public().as_bytes()[..], hex(&v["relay"], "key"));
    keys
}

fn verify(v: &Value, bytes: &[u8]) -> Result<Event, String> {
    let signed = decode_signed(bytes).map_err(|error| error.to_string())?;
    Event::verify(signed, &relay(v).public()).map_err(|error| error.to_string())
}

/// Makes and folds a chain as written; returns its state.
fn follow(v: &Value, events: &[Value]) -> RoomState {
    let (users, relay) = (users(v), relay(v));
    let mut chain: Option<Chain> = None;
    for case in events {
        let bytes = hex(case, "bytes");
        let event = verify(v, &bytes).unwrap();
        assert_eq!(event.signed().body, hex(case, "body"));
        assert_eq!(event.hash().as_bytes()[..], hex(case, "hash"));
        // The same act, signed here, is the same bytes.
        let after = chain.as_ref().map(|chain| {
            let (seq, head) = chain.head();
            (chain.room(), seq, head)
        });
        let draft = EventDraft { after, at: event.at(), act: event.act().clone() };
        let made = match case["actor"].as_u64() {
            None => draft.sign(Signer::Relay(&relay)),
            Some(i) => {
                let user = &users[usize::try_from(i).unwrap()];
                let identity = user.identity.public();
                draft.sign(Signer::Device {
                    identity: &identity,
                    cert: &user.cert,
                    keys: &user.keys,
                })
            }
        };
        if *event.act() != Act::Unknown {
            assert_eq!(encode_signed(made.signed()), bytes, "{}", text(case, "act"));
        }
        match &mut chain {
            None => chain = Some(Chain::create(event).unwrap()),
            Some(chain) => {
                let act = text(case, "act");
                assert_eq!(chain.append(event), Ok(()), "{act}");
            }
        }
        let state = chain.as_ref().unwrap().state();
        assert_eq!(state.hash()[..], hex(case, "state_hash"), "{}", text(case, "act"));
    }
    chain.unwrap().state().clone()
}

#[test]
fn chains_are_made_and_folded_as_written() {
    let v = read("room");
    for chain in
        ["private", "succession", "versions", "shares", "vanished", "vanished_later", "open"]
    {
        follow(&v, list(&v[chain], "events"));
    }
}

#[test]
fn events_that_are_none_are_refused() {
    let v = read("room");
    for case in list(&v, "refused_events") {
        let refused = match verify(&v, &hex(case, "bytes")) {
            // It counts for nothing, wherever the version is known.
            Ok(event) => *event.act() == Act::Unknown,
            Err(_) => true,
        };
        assert!(refused, "{}", text(case, "name"));
    }
}

/// Unknown fields are passed over, by everybody alike.
#[test]
fn events_with_more_in_them_are_events() {
    let v = read("room");
    for case in list(&v, "unusual_events") {
        let event = verify(&v, &hex(case, "bytes"));
        let name = text(case, "name");
        assert!(event.is_ok_and(|event| *event.act() != Act::Unknown), "{name}");
    }
}

#[test]
fn acts_that_are_not_allowed_change_nothing() {
    let v = read("room");
    for (chain, refused) in [
        ("private", "not_allowed"),
        ("shares", "over_shares"),
        ("vanished", "too_early"),
        ("open", "unfit_in_open"),
    ] {
        let all = list(&v[chain], "events");
        for case in list(&v, refused) {
            let name = text(case, "name");
            let mut known = all.iter().take(usize::try_from(number(case, "after")).unwrap());
            let first = verify(&v, &hex(known.next().unwrap(), "bytes")).unwrap();
            let mut chain = Chain::create(first).unwrap();
            for event in known {
                chain.append(verify(&v, &hex(event, "bytes")).unwrap()).unwrap();
            }
            let before = chain.state().clone();
            let event = verify(&v, &hex(case, "bytes")).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert!(chain.append(event).is_err(), "{name}");
            assert_eq!(*chain.state(), before, "{name}");
        }
    }
}

#[test]
fn heads_and_forks_are_as_written() {
    let v = read("room");
    let relay = relay(&v).public();
    for case in list(&v, "heads") {
        let signed = decode_signed(&hex(case, "bytes")).unwrap();
        let head = LogHead::verify(&signed, &relay).unwrap();
        assert_eq!(head.log.as_bytes()[..], hex(case, "log_id"));
        assert_eq!((head.epoch, head.length), (number(case, "epoch"), number(case, "length")));
        assert_eq!(head.hash.as_bytes()[..], hex(case, "chain_hash"));
        assert_eq!(head.at, Timestamp(number(case, "at")));
        let entries: Vec<Bytes> = list(case, "entries").iter().map(bytes).collect();
        assert_eq!(LogHash::begin(&head.log).then_all(&entries), head.hash);
        assert_eq!(head.sign(&self::relay(&v)), signed);
    }
    for case in list(&v, "refused_heads") {
        let signed = decode_signed(&hex(case, "bytes"));
        let refused = signed.map_or(true, |signed| LogHead::verify(&signed, &relay).is_err());
        assert!(refused, "{}", text(case, "name"));
    }
    for case in list(&v, "forks") {
        let proof = decode_fork_proof(&hex(case, "bytes")).unwrap();
        let shared = proof.check().map(|(_, shared)| shared).ok();
        assert_eq!(shared, case["shared"].as_u64(), "{}", text(case, "name"));
        assert_eq!(encode_fork_proof(&proof), hex(case, "bytes"));
    }
}

fn bytes(value: &Value) -> Bytes {
    data_encoding::HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap().into()
}

#[test]
fn joins_and_leaves_are_as_written() {
    let v = read("room");
    let state = follow(&v, list(&v["open"], "events"));
    let room = verify(&v, &hex(&v["open"]["events"][0], "bytes")).unwrap().room();
    let users = users(&v);
    let mut statements = Statements::default();
    for case in list(&v, "statements") {
        let bytes = hex(case, "bytes");
        let statement = Statement::verify(decode_signed(&bytes).unwrap()).unwrap();
        let user = &users[usize::try_from(number(case, "actor")).unwrap()];
        let joined = if case["joined"].as_bool().unwrap() { Joined::Yes } else { Joined::No };
        let fields = StatementFields { room, counter: number(case, "counter"), joined };
        let made = Statement::sign(fields, &user.identity.public(), &user.cert, &user.keys);
        assert_eq!(encode_signed(made.signed()), bytes);
        statements.take(&statement);
    }
    let roster = state.roster(&statements).into_iter().map(|(user, _)| user.to_hex());
    let expected = list(&v, "members_after").iter().map(|user| user.as_str().unwrap().to_owned());
    assert_eq!(roster.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    for case in list(&v, "refused_statements") {
        let signed = decode_signed(&hex(case, "bytes"));
        let refused = signed.map_or(true, |signed| Statement::verify(signed).is_err());
        assert!(refused, "{}", text(case, "name"));
    }
}

#[test]
fn registers_are_as_written() {
    let v = read("room");
    let case = &v["register"];
    let secret = RegisterSecret::from_bytes(&array(case, "secret"));
    let id = RegisterId::from_bytes(array(case, "id"));
    assert_eq!(secret.id(), id);
    let key = SigningPublicKey::from_bytes(array(case, "write_key"));
    assert_eq!(register_id(&key), id);
    let (position, events) = (number(case, "position"), hex(case, "events"));
    let mut rng = Script::new(hex(case, "nonce"));
    let (made_key, entry, proof) = secret.seal(position, &events, &mut rng).unwrap();
    rng.assert_spent();
    assert_eq!((made_key, &entry), (key, &hex(case, "entry")));
    assert_eq!(proof[..], hex(case, "proof"));
    assert_eq!(verify_append(&key, position, &entry, proof), Ok(id));
    assert_eq!(**secret.open(position, &entry).unwrap(), *events);
    let decoded = decode_register_entry(&events).unwrap();
    assert_eq!(encode_register_entry(&decoded.iter().collect::<Vec<_>>()), events);
    for case in list(&v, "refused_entries") {
        let opened = secret.open(number(case, "position"), &hex(case, "entry"));
        assert!(opened.is_err(), "{}", text(case, "name"));
    }
}

#[test]
fn announcements_are_as_written() {
    let v = read("room");
    let (keys, case) = (relay(&v), &v["announcement"]);
    let room = hex(case, "room");
    let expected = Announcement {
        room: RoomId::from_slice(&room),
        seq: number(case, "seq"),
        text: text(case, "text").to_owned(),
        at: Timestamp(number(case, "at")),
        moved: None,
    };
    let bytes = hex(case, "bytes");
    let signed = decode_signed(&bytes).unwrap();
    assert_eq!(Announcement::verify(&signed, &keys.public()).as_ref(), Ok(&expected));
    assert_eq!(encode_signed(&expected.sign(&keys)), bytes);
    let case = &v["moving"];
    let moving = Announcement {
        room: None,
        moved: Some(RelayAddress {
            address: text(case, "address").to_owned(),
            from: Timestamp(number(case, "address_from")),
            by: Source::Relay,
        }),
        ..expected
    };
    assert_eq!(encode_signed(&moving.sign(&keys)), hex(case, "bytes"));
    let signed = decode_signed(&hex(case, "bytes")).unwrap();
    assert_eq!(Announcement::verify(&signed, &keys.public()), Ok(moving));
    for case in list(&v, "refused_announcements") {
        let signed = decode_signed(&hex(case, "bytes"));
        let refused = signed.map_or(true, |s| Announcement::verify(&s, &keys.public()).is_err());
        assert!(refused, "{}", text(case, "name"));
    }
}

#[test]
fn messages_to_rooms_are_as_written() {
    let v = read("room");
    let case = &v["message"];
    let bytes = hex(case, "content");
    let content = RoomContent::decode(&bytes).unwrap();
    assert_eq!(content.message_id.as_bytes()[..], hex(case, "message_id"));
    assert_eq!(content.room.as_bytes()[..], hex(case, "room_id"));
    assert_eq!(content.seq, number(case, "room_seq"));
    assert_eq!(content.head.as_bytes()[..], hex(case, "room_head"));
    assert_eq!(content.log.id, LogId::from_bytes(array(case, "log_id")));
    assert_eq!(content.log.length, number(case, "log_length"));
    assert_eq!(content.log.hash, LogHash::from_bytes(array(case, "log_hash")));
    assert_eq!(content.position.seq, number(case, "sender_seq"));
    assert_eq!(content.position.previous[..], hex(case, "previous_own_hash"));
    assert_eq!(content.sent_at, Timestamp(number(case, "sent_at")));
    assert_eq!(content.body, Body::Text(text(case, "text").to_owned()));
    assert_eq!(content.encode().to_vec(), bytes);
    assert_eq!(crate::crypto::kdf::sha256(&[&bytes])[..], hex(case, "hash"));

    let outer = Content::decode(&hex(case, "outer")).unwrap();
    assert_eq!(outer.message_id, content.message_id);
    assert_eq!(outer.body, Body::RoomMessage(bytes));
    assert_eq!(number(case, "receipt_kind"), 1);
    let kind = ReceiptKind::Delivered;
    let receipt = Receipt { message_id: MessageId::from_bytes(array(case, "receipt_id")), kind };
    assert_eq!(outer.receipts, [receipt]);
    let shared = Content { receipts: Vec::new(), next_tag: None, ..outer.clone() }.encode();
    let made = Content::encode_for_one(&shared, &outer.receipts, outer.next_tag);
    assert_eq!(made.to_vec(), hex(case, "outer"));
    for case in list(&v, "refused_messages") {
        assert!(RoomContent::decode(&hex(case, "bytes")).is_err(), "{}", text(case, "name"));
    }
}
