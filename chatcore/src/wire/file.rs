//! File manifests.

use proto::file as pb;

use super::limits::{MAX_CHUNKS, MAX_FILE, MAX_FILE_NAME, MAX_MEDIA_TYPE};
use super::{WireError, array, at_most};
use crate::file::{ChunkPlan, FileKey, Manifest, chunk_plan, message_plan};
use crate::ids::{BlobId, FileId};

pub(crate) fn manifest_from(pb: pb::FileManifest) -> Result<Manifest, WireError> {
    at_most(pb.name.len(), MAX_FILE_NAME, "name")?;
    at_most(pb.media_type.len(), MAX_MEDIA_TYPE, "media_type")?;
    if pb.size > MAX_FILE || pb.chunk_count == 0 || pb.chunk_count > MAX_CHUNKS {
        return Err(WireError::BadValue("size"));
    }
    let shape = ChunkPlan { chunk_size: pb.chunk_size, chunk_count: pb.chunk_count };
    if shape != chunk_plan(pb.size) && shape != message_plan(pb.size) {
        return Err(WireError::BadValue("chunk_count"));
    }
    Ok(Manifest {
        key: FileKey::from_bytes(array(&pb.file_key, "file_key")?),
        file_id: FileId::from_bytes(array(&pb.file_id, "file_id")?),
        blob_id: BlobId::from_bytes(array(&pb.blob_id, "blob_id")?),
        size: pb.size,
        chunk_size: pb.chunk_size,
        chunk_count: pb.chunk_count,
        root: array(&pb.root, "root")?,
        name: pb.name,
        media_type: pb.media_type,
    })
}

pub(crate) fn manifest_into(manifest: &Manifest) -> pb::FileManifest {
    pb::FileManifest {
        file_key: manifest.key.expose().to_vec(),
        file_id: manifest.file_id.as_bytes().to_vec(),
        blob_id: manifest.blob_id.as_bytes().to_vec(),
        size: manifest.size,
        chunk_size: manifest.chunk_size,
        chunk_count: manifest.chunk_count,
        root: manifest.root.to_vec(),
        name: manifest.name.clone(),
        media_type: manifest.media_type.clone(),
    }
}
