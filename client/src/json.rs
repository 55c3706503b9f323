//! One JSON object per line, for programs; fields are promised in docs/CLI.md.
//!
//! A field is never renamed or removed; new ones may appear at the end. Texts and names are as they
//! were sent: a program that shows them strips control characters itself.

use chatcore::ids::{MessageId, Timestamp, UserId};
use serde::{Serialize, Serializer};

use crate::render;

/// A line that `receive` prints.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line<'a> {
    /// A text arrived.
    Text {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// The sender's nickname.
        from: &'a str,
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
    },
    /// A file arrived and is whole.
    File {
        /// The message's id.
        #[serde(serialize_with = "message_hex")]
        id: MessageId,
        /// The sender's nickname.
        from: &'a str,
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
        /// The recipient's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
    },
    /// Something for the person: what happened, and from whom.
    Warning {
        /// A stable word: `out_of_order`, `new_session`, `record_refused`, `unknown_content`.
        warning: &'a str,
        /// The contact's id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
    },
    /// A message of ours is on its way.
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
        /// Whether they are here and let us see it; only when it was asked.
        #[serde(skip_serializing_if = "Option::is_none")]
        online: Option<bool>,
    },
    /// Who we are.
    Whoami {
        /// The nickname.
        nickname: &'a str,
        /// The id.
        #[serde(serialize_with = "user_hex")]
        user_id: UserId,
        /// The relay's address.
        relay: &'a str,
        /// Whether the relay knows us.
        registered: bool,
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
        /// `in`, or how far ours came: `queued`, `at_relay`, `delivered`, `read`, `not_delivered`.
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
    },
    /// Messages were withheld or lost.
    Gap {
        /// The sender's nickname.
        from: &'a str,
        /// How many are missing.
        missing: u64,
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

fn message_hex<S: Serializer>(id: &MessageId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&id.to_hex())
}

fn user_hex<S: Serializer>(id: &UserId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&id.to_hex())
}

fn time<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&render::rfc3339(*at))
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
            from: "bob",
            user_id: USER,
            verified: true,
            text: "say \"hi\"\n\u{1b}[2J",
            sent_at: AT,
            received_at: Timestamp(1_790_000_001_000),
        };
        check(
            &line,
            r#"{"type":"text","id":"ID","from":"bob","user_id":"USER","verified":true,"text":"say \"hi\"\n\u001b[2J","sent_at":"2026-09-21T14:13:20.007Z","received_at":"2026-09-21T14:13:21.000Z"}"#,
        );
    }

    #[test]
    fn a_file() {
        let line = Line::File {
            id: ID,
            from: "bob",
            user_id: USER,
            verified: false,
            name: "photo.png",
            size: 5_000_000_000,
            path: "/tmp/photo (1).png",
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
        let line = Line::Gap { from: "bob", missing: 2 };
        check(&line, r#"{"type":"gap","from":"bob","missing":2}"#);
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
}
