//! Drives a node from a browser's events: one thread, one timer, no waiting.
//!
//! Whatever happens is handed to the node by [`Driver::act`]; what the node wants done is put in line and carried out
//! one by one, so that JavaScript that is called from here may call back in. No borrow of a cell lasts while anything
//! else runs.
//!
//! Wakers carry numbers only. Waking one marks a pipe as having something to send, and one microtask sends for all.

use crate::{
    convert,
    fetch::{Leash, post},
    handlers::Handlers,
    key::DeviceKey,
    pending::{Goal, Pending},
    scope::{Timer, now},
    socket::Socket,
    stream::WasmStream,
};
use bytes::Bytes;
use js_sys::Promise;
use node_core::{
    Code, Instant, Name, Now,
    channel::SignRequest,
    node::{Address, Ban, Event, Failure, Node, Output, PeerState, Pipe, Subject},
    registry::{FetchFailure, FetchId},
    sorted::Map,
    time::Duration,
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Wake, Waker},
};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::spawn_local;

/// What the node knows an operation of ours by.
pub(crate) type Token = u64;

/// How often a socket that has enough is looked at again.
const DRAIN_CHECK: Duration = Duration::from_millis(4);
/// How long last words may take when a node is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a ping may take, finding a route included.
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// A node with everything that it needs of the browser.
pub(crate) struct Driver {
    pub(crate) node: Node<Token>,
    pub(crate) handlers: Handlers,
    pub(crate) allow_private: bool,
    id: u64,
    key: Option<DeviceKey>,
    /// Routers that a guest keeps a connection to; named nodes know theirs from their record.
    guest_routers: Vec<Name>,
    outputs: RefCell<VecDeque<Output<Token>>>,
    settling: Cell<bool>,
    sockets: RefCell<Map<u64, Rc<Socket>>>,
    fetches: RefCell<Map<FetchId, Leash>>,
    pending: RefCell<Map<Token, Pending>>,
    next_token: Cell<Token>,
    /// Pipes that may have something to send.
    woken: RefCell<Vec<u64>>,
    flushing: Cell<bool>,
    timer: Timer,
    armed: Cell<Option<Instant>>,
    drain_timer: Timer,
    deadline_waker: Waker,
    closing: RefCell<Option<Closing>>,
    closed: Cell<bool>,
}

/// Who waits for the node's end, and when it comes at the latest.
struct Closing {
    done: js_sys::Function,
    _timer: Timer,
}

impl Driver {
    /// Takes a node over and starts it. Without a key it is a guest.
    pub(crate) fn start(
        node: Node<Token>,
        key: Option<DeviceKey>,
        guest_routers: Vec<Name>,
        allow_private: bool,
    ) -> Rc<Self> {
        let id = NEXT_DRIVER.with(|next| next.replace(next.get() + 1));
        let driver = Rc::new_cyclic(|weak: &Weak<Self>| {
            let (at_deadline, at_drain) = (weak.clone(), weak.clone());
            Self {
                handlers: Handlers::default(),
                allow_private,
                id,
                key,
                guest_routers,
                outputs: RefCell::default(),
                settling: Cell::new(false),
                sockets: RefCell::default(),
                fetches: RefCell::default(),
                pending: RefCell::default(),
                next_token: Cell::new(1),
                woken: RefCell::default(),
                flushing: Cell::new(false),
                timer: Timer::new(move || with(&at_deadline, Self::timed_out)),
                armed: Cell::new(None),
                drain_timer: Timer::new(move || with(&at_drain, Self::flush)),
                deadline_waker: Arc::new(Woken {
                    driver: id,
                    pipe: None,
                })
                .into(),
                closing: RefCell::new(None),
                closed: Cell::new(false),
                node,
            }
        });
        DRIVERS.with(|drivers| drivers.borrow_mut().push((id, Rc::downgrade(&driver))));
        driver.act(|node, now, out| {
            node.start(now, out);
            for router in &driver.guest_routers {
                node.keep(router, true, None, now, out);
            }
        });
        driver
    }

    /// Lets the node work, and carries out what it asks for.
    pub(crate) fn act<R>(
        self: &Rc<Self>,
        work: impl FnOnce(&Node<Token>, Now, &mut Vec<Output<Token>>) -> R,
    ) -> R {
        let mut out = Vec::new();
        let result = work(&self.node, now(), &mut out);
        self.outputs.borrow_mut().extend(out);
        self.settle();
        result
    }

