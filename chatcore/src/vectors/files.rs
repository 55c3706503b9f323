use super::{Script, array, hex, list, number, read, text};
use crate::crypto::kdf::sha256;
use crate::file::{ChunkPlace, FileKey, Manifest, RootHash, chunk_plan};
use crate::ids::{BlobId, FileId};

fn small(value: u64) -> u32 {
    u32::try_from(value).unwrap()
}

#[test]
fn files_are_cut_as_written() {
    for case in list(&read("file_chunk"), "sizes") {
        let plan = chunk_plan(number(case, "size"));
        assert_eq!(plan.chunk_size, small(number(case, "chunk_size")));
        assert_eq!(plan.chunk_count, small(number(case, "padded_count")));
    }
}

#[test]
fn chunks_are_byte_for_byte() {
    let v = read("file_chunk");
    let file = &v["file"];
    let size = usize::try_from(number(file, "size")).unwrap();
    let mut plain: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).unwrap()).collect();
    let manifest = Manifest {
        key: FileKey::from_bytes(array(file, "file_key")),
        file_id: FileId::from_bytes(array(file, "file_id")),
        blob_id: BlobId::from_bytes(array(file, "blob_id")),
        size: size as u64,
        chunk_size: small(number(file, "chunk_size")),
        chunk_count: small(number(file, "chunk_count")),
        root: array(&v, "root"),
        name: String::new(),
        media_type: String::new(),
    };
    plain.resize(manifest.chunk_size as usize * manifest.chunk_count as usize, 0);
    let mut root = RootHash::default();
    let mut stored = Vec::new();
    for (chunk, case) in plain.chunks(manifest.chunk_size as usize).zip(list(&v, "chunks")) {
        let index = small(number(case, "index"));
        let place = ChunkPlace { index, count: manifest.chunk_count };
        let mut rng = Script::new(hex(case, "salt"));
        let sealed = manifest.key.seal_chunk(&manifest.file_id, place, chunk, &mut rng);
        assert_eq!(sealed[..64], hex(case, "stored_first_64"));
        assert_eq!(sealed[sealed.len() - 64..], hex(case, "stored_last_64"));
        assert_eq!(sha256(&[&sealed])[..], hex(case, "stored_sha256"));
        assert_eq!(manifest.key.open_chunk(&manifest, index, &mut sealed.clone()).unwrap(), chunk);
        root.update(&sealed);
        stored.push(sealed);
    }
    assert_eq!(stored.len(), list(&v, "chunks").len());
    root.check(&manifest).unwrap();

    for case in list(&v, "refused") {
        let mut bytes = stored[usize::try_from(number(case, "chunk")).unwrap()].clone();
        if let Some(at) = case["flip_lowest_bit_of_byte"].as_u64() {
            bytes[usize::try_from(at).unwrap()] ^= 1;
        }
        if let Some(len) = case["truncate_to"].as_u64() {
            bytes.truncate(usize::try_from(len).unwrap());
        }
        if case["append"].is_string() {
            bytes.extend(hex(case, "append"));
        }
        let index = case["open_as_index"].as_u64().unwrap_or(number(case, "chunk"));
        let mut manifest = manifest.clone();
        if case["file_id"].is_string() {
            manifest.file_id = FileId::from_bytes(array(case, "file_id"));
        }
        let refused = manifest.key.open_chunk(&manifest, small(index), &mut bytes).is_err();
        assert!(refused, "{}", text(case, "name"));
    }
}
