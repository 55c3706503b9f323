//! Arguments of `chat room`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// Commands of `room`.
#[derive(Debug, Clone, Subcommand)]
pub enum RoomCommand {
    /// Make a room; it is yours
    #[command(
        after_help = "Examples:\n  chat room create plans\n  chat room create tea --open --topic 'what is brewing'"
    )]
    Create(RoomCreateArgs),
    /// List your rooms, and open ones that you may join
    #[command(after_help = "Example:\n  chat room list --json")]
    List(Verbose),
    /// Show who is in a room, and what else is known of it
    #[command(after_help = "Example:\n  chat room show plans")]
    Show(RoomShowArgs),
    /// Take up an invitation, or join an open room
    #[command(after_help = "Example:\n  chat room join tea")]
    Join(RoomArgs),
    /// Leave a room, or turn an invitation down
    #[command(after_help = "Example:\n  chat room leave tea")]
    Leave(RoomArgs),
    /// Invite somebody
    #[command(
        after_help = "Examples:\n  chat room invite plans bob\n  chat room invite plans carol --role moderator"
    )]
    Invite(RoomInviteArgs),
    /// Take somebody out, or an invitation back; they can be invited again
    #[command(after_help = "Example:\n  chat room kick plans mallory")]
    Kick(RoomWhoArgs),
    /// Take somebody out for good
    #[command(after_help = "Example:\n  chat room ban plans mallory")]
    Ban(RoomWhoArgs),
    /// Lift a ban
    #[command(after_help = "Example:\n  chat room unban plans mallory")]
    Unban(RoomWhoArgs),
    /// Have everybody refuse somebody's messages
    #[command(after_help = "Example:\n  chat room silence plans mallory")]
    Silence(RoomWhoArgs),
    /// Let somebody speak again
    #[command(after_help = "Example:\n  chat room unsilence plans mallory")]
    Unsilence(RoomWhoArgs),
    /// Give somebody another role: member, moderator or admin
    #[command(after_help = "Example:\n  chat room role plans bob moderator")]
    Role(RoomRoleArgs),
    /// Change the topic
    #[command(after_help = "Example:\n  chat room topic plans 'Thursday, eight'")]
    Topic(RoomTextArgs),
    /// Change the name
    #[command(after_help = "Example:\n  chat room rename plans 'better plans'")]
    Rename(RoomTextArgs),
    /// Choose the lowest role that may invite
    #[command(after_help = "Example:\n  chat room policy plans --invite member")]
    Policy(RoomPolicyArgs),
    /// Make somebody else the owner; you become an admin
    #[command(after_help = "Example:\n  chat room transfer plans bob")]
    Transfer(RoomWhoArgs),
    /// End the room for everybody
    #[command(after_help = "Example:\n  chat room close plans")]
    Close(RoomArgs),
    /// Go on with what the relay has of a room that it was set back in
    #[command(
        after_help = "What the relay lost counts no more; what you did yourself is done again.\n\nExample:\n  chat room resume plans"
    )]
    Resume(RoomArgs),
    /// Take over an open room whose owner was not heard of for 180 days
    #[command(
        after_help = "It falls to the highest role, and there to who has it longest. The owner becomes an admin.\n\nExample:\n  chat room succeed tea"
    )]
    Succeed(RoomArgs),
    /// Make a room in the place of one that can't go on, and ask everybody in
    #[command(
        after_help = "The new room is yours. Topic, roles and bans are as in the old one, which stays as it is.\n\nExamples:\n  chat room rebuild plans\n  chat room rebuild plans --name 'new plans'"
    )]
    Rebuild(RebuildArgs),
    /// Show the proof that the relay took back or bent what it had signed in a room
    #[command(after_help = "Example:\n  chat room proof plans --out plans.fork")]
    Proof(ProofArgs),
    /// Check such a proof
    #[command(after_help = "Example:\n  chat room check-proof plans.fork")]
    CheckProof(CheckProofArgs),
}

/// A room, and where its proof goes.
#[derive(Debug, Clone, Args)]
pub struct ProofArgs {
    /// The room's name, with or without #, or the beginning of its id
    pub room: String,
    /// Also write it into this file, which must not exist
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// A proof.
#[derive(Debug, Clone, Args)]
pub struct CheckProofArgs {
    /// The file
    pub file: PathBuf,
}

/// A room to be made.
#[derive(Debug, Clone, Args)]
pub struct RoomCreateArgs {
    /// Its name, with or without #
    pub name: String,
    /// Listed by the relay; everybody there may join
    #[arg(long)]
    pub open: bool,
    /// Its topic
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub topic: String,
}

/// A room.
#[derive(Debug, Clone, Args)]
pub struct RoomArgs {
    /// The room's name, with or without #, or the beginning of its id
    pub room: String,
}

/// How much is shown.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Verbose {
    /// Show ids, too
    #[arg(short, long)]
    pub verbose: bool,
}

/// A room to be shown.
#[derive(Debug, Clone, Args)]
pub struct RoomShowArgs {
    /// The room's name, with or without #, or the beginning of its id
    pub room: String,
    /// How much is shown.
    #[command(flatten)]
    pub verbose: Verbose,
}

/// A room to be made in the place of another.
#[derive(Debug, Clone, Args)]
pub struct RebuildArgs {
    /// The old room's name, with or without #, or the beginning of its id
    pub room: String,
    /// Another name for the new one
    #[arg(long)]
    pub name: Option<String>,
}

/// A room and somebody.
#[derive(Debug, Clone, Args)]
pub struct RoomWhoArgs {
    /// The room's name, with or without #, or the beginning of its id
    pub room: String,
    /// Somebody's name
    pub who: String,
}

/// A room and somebody to ask in.
#[derive(Debug, Clone, Args)]
pub struct RoomInviteArgs {
    /// The room's name, with or without #, or the beginning of its id
    pub room: String,
    /// Somebody's name
    pub who: String,
    /// Their role
    #[arg(long, value_enum, default_value_t = RoleArg::Member)]
    pub role: RoleArg,
}

/// A room, somebody, and what they will be.
#[derive(Debug, Clone, Args)]
pub struct RoomRoleArgs {
    /// The room's name, with or without #, or the beginning of its id
    pub room: String,
    /// Somebody's name
    pub who: String,
    /// Their role
    #[arg(value_enum)]
    pub role: RoleArg,
}

/// A room and a text.
#[derive(Debug, Clone, Args)]
pub struct RoomTextArgs {
    /// The room's name, with or without #, or the beginning of its id
    pub room: String,
    /// The new one, in quotes
    pub text: String,
}

/// A room and who may invite.
#[derive(Debug, Clone, Args)]
pub struct RoomPolicyArgs {
    /// The room's name, with or without #, or the beginning of its id
    pub room: String,
    /// The lowest role that may invite
    #[arg(long, value_enum)]
    pub invite: RoleArg,
}

/// A role that can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RoleArg {
    /// Reads and writes
    Member,
    /// Also invites, kicks, silences
    Moderator,
    /// Also bans, gives roles, sets the topic
    Admin,
}
