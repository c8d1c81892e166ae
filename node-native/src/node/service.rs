//! What an application does for its peers: handlers by protocol.

use super::{
    Token,
    driver::{Shared, lock},
    stream::Stream,
};
use bytes::Bytes;
use futures_util::{FutureExt, future::BoxFuture};
use node_core::{Code, Name, node, wire::frame::Response};
use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::task::AbortHandle;

/// A request of a peer's.
#[derive(Clone, Debug)]
pub struct IncomingRequest {
    /// Who asks; `None` for a guest.
    pub from: Option<Name>,
    /// The application protocol it was sent to.
    pub protocol: Box<str>,
    /// Metadata, at most 16 KiB.
    pub metadata: Option<Bytes>,
    /// Payload, at most [`Limits::message_bytes`](node_core::Limits::message_bytes).
    pub payload: Bytes,
    /// How long the peer waits for the answer.
    pub deadline: Duration,
}

/// A message of a peer's.
#[derive(Clone, Debug)]
pub struct IncomingMessage {
    /// Who sends; `None` for a guest.
    pub from: Option<Name>,
    /// The application protocol it was sent to.
    pub protocol: Box<str>,
    /// Payload, at most [`Limits::message_bytes`](node_core::Limits::message_bytes).
    pub payload: Bytes,
}

/// A stream that a peer opened. Dropping it refuses the stream.
#[derive(Debug)]
pub struct IncomingStream(node::IncomingStream<Token>);

impl IncomingStream {
    /// Who opened it; `None` for a guest.
    pub fn from(&self) -> Option<&Name> {
        self.0.from()
    }

    /// The application protocol.
    pub fn protocol(&self) -> &str {
        &self.0.protocol
    }

    /// What the peer sent along; may be empty.
    pub fn metadata(&self) -> &Bytes {
        &self.0.metadata
    }

    /// Takes it: from now on the peer may send a whole window.
    pub fn accept(self) -> Stream {
        Stream::new(self.0.accept())
    }

    /// Refuses it with a code that the peer sees.
    pub fn refuse(self, code: u16) {
        self.0.refuse(code);
    }
}

type RequestHandler = Arc<dyn Fn(IncomingRequest) -> BoxFuture<'static, Response> + Send + Sync>;
type MessageHandler = Arc<dyn Fn(IncomingMessage) -> BoxFuture<'static, ()> + Send + Sync>;
type StreamHandler = Arc<dyn Fn(IncomingStream) -> BoxFuture<'static, ()> + Send + Sync>;

/// Handlers, shared by the configuration that a node starts with and the node.
#[derive(Default)]
pub(super) struct Services {
    handlers: RwLock<Handlers>,
    /// Requests whose handlers are at work, by the core's numbers, to be stopped when nobody waits any more.
    running: Mutex<HashMap<(u64, u64), AbortHandle>>,
}

#[derive(Default)]
struct Handlers {
    requests: HashMap<Box<str>, RequestHandler>,
    messages: HashMap<Box<str>, MessageHandler>,
    streams: HashMap<Box<str>, StreamHandler>,
}

impl Services {
    pub(super) fn serve<F, R>(&self, protocol: &str, handler: F)
    where
        F: Fn(IncomingRequest) -> R + Send + Sync + 'static,
        R: Future<Output = Response> + Send + 'static,
    {
        let handler: RequestHandler = Arc::new(move |request| Box::pin(handler(request)));
        self.change(|handlers| handlers.requests.insert(protocol.into(), handler));
    }

