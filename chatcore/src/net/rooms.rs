//! Rooms, for a program.

use std::collections::BTreeSet;

use super::client::Client;
use super::error::ClientError;
use super::op::Asked;
use crate::engine::{
    Command, EngineError, LookupError, NewRoom, RoomFailure, RoomStanding, RoomView, query,
};
use crate::ids::{Conversation, RoomId, UserId};
use crate::keys::Nickname;
use crate::membership::{Act, ForkProof, RoomName};
use crate::wire::relay::{AnswerForm, RoomSummary};

/// Fewest hexadecimal digits that name a room by its id.
const MIN_ID_DIGITS: usize = 8;

fn unknown() -> ClientError {
    ClientError::Engine(EngineError::Room(RoomFailure::UnknownRoom))
}

/// Finds a room among several by name or by the beginning of its id.
fn pick(name: &str, rooms: impl Iterator<Item = (RoomId, String)>) -> Result<RoomId, ClientError> {
    let typed = name.strip_prefix('#').unwrap_or(name);
    let fold = RoomName::from_input(typed).map(|n| n.fold()).unwrap_or_default();
    let is_named = |room: &str| RoomName::new(room).is_ok_and(|n| n.fold() == fold);
    let is_id = |id: &RoomId| {
        typed.len() >= MIN_ID_DIGITS && id.to_hex().starts_with(&typed.to_lowercase())
    };
    let mut found = rooms.filter(|(id, room)| is_named(room) || is_id(id)).map(|(id, _)| id);
    match (found.next(), found.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => Err(unknown()),
        (Some(_), Some(_)) => Err(ClientError::Lookup(LookupError::AmbiguousRoom)),
    }
}

/// Finds one of our rooms: one that we are in before one that we are invited to, and these before the others.
fn find(name: &str, rooms: &[RoomView]) -> Result<RoomId, ClientError> {
    let is = |standing| move |room: &&RoomView| room.standing == standing;
    let members = || rooms.iter().filter(is(RoomStanding::Member));
    // Who went along to the room in the place of another means that one by the name of both.
    let replaced: BTreeSet<RoomId> = members().filter_map(|room| room.replaces).collect();
    let newest = members().filter(|room| !replaced.contains(&room.room)).collect();
    let invited = rooms.iter().filter(is(RoomStanding::Invited)).collect();
    for some in [newest, members().collect::<Vec<_>>(), invited] {
        match pick(name, some.into_iter().map(|room| (room.room, room.name.clone()))) {
            Err(ClientError::Engine(_)) => {}
            found => return found,
        }
    }
    pick(name, rooms.iter().map(|room| (room.room, room.name.clone())))
}

