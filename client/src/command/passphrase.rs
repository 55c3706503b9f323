//! `chat passphrase [--remove]`.

use crate::cli::PassphraseArgs;
use crate::context::Context;
use crate::error::CommandError;
use crate::passphrase::from_file;
use chatcore::profile::Protection;

/// Sets, changes or removes the passphrase.
///
/// # Errors
/// [`ExitCode::Store`](crate::error::ExitCode::Store); the old passphrase then still opens the
/// profile.
pub(super) fn run(context: &Context, args: &PassphraseArgs) -> Result<(), CommandError> {
    let mut store = context.open_store()?;
    let (protection, done) = if args.remove {
        let done = "The passphrase is removed: who can read your files can read your messages.";
        (Protection::KeyFile, done)
    } else {
        let passphrase = match &args.new_passphrase_file {
            Some(path) => from_file(path)?,
            None => {
                let flags = "--new-passphrase-file FILE or --remove";
                context.prompt.new_passphrase("New passphrase", flags)?
            }
        };
        let cost = context.cost;
        (
            Protection::Passphrase { passphrase, cost },
            "The new passphrase is set. There is no way to recover it.",
        )
    };
    store.change_passphrase(&protection)?;
    context.output.say(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ExitCode;
    use crate::output::{Output, OutputMode};
    use crate::passphrase::PassphraseSource;
    use crate::paths::Paths;
    use crate::prompt::Prompt;
    use chatcore::profile::KdfCost;
    use std::fs;
    use tempfile::TempDir;

    #[test]
    fn a_passphrase_is_set_changed_and_removed() {
        let home = TempDir::new().unwrap();
        let file = |text: &str| {
            let path = home.path().join(text);
            fs::write(&path, text).unwrap();
            path
        };
        let with = |passphrase| Context {
            proxy: None,
            session: None,
            asker: crate::context::Asker::default(),
            paths: Paths::new(Some(home.path().to_owned()), "alice".parse().unwrap()).unwrap(),
            output: Output::new(OutputMode::People),
            prompt: Prompt::Unattended,
            passphrase,
            cost: KdfCost::CHEAP_FOR_TESTING_ONLY,
            lock_timeout: std::time::Duration::ZERO,
        };
        let plain = with(PassphraseSource::None);
        drop(plain.create_store().unwrap());
        let set = |context: &Context, new: Option<&str>| {
            let args = PassphraseArgs { remove: new.is_none(), new_passphrase_file: new.map(file) };
            run(context, &args)
        };
        set(&plain, Some("one")).unwrap();
        let one = with(PassphraseSource::File(file("one")));
        assert_eq!(set(&plain, Some("x")).unwrap_err().code(), ExitCode::Store);
        set(&one, Some("two")).unwrap();
        assert_eq!(set(&one, Some("x")).unwrap_err().code(), ExitCode::Store);
        set(&with(PassphraseSource::File(file("two"))), None).unwrap();
        assert!(plain.open_store().is_ok());
    }
}
