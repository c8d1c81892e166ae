//! How control plane, sessions and pipes act on each other.

use super::{
    Node,
    cell::{Pipe, PipeCell, PipeKind, PipeState, SessionCell, Taken, Target},
    control::{Action, Control},
    output::{Event, Failure, Incoming, IncomingMessage, IncomingStream, Output, Stream},
    timers::{Due, lock},
};
use crate::{
    Code, Name, Now,
    session::{self, Operation, SessionConfig},
    time::Duration,
    wire::frame::Response,
};
use alloc::{collections::VecDeque, sync::Arc, vec::Vec};
use bytes::Bytes;
use std::sync::MutexGuard;

impl<T> Node<T> {
    // Putting it together.

    pub(super) fn submit(
        &self,
        to: &Name,
        operation: Operation<T>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        self.control(now, out, |control| {
            control.submit(to.clone(), operation, now)
        });
    }

    /// Works on the control plane, then does what it asks for.
    pub(super) fn control<R>(
        &self,
        now: Now,
        out: &mut Vec<Output<T>>,
        work: impl FnOnce(&mut Control<T>) -> R,
    ) -> R {
        let mut control = lock(&self.inner.control);
        let result = work(&mut control);
        self.follow(control, now, out);
        result
    }

    /// Lets go of the control plane, then does what it asks for.
    fn follow(&self, mut control: MutexGuard<'_, Control<T>>, now: Now, out: &mut Vec<Output<T>>) {
        // Mostly it is one, or none: then the queue keeps its memory.
        let first = control.actions.pop_front();
        let rest = if control.actions.is_empty() {
            VecDeque::new()
        } else {
            core::mem::take(&mut control.actions)
        };
        let deadline = control.deadline();
        drop(control);
        self.inner
            .armed
            .arm(&self.inner.timers, Due::Control, deadline);
        if let Some(action) = first {
            self.act(action, now, out);
        }
        for action in rest {
            self.act(action, now, out);
        }
    }

    pub(super) fn act(&self, action: Action<T>, now: Now, out: &mut Vec<Output<T>>) {
        match action {
            Action::Out(output) => out.push(output),
            Action::Dial {
                pipe,
                name,
                key,
                address,
            } => {
                let kind = PipeKind::Socket {
                    group: None,
                    unasked: false,
                };
                let target = Some(Target { name, key });
                let pipe = self.enter_pipe(pipe, kind, target, PipeState::Dialling, now.mono);
                out.push(Output::Dial {
                    pipe: Pipe(pipe),
                    address,
                });
            }
            Action::Circuit {
                pipe,
                hop,
                name,
                key,
            } => self.dial_circuit(pipe, &hop, Target { name, key }, now, out),
            Action::Ask { pipe } => {
                if let Some(pipe) = self.pipe(pipe) {
                    self.ask(&pipe, now, out);
                }
            }
            Action::AbandonPipe { pipe } => {
                if let Some(pipe) = self.pipe(pipe)
                    && pipe.abandon()
                {
                    self.end_pipe(&pipe, Code::Duplicate, None, now, out);
                }
            }
            Action::Perform { cell, operation } => self.perform(&cell, operation, now, out),
            Action::Admit { pipe, verdict } => {
                if let Some(pipe) = self.pipe(pipe) {
                    self.admitted(&pipe, verdict, now, out);
                }
            }
            Action::CloseSession { cell, code } => {
                self.inner.refused.count(code);
                let parked = cell.with(|session| {
                    session.close(code, None);
                    session.is_parked()
                });
                if parked {
                    self.end_session(&cell, code, None, now, out);
                }
            }
            Action::Retire { cell } => cell.with(|session| {
                session.go_away(Duration::ZERO);
                // Once that is answered, the peer has been told, and what it began before has come, or comes at once.
                session.ping(now.mono);
            }),
            Action::Ping { cell } => cell.with(|session| session.ping(now.mono)),
        }
    }

    pub(super) fn perform(
        &self,
        cell: &Arc<SessionCell<T>>,
        operation: Operation<T>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        // One look at the session, for it is the busiest lock: what it does not take comes back.
        let (again, refused) = cell.with(|session| {
            if !session.begins(now.mono) {
                return (Some(operation), None);
            }
            let refused = match operation {
                Operation::Request {
                    token,
                    request,
                    deadline,
                } => session.request(token, request, deadline, now.mono).err(),
                Operation::Message {
                    token,
                    protocol,
                    payload,
                    deadline,
                } => session.message(token, protocol, payload, deadline).err(),
                Operation::Stream {
                    token,
                    protocol,
                    metadata,
                    ..
                } => {
                    let id = session.open_stream(protocol, metadata);
                    let stream = Stream::new(cell.clone(), id);
                    out.push(Output::Opened { token, stream });
                    None
                }
                Operation::Connect { token, .. } => {
                    out.push(Output::Connected { token });
                    None
                }
            };
            (None, refused)
        });
        if let Some(operation) = again {
            return self.control(now, out, |control| control.resubmit(cell, operation, now));
        }
        if let Some((token, code)) = refused {
            out.push(Output::Failed {
                token,
                failure: Failure::new(code),
            });
        }
    }

