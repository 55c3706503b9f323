//! Which messages that can't be judged yet find a place (PROTOCOL.md section 16): so many in a room, so many of one
//! person, and nobody's take the places of others.

use std::collections::BTreeMap;

use crate::ids::{DAY, UserId};

/// Milliseconds that a message is held.
pub(in crate::engine) const HOLD_FOR: u64 = DAY;
/// Most messages held in one room.
pub(super) const MAX_HELD: usize = 1_000;
/// Most of them from one member.
const MAX_OF_MEMBER: usize = 100;
/// Most of them from one who is no member as far as is known.
const MAX_OF_STRANGER: usize = 8;
/// Most of them from all who are none.
const MAX_OF_STRANGERS: usize = 64;
/// Most before the room was read: then it says nothing of a sender that there is much of them.
const MAX_UNREAD: usize = 2 * MAX_HELD;

/// Where a message goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// There is one.
    Free,
    /// In the place of this one, by its index.
    InsteadOf(usize),
    /// There is none.
    None,
}

/// Whether the room was read on this connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum IsRead {
    Yes,
    No,
}

/// Finds a place beside what is held, oldest first, for a message of `from`. When all are taken, the newest of whoever
/// has most of them gives way, if that is more than the sender has.
pub(super) fn place(
    held: &[UserId],
    from: UserId,
    is_read: IsRead,
    is_member: impl Fn(&UserId) -> bool,
) -> Place {
    let same = held.iter().filter(|user| **user == from).count();
    if !is_member(&from) {
        // Who joined just now, or anybody: they leave the members their places.
        let strange = held.iter().filter(|user| !is_member(user)).count();
        return match same < MAX_OF_STRANGER && strange < MAX_OF_STRANGERS {
            true => Place::Free,
            false => Place::None,
        };
    }
    let most = match is_read {
        IsRead::Yes if same >= MAX_OF_MEMBER => return Place::None,
        IsRead::Yes => MAX_HELD,
        IsRead::No => MAX_UNREAD,
    };
    if held.len() < most {
        return Place::Free;
    }
    let mut counts: BTreeMap<UserId, usize> = BTreeMap::new();
    held.iter().for_each(|user| *counts.entry(*user).or_default() += 1);
    let fullest = counts.into_iter().max_by_key(|(_, count)| *count);
    match fullest {
        Some((user, count)) if count > same + 1 => {
            let newest = held.iter().rposition(|other| *other == user);
            newest.map_or(Place::None, Place::InsteadOf)
        }
        _ => Place::None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: u8) -> UserId {
        UserId::from_bytes([n; 32])
    }

    /// Two members fill every place while somebody is away: who says something after that is heard all the same.
    #[test]
    fn nobody_takes_the_places_of_others() {
        let all = |_: &UserId| true;
        let mut held = vec![user(1); MAX_UNREAD / 2];
        held.extend(vec![user(2); MAX_UNREAD - held.len()]);
        assert_eq!(place(&held, user(3), IsRead::No, all), Place::InsteadOf(MAX_UNREAD - 1));
        assert_eq!(place(&held, user(2), IsRead::No, all), Place::None);
        held[MAX_UNREAD - 1] = user(3);
        assert_eq!(place(&held, user(3), IsRead::No, all), Place::InsteadOf(MAX_UNREAD / 2 - 1));
        // Also when each keeps within their share.
        let many: Vec<_> = (0..MAX_HELD).map(|n| user(u8::try_from(n / 100).unwrap())).collect();
        assert_eq!(place(&many, user(99), IsRead::Yes, all), Place::InsteadOf(MAX_HELD - 1));
        let one_each: Vec<_> = (0..MAX_HELD)
            .map(|n| {
                UserId::from_bytes([
                    u8::try_from(n / 250).unwrap(),
                    u8::try_from(n % 250).unwrap(),
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    0,
                    1,
                ])
            })
            .collect();
        assert_eq!(place(&one_each, user(99), IsRead::Yes, all), Place::None);
    }

    #[test]
    fn each_has_a_share() {
        let is_member = |user: &UserId| user.as_bytes()[0] < 10;
        let of = |n, count| vec![user(n); count];
        let found = |held: &[UserId], n| place(held, user(n), IsRead::Yes, is_member);
        assert_eq!(found(&of(1, MAX_OF_MEMBER - 1), 1), Place::Free);
        assert_eq!(found(&of(1, MAX_OF_MEMBER), 1), Place::None);
        assert_eq!(place(&of(1, MAX_OF_MEMBER), user(1), IsRead::No, is_member), Place::Free);
        assert_eq!(found(&of(11, MAX_OF_STRANGER - 1), 11), Place::Free);
        assert_eq!(found(&of(11, MAX_OF_STRANGER), 11), Place::None);
        assert_eq!(found(&of(11, MAX_OF_STRANGERS), 12), Place::None);
        assert_eq!(found(&of(11, MAX_OF_STRANGERS), 1), Place::Free);
    }
}
