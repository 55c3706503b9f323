//! Who is meant by an id, in words.

use std::collections::BTreeMap;

use chatcore::engine::{RoomMemberView, Sender};
use chatcore::ids::UserId;
use chatcore::keys::Nickname;
use chatcore::membership::Event;
use chatcore::net::Client;

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
        let profile = client.profile().await?;
        let known = client.contacts().await?;
        let mut names: BTreeMap<_, _> =
            known.into_iter().map(|c| (c.user, c.nickname.as_str().to_owned())).collect();
        names.insert(profile.user, profile.nickname.as_str().to_owned());
        Ok(Self { own: Some(profile.user), names })
    }

    /// Returns a name for a person's eyes.
    pub(crate) fn of(&self, user: &UserId) -> String {
        match self.names.get(user) {
            Some(name) => render::name(name),
            None => format!("user {}", user.fmt_short()),
        }
    }

    /// Returns a sender's name, with his id if we know somebody else of that name.
    pub(crate) fn sender(&self, from: &Sender) -> String {
        let (name, fold) = (render::name(from.nickname.as_str()), from.nickname.fold());
        let is_namesake = |(user, other): (&UserId, &String)| {
            *user != from.user && Nickname::new(other).is_ok_and(|other| other.fold() == fold)
        };
        match self.names.iter().any(is_namesake) {
            true => format!("{name} [{}]", from.user.fmt_short()),
            false => name,
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

#[cfg(test)]
mod tests {
    use chatcore::engine::Acquaintance;
    use chatcore::trust::Trust;

    use super::*;

    #[test]
    fn two_of_one_name_are_told_apart() {
        let user = |byte| UserId::from_bytes([byte; 32]);
        let from = |byte, name| Sender {
            user: user(byte),
            nickname: Nickname::new(name).unwrap(),
            trust: Trust::Pinned,
            acquaintance: Acquaintance::Member,
        };
        let names = BTreeMap::from([(user(1), "bob".to_owned()), (user(2), "carol".to_owned())]);
        let names = Names { own: None, names };
        assert_eq!(names.sender(&from(1, "bob")), "bob");
        assert_eq!(names.sender(&from(3, "dave")), "dave");
        assert_eq!(names.sender(&from(3, "Bob")), format!("Bob [{}]", user(3).fmt_short()));
    }
}
