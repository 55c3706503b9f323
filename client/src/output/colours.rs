//! Colours of people, as long as this program runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use chatcore::ids::UserId;

use crate::output::render::{SENDERS, Tone};

/// Each person has a colour that nobody else has while others are free; the same one in each run, if it is free then.
#[derive(Debug, Clone, Default)]
pub(crate) struct Colours(Arc<Mutex<HashMap<UserId, usize>>>);

impl Colours {
    /// Returns a person's colour.
    pub(crate) fn of(&self, user: &UserId) -> Tone {
        let mut given = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(colour) = given.get(user) {
            return Tone::Of(*colour);
        }
        let [first, ..] = user.as_bytes();
        let wanted = usize::from(*first) % SENDERS.len();
        let mut from_there = (0..SENDERS.len()).map(|step| (wanted + step) % SENDERS.len());
        let free = from_there.find(|colour| !given.values().any(|taken| taken == colour));
        let colour = free.unwrap_or(wanted);
        if free.is_some() {
            given.insert(*user, colour);
        }
        Tone::Of(colour)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn nobody_shares_a_colour_while_others_are_free() {
        let colours = Colours::default();
        let user = |n: usize| {
            let mut id = [u8::try_from(n).unwrap(); 32];
            id[0] = 3;
            UserId::from_bytes(id)
        };
        let tone = |n| match colours.of(&user(n)) {
            Tone::Of(colour) => colour,
            Tone::Own => panic!("nobody is oneself"),
        };
        let all: HashSet<usize> = (0..SENDERS.len()).map(tone).collect();
        assert_eq!(all.len(), SENDERS.len());
        assert_eq!(tone(0), 3, "the first has the one that is theirs");
        assert_eq!((tone(1), tone(1)), (4, 4));
        assert_eq!(tone(99), 3, "when all are taken");
    }
}
