//! A pipe's life: dialled or accepted, authenticated, attached to a session, ended.

use super::{
    Node, Output,
    cell::{Pipe, PipeCell, PipeKind, PipeState, SessionCell, Target},
    timers::{Due, lock},
};
use crate::{
    Code, Now,
    channel::{Channel, HandshakeError, Reject, initiator, responder},
    session::{Event, Session, Violation},
    time::{Duration, Instant},
    wire::frame::{AttachStatus, Frame, next},
};
use alloc::{sync::Arc, vec::Vec};
use bytes::{Bytes, BytesMut};
use core::sync::atomic::Ordering;

impl<T> Node<T> {
    pub(super) fn enter_pipe(
        &self,
        id: u64,
        kind: PipeKind<T>,
        target: Option<Target>,
        state: PipeState<T>,
        now: Instant,
    ) -> Arc<PipeCell<T>> {
        let pipe = Arc::new(PipeCell::new(id, kind, target, state));
        lock(&self.inner.pipes).insert(id, pipe.clone());
        self.inner
            .timers
            .arm(now + self.inner.limits.handshake_timeout, Due::Pipe(id));
        pipe
    }

    /// Begins the handshake on a socket that is being opened: message 1.
    pub(super) fn begin_handshake(&self, pipe: &PipeCell<T>) -> Option<Bytes> {
        let target = pipe.target.as_ref()?;
        let mut state = lock(&pipe.state);
        if !matches!(*state, PipeState::Dialling) {
            return None;
        }
        let (next, message) = self.shake(target);
        *state = PipeState::Sent1(next.into());
        Some(message.into())
    }

    /// Begins a pipe over a circuit: message 1 rides in the circuit's opening.
    pub(super) fn dial_circuit(
        &self,
        id: u64,
        hop: &Arc<SessionCell<T>>,
        target: Target,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let (next, message) = self.shake(&target);
        let name = target.name.clone();
        let kind = PipeKind::Circuit {
            hop: hop.clone(),
            cid: std::sync::OnceLock::new(),
            from: None,
        };
        let pipe = self.enter_pipe(
            id,
            kind,
            Some(target),
            PipeState::Sent1(next.into()),
            now.mono,
        );
        let hide = self.inner.config.hide_caller;
        let cid = hop.with(|session| {
            // It may have gone on over a circuit since it was chosen.
            if session.is_ended() || hop.over_circuit() {
                None
            } else {
                session.open_circuit(name, hide, message.into(), id, now.mono)
            }
        });
        match (cid, &pipe.kind) {
            (Some(number), PipeKind::Circuit { cid, .. }) => {
                let _ = cid.set(number);
                // The circuit's answer may have come on another thread before its number stood here; what that left to
                // be sent has woken nobody, and what ended the pipe could not end the circuit.
                pipe.wake();
                if self.pipe(id).is_none() {
                    hop.with(|session| session.close_circuit(number, Code::Closed, None));
                }
            }
            _ => self.end_pipe(&pipe, Code::PipeLost, None, now, out),
        }
    }

    fn shake(&self, target: &Target) -> (initiator::AwaitMessage2, Vec<u8>) {
        let seed = lock(&self.inner.control).seeds.next();
        initiator::start(
            self.inner.local.clone(),
            target.name.clone(),
            target.key,
            seed,
        )
    }

    pub(super) fn pipe_message(
        &self,
        pipe: &Arc<PipeCell<T>>,
        message: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let entering = matches!(*lock(&pipe.state), PipeState::Entering { .. });
        if pipe.has_session() && !entering {
            return self.session_message(pipe, message, now, out);
        }
        if let Err(error) = self.handshake_message(pipe, message, now, out) {
            self.refuse(pipe, &error, now, out);
        }
    }

    pub(super) fn session_message(
        &self,
        pipe: &Arc<PipeCell<T>>,
        message: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        // What comes over a pipe that its session has left is nobody's: it may be forged, a refusal in clear above all.
        if let Some(cell) = pipe.session().filter(|cell| cell.is_on(pipe)) {
            // A responder that does not admit us says so where its first record is expected.
            if let Some(reject) = Reject::parse(&message)
                && pipe.target.is_some()
                && !cell.with_pipe(|session| session.is_attached())
            {
                let error = rejected(&reject);
                return self.end_session(&cell, error.code, error.retry, now, out);
            }
            self.heard(pipe, &cell, Heard::Record(message), Vec::new(), now, out);
        }
    }