    /// Begins an operation; the promise is settled by what the node says about its token.
    pub(crate) fn begin(
        self: &Rc<Self>,
        pending: impl FnOnce(Token) -> Pending,
        work: impl FnOnce(&Node<Token>, Token, Now, &mut Vec<Output<Token>>),
    ) -> Promise {
        let token = self.next_token.replace(self.next_token.get() + 1);
        let pending = pending(token);
        let promise = pending.promise();
        if self.is_closed() {
            pending.reject(&convert::plain(Code::NodeClosed));
            return promise;
        }
        self.pending.borrow_mut().insert(token, pending);
        self.act(|node, now, out| work(node, token, now, out));
        promise
    }

    /// Gives an operation up: its promise at once, the work as far as it can still be stopped.
    pub(crate) fn cancel(self: &Rc<Self>, token: Token, peer: &Name) {
        let Some(pending) = self.take_pending(token) else {
            return;
        };
        pending.reject(&convert::plain(Code::Cancelled));
        self.act(|node, now, out| node.cancel(peer, |other| *other == token, now, out));
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.get() || self.closing.borrow().is_some()
    }

    /// Whether a peer is one of our routers.
    pub(crate) fn is_router(&self, name: &Name, flagged: bool) -> bool {
        flagged || self.guest_routers.contains(name)
    }

    /// Tells peers, lets what is queued leave, and ends.
    pub(crate) fn close(self: &Rc<Self>) -> Promise {
        if self.is_closed() {
            return Promise::resolve(&JsValue::UNDEFINED);
        }
        let weak = Rc::downgrade(self);
        let promise = Promise::new(&mut |done, _| {
            let weak = weak.clone();
            let closing = Closing {
                done: done.unchecked_into(),
                _timer: Timer::once(CLOSE_TIMEOUT, move || with(&weak, Self::finish)),
            };
            self.closing.replace(Some(closing));
        });
        self.act(|node, _, _| node.shut_down(Code::Closed, Duration::ZERO));
        self.finish_if_quiet();
        promise
    }

    // What sockets tell.

    pub(crate) fn opened(self: &Rc<Self>, pipe: u64) {
        if let Some(socket) = self.socket(pipe) {
            socket.was_open.set(true);
            self.node.opened(&socket.pipe, socket.unsent());
            self.pump(&socket);
        }
    }

    pub(crate) fn received(self: &Rc<Self>, pipe: u64, message: Vec<u8>) {
        if let Some(socket) = self.socket(pipe) {
            socket.heard.set(true);
            self.act(|node, now, out| {
                node.handle_message(&socket.pipe, Bytes::from(message), now, out);
            });
            // Whoever answers has taken something: a good moment to look whether there is room again.
            if socket.blocked.get() {
                self.pump(&socket);
            }
        }
    }

    /// The other end, or somebody on the way, has closed a socket with this close code.
    pub(crate) fn hung_up(self: &Rc<Self>, pipe: u64, number: u16) {
        if let Some(socket) = self.socket(pipe) {
            self.lost(pipe, socket.said(number));
        }
    }

    pub(crate) fn lost(self: &Rc<Self>, pipe: u64, code: Code) {
        let socket = self.sockets.borrow_mut().remove(&pipe);
        let Some(socket) = socket else { return };
        // Before a socket is open, all that a browser tells is that it did not open.
        let code = match code {
            Code::PipeLost if !socket.was_open.get() => Code::DialFailed,
            code => code,
        };
        self.act(|node, now, out| node.closed(&socket.pipe, code, now, out));
        self.finish_if_quiet();
    }

    // Sending.

    /// A pipe, or the deadline, wants to be looked at.
    fn wake(self: &Rc<Self>, pipe: Option<u64>) {
        self.mark(pipe);
        if !self.flushing.replace(true) {
            let weak = Rc::downgrade(self);
            spawn_local(async move { with(&weak, Self::flush) });
        }
    }

    fn mark(&self, pipe: Option<u64>) {
        let mut woken = self.woken.borrow_mut();
        let new = pipe.filter(|pipe| !woken.contains(pipe));
        woken.extend(new);
    }

