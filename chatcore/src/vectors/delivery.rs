use serde_json::Value;

use super::records::device;
use super::{array, hex, list, number, read, text};
use crate::engine::copy::Due;
use crate::engine::devices::heirs;
use crate::engine::registration::{Origin, Own, Place, place};
use crate::engine::rooms::judge::{Author, Facts, Named, Reading, Standing, Verdict, judge};
use crate::engine::sequence::{Order, said_at};
use crate::engine::sessions::{Confirmed, Known, begin_reset, heed_reset, leaving, speaking};
use crate::ids::{
    DeliveryTag, DeviceAddress, DeviceId, IdempotencyKey, MessageId, SessionId, Timestamp, UserId,
};
use crate::keys::UserRecord;
use crate::membership::RoomKind;
use crate::store::rows::{
    CopyAnswer, OutboxContent, OutboxEntry, OutboxState, PeerDevice, SealedEnvelope, Sequence,
};
use crate::wire::content::{ChainPosition, ReceiptKind, RefusalReason};
use crate::wire::directory::decode_signed;
use crate::wire::envelope::EnvelopeKind;

fn yes(value: &Value, field: &str) -> bool {
    value[field].as_bool().unwrap_or_else(|| panic!("no yes or no in {field}"))
}

fn at(value: &Value, field: &str) -> Timestamp {
    Timestamp(number(value, field))
}

fn devices(value: &Value) -> Vec<DeviceId> {
    let id = |n: &Value| DeviceId::new(u32::try_from(n.as_u64().unwrap()).unwrap()).unwrap();
    value.as_array().unwrap().iter().map(id).collect()
}

#[test]
fn a_sender_s_numbers_are_followed_as_written() {
    for story in list(&read("delivery"), "senders") {
        let name = text(story, "name");
        let mut known = (!yes(story, "in_room")).then(|| Sequence::begin(0, [0; 32]));
        for (step, content) in list(story, "contents").iter().enumerate() {
            let (seq, hash) = (number(content, "sender_seq"), array(content, "hash"));
            let position = ChainPosition { seq, previous: array(content, "previous_own_hash") };
            let order = match &mut known {
                _ if seq == 0 => Order::Wrong,
                Some(known) => known.follow(&position, hash),
                None => {
                    known = Some(Sequence::begin(seq, hash));
                    Order::Next
                }
            };
            let verdict = match order {
                Order::Next => "in order".to_owned(),
                Order::Gap(missing) => format!("gap of {missing}"),
                Order::Late => "late".to_owned(),
                Order::Wrong => "alarm".to_owned(),
            };
            assert_eq!(verdict, text(content, "verdict"), "{name}, {step}");
        }
    }
}

fn copy() -> OutboxEntry {
    OutboxEntry {
        message: MessageId::from_bytes([1; 16]),
        to: DeviceAddress { user: UserId::from_bytes([2; 32]), device: DeviceId::FIRST },
        content: OutboxContent::Shared { answer: CopyAnswer::None },
        created_at: Timestamp(1),
        tried_at: Timestamp(0),
        state: OutboxState::Waiting,
    }
}

fn sealed() -> SealedEnvelope {
    SealedEnvelope {
        kind: EnvelopeKind::Session,
        tag: DeliveryTag::from_bytes([3; 16]),
        blob: vec![4; 512].into(),
        key: IdempotencyKey::from_bytes([5; 16]),
        sent_at: Timestamp(0),
        resent: false,
        held: false,
    }
}

/// A look at the outbox, as the engine takes one on connecting and every 10 minutes.
fn look(copy: &mut OutboxEntry, now: Timestamp, receipts_may_wait: bool) -> &'static str {
    copy.try_from(now);
    if !receipts_may_wait && copy.is_over(now) {
        return "not delivered";
    }
    said(copy.due(now))
}

fn said(due: Due) -> &'static str {
    match due {
        Due::Wait => "wait",
        Due::Seal => "seal",
        Due::Send => "send",
        Due::Ask => "ask",
        Due::NewSession => "new session",
    }
}

fn receipt(copy: &mut OutboxEntry, kind: ReceiptKind, now: Timestamp) -> &'static str {
    if copy.is_ended_by(kind) {
        return "done";
    }
    if kind == ReceiptKind::Held {
        copy.hold(now);
    }
    "stays"
}

#[test]
fn copies_go_their_way_as_written() {
    for story in list(&read("delivery"), "copies") {
        let mut copy = copy();
        for (index, step) in list(story, "steps").iter().enumerate() {
            let now = at(step, "at");
            let then = match text(step, "what") {
                "login" => look(&mut copy, now, true),
                "login, all taken in" | "10 minutes" => look(&mut copy, now, false),
                "sealed" => {
                    copy.state = OutboxState::Sealed(sealed());
                    said(copy.due(now))
                }
                "accepted" => {
                    copy.accept(now);
                    "wait"
                }
                "not queued" => said(copy.miss(now)),
                "session lost" => {
                    copy.state = OutboxState::Waiting;
                    said(copy.due(now))
                }
                "receipt" => {
                    let kind = match number(step, "kind") {
                        1 => ReceiptKind::Delivered,
                        2 => ReceiptKind::Read,
                        3 => ReceiptKind::Refused(RefusalReason::Other),
                        _ => ReceiptKind::Held,
                    };
                    receipt(&mut copy, kind, now)
                }
                other => panic!("{other}"),
            };
            assert_eq!(then, text(step, "then"), "{}, {index}", text(story, "name"));
        }
    }
}

