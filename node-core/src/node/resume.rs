//! Sessions from one pipe to the next: parked when theirs is lost, taken up again over another.

use super::{
    Node, Output,
    cell::{Offer, PipeCell, PipeState, SessionCell},
    control::Control,
    pipe::Heard,
    timers::{Due, lock},
};
use crate::{
    Code, Now,
    channel::{Channel, HandshakeError, RECORD},
    session::Resumed,
    wire::frame::{Attach, AttachStatus, Frame, next},
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use bytes::{BufMut, Bytes, BytesMut};

impl<T> Node<T> {
    /// A session's pipe is lost, and nobody said that the session is over: it waits for another pipe if it can. Which pipe
    /// that is (`None`: the one whose silence the session has noticed) is compared under the session's lock, because it
    /// may have gone on over another one meanwhile.
    pub(super) fn lose_session(
        &self,
        cell: &Arc<SessionCell<T>>,
        lost: Option<&PipeCell<T>>,
        code: Code,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) {
        let keeps = lock(&self.inner.control).keeps(cell);
        let mut events = Vec::new();
        let parked = cell.with_pipe(|session| {
            if session.is_parked() || !lost.map_or(session.is_lost(), |pipe| cell.is_on(pipe)) {
                return Ok(None);
            }
            let unsent = keeps.then(|| session.park(code, now.mono, &mut events));
            let unsent = unsent.flatten().ok_or(())?;
            Ok(cell.set_pipe(None).map(|pipe| (unsent, pipe)))
        });
        let (unsent, pipe) = match parked {
            Ok(Some(parked)) => parked,
            Ok(None) => return,
            Err(()) => return self.end_session(cell, code, None, now, out),
        };
        self.leave_pipe(&pipe, code, None, out);
        self.control(now, out, |control| {
            control.session_parked(cell, &pipe, unsent, code, now)
        });
        self.dispatch(cell, events, now, out);
    }

    /// Asks the peer to go on with a session over a channel that we began, or begins one if there is none; nothing while
    /// another route was asked.
    pub(super) fn ask(&self, pipe: &Arc<PipeCell<T>>, now: Now, out: &mut Vec<Output<T>>) {
        let Some(target) = &pipe.target else { return };
        let session = |control: &mut Control<T>| control.session_for(target, pipe.id, now);
        let Ok((cell, within)) = self.control(now, out, session) else {
            return;
        };
        // Held until the pipe is what it will be: the answer may come on another thread, or the pipe may be given up.
        let mut state = lock(&pipe.state);
        let mut channel = match core::mem::replace(&mut *state, PipeState::Closed) {
            PipeState::Held(channel) => channel,
            // Given up, or asked by somebody else.
            other => return *state = other,
        };
        let attach = cell
            .as_ref()
            .and_then(|cell| cell.with_pipe(|session| session.offer(&channel)));
        let (Some(cell), Some(attach)) = (cell, attach) else {
            drop(state);
            return self.begin_session(pipe, *channel, now, out);
        };
        let attempt = attach.attempt;
        send(pipe, &mut channel, &Frame::Attach(Box::new(attach)));
        *state = PipeState::Resuming(Box::new(Offer {
            cell,
            channel: *channel,
            attempt,
        }));
        drop(state);
        self.inner
            .timers
            .arm(now.mono + within, Due::Offer(pipe.id));
    }

    /// The peer's first record on a channel over which we asked to go on.
    pub(super) fn offer_answered(
        &self,
        pipe: &Arc<PipeCell<T>>,
        offer: Offer<T>,
        record: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) -> Result<(), HandshakeError> {
        let Offer {
            cell,
            mut channel,
            attempt,
        } = offer;
        let mut frames = channel
            .open(super::pipe::owned(record))
            .map_err(|error| HandshakeError::from(error.code))?
            .freeze();
        let attach = match next(&mut frames) {
            Ok(Some((_, _, Some(Frame::Attach(attach))))) => attach,
            Ok(Some((_, _, Some(Frame::Close(code, retry))))) => {
                self.end_session(&cell, code, retry, now, out);
                return Err(HandshakeError {
                    retry,
                    ..code.into()
                });
            }
            _ => return Err(Code::AttachRefused.into()),
        };
        match attach.status {
            AttachStatus::Unknown if (attach.sid, attach.attempt) == (cell.sid, attempt) => {
                let name = cell.peer.name.as_ref();
                let unread = name.and_then(|name| lock(&self.inner.control).begins_nothing(name));
                self.end_session(&cell, Code::SessionUnknown, None, now, out);
                if let Some(code) = unread {
                    return Err(code.into());
                }
                self.begin_session(pipe, channel, now, out);
                if let Some(name) = &cell.peer.name {
                    self.control(now, out, |control| control.begins_anew(name, pipe.id));
                }
                Ok(())
            }
            AttachStatus::Fresh | AttachStatus::Unknown => Err(Code::AttachRefused.into()),
            AttachStatus::Resume | AttachStatus::Stale => {
                let proof = (channel, &*attach, Some(attempt));
                self.take_up(pipe, &cell, proof, frames, now, out)
                    .map(|_| ())
            }
        }
    }

    /// A peer asks to go on with a session over a channel that it began. Gives the channel back if the peer has to begin
    /// a new session on it instead.
    pub(super) fn session_presented(
        &self,
        pipe: &Arc<PipeCell<T>>,
        mut channel: Channel,
        attach: &Attach,
        frames: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) -> Result<Option<Channel>, HandshakeError> {
        let found = lock(&self.inner.control).presented(channel.peer(), attach, now.mono);
        match found {
            Ok(Some(cell)) => self.take_up(pipe, &cell, (channel, attach, None), frames, now, out),
            // Once: what follows has to be a new session.
            Ok(None) if channel.sent().records == 0 => {
                let answer = Attach {
                    status: AttachStatus::Unknown,
                    recv_off: 0,
                    send_off: 0,
                    instance: self
                        .session_config(pipe, channel.peer().name.as_ref())
                        .instance,
                    proof: [0; 32],
                    agent: "".into(),
                    ..attach.clone()
                };
                send(pipe, &mut channel, &Frame::Attach(Box::new(answer)));
                Ok(Some(channel))
            }
            Ok(None) => Err(Code::AttachRefused.into()),
            Err(code) => {
                send(pipe, &mut channel, &Frame::Close(code, None));
                Err(code.into())
            }
        }
    }

    /// Lets a session go on over a pipe, if both sides prove that it is theirs: over this channel with this ATTACH, which answers
    /// an attempt of ours or is one of the peer's.
    fn take_up(
        &self,
        pipe: &Arc<PipeCell<T>>,
        cell: &Arc<SessionCell<T>>,
        (channel, attach, attempt): (Channel, &Attach, Option<u32>),
        frames: Bytes,
        now: Now,
        out: &mut Vec<Output<T>>,
    ) -> Result<Option<Channel>, HandshakeError> {
        let mut events = Vec::new();
        let (resumed, former) = cell.with_pipe(|session| {
            let (mtu, now, events) = (pipe.mtu(), now.mono, &mut events);
            let resumed = match attempt {
                Some(attempt) => session.answered(channel, attach, attempt, mtu, now, events),
                None => session.presented(channel, attach, mtu, now, events),
            };
            let former = match resumed {
                Resumed::Done => cell.set_pipe(Some(pipe.clone())),
                _ => None,
            };
            (resumed, former)
        });
        match resumed {
            Resumed::Done => {}
            Resumed::Stale(mut channel, answer) => {
                send(pipe, &mut channel, &Frame::Attach(answer));
                return Err(Code::Duplicate.into());
            }
            Resumed::Refused(code) => return Err(code.into()),
        }
        pipe.attach_to(cell);
        if let Some(former) = former {
            self.leave_pipe(&former, Code::Duplicate, None, out);
        }
        // The circuits of the channel before are over.
        self.dispatch(cell, events, now, out);
        self.control(now, out, |control| control.resumed(cell, pipe, now));
        self.heard(pipe, cell, Heard::Frames(frames), Vec::new(), now, out);
        self.check_pipe(pipe, cell, now, out);
        Ok(None)
    }
}

/// Sends one frame in a record of its own, outside of any session.
fn send<T>(pipe: &PipeCell<T>, channel: &mut Channel, frame: &Frame) {
    let mut record = BytesMut::with_capacity(256);
    record.put_u8(RECORD);
    record.put_slice(&frame.encode());
    if channel.seal(&mut record).is_ok() {
        pipe.send(record.to_vec());
    }
}
