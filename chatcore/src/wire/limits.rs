//! Limits of what travels, each in this one place (PROTOCOL.md section 11).

/// Most bytes of one relay message.
pub const MAX_LINK_MESSAGE: usize = 1_048_576 + 4_096;
/// Most bytes of a text.
pub const MAX_TEXT: usize = 65_536;
/// Most bytes of an encoded, signed user record.
pub const MAX_RECORD: usize = 4_000;
/// Most records in one answer.
pub const MAX_RECORDS: usize = 64;
/// Most prekey records in one upload.
pub const MAX_PREKEYS: usize = 21;
/// Most bytes of an encoded, signed prekey record.
pub const MAX_PREKEY: usize = 2_048;
/// Most devices in one claim.
pub const MAX_CLAIMS: usize = 100;
/// Most envelopes in one request.
pub const MAX_ENVELOPES: usize = 1_000;
/// Most keys in one query.
pub const MAX_QUERY: usize = 1_000;
/// Most tags in one presence, and most devices in one question for it.
pub const MAX_PRESENCE: usize = 4_096;
/// Sizes an envelope's blob may have.
pub const BLOB_SIZES: [usize; 7] = [512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768];
/// Longest time an envelope is kept, in seconds.
pub const MAX_TTL: u32 = 30 * 24 * 3_600;
/// Most receipts in one content.
pub const MAX_RECEIPTS: usize = 64;
/// Most bytes of a file.
pub const MAX_FILE: u64 = 16 << 30;
/// Most bytes of a file's name on the wire.
pub const MAX_FILE_NAME: usize = 255;
/// Most bytes of a media type.
pub const MAX_MEDIA_TYPE: usize = 127;
/// Bytes a stored chunk has over its plaintext: salt and tag.
pub const CHUNK_OVERHEAD: usize = 32;
/// Plaintext sizes a chunk may have.
pub const CHUNK_SIZES: [u32; 3] = [65_536, 262_144, 1_048_576];
/// Most chunks of a file: 16 GiB in chunks of 1 MiB.
pub const MAX_CHUNKS: u32 = 16_384;