    /// Passes on what a session has to say.
    pub(super) fn dispatch(
        &self,
        cell: &Arc<SessionCell<T>>,
        events: Vec<session::Event<T>>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        use session::Event as E;
        for event in events {
            match event {
                // Admitted for the circuits that it may call or be called through, and for nothing else.
                E::Request { id, .. } if let Err(code) = self.serves(cell) => {
                    cell.with(|session| session.respond(id, Response::refuse(code)));
                }
                E::Stream(opened) if let Err(code) = self.serves(cell) => {
                    cell.with(|session| session.refuse_stream(opened.id, code));
                }
                E::Message { id, .. } if let Err(code) = self.serves(cell) => {
                    cell.with(|session| session.respond(id, Response::refuse(code)));
                }
                E::Request { id, .. } | E::Message { id, .. }
                    if let Some(wait) = self.too_fast(cell, now) =>
                {
                    let refusal = refuse_for(wait);
                    cell.with(|session| session.respond(id, refusal));
                }
                E::Stream(opened) if self.too_fast(cell, now).is_some() => {
                    cell.with(|session| session.refuse_stream(opened.id, Code::RequestRate));
                }
                E::Answered { token, response } => out.push(Output::Answered { token, response }),
                E::Delivered { token } => out.push(Output::Delivered { token }),
                E::Failed { token, code, cause } => {
                    let failure = Failure {
                        cause,
                        ..Failure::new(code)
                    };
                    out.push(Output::Failed { token, failure });
                }
                E::Request {
                    id,
                    request,
                    deadline,
                } => out.push(Output::Request(Incoming {
                    cell: cell.clone(),
                    id,
                    answered: false,
                    request,
                    deadline,
                })),
                E::Cancelled { id } => out.push(Output::Cancelled {
                    session: cell.id,
                    id,
                }),
                E::Message {
                    id,
                    protocol,
                    payload,
                } => {
                    out.push(Output::Message(IncomingMessage {
                        cell: cell.clone(),
                        id,
                        protocol,
                        payload,
                    }));
                }
                E::Stream(opened) => out.push(Output::Stream(IncomingStream {
                    stream: Some(Stream::new(cell.clone(), opened.id)),
                    protocol: opened.protocol,
                    metadata: opened.metadata,
                })),
                E::Circuit { far, signal } => self.circuit(cell, far, signal, now, out),
                E::CircuitRoom { cid } => {
                    cell.mark_ready(cid);
                    cell.wake();
                }
                E::CircuitOpen {
                    cid,
                    window,
                    hide,
                    to,
                    first,
                } => {
                    self.route(cell, cid, window, hide, &to, first, now, out);
                }
                E::CircuitIncoming { cid, from, first } => {
                    self.circuit_arrived(cell, cid, from, first, now, out)
                }
                E::Attached { instance, agent } => {
                    self.control(now, out, |control| {
                        control.attached(cell.clone(), instance, agent, now)
                    });
                }
                E::RoundTrip(round_trip) => {
                    if let Some(name) = cell.peer.name.clone() {
                        // Every session is asked as soon as it is used: now the peer is known to have it.
                        self.control(now, out, |control| control.begin_waiting(&name));
                        out.push(Output::Event(Event::Latency { name, round_trip }));
                    }
                }
                E::PipeWanted => self.control(now, out, |control| control.pipe_wanted(cell, now)),
                E::Refused(code) => self.inner.refused.count(code),
                E::Grown => self.control(now, out, |control| control.bound_parked(cell)),
                E::Lost(code) => self.lose_session(cell, None, code, now, out),
                E::GoAway(delay) => self.control(now, out, |control| {
                    control.going_away(cell, delay.is_zero(), now)
                }),
                E::Ended { code, retry, .. } => self.end_session(cell, code, retry, now, out),
            }
        }
    }

    /// Ends a session because its peer, or somebody on the way, broke a rule; over which pipe, if a pipe can be at fault.
    pub(super) fn violate(
        &self,
        cell: &Arc<SessionCell<T>>,
        pipe: Option<&PipeCell<T>>,
        code: Code,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        // A record that does not open may be anybody's doing: it ends its pipe, and nothing else. Everything inside an
        // opened record is the peer's.
        if matches!(code, Code::RecordForged | Code::RecordTooLarge) {
            return self.lose_session(cell, pipe, code, now, out);
        }
        if code.fault() == crate::code::Fault::Peer {
            out.push(Output::Event(Event::Misbehaved {
                name: cell.peer.name.clone(),
                code,
            }));
        }
        let blamed = cell.blamed();
        self.end_session(cell, code, None, now, out);
        if let Some(who) = blamed {
            self.control(now, out, |control| control.blame(&who, code, now));
        }
    }