    pub(super) fn on_message<F, R>(&self, protocol: &str, handler: F)
    where
        F: Fn(IncomingMessage) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let handler: MessageHandler = Arc::new(move |message| Box::pin(handler(message)));
        self.change(|handlers| handlers.messages.insert(protocol.into(), handler));
    }

    pub(super) fn serve_stream<F, R>(&self, protocol: &str, handler: F)
    where
        F: Fn(IncomingStream) -> R + Send + Sync + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let handler: StreamHandler = Arc::new(move |stream| Box::pin(handler(stream)));
        self.change(|handlers| handlers.streams.insert(protocol.into(), handler));
    }

    /// Forgets all handlers, and whatever they hold.
    pub(super) fn clear(&self) {
        let handlers = self.change(std::mem::take);
        lock(&self.running).clear();
        // Outside the lock: a handler may own a node, whose end comes back here.
        drop(handlers);
    }

    pub(super) fn request(
        self: &Arc<Self>,
        shared: &Arc<Shared>,
        mut incoming: node::Incoming<Token>,
    ) {
        let handler = self
            .read()
            .requests
            .get(&*incoming.request.protocol)
            .cloned();
        let Some(handler) = handler else {
            incoming.respond(Response::refuse(Code::NoHandler));
            return;
        };
        let request = IncomingRequest {
            from: incoming.from().cloned(),
            protocol: std::mem::take(&mut incoming.request.protocol),
            metadata: incoming.request.metadata.take(),
            payload: std::mem::take(&mut incoming.request.payload),
            deadline: incoming.deadline,
        };
        // Most handlers have their answer at once. Then it leaves with the same write as everything else that came in
        // together, and no task is made. If one panics, dropping `incoming` says that it failed.
        let (mut answer, polled) = match begin(|| handler(request)) {
            Ok(begun) => begun,
            Err(Panicked) => return,
        };
        match polled {
            Poll::Ready(response) => {
                incoming.respond(response);
            }
            Poll::Pending => {
                let key = incoming.key();
                let services = self.clone();
                // Held until the entry is in, so that a handler which is done at once finds it.
                let mut running = lock(&self.running);
                let task = shared.try_spawn(async move {
                    let done = AssertUnwindSafe(&mut answer).catch_unwind().await;
                    lock(&services.running).remove(&key);
                    if let Ok(response) = done {
                        incoming.respond(response);
                    }
                });
                match task {
                    Ok(task) => {
                        running.insert(key, task);
                    }
                    Err(late) => {
                        drop(running);
                        drop(late);
                    }
                }
            }
        }
    }

    /// Nobody waits for this request's answer any more: its handler stops at its next `await`.
    pub(super) fn cancelled(&self, key: (u64, u64)) {
        if let Some(task) = lock(&self.running).remove(&key) {
            task.abort();
        }
    }

    pub(super) fn message(&self, shared: &Arc<Shared>, mut message: node::IncomingMessage<Token>) {
        let handler = self.read().messages.get(&*message.protocol).cloned();
        let Some(handler) = handler else {
            tracing::debug!(protocol = &*message.protocol, "a message for nobody");
            // Nobody takes it, so it must not be confirmed: it is kept until its sender has given up, within the inbox
            // that the sender was granted.
            let patience = shared.node.config().limits.request_deadline;
            shared.spawn(async move {
                tokio::time::sleep(patience).await;
                drop(message);
            });
            return;
        };
        let taken = IncomingMessage {
            from: message.from().cloned(),
            protocol: std::mem::take(&mut message.protocol),
            payload: std::mem::take(&mut message.payload),
        };
        let Ok((mut handled, polled)) = begin(|| handler(taken)) else {
            return;
        };
        if polled.is_ready() {
            return message.taken();
        }
        shared.spawn(async move {
            // Its room in the inbox returns even if the handler panics.
            let _ = AssertUnwindSafe(&mut handled).catch_unwind().await;
            message.taken();
        });
    }

    pub(super) fn stream(&self, shared: &Arc<Shared>, stream: node::IncomingStream<Token>) {
        let handler = self.read().streams.get(&*stream.protocol).cloned();
        match handler {
            Some(handler) => {
                shared.spawn(async move { handler(IncomingStream(stream)).await });
            }
            None => stream.refuse(Code::NoHandler.as_u16()),
        }
    }

    fn read(&self) -> RwLockReadGuard<'_, Handlers> {
        self.handlers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<R>(&self, change: impl FnOnce(&mut Handlers) -> R) -> R {
        change(
            &mut self
                .handlers
                .write()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let handlers = self.read();
        f.debug_struct("Services")
            .field("requests", &handlers.requests.keys())
            .field("messages", &handlers.messages.keys())
            .field("streams", &handlers.streams.keys())
            .finish()
    }
}

struct Panicked;

/// Calls a handler and polls its future once.
fn begin<R>(
    call: impl FnOnce() -> BoxFuture<'static, R>,
) -> Result<(BoxFuture<'static, R>, Poll<R>), Panicked> {
    catch_unwind(AssertUnwindSafe(|| {
        let mut future = call();
        // Whoever polls it next registers a waker of its own.
        let polled = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        (future, polled)
    }))
    .map_err(|_| Panicked)
}
