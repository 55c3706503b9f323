//! Schema of the messenger and the code generated from it; no logic.
//!
//! Only `chatcore::wire` uses this crate: everything else speaks the checked types of that module.
#![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic, clippy::restriction)]
#![allow(missing_debug_implementations, reason = "generated messages may carry secrets")]

/// User records and device certificates.
pub mod directory {
    include!(concat!(env!("OUT_DIR"), "/chat.directory.rs"));
}
/// Prekey records.
pub mod prekey {
    include!(concat!(env!("OUT_DIR"), "/chat.prekey.rs"));
}
/// Payload of the first message.
pub mod first_message {
    include!(concat!(env!("OUT_DIR"), "/chat.first_message.rs"));
}
/// Content of an opened envelope.
pub mod content {
    include!(concat!(env!("OUT_DIR"), "/chat.content.rs"));
}
/// File manifests.
pub mod file {
    include!(concat!(env!("OUT_DIR"), "/chat.file.rs"));
}
/// Frames between a device and its relay.
pub mod relay {
    include!(concat!(env!("OUT_DIR"), "/chat.relay.rs"));
}
/// Events and statements of rooms.
pub mod room {
    include!(concat!(env!("OUT_DIR"), "/chat.room.rs"));
}
/// Rows of a profile's store.
pub mod storage {
    include!(concat!(env!("OUT_DIR"), "/chat.storage.rs"));
}
