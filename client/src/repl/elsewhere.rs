//! Conversations other than the one in which the person talks: what of them was not shown is counted, and kept so that a
//! later run counts it too.

use std::collections::{BTreeMap, BTreeSet};

use chatcore::ids::{Conversation, MessageId, RoomId, UserId};
use serde::{Deserialize, Serialize};

use crate::output::render;

/// Unread messages, by conversation.
#[derive(Debug, Default)]
pub(super) struct Elsewhere {
    unread: BTreeMap<Conversation, Unread>,
    /// Numbers what came.
    next: u64,
    /// Conversations that changed since they were kept last.
    changed: BTreeSet<Conversation>,
}

/// Unread messages of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unread {
    /// `#room`, or a nickname; not cleaned for terminals.
    name: String,
    /// How many there are.
    pub(super) count: u64,
    /// The first of them.
    pub(super) first: MessageId,
    /// How many of them mention the person.
    mentions: u64,
    /// Number of the first.
    since: u64,
}

/// The same, as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    user: Option<String>,
    room: Option<String>,
    name: String,
    count: u64,
    first: String,
    mentions: u64,
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
    /// Goes on with what was kept; what can't be read is left out.
    pub(super) fn new(kept: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let mut elsewhere = Self::default();
        for row in kept {
            let Ok(kept) = serde_json::from_slice::<Kept>(&row) else { continue };
            let user = kept.user.as_deref().and_then(UserId::from_hex).map(Conversation::User);
            let room = kept.room.as_deref().and_then(RoomId::from_hex).map(Conversation::Room);
            let (Some(conversation), Some(first)) =
                (user.or(room), MessageId::from_hex(&kept.first))
            else {
                continue;
            };
            let Kept { name, count, mentions, since, .. } = kept;
            elsewhere.next = elsewhere.next.max(since.saturating_add(1));
            elsewhere.unread.insert(conversation, Unread { name, count, first, mentions, since });
        }
        elsewhere
    }

    /// Returns what is to be kept since it was asked for last: numbers, and the rows under them; none: nothing is unread.
    pub(super) fn take_changes(&mut self) -> Vec<(u64, Option<Vec<u8>>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|at| (number_of(&at), self.row_of(&at))).collect()
    }

    fn row_of(&self, conversation: &Conversation) -> Option<Vec<u8>> {
        let Unread { name, count, first, mentions, since } = self.unread.get(conversation)?.clone();
        let (user, room) = match conversation {
            Conversation::User(user) => (Some(user.to_hex()), None),
            Conversation::Room(room) => (None, Some(room.to_hex())),
        };
        let kept = Kept { user, room, name, count, first: first.to_hex(), mentions, since };
        serde_json::to_vec(&kept).ok()
    }

    /// Counts a message.
    pub(super) fn add(
        &mut self,
        conversation: Conversation,
        name: &str,
        message: MessageId,
        mentions: Mentions,
    ) {
        let since = self.next;
        let unread = self.unread.entry(conversation).or_insert_with(|| Unread {
            name: String::new(),
            count: 0,
            first: message,
            mentions: 0,
            since,
        });
        self.next += 1;
        name.clone_into(&mut unread.name);
        unread.count += 1;
        unread.mentions += u64::from(mentions == Mentions::Us);
        self.changed.insert(conversation);
    }

    /// Returns what is unread there.
    pub(super) fn of(&self, conversation: &Conversation) -> Option<Unread> {
        self.unread.get(conversation).cloned()
    }

    /// The person went there: it was shown.
    pub(super) fn take(&mut self, conversation: &Conversation) -> Option<Unread> {
        let taken = self.unread.remove(conversation);
        if taken.is_some() {
            self.changed.insert(*conversation);
        }
        taken
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
            let (count, mark) = match (unread.mentions, muted(conversation)) {
                (0, Muted::Yes) => return None,
                (0, Muted::No) => (unread.count, ""),
                (mentions, Muted::Yes) => (mentions, " @"),
                (_, Muted::No) => (unread.count, " @"),
            };
            Some(format!("{} {count}{mark}", render::name(&unread.name)))
        };
        let all: Vec<_> = self.unread.iter().filter_map(each).collect();
        (!all.is_empty()).then(|| format!("unread: {}", all.join(", ")))
    }

    /// Takes the names of now; a conversation without one is gone.
    pub(super) fn follow(&mut self, name_of: impl Fn(&Conversation) -> Option<String>) {
        let changed = &mut self.changed;
        self.unread.retain(|conversation, unread| {
            let name = name_of(conversation);
            if name.as_ref() != Some(&unread.name) {
                changed.insert(*conversation);
            }
            let is_there = name.is_some();
            unread.name = name.unwrap_or_default();
            is_there
        });
    }
}

