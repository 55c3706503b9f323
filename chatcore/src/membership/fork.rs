//! The fork rule: which of several branches after one event counts.
//!
//! It looks at the branches only, so whoever knows the same branches chooses the same one.

use super::{Act, Event, Role, RoomState};

/// What decides between branches that no removal decides, in this order.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Weight {
    /// Highest rank, at the common ancestor, of anybody who acts in the branch.
    rank: Option<Role>,
    /// Removals before grants.
    class: u8,
    /// The smaller hash.
    hash: std::cmp::Reverse<[u8; 32]>,
}

/// Returns the index of the branch that counts. `ancestor` is the state all of them begin at; no
/// branch is empty.
pub(super) fn choose(ancestor: &RoomState, branches: &[Vec<&Event>]) -> usize {
    let all: Vec<usize> = (0..branches.len()).collect();
    let has_checkpoint = |index: &usize| {
        let events = branches.get(*index).into_iter().flatten();
        events.into_iter().any(|event| matches!(event.act(), Act::Checkpoint(_)))
    };
    // What an owner has fixed does not open again for whoever has seen it: so it must not for others.
    let fixed = those(&all, has_checkpoint);
    let is_removed = |index: &usize| {
        let Some(own) = branches.get(*index) else { return true };
        let others = fixed.iter().filter(|other| *other != index);
        let mut others = others.filter_map(|other| branches.get(*other));
        others.any(|other| removes_first_actor(ancestor, other, own))
    };
    let left = those(&fixed, |index| !is_removed(index));
    let weight = |index: &usize| branches.get(*index).map(|branch| weigh(ancestor, branch));
    left.into_iter().max_by_key(weight).unwrap_or(0)
}

/// Returns those for which something holds, or all if it holds for none.
fn those(all: &[usize], holds: impl Fn(&usize) -> bool) -> Vec<usize> {
    let some: Vec<usize> = all.iter().copied().filter(holds).collect();
    if some.is_empty() { all.to_vec() } else { some }
}

/// Tells whether `branch` removes or demotes the first actor of `other`, by somebody who outranked
/// him at the ancestor.
fn removes_first_actor(ancestor: &RoomState, branch: &[&Event], other: &[&Event]) -> bool {
    let Some(first) = other.first() else { return false };
    let Some(victim) = first.actor().user() else { return false };
    let rank = ancestor.role(&victim);
    branch.iter().any(|event| {
        let removes = match event.act() {
            Act::Kick { user, .. } | Act::Ban { user, .. } => *user == victim,
            Act::SetRole { user, role } => *user == victim && Some(*role) < rank,
            _ => false,
        };
        removes && ancestor.rank(event.actor()) > rank
    })
}

fn weigh(ancestor: &RoomState, branch: &[&Event]) -> Weight {
    let first = branch.first();
    Weight {
        rank: branch.iter().filter_map(|event| ancestor.rank(event.actor())).max(),
        class: first.map_or(0, |event| class(ancestor, event.act())),
        hash: std::cmp::Reverse(first.map_or([0xff; 32], |event| *event.hash().as_bytes())),
    }
}

/// 2 for what takes away, 0 for what gives, 1 for all else.
fn class(ancestor: &RoomState, act: &Act) -> u8 {
    match act {
        Act::Kick { .. } | Act::Ban { .. } | Act::Mute(_) => 2,
        Act::SetRole { user, role } if Some(*role) < ancestor.role(user) => 2,
        Act::Invite { .. }
        | Act::Unban(_)
        | Act::Unmute(_)
        | Act::SetRole { .. }
        | Act::Transfer(_) => 0,
        _ => 1,
    }
}
