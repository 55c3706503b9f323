//! Acts of a person or program that need no answer of the relay: each returns when it is durable.

use zeroize::Zeroizing;

use super::client::Client;
use super::error::ClientError;
use crate::engine::{Command, ProgramName, Visibility};
use crate::ids::{MessageId, UserId};

impl Client {
    /// Marks a contact's key as compared.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn verify(&self, contact: UserId) -> Result<(), ClientError> {
        self.command(Command::Verify(contact)).await
    }

    /// Takes `new`, who has a contact's name now, for that person; refused if the name leads to yet another user by now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn accept_identity(&self, known: UserId, new: UserId) -> Result<(), ClientError> {
        self.command(Command::AcceptIdentity { known, new }).await
    }

    /// Stays with a contact as known, whoever has the name now.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn keep_identity(&self, contact: UserId) -> Result<(), ClientError> {
        self.command(Command::KeepIdentity(contact)).await
    }

    /// Makes a contact of a user who asked to write to us.
    ///
    /// # Errors
    /// [`EngineError::NoRequest`](crate::engine::EngineError::NoRequest).
    pub async fn accept_request(&self, user: UserId) -> Result<(), ClientError> {
        self.command(Command::AcceptRequest(user)).await
    }

    /// Forgets a user who asked, and what they wrote; they are not told, and may ask again.
    ///
    /// # Errors
    /// [`EngineError::NoRequest`](crate::engine::EngineError::NoRequest).
    pub async fn decline_request(&self, user: UserId) -> Result<(), ClientError> {
        self.command(Command::DeclineRequest(user)).await
    }

    /// Refuses everything from a user.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn block(&self, user: UserId) -> Result<(), ClientError> {
        self.command(Command::Block(user)).await
    }

    /// Takes a block back.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn unblock(&self, user: UserId) -> Result<(), ClientError> {
        self.command(Command::Unblock(user)).await
    }

    /// Lets contacts see that we are here, or not; kept in the profile.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn set_visibility(&self, visibility: Visibility) -> Result<(), ClientError> {
        self.command(Command::SetVisibility(visibility)).await
    }

    /// Stays out of the relay's Lobby.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn decline_lobby(&self) -> Result<(), ClientError> {
        self.command(Command::DeclineLobby).await
    }

    /// Closes the account for ever; [`Event::AccountClosed`](crate::engine::Event) tells when it is done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn close_account(&self) -> Result<(), ClientError> {
        self.command(Command::CloseAccount).await
    }

    /// Tells a contact that a person has seen their messages; those to rooms are left out.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn mark_read(
        &self,
        from: UserId,
        messages: Vec<MessageId>,
    ) -> Result<(), ClientError> {
        self.command(Command::MarkRead { from, messages }).await
    }

    /// Wants a file fetched that was given up, or that is to wait.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn retry_fetch(&self, from: UserId, message: MessageId) -> Result<(), ClientError> {
        self.command(Command::RetryFetch { from, message }).await
    }

    /// Has a program told everything from now on, until it says that it has it; one that follows already goes on where it
    /// was. [`Self::subscribe`] does so by itself.
    ///
    /// # Errors
    /// [`EngineError::TooManyPrograms`](crate::engine::EngineError::TooManyPrograms).
    pub async fn follow(&self, program: ProgramName) -> Result<(), ClientError> {
        self.command(Command::Follow(program)).await
    }

    /// Ends what a program follows.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn unfollow(&self, program: ProgramName) -> Result<(), ClientError> {
        self.command(Command::Unfollow(program)).await
    }

    /// Says that a program has everything in the journal up to a number.
    ///
    /// # Errors
    /// [`EngineError::NotFollowing`](crate::engine::EngineError::NotFollowing).
    pub async fn acknowledge(&self, program: ProgramName, up_to: u64) -> Result<(), ClientError> {
        self.command(Command::Acknowledge { program, up_to }).await
    }

    /// Keeps something of the program's own in the profile, sealed as everything there, or forgets it; read by
    /// [`Self::kept`]. `number` orders what has the same name.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn keep(
        &self,
        name: &'static str,
        number: u64,
        value: Option<Zeroizing<Vec<u8>>>,
    ) -> Result<(), ClientError> {
        self.command(Command::Keep { name, number, value }).await
    }
}
