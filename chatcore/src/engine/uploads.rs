//! Blobs that are still to be brought to the relay, while the messages that name them wait in the outbox.
//!
//! ```text
//! message ──▶ outbox, queued ──CreateBlob, PutChunk…, CompleteBlob──▶ goes out, in its place
//!                  └──refused──▶ tried again later, other blobs meanwhile
//! ```
//! Here stands which one is next; the bytes are moved by the driver in `net`.

use std::collections::{BTreeSet, VecDeque};

use super::clock::Timer;
use super::copy::{GIVE_UP_AFTER, QUERY_EVERY};
use super::error::EngineError;
use super::event::Event;
use super::fate::give_up_message;
use super::requests::Pending;
use super::step::own_profile;
use super::transaction::Transaction;
use crate::file::Manifest;
use crate::ids::{BlobId, Conversation, DAY, MessageId, SECOND, Timestamp};
use crate::store::Store;
use crate::store::row::ReadRows;
use crate::store::rows::{HistoryEntry, MessageIndex, QueuedUpload, Transfer, UploadSource};
use crate::wire::content::Body;
use crate::wire::relay::{ErrorCode, Failure, Request, WriteKey};

/// Milliseconds after which a blob is gone from every relay.
const OFFER_LIFE: u64 = 40 * DAY;

/// Milliseconds until a blob is tried again at the earliest, whatever the relay says.
const SOONEST: u64 = 10 * SECOND;

/// The blob to bring to the relay next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NextUpload {
    /// How its recipients will fetch and open it.
    pub manifest: Manifest,
    /// Where its bytes are, and what the relay is to take them under.
    pub upload: QueuedUpload,
    /// The text itself, if it is one.
    pub text: Option<String>,
}

/// Which uploads wait, each with the time until which it is not tried.
#[derive(Debug, Default)]
pub(super) struct Uploads {
    /// Texts are small, and go before files.
    texts: VecDeque<(BlobId, Option<Timer>)>,
    files: VecDeque<(BlobId, Option<Timer>)>,
}

impl Uploads {
    fn all(&self) -> impl Iterator<Item = &(BlobId, Option<Timer>)> {
        self.texts.iter().chain(&self.files)
    }

    fn push(&mut self, source: UploadSource, blob: BlobId, pause: Option<Timer>) {
        match source {
            UploadSource::Text { .. } => self.texts.push_back((blob, pause)),
            UploadSource::Spooled => self.files.push_back((blob, pause)),
        }
    }

    /// Returns when those that were refused are tried again.
    pub(super) fn timers(&self) -> impl Iterator<Item = Timer> {
        self.all().filter_map(|(_, pause)| *pause)
    }

    /// Tells whether one is to be brought to the relay now.
    pub(super) fn is_under_way(&self) -> bool {
        self.all().any(|(_, pause)| pause.is_none())
    }

    fn next(&mut self, now: Timestamp) -> Option<BlobId> {
        for (_, pause) in self.texts.iter_mut().chain(&mut self.files) {
            pause.take_if(|pause| pause.is_due(now));
        }
        self.all().find(|(_, pause)| pause.is_none()).map(|(blob, _)| *blob)
    }

    /// Returns what to bring to the relay next, if anything is to be brought there now.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub(super) fn next_upload(
        &mut self,
        store: &dyn Store,
        now: Timestamp,
    ) -> Result<Option<NextUpload>, EngineError> {
        while let Some(blob) = self.next(now) {
            if let Some(next) = load(store, &blob)? {
                return Ok(Some(next));
            }
            // Given up meanwhile.
            self.forget(&blob);
        }
        Ok(None)
    }

    fn forget(&mut self, blob: &BlobId) {
        self.texts.retain(|(waiting, _)| waiting != blob);
        self.files.retain(|(waiting, _)| waiting != blob);
    }
}

impl Uploads {
    /// A message names a blob; the message goes out once the blob is at the relay.
    pub(super) fn offer(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        (to, message): (Conversation, MessageId),
        manifest: &Manifest,
        upload: Option<QueuedUpload>,
    ) -> Result<(), EngineError> {
        let blob = manifest.blob_id;
        if let Some(upload) = upload {
            self.push(upload.source, blob, None);
            let is_online = tx.is_online();
            let tried_at = if is_online { tx.begins() } else { Timestamp(0) };
            let manifest = manifest.clone();
            tx.put(&Transfer::Queued { to, message, manifest, upload, tried_at });
        } else if let Some(Transfer::Upload { write_key, .. }) =
            tx.get::<Transfer>(&blob.as_bytes().to_vec())?
        {
            offered(tx, (to, message), blob, write_key);
        }
        Ok(())
    }

    /// On a new connection everything that waits is to be tried, but for what was tried for too long.
    pub(super) fn find_uploads(&mut self, tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
        *self = Self::default();
        for transfer in tx.all::<Transfer>()? {
            let Transfer::Queued { to, message, manifest, upload, tried_at } = transfer else {
                continue;
            };
            let (source, blob) = (upload.source, manifest.blob_id);
            let is_over = tried_at != Timestamp(0) && tx.settled.since(tried_at) >= GIVE_UP_AFTER;
            if is_over {
                self.upload_lost(tx, blob)?;
                continue;
            }
            if tried_at == Timestamp(0) || tried_at > tx.begins() {
                let tried_at = tx.begins();
                tx.put(&Transfer::Queued { to, message, manifest, upload, tried_at });
            }
            self.push(source, blob, None);
        }
        Ok(())
    }

    /// The bytes of a blob can't be reached now: it waits for another run.
    pub(super) fn skip(&mut self, blob: &BlobId) {
        self.forget(blob);
    }

