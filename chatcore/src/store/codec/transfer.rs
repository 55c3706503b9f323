//! Files on their way.

use prost::Message;
use proto::storage as pb;
use zeroize::Zeroizing;

use super::{device, encode, user};
use crate::file::FileKind;
use crate::file::Manifest;
use crate::ids::{BlobId, Conversation, MessageId, RoomId, Timestamp};
use crate::store::rows::{
    Download, FetchFailure, QueuedUpload, Said, Transfer, UploadRun, UploadSource,
};
use crate::wire::file::{manifest_from, manifest_into};
use crate::wire::relay::WriteKey;
use crate::wire::{WireError, array};

pub(crate) fn encode_transfer(transfer: &Transfer) -> Zeroizing<Vec<u8>> {
    encode(&match transfer {
        Transfer::Upload { to, manifest, path, modified, write_key, runs } => {
            let run = |r: &UploadRun| pb::UploadRun {
                salt_seed: r.salt_seed.to_vec(),
                stored: r.stored.clone(),
            };
            pb::Transfer {
                upload: true,
                peer: to.as_bytes().to_vec(),
                manifest: Some(manifest_into(manifest)),
                path: path.clone(),
                modified: modified.0,
                write_key: write_key.0.to_vec(),
                runs: runs.iter().map(run).collect(),
                room: matches!(to, Conversation::Room(_)),
                ..pb::Transfer::default()
            }
        }
        Transfer::Queued { to, message, manifest, upload, tried_at } => {
            let run = match upload.source {
                UploadSource::Text { salt_seed } => {
                    Some(pb::UploadRun { salt_seed: salt_seed.to_vec(), stored: Vec::new() })
                }
                UploadSource::Spooled => None,
            };
            pb::Transfer {
                upload: true,
                peer: to.as_bytes().to_vec(),
                room: matches!(to, Conversation::Room(_)),
                message_id: message.as_bytes().to_vec(),
                manifest: Some(manifest_into(manifest)),
                write_key: upload.write_key.0.to_vec(),
                tried_at: tried_at.0,
                runs: run.into_iter().collect(),
                ..pb::Transfer::default()
            }
        }
        Transfer::Offered { to, message, blob, write_key, waiting, renewed_at } => pb::Transfer {
            renewed_at: renewed_at.0,
            room: matches!(to, Conversation::Room(_)),
            waiting: waiting.iter().map(|user| user.as_bytes().to_vec()).collect(),
            peer: to.as_bytes().to_vec(),
            message_id: message.as_bytes().to_vec(),
            write_key: write_key.0.to_vec(),
            blob_id: blob.as_bytes().to_vec(),
            ..pb::Transfer::default()
        },
        Transfer::Download(download) => pb::Transfer {
            peer: download.from.as_bytes().to_vec(),
            message_id: download.message.as_bytes().to_vec(),
            long_text: download.kind == FileKind::LongText,
            failures: download.failures,
            not_before: download.not_before.0,
            given_up: download.given_up.map_or(0, failure_into),
            device_id: download.said.device.get(),
            sender_seq: download.said.seq,
            part_in: download.part_in.clone(),
            ..pb::Transfer::default()
        },
    })
}

pub(crate) fn decode_transfer(bytes: &[u8]) -> Result<Transfer, WireError> {
    let pb = pb::Transfer::decode(bytes)?;
    let write_key = || array(&pb.write_key, "write_key").map(WriteKey);
    if !pb.upload && !pb.blob_id.is_empty() {
        return Ok(Transfer::Offered {
            to: conversation(&pb)?,
            waiting: pb.waiting.iter().map(|id| user(id)).collect::<Result<_, _>>()?,
            message: MessageId::from_bytes(array(&pb.message_id, "message_id")?),
            blob: BlobId::from_bytes(array(&pb.blob_id, "blob_id")?),
            write_key: write_key()?,
            renewed_at: Timestamp(pb.renewed_at),
        });
    }
    if !pb.upload {
        return Ok(Transfer::Download(Download {
            from: user(&pb.peer)?,
            message: MessageId::from_bytes(array(&pb.message_id, "message_id")?),
            kind: if pb.long_text { FileKind::LongText } else { FileKind::File },
            said: Said { device: device(pb.device_id)?, seq: pb.sender_seq },
            failures: pb.failures,
            not_before: Timestamp(pb.not_before),
            given_up: match pb.given_up {
                0 => None,
                number => Some(failure_from(number)?),
            },
            part_in: pb.part_in.clone(),
        }));
    }
    if !pb.message_id.is_empty() {
        let source = match pb.runs.first() {
            Some(run) => UploadSource::Text { salt_seed: array(&run.salt_seed, "salt_seed")? },
            None => UploadSource::Spooled,
        };
        return Ok(Transfer::Queued {
            to: conversation(&pb)?,
            message: MessageId::from_bytes(array(&pb.message_id, "message_id")?),
            manifest: manifest(&pb)?,
            upload: QueuedUpload { write_key: write_key()?, source },
            tried_at: Timestamp(pb.tried_at),
        });
    }
    let run = |r: &pb::UploadRun| -> Result<_, WireError> {
        Ok(UploadRun { salt_seed: array(&r.salt_seed, "salt_seed")?, stored: r.stored.clone() })
    };
    Ok(Transfer::Upload {
        to: conversation(&pb)?,
        manifest: manifest(&pb)?,
        path: pb.path.clone(),
        modified: Timestamp(pb.modified),
        write_key: write_key()?,
        runs: pb.runs.iter().map(run).collect::<Result<_, _>>()?,
    })
}

pub(super) const fn failure_into(failure: FetchFailure) -> u32 {
    match failure {
        FetchFailure::Unavailable => 1,
        FetchFailure::Damaged => 2,
        FetchFailure::Mismatch => 3,
        FetchFailure::NotText => 4,
    }
}

pub(super) const fn failure_from(number: u32) -> Result<FetchFailure, WireError> {
    Ok(match number {
        1 => FetchFailure::Unavailable,
        2 => FetchFailure::Damaged,
        3 => FetchFailure::Mismatch,
        4 => FetchFailure::NotText,
        _ => return Err(WireError::BadValue("failure")),
    })
}

fn manifest(pb: &pb::Transfer) -> Result<Manifest, WireError> {
    manifest_from(pb.manifest.clone().ok_or(WireError::Missing("manifest"))?)
}

fn conversation(pb: &pb::Transfer) -> Result<Conversation, WireError> {
    Ok(if pb.room {
        Conversation::Room(RoomId::from_bytes(array(&pb.peer, "room_id")?))
    } else {
        Conversation::User(user(&pb.peer)?)
    })
}
