//! Why something may come to nothing. Every code that may be told has what brings it about; any other is a mistake.

use super::{Life, operations::Asked};
use node_core::{Code, node::Failure, wire::frame::Response};

/// What brings a code about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// Sockets that end, stall and fall silent, nodes that sleep, and whoever is behind these.
    Way,
    /// Processes that end, and others that take their place.
    Process,
    /// Endpoints of the chain that fail, lag behind, or are asked for too much.
    Chain,
    /// A key that was changed, of which not everybody has heard.
    Key,
    /// Limits so small that they are met all the time.
    Limit,
}

const fn origin(code: Code) -> Option<Origin> {
    Some(match code {
        // Of a route: its socket, its circuit, its handshake. Routers that have lost somebody do not know where he is.
        Code::PipeLost
        | Code::HandshakeTimeout
        | Code::KeepaliveTimeout
        | Code::TargetOffline
        | Code::CircuitTimeout
        | Code::CircuitUnknown
        | Code::NoRoute
        | Code::Offline
        // One of two dials gave way to another, which came to nothing.
        | Code::Duplicate
        | Code::Closed
        // Somebody on the way wrote that into a close.
        | Code::RecordForged
        | Code::Superseded
        // All who were behind a router want back at once.
        | Code::CircuitRate
        // The other side has given up the session, which nobody can do but after a trouble: see `excuses.rs`.
        | Code::SessionUnknown => Origin::Way,
        Code::DialFailed | Code::GoingAway => Origin::Process,
        // Only so many look-ups are made for others, and none while all endpoints are down.
        Code::ReadBudget
        | Code::RpcUnreachable
        | Code::ChainUnavailable
        // An endpoint lags behind the blocks of the last two minutes. In those stands all that is registered here.
        | Code::RpcStale
        | Code::RpcDisagree
        | Code::NameUnknown
        | Code::NotHosted => Origin::Chain,
        Code::KeyMismatch | Code::KeyUnconfirmed => Origin::Key,
        // At a node or a router that is full.
        Code::ChannelBudget
        | Code::SourceBudget
        | Code::HalfOpenBudget
        | Code::CircuitLimit
        | Code::TargetBusy
        | Code::Overloaded
        // Between two.
        | Code::QueueFull
        | Code::RequestRate => Origin::Limit,
        _ => return None,
    })
}

/// Whether what was begun may be lost with this word where there is little room: its session was one too many of those that
/// wait, at either side, or found no room anywhere for as long as it is kept. Of a request or a message nothing is said once
/// the session was begun, so that there is nothing to look at.
pub(super) fn is_crowded_out(said: Option<Code>, long: bool) -> bool {
    said.is_none_or(|code| match code {
        Code::Overloaded | Code::SessionUnknown => true,
        code => long && origin(code) == Some(Origin::Way),
    })
}

impl Life {
    /// Whether something can have come to nothing for this reason.
    fn may_be(&self, code: Code) -> bool {
        let temper = &self.temper;
        origin(code).is_some_and(|origin| match origin {
            Origin::Way => true,
            Origin::Process => temper.processes_die,
            Origin::Chain => temper.chain,
            Origin::Key => temper.chain && temper.processes_die,
            Origin::Limit => temper.tight,
        })
    }

    /// Whether this is what somebody is told for whom too much would have to be looked up. Whoever may resume his session all
    /// the same, and begins a new one, hears that the chain is not there.
    pub(super) fn is_spent(&self, code: Code) -> bool {
        self.temper.chain && matches!(code, Code::ReadBudget | Code::ChainUnavailable)
    }

    /// Whether this is what somebody is told who finds no room in peace: there is none, or none for whom is wanted.
    pub(super) fn has_no_room(&self, code: Code) -> bool {
        // A request may have been under way in a session that the other side had no room for, and nobody has to say so.
        let unreached = [
            Code::OutcomeUnknown,
            Code::Timeout,
            Code::SessionUnknown,
            Code::TargetOffline,
            Code::NoRoute,
            Code::Offline,
            Code::PipeLost,
            Code::Closed,
        ];
        self.temper.tight && (origin(code) == Some(Origin::Limit) || unreached.contains(&code))
    }

    /// Whether an operation may fail so.
    pub(super) fn assert_reason(&self, asked: &Asked, failure: &Failure, which: &str) {
        let now = self.now();
        let fine = match failure.code {
            // Whether these are true is looked at elsewhere.
            Code::Cancelled => failure.cause.is_none(),
            Code::OutcomeUnknown => failure.cause.is_none_or(|cause| self.may_be(cause)),
            // Nobody gives up before the time is over.
            Code::Timeout => failure.cause.is_none() && now >= asked.due,
            Code::Offline => failure.cause.is_some_and(|cause| self.may_be(cause)),
            Code::NodeClosed => failure.cause.is_none() && self.leaving == Some(asked.node),
            Code::QueueFull | Code::RequestRate => failure.cause.is_none() && self.temper.tight,
            _ => false,
        };
        assert!(
            fine,
            "at {now:?}, nothing explains that {which} failed: {failure:?}"
        );
    }

    /// Whether a node may answer so in its application's place.
    pub(super) fn assert_refusal(&self, asked: &Asked, refusal: &Response, handled: bool) {
        let is = |code| *refusal == Response::refuse(code);
        let fine = if handled {
            // An answer that has no room is replaced by a word about that.
            is(Code::OutcomeUnknown)
        } else {
            is(Code::QueueFull) || is(Code::RequestRate)
        };
        assert!(
            fine && self.temper.tight,
            "nothing explains that operation {}, {} handled, was refused: {refusal:?}",
            asked.token,
            if handled { "which was" } else { "not" }
        );
    }
}
