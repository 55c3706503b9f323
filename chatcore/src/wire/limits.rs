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
/// Plaintext sizes that the only chunk of a long text may have as well.
pub const MESSAGE_CHUNK_SIZES: [u32; 4] = [4_096, 8_192, 16_384, 32_768];
/// Most chunks of a file: 16 GiB in chunks of 1 MiB.
pub const MAX_CHUNKS: u32 = 16_384;
/// Most bytes of the body of a room event or statement.
pub const MAX_EVENT: usize = 4_096;
/// Most events in one entry of a register.
pub const MAX_EVENTS_IN_ENTRY: usize = 256;
/// Sizes that a sealed entry of a register may have.
pub const ENTRY_SIZES: [usize; 8] = [1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072];
/// Most bytes of an entry of a log.
pub const MAX_LOG_ENTRY: usize = ENTRY_SIZES[7];
/// Most bytes of entries that a member sends another to show how a log goes on.
pub const MAX_SHOWN_ENTRIES: usize = 16 * 1_024;
/// Most secrets of registers in one update of a room.
pub const MAX_UPDATE_SECRETS: usize = 512;
/// Most entries of a register.
pub const MAX_ENTRIES: u64 = 1_024;
/// Entries of one account in a register, candidates not among them.
pub const MAX_ENTRIES_OF_ONE: u32 = 128;
/// Most candidates behind the entries of a register.
pub const MAX_CANDIDATES: u64 = 16_384;
/// Most bytes of a candidate.
pub const MAX_CANDIDATE: usize = ENTRY_SIZES[2];
/// Most events and statements each in one update of a room.
pub const MAX_UPDATE_EVENTS: usize = 64;
/// Most bytes of an announcement's text.
pub const MAX_ANNOUNCEMENT: usize = 4_096;
/// Most announcements in one answer.
pub const MAX_ANNOUNCEMENTS: usize = 64;
/// Most open rooms of a relay.
pub const MAX_OPEN_ROOMS: usize = 512;
/// Most open rooms in one answer.
pub const MAX_LISTED_ROOMS: usize = 64;
/// Most bytes of the body of a user's event in an open room: the longest name with the longest topic fit.
pub const MAX_OPEN_EVENT: usize = 2_048;
/// Most events, and most statements, in one answer about an open room.
pub const MAX_ROOM_ITEMS: usize = 1_024;
/// Most bytes of an administrator's command, and of its answer.
pub const MAX_ADMIN_LINE: usize = 8_192;
/// Most bytes of the answer to an administrator's command.
pub const MAX_ADMIN_ANSWER: usize = 262_144;
/// Most bytes of the body of a room message that travels inside of each envelope.
pub const MAX_ROOM_INLINE: usize = 4_096;
/// Most bytes of a file that proves a fork.
pub const MAX_FORK_PROOF: usize = 256 << 20;
