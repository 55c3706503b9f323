//! Who is meant by an id, in words.

use std::collections::BTreeMap;

use chatcore::engine::{ContactView, ProfileView, RoomMemberView, Sender};
use chatcore::ids::UserId;
use chatcore::keys::Nickname;
use chatcore::membership::Event;
use chatcore::net::Client;
use unicode_security::MixedScript;
use unicode_security::confusable_detection::skeleton;

use crate::error::CommandError;
use crate::json::{Person, RoomPerson};
use crate::render;

/// Nicknames of everybody we know.
#[derive(Debug, Default)]
pub(crate) struct Names {
    own: Option<UserId>,
    names: BTreeMap<UserId, String>,
}

impl Names {
    /// Reads them from the profile.
    pub(crate) async fn load(client: &Client) -> Result<Self, CommandError> {
        Ok(Self::new(&client.profile().await?, client.contacts().await?))
    }

    /// Takes them from what was read already.
    pub(crate) fn new(own: &ProfileView, known: Vec<ContactView>) -> Self {
        let mut names: BTreeMap<_, _> =
            known.into_iter().map(|c| (c.user, c.nickname.as_str().to_owned())).collect();
        names.insert(own.user, own.nickname.as_str().to_owned());
        Self { own: Some(own.user), names }
    }

    /// Returns a name as it was chosen, or the beginning of the id; not cleaned for terminals.
    pub(crate) fn plain(&self, user: &UserId) -> String {
        self.names.get(user).cloned().unwrap_or_else(|| user.fmt_short())
    }

    /// Returns a name for a person's eyes.
    pub(crate) fn of(&self, user: &UserId) -> String {
        match self.names.get(user) {
            Some(name) => render::name(name),
            None => format!("user {}", user.fmt_short()),
        }
    }

    /// Returns a sender's name, with a warning if it could be taken for another's (Unicode TS 39).
    pub(crate) fn sender(&self, from: &Sender) -> String {
        let (name, fold) = (render::name(from.nickname.as_str()), from.nickname.fold());
        let looks = confusables(&fold);
        let mut is_namesake = false;
        let mut twin = None;
        for (_, other) in self.names.iter().filter(|(user, _)| **user != from.user) {
            let other_fold = Nickname::new(other).map(|other| other.fold()).unwrap_or_default();
            is_namesake |= other_fold == fold;
            if other_fold != fold && confusables(&other_fold) == looks {
                twin = Some(render::name(other));
            }
        }
        let id = from.user.fmt_short();
        match twin {
            Some(twin) => format!("{name} [{id}, not {twin}!]"),
            None if !from.nickname.as_str().is_single_script() => {
                format!("{name} [{id}, letters of several scripts]")
            }
            None if is_namesake => format!("{name} [{id}]"),
            None => name,
        }
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

/// Returns what two names that look alike have in common.
fn confusables(fold: &str) -> String {
    skeleton(fold).collect()
}

#[cfg(test)]
mod tests {
    use chatcore::engine::Acquaintance;
    use chatcore::trust::Trust;

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
        }
    }

    #[test]
    fn a_name_that_looks_like_another_is_marked() {
        let names = BTreeMap::from([(user(1), "paul".to_owned()), (user(2), "alice".to_owned())]);
        let names = Names { own: None, names };
        let id = user(3).fmt_short();
        // The first is Cyrillic throughout, the second has one such letter, the third a digit.
        assert_eq!(names.sender(&from(3, "раυl")), format!("раυl [{id}, not paul!]"));
        assert_eq!(names.sender(&from(3, "аlice")), format!("аlice [{id}, not alice!]"));
        assert_eq!(names.sender(&from(3, "a1ice")), format!("a1ice [{id}, not alice!]"));
        let mixed = format!("bоb [{id}, letters of several scripts]");
        assert_eq!(names.sender(&from(3, "bоb")), mixed);
        for honest in ["Алиса", "李雷", "José", "carol_99", "さくら桜"] {
            assert_eq!(names.sender(&from(3, honest)), honest);
        }
        assert_eq!(names.sender(&from(2, "alice")), "alice", "not a twin of himself");
    }

    #[test]
    fn two_of_one_name_are_told_apart() {
        let names = BTreeMap::from([(user(1), "bob".to_owned()), (user(2), "carol".to_owned())]);
        let names = Names { own: None, names };
        assert_eq!(names.sender(&from(1, "bob")), "bob");
        assert_eq!(names.sender(&from(3, "dave")), "dave");
        assert_eq!(names.sender(&from(3, "Bob")), format!("Bob [{}]", user(3).fmt_short()));
    }
}
