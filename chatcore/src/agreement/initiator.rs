//! The sender's side: starts a session from a prekey (Noise responder).

use rand::CryptoRng;

use super::{AgreementError, Context, PROTOCOL, SessionSecrets, VERSION};
use crate::crypto::DhSecret;
use crate::ids::{DeliveryTag, DeviceAddress, Timestamp};
use crate::keys::{DeviceCert, DeviceKeys, PrekeyRecord, RelayKey, UserRecord};
use crate::noise::resolver::Resolver;
use crate::ratchet::Session;
use crate::wire::envelope::FirstBlock;
use crate::wire::first_message::FirstMessagePayload;

/// Start of a session: by whom, and how.
#[derive(Debug)]
pub struct Offer<'a> {
    /// The relay both are at.
    pub relay: &'a RelayKey,
    /// Our device.
    pub device: &'a DeviceKeys,
    /// Our newest record.
    pub record: &'a UserRecord,
    /// Tag the peer shall use for us.
    pub delivery_tag: DeliveryTag,
    /// 0, more after resets.
    pub generation: u32,
}

/// Starts a session with the device of `cert`, whose prekey was claimed.
///
/// Draws the encapsulation randomness, A0, and the Noise ephemeral, 32 bytes each, in this order.
///
/// # Errors
/// [`AgreementError`].
pub fn start_session(
    offer: &Offer<'_>,
    cert: &DeviceCert,
    peer: DeviceAddress,
    prekey: &PrekeyRecord,
    now: Timestamp,
    rng: &mut dyn CryptoRng,
) -> Result<Session, AgreementError> {
    start_session_between(offer, (cert, peer), prekey, (now, now), rng)
}

/// As [`start_session`] where the clock is doubted: the session begins at the later of the two times that it may
/// be, and certificate and prekey are over only by the earlier one.
pub(crate) fn start_session_between(
    offer: &Offer<'_>,
    whom: (&DeviceCert, DeviceAddress),
    prekey: &PrekeyRecord,
    times: (Timestamp, Timestamp),
    rng: &mut dyn CryptoRng,
) -> Result<Session, AgreementError> {
    start_with(offer, whom, prekey, times, DhSecret::generate, rng)
}

fn start_with(
    offer: &Offer<'_>,
    (cert, peer): (&DeviceCert, DeviceAddress),
    prekey: &PrekeyRecord,
    (earlier, later): (Timestamp, Timestamp),
    draw: impl FnOnce(&mut dyn CryptoRng) -> DhSecret,
    rng: &mut dyn CryptoRng,
) -> Result<Session, AgreementError> {
    if !cert.is_fresh(earlier) || !prekey.is_fresh(earlier) {
        return Err(AgreementError::Expired);
    }
    let fields = prekey.fields();
    let context = Context {
        relay: offer.relay,
        recipient: peer,
        cert_hash: &fields.cert_hash,
        prekey_id: fields.prekey_id,
        kind: fields.kind,
        kem_ek: &fields.kem_ek,
    };
    let (kem_ct, secret) = fields.kem_ek.encapsulate(rng);
    let ratchet_secret = draw(rng);
    let payload = FirstMessagePayload {
        record: offer.record.signed().clone(),
        device_id: offer.device.id,
        ratchet_key: *ratchet_secret.public(),
        min_version: VERSION,
        max_version: VERSION,
        generation: offer.generation,
        delivery_tag: offer.delivery_tag,
    }
    .encode();

    let (prologue, local) = (context.prologue(), offer.device.agreement.to_bytes());
    let mut noise = Resolver::drawing(rng)
        .builder(PROTOCOL)?
        .prologue(&prologue)?
        .local_private_key(local.as_slice())?
        .remote_public_key(cert.agreement_key().as_bytes())?
        .build_responder()?;
    noise.read_message(&fields.msg1, &mut [0; 16])?;
    noise.set_psk(2, context.psk(&secret, &kem_ct, &fields.msg1).as_slice())?;
    let mut msg2 = vec![0; payload.len() + 128];
    let len = noise.write_message(&payload, &mut msg2)?;
    msg2.truncate(len);

    let secrets = SessionSecrets::derive(noise)?;
    let block = FirstBlock { prekey_id: fields.prekey_id, kem_ct, msg2 };
    Ok(Session::start(secrets, ratchet_secret, block, offer.generation, later))
}

#[cfg(test)]
mod tests {
    use super::super::responder::{open_first, publish_prekey};
    use super::*;
    use crate::crypto::DhPublicKey;
    use crate::ids::{DeviceId, PrekeyId};
    use crate::keys::{
        DeviceKeys, IdentityKeyPair, Nickname, PrekeyKind, PrekeySecret, RelayKeyPair, UserRecord,
    };
    use crate::wire::envelope::FirstBlock;

    /// An answer in such a session would fail, and be tried again and again.
    #[test]
    fn a_ratchet_key_of_low_order_is_refused() {
        let (rng, now) = (&mut crate::testing::rng(), Timestamp(1_000_000_000));
        let relay = RelayKeyPair::generate(rng).public();
        let identity = IdentityKeyPair::generate(rng);
        let keys = DeviceKeys::generate(DeviceId::FIRST, rng);
        let cert = keys.certify(&identity, now);
        let record = UserRecord::first(&identity, Nickname::new("a").unwrap(), cert.clone());
        let own = DeviceAddress { user: record.user_id(), device: keys.id };
        let secret = PrekeySecret::generate(PrekeyId(1), PrekeyKind::OneTime, &cert, now, rng);
        let prekey = publish_prekey(&relay, own, &keys, &cert, &secret).unwrap();
        let offer = Offer {
            relay: &relay,
            device: &keys,
            record: &record,
            delivery_tag: DeliveryTag::from_bytes([1; 16]),
            generation: 0,
        };
        let open = |public: Option<[u8; 32]>| {
            let draw = |rng: &mut dyn CryptoRng| match public {
                None => DhSecret::generate(rng),
                Some(public) => DhSecret::from_pair(&[1; 32], DhPublicKey::from_bytes(public)),
            };
            let rng = &mut crate::testing::rng();
            let mut session =
                start_with(&offer, (&cert, own), &prekey, (now, now), draw, rng).unwrap();
            let (_, blob) = session.seal(b"x", now, rng).unwrap();
            let (block, _) = FirstBlock::decode(&blob).unwrap();
            open_first(&relay, own, &keys, &secret, &block, now).map(|accepted| accepted.device)
        };
        assert_eq!(open(None).unwrap(), keys.id);
        let mut one = [0; 32];
        one[0] = 1;
        for public in [[0; 32], one] {
            assert!(matches!(open(Some(public)), Err(AgreementError::NotAuthentic)));
        }
    }
}
