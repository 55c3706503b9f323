//! Questions to the person, such as who somebody is.

use chatcore::ids::UserId;
use chatcore::keys::Nickname;
use chatcore::net::Client;
use chatcore::trust::Trust;

use super::Talk;
use super::act::usage;
use super::state::Happened;
use crate::cli::RoomCommand;
use crate::command::contacts;
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::online::contact;
use crate::output::render;

/// Digits of a safety number.
const DIGITS: usize = 60;

/// A question that the next line answers.
#[derive(Debug)]
pub(super) enum Question {
    /// Whether the digits are the same.
    SameDigits { user: UserId, name: String },
    /// Whose name it is now.
    WhoIsIt { known: UserId, new: UserId, name: String },
    /// Whether something that can't be taken back is meant.
    Sure { what: String, command: RoomCommand },
}

impl Question {
    pub(super) fn words(&self) -> String {
        match self {
            Self::SameDigits { name, .. } => {
                format!("Does {} see the same digits?", render::name(name))
            }
            Self::WhoIsIt { name, .. } => {
                format!("Accept the new key of {0}, or keep {0} as known?", render::name(name))
            }
            Self::Sure { what, .. } => format!("{what}?"),
        }
    }

    pub(super) const fn answers(&self) -> &'static str {
        match self {
            Self::SameDigits { .. } => "yes, no or later> ",
            Self::WhoIsIt { .. } => "accept, keep or later> ",
            Self::Sure { .. } => "yes or no> ",
        }
    }
}

/// Decision of a person about somebody's key.
enum Decision {
    Verify(UserId),
    Accept { known: UserId, new: UserId },
    Keep(UserId),
}

impl Talk {
    /// Asks something; what is being typed is put aside until it is answered.
    pub(super) fn ask(&mut self, question: Question) {
        if self.questions.is_empty() {
            self.set_aside = Some(self.line.text().to_owned());
            self.line.clear();
        }
        self.questions.push_back(question);
    }

    /// Goes on with the line that a question interrupted.
    pub(super) fn take_up_again(&mut self) {
        self.line.clear();
        if self.questions.is_empty()
            && let Some(text) = self.set_aside.take()
        {
            self.line.put(text);
        }
    }

    /// Shows the digits, and asks whether they are the same on the other side.
    pub(super) fn verify(&mut self, who: String, digits: String) -> Result<(), CommandError> {
        if !digits.chars().all(|c| c.is_ascii_digit()) {
            let error = usage("digits follow the name");
            return Err(error.hint("put a name of several words in quotes: !verify 'tea lover'"));
        }
        if !digits.is_empty() && digits.len() != DIGITS {
            let what = format!("that is {} digits; a safety number has {DIGITS}", digits.len());
            return Err(usage(what).hint("!verify NAME without digits shows it"));
        }
        let (context, client, own) = (self.context.clone(), self.client.clone(), self.own.clone());
        self.spawn(async move {
            let contact = match contact(&client, &who).await {
                Ok(contact) => contact,
                Err(error) if error.code() == ExitCode::Identity => {
                    return ask_who_it_is(&context, &client, &who).await;
                }
                Err(error) => return Err(error),
            };
            let number = contact.safety_number(&own.identity_key);
            let (user, name) = (contact.user, contact.nickname.to_string());
            if digits.is_empty() {
                contacts::show_number(&context, &contact, &number)?;
                let shown = render::name(&name);
                context.output.say(&format!(
                    "Call {shown}, or meet. {shown} types !verify with your name, and sees the same \
                     digits if nobody stands between you."
                ))?;
                return Ok(Some(Happened::Asking(Question::SameDigits { user, name })));
            }
            if !number.matches(&digits) {
                let error = CommandError::new(ExitCode::Identity, "these are other digits");
                let hint = "read them again; if they still differ, somebody stands between you";
                return Err(error.hint(hint));
            }
            client.verify(user).await?;
            context.output.say(&format!("{} is verified.", render::name(&name)))?;
            Ok(None)
        });
        Ok(())
    }

    /// Answers the first question; it is gone once it is answered.
    pub(super) async fn answer(&mut self, answer: &str) -> Result<(), CommandError> {
        let Some(question) = self.questions.pop_front() else { return Ok(()) };
        let warning = |text: &str| self.context.output.paint().warning(text);
        let (decision, said) = match (&question, answer.to_lowercase().as_str()) {
            (Question::SameDigits { user, name }, "yes") => {
                let said = format!("{} is verified.", render::name(name));
                (Some(Decision::Verify(*user)), said)
            }
            (Question::SameDigits { name, .. }, "no") => {
                let name = render::name(name);
                let said = warning(&format!(
                    "Then do not trust what {name} writes: somebody may stand between you. \
                     Compare again, slowly; if they differ still, tell {name} another way."
                ));
                (None, said)
            }
            (Question::WhoIsIt { known, new, name }, "accept") => {
                let (known, new) = (*known, *new);
                let shown = render::name(name);
                let how = render::quoted(&shown);
                let said = format!("{shown} has the new key now. Compare it: !verify {how}");
                (Some(Decision::Accept { known, new }), said)
            }
            (Question::WhoIsIt { known, name, .. }, "keep") => {
                let said = format!("You go on writing to {} as you knew them.", render::name(name));
                (Some(Decision::Keep(*known)), said)
            }
            (Question::SameDigits { .. } | Question::WhoIsIt { .. }, "later") => {
                (None, "Nothing is decided; !verify asks again.".to_owned())
            }
            (Question::Sure { .. }, "no") => (None, "Nothing was done.".to_owned()),
            (Question::Sure { command, .. }, "yes") => {
                let command = command.clone();
                self.take_up_again();
                return self.room(command, None);
            }
            _ => {
                self.questions.push_front(question);
                // It may have been meant for a conversation.
                self.keep_typed(answer).await?;
                let hint = "Please answer with one of the words; Ctrl-C ends the question. \
                            What you typed was not sent: Up brings it back.";
                return self.say_quietly(hint);
            }
        };
        self.take_up_again();
        match decision {
            Some(Decision::Verify(user)) => self.client.verify(user).await?,
            Some(Decision::Accept { known, new }) => {
                self.client.accept_identity(known, new).await?
            }
            Some(Decision::Keep(user)) => self.client.keep_identity(user).await?,
            None => {}
        }
        self.say(&said)
    }
}

/// A name leads to another key: shows its digits, and asks whose it is.
async fn ask_who_it_is(
    context: &Context,
    client: &Client,
    who: &str,
) -> Result<Option<Happened>, CommandError> {
    let own = client.profile().await?;
    let contacts = client.contacts().await?;
    let fold = Nickname::from_input(who).map(|name| name.fold()).unwrap_or_default();
    let known = contacts.iter().find(|c| c.trust == Trust::Changed && c.nickname.fold() == fold);
    let known = known.ok_or_else(CommandError::identity_changed)?;
    let new = known.replaced_by.and_then(|user| contacts.iter().find(|c| c.user == user));
    let new = new.ok_or_else(CommandError::identity_changed)?;
    let name = known.nickname.to_string();
    let shown = render::name(&name);
    let paint = context.output.paint();
    context.output.say(&paint.warning(&format!(
        "The name {shown} belongs to another identity key now. It may be a new device, or an \
         impostor. Call {shown}, over a line that you trust, and compare:"
    )))?;
    contacts::show_number(context, new, &new.safety_number(&own.identity_key))?;
    Ok(Some(Happened::Asking(Question::WhoIsIt { known: known.user, new: new.user, name })))
}
