//! One JSON object per line, for programs; fields are promised in docs/CLI.md.
//!
//! A field is never renamed or removed; new ones may appear at the end. Texts and names are as they
//! were sent: a program that shows them strips control characters itself. On the line these are escaped.

mod encode;

use chatcore::ids::{MessageId, RoomId, Timestamp, UserId};
use serde::{Serialize, Serializer};

use self::encode::number;
pub(crate) use self::encode::{of_value, to_line};
use crate::output::render;

/// Sender of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum Named<'a> {
    /// By a nickname that we know, or that the relay's directory shows to be theirs.
    #[serde(rename = "from")]
    Known(&'a str),
    /// By what they call themselves: nobody else says that the name is theirs.
    #[serde(rename = "claimed_name")]
    Claimed(&'a str),
}

/// A line that `receive` prints.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line<'a> {
    /// A text arrived.
    Text {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// The sender.
        #[serde(flatten)]
        from: Named<'a>,
        /// The sender's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// Whether the safety numbers were compared.
        verified: bool,
        /// The text.
        text: &'a str,
        /// When it was sent, as the sender says.
        #[serde(serialize_with = "time")]
        sent_at: Timestamp,
        /// When it arrived here.
        #[serde(serialize_with = "time")]
        received_at: Timestamp,
        /// The room's name; only of what was said in a room.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a str>,
        /// The room's id.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_room_hex")]
        room_id: Option<RoomId>,
    },
    /// A file arrived and is whole.
    File {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// The sender.
        #[serde(flatten)]
        from: Named<'a>,
        /// The sender's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// Whether the safety numbers were compared.
        verified: bool,
        /// Its name, as the sender says.
        name: &'a str,
        /// Its length in bytes.
        size: u64,
        /// Where it was saved.
        path: &'a str,
        /// The room's name; only of what was said in a room.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a str>,
        /// The room's id.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_room_hex")]
        room_id: Option<RoomId>,
    },
    /// A file arrived that is not fetched yet.
    FileOffered {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// The sender.
        #[serde(flatten)]
        from: Named<'a>,
        /// The sender's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// Whether the safety numbers were compared.
        verified: bool,
        /// Its name, as the sender says.
        name: &'a str,
        /// Its length in bytes.
        size: u64,
        /// The room's name; only of what was said in a room.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a str>,
        /// The room's id.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_room_hex")]
        room_id: Option<RoomId>,
    },
    /// A file that is not saved yet, in the list of them.
    FileWaiting {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// The sender.
        #[serde(flatten)]
        from: Named<'a>,
        /// The sender's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// Whether the safety numbers were compared.
        verified: bool,
        /// Its name, as the sender says.
        name: &'a str,
        /// Its length in bytes.
        size: u64,
        /// When it arrived here.
        #[serde(serialize_with = "time")]
        received_at: Timestamp,
        /// Why it can't be had; only of what was given up.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<&'a str>,
        /// The room's name; only of what was said in a room.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a str>,
        /// The room's id.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_room_hex")]
        room_id: Option<RoomId>,
    },
    /// Somebody who asks to write to us.
    Request {
        /// The id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// The name that they give themselves.
        claimed_name: &'a str,
        /// Their last message: the text, or the name of a file; empty for something else.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
        /// When that arrived here.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_time")]
        received_at: Option<Timestamp>,
    },
    /// Somebody who tried to reach us and found no place.
    RequestWaiting {
        /// The id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// The name that they give themselves.
        claimed_name: &'a str,
        /// `write`, which waits at the relay, or `invite`, which they have to do again.
        wanted: &'a str,
    },
    /// People tried to reach us and found no place.
    NoPlace {
        /// How many, as far as they are counted: 100.
        people: usize,
    },
    /// A file was saved by `save`.
    Saved {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// Where it is.
        path: &'a str,
    },
    /// A message of ours arrived at the other side.
    Receipt {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// The recipient's nickname.
        from: &'a str,
        /// The recipient's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// When the receipt arrived here.
        #[serde(serialize_with = "time")]
        received_at: Timestamp,
    },
    /// The recipient has seen a message of ours, or saved a file.
    Read {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// The recipient's nickname.
        from: &'a str,
        /// The recipient's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// When the receipt arrived here.
        #[serde(serialize_with = "time")]
        received_at: Timestamp,
    },
    /// A message of ours was given up, or refused by the recipient.
    NotDelivered {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// The recipient's nickname; null if it is not known here.
        to: Option<String>,
        /// The recipient's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// `no_receipt` for what was given up; `not_allowed`, `expired`, `unavailable`,
        /// `not_authentic` or `other` for what the recipient refused.
        reason: &'a str,
    },
    /// A file, or a long text, can't be had.
    FileFailed {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// The sender.
        #[serde(flatten)]
        from: Named<'a>,
        /// The sender's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// The file's name as the sender has it; empty for a long text.
        name: &'a str,
        /// `unavailable`, `damaged`, `mismatch` or `not_text`.
        reason: &'a str,
        /// The room's name; only of what was said in a room.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a str>,
        /// The room's id.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_room_hex")]
        room_id: Option<RoomId>,
    },
    /// Something for the person: what happened, and from whom.
    Warning {
        /// A stable word: `out_of_order`, `new_session`, `new_device`,
        /// `record_refused`, `unknown_content`.
        warning: &'a str,
        /// The contact's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// The room's name; only of what was said in a room.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a str>,
        /// The room's id.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_room_hex")]
        room_id: Option<RoomId>,
    },
    /// A message of ours is on its way.
    Queued {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// The recipient, as the person named it.
        to: &'a str,
    },
    /// The recipient's device has a message, or everybody's in a room who could be reached.
    Delivered {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// The recipient, as the person named it.
        to: &'a str,
    },
    /// The relay has a message.
    Sent {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// As typed.
        to: &'a str,
    },
    /// A person we know.
    Contact {
        /// The nickname.
        nickname: &'a str,
        /// The id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// `contact`, `request` or `blocked`.
        standing: &'a str,
        /// `pinned`, `verified` or `changed`.
        trust: &'a str,
        /// They closed their account.
        closed: bool,
        /// Whether they are here and let us see it; only when it was asked.
        #[serde(skip_serializing_if = "Option::is_none")]
        online: Option<bool>,
    },
    /// The own profile.
    Whoami {
        /// The nickname.
        nickname: &'a str,
        /// The id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// The relay's address that was learned last.
        relay: &'a str,
        /// All of them, in the order in which they are tried now.
        relay_addresses: Vec<&'a str>,
        /// Whether the relay knows us.
        registered: bool,
    },
    /// A backup was made.
    Exported {
        /// Where it is, as given.
        path: &'a str,
        /// People in it.
        contacts: u64,
        /// Rooms in it.
        rooms: u64,
        /// Messages in it.
        messages: u64,
        /// Messages in it that somebody does not have yet.
        waiting: u64,
        /// Files being sent that are not in it.
        left_out: u64,
    },
    /// A profile was made of a backup, and the relay knows it.
    Imported {
        /// The nickname.
        nickname: &'a str,
        /// The id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// When the backup was made.
        #[serde(serialize_with = "time")]
        saved_at: Timestamp,
        /// People in it.
        contacts: u64,
        /// Rooms in it.
        rooms: u64,
        /// Messages in it.
        messages: u64,
    },
    /// The number to compare.
    SafetyNumber {
        /// The contact's nickname.
        with: &'a str,
        /// The contact's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// 60 digits.
        number: &'a str,
        /// Whether it was compared.
        verified: bool,
    },
    /// An earlier message.
    History {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// `in`, or how far ours came: `queued`, `at_relay`, `delivered`, `read`, `not_delivered`,
        /// `refused`.
        status: &'a str,
        /// The text; empty for files.
        text: &'a str,
        /// The file's name; empty for texts.
        name: &'a str,
        /// Where a received file was saved.
        path: &'a str,
        /// When it was sent.
        #[serde(serialize_with = "time")]
        sent_at: Timestamp,
        /// In a room: who wrote it.
        #[serde(skip_serializing_if = "Option::is_none")]
        from: Option<String>,
        /// In a room: the id of who wrote it.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_user_hex")]
        user_id: Option<UserId>,
    },
    /// The relay says something; nobody else can.
    Announcement {
        /// `all`, or `room`.
        scope: &'a str,
        /// The text.
        text: &'a str,
        /// Ascending; each is shown once.
        #[serde(serialize_with = "number")]
        seq: u64,
        /// When, by the relay's clock.
        #[serde(serialize_with = "time")]
        at: Timestamp,
        /// The room's name; only of what was said in a room.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a str>,
        /// The room's id.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_room_hex")]
        room_id: Option<RoomId>,
    },
    /// A command about a room is done.
    RoomDone {
        /// The room's name.
        room: &'a str,
        /// The room's id.
        #[serde(serialize_with = "room_hex")]
        room_id: RoomId,
        /// The act.
        act: &'a str,
    },
    /// The relay signed two orders of one room.
    ForkProof {
        /// The relay's key, in hexadecimal.
        relay: String,
        /// Whether that is the relay of this profile; null without a profile.
        own_relay: Option<bool>,
        /// The register or the open room, in hexadecimal.
        log_id: String,
        /// How many entries both have, from the first on.
        shared: u64,
        /// The branch that was shown first.
        ours: SignedHead,
        /// The branch that contradicts it.
        theirs: SignedHead,
        /// Where the proof was written.
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<&'a str>,
    },
    /// A room of ours, or one that we may join.
    Room {
        /// The room's name.
        room: &'a str,
        /// The room's id.
        #[serde(serialize_with = "room_hex")]
        room_id: RoomId,
        /// `private` or `open`.
        kind: &'a str,
        /// `member`, `invited` or `outside`.
        standing: &'a str,
        /// `owner`, `admin`, `moderator` or `member`; empty for who is no member.
        role: &'a str,
        /// How many belong to it.
        members: usize,
        /// How many of them are here, as far as they let it be seen.
        online: Option<usize>,
    },
    /// One room with everybody in it.
    RoomDetail {
        /// The room's name.
        room: &'a str,
        /// The room's id.
        #[serde(serialize_with = "room_hex")]
        room_id: RoomId,
        /// `private` or `open`.
        kind: &'a str,
        /// `member`, `invited`, `outside` or `closed`.
        standing: &'a str,
        /// Our role; empty for who is no member.
        role: &'a str,
        /// The topic.
        topic: &'a str,
        /// The lowest role that may invite.
        may_invite: &'a str,
        /// Number of the newest event.
        #[serde(serialize_with = "number")]
        seq: u64,
        /// Its hash: the same for everybody who was shown the same room.
        head: String,
        /// Whether the relay took back what it had signed, or signed something else for others.
        forked: bool,
        /// The relay says not to keep the open room.
        gone: bool,
        /// Whether new keys of the room have not come yet.
        locked: bool,
        /// Whether a newer version did something here.
        outdated: bool,
        /// Everybody in it.
        members: Vec<RoomPerson>,
        /// Invited users.
        invited: Vec<RoomPerson>,
        /// Banned users.
        banned: Vec<Person>,
    },
    /// Somebody did something in a room.
    RoomEvent {
        /// The room's name.
        room: &'a str,
        /// The room's id.
        #[serde(serialize_with = "room_hex")]
        room_id: RoomId,
        /// What: `invite`, `join`, `leave`, `kick`, `ban`, `unban`, `mute`, `unmute`, `set_role`,
        /// `rename`, `set_topic`, `set_policy`, `transfer`, `close` or `unknown`.
        act: String,
        /// Who; null for the relay.
        by: Option<Person>,
        /// To whom.
        #[serde(skip_serializing_if = "Option::is_none")]
        to: Option<Person>,
        /// Which role is given.
        #[serde(skip_serializing_if = "Option::is_none")]
        role: Option<&'a str>,
        /// The new name or topic.
        #[serde(skip_serializing_if = "Option::is_none")]
        text: Option<&'a str>,
        /// When, by the actor's clock.
        #[serde(serialize_with = "time")]
        at: Timestamp,
    },
    /// Somebody asks us into a room.
    RoomInvited {
        /// The room's name.
        room: &'a str,
        /// The room's id.
        #[serde(serialize_with = "room_hex")]
        room_id: RoomId,
        /// Who.
        by: Person,
        /// The room that it is to replace.
        #[serde(serialize_with = "some_room_hex", skip_serializing_if = "Option::is_none")]
        replaces: Option<RoomId>,
    },
    /// Something about the relay that a person must know: `lobby_full` or `announcement_refused`.
    RelayWarning {
        /// A stable word.
        warning: &'a str,
    },
    /// The owner of a room that the relay was set back in goes on with what the relay has.
    RoomResumed {
        /// The room's name.
        room: &'a str,
        /// The room's id.
        #[serde(serialize_with = "room_hex")]
        room_id: RoomId,
        /// How many events were lost.
        lost: usize,
        /// People whose kick, ban, mute or changed role was among the lost events.
        removals: Vec<Person>,
    },
    /// Something about a room that a person must know: `forked`, `gone`, `fills_up` or `not_sent`.
    RoomWarning {
        /// The room's name.
        room: &'a str,
        /// The room's id.
        #[serde(serialize_with = "room_hex")]
        room_id: RoomId,
        /// A stable word.
        warning: &'a str,
        /// The message that could not be sent.
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// A message to a room was refused.
    Refused {
        /// The sender.
        #[serde(flatten)]
        from: Named<'a>,
        /// The sender's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// `unknown_room`, `not_a_member`, `muted`, `unknown_event` or `contradiction`.
        reason: &'a str,
        /// The room's name; only of what was said in a room.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a str>,
        /// The room's id.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_room_hex")]
        room_id: Option<RoomId>,
    },
    /// Everybody in a room who could be reached has a message of ours.
    RoomDelivered {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// The room's id.
        #[serde(serialize_with = "room_hex")]
        room_id: RoomId,
    },
    /// Messages were withheld or lost.
    Gap {
        /// The sender.
        #[serde(flatten)]
        from: Named<'a>,
        /// How many are missing.
        #[serde(serialize_with = "number")]
        missing: u64,
        /// The room's name; only of what was said in a room.
        #[serde(skip_serializing_if = "Option::is_none")]
        room: Option<&'a str>,
        /// The room's id.
        #[serde(skip_serializing_if = "Option::is_none", serialize_with = "some_room_hex")]
        room_id: Option<RoomId>,
        /// The sender's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
    },
    /// The relay now shows another identity under a contact's name; sending is blocked.
    IdentityChanged {
        /// The contact's nickname.
        from: &'a str,
        /// The contact's id, as it is known here.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// The id that the relay shows.
        #[serde(serialize_with = "user_hex")]
        new_user_id: UserId,
    },
    /// A contact took another nickname.
    NicknameChanged {
        /// The nickname until now.
        from: &'a str,
        /// The contact's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// The nickname from now on.
        nickname: &'a str,
    },
}

/// Somebody in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Person {
    /// The nickname, if it is known.
    pub nickname: Option<String>,
    /// The id.
    pub user_id: String,
}

