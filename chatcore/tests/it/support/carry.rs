//! A peer's frames carried one by one, past a relay that does or says something else.

use chatcore::ids::SECOND;
use chatcore::wire::relay::{Answer, DeviceFrame, ErrorCode, RelayFrame, Request};

use super::relay::Relay;
use super::world::World;

/// Carries everything of a peer for a while, with a relay that answers as we say.
pub(crate) fn carry_with(
    world: &mut World,
    i: usize,
    turns: usize,
    mut handle: impl FnMut(&mut Relay, DeviceFrame) -> Vec<RelayFrame>,
) {
    let address = world.peers[i].address;
    for _ in 0..turns {
        world.now = world.now.plus(3 * SECOND);
        world.relay.now = world.now;
        let now = world.now;
        for frame in std::mem::take(&mut world.peers[i].outgoing) {
            let answers = handle(&mut world.relay, frame);
            answers.into_iter().for_each(|answer| world.peers[i].frame(now, answer));
        }
        if let Some(frame) = world.relay.deliver(address) {
            world.peers[i].frame(now, frame);
        }
        world.peers[i].timeout(now);
    }
}

pub(crate) fn failure(request_id: u64) -> Vec<RelayFrame> {
    vec![RelayFrame { request_id, answer: Answer::Failure(ErrorCode::Internal.into()) }]
}

/// The same with a relay that can't do some things.
pub(crate) fn carry_but(
    world: &mut World,
    i: usize,
    turns: usize,
    cannot: impl Fn(&Request) -> bool,
) {
    let address = world.peers[i].address;
    carry_with(world, i, turns, |relay, frame| match cannot(&frame.request) {
        true => failure(frame.request_id),
        false => relay.handle(address, frame),
    });
}

/// The same with a relay that does some things and says that it did not.
pub(crate) fn carry_and_deny(world: &mut World, i: usize, denied: impl Fn(&Request) -> bool) {
    let address = world.peers[i].address;
    carry_with(world, i, 10, |relay, frame| {
        let (id, is_denied) = (frame.request_id, denied(&frame.request));
        let answers = relay.handle(address, frame);
        if is_denied { failure(id) } else { answers }
    });
}
