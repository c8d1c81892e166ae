//! Operations under way: what the core hands back, and what callers wait for.

use super::{NodeError, driver::Shared};
use node_core::{
    Code, Name, node,
    registry::{ResolveError, Resolved},
    wire::frame::Response,
};
use std::{
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::{Context, Poll},
};
use tokio::sync::oneshot;

/// What the core hands back with an outcome.
#[derive(Debug)]
pub(super) struct Token {
    pub(super) id: u64,
    waiter: Waiter,
}

/// Who waits. A caller that no longer does makes sending fail, which is as it should be.
#[derive(Debug)]
pub(super) enum Waiter {
    Response(oneshot::Sender<Result<Response, NodeError>>),
    Stream(oneshot::Sender<Result<node::Stream<Token>, NodeError>>),
    Record(oneshot::Sender<Result<Resolved, ResolveError>>),
    Done(oneshot::Sender<Result<(), NodeError>>),
}

impl Token {
    pub(super) fn answered(self, response: Response) {
        if let Waiter::Response(waiter) = self.waiter {
            let _ = waiter.send(Ok(response));
        }
    }

    pub(super) fn done(self) {
        if let Waiter::Done(waiter) = self.waiter {
            let _ = waiter.send(Ok(()));
        }
    }

    pub(super) fn opened(self, stream: node::Stream<Self>) {
        if let Waiter::Stream(waiter) = self.waiter {
            let _ = waiter.send(Ok(stream));
        }
    }

    pub(super) fn resolved(self, result: Result<Resolved, ResolveError>) {
        if let Waiter::Record(waiter) = self.waiter {
            let _ = waiter.send(result);
        }
    }

    pub(super) fn failed(self, failure: NodeError) {
        match self.waiter {
            Waiter::Response(waiter) => {
                let _ = waiter.send(Err(failure));
            }
            Waiter::Stream(waiter) => {
                let _ = waiter.send(Err(failure));
            }
            Waiter::Done(waiter) => {
                let _ = waiter.send(Err(failure));
            }
            // A look-up fails as `Resolved`; without its sender its caller sees that the node is closed.
            Waiter::Record(_) => {}
        }
    }
}

/// Waits for an outcome. Dropped before it has come, it cancels the operation.
pub(super) struct Operation<'a, R> {
    shared: &'a Arc<Shared>,
    /// With whom, for cancelling; `None` for what is not worth it.
    to: Option<&'a Name>,
    id: u64,
    outcome: oneshot::Receiver<R>,
    over: bool,
}

impl<'a, R> Operation<'a, R> {
    /// Hands the core a new token with `begin`.
    pub(super) fn begin(
        shared: &'a Arc<Shared>,
        to: Option<&'a Name>,
        waiter: impl FnOnce(oneshot::Sender<R>) -> Waiter,
        begin: impl FnOnce(Token, node_core::Now, &mut Vec<node::Output<Token>>),
    ) -> Self {
        let id = shared.next_token.fetch_add(1, Ordering::Relaxed);
        let (sender, outcome) = oneshot::channel();
        let mut over = shared.closing.load(Ordering::SeqCst);
        if !over {
            let token = Token {
                id,
                waiter: waiter(sender),
            };
            let mut out = Vec::new();
            begin(token, shared.clock.now(), &mut out);
            shared.carry_out(&mut out);
            // Closing may have begun in between, and have looked for waiting operations before this one came.
            over = shared.closing.load(Ordering::SeqCst);
        }
        Self {
            shared,
            to,
            id,
            outcome,
            over,
        }
    }
}

impl<R> Future for Operation<'_, R> {
    type Output = Result<R, NodeError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(Err(NodeError::new(Code::NodeClosed)));
        }
        let outcome = std::task::ready!(Pin::new(&mut this.outcome).poll(cx));
        this.over = true;
        Poll::Ready(outcome.map_err(|_| NodeError::new(Code::NodeClosed)))
    }
}

impl<R> Drop for Operation<'_, R> {
    fn drop(&mut self) {
        if !self.over
            && let Some(to) = self.to
        {
            self.shared.cancel(to, self.id);
        }
    }
}