/// Returns the number under which a conversation is kept: ids are random, and few.
fn number_of(conversation: &Conversation) -> u64 {
    let bytes = match conversation {
        Conversation::User(user) => *user.as_bytes(),
        Conversation::Room(room) => *room.as_bytes(),
    };
    bytes.first_chunk::<8>().map_or(0, |first| u64::from_be_bytes(*first))
}

#[cfg(test)]
mod tests {
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
        for (n, who, name) in [(1, 3, "carol"), (2, 2, "bob"), (3, 3, "carol")] {
            elsewhere.add(person(who), name, message(n), Mentions::Nobody);
        }
        assert_eq!(elsewhere.shown(none).unwrap(), "unread: bob 1, carol 2");
        assert_eq!(elsewhere.next(none), Some(person(3)));
        let carol = |who: &Conversation| if *who == person(3) { Muted::Yes } else { Muted::No };
        assert_eq!(elsewhere.next(carol), Some(person(2)));
        assert_eq!(elsewhere.shown(carol).unwrap(), "unread: bob 1");
        elsewhere.add(person(3), "caroline", message(9), Mentions::Us);
        assert_eq!(elsewhere.next(carol), Some(person(3)), "who is mentioned is told all the same");
        assert_eq!(
            elsewhere.shown(carol).unwrap(),
            "unread: bob 1, caroline 1 @",
            "of who is muted only mentions count"
        );
        let taken = elsewhere.take(&person(3)).unwrap();
        assert_eq!((taken.first, taken.count), (message(1), 3));
        elsewhere.follow(|_| Some("robert".to_owned()));
        assert_eq!(elsewhere.shown(none).unwrap(), "unread: robert 1");
        elsewhere.follow(|_| None);
        assert_eq!(elsewhere.shown(none), None);
    }

    #[test]
    fn what_is_unread_is_kept_and_what_was_read_is_not() {
        let mut elsewhere = Elsewhere::default();
        let room = Conversation::Room(RoomId::from_bytes([7; 32]));
        elsewhere.add(person(2), "bob", message(1), Mentions::Nobody);
        elsewhere.add(room, "#tea", message(2), Mentions::Us);
        let mut rows: BTreeMap<_, _> = elsewhere.take_changes().into_iter().collect();
        assert!(elsewhere.take_changes().is_empty(), "nothing new");
        elsewhere.add(person(2), "bob", message(3), Mentions::Nobody);
        rows.extend(elsewhere.take_changes());
        let kept = |rows: &BTreeMap<u64, Option<Vec<u8>>>| {
            Elsewhere::new(rows.values().flatten().cloned().chain([b"nothing".to_vec()]))
        };
        let again = kept(&rows);
        let none = |_: &Conversation| Muted::No;
        assert_eq!(again.unread, elsewhere.unread);
        assert_eq!(again.shown(none).unwrap(), "unread: bob 2, #tea 1 @");
        assert_eq!(again.next(none), Some(room));
        elsewhere.take(&person(2));
        rows.extend(elsewhere.take_changes());
        assert_eq!(kept(&rows).shown(none).unwrap(), "unread: #tea 1 @");
    }
}