    fn flush(self: &Rc<Self>) {
        self.flushing.set(false);
        let woken = self.woken.take();
        for pipe in woken {
            if let Some(socket) = self.socket(pipe) {
                self.pump(&socket);
            }
        }
        self.rearm();
    }

    /// Sends what a pipe has, as far as its socket has room.
    fn pump(self: &Rc<Self>, socket: &Rc<Socket>) {
        while socket.is_open() {
            if !socket.has_room() {
                socket.blocked.set(true);
                self.mark(Some(socket.pipe.id()));
                return self.drain_timer.set(DRAIN_CHECK);
            }
            socket.blocked.set(false);
            if !self.send_one(socket) {
                return;
            }
        }
    }

    /// Sends the next message, if there is one, before anything that comes of it: it may be the last.
    fn send_one(self: &Rc<Self>, socket: &Socket) -> bool {
        let mut out = Vec::new();
        let message = self
            .node
            .poll_transmit(&socket.pipe, &socket.waker, now(), &mut out);
        if let Some(message) = &message {
            socket.send(message);
        }
        self.outputs.borrow_mut().extend(out);
        self.settle();
        message.is_some()
    }

    fn socket(&self, pipe: u64) -> Option<Rc<Socket>> {
        self.sockets.borrow().get(&pipe).cloned()
    }

    // Time.

    fn timed_out(self: &Rc<Self>) {
        self.armed.set(None);
        self.act(|node, now, out| node.handle_timeout(now, out));
    }

    /// Sets the timer if the node's deadline is earlier than it. When it fires early, nothing is due and it is set anew.
    fn rearm(&self) {
        self.node.watch_deadline(&self.deadline_waker);
        let Some(deadline) = self.node.deadline().filter(|_| !self.closed.get()) else {
            return;
        };
        if self.armed.get().is_none_or(|armed| deadline < armed) {
            self.armed.set(Some(deadline));
            self.timer.set(deadline.since(now().mono));
        }
    }

    // What the node wants.

    fn settle(self: &Rc<Self>) {
        if self.settling.replace(true) {
            return;
        }
        loop {
            let Some(output) = self.outputs.borrow_mut().pop_front() else {
                break;
            };
            self.output(output);
        }
        self.settling.set(false);
        self.rearm();
    }

    fn output(self: &Rc<Self>, output: Output<Token>) {
        match output {
            Output::Dial { pipe, address } => self.dial(pipe, &address),
            Output::Close { pipe, code } => self.hang_up(pipe.id(), code),
            Output::Fetch { id, url, body } => self.fetch(id, url, body),
            Output::Sign { pipe, request } => self.sign(pipe, request),
            Output::Answered { token, response } => {
                self.succeed(token, |_| convert::answer(&response));
            }
            Output::Delivered { token } => self.succeed(token, |_| JsValue::UNDEFINED),
            Output::Connected { token } => self.connected(token),
            Output::Opened { token, stream } => self.succeed(token, |goal| match goal {
                Goal::Stream {
                    to,
                    protocol,
                    metadata,
                } => WasmStream::new(stream, Some(to), protocol, metadata).into(),
                // Nobody waits for it: dropping the stream resets it.
                _ => JsValue::UNDEFINED,
            }),
            Output::Resolved { token, result } => {
                if let Some(pending) = self.take_pending(token) {
                    pending.resolved(&self.node, result);
                }
            }
            Output::Failed { token, failure } => self.fail(token, &failure),
            Output::Request(incoming) => self.handlers.request(&self.node, incoming),
            Output::Message(message) => self.handlers.message(&self.node, message),
            Output::Stream(stream) => self.handlers.stream(&self.node, stream),
            // The handler goes on; its answer is dropped by the session.
            Output::Cancelled { .. } => {}
            Output::Event(event) => self.event(event),
        }
    }

    fn dial(self: &Rc<Self>, pipe: Pipe<Token>, address: &Address) {
        let mut entropy = [0; 32];
        if getrandom::fill(&mut entropy).is_ok() {
            self.node.reseed(&entropy);
        }
        let dialled = if self.is_closed() {
            Err(Code::NodeClosed)
        } else {
            Socket::dial(self, pipe.clone(), address)
        };
        match dialled {
            Ok(socket) => {
                self.sockets.borrow_mut().insert(pipe.id(), Rc::new(socket));
            }
            Err(code) => self.act(|node, now, out| node.closed(&pipe, code, now, out)),
        }
    }

