//! The library as others link it, one file a subject: engines that talk through a simulated relay, the client
//! over a socket, rooms as signed chains. One binary, since each would compile and link all of `support` again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod addresses;
mod altered;
mod circles;
mod client;
mod delivery;
mod directory;
mod fetching;
mod first_messages;
mod membership;
mod moving;
mod own_record;
mod prekeys;
mod presence;
mod regressions;
mod requests;
mod room_attacks;
mod room_flood;
mod room_forgery;
mod room_hints;
mod room_messages;
mod room_moves;
mod room_order;
mod room_secrets;
mod room_simulation;
mod room_ways_out;
mod rooms;
mod seen;
mod sequence;
mod simulation;
mod strangers;
mod support;
mod tested;
mod trust;
mod uploads;
