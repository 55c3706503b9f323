//! Peers, a relay that misbehaves, and a clock, all in one thread and from one seed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test support, shared with benches"
)]

pub(crate) mod blobs;
pub(crate) mod carry;
pub(crate) mod counted;
pub(crate) mod peer;
pub(crate) mod relay;
pub(crate) mod relay_rooms;
pub(crate) mod rooms;
pub(crate) mod served;
pub(crate) mod stranger;
pub(crate) mod world;
