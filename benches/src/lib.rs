//! Measurements of the messenger; the figures stand in docs/BENCHMARKS.md.
//!
//! ```text
//! benches/*.rs    criterion suites of chatcore       fixtures   people, sessions, files for them
//! bin/load.rs     a relay under load, beside a bare  load       connections, phases, figures
//!                 TCP forwarder in the same run
//! bin/attack.rs  a relay under attack: its memory, and what an honest pair notices
//! bin/churn.rs    the relay's stores after much use  churn      writes, sizes, time to reopen
//! ```
//! Nothing here is part of the product, and nothing in it depends on this crate.

#![forbid(unsafe_code)]

pub mod churn;
pub mod error;
pub mod figure;
pub mod fixtures;
pub mod load;
