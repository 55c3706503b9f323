//! Names of ids, in words.

use std::collections::{BTreeMap, BTreeSet};

use chatcore::engine::{
    ContactStanding, ContactView, HistoryView, ProfileView, RoomMemberView, Sender,
};
use chatcore::ids::UserId;
use chatcore::keys::Nickname;
use chatcore::membership::Event;
use chatcore::net::Client;
use chatcore::trust::Trust;
use unicode_normalization::char::is_combining_mark;
use unicode_security::MixedScript;
use unicode_security::confusable_detection::skeleton;

use crate::error::CommandError;
use crate::output::json::{Person, RoomPerson};
use crate::output::render;

/// Nicknames of everybody we know.
#[derive(Debug, Default)]
pub(crate) struct Names {
    own: Option<UserId>,
    names: BTreeMap<UserId, String>,
    /// Users who wrote, and were not answered.
    new: BTreeSet<UserId>,
}

impl Names {
    /// Reads them from the profile.
    pub(crate) async fn load(client: &Client) -> Result<Self, CommandError> {
        Ok(Self::new(&client.profile().await?, client.contacts().await?))
    }

    /// Takes them from what was read already.
    pub(crate) fn new(own: &ProfileView, known: Vec<ContactView>) -> Self {
        let is_new =
            |c: &&ContactView| c.standing == ContactStanding::Request && c.trust != Trust::Verified;
        let new = known.iter().filter(is_new).map(|c| c.user).collect();
        let mut names: BTreeMap<_, _> =
            known.into_iter().map(|c| (c.user, c.nickname.as_str().to_owned())).collect();
        names.insert(own.user, own.nickname.as_str().to_owned());
        Self { own: Some(own.user), names, new }
    }

    /// Returns who wrote a message of the history: as they were called then, and whether they are new to us.
    pub(crate) fn author(&self, message: &HistoryView) -> String {
        let name = match message.name.as_str() {
            "" => self.of(&message.from),
            name => self.marked(&message.from, name),
        };
        if self.new.contains(&message.from) { format!("{name} (new to you)") } else { name }
    }

    /// Returns a name as it was chosen, or the beginning of the id; not cleaned for terminals.
    pub(crate) fn plain(&self, user: &UserId) -> String {
        self.names.get(user).cloned().unwrap_or_else(|| user.fmt_short())
    }

    /// Returns a name for a person's eyes, with a warning if it could be taken for another's.
    pub(crate) fn of(&self, user: &UserId) -> String {
        match self.names.get(user) {
            Some(name) => self.marked(user, name),
            None => format!("user {}", user.fmt_short()),
        }
    }

    /// As [`of`](Self::of), by the name that the sender has now.
    pub(crate) fn sender(&self, from: &Sender) -> String {
        self.marked(&from.user, from.nickname.as_str())
    }

    /// Returns a name with a warning if it looks like another's (Unicode TS 39), or like something
    /// that only this program says.
    pub(crate) fn marked(&self, user: &UserId, nickname: &str) -> String {
        let (name, fold) = (render::name(nickname), fold(nickname));
        let id = user.fmt_short();
        if self.own == Some(*user) {
            return name;
        }
        let looks = confusables(&fold);
        let mut is_namesake = false;
        let mut twin = None;
        for (_, other) in self.names.iter().filter(|(other, _)| *other != user) {
            let other_fold = self::fold(other);
            is_namesake |= other_fold == fold;
            if other_fold != fold && confusables(&other_fold) == looks {
                twin = Some(render::name(other));
            }
        }
        let is_ours = matches!(fold.as_str(), "you" | "the relay");
        if let Some(twin) = twin {
            format!("{name} [{id}, not {twin}!]")
        } else if !nickname.is_single_script() {
            format!("{name} [{id}, letters of several scripts]")
        } else if is_ours || nickname.chars().any(is_sign) {
            format!("{name} [{id}, that is all part of the name]")
        } else if is_namesake {
            format!("{name} [{id}]")
        } else {
            name
        }
    }

