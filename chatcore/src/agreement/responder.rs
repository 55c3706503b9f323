//! The recipient's side: publishes prekeys and opens first messages (Noise initiator).

use snow::HandshakeState;

use super::{AgreementError, Context, PROTOCOL, SessionSecrets, VERSION};
use crate::crypto::DhPublicKey;
use crate::ids::{DeliveryTag, DeviceAddress, DeviceId, Timestamp};
use crate::keys::{
    DeviceCert, DeviceKeys, PrekeyFields, PrekeyRecord, PrekeySecret, RelayKey, UserRecord,
};
use crate::noise::resolver::Resolver;
use crate::ratchet::Session;
use crate::wire::envelope::FirstBlock;
use crate::wire::first_message::FirstMessagePayload;

fn context<'a>(
    relay: &'a RelayKey,
    recipient: DeviceAddress,
    secret: &'a PrekeySecret,
) -> Context<'a> {
    Context {
        relay,
        recipient,
        cert_hash: &secret.cert_hash,
        prekey_id: secret.id,
        kind: secret.kind,
        kem_ek: secret.kem.public(),
    }
}

/// Builds the state whose first message is published; the same secret gives the same message.
fn rebuild(
    context: &Context<'_>,
    device: &DeviceKeys,
    secret: &PrekeySecret,
) -> Result<(HandshakeState, [u8; 48]), AgreementError> {
    let (prologue, local) = (context.prologue(), device.agreement.to_bytes());
    let mut noise = Resolver::with_ephemeral(&secret.dh)
        .builder(PROTOCOL)?
        .prologue(&prologue)?
        .local_private_key(local.as_slice())?
        .build_initiator()?;
    let mut msg1 = [0; 48];
    noise.write_message(&[], &mut msg1)?;
    Ok((noise, msg1))
}

/// Makes the record to publish for a prekey.
///
/// # Errors
/// [`AgreementError::NotAuthentic`] can't occur for keys made here.
pub fn publish_prekey(
    relay: &RelayKey,
    recipient: DeviceAddress,
    device: &DeviceKeys,
    cert: &DeviceCert,
    secret: &PrekeySecret,
) -> Result<PrekeyRecord, AgreementError> {
    let (_, msg1) = rebuild(&context(relay, recipient, secret), device, secret)?;
    let fields = PrekeyFields {
        user_id: recipient.user,
        device_id: device.id,
        cert_hash: cert.hash(),
        prekey_id: secret.id,
        kind: secret.kind,
        msg1,
        kem_ek: secret.kem.public().clone(),
        not_after: secret.not_after,
    };
    Ok(PrekeyRecord::sign(device, fields))
}

/// A first message that authenticated, and who it says it is from.
///
/// The record is verified by itself; the caller holds it against what is known of the user, and
/// only then keeps the session.
#[derive(Debug)]
pub struct Accepted {
    /// The new session.
    pub session: Session,
    /// The sender's record.
    pub record: UserRecord,
    /// The sender's device.
    pub device: DeviceId,
    /// Tag for envelopes to the sender.
    pub delivery_tag: DeliveryTag,
}

/// Opens the block of a first message with the secret of the prekey it names.
///
/// # Errors
/// [`AgreementError`].
pub fn open_first(
    relay: &RelayKey,
    recipient: DeviceAddress,
    device: &DeviceKeys,
    secret: &PrekeySecret,
    block: &FirstBlock,
    now: Timestamp,
) -> Result<Accepted, AgreementError> {
    let context = context(relay, recipient, secret);
    let (mut noise, msg1) = rebuild(&context, device, secret)?;
    let shared = secret.kem.decapsulate(&block.kem_ct);
    noise.set_psk(2, context.psk(&shared, &block.kem_ct, &msg1).as_slice())?;
    let mut payload = vec![0; block.msg2.len()];
    let len = noise.read_message(&block.msg2, &mut payload)?;
    payload.truncate(len);

    let payload = FirstMessagePayload::decode(&payload)?;
    if !(payload.min_version..=payload.max_version).contains(&VERSION) {
        return Err(AgreementError::Incompatible);
    }
    // Of a key of low order every answer would fail, for ever.
    device.agreement.dh(&payload.ratchet_key).map_err(|_| AgreementError::NotAuthentic)?;
    let record = UserRecord::verify(payload.record)?;
    let cert = record.device(payload.device_id).ok_or(AgreementError::NotAuthentic)?;
    let remote = noise.get_remote_static().and_then(|k| k.first_chunk::<32>()).copied();
    if remote.map(DhPublicKey::from_bytes).as_ref() != Some(cert.agreement_key()) {
        return Err(AgreementError::NotAuthentic);
    }
    let secrets = SessionSecrets::derive(noise)?;
    let session = Session::accept(secrets, payload.ratchet_key, payload.generation, now);
    Ok(Accepted { session, device: payload.device_id, delivery_tag: payload.delivery_tag, record })
}
