//! Blobs that are still to be brought to the relay, while the messages that name them wait in the outbox.
//!
//! ```text
//! message ──▶ outbox, queued ──CreateBlob, PutChunk…, CompleteBlob──▶ goes out, in its place
//!                  └──refused──▶ tried again later, the next blob first
//! ```
//! Here stands which one is next; the bytes are moved by the driver in `net`.

use std::collections::{BTreeSet, VecDeque};

use super::clock::Timer;
use super::files::body_of;
use super::outbound::give_up_message;
use super::query::damaged;
use super::rooms::Freshness;
use super::tx::Tx;
use super::{Engine, EngineError, Event, Link, QUERY_EVERY};
use crate::file::Manifest;
use crate::ids::{BlobId, Conversation, DAY, MessageId, Timestamp, UserId};
use crate::store::rows::{MessageIndex, Transfer};
use crate::store::{Key, Store, Table};
use crate::wire::content::Body;
use crate::wire::relay::{Failure, WriteKey};
use crate::wire::storage;

/// What is needed to bring a blob to the relay, beside its manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedUpload {
    /// Allows writing at the relay.
    pub write_key: WriteKey,
    /// Where its bytes are.
    pub source: UploadSource,
}

/// Where the bytes of a queued upload are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UploadSource {
    /// The text of the message, in the history; sealed with salts of this seed.
    Text {
        /// As of [`ChunkSalt::derive`](crate::file::ChunkSalt::derive).
        salt_seed: [u8; 32],
    },
    /// A file of sealed chunks that the driver keeps, named after the blob.
    Spooled,
}

/// The blob to bring to the relay next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NextUpload {
    pub(crate) manifest: Manifest,
    pub(crate) upload: QueuedUpload,
    /// The text itself, if it is one.
    pub(crate) text: Option<String>,
}

/// Which uploads wait, and until when none is tried.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    waiting: VecDeque<BlobId>,
    pause: Option<Timer>,
}

impl Uploads {
    pub(super) fn timer(&self) -> Option<Timer> {
        self.pause.filter(|_| !self.waiting.is_empty())
    }

    /// Tells whether one is to be brought to the relay now.
    pub(super) fn is_under_way(&self) -> bool {
        self.pause.is_none() && !self.waiting.is_empty()
    }

    fn forget(&mut self, blob: &BlobId) {
        self.waiting.retain(|waiting| waiting != blob);
    }
}

impl Engine {
    /// A message names a blob; the message goes out once the blob is at the relay.
    pub(super) fn offer(
        &mut self,
        tx: &mut Tx<'_, '_>,
        (to, message): (Conversation, MessageId),
        manifest: &Manifest,
        upload: Option<QueuedUpload>,
    ) -> Result<(), EngineError> {
        let blob = manifest.blob_id;
        if let Some(upload) = upload {
            let manifest = manifest.clone();
            tx.save_transfer(&Transfer::Queued { to, message, manifest, upload });
            self.uploads.waiting.push_back(blob);
        } else if let Some(Transfer::Upload { write_key, .. }) = tx.transfer(blob.as_bytes())? {
            offered(tx, (to, message), blob, write_key);
        }
        Ok(())
    }

    /// On a new connection everything that waits is to be tried.
    pub(super) fn find_uploads(&mut self, tx: &Tx<'_, '_>) -> Result<(), EngineError> {
        self.uploads = Uploads::default();
        for transfer in tx.transfers()? {
            if let Transfer::Queued { manifest, .. } = transfer {
                self.uploads.waiting.push_back(manifest.blob_id);
            }
        }
        Ok(())
    }

