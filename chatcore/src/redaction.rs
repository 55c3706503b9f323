//! No secret shows itself in `Debug` output or in an error.

use std::fmt::Debug;

use crate::agreement::{Offer, publish_prekey, start_session};
use crate::crypto::{DhSecret, KemSecret};
use crate::file::{FileKey, Manifest, chunk_plan};
use crate::ids::{BlobId, DeliveryTag, DeviceId, FileId, InviteToken, PrekeyId, Timestamp};
use crate::keys::{
    DeviceKeys, IdentityKeyPair, Nickname, PrekeyKind, PrekeySecret, RelayKeyPair, SigningKey,
    UserRecord,
};
use crate::ratchet::{ChainKey, HeaderKey, MessageKey, RootKey};
use crate::testing::rng;
use crate::wire::relay::{DeviceFrame, Request, WriteKey};

/// Asserts that no run of four secret bytes stands in the output, in hex or as a list.
fn redacted(value: &impl Debug, secret: &[u8]) {
    for shown in [format!("{value:?}"), format!("{value:#?}")] {
        let lower = shown.to_lowercase();
        for run in secret.windows(4) {
            assert!(!lower.contains(&data_encoding::HEXLOWER.encode(run)), "{shown}");
            let list = run.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
            assert!(!shown.contains(&list), "{shown}");
        }
    }
}

#[test]
fn secrets_are_redacted() {
    let bytes: [u8; 32] = std::array::from_fn(|i| u8::try_from(200 - i * 3).unwrap());
    let seed: [u8; 64] = std::array::from_fn(|i| u8::try_from(250 - i * 3).unwrap());
    redacted(&IdentityKeyPair::from_seed(&bytes), &bytes);
    redacted(&SigningKey::from_seed(&bytes), &bytes);
    redacted(&DhSecret::from_bytes(&bytes), &bytes);
    redacted(&KemSecret::from_seed(&seed), &seed);
    redacted(&RelayKeyPair::from_bytes(&seed), &seed);
    redacted(&RootKey::from_bytes(&bytes), &bytes);
    redacted(&ChainKey::from_bytes(&bytes), &bytes);
    redacted(&HeaderKey::from_bytes(&bytes), &bytes);
    redacted(&MessageKey::from_bytes(&bytes), &bytes);
    redacted(&FileKey::from_bytes(bytes), &bytes);
    redacted(&WriteKey(bytes), &bytes);
    let token = InviteToken::from_slice(&bytes[..16]).unwrap();
    redacted(&token, &bytes[..16]);

    let plan = chunk_plan(1);
    let manifest = Manifest {
        key: FileKey::from_bytes(bytes),
        file_id: FileId::generate(&mut rng()),
        blob_id: BlobId::generate(&mut rng()),
        size: 1,
        chunk_size: plan.chunk_size,
        chunk_count: plan.chunk_count,
        root: [0; 32],
        name: String::new(),
        media_type: String::new(),
    };
    redacted(&manifest, &bytes);
}

#[test]
fn secrets_are_redacted_in_what_holds_them() {
    let rng = &mut rng();
    let (relay, identity) = (RelayKeyPair::generate(rng), IdentityKeyPair::generate(rng));
    let device = DeviceKeys::generate(DeviceId::FIRST, rng);
    for secret in [&device.signing.seed(), &device.agreement.to_bytes(), &device.link.to_bytes()] {
        redacted(&device, secret.as_slice());
    }
    let now = Timestamp(1);
    let cert = device.certify(&identity, now);
    let record = UserRecord::first(&identity, Nickname::new("alice").unwrap(), cert.clone());
    let prekey = PrekeySecret::generate(PrekeyId(1), PrekeyKind::OneTime, &cert, now, rng);
    redacted(&prekey, prekey.dh.to_bytes().as_slice());
    redacted(&prekey, prekey.kem.seed().as_slice());

    let own = crate::ids::DeviceAddress { user: record.user_id(), device: device.id };
    let published = publish_prekey(&relay.public(), own, &device, &cert, &prekey).unwrap();
    let offer = Offer {
        relay: &relay.public(),
        device: &device,
        record: &record,
        delivery_tag: DeliveryTag::generate(rng),
        generation: 0,
    };
    let session = start_session(&offer, &cert, own, &published, now, rng).unwrap();
    let state = session.snapshot();
    redacted(&session, state.root.expose());
    redacted(&session, state.next_sending_header.expose());
    redacted(&session, state.sending.as_ref().unwrap().key.expose());
    redacted(&session, state.own.as_ref().unwrap().to_bytes().as_slice());

    let token = InviteToken::generate(rng);
    let request = Request::Register { token: Some(token.clone()), record: record.signed().clone() };
    redacted(&DeviceFrame { request_id: 1, request }, token.as_bytes());
}
