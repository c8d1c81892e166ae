//! Who began a pipe is let in, or not: permissions, what its router said, what the chain says.

use super::{
    Node, Output,
    cell::{PipeCell, PipeKind, PipeState},
    control::{Admitted, Verdict},
    output::Event,
    timers::lock,
};
use crate::{
    Code, Name, Now,
    channel::{HandshakeError, responder},
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};

impl<T> Node<T> {
    /// Permissions, before any signature is verified. Who may only be hosted or call is let in for that.
    pub(super) fn check_caller(
        &self,
        caller: Option<&Name>,
        now: Now,
    ) -> Result<(), HandshakeError> {
        if let Some(name) = caller {
            lock(&self.inner.control).check_ban(name, now)?;
        }
        let config = &self.inner.config;
        let router = &config.router;
        match caller {
            None if config.guests || router.guests => Ok(()),
            None => Err(Code::GuestRefused.into()),
            Some(name)
                if config.allow.allows(name)
                    || router.host.allows(name)
                    || router.call.allows(name) =>
            {
                Ok(())
            }
            Some(_) => Err(Code::NotAllowed.into()),
        }
    }

    /// What the router said about the caller. The caller has proved who it is: if they differ, the router lied.
    pub(super) fn check_router(
        &self,
        pipe: &PipeCell<T>,
        caller: Option<&Name>,
        out: &mut Vec<Output<T>>,
    ) -> Result<(), HandshakeError> {
        if let PipeKind::Circuit {
            hop,
            from: Some(Some(said)),
            ..
        } = &pipe.kind
            && Some(said) != caller
        {
            out.push(Output::Event(Event::Misbehaved {
                name: hop.peer.name.clone(),
                code: Code::RouterLied,
            }));
            return Err(Code::RouterLied.into());
        }
        Ok(())
    }

    /// A guest is let in as it is; a name needs its record.
    pub(super) fn ask_admission(
        &self,
        pipe: &Arc<PipeCell<T>>,
        admission: responder::Admission,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) -> Result<(), HandshakeError> {
        let Some(name) = admission.peer().name.clone() else {
            *lock(&pipe.state) = PipeState::Entering {
                held: Vec::new(),
                bytes: 0,
            };
            return self.let_in(pipe, admission, now, out);
        };
        let key = *admission.key();
        // The pipe waits before the chain is asked, so that an answer that comes at once finds it.
        *lock(&pipe.state) = PipeState::Admitting {
            admission: Box::new(admission),
            held: Vec::new(),
            bytes: 0,
        };
        match self.control(now, out, |control| {
            control.admit(pipe.id, &name, &key, pipe.source(), now)
        }) {
            Verdict::Wait => Ok(()),
            Verdict::Admit(admitted) => {
                self.admitted(pipe, Ok(admitted), now, out);
                Ok(())
            }
            Verdict::Refuse(error) => Err(error),
        }
    }

    /// The chain has spoken about the peer that waits at this pipe.
    pub(super) fn admitted(
        &self,
        pipe: &Arc<PipeCell<T>>,
        verdict: Result<Admitted, HandshakeError>,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let admission = {
            let mut state = lock(&pipe.state);
            match core::mem::replace(&mut *state, PipeState::Closed) {
                PipeState::Admitting {
                    admission,
                    held,
                    bytes,
                } => {
                    *state = PipeState::Entering { held, bytes };
                    admission
                }
                other => {
                    *state = other;
                    return;
                }
            }
        };
        let result = verdict.and_then(|admitted| {
            pipe.let_in_for(admitted);
            self.let_in(pipe, *admission, now, out)
        });
        if let Err(error) = result {
            self.refuse(pipe, &error, now, out);
        }
    }

    pub(super) fn let_in(
        &self,
        pipe: &Arc<PipeCell<T>>,
        admission: responder::Admission,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) -> Result<(), HandshakeError> {
        if let Some(ticket) = lock(&self.inner.tickets).get_mut(&pipe.id) {
            lock(&self.inner.control).budgets.admit(ticket)?;
        }
        let mut channel = Some(admission.admit());
        loop {
            let message = {
                let mut state = lock(&pipe.state);
                match &mut *state {
                    PipeState::Entering { held, .. } if !held.is_empty() => held.remove(0),
                    PipeState::Entering { .. } => {
                        *state = channel.take().map_or(PipeState::Attached, |channel| {
                            PipeState::Attaching(Box::new(channel))
                        });
                        return Ok(());
                    }
                    _ => return Ok(()),
                }
            };
            match channel.take() {
                Some(attaching) => {
                    channel = self.attach_peer(pipe, attaching, message, now, out)?;
                }
                None => self.session_message(pipe, message, now, out),
            }
        }
    }
}
