//! `chat room proof` and `chat room check-proof`: that a relay took back or bent what it had signed.
//!
//! Neither needs the relay: it is the one under suspicion.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::path::Path;

use chatcore::membership::{ForkProof, LogHead};
use chatcore::wire::limits::MAX_FORK_PROOF;
use chatcore::wire::room::{decode_fork_proof, encode_fork_proof};
use tempfile::NamedTempFile;

use super::contacts;
use crate::cli::{CheckProofArgs, ProofArgs};
use crate::context::{Context, Known};
use crate::error::{CommandError, ExitCode};
use crate::output::OutputMode;
use crate::output::json::{Line, SignedHead};
use crate::output::render;

/// Shows the proof that the relay forked a room, and writes it into a file.
///
/// # Errors
/// An unknown room, one that was not forked, the file's, the store's.
pub(super) async fn show(context: &Context, args: &ProofArgs) -> Result<(), CommandError> {
    let known = context.known()?;
    let room = contacts::find_room(&known.rooms().await?, &args.room)?;
    let Some(proof) = known.fork_proof(room).await? else {
        return Err(none());
    };
    let path = args.out.as_deref().map(|path| context.asker.path(path));
    if let Some(path) = &path {
        write(path, &encode_fork_proof(&proof))?;
    }
    tell(context, &known, &proof, path.as_deref()).await
}

/// Checks a proof that somebody shows; needs no profile.
///
/// # Errors
/// The file's; [`ExitCode::Integrity`] when it proves nothing.
pub(super) async fn check(context: &Context, args: &CheckProofArgs) -> Result<(), CommandError> {
    let path = context.asker.path(&args.file);
    let failed = |error: &std::io::Error| CommandError::file(&path, error);
    let file = File::open(&path).map_err(|error| failed(&error))?;
    let mut bytes = Vec::new();
    file.take(MAX_FORK_PROOF as u64 + 1).read_to_end(&mut bytes).map_err(|error| failed(&error))?;
    let bad = |error: &dyn std::fmt::Display| {
        let hint = "it proves nothing: ask for the file again, or forget the charge";
        let what = format_args!("{}: {error}", path.display());
        CommandError::new(ExitCode::Integrity, what).hint(hint)
    };
    if bytes.len() > MAX_FORK_PROOF {
        return Err(bad(&"it is too long for a proof"));
    }
    let proof = decode_fork_proof(&bytes).map_err(|_| bad(&"it is no proof of a fork"))?;
    proof.check().map_err(|error| bad(&error))?;
    if context.has_profile() {
        tell(context, &context.known()?, &proof, None).await
    } else {
        say(context, &proof, None, None)
    }
}

fn none() -> CommandError {
    let what = "the relay has shown nothing in this room that contradicts what it signed before";
    CommandError::new(ExitCode::Refused, what)
}

async fn tell(
    context: &Context,
    known: &Known,
    proof: &ForkProof,
    path: Option<&Path>,
) -> Result<(), CommandError> {
    let own = known.profile().await?.relay == proof.relay;
    say(context, proof, Some(own), path)
}

/// Says what a proof shows; `own_relay` where there is a profile to compare with.
fn say(
    context: &Context,
    proof: &ForkProof,
    own_relay: Option<bool>,
    path: Option<&Path>,
) -> Result<(), CommandError> {
    let damaged = |_| CommandError::new(ExitCode::Store, "the proof is damaged");
    let (log, shared) = proof.check().map_err(damaged)?;
    let head = |branch: &chatcore::membership::Branch| {
        branch.check(&proof.relay).map_err(damaged).map(|head| SignedHead::from(&head))
    };
    let (ours, theirs) = (head(&proof.ours)?, head(&proof.theirs)?);
    let path = path.map(|path| path.to_string_lossy());
    if context.output.mode() == OutputMode::Json {
        return context.output.json(&Line::ForkProof {
            relay: proof.relay.to_hex(),
            own_relay,
            log_id: log.to_hex(),
            shared,
            ours,
            theirs,
            path: path.as_deref(),
        });
    }
    let whose = match own_relay {
        Some(true) => "The relay of this profile",
        Some(false) => "Another relay than the one of this profile",
        None => "The relay",
    };
    let key = proof.relay.to_hex();
    context.output.say(&format!(
        "{whose} ({}…) signed two orders of one room: only who has its key can have done that.",
        key.get(..16).unwrap_or_default()
    ))?;
    context.output.say(&format!("shared: the first {shared} entries"))?;
    for (which, head) in [("first ", &ours), ("second", &theirs)] {
        context.output.say(&format!(
            "{which}: {} entries, head {}…, signed {}, epoch {}",
            head.length,
            head.hash.get(..16).unwrap_or_default(),
            render::rfc3339(head.at),
            head.epoch
        ))?;
    }
    match path {
        Some(path) => context.output.say(&format!(
            "Saved in {}. Anybody can check it: chat room check-proof FILE",
            render::line(&path)
        )),
        None => Ok(()),
    }
}

impl From<&LogHead> for SignedHead {
    fn from(head: &LogHead) -> Self {
        Self { length: head.length, hash: head.hash.to_hex(), epoch: head.epoch, at: head.at }
    }
}

/// Writes a new file, whole or not at all.
fn write(path: &Path, bytes: &[u8]) -> Result<(), CommandError> {
    let failed = |error: &std::io::Error| match error.kind() {
        ErrorKind::AlreadyExists => {
            CommandError::file(path, error).hint("choose another name: --out FILE")
        }
        _ => CommandError::file(path, error),
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    let mut file = NamedTempFile::new_in(folder.unwrap_or_else(|| Path::new(".")))
        .map_err(|error| failed(&error))?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(|e| failed(&e))?;
    file.persist_noclobber(path).map_err(|error| failed(&error.error))?;
    Ok(())
}
