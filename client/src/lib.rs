//! The messenger's command, `chat`, as a library that its `main` and its tests call.
//!
//! | module | for |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`command`] | one file per command |
//! | `session` | a profile that several processes use |
//! | `sending` | how far a command follows what it sent |
//! | `talk` | the prompt: `chat` without a command |
//! | [`context`] | what every command needs |
//! | [`paths`], [`passphrase`], [`prompt`] | where things are, and questions |
//! | [`output`], [`render`], [`json`], [`progress`] | what the person or a program sees |
//! | [`error`] | what went wrong, and exit codes |

pub mod cli;
mod colours;
pub mod command;
pub mod context;
pub mod error;
mod hosting;
pub mod json;
mod names;
mod online;
pub mod output;
pub mod passphrase;
pub mod paths;
pub mod progress;
pub mod prompt;
pub mod render;
mod sending;
mod session;
mod show;
mod talk;
mod wanted;
