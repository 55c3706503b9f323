//! Texts of `!help`.

use super::command::{describe, names, parse};

/// Commands by what a person wants, with what is said of each topic.
const TOPICS: [(&str, &str, &[&str]); 6] = [
    (
        "talking",
        "say something, here and elsewhere",
        &["msg", "room", "next", "all", "history", "search", "focus", "mute", "unmute"],
    ),
    ("files", "send and save them", &["file", "save", "view"]),
    (
        "people",
        "who they are, and whom you hear",
        &["contacts", "verify", "requests", "block", "unblock"],
    ),
    (
        "rooms",
        "make, enter and leave them, and keep order there",
        &[
            "rooms",
            "who",
            "makeroom",
            "join",
            "leave",
            "invite",
            "kick",
            "ban",
            "unban",
            "silence",
            "unsilence",
            "role",
            "topic",
            "rename",
            "policy",
            "transfer",
            "close",
            "resume",
            "succeed",
            "rebuild",
        ],
    ),
    (
        "you",
        "your name and how this prompt behaves",
        &["nick", "whoami", "presence", "set", "help", "quit"],
    ),
    ("relay", "if you host it, or help whoever does", &["link", "relay", "admin"]),
];

/// A line as a person might type it, for each command.
const EXAMPLES: [(&str, &str); 46] = [
    ("help", "!help rooms"),
    ("quit", "!quit"),
    ("room", "!room plans"),
    ("msg", "!msg bob are you there?"),
    ("next", "!next"),
    ("all", "!all I am back"),
    ("file", "!file ~/photo.png 'my notes.txt', or: !file @bob ~/photo.png"),
    ("save", "!save 2 ~/Downloads"),
    ("view", "!view 2"),
    ("focus", "!focus"),
    ("mute", "!mute 8h"),
    ("unmute", "!unmute"),
    ("who", "!who plans -v"),
    ("rooms", "!rooms"),
    ("makeroom", "!makeroom tea --open --topic 'what is brewing'"),
    ("join", "!join tea"),
    ("leave", "!leave tea"),
    ("invite", "!invite bob --role moderator"),
    ("kick", "!kick mallory"),
    ("ban", "!ban mallory"),
    ("unban", "!unban mallory"),
    ("silence", "!silence mallory"),
    ("unsilence", "!unsilence mallory"),
    ("role", "!role bob moderator"),
    ("topic", "!topic Thursday, eight"),
    ("rename", "!rename better plans"),
    ("policy", "!policy moderator"),
    ("transfer", "!transfer bob"),
    ("close", "!close"),
    ("resume", "!resume"),
    ("succeed", "!succeed"),
    ("rebuild", "!rebuild new plans"),
    ("verify", "!verify bob"),
    ("contacts", "!contacts"),
    ("history", "!history 50"),
    ("search", "!search tea"),
    ("requests", "!requests accept bob"),
    ("block", "!block mallory"),
    ("unblock", "!unblock mallory"),
    ("nick", "!nick alice2"),
    ("whoami", "!whoami"),
    ("presence", "!presence off"),
    ("set", "!set notify bell"),
    ("link", "!link"),
    ("relay", "!relay announce tea is ready"),
    ("admin", "!admin users"),
];

/// Columns of a list of commands.
const WIDTH: usize = 76;

/// Answer to an unknown command.
const BESIDES: &str = "  /me TEXT                   say what you do: /me waves\n  \
     // or \\!                   at the start sends a text that begins with !\n  \
     @name                      has somebody look up; Tab completes names, commands and paths";

