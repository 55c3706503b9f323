//! What the engine knows of files: which are on their way, and what became of them.

use super::contacts::sender;
use super::tx::Tx;
use super::{Engine, EngineError, Event, Pending};
use crate::file::Manifest;
use crate::ids::{BlobId, DeviceAddress, MessageId, Timestamp, UserId};
use crate::store::rows::{HistoryEntry, Transfer, UploadRun};
use crate::wire::content::{Body, Content, ReceiptKind};
use crate::wire::limits::MAX_TEXT;
use crate::wire::relay::{Request, WriteKey};

/// A file being uploaded; what a later run needs to go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// For whom.
    pub to: UserId,
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
    to: UserId,
    message: MessageId,
    blob: BlobId,
) -> Result<(), EngineError> {
    if let Some(Transfer::Upload { write_key, .. }) = tx.transfer(blob.as_bytes())? {
        tx.save_transfer(&Transfer::Offered { to, message, blob, write_key });
    }
    Ok(())
}

/// Takes a message off the list of files to fetch.
pub(super) fn forget(tx: &mut Tx<'_, '_>, user: &UserId, fetched: &MessageId) {
    tx.delete_transfer(&Transfer::Download { from: *user, message: *fetched });
}

impl Engine {
    /// The recipient has a file of ours: the relay need not keep it.
    pub(super) fn file_fetched(
        &mut self,
        tx: &mut Tx<'_, '_>,
        user: &UserId,
        fetched: &MessageId,
    ) -> Result<(), EngineError> {
        for transfer in tx.transfers()? {
            if let Transfer::Offered { to, message, blob, write_key } = &transfer
                && to == user
                && message == fetched
            {
                let (blob, write_key) = (*blob, write_key.clone());
                tx.delete_transfer(&transfer);
                self.ask(tx, Request::DeleteBlob { blob, write_key }, Pending::DeleteBlob);
            }
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
        let content = Content::decode(&entry.content);
        if let (Ok(Content { body: Body::File(manifest), .. }), Some(contact)) =
            (content, tx.contact(user)?)
        {
            let (from, name, size) = (sender(&contact), manifest.name, manifest.size);
            tx.event(Event::FileSaved { from, message: *message, name, size, path });
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
        let content = Content::decode(&entry.content);
        let mut content = content.map_err(|_| EngineError::UnknownContact)?;
        content.body = Body::Text(text.clone());
        entry.content = content.encode();
        let (sent_at, received_at) = (entry.sent_at, entry.received_at);
        tx.save_history(number, &entry);
        self.fetched(tx, user, message)?;
        if let Some(contact) = tx.contact(user)? {
            let (from, message) = (sender(&contact), *message);
            tx.event(Event::Text { from, message, text, sent_at, received_at });
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
        let devices: Vec<_> = contact.devices.iter().map(|d| d.id).collect();
        for device in devices {
            let from = DeviceAddress { user: *user, device };
            self.owe_receipt(tx, &mut contact, from, *message, ReceiptKind::Read);
        }
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
    let entry = tx.history(user, index.history)?.ok_or(EngineError::UnknownContact)?;
    Ok((index.history, entry))
}
