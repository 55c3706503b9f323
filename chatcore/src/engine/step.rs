//! The input and the output of a step of the engine.

use rand::CryptoRng;

use super::error::EngineError;
use super::event::Event;
use crate::ids::Timestamp;
use crate::store::row::ReadRows;
use crate::store::rows::Profile;
use crate::store::{Changes, Store, StoreError};
use crate::wire::relay::DeviceFrame;

/// The inputs of a step: store, time, randomness.
pub struct Context<'a> {
    /// Rows as they are on disk.
    pub store: &'a dyn Store,
    /// The time.
    pub now: Timestamp,
    /// The operating system's randomness.
    pub rng: &'a mut dyn CryptoRng,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { store: _, now, rng: _ } = self;
        write!(f, "Context({now:?})")
    }
}

/// The work that a step leaves to the driver, in this order: save, send, show.
#[derive(Debug, Default)]
#[must_use]
pub struct Step {
    /// Saved in one durable transaction before anything else happens.
    pub changes: Changes,
    /// Sent after the changes are saved.
    pub frames: Vec<DeviceFrame>,
    /// Shown last.
    pub events: Vec<Event>,
}

/// Returns the own profile.
pub(super) fn own_profile(store: &dyn Store) -> Result<Profile, EngineError> {
    Ok(store.get(&())?.ok_or(StoreError::Damaged)?)
}
