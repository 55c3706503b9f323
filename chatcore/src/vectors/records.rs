use super::{array, hex, list, number, read, text};
use crate::crypto::DhSecret;
use crate::ids::{DeviceId, Timestamp, UserId};
use crate::keys::{
    DeviceKeys, IdentityKey, IdentityKeyPair, Nickname, RecordError, SigningKey, UserRecord,
};
use crate::trust::SafetyNumber;
use crate::wire::directory::{decode_signed, encode_signed};
use serde_json::Value;

pub(super) fn identity(user: &Value) -> IdentityKeyPair {
    IdentityKeyPair::from_seed(&array(user, "identity_seed"))
}

pub(super) fn device(user: &Value) -> DeviceKeys {
    DeviceKeys {
        id: DeviceId::new(u32::try_from(number(user, "device_id")).unwrap()).unwrap(),
        signing: SigningKey::from_seed(&array(user, "signing_seed")),
        agreement: DhSecret::from_bytes(&array(user, "agreement_secret")),
        link: DhSecret::from_bytes(&array(user, "link_secret")),
    }
}

fn verify(bytes: &[u8], expected: &UserId) -> Result<UserRecord, RecordError> {
    let record = UserRecord::verify(decode_signed(bytes)?)?;
    if record.user_id() == *expected { Ok(record) } else { Err(RecordError::OtherUser) }
}

#[test]
fn records_are_made_byte_for_byte() {
    let vector = read("user_record");
    let user = &vector["user"];
    let (identity, keys) = (identity(user), device(user));
    assert_eq!(identity.public().as_bytes()[..], hex(user, "identity_key"));
    assert_eq!(identity.public().user_id().as_bytes()[..], hex(user, "user_id"));
    let cert = keys.certify(&identity, Timestamp(number(&vector, "issued_at")));
    assert_eq!(cert.signed().body, hex(user, "cert_body"));
    assert_eq!(cert.signed().signature[..], hex(user, "cert_signature"));
    assert_eq!(cert.hash()[..], hex(user, "cert_hash"));

    let nickname = |v: &str| Nickname::new(text(&vector[v], "nickname")).unwrap();
    let v1 = UserRecord::first(&identity, nickname("v1"), cert.clone());
    let v2 = v1.next(&identity, nickname("v2"), vec![cert]);
    let closing = v2.next(&identity, nickname("closing"), vec![]);
    for (name, record) in [("v1", &v1), ("v2", &v2), ("closing", &closing)] {
        let expected = &vector[name];
        assert_eq!(record.signed().body, hex(expected, "body"), "{name}");
        assert_eq!(record.signed().signature[..], hex(expected, "signature"), "{name}");
        assert_eq!(record.hash()[..], hex(expected, "hash"), "{name}");
        assert_eq!(encode_signed(record.signed()), hex(expected, "bytes"), "{name}");
        assert_eq!(verify(&hex(expected, "bytes"), &record.user_id()).as_ref(), Ok(record));
    }
    assert!(v2.extends(&v1) && closing.extends(&v2) && !closing.extends(&v1));
}

#[test]
fn records_are_accepted_and_refused_as_written() {
    let vector = read("user_record");
    for case in list(&vector, "accepted") {
        let id = UserId::from_bytes(array(case, "user_id"));
        assert!(verify(&hex(case, "bytes"), &id).is_ok(), "{}", text(case, "name"));
    }
    for case in list(&vector, "refused") {
        let id = UserId::from_bytes(array(case, "user_id"));
        assert!(verify(&hex(case, "bytes"), &id).is_err(), "{}", text(case, "name"));
    }
    for case in list(&vector, "not_extending") {
        let next = UserRecord::verify(decode_signed(&hex(case, "bytes")).unwrap()).unwrap();
        let previous = UserRecord::verify(decode_signed(&hex(case, "previous")).unwrap()).unwrap();
        assert!(!next.extends(&previous), "{}", text(case, "name"));
    }
}

#[test]
fn safety_numbers_are_as_written() {
    let vector = read("user_record");
    let key = |user: &Value| IdentityKey::from_bytes(array(user, "identity_key"));
    let number = SafetyNumber::new(&key(&vector["user"]), &key(&vector["second_user"]));
    assert_eq!(number.digits(), text(&vector, "safety_number"));
    assert_eq!(number.qr_text(), text(&vector, "qr"));
}
