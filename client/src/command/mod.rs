//! One file per command or family: it does what the command says and prints the result.

pub(crate) mod account;
pub(crate) mod admin;
mod completions;
mod demo;
pub(crate) mod host;
pub(crate) mod join;
mod man;
mod passphrase;
pub(crate) mod people;
mod receive;
pub(crate) mod room;
pub(crate) mod send;
pub(crate) mod whoami;

use chatcore::engine::Command as EngineCommand;

use crate::cli::{AccountCommand, Cli, Command, TalkArgs};
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::online::{block_on, serve};

/// Does what the command line says.
///
/// # Errors
/// What the person is to be told, with the exit code.
pub fn run(cli: &Cli) -> Result<(), CommandError> {
    let context = Context::new(&cli.global)?;
    let Some(command) = &cli.command else {
        return serve(crate::talk::run(context, &cli.talk));
    };
    if cli.talk != TalkArgs::default() {
        let what = "--link, --host, --nick and the like stand without a command, or behind one that knows them";
        return Err(CommandError::new(ExitCode::Usage, what));
    }
    match command {
        Command::Completions(args) => completions::run(&context, args),
        Command::Man(args) => man::run(&context, args),
        Command::Passphrase(args) => passphrase::run(&context, args),
        Command::Whoami => whoami::run(&context),
        Command::Contacts(args) if args.online => block_on(people::contacts_online(&context)),
        Command::Contacts(_) => people::contacts(&context),
        Command::Presence(args) => block_on(people::presence(&context, args)),
        Command::History(args) => people::history(&context, args),
        Command::Join(args) => block_on(join::run(&context, args)),
        Command::Send(args) => block_on(send::text(&context, args)),
        Command::SendFile(args) => block_on(send::files(&context, args)),
        Command::Receive(args) => block_on(receive::run(&context, args)),
        Command::Room(command) => block_on(room::run(&context, command)),
        Command::Admin(args) => block_on(admin::run(&context, args)),
        Command::Verify(args) => block_on(people::verify(&context, args)),
        Command::Block(args) => {
            block_on(people::block(&context, args, EngineCommand::Block, "is blocked."))
        }
        Command::Unblock(args) => {
            let done = "is not blocked any more.";
            block_on(people::block(&context, args, EngineCommand::Unblock, done))
        }
        Command::Nick(args) => block_on(account::nick(&context, args)),
        Command::Account(AccountCommand::Delete(args)) => block_on(account::delete(&context, args)),
        Command::Host(args) => serve(host::run(&context, args)),
        Command::Demo => block_on(demo::run(&context)),
    }
}
