//! One error type: what kind of failure it was, for code, and a sentence, for people.
//!
//! A message names the thing, the place and the way out. Context is added in front, as in
//! `restore from file:///replica: ltx/0/…: file checksum mismatch`.

use std::fmt;

/// What kind of failure it was; decides retries, states and result codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The caller's input is wrong: a URL, an option, a time.
    Invalid,
    /// What was asked for is not there: a bucket, an object, a TXID.
    NotFound,
    /// The store refused the credentials.
    Denied,
    /// The store is away, slow or overloaded; the same call may succeed later.
    Unavailable,
    /// A condition failed: the object exists, or is another one than expected.
    Conflict,
    /// Bytes that are not what the format says.
    Corrupt,
    /// The local database and the replica do not belong together.
    Diverged,
    /// Something else holds what is needed.
    Busy,
    /// What was being read has changed meanwhile; the same call may succeed now.
    Overtaken,
    /// A wait ended before its condition held.
    Timeout,
    /// `sqlite3_interrupt`.
    Interrupted,
    /// The local file system failed.
    Io,
    /// No room on the local file system.
    Full,
    /// SQLite had no memory.
    Memory,
    /// Something that cannot be, was.
    Bug,
}

/// An error with its kind and its message.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    kind: Kind,
    message: String,
}

/// The result of everything in this crate that can fail.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An error of the given kind with the given sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// The caller's input is wrong.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Bytes that are not what the format says.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }

    /// Something that cannot be, was.
    pub fn bug(message: impl fmt::Display) -> Self {
        Self::new(Kind::Bug, format!("BUG: {message}"))
    }

    /// A failed local file operation on `what`.
    pub fn io(what: impl fmt::Display, error: &std::io::Error) -> Self {
        let kind = match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Kind::Full,
            std::io::ErrorKind::NotFound => Kind::NotFound,
            _ => Kind::Io,
        };
        Self::new(kind, format!("{what}: {error}"))
    }

    /// What kind of failure it was.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether the same call may succeed later with nothing changed here.
    pub fn is_retryable(&self) -> bool {
        self.kind == Kind::Unavailable
    }

    /// The same error with `what: ` in front.
    #[must_use]
    pub fn context(self, what: impl fmt::Display) -> Self {
        Self { kind: self.kind, message: format!("{what}: {}", self.message) }
    }

    /// The same error with a way out behind it.
    #[must_use]
    pub fn advise(self, way_out: &str) -> Self {
        Self { kind: self.kind, message: format!("{}; {way_out}", self.message) }
    }
}

/// Adds context to the error of a result.
pub trait Context<T> {
    /// Puts `what: ` in front of the error's message.
    fn context(self, what: impl fmt::Display) -> Result<T>;
    /// The same, made only when there is an error.
    fn with_context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T>;
}

impl<T> Context<T> for Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| e.context(what))
    }
    fn with_context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| e.context(what()))
    }
}

impl<T> Context<T> for std::io::Result<T> {
    fn context(self, what: impl fmt::Display) -> Result<T> {
        self.map_err(|e| Error::io(what, &e))
    }
    fn with_context<D: fmt::Display>(self, what: impl FnOnce() -> D) -> Result<T> {
        self.map_err(|e| Error::io(what(), &e))
    }
}
