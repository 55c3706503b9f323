//! The library stands on its own: a crate outside of this workspace that uses nothing else builds a bot.

use std::fs;
use std::path::Path;
use std::process::Command;

#[test]
fn crate_outside_the_workspace_builds_the_echo_bot() {
    let library = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bot = Path::new(env!("CARGO_TARGET_TMPDIR")).join("echo-bot");
    fs::create_dir_all(bot.join("src")).unwrap();
    let manifest = format!(
        "[package]\nname = \"echo-bot\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n[workspace]\n\n\
         [dependencies]\nchatcore = {{ path = {library:?}, features = [\"net\", \"profile\"] }}\n"
    );
    fs::write(bot.join("Cargo.toml"), manifest).unwrap();
    fs::copy(library.join("examples/echo_bot.rs"), bot.join("src/main.rs")).unwrap();
    // The versions that were downloaded for the workspace.
    fs::copy(library.join("../Cargo.lock"), bot.join("Cargo.lock")).unwrap();
    let check = Command::new(env!("CARGO"))
        .args(["check", "--offline", "--quiet"])
        .current_dir(&bot)
        .env("CARGO_TARGET_DIR", bot.join("target"))
        .env_remove("RUSTFLAGS")
        .output()
        .unwrap();
    assert!(check.status.success(), "{}", String::from_utf8_lossy(&check.stderr));
}