    /// Returns what to bring to the relay next, if anything is to be brought there now.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub(crate) fn next_upload(
        &mut self,
        store: &dyn Store,
        now: Timestamp,
    ) -> Result<Option<NextUpload>, EngineError> {
        if self.link == Link::Offline || self.uploads.pause.is_some_and(|pause| !pause.is_due(now))
        {
            return Ok(None);
        }
        self.uploads.pause = None;
        while let Some(blob) = self.uploads.waiting.front() {
            if let Some(next) = load(store, blob)? {
                return Ok(Some(next));
            }
            // Given up meanwhile.
            self.uploads.waiting.pop_front();
        }
        Ok(None)
    }

    /// The bytes of a blob can't be reached now: it waits for another run.
    pub(crate) fn skip_upload(&mut self, blob: &BlobId) {
        self.uploads.forget(blob);
    }

    /// The relay has all of a blob: the message that names it goes out.
    pub(super) fn uploaded(
        &mut self,
        tx: &mut Tx<'_, '_>,
        blob: BlobId,
    ) -> Result<(), EngineError> {
        self.uploads.forget(&blob);
        let Some(Transfer::Queued { to, message, upload, .. }) = tx.transfer(blob.as_bytes())?
        else {
            return Ok(());
        };
        offered(tx, (to, message), blob, upload.write_key);
        match to {
            Conversation::User(user) => {
                self.waiting.insert(user);
                self.drive_user(tx, &user)
            }
            Conversation::Room(room) => {
                self.rooms.touch(&room, Freshness::Same);
                self.drive_rooms(tx)
            }
        }
    }

    /// The relay does not take a blob now: it is tried again, after the others.
    pub(super) fn upload_refused(
        &mut self,
        tx: &mut Tx<'_, '_>,
        blob: BlobId,
        failure: Failure,
    ) -> Result<(), EngineError> {
        self.uploads.forget(&blob);
        let Some(Transfer::Queued { message, .. }) = tx.transfer(blob.as_bytes())? else {
            return Ok(());
        };
        self.uploads.waiting.push_back(blob);
        let wait = match failure.retry_after_ms {
            0 => QUERY_EVERY,
            wait => wait.min(DAY),
        };
        self.uploads.pause = Some(Timer::after(wait, tx.now));
        tx.event(Event::Delayed { message, code: failure.code });
        Ok(())
    }

    /// The bytes of a blob are gone: the message that names it can't go out.
    pub(super) fn upload_lost(
        &mut self,
        tx: &mut Tx<'_, '_>,
        blob: BlobId,
    ) -> Result<(), EngineError> {
        self.uploads.forget(&blob);
        let Some(Transfer::Queued { to, message, .. }) = tx.transfer(blob.as_bytes())? else {
            return Ok(());
        };
        match to {
            Conversation::User(user) => {
                give_up_message(tx, &user, message)?;
                self.waiting.insert(user);
                self.drive_user(tx, &user)
            }
            Conversation::Room(room) => self.lose_unsent(tx, &room, message),
        }
    }
}

/// Tells whether a message of ours waits until the relay has what it names.
pub(super) fn is_queued(
    tx: &Tx<'_, '_>,
    key: &UserId,
    message: &MessageId,
) -> Result<bool, EngineError> {
    let Some(MessageIndex { blob: Some(blob), .. }) = tx.message_index(key, message)? else {
        return Ok(false);
    };
    Ok(matches!(tx.transfer(blob.as_bytes())?, Some(Transfer::Queued { .. })))
}

/// A message was given up: what it names need not be brought anywhere.
pub(super) fn forget_upload(tx: &mut Tx<'_, '_>, blob: Option<BlobId>) -> Result<(), EngineError> {
    if let Some(blob) = blob
        && let Some(Transfer::Queued { .. }) = tx.transfer(blob.as_bytes())?
    {
        tx.delete_transfer_at(blob.as_bytes());
    }
    Ok(())
}

fn offered(
    tx: &mut Tx<'_, '_>,
    (to, message): (Conversation, MessageId),
    blob: BlobId,
    write_key: WriteKey,
) {
    let (waiting, renewed_at) = (Vec::new(), tx.now);
    tx.save_transfer(&Transfer::Offered { to, message, blob, write_key, waiting, renewed_at });
}

/// Returns the blobs that are queued and whose bytes the driver keeps, and the messages that name them.
fn all_spooled(store: &dyn Store) -> Result<Vec<(BlobId, MessageId)>, EngineError> {
    let mut found = Vec::new();
    for row in store.list(Table::Transfers)? {
        if let Transfer::Queued { manifest, message, upload, .. } =
            storage::decode_transfer(&row).map_err(damaged)?
            && upload.source == UploadSource::Spooled
        {
            found.push((manifest.blob_id, message));
        }
    }
    Ok(found)
}

/// Returns the blobs that are queued and whose bytes the driver keeps.
///
/// # Errors
/// [`EngineError::Store`].
pub(crate) fn spooled(store: &dyn Store) -> Result<BTreeSet<BlobId>, EngineError> {
    Ok(all_spooled(store)?.into_iter().map(|(blob, _)| blob).collect())
}

/// Returns the messages that wait for such a blob.
pub(super) fn spooled_messages(store: &dyn Store) -> Result<BTreeSet<MessageId>, EngineError> {
    Ok(all_spooled(store)?.into_iter().map(|(_, message)| message).collect())
}

fn load(store: &dyn Store, blob: &BlobId) -> Result<Option<NextUpload>, EngineError> {
    let Some(row) = store.load(&Key::new(Table::Transfers, blob.as_bytes()))? else {
        return Ok(None);
    };
    let Transfer::Queued { to, message, manifest, upload } =
        storage::decode_transfer(&row).map_err(damaged)?
    else {
        return Ok(None);
    };
    let text = match upload.source {
        UploadSource::Text { .. } => text_of(store, to, &message)?,
        UploadSource::Spooled => None,
    };
    Ok(Some(NextUpload { manifest, upload, text }))
}

/// Returns the text of a message of ours, from the history.
fn text_of(
    store: &dyn Store,
    to: Conversation,
    message: &MessageId,
) -> Result<Option<String>, EngineError> {
    let body = super::query::sent(store, to, message)?.and_then(|entry| body_of(&entry));
    Ok(match body {
        Some(Body::Text(text)) => Some(text),
        _ => None,
    })
}