    /// Returns our own nickname; empty if nobody's profile was read.
    pub(crate) fn own(&self) -> &str {
        let own = self.own.and_then(|own| self.names.get(&own));
        own.map_or("", String::as_str)
    }

    /// Returns `you`, or a name.
    pub(crate) fn you_or(&self, user: &UserId) -> String {
        if self.own == Some(*user) { "you".to_owned() } else { self.of(user) }
    }

    /// Returns who did something.
    pub(crate) fn actor(&self, event: &Event) -> String {
        event.actor().user().map_or_else(|| "the relay".to_owned(), |user| self.you_or(&user))
    }

    /// Returns a person for a program.
    pub(crate) fn person(&self, user: &UserId) -> Person {
        let nickname = self.names.get(user).cloned();
        Person { nickname, user_id: user.to_hex() }
    }

    /// Returns a member for a program.
    pub(crate) fn member(&self, member: &RoomMemberView, online: bool) -> RoomPerson {
        RoomPerson {
            person: self.person(&member.user),
            role: member.role.as_str(),
            muted: member.muted,
            online,
        }
    }
}

fn fold(nickname: &str) -> String {
    Nickname::new(nickname).map(|name| name.fold()).unwrap_or_default()
}

/// Tells whether a character is none that names are made of.
fn is_sign(c: char) -> bool {
    let is_usual =
        c.is_alphanumeric() || is_combining_mark(c) || matches!(c, ' ' | '_' | '-' | '.' | '\'');
    !is_usual
}

/// Returns what two names that look alike have in common.
fn confusables(fold: &str) -> String {
    skeleton(fold).collect()
}

#[cfg(test)]
mod tests {
    use chatcore::engine::Acquaintance;

    use super::*;

    fn user(byte: u8) -> UserId {
        UserId::from_bytes([byte; 32])
    }

    fn from(byte: u8, name: &str) -> Sender {
        Sender {
            user: user(byte),
            nickname: Nickname::new(name).unwrap(),
            trust: Trust::Pinned,
            acquaintance: Acquaintance::Member,
            is_listed: true,
        }
    }

    #[test]
    fn a_name_that_looks_like_another_is_marked() {
        let names = BTreeMap::from([(user(1), "paul".to_owned()), (user(2), "alice".to_owned())]);
        let names = Names { own: None, names, new: BTreeSet::new() };
        let id = user(3).fmt_short();
        // The first is Cyrillic throughout, the second has one such letter, the third a digit.
        assert_eq!(names.sender(&from(3, "раυl")), format!("раυl [{id}, not paul!]"));
        assert_eq!(names.sender(&from(3, "аlice")), format!("аlice [{id}, not alice!]"));
        assert_eq!(names.sender(&from(3, "a1ice")), format!("a1ice [{id}, not alice!]"));
        let mixed = format!("bоb [{id}, letters of several scripts]");
        assert_eq!(names.sender(&from(3, "bоb")), mixed);
        for sign in ["paula ✓", "the relay", "You", "bob, carol"] {
            let marked = format!("{sign} [{id}, that is all part of the name]");
            assert!(names.sender(&from(3, sign)).ends_with(", that is all part of the name]"));
            assert!(names.sender(&from(3, sign)).len() >= marked.len() - 8);
        }
        assert_eq!(render::name("═══ ║ bob ✓ →"), "  bob  ");
        for honest in ["Алиса", "李雷", "José", "carol_99", "さくら桜"] {
            assert_eq!(names.sender(&from(3, honest)), honest);
        }
        assert_eq!(names.sender(&from(2, "alice")), "alice", "not a twin of himself");
    }

    #[test]
    fn two_of_one_name_are_told_apart() {
        let names = BTreeMap::from([(user(1), "bob".to_owned()), (user(2), "carol".to_owned())]);
        let names = Names { own: None, names, new: BTreeSet::new() };
        assert_eq!(names.sender(&from(1, "bob")), "bob");
        assert_eq!(names.sender(&from(3, "dave")), "dave");
        assert_eq!(names.sender(&from(3, "Bob")), format!("Bob [{}]", user(3).fmt_short()));
    }
}
