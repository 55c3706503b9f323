//! Rows of what is brought to the relay and fetched from there, as messages look at them.

use super::clock::is_due;
use super::error::EngineError;
use super::requests::Pending;
use super::transaction::Transaction;
use crate::file::{FileKind, Manifest};
use crate::ids::{BlobId, DAY, MessageId, UserId};
use crate::store::row::ReadRows;
use crate::store::rows::{Download, MessageIndex, OutboxContent, OutboxEntry, Payload, Transfer};
use crate::wire::content::{Body, Content, ReceiptKind};
use crate::wire::relay::Request;

/// Milliseconds after which the life of a blob begins again when another envelope names it.
const RENEW_AFTER: u64 = DAY;

/// Tells whether a message of ours waits until the relay has what it names.
pub(super) fn is_queued(
    tx: &Transaction<'_, '_>,
    key: &UserId,
    message: &MessageId,
) -> Result<bool, EngineError> {
    let Some(MessageIndex { blob: Some(blob), .. }) = tx.get::<MessageIndex>(&(*key, *message))?
    else {
        return Ok(false);
    };
    Ok(matches!(tx.get::<Transfer>(&blob.as_bytes().to_vec())?, Some(Transfer::Queued { .. })))
}

/// A message was given up: what it names need not be brought anywhere.
pub(super) fn forget_upload(
    tx: &mut Transaction<'_, '_>,
    blob: Option<BlobId>,
) -> Result<(), EngineError> {
    if let Some(blob) = blob
        && let Some(Transfer::Queued { .. }) = tx.get::<Transfer>(&blob.as_bytes().to_vec())?
    {
        tx.delete::<Transfer>(&blob.as_bytes().to_vec());
    }
    Ok(())
}

/// Returns the receipt that a message of the history has by now; `None` for one that is not there.
pub(super) fn receipt_of(
    tx: &Transaction<'_, '_>,
    user: &UserId,
    message: &MessageId,
) -> Result<Option<ReceiptKind>, EngineError> {
    if tx.get::<MessageIndex>(&(*user, *message))?.is_none() {
        return Ok(None);
    }
    Ok(Some(match tx.download(user, message)? {
        Some(Download { given_up: Some(failure), .. }) => ReceiptKind::Refused(failure.refusal()),
        // The person can't have it before it is fetched.
        Some(Download { kind: FileKind::LongText, .. }) => ReceiptKind::Held,
        Some(Download { kind: FileKind::File, .. }) | None => ReceiptKind::Delivered,
    }))
}

/// The life of a blob at the relay begins again when an envelope that names it goes out long after
/// the one before: who gets that one must be able to fetch it.
pub(super) fn renew_blob(
    tx: &mut Transaction<'_, '_>,
    entry: &OutboxEntry,
) -> Result<(), EngineError> {
    if tx.settled.since(entry.created_at) < RENEW_AFTER {
        return Ok(());
    }
    let Some(manifest) = manifest_of(tx, entry)? else { return Ok(()) };
    let key = manifest.blob_id.as_bytes().to_vec();
    let Some(Transfer::Offered { to, message, blob, write_key, waiting, renewed_at }) =
        tx.get::<Transfer>(&key)?
    else {
        return Ok(());
    };
    if !is_due(renewed_at, RENEW_AFTER, tx.now) {
        return Ok(());
    }
    let request = Request::CompleteBlob { blob, write_key: write_key.clone() };
    let renewed_at = tx.now;
    tx.put(&Transfer::Offered { to, message, blob, write_key, waiting, renewed_at });
    tx.ask(request, Pending::RenewBlob);
    Ok(())
}

/// Returns the file that an outgoing message names.
fn manifest_of(
    tx: &Transaction<'_, '_>,
    entry: &OutboxEntry,
) -> Result<Option<Manifest>, EngineError> {
    let body = match &entry.content {
        OutboxContent::Own(content) => Content::decode(content).ok().map(|content| content.body),
        OutboxContent::Shared { .. } => tx
            .get::<Payload>(&entry.message)?
            .and_then(|payload| payload.room_content())
            .map(|c| c.body),
    };
    Ok(match body {
        Some(Body::File(manifest) | Body::LongText(manifest)) => Some(manifest),
        _ => None,
    })
}
