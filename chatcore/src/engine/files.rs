//! Files that are on their way, and what became of them.

use super::error::EngineError;
use super::event::Event;
use super::message::Message;
use super::receipts::{owe_all, owe_read};
use super::requests::Pending;
use super::rooms::members_of;
use super::transaction::Transaction;
use crate::file::Manifest;
use crate::ids::{BlobId, Conversation, DAY, HOUR, MINUTE, MessageId, Timestamp, UserId};
use crate::store::row::ReadRows;
use crate::store::rows::{Download, FetchFailure, HistoryEntry, MessageIndex, Transfer, UploadRun};
use crate::wire::content::{Body, Content, ReceiptKind, RoomContent};
use crate::wire::limits::MAX_TEXT;
use crate::wire::relay::{Request, WriteKey};

/// Milliseconds until the next attempt, after each for which the relay had nothing; after the last of
/// these the file is given up. A relay may be back from a backup, or its disk slow to come up.
const PATIENCE: [u64; 5] = [MINUTE, 10 * MINUTE, HOUR, 6 * HOUR, LONGEST_PATIENCE];
/// The longest of them.
pub(super) const LONGEST_PATIENCE: u64 = DAY;
/// Most bytes of long texts of somebody who is no contact that are fetched unasked on one day.
pub(super) const MAX_UNASKED: u64 = 4 << 20;

/// A file being uploaded; what a later run needs to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// For whom.
    pub to: Conversation,
    /// Everything but the root, which is known at the end.
    pub manifest: Manifest,
    /// Where the file is.
    pub path: String,
    /// When it was last changed, to notice a change.
    pub modified: Timestamp,
    /// Allows writing at the relay.
    pub write_key: WriteKey,
    /// Salt seed of each run, and what the relay had when it began.
    pub runs: Vec<([u8; 32], Vec<u8>)>,
}

pub(super) fn save_upload(tx: &mut Transaction<'_, '_>, upload: Upload) {
    let runs = upload.runs.into_iter();
    tx.put(&Transfer::Upload {
        to: upload.to,
        manifest: upload.manifest,
        path: upload.path,
        modified: upload.modified,
        write_key: upload.write_key,
        runs: runs.map(|(salt_seed, stored)| UploadRun { salt_seed, stored }).collect(),
    });
}

pub(super) fn drop_upload(tx: &mut Transaction<'_, '_>, blob: &BlobId) -> Result<(), EngineError> {
    if let Some(upload) = tx.get::<Transfer>(&blob.as_bytes().to_vec())? {
        tx.delete::<Transfer>(&upload.key());
    }
    Ok(())
}

/// Returns the blob of a file that we sent to a user, in a conversation with them or in a room. Found by the message,
/// so that what somebody claims to have read costs the same whatever was sent before.
fn offered_blob(
    tx: &Transaction<'_, '_>,
    user: &UserId,
    message: &MessageId,
) -> Result<Option<BlobId>, EngineError> {
    let index = match tx.get::<MessageIndex>(&(*user, *message))? {
        Some(index) => Some(index),
        None => tx.get::<MessageIndex>(&(tx.profile()?.user(), *message))?,
    };
    Ok(index.and_then(|index| index.blob))
}

/// Has a file fetched that was given up, or that is to wait.
pub(super) fn retry(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    message: &MessageId,
) -> Result<(), EngineError> {
    if let Some(download) = tx.download(user, message)? {
        let Download { from, message, kind, said, part_in, .. } = download;
        let fresh = Download { part_in, ..Download::new(from, message, kind, said) };
        tx.put(&Transfer::Download(fresh));
    }
    Ok(())
}

/// Notes where a part of a file lies.
pub(super) fn fetch_into(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    message: &MessageId,
    folder: String,
) -> Result<(), EngineError> {
    if let Some(download) = tx.download(user, message)? {
        tx.put(&Transfer::Download(Download { part_in: folder, ..download }));
    }
    Ok(())
}

/// A file could not be fetched: it waits for the next attempt, or is given up and both sides told.
pub(super) fn fetch_failed(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    message: &MessageId,
    failure: FetchFailure,
) -> Result<(), EngineError> {
    let Some(mut download) = tx.download(user, message)? else { return Ok(()) };
    if download.given_up.is_some() {
        return Ok(());
    }
    let patience = PATIENCE.get(usize::try_from(download.failures).unwrap_or(usize::MAX));
    match (failure, patience) {
        (FetchFailure::Unavailable, Some(patience)) => {
            // By a clock that is doubted the times between the attempts say little: they do not count.
            download.failures += u32::from(tx.now == tx.settled);
            download.not_before = tx.now.plus(*patience);
            tx.put(&Transfer::Download(download));
            return Ok(());
        }
        _ => download.given_up = Some(failure),
    }
    tx.put(&Transfer::Download(download));
    let Some((_, entry)) = find(tx, user, message)? else { return Ok(()) };
    let Some(mut contact) = tx.contact(user)? else { return Ok(()) };
    let name = match entry.body() {
        Some(Body::File(manifest)) => manifest.name,
        _ => String::new(),
    };
    if let Some(Body::LongText(manifest)) = entry.body() {
        contact.fetched.add(tx.now, manifest.size);
    }
    let told = Message::of(tx, &contact, &entry)?;
    tx.event(Event::FileFailed { message: told, name, reason: failure });
    owe_all(tx, &mut contact, *message, ReceiptKind::Refused(failure.refusal()));
    tx.put(&contact);
    Ok(())
}