    /// What came over a pipe for the session that it carries. The session may have gone on over another one by now: what it lacks
    /// is said again there.
    pub(super) fn heard(
        &self,
        pipe: &PipeCell<T>,
        cell: &Arc<SessionCell<T>>,
        heard: Heard,
        mut events: Vec<Event<T>>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let handled = cell.with(|session| {
            if !cell.is_on(pipe) || session.is_ended() {
                return Ok(());
            }
            match heard {
                Heard::Record(record) => {
                    session.handle_record(owned(record), now.mono, &mut events)
                }
                Heard::Frames(frames) => session.handle_frames(frames, now.mono, &mut events),
            }
        });
        self.dispatch(cell, events, now, out);
        if let Err(Violation { code }) = handled {
            self.violate(cell, Some(pipe), code, now, out);
        }
    }

    fn handshake_message(
        &self,
        pipe: &Arc<PipeCell<T>>,
        message: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) -> Result<(), HandshakeError> {
        let state = {
            // What waits for somebody else's answer stays where that finds it.
            let mut state = lock(&pipe.state);
            if let PipeState::Admitting { held, bytes, .. } | PipeState::Entering { held, bytes } =
                &mut *state
            {
                *bytes += message.len() + HELD_CHARGE;
                if *bytes > self.inner.limits.held_before_admission {
                    return Err(Code::FlowViolated.into());
                }
                // A slice of what was read would keep all of that.
                held.push(Bytes::copy_from_slice(&message));
                return Ok(());
            }
            core::mem::replace(&mut *state, PipeState::Closed)
        };
        match state {
            PipeState::Accepted => {
                let seed = {
                    let mut control = lock(&self.inner.control);
                    control.charge_handshake(pipe.source(), now)?;
                    control.seeds.next()
                };
                let signing = responder::start(self.inner.local.clone(), &message, seed, now.wall)?;
                let request = *signing.request();
                *lock(&pipe.state) = PipeState::Signing2(signing.into());
                out.push(Output::Sign {
                    pipe: Pipe(pipe.clone()),
                    request,
                });
            }
            PipeState::Sent1(state) => {
                if let Some(reject) = Reject::parse(&message) {
                    return Err(rejected(&reject));
                }
                let signing = state.handle(&message, now.wall)?;
                match signing.request().cloned() {
                    Some(request) => {
                        *lock(&pipe.state) = PipeState::Signing3(signing.into());
                        out.push(Output::Sign {
                            pipe: Pipe(pipe.clone()),
                            request,
                        });
                    }
                    None => self.finish_initiator(pipe, signing, None, now, out)?,
                }
            }
            PipeState::Sent2(state) => {
                let claimed = state.handle(&message, now.wall)?;
                let caller = claimed.peer().name.clone();
                self.check_caller(caller.as_ref(), now)?;
                let admission = claimed.verify()?;
                self.check_router(pipe, caller.as_ref(), out)?;
                self.ask_admission(pipe, admission, now, out)?;
            }
            PipeState::Attaching(channel) => {
                if let Some(channel) = self.attach_peer(pipe, *channel, message, now, out)? {
                    *lock(&pipe.state) = PipeState::Attaching(channel.into());
                }
            }
            PipeState::Resuming(offer) => {
                if let Some(reject) = Reject::parse(&message) {
                    return Err(rejected(&reject));
                }
                self.offer_answered(pipe, *offer, message, now, out)?;
            }
            PipeState::Held(_) => {
                let code = Code::AttachRefused;
                return Err(Reject::parse(&message).map_or(code.into(), |reject| rejected(&reject)));
            }
            PipeState::Signing2(_) | PipeState::Signing3(_) | PipeState::Dialling => {
                return Err(Code::Malformed.into());
            }
            state @ PipeState::Attached => *lock(&pipe.state) = state,
            PipeState::Admitting { .. } | PipeState::Entering { .. } | PipeState::Closed => {}
        }
        Ok(())
    }

