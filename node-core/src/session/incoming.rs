//! Requests, messages and answers on their way in: whole in one frame, or put together in memory that was promised.

use super::{
    Event, Request, Session, Violation,
    items::{Assembly, ItemHead, Served},
    numbers::Class,
    sender::Outgoing,
};
use crate::{
    code::{Code, Fault},
    time::Duration,
    wire::frame::{CHARGE, Frame, INLINE, Response, ResponseKind},
};
use alloc::{boxed::Box, vec::Vec};
use bytes::Bytes;

impl<T> Session<T> {
    #[allow(clippy::too_many_arguments, reason = "the fields of one frame")]
    pub(super) fn receive_item(
        &mut self,
        id: u64,
        head: ItemHead,
        is_request: bool,
        total: u32,
        data: Bytes,
        length: usize,
        out: &mut Vec<Event<T>>,
    ) -> Result<(), Violation> {
        self.numbers.claim(id, Class::Item)?;
        let total = self.check_total(total, &data)?;
        let charge = length as u64 + CHARGE;
        self.items.inbox_received += charge;
        if self.items.inbox_received > self.items.inbox_limit {
            return Err(Code::FlowViolated.into());
        }
        let mut served = Served {
            charge,
            promised: 0,
            is_request,
            head: Some(head),
            assembly: None,
            body: None,
            answered: false,
            cancelled: false,
        };
        if data.len() == total {
            self.hand_over(id, served, compact(&data), out);
        } else {
            served.assembly = Some(Box::new(Assembly::new(total)));
            self.items.served.insert(id, served);
            self.items.theirs.waiting.insert(id);
            self.promise();
        }
        Ok(())
    }

    /// A payload comes whole in its first frame or not at all.
    fn check_total(&self, total: u32, data: &Bytes) -> Result<usize, Violation> {
        let total = total as usize;
        if total > self.config.limits.message_bytes {
            return Err(Code::TooLarge.into());
        }
        let expected = if total <= INLINE { total } else { 0 };
        if data.len() == expected {
            Ok(total)
        } else {
            Err(Code::FrameMalformed.into())
        }
    }

    fn hand_over(&mut self, id: u64, mut served: Served, payload: Bytes, out: &mut Vec<Event<T>>) {
        let Some(head) = served.head.take() else {
            return;
        };
        if served.is_request {
            self.items.handling += 1;
            if self.items.handling > self.config.limits.requests {
                self.items.served.insert(id, served);
                self.respond(id, Response::refuse(Code::QueueFull));
                out.push(Event::Refused(Code::QueueFull));
                return;
            }
        }
        out.push(if served.is_request {
            Event::Request {
                id,
                deadline: Duration::from_millis(head.deadline_ms.into()),
                request: Request {
                    protocol: head.protocol,
                    metadata: head.metadata,
                    payload,
                    early: false,
                },
            }
        } else {
            Event::Message {
                id,
                protocol: head.protocol,
                payload,
            }
        });
        self.items.served.insert(id, served);
    }

    pub(super) fn receive_response(
        &mut self,
        id: u64,
        kind: ResponseKind,
        code: u16,
        total: u32,
        data: Bytes,
        out: &mut Vec<Event<T>>,
    ) -> Result<(), Violation> {
        let total = self.check_total(total, &data)?;
        let Some(asked) = self.items.asked.get_mut(&id) else {
            return Ok(self.numbers.check_own(id)?);
        };
        let refusal = kind == ResponseKind::Error && data.len() == total;
        if asked.answer.is_some() || !(asked.is_request || refusal) {
            return Err(Code::FrameUnexpected.into());
        }
        if data.len() == total {
            let response = response(kind, code, compact(&data))?;
            out.extend(self.items.forget_asked(id).map(|asked| {
                let token = asked.token;
                if asked.is_request {
                    Event::Answered { token, response }
                } else {
                    let code = refused(code);
                    Event::Failed {
                        token,
                        code,
                        cause: None,
                    }
                }
            }));
        } else {
            asked.answer = Some(Box::new((Assembly::new(total), kind, code)));
            self.items.answers.waiting.insert(id);
            self.promise();
        }
        Ok(())
    }

    pub(super) fn receive_more(
        &mut self,
        id: u64,
        data: &[u8],
        out: &mut Vec<Event<T>>,
    ) -> Result<(), Violation> {
        let Some(assembly) = self.items.assembly(id) else {
            return Ok(self.numbers.check_used(id)?);
        };
        let Some(whole) = assembly.receive(data) else {
            return Err(Code::FlowViolated.into());
        };
        let Some(payload) = whole else { return Ok(()) };
        if let Some((_, kind, code)) = self
            .items
            .asked
            .get(&id)
            .and_then(|asked| asked.answer.as_deref())
        {
            let response = response(*kind, *code, payload)?;
            out.extend(self.items.forget_asked(id).map(|a| Event::Answered {
                token: a.token,
                response,
            }));
        } else if let Some(mut served) = self.items.served.remove(&id) {
            // What was promised stays so until the application is done with it.
            served.assembly = None;
            self.hand_over(id, served, payload, out);
        }
        self.promise();
        Ok(())
    }

    /// Promises memory to long items, in order, as long as there is some.
    pub(super) fn promise(&mut self) {
        while let Some(&id) = self.items.theirs.waiting.first() {
            let Some(total) = self.grant_assembly(id, self.items.theirs.promised) else {
                break;
            };
            if let Some(served) = self.items.served.get_mut(&id) {
                served.promised = total;
            }
            self.items.theirs.promised += total;
            self.items.theirs.waiting.pop_first();
        }
        while let Some(&id) = self.items.answers.waiting.first() {
            let Some(total) = self.grant_assembly(id, self.items.answers.promised) else {
                break;
            };
            self.items.answers.promised += total;
            self.items.answers.waiting.pop_first();
        }
    }

    /// Lets the peer send a long payload if there is memory for it beside what is promised: its length, or `None`.
    fn grant_assembly(&mut self, id: u64, promised: usize) -> Option<usize> {
        let Some(assembly) = self.items.assembly(id) else {
            return Some(0);
        };
        let total = assembly.total;
        if total > self.config.limits.message_bytes.saturating_sub(promised) {
            return None;
        }
        assembly.granted = true;
        self.sender.push_urgent(Outgoing::new(&Frame::Credit {
            id,
            limit: total as u64,
        }));
        self.dirty = true;
        Some(total)
    }
}

/// Items are kept until the application is done with them; a short one must not keep its whole record alive.
pub(super) fn compact(data: &Bytes) -> Bytes {
    if data.is_empty() {
        Bytes::new()
    } else {
        Bytes::copy_from_slice(data)
    }
}

/// Why a peer does not take a message, as far as that can be its reason.
fn refused(code: u16) -> Code {
    Code::from_u16(code)
        .filter(|code| matches!(code.fault(), Fault::Identity | Fault::Limit))
        .unwrap_or(Code::HandlerFailed)
}

fn response(kind: ResponseKind, code: u16, data: Bytes) -> Result<Response, Violation> {
    match kind {
        ResponseKind::Data => Ok(Response::Success(Some(data))),
        ResponseKind::Empty if data.is_empty() => Ok(Response::Success(None)),
        ResponseKind::Empty => Err(Code::FrameMalformed.into()),
        ResponseKind::Protocol => Ok(Response::Protocol(data)),
        ResponseKind::Error => {
            let message: Box<str> = core::str::from_utf8(&data)
                .map_err(|_| Violation {
                    code: Code::FrameMalformed,
                })?
                .into();
            Ok(Response::Error { code, message })
        }
    }
}
