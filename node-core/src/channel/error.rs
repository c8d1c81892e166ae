//! What can go wrong, and who is told.

use super::Reject;
use crate::{Code, code::Fault, time::Duration};

/// Why a handshake ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}")]
pub struct HandshakeError {
    /// What went wrong.
    pub code: Code,
    /// When another attempt may succeed.
    pub retry: Option<Duration>,
    /// For [`Code::ClockSkew`]: the peer's clock minus ours, in milliseconds.
    pub skew_ms: Option<i64>,
}

impl HandshakeError {
    /// An error that says no more than its code.
    pub const fn new(code: Code) -> Self {
        Self {
            code,
            retry: None,
            skew_ms: None,
        }
    }

    /// The error with the time after which to try again.
    pub const fn after(code: Code, retry: Duration) -> Self {
        Self {
            code,
            retry: Some(retry),
            skew_ms: None,
        }
    }

    /// Whose fault it is, seen from here. It is not proof: see the [module](super).
    pub const fn fault(&self) -> Fault {
        self.code.fault()
    }

    /// What a responder tells the initiator before it closes; `None` for what only an attacker, a broken implementation or
    /// our own side brings about. That is closed without a word, so that nobody learns how far a forgery came.
    ///
    /// An initiator tells nothing: until message 3 the responder does not know who calls.
    pub fn reject(&self) -> Option<Reject> {
        match self.code {
            Code::Malformed
            | Code::Downgrade
            | Code::DecryptFailed
            | Code::BadSignature
            | Code::WeakKey
            | Code::Myself
            | Code::SignerFailed
            | Code::InvalidArgument
            | Code::HandshakeTimeout => None,
            code => Some(Reject::new(code, self.retry)),
        }
    }
}

impl From<Code> for HandshakeError {
    fn from(code: Code) -> Self {
        Self::new(code)
    }
}

/// Why a record was not sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}")]
pub struct RecordError {
    /// What went wrong.
    pub code: Code,
}

impl RecordError {
    pub(super) const fn new(code: Code) -> Self {
        Self { code }
    }

    /// Whether the peer itself did it, as its keys prove. Anything else may be somebody's on the path: it ends the pipe,
    /// and counts against nobody.
    pub const fn is_proven(&self) -> bool {
        matches!(self.code, Code::RekeyOverdue)
    }
}
