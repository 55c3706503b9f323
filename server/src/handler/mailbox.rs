//! Sending, and reading what is delivered from the store.

use std::sync::Arc;

use chatcore::ids::DeviceAddress;
use chatcore::wire::envelope::Envelope;
use chatcore::wire::relay::ErrorCode;

use super::Caller;
use crate::registry::Ticket;
use crate::server::Shared;
use crate::store::{Arrival, Body, StoreError};

/// Queues envelopes for mailboxes in memory; does not block. Settles the ticket's first share.
pub(crate) fn send(
    shared: &Shared,
    caller: &Caller,
    mut envelopes: Vec<Envelope>,
    ticket: &Arc<Ticket>,
) {
    let now = shared.clock.latest();
    let user = caller.address.user;
    let wanted = envelopes.len();
    let tokens = u32::try_from(wanted).unwrap_or(u32::MAX);
    let granted = shared.sends.take(user, tokens, shared.clock.uptime());
    envelopes.truncate(granted as usize);
    let mut results = shared.mailboxes.append(&user, envelopes, ticket, now);
    results.resize(wanted, Err(ErrorCode::RateLimited));
    ticket.set_results(results);
    ticket.settle();
}

/// Makes the mailboxes of devices in the directory known.
pub(super) fn look_up(shared: &Shared, devices: &[DeviceAddress]) -> Result<(), StoreError> {
    for device in devices {
        if !shared.mailboxes.knows(device) && shared.stores.directory.has_device(device)? {
            shared.mailboxes.ensure(device);
        }
    }
    Ok(())
}

/// Reads envelopes that are to be delivered.
///
/// # Errors
/// The store's: nothing of it may count as delivered then.
pub(crate) fn read_bodies(
    shared: &Shared,
    wanted: &[(u64, Arrival)],
) -> Result<Vec<(u64, Option<Body>)>, StoreError> {
    // What is not stored yet is still in the queue; asked first, as it may be stored meanwhile.
    let committer = shared.mailboxes.committer();
    let mut bodies: Vec<_> = wanted.iter().map(|(n, a)| (*n, committer.body(*a))).collect();
    let stored = bodies.iter().zip(wanted).filter(|((_, body), _)| body.is_none());
    let stored: Vec<Arrival> = stored.map(|(_, (_, arrival))| *arrival).collect();
    if stored.is_empty() {
        return Ok(bodies);
    }
    let mut stored = shared.stores.mailbox.bodies(&stored)?.into_iter();
    for (_, body) in bodies.iter_mut().filter(|(_, body)| body.is_none()) {
        *body = stored.next().flatten();
    }
    Ok(bodies)
}
