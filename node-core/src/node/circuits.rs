//! Circuits between sessions, and between a session and the pipe that ends here.

use super::{
    Node, Output,
    cell::{PipeKind, PipeState, SessionCell, code_of},
    timers::lock,
};
use crate::{
    Code, Name, Now,
    session::{Far, Signal},
    time::Duration,
};
use alloc::{sync::Arc, vec::Vec};
use bytes::Bytes;

impl<T> Node<T> {
    /// Hands a circuit's signal to its far end.
    pub(super) fn circuit(
        &self,
        cell: &Arc<SessionCell<T>>,
        far: Far,
        signal: Signal,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        match far {
            Far::Undecided => {}
            Far::Hop { session, cid } => {
                if let Some(other) = self.session(session) {
                    other.with(|session| session.circuit_signal(cid, signal));
                }
            }
            Far::Pipe(id) => {
                let Some(pipe) = self.pipe(id) else { return };
                match signal {
                    Signal::Data(data) => self.pipe_message(&pipe, data, now, out),
                    Signal::Opened { .. } | Signal::Credit { .. } => {
                        if let PipeKind::Circuit { cid, .. } = &pipe.kind
                            && let Some(cid) = cid.get()
                        {
                            cell.mark_ready(*cid);
                            cell.wake();
                        }
                    }
                    Signal::Closed { code, retry_ms } => {
                        let retry = crate::wire::frame::retry(retry_ms);
                        self.end_pipe(&pipe, code_of(code), retry, now, out);
                    }
                }
            }
        }
    }

    /// As a router, takes a caller's circuit on to the session of its target.
    #[allow(clippy::too_many_arguments, reason = "the fields of one frame")]
    pub(super) fn route(
        &self,
        cell: &Arc<SessionCell<T>>,
        cid: u32,
        window: u64,
        hide: bool,
        to: &Name,
        first: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let caller = cell.peer.name.as_ref();
        let limits = &self.inner.limits;
        // It may have gone on over a circuit since that came, and what belonged to the channel before is over: looked at last.
        let nested = cell.over_circuit();
        let open = cell.with_pipe(|session| session.circuit_far(cid)).is_some();
        let refused = if nested && open {
            Err(Code::CircuitNested)
        } else if !cell.with_pipe(|session| session.circuit_opened_in_rate(now.mono)) {
            Err(Code::CircuitRate)
        } else if cell.with_pipe(|session| session.circuits_asked()) > limits.circuits {
            Err(Code::CircuitLimit)
        } else {
            lock(&self.inner.control).hosted(cell, to)
        };
        // Whoever closed it in the record that opened it has paid for it, and the target need not.
        if refused.is_ok() && !open {
            return;
        }
        let brought = refused.and_then(|target| {
            if target.id == cell.id {
                return Err(Code::Myself);
            }
            if cell.with_pipe(|session| session.circuits_to(target.id)) >= limits.circuits_per_pair
            {
                return Err(Code::CircuitLimit);
            }
            let from = if hide { None } else { caller.cloned() };
            let far = Far::Hop {
                session: cell.id,
                cid,
            };
            target
                .with(|session| {
                    if session.is_closing() || session.is_parked() {
                        return Err(Code::TargetOffline);
                    }
                    // Those that have ended but whose last bytes the target does not take count too.
                    if session.circuits_unanswered() >= limits.circuits_unanswered
                        || session.circuits_brought() >= limits.circuits
                        || !session.circuit_brought_in_rate(now.mono)
                    {
                        return Err(Code::TargetBusy);
                    }
                    session
                        .bring_circuit(from, window, first, far, now.mono)
                        .ok_or(Code::CircuitLimit)
                })
                .map(|there| Far::Hop {
                    session: target.id,
                    cid: there,
                })
        });
        match brought {
            Ok(far) => {
                let bound =
                    cell.with(|session| session.bind_circuit(cid, far) && !session.is_ended());
                if !bound
                    && let Far::Hop { session, cid } = far
                    && let Some(target) = self.session(session)
                {
                    target.with(|session| session.close_circuit(cid, Code::PipeLost, None));
                }
            }
            Err(Code::CircuitNested) => self.violate(cell, None, Code::CircuitNested, now, out),
            Err(code) => {
                self.inner.refused.count(code);
                let retry = match code {
                    Code::CircuitRate => Some(Duration::from_secs(1)),
                    Code::TargetBusy | Code::CircuitLimit => Some(Duration::from_secs(5)),
                    _ => None,
                };
                cell.with(|session| session.close_circuit(cid, code, retry));
            }
        }
    }

    /// A circuit has come to us: it is a pipe like any other.
    pub(super) fn circuit_arrived(
        &self,
        cell: &Arc<SessionCell<T>>,
        cid: u32,
        from: Option<Name>,
        first: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        if cell.over_circuit() {
            if cell.with_pipe(|session| session.circuit_far(cid)).is_some() {
                self.violate(cell, None, Code::CircuitNested, now, out);
            }
            return;
        }
        // Until the caller has signed, cost and blame are the router's: it has to be one that we chose.
        let accepted = {
            let mut control = lock(&self.inner.control);
            if !control.is_our_router(cell) {
                drop(control);
                return cell.with(|session| session.close_circuit(cid, Code::NotHosted, None));
            }
            control
                .accept_circuit(cell, from.as_ref())
                .map(|ticket| (control.take_pipe(), ticket))
        };
        let (id, ticket) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                self.inner.refused.count(error.code);
                return cell.with(|session| session.close_circuit(cid, error.code, error.retry));
            }
        };
        lock(&self.inner.tickets).insert(id, ticket);
        let number = std::sync::OnceLock::new();
        let _ = number.set(cid);
        let kind = PipeKind::Circuit {
            hop: cell.clone(),
            cid: number,
            from: Some(from),
        };
        let pipe = self.enter_pipe(id, kind, None, PipeState::Accepted, now.mono);
        if !cell.with(|session| session.bind_circuit(cid, Far::Pipe(id))) {
            return self.end_pipe(&pipe, Code::PipeLost, None, now, out);
        }
        self.pipe_message(&pipe, first, now, out);
    }

    /// Hands what a pipe over a circuit has to say to the session that carries it, one message at a time.
    pub(super) fn fill_circuit(
        &self,
        hop: &Arc<SessionCell<T>>,
        cid: u32,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let (room, far, shared) = hop.with_pipe(|session| {
            (
                session.circuit_room(cid),
                session.circuit_far(cid),
                session.circuits() > 1,
            )
        });
        let Some(Far::Pipe(id)) = far else { return };
        if !room {
            return;
        }
        let Some(pipe) = self.pipe(id) else { return };
        let mut events = Vec::new();
        if let Some(message) = self.next_message(&pipe, shared, &mut events, now, out) {
            hop.with_pipe(|session| session.send_circuit(cid, message));
        }
        // A last word may end the circuit that it goes over.
        if let Some(cell) = pipe.session() {
            self.dispatch(&cell, events, now, out);
        }
    }
}