    fn hang_up(self: &Rc<Self>, pipe: u64, code: Code) {
        let socket = self.sockets.borrow_mut().remove(&pipe);
        let Some(socket) = socket else { return };
        while socket.is_open() && self.send_one(&socket) {}
        socket.close(code);
        self.finish_if_quiet();
    }

    fn fetch(self: &Rc<Self>, id: FetchId, url: Arc<str>, body: String) {
        let limits = &self.node.config().resolver;
        let limit = limits.answer_bytes;
        let Some(leash) = Leash::new(limits.fetch_timeout) else {
            return self.answered(id, Err(FetchFailure::Unreachable));
        };
        let signal = leash.signal();
        self.fetches.borrow_mut().insert(id, leash);
        let weak = Rc::downgrade(self);
        spawn_local(async move {
            let answer = post(&url, &body, limit, &signal).await;
            with(&weak, |driver| driver.answered(id, answer));
        });
    }

    fn answered(self: &Rc<Self>, id: FetchId, answer: Result<Vec<u8>, FetchFailure>) {
        let leash = self.fetches.borrow_mut().remove(&id);
        drop(leash);
        let answer = answer.as_deref().map_err(|failure| *failure);
        self.act(|node, now, out| node.answered(id, answer, now, out));
    }

    fn sign(self: &Rc<Self>, pipe: Pipe<Token>, request: SignRequest) {
        let key = self.key.clone();
        let weak = Rc::downgrade(self);
        spawn_local(async move {
            let signature = match key {
                Some(key) => key.sign(&request).await,
                None => None,
            };
            with(&weak, |driver| {
                driver.act(|node, now, out| node.signed(&pipe, signature, now, out));
            });
        });
    }

    // Outcomes of operations.

    fn take_pending(&self, token: Token) -> Option<Pending> {
        self.pending.borrow_mut().remove(&token)
    }

    fn succeed(&self, token: Token, value: impl FnOnce(Goal) -> JsValue) {
        if let Some(pending) = self.take_pending(token) {
            pending.resolve(value);
        }
    }

    fn fail(&self, token: Token, failure: &Failure) {
        if let Some(pending) = self.take_pending(token) {
            pending.reject(&convert::failure(failure));
        }
    }

    // Pings: a session first, then a round trip over it.

    /// Measures the round trip to a peer, in milliseconds.
    pub(crate) fn ping(self: &Rc<Self>, to: &Name) -> Promise {
        let weak = Rc::downgrade(self);
        self.begin(
            |token| {
                let late = Timer::once(PING_TIMEOUT, move || {
                    with(&weak, |driver| {
                        driver.fail(token, &Failure::new(Code::Timeout))
                    });
                });
                Pending::new(Goal::Ping(to.clone(), late))
            },
            |node, token, now, out| node.connect(token, to, PING_TIMEOUT, now, out),
        )
    }

    fn connected(self: &Rc<Self>, token: Token) {
        let peer = self
            .pending
            .borrow()
            .get(&token)
            .and_then(Pending::pinged)
            .cloned();
        let Some(peer) = peer else { return };
        if !self.act(|node, now, _| node.ping(&peer, now)) {
            self.fail(token, &Failure::new(Code::Offline));
        }
    }

    fn pinged(&self, peer: &Name) -> Vec<Token> {
        let pending = self.pending.borrow();
        let waits = |(token, pending): (&Token, &Pending)| {
            (pending.pinged() == Some(peer)).then_some(*token)
        };
        pending.iter().filter_map(waits).collect()
    }

    // News.