    pub(super) fn end_session(
        &self,
        cell: &Arc<SessionCell<T>>,
        code: Code,
        retry: Option<Duration>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        if lock(&self.inner.sessions).remove(&cell.id).is_none() {
            return;
        }
        let mut events = Vec::new();
        let unsent = cell.with_pipe(|session| session.dissolve(code, &mut events));
        self.dispatch(cell, events, now, out);
        if let Some(pipe) = cell.pipe() {
            self.leave_pipe(&pipe, code, retry, out);
        }
        self.control(now, out, |control| {
            control.session_closed(cell, unsent, code, retry, now)
        });
    }

    /// What is to be sent on a pipe: handshake first, then circuits are topped up, then the session seals a record.
    pub(super) fn transmit(
        &self,
        pipe: &Arc<PipeCell<T>>,
        shared: bool,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) -> Option<Bytes> {
        let mut events = Vec::new();
        let message = self.next_message(pipe, shared, &mut events, now, out);
        if let Some(cell) = pipe.session() {
            self.dispatch(&cell, events, now, out);
        }
        message
    }

    /// The same, leaving to the caller what comes of it: the message has to be on its way before.
    pub(super) fn next_message(
        &self,
        pipe: &Arc<PipeCell<T>>,
        shared: bool,
        events: &mut Vec<session::Event<T>>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) -> Option<Bytes> {
        if let Some(message) = pipe.take_outgoing() {
            return Some(message);
        }
        // What is ready is for the pipe that the session is on: nobody would wake that one again.
        let cell = &pipe.session().filter(|cell| cell.is_on(pipe))?;
        for cid in cell.take_ready() {
            self.fill_circuit(cell, cid, now, out);
        }
        let (on, record) = cell.with_pipe(|session| {
            let on = cell.is_on(pipe);
            (
                on,
                on.then(|| session.poll_transmit(now.mono, shared, events)),
            )
        });
        if !on {
            // It has gone on over another while circuits were filled.
            cell.wake();
        }
        record.flatten().map(bytes::BytesMut::freeze)
    }

    /// Whether the application is there for this peer.
    fn serves(&self, cell: &SessionCell<T>) -> Result<(), Code> {
        let config = &self.inner.config;
        let refusal = match &cell.peer.name {
            None if !config.guests => Code::GuestRefused,
            Some(name) if !config.allow.allows(name) => Code::NotAllowed,
            _ => return Ok(()),
        };
        self.inner.refused.count(refusal);
        Err(refusal)
    }

    /// Whether a stranger asks too fast, and how long it has to wait.
    fn too_fast(&self, cell: &SessionCell<T>, now: Now) -> Option<Duration> {
        let mut taken = cell.take_request(&self.inner.limits, now.mono);
        if matches!(taken, Taken::Unknown) {
            lock(&self.inner.control).bound_rates(cell, now);
            taken = cell.take_request(&self.inner.limits, now.mono);
        }
        let Taken::TooFast(wait) = taken else {
            return None;
        };
        let name = cell.peer.name.as_ref();
        if name.is_some_and(|name| lock(&self.inner.control).is_chosen(name)) {
            cell.set_free();
            return None;
        }
        self.inner.refused.count(Code::RequestRate);
        Some(wait)
    }

    pub(super) fn session(&self, id: u64) -> Option<Arc<SessionCell<T>>> {
        lock(&self.inner.sessions).get(&id).cloned()
    }

    pub(super) fn pipe(&self, id: u64) -> Option<Arc<PipeCell<T>>> {
        lock(&self.inner.pipes).get(&id).cloned()
    }

    pub(super) fn session_config(&self, pipe: &PipeCell<T>, peer: Option<&Name>) -> SessionConfig {
        // Who has no name is nobody's other process: nothing may link its channels, or those that guests hear us on.
        let who = match (peer, &self.inner.config.identity.name) {
            (Some(peer), Some(_)) => peer.to_bytes(),
            _ => pipe.id.to_be_bytes().to_vec(),
        };
        let tag = crate::crypto::hmac(&self.inner.instance_secret, &[b"nectar/1 instance", &who]);
        let mut instance = [0; 16];
        instance.copy_from_slice(&tag[..16]);
        let own: [&[u8]; 2] = [b"nectar/1 session", &pipe.id.to_be_bytes()];
        SessionConfig {
            limits: self.inner.limits.clone(),
            mtu: pipe.mtu(),
            instance,
            agent: self.inner.local.hello.user_agent.as_str().into(),
            secret: crate::crypto::hmac(&self.inner.instance_secret, &own),
        }
    }
}

/// The answer to a stranger that has to wait.
fn refuse_for(wait: Duration) -> Response {
    let code = Code::RequestRate;
    let millis = wait.as_secs() * 1000 + u64::from(wait.subsec_millis()) + 1;
    Response::Error {
        code: code.as_u16(),
        message: alloc::format!("{code}; try again in {millis} ms").into(),
    }
}
