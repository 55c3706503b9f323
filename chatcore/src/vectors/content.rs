use super::{array, hex, list, number, read, text};
use crate::ids::{DeliveryTag, MessageId, Timestamp};
use crate::wire::content::{Body, Content, ReceiptKind, RefusalReason};
use crate::wire::envelope::{pad, unpad};

#[test]
fn contents_are_as_written() {
    let v = read("envelope");
    for case in list(&v, "contents") {
        let name = text(case, "name");
        let bytes = hex(case, "bytes");
        let content = Content::decode(&bytes).unwrap();
        assert_eq!(content.message_id, MessageId::from_bytes(array(case, "message_id")), "{name}");
        assert_eq!(content.sent_at, Timestamp(number(case, "sent_at")), "{name}");
        assert_eq!(content.position.map_or(0, |p| p.seq), number(case, "sender_seq"), "{name}");
        let hash = content.position.map_or_else(Vec::new, |p| p.previous.to_vec());
        assert_eq!(hash, hex(case, "previous_own_hash"), "{name}");
        let tag = hex(case, "next_tag");
        assert_eq!(content.next_tag, DeliveryTag::from_slice(&tag), "{name}");
        // Of a kind that a later version adds nothing is said.
        let all = list(case, "receipts");
        let receipts: Vec<_> =
            all.iter().filter(|r| (1..=4).contains(&number(r, "kind"))).collect();
        assert_eq!(content.receipts.len(), receipts.len(), "{name}");
        for (receipt, expected) in content.receipts.iter().zip(&receipts) {
            assert_eq!(receipt.message_id.as_bytes()[..], hex(expected, "message_id"));
            let (kind, reason) = match receipt.kind {
                ReceiptKind::Delivered => (1, 0),
                ReceiptKind::Read => (2, 0),
                ReceiptKind::Refused(RefusalReason::Other) => (3, 0),
                ReceiptKind::Refused(RefusalReason::NotAllowed) => (3, 1),
                ReceiptKind::Refused(RefusalReason::Expired) => (3, 2),
                ReceiptKind::Refused(RefusalReason::Unavailable) => (3, 3),
                ReceiptKind::Refused(RefusalReason::NotAuthentic) => (3, 4),
                ReceiptKind::Held => (4, 0),
            };
            assert_eq!(number(expected, "kind"), kind, "{name}");
            // What a newer program says is another reason.
            let known = expected["reason"].as_u64().filter(|reason| *reason <= 4);
            assert_eq!(known.unwrap_or(0), reason, "{name}");
        }
        let kind = match &content.body {
            Body::Text(said) => {
                assert_eq!(said, text(&case["body"], "text"));
                "text"
            }
            Body::Empty => "empty",
            Body::Profile(_) => "profile",
            Body::Reset => "reset",
            Body::Unknown => "unknown",
            Body::File(_) => "file",
            Body::LongText(_) => "long_text",
            Body::RoomMessage(_) => "room_message",
            Body::RoomUpdate(_) => "room_update",
            Body::RoomQuery { .. } => "room_query",
        };
        assert_eq!(kind, text(&case["body"], "kind"), "{name}");
        let is_newer =
            receipts.len() < all.len() || receipts.iter().any(|r| r["reason"].as_u64() > Some(4));
        if content.body != Body::Unknown && !is_newer {
            assert_eq!(content.encode().to_vec(), bytes, "{name}");
        }
    }
    for case in list(&v, "same") {
        let contents = ["bytes", "same_as"].map(|f| Content::decode(&hex(case, f)).unwrap());
        assert_eq!(contents[0], contents[1], "{}", text(case, "name"));
    }
    for case in list(&v, "refused") {
        assert!(Content::decode(&hex(case, "bytes")).is_err(), "{}", text(case, "name"));
    }
}

#[test]
fn padding_is_as_written() {
    let v = read("envelope");
    for case in list(&v, "padding") {
        let overhead = usize::try_from(number(case, "overhead")).unwrap();
        let content = vec![1; usize::try_from(number(case, "content_length")).unwrap()];
        let blob = pad(&content, overhead).ok().map(|p| (p.len() + overhead) as u64);
        assert_eq!(blob, case["blob_length"].as_u64());
    }
    for case in list(&v, "padding_round_trip") {
        assert_eq!(unpad(&hex(case, "padded")).unwrap(), hex(case, "content"));
    }
    for case in list(&v, "padding_refused") {
        assert!(unpad(&hex(case, "bytes")).is_err(), "{}", text(case, "name"));
    }
}
