//! One path for what somebody said, to us alone or to a room: it is written down and told, and waits to be fetched if
//! it is not all here.

use zeroize::Zeroizing;

use super::error::EngineError;
use super::event::Event;
use super::message::Message;
use super::rooms::RoomRef;
use super::sequence::said_at;
use super::transaction::Transaction;
use crate::file::FileKind;
use crate::ids::{DeviceId, MessageId, Timestamp};
use crate::store::rows::{
    Contact, Direction, Download, HistoryEntry, MessageIndex, Said, Transfer,
};
use crate::wire::content::{Body, ChainPosition};

/// A message that is to be shown.
pub(super) struct Incoming<'m> {
    /// The sender.
    pub(super) from: &'m Contact,
    pub(super) device: DeviceId,
    /// Where it was said; `None`: to us alone.
    pub(super) room: Option<RoomRef>,
    pub(super) message: MessageId,
    /// Its place among what the device said there.
    pub(super) position: Option<ChainPosition>,
    /// By the sender's clock.
    pub(super) sent_at: Timestamp,
    pub(super) body: Body,
    /// The content, as the history keeps it.
    pub(super) bytes: &'m [u8],
}

impl Incoming<'_> {
    /// Writes the message down, and tells of it.
    pub(super) fn show(self, tx: &mut Transaction<'_, '_>) -> Result<(), EngineError> {
        let Self { from, device, room, message, position, sent_at, body, bytes } = self;
        let (peer, received_at) = (from.user(), tx.now);
        let sent_at = said_at(sent_at, received_at);
        let entry = HistoryEntry {
            message,
            peer,
            room: room.as_ref().map(|room| room.id),
            direction: Direction::Incoming,
            sent_at,
            received_at,
            content: Zeroizing::new(bytes.to_vec()),
            file_path: String::new(),
            name: from.nickname().as_str().to_owned(),
        };
        let history = tx.next_number::<HistoryEntry>(&entry.conversation())?;
        tx.put_at(&(entry.conversation(), history), &entry);
        let index = MessageIndex { history, outbox: Vec::new(), room: entry.room, blob: None };
        tx.put_at(&(peer, message), &index);
        if let Some(kind) = body.file_kind() {
            let said = Said::new(device, position);
            tx.put(&Transfer::Download(Download::new(peer, message, kind, said)));
        }
        let message = Message { id: message, from: from.into(), room, sent_at, received_at };
        tx.event(match body {
            Body::Text(text) => Event::Text { message, text },
            Body::File(manifest) => Event::File { message, manifest, kind: FileKind::File },
            Body::LongText(manifest) => Event::File { message, manifest, kind: FileKind::LongText },
            _ => Event::UnknownContent { message },
        });
        Ok(())
    }
}