#[test]
fn resets_are_begun_and_heeded_as_written() {
    for story in list(&read("delivery"), "resets") {
        let mut device = PeerDevice::new(DeviceId::FIRST);
        for (index, step) in list(story, "steps").iter().enumerate() {
            let now = at(step, "at");
            let then = if text(step, "what") == "begin" {
                match begin_reset(&mut device, now) {
                    true => format!("generation {}", device.generation),
                    false => "not yet".to_owned(),
                }
            } else {
                let generation = u32::try_from(number(step, "generation")).unwrap();
                device.generation = device.generation.max(generation);
                let counts = yes(step, "is_first") && generation > 0;
                let heeded = counts && heed_reset(&mut device, now);
                (if heeded { "send all again" } else { "nothing" }).to_owned()
            };
            assert_eq!(then, text(step, "then"), "{}, {index}", text(story, "name"));
        }
    }
}

#[test]
fn sessions_speak_and_leave_as_written() {
    for (index, case) in list(&read("delivery"), "sessions").iter().enumerate() {
        let sessions: Vec<_> = list(case, "sessions")
            .iter()
            .map(|session| Known {
                id: SessionId::from_bytes(array(session, "id")),
                generation: u32::try_from(number(session, "generation")).unwrap(),
                confirmed: if yes(session, "confirmed") { Confirmed::Yes } else { Confirmed::No },
                used_at: at(session, "used_at"),
            })
            .collect();
        let generation = u32::try_from(number(case, "generation")).unwrap();
        let (now, tag) = (at(case, "now"), DeliveryTag::from_bytes([7; 16]));
        let tag = yes(case, "knows_tag").then_some(tag);
        let speaks = speaking(&sessions, generation, tag, now);
        assert_eq!(speaks, SessionId::from_slice(&hex(case, "speaks")), "{index}");
        let mut left: Vec<_> =
            leaving(&sessions, generation, now).iter().map(|id| id.to_hex()).collect();
        left.sort_unstable();
        let expected = list(case, "leave_when_the_last_is_new");
        assert_eq!(left, expected.iter().map(|v| v.as_str().unwrap()).collect::<Vec<_>>());
    }
}

#[test]
fn messages_to_rooms_are_judged_as_written() {
    let vector = read("delivery");
    let cases = vector["room_messages"].as_object().unwrap();
    assert_eq!(cases.len(), 180);
    for (case, expected) in cases {
        let words: Vec<_> = case.split(", ").collect();
        let [own, read, event, kind, author] = words[..] else { panic!("{case}") };
        let facts = Facts {
            standing: match own {
                "member" => Standing::Member,
                "coming" => Standing::Coming,
                _ => Standing::Outside,
            },
            reading: match read {
                "read not yet" => Reading::NotYet,
                "read with news" => Reading::Stale,
                _ => Reading::Fresh,
            },
            named: if event == "event settled" { Named::Settled } else { Named::Unknown },
            kind: if kind == "open" { RoomKind::Open } else { RoomKind::Private },
            author: match author {
                "author member" => Author::Member,
                "author muted" => Author::Muted,
                "author banned" => Author::Banned,
                "author unheard" => Author::Unheard,
                "author left" => Author::Left,
                _ => Author::Barred,
            },
        };
        let verdict = match judge(&facts) {
            Verdict::Show => "show".to_owned(),
            Verdict::Hold => "hold".to_owned(),
            Verdict::Refuse(because) => format!("refuse {}", because.as_str()),
        };
        assert_eq!(verdict, expected.as_str().unwrap(), "{case}");
    }
}

#[test]
fn a_device_finds_its_place_as_written() {
    for case in list(&read("delivery"), "own_records") {
        let record = |bytes: &[u8]| UserRecord::verify(decode_signed(bytes).unwrap()).unwrap();
        let own = record(&hex(case, "record"));
        let keys = device(&case["device"]);
        let origin = match yes(case, "was_let_in") {
            true => Origin::Admitted,
            false => Origin::Restored,
        };
        let shown = |v: &Value| {
            record(&data_encoding::HEXLOWER.decode(v.as_str().unwrap().as_bytes()).unwrap())
        };
        let chain: Vec<_> = list(case, "shown").iter().map(shown).collect();
        let then = match place(&Own { record: &own, device: &keys, origin }, &chain) {
            None => "misbehaves",
            Some(Place::Refused) => "refused",
            Some(Place::Named(_)) => "login",
            Some(Place::Revoked(_)) => "revoked",
            Some(Place::Behind(_)) => "sign the next",
        };
        assert_eq!(then, text(case, "then"), "{}", text(case, "name"));
    }
}

#[test]
fn copies_for_devices_that_are_gone_are_passed_on_as_written() {
    for case in list(&read("delivery"), "device_changes") {
        let [has, former, named] = ["copies", "former", "named"].map(|f| devices(&case[f]));
        let new: Vec<_> = named.iter().filter(|d| !former.contains(d)).copied().collect();
        let gone = has.iter().filter(|d| !named.contains(d)).count();
        let mut passed_on = heirs(&has, gone, &new).into_iter();
        let then: Vec<_> = has
            .iter()
            .map(|d| if named.contains(d) { vec![*d] } else { passed_on.next().unwrap() })
            .collect();
        let expected: Vec<_> = list(case, "then").iter().map(devices).collect();
        assert_eq!(then, expected, "{case}");
    }
}

#[test]
fn times_are_shown_as_written() {
    for case in list(&read("delivery"), "times") {
        assert_eq!(said_at(at(case, "sent_at"), at(case, "now")), at(case, "shown"), "{case}");
    }
}
