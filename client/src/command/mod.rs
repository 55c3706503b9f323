//! One file per command or family: it does what the command says and prints the result.

pub(crate) mod account;
pub(crate) mod admin;
pub(crate) mod backup;
mod completions;
pub(crate) mod contacts;
mod demo;
pub(crate) mod exec;
pub(crate) mod fetch;
mod files;
pub(crate) mod host;
pub(crate) mod join;
mod man;
mod passphrase;
pub(crate) mod proof;
pub(crate) mod receive;
pub(crate) mod requests;
pub(crate) mod room;
pub(crate) mod send;
pub(crate) mod whoami;

use chatcore::store::StoreError;

use crate::cli::{AccountCommand, Cli, Command, ReceiveArgs, RpcArgs, TalkArgs};
use crate::context::Context;
use crate::error::{CommandError, ExitCode};
use crate::online::{block_on, serve};
use crate::rpc::{remote, stdio};

/// Does what the command line says.
///
/// # Errors
/// Message to the person, with the exit code.
pub fn run(cli: &Cli) -> Result<(), CommandError> {
    let context = Context::new(&cli.global)?;
    if !matches!(
        &cli.command,
        Some(Command::Completions(_) | Command::Man(_) | Command::Host(_) | Command::Demo)
    ) {
        // Before anything is asked or read, while Ctrl-C still ends it.
        context.wait_for_profile();
    }
    let Some(command) = &cli.command else {
        return serve(crate::repl::run(context, &cli.talk));
    };
    if cli.talk != TalkArgs::default() {
        let what = "--link, --host, --nick and the like stand without a command, or behind one that knows them";
        return Err(CommandError::new(ExitCode::Usage, what));
    }
    match command {
        Command::Completions(args) => completions::run(&context, args),
        Command::Man(args) => man::run(&context, args),
        Command::Passphrase(args) => passphrase::run(&context, args),
        Command::Export(args) => backup::export(&context, args),
        Command::Import(args) => block_on(backup::import(&context, args)),
        Command::Join(args) => block_on(join::run(&context, args)),
        Command::Receive(args) => receive(&context, args),
        Command::Rpc(args) => rpc(&context, args),
        Command::Account(AccountCommand::Delete(args)) => block_on(account::delete(&context, args)),
        Command::Host(args) => serve(host::run(&context, args)),
        Command::Demo => block_on(demo::run(&context)),
        _ => match remote::forward(&context, command) {
            Some(done) => done,
            None => match block_on(shared(&context, command)) {
                // It was opened for good meanwhile, by one that serves others.
                Err(error) if error == StoreError::Locked.into() && !has_read_input(command) => {
                    remote::forward(&context, command).unwrap_or(Err(error))
                }
                done => done,
            },
        },
    }
}

/// Tells whether a command has read what can be read only once before it opens the profile.
fn has_read_input(command: &Command) -> bool {
    match command {
        Command::Send(args) => args.text.as_deref().or(args.who.as_deref()) == Some("-"),
        _ => false,
    }
}

#[cfg(unix)]
fn receive(context: &Context, args: &ReceiveArgs) -> Result<(), CommandError> {
    match remote::Remote::connect(context)? {
        Some(remote) => serve(stdio::receive(context, args, remote)),
        None => serve(receive::run(context, args)),
    }
}

#[cfg(not(unix))]
fn receive(context: &Context, args: &ReceiveArgs) -> Result<(), CommandError> {
    serve(receive::run(context, args))
}

#[cfg(unix)]
fn rpc(context: &Context, args: &RpcArgs) -> Result<(), CommandError> {
    match remote::Remote::connect(context)? {
        Some(remote) => stdio::pass_on(remote),
        None => block_on(stdio::run(context, args)),
    }
}

#[cfg(not(unix))]
fn rpc(context: &Context, args: &RpcArgs) -> Result<(), CommandError> {
    block_on(stdio::run(context, args))
}

/// Does what a command says that several processes may ask of one client.
///
/// # Errors
/// As [`run`]; for other commands [`ExitCode::Usage`].
pub(crate) async fn shared(context: &Context, command: &Command) -> Result<(), CommandError> {
    match command {
        Command::Whoami => whoami::run(context).await,
        Command::Contacts(args) if args.online => {
            contacts::contacts_online(context, args.verbose).await
        }
        Command::Contacts(args) => contacts::contacts(context, args.verbose).await,
        Command::Presence(args) => contacts::presence(context, args).await,
        Command::History(args) => contacts::history(context, args).await,
        Command::Files => files::list(context).await,
        Command::Save(args) => files::save(context, args).await,
        Command::Send(args) => send::text(context, args).await,
        Command::SendFile(args) => send::files(context, args).await,
        Command::Room(command) => room::run(context, command).await,
        Command::Admin(args) => admin::run(context, args).await,
        Command::Verify(args) => contacts::verify(context, args).await,
        Command::Requests(args) => requests::run(context, args).await,
        Command::Block(args) => contacts::block(context, args, contacts::Block::Set).await,
        Command::Unblock(args) => contacts::block(context, args, contacts::Block::Lifted).await,
        Command::Nick(args) => account::nick(context, args).await,
        Command::Join(_)
        | Command::Receive(_)
        | Command::Rpc(_)
        | Command::Passphrase(_)
        | Command::Export(_)
        | Command::Import(_)
        | Command::Account(_)
        | Command::Host(_)
        | Command::Demo
        | Command::Completions(_)
        | Command::Man(_) => {
            let what = "that can't be asked of a `chat` that is open already";
            Err(CommandError::new(ExitCode::Usage, what).hint("close that one first"))
        }
    }
}