    fn event(&self, event: Event) {
        let node = &self.node;
        let shown = match &event {
            Event::Peer {
                name,
                router,
                state,
            } => {
                if let PeerState::Offline { reason, .. } = state {
                    for token in self.pinged(name) {
                        self.fail(token, &Failure::offline(*reason));
                    }
                }
                let router = self.is_router(name, *router);
                convert::peer(node, name, router, state, None, true)
            }
            Event::Latency { name, round_trip } => {
                for token in self.pinged(name) {
                    self.succeed(token, |_| convert::millis(*round_trip).into());
                }
                let peers = node.peers(now().mono);
                let Some(peer) = peers.iter().find(|peer| peer.name == *name) else {
                    return;
                };
                let router = self.is_router(name, peer.router);
                convert::peer(node, name, router, &peer.state, Some(*round_trip), true)
            }
            Event::Reachable(online) => {
                convert::identity(if *online { "online" } else { "offline" }, None)
            }
            Event::Identity(Code::Superseded) => convert::identity("superseded", None),
            Event::Identity(code) => convert::identity("offline", Some(*code)),
            Event::Attempt {
                name,
                route,
                result,
                took,
            } => {
                let outcome = match result {
                    Ok(()) => "reached",
                    Err(code) => code.meaning(),
                };
                let (name, route) = (node.display_name(name), convert::route(node, route));
                convert::log(
                    "debug",
                    &format!(
                        "{name} {route}: {outcome} ({} ms)",
                        convert::millis(*took) as u32
                    ),
                )
            }
            Event::RecordChanged(resolved) => {
                let name = node.display_name(&resolved.name);
                let (version, epoch) = (resolved.record.version, resolved.record.epoch);
                convert::log(
                    "info",
                    &format!("{name} changed onchain: version {version}, epoch {epoch}"),
                )
            }
            Event::Banned(Ban {
                subject: Subject::Name(name),
                ..
            }) => {
                let name = node.display_name(name);
                convert::log("warn", &format!("{name} is banned"))
            }
            // A tab accepts no sockets, and nobody lifts its bans.
            Event::Banned(_) | Event::Lifted(_) => return,
            Event::Misbehaved { name, code } => {
                let who = name
                    .as_ref()
                    .map_or_else(|| "a guest".into(), |name| node.display_name(name));
                convert::log("warn", &format!("{who} broke the protocol: {code}"))
            }
        };
        self.handlers.tell(&shown);
    }

    // The end.

    fn finish_if_quiet(self: &Rc<Self>) {
        if self.closing.borrow().is_some() && self.sockets.borrow().is_empty() {
            self.finish();
        }
    }

    fn finish(self: &Rc<Self>) {
        self.closed.set(true);
        let closing = self.closing.take();
        self.release();
        if let Some(closing) = closing {
            // A settled promise cannot throw.
            let _ = closing.done.call0(&JsValue::UNDEFINED);
        }
    }

    /// Drops everything that belongs to the browser. Each collection is taken out first: dropping may call back in.
    fn release(&self) {
        DRIVERS.with(|drivers| drivers.borrow_mut().retain(|(id, _)| *id != self.id));
        let (sockets, fetches) = (self.sockets.take(), self.fetches.take());
        drop((sockets, fetches));
        let pending = self.pending.take();
        for (_, pending) in pending {
            pending.reject(&convert::plain(Code::NodeClosed));
        }
        self.handlers.clear();
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.release();
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// A waker for what a pipe has to send.
pub(crate) fn pipe_waker(driver: &Driver, pipe: u64) -> Waker {
    Arc::new(Woken {
        driver: driver.id,
        pipe: Some(pipe),
    })
    .into()
}

/// Calls a driver that is still there.
fn with(driver: &Weak<Driver>, work: impl FnOnce(&Rc<Driver>)) {
    if let Some(driver) = driver.upgrade() {
        work(&driver);
    }
}

thread_local! {
    static DRIVERS: RefCell<Vec<(u64, Weak<Driver>)>> = const { RefCell::new(Vec::new()) };
    static NEXT_DRIVER: Cell<u64> = const { Cell::new(1) };
}

/// Whom a waker wakes, by numbers, since a waker may go where JavaScript's values may not.
struct Woken {
    driver: u64,
    /// The pipe; none for the deadline.
    pipe: Option<u64>,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let driver = DRIVERS.with(|drivers| {
            let drivers = drivers.borrow();
            let found = drivers.iter().find(|(id, _)| *id == self.driver);
            found.map(|(_, driver)| driver.clone())
        });
        if let Some(driver) = driver {
            with(&driver, |driver| driver.wake(self.pipe));
        }
    }
}