    /// The relay has all of a blob: the message that names it goes out.
    pub(super) fn uploaded(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        blob: BlobId,
    ) -> Result<(), EngineError> {
        let Some((to, message, upload)) = self.end_upload(tx, &blob)? else { return Ok(()) };
        offered(tx, (to, message), blob, upload.write_key);
        match to {
            Conversation::User(user) => tx.follow.seal.insert(user),
            Conversation::Room(room) => tx.follow.rooms.insert(room),
        };
        Ok(())
    }

    /// The relay does not take a blob now: it is tried again later; or not, where it says that it never will.
    pub(super) fn upload_refused(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        blob: BlobId,
        failure: Failure,
    ) -> Result<(), EngineError> {
        let Some((to, message, upload)) = self.end_upload(tx, &blob)? else { return Ok(()) };
        tx.event(Event::Delayed { message, code: failure.code });
        if is_for_ever(failure.code) {
            return lose_upload(tx, (to, message), blob, upload);
        }
        let wait = match failure.retry_after_ms {
            0 => QUERY_EVERY,
            wait => wait.clamp(SOONEST, DAY),
        };
        self.push(upload.source, blob, Some(Timer::after(wait, tx.now)));
        Ok(())
    }

    /// The bytes of a blob are gone: the message that names it can't go out.
    pub(super) fn upload_lost(
        &mut self,
        tx: &mut Transaction<'_, '_>,
        blob: BlobId,
    ) -> Result<(), EngineError> {
        match self.end_upload(tx, &blob)? {
            Some((to, message, upload)) => lose_upload(tx, (to, message), blob, upload),
            None => Ok(()),
        }
    }

    /// Nothing more is brought to the relay of a blob for now; returns the message that waits for it, if one does.
    fn end_upload(
        &mut self,
        tx: &Transaction<'_, '_>,
        blob: &BlobId,
    ) -> Result<Option<(Conversation, MessageId, QueuedUpload)>, EngineError> {
        self.forget(blob);
        Ok(match tx.get::<Transfer>(&blob.as_bytes().to_vec())? {
            Some(Transfer::Queued { to, message, upload, .. }) => Some((to, message, upload)),
            _ => None,
        })
    }
}

fn lose_upload(
    tx: &mut Transaction<'_, '_>,
    (to, message): (Conversation, MessageId),
    blob: BlobId,
    upload: QueuedUpload,
) -> Result<(), EngineError> {
    if tx.is_online() {
        // What the relay has of it would count as ours for as long as it keeps such a thing.
        let write_key = upload.write_key;
        tx.ask(Request::DeleteBlob { blob, write_key }, Pending::DeleteBlob);
    }
    match to {
        Conversation::User(user) => {
            give_up_message(tx, &user, message)?;
            tx.follow.seal.insert(user);
        }
        Conversation::Room(room) => tx.follow.lost.push((room, message)),
    }
    Ok(())
}

/// Tells whether trying again does not change what the relay says of a blob.
#[must_use]
pub const fn is_for_ever(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::TooLarge
            | ErrorCode::Malformed
            | ErrorCode::Forbidden
            | ErrorCode::BlobExists
            | ErrorCode::ChunkExists
            | ErrorCode::Unsupported
    )
}

fn offered(
    tx: &mut Transaction<'_, '_>,
    (to, message): (Conversation, MessageId),
    blob: BlobId,
    write_key: WriteKey,
) {
    let (waiting, renewed_at) = (Vec::new(), tx.now);
    tx.put(&Transfer::Offered { to, message, blob, write_key, waiting, renewed_at });
}

/// Forgets what was brought to the relay so long ago that it is not there any more (PROTOCOL.md section 11): there is
/// nothing to delete, nor to renew.
pub(super) fn forget_offers(tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
    for transfer in tx.all::<Transfer>()? {
        if let Transfer::Offered { blob, renewed_at, .. } = transfer
            && tx.settled.since(renewed_at) >= OFFER_LIFE
        {
            tx.delete::<Transfer>(&blob.as_bytes().to_vec());
        }
    }
    Ok(())
}

/// Returns the blobs that are queued and whose bytes the driver keeps, and the messages that name them.
fn all_spooled(store: &dyn Store) -> Result<Vec<(BlobId, MessageId)>, EngineError> {
    let mut found = Vec::new();
    for transfer in store.all()? {
        if let Transfer::Queued { manifest, message, upload, .. } = transfer
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
pub fn spooled(store: &dyn Store) -> Result<BTreeSet<BlobId>, EngineError> {
    Ok(all_spooled(store)?.into_iter().map(|(blob, _)| blob).collect())
}

/// Returns the messages that wait for such a blob.
pub(super) fn spooled_messages(store: &dyn Store) -> Result<BTreeSet<MessageId>, EngineError> {
    Ok(all_spooled(store)?.into_iter().map(|(_, message)| message).collect())
}

fn load(store: &dyn Store, blob: &BlobId) -> Result<Option<NextUpload>, EngineError> {
    let Some(Transfer::Queued { to, message, manifest, upload, .. }) =
        store.get(&blob.as_bytes().to_vec())?
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
    let body = sent(store, to, message)?.and_then(|entry| entry.body());
    Ok(match body {
        Some(Body::Text(text)) => Some(text),
        _ => None,
    })
}

/// Returns a message of ours, from the history.
pub(super) fn sent(
    store: &dyn Store,
    to: Conversation,
    message: &MessageId,
) -> Result<Option<HistoryEntry>, EngineError> {
    let author = match to {
        Conversation::User(user) => user,
        Conversation::Room(_) => own_profile(store)?.user(),
    };
    let Some(index) = store.get::<MessageIndex>(&(author, *message))? else { return Ok(None) };
    Ok(store.get(&(to, index.history))?)
}
