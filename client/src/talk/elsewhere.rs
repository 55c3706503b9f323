//! Conversations other than the one in which the person talks: what of them was not shown, and is counted.

use std::collections::BTreeMap;

use chatcore::ids::{Conversation, MessageId};

use crate::render;

/// Messages of a conversation that are shown when the person goes there; of more only the newest.
const REMEMBERED: usize = 200;

/// What was not shown yet, by conversation.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    unread: BTreeMap<Conversation, Unread>,
    /// Numbers what came.
    next: u64,
}

/// What was not shown of a conversation.
#[derive(Debug, Default)]
pub(super) struct Unread {
    /// `#room`, or a nickname; not cleaned for terminals.
    name: String,
    /// How many there are.
    pub(super) count: u64,
    /// The newest of them.
    pub(super) messages: Vec<MessageId>,
    /// How many of them mention the person.
    mentions: u64,
    /// Number of the first.
    since: u64,
}

/// Whether a text mentions the person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mentions {
    Us,
    Nobody,
}

/// Whether a conversation is quiet: it is counted, and neither announced nor gone to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Muted {
    Yes,
    No,
}

impl Elsewhere {
    /// Counts a message.
    pub(super) fn add(
        &mut self,
        conversation: Conversation,
        name: &str,
        message: MessageId,
        mentions: Mentions,
    ) {
        let unread = self.unread.entry(conversation).or_default();
        if unread.count == 0 {
            unread.since = self.next;
        }
        self.next += 1;
        name.clone_into(&mut unread.name);
        unread.count += 1;
        unread.mentions += u64::from(mentions == Mentions::Us);
        unread.messages.push(message);
        if unread.messages.len() > REMEMBERED {
            unread.messages.remove(0);
        }
    }

    /// The person goes there: it is shown.
    pub(super) fn take(&mut self, conversation: &Conversation) -> Option<Unread> {
        self.unread.remove(conversation)
    }

    /// Returns where something waits: where the person is mentioned first, then the longest.
    pub(super) fn next(&self, muted: impl Fn(&Conversation) -> Muted) -> Option<Conversation> {
        let calls = |(conversation, unread): &(&Conversation, &Unread)| {
            unread.mentions > 0 || muted(conversation) == Muted::No
        };
        let first = self.unread.iter().filter(calls);
        let first = first.min_by_key(|(_, unread)| (unread.mentions == 0, unread.since));
        first.map(|(conversation, _)| *conversation)
    }

    /// Shows how much there is; `None`: nothing.
    pub(super) fn shown(&self, muted: impl Fn(&Conversation) -> Muted) -> Option<String> {
        let each = |(conversation, unread): (&Conversation, &Unread)| {
            let mark = match unread.mentions {
                0 if muted(conversation) == Muted::Yes => return None,
                0 => "",
                _ => " @",
            };
            Some(format!("{} {}{mark}", render::name(&unread.name), unread.count))
        };
        let all: Vec<_> = self.unread.iter().filter_map(each).collect();
        (!all.is_empty()).then(|| format!("unread: {}", all.join(", ")))
    }

    /// Takes the names of now; a conversation without one is gone.
    pub(super) fn follow(&mut self, name_of: impl Fn(&Conversation) -> Option<String>) {
        self.unread.retain(|conversation, unread| {
            let name = name_of(conversation);
            let is_there = name.is_some();
            unread.name = name.unwrap_or_default();
            is_there
        });
    }
}

#[cfg(test)]
mod tests {
    use chatcore::ids::UserId;

    use super::*;

    fn person(n: u8) -> Conversation {
        Conversation::User(UserId::from_bytes([n; 32]))
    }

    fn message(n: u8) -> MessageId {
        MessageId::from_bytes([n; 16])
    }

    #[test]
    fn mentions_come_first_then_who_waits_longest_and_muted_ones_never() {
        let mut elsewhere = Elsewhere::default();
        let none = |_: &Conversation| Muted::No;
        assert_eq!((elsewhere.next(none), elsewhere.shown(none)), (None, None));
        for (n, name) in [(3, "carol"), (2, "bob"), (3, "carol")] {
            elsewhere.add(person(n), name, message(n), Mentions::Nobody);
        }
        assert_eq!(elsewhere.shown(none).unwrap(), "unread: bob 1, carol 2");
        assert_eq!(elsewhere.next(none), Some(person(3)));
        let carol = |who: &Conversation| if *who == person(3) { Muted::Yes } else { Muted::No };
        assert_eq!(elsewhere.next(carol), Some(person(2)));
        assert_eq!(elsewhere.shown(carol).unwrap(), "unread: bob 1");
        elsewhere.add(person(3), "caroline", message(9), Mentions::Us);
        assert_eq!(elsewhere.next(carol), Some(person(3)), "who is mentioned is told all the same");
        assert_eq!(elsewhere.shown(carol).unwrap(), "unread: bob 1, caroline 3 @");
        let taken = elsewhere.take(&person(3)).unwrap();
        assert_eq!(taken.messages, [message(3), message(3), message(9)]);
        elsewhere.follow(|_| Some("robert".to_owned()));
        assert_eq!(elsewhere.shown(none).unwrap(), "unread: robert 1");
        elsewhere.follow(|_| None);
        assert_eq!(elsewhere.shown(none), None);
    }

    #[test]
    fn of_a_flood_the_newest_are_remembered_and_all_counted() {
        let mut elsewhere = Elsewhere::default();
        for n in 0..=u8::MAX {
            elsewhere.add(person(2), "bob", message(n), Mentions::Nobody);
        }
        let unread = elsewhere.take(&person(2)).unwrap();
        assert_eq!((unread.count, unread.messages.len()), (256, REMEMBERED));
        assert_eq!(unread.messages.last(), Some(&message(255)));
    }
}
