//! Handlers of requests. Everything here may block and runs on blocking threads, except [`send`].

mod directory;
mod files;
mod mailbox;
mod prekeys;
mod rooms;

use std::sync::Arc;

use chatcore::ids::{DeviceAddress, SECOND};
use chatcore::wire::limits::{MAX_RECORD, MAX_RECORDS};
use chatcore::wire::relay::{Answer, CloseReason, ErrorCode, Failure, Request, RequestId};

use crate::registry::{Completion, PeerHandle};
use crate::server::Shared;
use crate::store::StoreError;

pub(crate) use directory::{login, register};
pub(crate) use mailbox::{read_bodies, send};

/// Milliseconds after which something is worth another try when the disk is full.
const NO_DISK_RETRY: u64 = 60 * SECOND;

/// The device that asks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) address: DeviceAddress,
    pub(crate) link_key: [u8; 32],
}

/// One piece of a connection's storage work.
#[derive(Debug)]
pub(crate) enum LaneItem {
    /// Any request but those answered in memory.
    Request(RequestId, Request),
    /// Mailboxes that a `SendMany` names and nobody used yet.
    LookUp(Vec<DeviceAddress>),
}

/// Bytes that a small request is taken for.
const SMALL: usize = 8 << 10;
/// Bytes that an answer with a chunk may have.
const LARGE: usize = 1 << 20;

impl LaneItem {
    /// Tells whether it brings much.
    pub(crate) fn is_large(&self) -> bool {
        !matches!(self, Self::Request(_, Request::PutChunk { .. } | Request::AppendRegister { .. }))
            && self.cost() >= LARGE / 4
    }

    /// Returns about how many bytes it holds or brings.
    pub(crate) fn cost(&self) -> usize {
        match self {
            Self::Request(_, Request::PutChunk { chunk, .. }) => chunk.len() + SMALL,
            Self::Request(_, Request::GetChunk { .. }) => LARGE,
            Self::Request(
                _,
                Request::GetRoom { .. }
                | Request::ReadRegister { .. }
                | Request::ListRooms { .. }
                | Request::AdminCommand { .. }
                | Request::GetAnnouncements { .. },
            ) => LARGE,
            Self::Request(_, Request::AppendRegister { entry, .. }) => entry.len() + SMALL,
            Self::Request(_, Request::GetRecords { .. }) => MAX_RECORDS * MAX_RECORD,
            Self::Request(_, Request::ClaimPrekeys(devices)) => SMALL + devices.len() * 2_048,
            Self::Request(..) => SMALL,
            Self::LookUp(devices) => SMALL + devices.len() * size_of::<DeviceAddress>(),
        }
    }
}

/// Does a connection's storage work in its order.
pub(crate) fn run_lane(
    shared: &Arc<Shared>,
    caller: &Caller,
    handle: &Arc<PeerHandle>,
    items: Vec<LaneItem>,
) {
    // Says so even when a request panics: the connection goes on.
    let _idle = IdleOnDrop(handle);
    let mut items = items.into_iter().peekable();
    while let Some(item) = items.next() {
        if matches!(handle.close_reason(), Some(CloseReason::Revoked | CloseReason::Kicked)) {
            // Who is out does nothing more, whatever was sent before.
            return;
        }
        match item {
            LaneItem::LookUp(devices) => {
                let known = mailbox::look_up(shared, &devices);
                handle.complete(Completion::LookedUp(known));
            }
            LaneItem::Request(id, Request::CompleteBlob { blob, write_key }) => {
                // Small files come in rows: one sync of the folder and one transaction for all.
                let mut batch = vec![(id, blob, write_key)];
                while let Some(LaneItem::Request(id, Request::CompleteBlob { blob, write_key })) =
                    items.next_if(LaneItem::is_complete)
                {
                    batch.push((id, blob, write_key));
                }
                for (id, answer) in files::complete(shared, batch) {
                    handle.complete(Completion::Answer(id, answer));
                }
            }
            LaneItem::Request(id, request) => {
                let answer = dispatch(shared, caller, request);
                if shared.health.has_failed() {
                    // The relay ends; what it would say now may not be so.
                    return;
                }
                let answer = answer.unwrap_or_else(|failure| Answer::Failure(later(failure)));
                handle.complete(Completion::Answer(id, answer));
            }
        }
    }
}

impl LaneItem {
    fn is_complete(&self) -> bool {
        matches!(self, Self::Request(_, Request::CompleteBlob { .. }))
    }
}

struct IdleOnDrop<'a>(&'a PeerHandle);

impl Drop for IdleOnDrop<'_> {
    fn drop(&mut self) {
        self.0.complete(Completion::LaneIdle);
    }
}

fn dispatch(shared: &Arc<Shared>, caller: &Caller, request: Request) -> Result<Answer, Failure> {
    match request {
        Request::UpdateRecord(record) => directory::update(shared, caller, record),
        Request::CloseAccount(record) => directory::close(shared, caller, record),
        Request::GetRecords { who, after_version } => {
            directory::records(shared, &who, after_version)
        }
        Request::UploadPrekeys(records) => prekeys::upload(shared, caller, records),
        Request::ClaimPrekeys(devices) => prekeys::claim(shared, caller, &devices),
        Request::CreateBlob { blob, write_key, shape } => {
            files::create(shared, caller, &blob, &write_key, shape)
        }
        Request::BlobStatus(blob) => files::status(shared, &blob),
        Request::PutChunk { blob, write_key, index, chunk } => {
            files::put(shared, &blob, &write_key, index, &chunk)
        }
        Request::GetChunk { blob, index } => files::chunk(shared, caller, &blob, index),
        Request::DeleteBlob { blob, write_key } => files::delete(shared, &blob, &write_key),
        Request::CreateRoom(event) => rooms::create(shared, caller, event),
        Request::ListRooms { after } => rooms::list(shared, caller, after),
        Request::GetRoom { room, from_seq, after_statement } => {
            rooms::read(shared, &room, from_seq, after_statement)
        }
        Request::AppendRoom(event) => rooms::append(shared, caller, event),
        Request::PutStatement(statement) => rooms::put_statement(shared, caller, statement),
        Request::QueryRoomPresence(room) => rooms::presence(shared, caller, &room),
        Request::AppendRegister { write_key, position, entry, proof } => {
            rooms::append_register(shared, caller, &write_key, (position, entry), proof)
        }
        Request::Recover { head, entries } => rooms::recover(shared, caller, &head, entries),
        Request::ReadRegister { register, from } => rooms::read_register(shared, &register, from),
        Request::GetAnnouncements { after } => rooms::announcements(shared, caller, after),
        Request::AdminCommand { line, form } => rooms::admin(shared, caller, &line, form),
        _ => Err(ErrorCode::Unsupported.into()),
    }
}

/// Says when to try again, if that is all there is to do.
const fn later(failure: Failure) -> Failure {
    match failure.code {
        ErrorCode::DiskFull => Failure { retry_after_ms: NO_DISK_RETRY, ..failure },
        _ => failure,
    }
}

pub(crate) fn internal(error: StoreError) -> Failure {
    match error {
        // Said once by the store.
        StoreError::NoSpace => {
            let retry_after_ms = NO_DISK_RETRY;
            Failure { code: ErrorCode::DiskFull, limit: 0, retry_after_ms }
        }
        error => {
            tracing::error!(%error, "a request failed in the store");
            ErrorCode::Internal.into()
        }
    }
}