    pub(super) fn pipe_signed(
        &self,
        pipe: &Arc<PipeCell<T>>,
        signature: Option<[u8; 64]>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let state = core::mem::replace(&mut *lock(&pipe.state), PipeState::Closed);
        let result = match (state, signature) {
            (PipeState::Signing2(signing), Some(signature)) => {
                signing.signed(signature).map(|(message, next)| {
                    *lock(&pipe.state) = PipeState::Sent2(next.into());
                    pipe.send(message);
                })
            }
            (PipeState::Signing3(signing), Some(signature)) => {
                self.finish_initiator(pipe, *signing, Some(signature), now, out)
            }
            (PipeState::Signing2(_) | PipeState::Signing3(_), None) => {
                Err(Code::SignerFailed.into())
            }
            (other, _) => {
                *lock(&pipe.state) = other;
                Ok(())
            }
        };
        if let Err(error) = result {
            self.refuse(pipe, &error, now, out);
        }
    }

    /// Sends message 3. Our ATTACH follows at once.
    fn finish_initiator(
        &self,
        pipe: &Arc<PipeCell<T>>,
        signing: initiator::AwaitSignature,
        signature: Option<[u8; 64]>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) -> Result<(), HandshakeError> {
        let (message, channel) = signing.signed(signature)?;
        pipe.send(message);
        *lock(&pipe.state) = PipeState::Held(channel.into());
        if pipe.is_unwanted() {
            return Err(Code::Duplicate.into());
        }
        self.ask(pipe, now, out);
        Ok(())
    }

    /// Begins a new session on a channel that we began.
    pub(super) fn begin_session(
        &self,
        pipe: &Arc<PipeCell<T>>,
        channel: Channel,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let config = self.session_config(pipe, channel.peer().name.as_ref());
        let peer = channel.peer().clone();
        let cell = self.enter_session(pipe, peer, Session::begin(channel, config, now.mono));
        let early = self.control(now, out, |control| control.take_early(&cell, now));
        if !early.is_empty() {
            cell.with_pipe(Session::speak_early);
        }
        for operation in early {
            self.perform(&cell, operation, now, out);
        }
        cell.with(|_| ());
        self.check_pipe(pipe, &cell, now, out);
    }

    /// What ended a pipe while its handshake was finished could not end the session on it.
    pub(super) fn check_pipe(
        &self,
        pipe: &Arc<PipeCell<T>>,
        cell: &Arc<SessionCell<T>>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        if self.pipe(pipe.id).is_none() {
            self.lose_session(cell, Some(pipe), Code::PipeLost, now, out);
        }
    }

    /// The first record on a channel that we accepted: its first frame says which session it attaches.
    pub(super) fn attach_peer(
        &self,
        pipe: &Arc<PipeCell<T>>,
        mut channel: Channel,
        record: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) -> Result<Option<Channel>, HandshakeError> {
        let mut frames = channel
            .open(owned(record))
            .map_err(|error| HandshakeError::from(error.code))?
            .freeze();
        let attach = match next(&mut frames) {
            Ok(Some((_, _, Some(Frame::Attach(attach))))) => attach,
            _ => return Err(Code::AttachRefused.into()),
        };
        if attach.status == AttachStatus::Resume {
            return self.session_presented(pipe, channel, &attach, frames, now, out);
        }
        if pipe.begins_nothing() {
            return Err(Code::ChainUnavailable.into());
        }
        let config = self.session_config(pipe, channel.peer().name.as_ref());
        let peer = channel.peer().clone();
        let mut events = Vec::new();
        let session = Session::accept(channel, config, &attach, now.mono, &mut events)
            .map_err(|violation| HandshakeError::from(violation.code))?;
        let cell = self.enter_session(pipe, peer, session);
        self.heard(pipe, &cell, Heard::Frames(frames), events, now, out);
        self.check_pipe(pipe, &cell, now, out);
        Ok(None)
    }

