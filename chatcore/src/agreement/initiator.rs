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

/// Who starts a session, and how.
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
    if !cert.is_fresh(now) || !prekey.is_fresh(now) {
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
    let ratchet_secret = DhSecret::generate(rng);
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
    Ok(Session::start(secrets, ratchet_secret, block, offer.generation, now))
}