/// The recipient has a file of ours: the relay need not keep it.
pub(super) fn file_fetched(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    fetched: &MessageId,
) -> Result<(), EngineError> {
    let Some(blob) = offered_blob(tx, user, fetched)? else { return Ok(()) };
    let Some(Transfer::Offered { to, message, blob, write_key, waiting, renewed_at }) =
        tx.get::<Transfer>(&blob.as_bytes().to_vec())?
    else {
        return Ok(());
    };
    let left: Vec<UserId> = waiting.iter().copied().filter(|w| w != user).collect();
    match to {
        Conversation::User(to) if to != *user => return Ok(()),
        // Only one of those who were sent it counts, each once.
        Conversation::Room(_) if left.len() == waiting.len() => return Ok(()),
        Conversation::Room(_) if !left.is_empty() => {
            let waiting = left;
            let offered = Transfer::Offered { to, message, blob, write_key, waiting, renewed_at };
            tx.put(&offered);
            return Ok(());
        }
        Conversation::User(_) | Conversation::Room(_) => {}
    }
    tx.delete::<Transfer>(&blob.as_bytes().to_vec());
    let mut recipients = match to {
        Conversation::User(user) => vec![user],
        Conversation::Room(room) => members_of(tx, &room)?.into_iter().collect(),
    };
    recipients.push(*user);
    for user in recipients {
        if tx.contact(&user)?.is_some_and(|contact| contact.named_devices().len() > 1) {
            // Another device of theirs may still want it: it goes when its life is over.
            return Ok(());
        }
    }
    let request = Request::DeleteBlob { blob, write_key };
    tx.ask(request, Pending::DeleteBlob);
    Ok(())
}

pub(super) fn file_saved(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    message: &MessageId,
    path: String,
) -> Result<(), EngineError> {
    // Declined meanwhile.
    let Some((number, mut entry)) = find(tx, user, message)? else { return Ok(()) };
    entry.file_path.clone_from(&path);
    tx.put_at(&(entry.conversation(), number), &entry);
    let manifest = match entry.body() {
        Some(Body::File(manifest)) => Some(manifest),
        _ => None,
    };
    if let (Some(manifest), Some(contact)) = (manifest, tx.contact(user)?) {
        let (message, name, size) =
            (Message::of(tx, &contact, &entry)?, manifest.name, manifest.size);
        tx.event(Event::FileSaved { message, name, size, path });
    }
    fetched(tx, user, message)
}

pub(super) fn long_text_fetched(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    message: &MessageId,
    text: String,
) -> Result<(), EngineError> {
    if text.len() > MAX_TEXT {
        return Err(EngineError::TextTooLong { max: MAX_TEXT });
    }
    let Some((number, mut entry)) = find(tx, user, message)? else { return Ok(()) };
    entry.content =
        with_body(&entry, Body::Text(text.clone())).ok_or(EngineError::UnknownContact)?;
    tx.put_at(&(entry.conversation(), number), &entry);
    fetched(tx, user, message)?;
    if let Some(mut contact) = tx.contact(user)? {
        contact.fetched.add(tx.now, text.len() as u64);
        tx.put(&contact);
        let message = Message::of(tx, &contact, &entry)?;
        tx.event(Event::Text { message, text });
    }
    Ok(())
}

/// Tells every device of the sender that its file may go.
fn fetched(
    tx: &mut Transaction<'_, '_>,
    user: &UserId,
    message: &MessageId,
) -> Result<(), EngineError> {
    tx.delete::<Transfer>(&Download::key(user, message));
    let mut contact = tx.contact(user)?.ok_or(EngineError::UnknownContact)?;
    owe_read(tx, &mut contact, *message);
    tx.put(&contact);
    Ok(())
}

fn find(
    tx: &Transaction<'_, '_>,
    user: &UserId,
    message: &MessageId,
) -> Result<Option<(u64, HistoryEntry)>, EngineError> {
    let Some(index) = tx.get::<MessageIndex>(&(*user, *message))? else { return Ok(None) };
    let conversation = index.room.map_or(Conversation::User(*user), Conversation::Room);
    Ok(tx.get::<HistoryEntry>(&(conversation, index.history))?.map(|entry| (index.history, entry)))
}

/// Returns a message of the history with another body.
fn with_body(entry: &HistoryEntry, body: Body) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    Some(match entry.room {
        None => Content { body, ..Content::decode(&entry.content).ok()? }.encode(),
        Some(_) => RoomContent { body, ..RoomContent::decode(&entry.content).ok()? }.encode(),
    })
}
