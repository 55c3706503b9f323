//! Methods about rooms: each is a command of `chat room`, with its parameters by name.

use serde::Deserialize;
use serde_json::Value;

use super::json_rpc::{Failure, params};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Room {
    room: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomAndWho {
    room: String,
    who: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RoomAndText {
    room: String,
    text: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRoom {
    name: String,
    #[serde(default)]
    open: bool,
    #[serde(default)]
    topic: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Invitation {
    room: String,
    who: String,
    #[serde(default)]
    role: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewRole {
    room: String,
    who: String,
    role: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhoMayInvite {
    room: String,
    invite: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct InItsPlace {
    room: String,
    #[serde(default)]
    name: Option<String>,
}

/// Returns the command line that does what a method says; `None`: it is about no room.
///
/// # Errors
/// Its parameters.
pub(super) fn command_line(method: &str, given: Value) -> Option<Result<Vec<String>, Failure>> {
    let command = match method {
        "join_room" => "join",
        "leave_room" => "leave",
        "close_room" => "close",
        "resume_room" => "resume",
        "succeed_in_room" => "succeed",
        "kick_from_room" => "kick",
        "ban_from_room" => "ban",
        "unban_from_room" => "unban",
        "silence_in_room" => "silence",
        "unsilence_in_room" => "unsilence",
        "transfer_room" => "transfer",
        "set_room_topic" => "topic",
        "rename_room" => "rename",
        "create_room" => "create",
        "invite_to_room" => "invite",
        "set_room_role" => "role",
        "set_room_policy" => "policy",
        "rebuild_room" => "rebuild",
        _ => return None,
    };
    let words = match command {
        "join" | "leave" | "close" | "resume" | "succeed" => {
            params(given).map(|Room { room }| (Vec::new(), vec![room]))
        }
        "kick" | "ban" | "unban" | "silence" | "unsilence" | "transfer" => {
            params(given).map(|RoomAndWho { room, who }| (Vec::new(), vec![room, who]))
        }
        "topic" | "rename" => {
            params(given).map(|RoomAndText { room, text }| (Vec::new(), vec![room, text]))
        }
        "create" => params(given).map(|NewRoom { name, open, topic }| {
            let open = open.then(|| "--open".to_owned());
            (open.into_iter().chain([format!("--topic={topic}")]).collect(), vec![name])
        }),
        "invite" => params(given).map(|Invitation { room, who, role }| {
            let role = role.map(|role| format!("--role={role}"));
            (role.into_iter().collect(), vec![room, who])
        }),
        "role" => {
            params(given).map(|NewRole { room, who, role }| (Vec::new(), vec![room, who, role]))
        }
        "policy" => params(given)
            .map(|WhoMayInvite { room, invite }| (vec![format!("--invite={invite}")], vec![room])),
        _ => params(given).map(|InItsPlace { room, name }| {
            let name = name.map(|name| format!("--name={name}"));
            (name.into_iter().collect(), vec![room])
        }),
    };
    Some(words.map(|(flags, words): (Vec<String>, Vec<String>)| {
        let command = ["room".to_owned(), command.to_owned()].into_iter();
        command.chain(flags).chain(["--".to_owned()]).chain(words).collect()
    }))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn each_method_is_a_command_that_is_understood() {
        let room = json!({"room": "--tea"});
        let who = json!({"room": "tea", "who": "-bob"});
        let text = json!({"room": "tea", "text": "--green"});
        let calls = [
            ("join_room", &room),
            ("leave_room", &room),
            ("close_room", &room),
            ("resume_room", &room),
            ("succeed_in_room", &room),
            ("rebuild_room", &room),
            ("rebuild_room", &json!({"room": "tea", "name": "-new"})),
            ("kick_from_room", &who),
            ("ban_from_room", &who),
            ("unban_from_room", &who),
            ("silence_in_room", &who),
            ("unsilence_in_room", &who),
            ("transfer_room", &who),
            ("invite_to_room", &who),
            ("invite_to_room", &json!({"room": "tea", "who": "bob", "role": "admin"})),
            ("set_room_role", &json!({"room": "tea", "who": "bob", "role": "moderator"})),
            ("set_room_topic", &text),
            ("rename_room", &text),
            ("set_room_policy", &json!({"room": "tea", "invite": "member"})),
            ("create_room", &json!({"name": "-tea", "open": true, "topic": "-green"})),
        ];
        for (method, given) in calls {
            let words = command_line(method, given.clone()).unwrap().unwrap();
            let line = std::iter::once("chat".to_owned()).chain(words.clone());
            assert!(Cli::try_parse_from(line).is_ok(), "{method}: {words:?}");
            let mut wrong = given.clone();
            wrong["unknown"] = json!(1);
            assert!(command_line(method, wrong).unwrap().is_err(), "{method}");
            assert!(command_line(method, json!({})).unwrap().is_err(), "{method}");
        }
        assert!(command_line("contacts", json!({})).is_none());
    }
}