/// Returns the topics, a topic, or all about a command.
///
/// # Errors
/// There is neither.
pub(super) fn help(of: Option<&str>) -> Result<String, String> {
    let Some(name) = of else {
        let mut out = "A line without ! is sent to where you are talking. More: !help all, \
                       !help TOPIC, !help COMMAND"
            .to_owned();
        for (topic, about, commands) in TOPICS {
            out.push_str(&format!("\n{topic}: {about}"));
            let mut row = String::new();
            for command in commands {
                if row.is_empty() || row.len() + command.len() > WIDTH {
                    out.push_str(&row);
                    "\n ".clone_into(&mut row);
                }
                row.push_str(&format!(" !{command}"));
            }
            out.push_str(&row);
        }
        return Ok(out);
    };
    let name = name.trim_start_matches('!').to_lowercase();
    if name == "all" {
        return Ok(TOPICS.map(|(topic, _, commands)| topic_in_full(topic, commands)).join("\n"));
    }
    if let Some(about) = describe(&name) {
        let example = EXAMPLES.iter().find(|(command, _)| *command == name);
        let example = example.map_or_else(String::new, |(_, line)| format!("\n  such as: {line}"));
        // Some words are both.
        let also = TOPICS.iter().find(|(topic, ..)| *topic == name);
        let also = also.map_or_else(String::new, |(topic, _, commands)| {
            format!("\n{}", topic_in_full(topic, commands))
        });
        return Ok(format!("{}{}{example}{also}", about.full, about.options));
    }
    match TOPICS.iter().find(|(topic, ..)| *topic == name) {
        Some((topic, _, commands)) => Ok(topic_in_full(topic, commands)),
        None => Err(parse(&format!("!{name}")).err().unwrap_or_default()),
    }
}

fn topic_in_full(topic: &str, commands: &[&str]) -> String {
    let lines = commands.iter().filter_map(|command| describe(command)).map(|about| about.line);
    let besides = (topic == "talking").then(|| BESIDES.to_owned());
    let all: Vec<_> = std::iter::once(format!("{topic}:")).chain(lines).chain(besides).collect();
    all.join("\n")
}

/// Returns what can follow `!help`.
pub(super) fn words() -> Vec<String> {
    let topics = TOPICS.iter().map(|(topic, ..)| (*topic).to_owned());
    topics.chain(["all".to_owned()]).chain(names()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::command::Input;
    use super::*;

    #[test]
    fn every_command_has_one_topic_and_an_example_that_is_understood() {
        for name in names() {
            let topics = TOPICS.iter().filter(|(.., all)| all.contains(&name.as_str())).count();
            assert_eq!(topics, 1, "{name}");
            let examples: Vec<_> = EXAMPLES.iter().filter(|(of, _)| *of == name).collect();
            let [(_, line)] = examples.as_slice() else { panic!("{name}: {examples:?}") };
            assert!(line.starts_with(&format!("!{name}")));
            assert!(matches!(parse(line), Ok(Input::Command(_))), "{line}");
        }
        let count: usize = TOPICS.iter().map(|(.., all)| all.len()).sum();
        assert_eq!((count, EXAMPLES.len()), (names().len(), names().len()));
    }

    #[test]
    fn help_leads_from_topics_to_commands() {
        let first = help(None).unwrap();
        assert!(first.lines().count() < 20 && first.contains("\nfiles: "), "{first}");
        let files = help(Some("files")).unwrap();
        assert!(files.contains("\n  !save ") && !files.contains("!kick"), "{files}");
        let kick = help(Some("!kick")).unwrap();
        assert_eq!(kick, "!kick <WHO>\n  Take somebody out of the room\n  such as: !kick mallory");
        assert!(help(Some("invite")).unwrap().contains("--role member | moderator | admin"));
        let relay = help(Some("relay")).unwrap();
        assert!(relay.contains("!relay <COMMAND>") && relay.contains("\n  !link"), "{relay}");
        assert_eq!(help(Some("kik")).unwrap_err(), "there is no !kik; did you mean !kick?");
        let all = help(Some("all")).unwrap();
        assert!(names().iter().all(|name| all.contains(&format!("\n  !{name}"))));
        for line in all.lines().chain(first.lines()) {
            assert!(line.chars().count() <= 100, "{line}");
        }
    }
}
