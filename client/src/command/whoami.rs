//! `chat whoami`.

use chatcore::engine::{ProfileView, Registration};
use chatcore::net;

use crate::context::Context;
use crate::error::CommandError;
use crate::output::OutputMode;
use crate::output::json::Line;
use crate::output::render;

/// Shows the own name, id and relay; needs no connection.
///
/// # Errors
/// The store's.
pub(super) async fn run(context: &Context) -> Result<(), CommandError> {
    let profile = context.known()?.profile().await?;
    let hint = match profile.registration {
        Registration::Done => "",
        Registration::Revoked => "This device is not part of the account any more.",
        Registration::Forgotten => {
            "The relay said that it does not know you any more. The next connection brings your \
             account back; if your name is taken by now: chat --nick NAME"
        }
        Registration::Pending => "The relay does not know you yet: repeat 'chat join'.",
    };
    show(context, &profile, hint)
}

/// Shows it, with what to do next.
///
/// # Errors
/// When nobody reads the output any more.
pub(crate) fn show(
    context: &Context,
    profile: &ProfileView,
    hint: &str,
) -> Result<(), CommandError> {
    let nickname = profile.nickname.as_str();
    let in_order = profile.addresses.in_order(net::now());
    let tried: Vec<_> = in_order.into_iter().map(|known| known.address.as_str()).collect();
    if context.output.mode() == OutputMode::Json {
        return context.output.json(&Line::Whoami {
            nickname,
            user_id: profile.user,
            relay: &profile.addresses.newest().address,
            relay_addresses: tried,
            registered: profile.registration == Registration::Done,
        });
    }
    let tried = render::line(&tried.join(", or else "));
    context.output.say(&format!("{} at {tried}", render::name(nickname)))?;
    context.output.say(&format!("id {}", profile.user.to_hex()))?;
    if hint.is_empty() { Ok(()) } else { context.output.say(hint) }
}