impl Client {
    /// Makes a room; returns its id once the relay has it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn create_room(&self, room: NewRoom) -> Result<RoomId, ClientError> {
        self.ask(Asked::Room, move |ticket| Command::CreateRoom { ticket, room }).await
    }

    /// Takes up an invitation, or joins an open room.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn join_room(&self, room: RoomId) -> Result<RoomId, ClientError> {
        self.ask(Asked::Room, move |ticket| Command::JoinRoom { ticket, room }).await
    }

    /// Leaves a room, or declines an invitation.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn leave_room(&self, room: RoomId) -> Result<RoomId, ClientError> {
        self.ask(Asked::Room, move |ticket| Command::LeaveRoom { ticket, room }).await
    }

    /// Does something in a room; returns when it is ordered, or refused by the room's rules.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn act_in_room(&self, room: RoomId, act: Act) -> Result<RoomId, ClientError> {
        self.ask(Asked::Room, move |ticket| Command::ActInRoom { ticket, room, act }).await
    }

    /// Takes over an open room whose owner was not heard of for 180 days.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn succeed_in_room(&self, room: RoomId) -> Result<RoomId, ClientError> {
        self.ask(Asked::Room, move |ticket| Command::SucceedInRoom { ticket, room }).await
    }

    /// Makes a room in the place of one that can't go on, and asks its members in; returns the new one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rebuild_room(
        &self,
        room: RoomId,
        name: Option<RoomName>,
    ) -> Result<RoomId, ClientError> {
        self.ask(Asked::Room, move |ticket| Command::RebuildRoom { ticket, room, name }).await
    }

    /// Goes on with what the relay has of a room of ours that it was set back in.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn resume_room(&self, room: RoomId) -> Result<RoomId, ClientError> {
        self.ask(Asked::Room, move |ticket| Command::ResumeRoom { ticket, room }).await
    }

    /// Returns the proof that the relay forked a room, if there is one.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn fork_proof(&self, room: RoomId) -> Result<Option<ForkProof>, ClientError> {
        self.look(move |store| query::fork_proof(store, &room)).await
    }

    /// Asks the directory for the names of everybody in a room.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn refresh_roster(&self, room: RoomId) -> Result<RoomId, ClientError> {
        self.ask(Asked::Room, move |ticket| Command::RefreshRoster { ticket, room }).await
    }

    /// Returns the relay's open rooms, as the relay says.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn open_rooms(&self) -> Result<Vec<RoomSummary>, ClientError> {
        self.ask(Asked::Rooms, |ticket| Command::ListRooms { ticket }).await
    }

    /// Returns who of an open room of ours is here and lets it be seen.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn room_presence(&self, room: RoomId) -> Result<Vec<UserId>, ClientError> {
        self.ask(Asked::Presence, move |ticket| Command::QueryRoomPresence { ticket, room }).await
    }

    /// Has the relay carry out a command, as an administrator; returns exit code and text.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn admin(&self, line: String, form: AnswerForm) -> Result<(u8, String), ClientError> {
        self.ask(Asked::Admin, move |ticket| Command::Admin { ticket, line, form }).await
    }

    /// Returns our rooms, by name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn rooms(&self) -> Result<Vec<RoomView>, ClientError> {
        self.look(|store| query::rooms(store)).await
    }

    /// Returns one room with everybody in it.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn room(&self, room: RoomId) -> Result<RoomView, ClientError> {
        self.look(move |store| query::room(store, &room)).await?.ok_or_else(unknown)
    }

    /// Finds a room of ours by name, with or without `#`, or by the beginning of its id; one that we
    /// belong to comes first.
    ///
    /// # Errors
    /// [`ClientError::Lookup`] when two have the name.
    pub async fn find_room(&self, name: &str) -> Result<RoomId, ClientError> {
        find(name, &self.rooms().await?)
    }

    /// Finds a room to join: one that we are invited to, or an open one of the relay.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn find_room_to_join(&self, name: &str) -> Result<RoomId, ClientError> {
        let rooms = self.rooms().await?;
        let invited = rooms.iter().filter(|room| room.standing == RoomStanding::Invited);
        match pick(name, invited.map(|room| (room.room, room.name.clone()))) {
            Err(ClientError::Engine(_)) => {}
            found => return found,
        }
        let open = self.open_rooms().await?;
        pick(name, open.into_iter().map(|room| (room.room, room.name.as_str().to_owned())))
    }

    /// Finds whom a name in a room means: a member first, else as [`Self::lookup`].
    ///
    /// # Errors
    /// [`ClientError::Lookup`].
    pub async fn find_member(&self, room: RoomId, name: &str) -> Result<UserId, ClientError> {
        self.refresh_roster(room).await?;
        let view = self.room(room).await?;
        let fold = Nickname::from_input(name).map(|n| n.fold()).ok();
        let everybody = view.roster.iter().chain(&view.invited);
        // An id goes first: nobody can take it for a name.
        if let Some(user) = UserId::from_hex(name)
            && everybody.clone().any(|m| m.user == user)
        {
            return Ok(user);
        }
        let is_named = |m: &&crate::engine::RoomMemberView| {
            m.user.begins_as(name)
                || fold.is_some() && m.nickname.as_ref().map(Nickname::fold) == fold
        };
        let mut named = everybody.filter(is_named).map(|m| m.user);
        match (named.next(), named.next()) {
            (Some(user), None) => Ok(user),
            (Some(_), Some(_)) => Err(ClientError::Lookup(LookupError::Ambiguous)),
            (None, _) => self.lookup(name).await,
        }
    }

    /// Finds a conversation: `#name` is a room, everything else a person.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn conversation(&self, who: &str) -> Result<Conversation, ClientError> {
        if who.starts_with('#') {
            return Ok(Conversation::Room(self.find_room(who).await?));
        }
        Ok(Conversation::User(self.lookup(who).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::RoomKind;

    fn room(first: u8, name: &str, standing: RoomStanding) -> RoomView {
        RoomView {
            room: RoomId::from_bytes([first; 32]),
            name: name.to_owned(),
            topic: String::new(),
            kind: RoomKind::Private,
            standing,
            role: None,
            members: 0,
            roster: Vec::new(),
            invited: Vec::new(),
            banned: Vec::new(),
            may_invite: None,
            head: None,
            forked: false,
            gone: false,
            locked: false,
            replaces: None,
            outdated: false,
        }
    }

    #[test]
    fn a_room_is_found_by_its_name_or_the_beginning_of_its_id() {
        let rooms =
            [room(0xab, "Tea", RoomStanding::Member), room(0xcd, "tea 2", RoomStanding::Member)];
        for (name, found) in
            [("tea", 0), ("#TEA", 0), ("#tea 2", 1), ("CDCDCDCD", 1), ("abababab", 0)]
        {
            assert_eq!(find(name, &rooms).unwrap(), rooms[found].room, "{name}");
        }
        for name in ["cdcdcdc", "te", "", "cdcdcdcdce"] {
            assert!(matches!(find(name, &rooms), Err(ClientError::Engine(_))), "{name}");
        }
        let twice = [room(1, "tea", RoomStanding::Outside), room(2, "tea", RoomStanding::Outside)];
        let found = find("tea", &twice);
        assert!(matches!(found, Err(ClientError::Lookup(LookupError::AmbiguousRoom))), "{found:?}");
    }

    #[test]
    fn the_room_that_one_is_in_is_meant_and_of_two_the_one_in_the_place_of_the_other() {
        let [member, invited, outside] =
            [RoomStanding::Member, RoomStanding::Invited, RoomStanding::Outside];
        let mut rooms =
            vec![room(3, "tea", outside), room(2, "tea", invited), room(1, "tea", member)];
        for n in [1, 2, 3] {
            assert_eq!(find("tea", &rooms).unwrap(), RoomId::from_bytes([n; 32]));
            rooms.pop();
        }
        let old = room(1, "tea", member);
        let new = RoomView { replaces: Some(old.room), ..room(2, "tea", member) };
        assert_eq!(find("tea", &[old.clone(), new.clone()]).unwrap(), new.room);
        // By its own name or id it is still to be had.
        let renamed = RoomView { name: "coffee".to_owned(), ..new };
        assert_eq!(find("tea", &[old.clone(), renamed.clone()]).unwrap(), old.room);
        assert_eq!(find("01010101", &[old.clone(), renamed]).unwrap(), old.room);
    }
}