/// A head that the relay signed over the order of a room.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SignedHead {
    /// Entries.
    #[serde(serialize_with = "number")]
    pub length: u64,
    /// The hash over all of them, in hexadecimal.
    pub hash: String,
    /// How often the relay was set back to a backup.
    #[serde(serialize_with = "number")]
    pub epoch: u64,
    /// When, by the relay's clock.
    #[serde(serialize_with = "time")]
    pub at: Timestamp,
}

/// A member of a room in a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoomPerson {
    /// Who.
    #[serde(flatten)]
    pub person: Person,
    /// `owner`, `admin`, `moderator` or `member`.
    pub role: &'static str,
    /// Whether messages are refused.
    pub muted: bool,
    /// Whether they are here and let it be seen.
    pub online: bool,
}

fn room_hex<S: Serializer>(id: &RoomId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&id.to_hex())
}

#[allow(clippy::ref_option, reason = "serde passes the field by reference")]
fn some_room_hex<S: Serializer>(id: &Option<RoomId>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&id.map_or_else(String::new, |id| id.to_hex()))
}

#[allow(clippy::ref_option, reason = "serde passes the field by reference")]
fn some_user_hex<S: Serializer>(id: &Option<UserId>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&id.map_or_else(String::new, |id| id.to_hex()))
}