    fn enter_session(
        &self,
        pipe: &Arc<PipeCell<T>>,
        peer: crate::channel::Peer,
        session: Session<T>,
    ) -> Arc<SessionCell<T>> {
        let id = self.inner.next_session.fetch_add(1, Ordering::Relaxed);
        let cell = Arc::new(SessionCell::new(
            id,
            peer,
            pipe.clone(),
            self.inner.timers.clone(),
            session,
        ));
        lock(&self.inner.sessions).insert(id, cell.clone());
        pipe.attach_to(&cell);
        cell
    }

    /// Ends a handshake. The peer is told where that helps it and nobody else.
    pub(super) fn refuse(
        &self,
        pipe: &Arc<PipeCell<T>>,
        error: &HandshakeError,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        if pipe.target.is_none() {
            self.inner.refused.count(error.code);
            if let Some(reject) = error.reject() {
                pipe.send(reject.to_bytes().to_vec());
            }
        }
        // Nobody has proved anything, so it counts against the addresses that it came from.
        if let Some(source) = pipe.blamed() {
            self.control(now, out, |control| control.blame(&source, error.code, now));
        }
        self.end_pipe(pipe, error.code, error.retry, now, out);
    }

    /// Ends a pipe and whatever runs on it.
    pub(super) fn end_pipe(
        &self,
        pipe: &Arc<PipeCell<T>>,
        code: Code,
        retry: Option<Duration>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        // Whoever ends a pipe is not the peer: it cannot say that our name lives elsewhere, nor that the peer's has been sold,
        // nor when to come back.
        if pipe.has_session() {
            let code = match code {
                Code::Superseded | Code::EpochChanged => Code::PipeLost,
                code => code,
            };
            if let Some(cell) = pipe.session() {
                self.lose_session(&cell, Some(pipe), code, now, out);
            }
            // The session may have gone on over another.
            self.leave_pipe(pipe, code, None, out);
            return;
        }
        if !self.leave_pipe(pipe, code, retry, out) {
            return;
        }
        if let Some(target) = &pipe.target {
            let name = target.name.clone();
            self.control(now, out, |control| {
                control.attempt_failed(&name, pipe.id, code, retry, now)
            });
        }
    }

    /// Takes a pipe out of the node. False when it was out already.
    pub(super) fn leave_pipe(
        &self,
        pipe: &Arc<PipeCell<T>>,
        code: Code,
        retry: Option<Duration>,
        out: &mut Vec<Output<T>>,
    ) -> bool {
        if lock(&self.inner.pipes).remove(&pipe.id).is_none() {
            return false;
        }
        *lock(&pipe.state) = PipeState::Closed;
        if let Some(ticket) = lock(&self.inner.tickets).remove(&pipe.id) {
            lock(&self.inner.control).budgets.close(&ticket);
        }
        match &pipe.kind {
            PipeKind::Socket { .. } => out.push(Output::Close {
                pipe: Pipe(pipe.clone()),
                code,
            }),
            PipeKind::Circuit { hop, cid, .. } => {
                if let Some(cid) = cid.get() {
                    let last = pipe.take_outgoing();
                    hop.with(|session| {
                        if let Some(message) = last {
                            session.send_circuit(*cid, message);
                        }
                        session.close_circuit(*cid, code, retry);
                    });
                }
            }
        }
        true
    }
}

/// Charged for every message that is held, beyond its bytes.
const HELD_CHARGE: usize = 64;

/// What a refusal means here. Nobody has proved it: it only moves us on to the next route, and cannot say that our name
/// lives elsewhere.
fn rejected(reject: &Reject) -> HandshakeError {
    HandshakeError {
        code: match reject.code {
            None => Code::Closed,
            Some(Code::Superseded) => Code::PipeLost,
            Some(code) => code,
        },
        retry: (reject.retry > Duration::ZERO).then_some(reject.retry),
        skew_ms: None,
    }
}

/// What comes over a pipe for a session.
pub(super) enum Heard {
    Record(Bytes),
    /// What followed ATTACH in its record.
    Frames(Bytes),
}

/// The message as a buffer that can be opened in place; copied only when somebody else still reads it.
pub(super) fn owned(message: Bytes) -> BytesMut {
    message
        .try_into_mut()
        .unwrap_or_else(|shared| BytesMut::from(&shared[..]))
}
