//! Why a name could not be resolved.

use crate::{code::Code, time::Duration};
use alloc::{boxed::Box, string::String};
use core::fmt;

/// A look-up that brought no record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolveError {
    /// What went wrong.
    pub code: Code,
    /// When asking again may help, if that is known.
    pub retry: Option<Duration>,
    /// More for people: which endpoint, which rule. Never needed to decide anything.
    pub detail: Option<Box<str>>,
}

impl ResolveError {
    pub(super) fn new(code: Code) -> Self {
        Self {
            code,
            retry: None,
            detail: None,
        }
    }

    pub(super) fn with(code: Code, detail: impl Into<String>) -> Self {
        Self {
            code,
            retry: None,
            detail: Some(detail.into().into_boxed_str()),
        }
    }

    pub(super) fn after(mut self, retry: Duration) -> Self {
        self.retry = Some(retry);
        self
    }

    /// The code that a remote peer is told: how *our* endpoints fail is none of its business.
    pub const fn for_peer(&self) -> Code {
        match self.code {
            Code::RpcUnreachable
            | Code::RpcStale
            | Code::RpcDisagree
            | Code::RpcInvalid
            | Code::WrongChain
            | Code::NotARegistry => Code::ChainUnavailable,
            code => code,
        }
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code.meaning())?;
        match &self.detail {
            Some(detail) => write!(f, ": {detail}"),
            None => Ok(()),
        }
    }
}

impl core::error::Error for ResolveError {}

/// Why a driver has no answer to a fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FetchFailure {
    /// No connection, refused, reset, blocked by the browser, a TLS error.
    Unreachable,
    /// Nothing came in time.
    Timeout,
    /// An HTTP status other than 200 without a JSON-RPC body.
    Status(u16),
    /// The answer is larger than [`ResolverLimits::answer_bytes`](super::ResolverLimits::answer_bytes).
    TooLarge,
}

impl fmt::Display for FetchFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable => f.write_str("no connection"),
            Self::Timeout => f.write_str("no answer in time"),
            Self::Status(429) => f.write_str("rate limit (HTTP 429)"),
            Self::Status(status) => write!(f, "HTTP {status}"),
            Self::TooLarge => f.write_str("oversized answer"),
        }
    }
}

/// At most this much of a foreign text is shown, in characters.
const FOREIGN_TEXT: usize = 120;

/// A text from outside, fit for a log or a terminal: no control characters, bounded.
pub(super) fn foreign(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(FOREIGN_TEXT)
        .collect()
}