fn message_hex<S: Serializer>(id: &MessageId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&id.to_hex())
}

fn user_hex<S: Serializer>(id: &UserId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&id.to_hex())
}

fn time<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&render::rfc3339(*at))
}

#[allow(clippy::ref_option, reason = "serde passes the field by reference")]
fn some_time<S: Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&at.map_or_else(String::new, render::rfc3339))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: MessageId = MessageId::from_bytes([0x0a; 16]);
    const USER: UserId = UserId::from_bytes([0xbb; 32]);
    const AT: Timestamp = Timestamp(1_790_000_000_007);

    fn check(line: &Line<'_>, expected: &str) {
        let id = "0a".repeat(16);
        let user = "bb".repeat(32);
        let expected = expected.replace("ID", &id).replace("USER", &user);
        assert_eq!(serde_json::to_string(line).unwrap(), expected);
    }

    #[test]
    fn a_text() {
        let line = Line::Text {
            id: ID,
            from: Named::Known("bob"),
            user_id: USER,
            verified: true,
            text: "say \"hi\"\n\u{1b}[2J",
            sent_at: AT,
            received_at: Timestamp(1_790_000_001_000),
            room: None,
            room_id: None,
        };
        check(
            &line,
            r#"{"type":"text","id":"ID","from":"bob","user_id":"USER","verified":true,"text":"say \"hi\"\n\u001b[2J","sent_at":"2026-09-21T14:13:20.007Z","received_at":"2026-09-21T14:13:21.000Z"}"#,
        );
    }

    #[test]
    fn who_only_calls_himself_so_is_not_said_to_be() {
        let line = Line::Refused {
            from: Named::Claimed("bob"),
            user_id: USER,
            reason: "not_a_member",
            room: None,
            room_id: None,
        };
        check(
            &line,
            r#"{"type":"refused","claimed_name":"bob","user_id":"USER","reason":"not_a_member"}"#,
        );
    }

    #[test]
    fn a_file() {
        let line = Line::File {
            id: ID,
            from: Named::Known("bob"),
            user_id: USER,
            verified: false,
            name: "photo.png",
            size: 5_000_000_000,
            path: "/tmp/photo (1).png",
            room: None,
            room_id: None,
        };
        check(
            &line,
            r#"{"type":"file","id":"ID","from":"bob","user_id":"USER","verified":false,"name":"photo.png","size":5000000000,"path":"/tmp/photo (1).png"}"#,
        );
    }

    #[test]
    fn a_receipt() {
        let line = Line::Receipt { id: ID, from: "bob", user_id: USER, received_at: AT };
        check(
            &line,
            r#"{"type":"receipt","id":"ID","from":"bob","user_id":"USER","received_at":"2026-09-21T14:13:20.007Z"}"#,
        );
    }

    #[test]
    fn a_gap() {
        let line = Line::Gap {
            from: Named::Known("bob"),
            missing: 2,
            room: None,
            room_id: None,
            user_id: USER,
        };
        check(&line, r#"{"type":"gap","from":"bob","missing":2,"user_id":"USER"}"#);
    }

    #[test]
    fn an_identity_that_changed() {
        let line = Line::IdentityChanged {
            from: "bob",
            user_id: USER,
            new_user_id: UserId::from_bytes([0; 32]),
        };
        let expected =
            r#"{"type":"identity_changed","from":"bob","user_id":"USER","new_user_id":"NEW"}"#;
        check(&line, &expected.replace("NEW", &"00".repeat(32)));
    }

    #[test]
    fn a_nickname_that_changed() {
        let line = Line::NicknameChanged { from: "bob", user_id: USER, nickname: "Bobby ☃" };
        check(
            &line,
            r#"{"type":"nickname_changed","from":"bob","user_id":"USER","nickname":"Bobby ☃"}"#,
        );
    }

    const ROOM: RoomId = RoomId::from_bytes([0xcc; 32]);

    #[test]
    fn what_was_said_in_a_room_names_it() {
        let line = Line::Gap {
            from: Named::Known("bob"),
            missing: 2,
            room: Some("tea"),
            room_id: Some(ROOM),
            user_id: USER,
        };
        let expected = r#"{"type":"gap","from":"bob","missing":2,"room":"tea","room_id":"ROOMID","user_id":"USER"}"#;
        check(&line, &expected.replace("ROOMID", &"cc".repeat(32)));
    }

    #[test]
    fn an_announcement() {
        let line = Line::Announcement {
            scope: "all",
            text: "tea is ready",
            seq: 7,
            at: AT,
            room: None,
            room_id: None,
        };
        check(
            &line,
            r#"{"type":"announcement","scope":"all","text":"tea is ready","seq":7,"at":"2026-09-21T14:13:20.007Z"}"#,
        );
    }

    #[test]
    fn a_room_event() {
        let person = |name: &str| Person { nickname: Some(name.to_owned()), user_id: "ab".into() };
        let line = Line::RoomEvent {
            room: "tea",
            room_id: ROOM,
            act: "set_role".to_owned(),
            by: Some(person("alice")),
            to: Some(person("bob")),
            role: Some("admin"),
            text: None,
            at: AT,
        };
        let expected = r#"{"type":"room_event","room":"tea","room_id":"RR","act":"set_role","by":{"nickname":"alice","user_id":"ab"},"to":{"nickname":"bob","user_id":"ab"},"role":"admin","at":"2026-09-21T14:13:20.007Z"}"#;
        check(&line, &expected.replace("RR", &"cc".repeat(32)));
    }
}
