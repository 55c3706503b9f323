//! The messenger's command, `chat`, as a library that its `main` and its tests call.
//!
//! | module | for |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`command`] | one file per command |
//! | `repl` | the prompt: `chat` without a command |
//! | `rpc` | a profile that several processes use: socket and JSON-RPC |
//! | `sending` | how far a command follows what it sent |
//! | [`context`] | what every command needs |
//! | [`paths`], [`passphrase`], [`prompt`] | where things are, and questions |
//! | [`output`] | what the person or a program sees: in words, in colours, as JSON |
//! | [`error`] | what went wrong, and exit codes |

pub mod cli;
pub mod command;
pub mod context;
pub mod error;
mod hosting;
mod online;
pub mod output;
pub mod passphrase;
pub mod paths;
pub mod prompt;
mod repl;
mod rpc;
mod sending;
mod wanted;
