//! From a content to sealed envelopes, and to the relay.

use bytes::Bytes;

use super::error::EngineError;
use super::requests::{Pending, Sent};
use super::sessions::{incoming_tag, sending_session};
use super::transaction::Transaction;
use crate::ids::{DeliveryTag, DeviceAddress, IdempotencyKey, MessageId};
use crate::ratchet::SealError;
use crate::store::rows::{Contact, Payload, PeerDevice, SealedEnvelope};
use crate::wire::content::{Body, ChainPosition, Content};
use crate::wire::envelope::{Envelope, EnvelopeKind};
use crate::wire::limits::{MAX_ENVELOPES, MAX_RECEIPTS, MAX_TTL};
use crate::wire::relay::Request;

/// Most bytes of blobs in one request.
const MAX_BATCH: usize = 900 * 1024;

/// Longest encoded content that fits an envelope whatever precedes it.
pub const MAX_INLINE: usize = 24 * 1024;

/// Makes the content of a message to one device; moves the conversation's chain.
pub(super) fn make_content(
    tx: &mut Transaction<'_, '_>,
    address: &DeviceAddress,
    device: &mut PeerDevice,
    message_id: MessageId,
    body: Body,
) -> Content {
    let in_chain = matches!(body, Body::Text(_) | Body::File(_) | Body::LongText(_));
    let position = in_chain.then(|| {
        let seq = device.sent_seq + 1;
        ChainPosition { seq, previous: device.sent_hash }
    });
    let announce = !device.tag_confirmed && !device.sessions.is_empty();
    let next_tag = announce.then(|| incoming_tag(tx, device, address));
    let taken = device.due_receipts.len().min(MAX_RECEIPTS);
    let receipts = device.due_receipts.drain(..taken).collect();
    Content { message_id, position, sent_at: tx.now, receipts, next_tag, body }
}

/// Makes a content that nothing keeps, and seals it; the receipts in it stay due unless it is sealed.
pub(super) fn seal_unkept(
    tx: &mut Transaction<'_, '_>,
    to: &DeviceAddress,
    device: &mut PeerDevice,
    message: MessageId,
    body: Body,
) -> Result<Option<SealedEnvelope>, EngineError> {
    let mut content = make_content(tx, to, device, message, body);
    let sealed = seal(tx, device, &content.encode());
    match sealed {
        Ok(Some(_)) if !content.receipts.is_empty() => tx.follow.receipts_owed(*to, device, tx.now),
        Ok(Some(_)) => {}
        _ => {
            device.due_receipts.splice(..0, content.receipts.drain(..));
        }
    }
    sealed
}

/// Seals a content in a session; saves the session. `None`: a session is needed first.
pub(super) fn seal(
    tx: &mut Transaction<'_, '_>,
    device: &PeerDevice,
    content: &[u8],
) -> Result<Option<SealedEnvelope>, EngineError> {
    let Some(mut session) = sending_session(tx, device)? else {
        return Ok(None);
    };
    let (kind, blob) = match session.seal(content, tx.begins(), tx.rng) {
        Ok(sealed) => sealed,
        Err(SealError::Unusable) => return Ok(None),
        Err(SealError::TooLong(_)) => return Err(EngineError::TextTooLong { max: MAX_INLINE }),
    };
    let tag = match kind {
        // Who knows a tag is no stranger, and goes before those.
        EnvelopeKind::First => device.outgoing_tag.unwrap_or(DeliveryTag::ZERO),
        EnvelopeKind::Session => match device.outgoing_tag {
            Some(tag) => tag,
            None => return Ok(None),
        },
    };
    tx.put(&session);
    let key = IdempotencyKey::generate(tx.rng);
    let blob = Bytes::from(blob);
    let sent_at = tx.now;
    Ok(Some(SealedEnvelope { kind, tag, blob, key, sent_at, resent: false, held: false }))
}

/// A copy of what goes to many, for one device.
pub(super) struct SharedCopy {
    sealed: Option<SealedEnvelope>,
    changes_contact: bool,
}

impl SharedCopy {
    /// Tells whether the contact is to be saved.
    pub(super) const fn changes_contact(&self) -> bool {
        self.changes_contact
    }

    /// Returns the envelope; `None`: a session is needed first.
    pub(super) fn into_sealed(self) -> Option<SealedEnvelope> {
        self.sealed
    }
}

/// Seals a payload for one device; the receipts that it is owed ride with it.
pub(super) fn seal_shared(
    tx: &mut Transaction<'_, '_>,
    contact: &mut Contact,
    to: DeviceAddress,
    payload: &Payload,
) -> Result<SharedCopy, EngineError> {
    let device = contact.device_mut(to.device);
    if device.sessions.is_empty() {
        return Ok(SharedCopy { sealed: None, changes_contact: false });
    }
    let announces = !device.tag_confirmed;
    let next_tag = announces.then(|| incoming_tag(tx, device, &to));
    let taken = device.due_receipts.len().min(MAX_RECEIPTS);
    let receipts = device.due_receipts.get(..taken).unwrap_or_default();
    let content = Content::encode_for_one(&payload.content, receipts, next_tag);
    let sealed = match seal(tx, device, &content) {
        // The receipts can go another way.
        Err(EngineError::TextTooLong { .. }) => {
            seal(tx, device, &Content::encode_for_one(&payload.content, &[], None))?
        }
        sealed => sealed?,
    };
    if sealed.is_none() {
        return Ok(SharedCopy { sealed, changes_contact: announces });
    }
    if taken > 0 {
        device.due_receipts.drain(..taken);
        tx.follow.receipts_owed(to, device, tx.now);
    }
    Ok(SharedCopy { sealed, changes_contact: announces || taken > 0 })
}

pub(super) fn envelope(to: DeviceAddress, sealed: &SealedEnvelope) -> Envelope {
    Envelope {
        to,
        tag: sealed.tag,
        kind: sealed.kind,
        blob: sealed.blob.clone(),
        ttl: MAX_TTL,
        idempotency_key: sealed.key,
    }
}

/// Sends envelopes in as few requests as their sizes allow.
pub(super) fn send(tx: &mut Transaction<'_, '_>, envelopes: Vec<(Sent, Envelope)>) {
    let (mut sent, mut batch, mut bytes) = (Vec::new(), Vec::new(), 0);
    for (what, envelope) in envelopes {
        let full = bytes + envelope.blob.len() > MAX_BATCH || batch.len() == MAX_ENVELOPES;
        if full {
            let request = Request::SendMany(std::mem::take(&mut batch));
            tx.ask(request, Pending::Send(std::mem::take(&mut sent)));
            bytes = 0;
        }
        bytes += envelope.blob.len();
        sent.push(what);
        batch.push(envelope);
    }
    if !batch.is_empty() {
        tx.ask(Request::SendMany(batch), Pending::Send(sent));
    }
}
