//! What the engine knows of files: which are on their way, and what became of them.

use super::contacts::sender;
use super::rooms::{RoomRef, reference};
use super::tx::Tx;
use super::{Engine, EngineError, Event, Pending};
use crate::file::Manifest;
use crate::ids::{BlobId, Conversation, MessageId, Timestamp, UserId};
use crate::store::rows::{HistoryEntry, Transfer, UploadRun};
use crate::wire::content::{Body, Content, RoomContent};
use crate::wire::limits::MAX_TEXT;
use crate::wire::relay::{Request, WriteKey};

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

pub(super) fn save_upload(tx: &mut Tx<'_, '_>, upload: Upload) {
    let runs = upload.runs.into_iter();
    tx.save_transfer(&Transfer::Upload {
        to: upload.to,
        manifest: upload.manifest,
        path: upload.path,
        modified: upload.modified,
        write_key: upload.write_key,
        runs: runs.map(|(salt_seed, stored)| UploadRun { salt_seed, stored }).collect(),
    });
}

pub(super) fn drop_upload(tx: &mut Tx<'_, '_>, blob: &BlobId) -> Result<(), EngineError> {
    if let Some(upload) = tx.transfer(blob.as_bytes())? {
        tx.delete_transfer(&upload);
    }
    Ok(())
}

/// An upload becomes a file that was sent.
pub(super) fn offer(
    tx: &mut Tx<'_, '_>,
    to: Conversation,
    message: MessageId,
    blob: BlobId,
) -> Result<(), EngineError> {
    if let Some(Transfer::Upload { write_key, .. }) = tx.transfer(blob.as_bytes())? {
        let waiting = Vec::new();
        tx.save_transfer(&Transfer::Offered { to, message, blob, write_key, waiting });
    }
    Ok(())
}

/// Takes a message off the list of files to fetch.
pub(super) fn forget(tx: &mut Tx<'_, '_>, user: &UserId, fetched: &MessageId) {
    tx.delete_transfer(&Transfer::Download { from: *user, message: *fetched });
}

impl Engine {
    /// Long texts whose sending was cut off are not gone on with: the person was told and has the text.
    pub(super) fn drop_cut_off_texts(&mut self, tx: &mut Tx<'_, '_>) -> Result<(), EngineError> {
        for transfer in tx.transfers()? {
            if let Transfer::Upload { path, manifest, write_key, .. } = &transfer
                && path.is_empty()
            {
                let (blob, write_key) = (manifest.blob_id, write_key.clone());
                tx.delete_transfer(&transfer);
                self.ask(tx, Request::DeleteBlob { blob, write_key }, Pending::DeleteBlob);
            }
        }
        Ok(())
    }

    /// The recipient has a file of ours: the relay need not keep it.
    pub(super) fn file_fetched(
        &mut self,
        tx: &mut Tx<'_, '_>,
        user: &UserId,
        fetched: &MessageId,
    ) -> Result<(), EngineError> {
        for transfer in tx.transfers()? {
            let Transfer::Offered { to, message, blob, write_key, waiting } = transfer else {
                continue;
            };
            if message != *fetched {
                continue;
            }
            let left: Vec<UserId> = waiting.iter().copied().filter(|w| w != user).collect();
            match to {
                Conversation::User(to) if to != *user => continue,
                // Only one of those who were sent it counts, each once.
                Conversation::Room(_) if left.len() == waiting.len() => continue,
                Conversation::Room(_) if !left.is_empty() => {
                    let offered = Transfer::Offered { to, message, blob, write_key, waiting: left };
                    tx.save_transfer(&offered);
                    continue;
                }
                Conversation::User(_) | Conversation::Room(_) => {}
            }
            let key = write_key.clone();
            tx.delete_transfer(&Transfer::Offered { to, message, blob, write_key, waiting: left });
            let request = Request::DeleteBlob { blob, write_key: key };
            self.ask(tx, request, Pending::DeleteBlob);
        }
        Ok(())
    }

    pub(super) fn file_saved(
        &mut self,
        tx: &mut Tx<'_, '_>,
        user: &UserId,
        message: &MessageId,
        path: String,
    ) -> Result<(), EngineError> {
        let (number, mut entry) = find(tx, user, message)?;
        entry.file_path.clone_from(&path);
        tx.save_history(number, &entry);
        let manifest = match body_of(&entry) {
            Some(Body::File(manifest)) => Some(manifest),
            _ => None,
        };
        if let (Some(manifest), Some(contact)) = (manifest, tx.contact(user)?) {
            let room = room_of(tx, &entry)?;
            let (from, name, size) = (sender(&contact), manifest.name, manifest.size);
            tx.event(Event::FileSaved { from, room, message: *message, name, size, path });
        }
        self.fetched(tx, user, message)
    }

    pub(super) fn long_text_fetched(
        &mut self,
        tx: &mut Tx<'_, '_>,
        user: &UserId,
        message: &MessageId,
        text: String,
    ) -> Result<(), EngineError> {
        if text.len() > MAX_TEXT {
            return Err(EngineError::TextTooLong { max: MAX_TEXT });
        }
        let (number, mut entry) = find(tx, user, message)?;
        entry.content =
            with_body(&entry, Body::Text(text.clone())).ok_or(EngineError::UnknownContact)?;
        let (sent_at, received_at) = (entry.sent_at, entry.received_at);
        tx.save_history(number, &entry);
        self.fetched(tx, user, message)?;
        if let Some(contact) = tx.contact(user)? {
            let (from, room, message) = (sender(&contact), room_of(tx, &entry)?, *message);
            tx.event(Event::Text { from, room, message, text, sent_at, received_at });
        }
        Ok(())
    }

    /// Tells every device of the sender that its file may go.
    fn fetched(
        &mut self,
        tx: &mut Tx<'_, '_>,
        user: &UserId,
        message: &MessageId,
    ) -> Result<(), EngineError> {
        forget(tx, user, message);
        let mut contact = tx.contact(user)?.ok_or(EngineError::UnknownContact)?;
        self.owe_read(tx, &mut contact, *message);
        tx.save_contact(&contact);
        Ok(())
    }
}

fn find(
    tx: &Tx<'_, '_>,
    user: &UserId,
    message: &MessageId,
) -> Result<(u64, HistoryEntry), EngineError> {
    let index = tx.message_index(user, message)?.ok_or(EngineError::UnknownContact)?;
    let conversation = index.room.map_or(Conversation::User(*user), Conversation::Room);
    let entry = tx.history(conversation, index.history)?.ok_or(EngineError::UnknownContact)?;
    Ok((index.history, entry))
}

/// Returns what a message of the history says.
pub(super) fn body_of(entry: &HistoryEntry) -> Option<Body> {
    Some(match entry.room {
        None => Content::decode(&entry.content).ok()?.body,
        Some(_) => RoomContent::decode(&entry.content).ok()?.body,
    })
}

/// Returns a message of the history with another body.
fn with_body(entry: &HistoryEntry, body: Body) -> Option<zeroize::Zeroizing<Vec<u8>>> {
    Some(match entry.room {
        None => Content { body, ..Content::decode(&entry.content).ok()? }.encode(),
        Some(_) => RoomContent { body, ..RoomContent::decode(&entry.content).ok()? }.encode(),
    })
}

fn room_of(tx: &Tx<'_, '_>, entry: &HistoryEntry) -> Result<Option<RoomRef>, EngineError> {
    match &entry.room {
        Some(room) => reference(tx.store(), room),
        None => Ok(None),
    }
}
