//! Circuits over one channel: numbered pipes to or from others, each bounded by the credit it was given.

use super::{
    CIRCUIT_MTU, Event, Session, Violation,
    keepalive::{CONTROL_BURST, CONTROL_PER_SECOND},
    sender::{Bulk, write_circuit},
};
use crate::{
    Code, Name,
    sorted::Map,
    time::{Duration, Instant},
    wire::frame::{CHARGE, Frame, retry_ms},
};
use alloc::{collections::VecDeque, vec::Vec};
use bytes::{Bytes, BytesMut};

/// Circuits that a router brings to one peer in a second, and at once: half of the frames that the peer lets us send for
/// nothing, and a quarter, as what waited in sockets comes at once as well.
pub(super) const BROUGHT_PER_SECOND: u64 = CONTROL_PER_SECOND / 2;
pub(super) const BROUGHT_BURST: u32 = CONTROL_BURST / 4;

/// Circuits that are brought to a peer before it is asked whether it has seen them, and again before it has answered: what
/// lies in sockets must not break its rate when it comes all at once. 50; worst case twice as many on their way.
const UNSEEN: u32 = BROUGHT_BURST / 2;

/// Channel frames that wait for a peer to which no more circuits are brought. 128; worst case 320 KiB per session.
const OPENINGS_QUEUED: usize = 128;

/// What lies behind a circuit on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Far {
    /// Nobody yet: the node has to decide.
    Undecided,
    /// It ends here, as this pipe.
    Pipe(u64),
    /// It goes on as circuit `cid` of session `session`.
    Hop {
        /// The other session.
        session: u64,
        /// The circuit's number there.
        cid: u32,
    },
}

/// What happens on a circuit, for whoever is at its far end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The target takes it and accepts this many bytes.
    Opened {
        /// Absolute limit.
        limit: u64,
    },
    /// One message.
    Data(Bytes),
    /// The far end may now send up to this much in total.
    Credit {
        /// Absolute limit.
        limit: u64,
    },
    /// It ended.
    Closed {
        /// Why.
        code: u16,
        /// When to try again; 0 for unsaid.
        retry_ms: u32,
    },
}

impl<T> Session<T> {
    /// Asks the peer, a router, for a circuit to `to`. `None` once this channel has no numbers left.
    pub fn open_circuit(
        &mut self,
        to: Name,
        hide: bool,
        first: Bytes,
        pipe: u64,
        now: Instant,
    ) -> Option<u32> {
        let window = self.window_of_end();
        self.channel.as_ref()?;
        let cid = self
            .circuits
            .insert(Circuit::new(Far::Pipe(pipe), 0, window))?;
        self.unanswered.push_back((now, cid));
        self.sender.push_control(&Frame::Open {
            cid,
            window,
            hide,
            to,
            first,
        });
        self.dirty = true;
        Some(cid)
    }

    /// What an end of a circuit grants. It handles at once what comes, so that none of this is held here; a router keeps to its
    /// own window however much that is. More of it than a router's window is on its way in sockets.
    fn window_of_end(&self) -> u64 {
        self.config.limits.circuit_window.saturating_mul(4)
    }

    /// As a router, brings the peer a circuit from another session's circuit. What the caller accepts is `window`.
    pub fn bring_circuit(
        &mut self,
        from: Option<Name>,
        window: u64,
        first: Bytes,
        far: Far,
        now: Instant,
    ) -> Option<u32> {
        self.channel.as_ref()?;
        let circuit = Circuit::new(far, window, 0);
        let announced = circuit.far_limit(self.config.limits.circuit_window);
        let cid = self.circuits.insert(circuit)?;
        if let Some(circuit) = self.circuits.open.get_mut(&cid) {
            circuit.announced = announced;
            circuit.recv_limit = announced;
        }
        self.unanswered.push_back((now, cid));
        self.unseen += 1;
        self.sender.push_control(&Frame::Incoming {
            cid,
            window: announced,
            from,
            first,
        });
        self.dirty = true;
        Some(cid)
    }

    /// Ties a circuit that the peer opened to its far end on this node. A pipe is answered with OPENED at once. False when
    /// the circuit is over already: the peer may close it in the record that opens it.
    #[must_use]
    pub fn bind_circuit(&mut self, cid: u32, far: Far) -> bool {
        let window = self.window_of_end();
        let Some(circuit) = self.circuits.open.get_mut(&cid) else {
            return false;
        };
        circuit.far = far;
        if matches!(far, Far::Pipe(_)) {
            circuit.answered = true;
            circuit.recv_limit = window;
            self.sender.push_control(&Frame::Opened { cid, window });
            self.dirty = true;
        }
        true
    }

    /// As a router, does on this circuit what happened at its far end.
    pub fn circuit_signal(&mut self, cid: u32, signal: Signal) {
        let Some(circuit) = self.circuits.open.get_mut(&cid) else {
            return;
        };
        match signal {
            Signal::Opened { limit } => {
                circuit.answered = true;
                circuit.recv_limit = limit;
                self.sender
                    .push_control(&Frame::Opened { cid, window: limit });
            }
            Signal::Credit { limit } => {
                circuit.recv_limit = circuit.recv_limit.max(limit);
                self.sender
                    .push_control(&Frame::CircuitCredit { cid, limit });
            }
            Signal::Data(data) => {
                circuit.push(data);
                if circuit.ready() {
                    self.sender.push_bulk(Bulk::Circuit(cid));
                }
            }
            Signal::Closed { code, retry_ms } => self.end_circuit(cid, code, retry_ms),
        }
        self.dirty = true;
    }

    /// Whether a pipe over this circuit may hand in another message: little waits, and credit is left.
    pub fn circuit_room(&self, cid: u32) -> bool {
        self.circuits.open.get(&cid).is_some_and(|circuit| {
            circuit.answered
                && circuit.queued() == 0
                && circuit.sent + cost(&[]) < circuit.send_limit
        })
    }

    /// Sends one message over a circuit that ends here.
    pub fn send_circuit(&mut self, cid: u32, data: Bytes) {
        self.circuit_signal(cid, Signal::Data(data));
    }

    /// Ends a circuit; its far end on this node is not told, for it is who asks.
    pub fn close_circuit(&mut self, cid: u32, code: Code, retry: Option<Duration>) {
        self.end_circuit(cid, code.as_u16(), retry_ms(retry));
    }

    /// What is queued and may still leave goes first, so that a last word is heard.
    fn end_circuit(&mut self, cid: u32, code: u16, retry_ms: u32) {
        let Some(circuit) = self.circuits.open.get_mut(&cid) else {
            return;
        };
        if circuit.ready() {
            circuit.closing = Some((code, retry_ms));
        } else {
            self.circuits.open.remove(&cid);
            self.sender.push_control(&Frame::CircuitClose {
                cid,
                code,
                retry_ms,
            });
        }
        self.dirty = true;
    }

    /// Circuits of this session that go on to session `session`.
    pub fn circuits_to(&self, session: u64) -> usize {
        let there = |far: &Far| matches!(far, Far::Hop { session: other, .. } if *other == session);
        self.circuits
            .open
            .values()
            .filter(|circuit| there(&circuit.far))
            .count()
    }

    /// Circuits that the peer has not answered yet.
    pub fn circuits_unanswered(&self) -> usize {
        self.unanswered
            .iter()
            .filter(|(_, cid)| self.circuits.open.get(cid).is_some_and(|c| !c.answered))
            .count()
    }

    /// Charges one circuit opening to the peer; false when it opens them too fast.
    #[must_use]
    pub fn circuit_opened_in_rate(&mut self, now: Instant) -> bool {
        self.open_rate.take(now)
    }

    /// Charges one opening to those that we bring to the peer, from whomever: it holds us to a rate, whoever asks us. False
    /// when they come too fast, or when it takes nothing.
    #[must_use]
    pub fn circuit_brought_in_rate(&mut self, now: Instant) -> bool {
        if self.unseen >= UNSEEN {
            if self.keepalive.awaits_pong() {
                return false;
            }
            self.unseen = 0;
            self.ping(now);
        }
        self.sender.control.len() < OPENINGS_QUEUED && self.bring_rate.take(now)
    }

    /// Bytes of circuits that wait to be sent to the peer, with what their bookkeeping is charged.
    pub fn circuit_bytes(&self) -> u64 {
        self.circuits.open.values().map(Circuit::queued).sum()
    }

    /// Circuits that the peer asked for.
    pub fn circuits_asked(&self) -> usize {
        let theirs = |cid: &&u32| !self.circuits.is_own(**cid);
        self.circuits.open.keys().filter(theirs).count()
    }

    /// Circuits that we brought to the peer or asked it for.
    pub fn circuits_brought(&self) -> usize {
        self.circuits.open.len() - self.circuits_asked()
    }

    /// Number of open circuits.
    pub fn circuits(&self) -> usize {
        self.circuits.open.len()
    }

    /// The circuit's far end.
    pub fn circuit_far(&self, cid: u32) -> Option<Far> {
        self.circuits.open.get(&cid).map(|circuit| circuit.far)
    }

    pub(super) fn enter_circuit(&mut self, cid: u32, window: u64) -> Result<(), Violation> {
        let circuit = Circuit::new(Far::Undecided, window, 0);
        if self.circuits.insert_theirs(cid, circuit) {
            Ok(())
        } else {
            Err(Code::FrameUnexpected.into())
        }
    }

    pub(super) fn circuit_opened(
        &mut self,
        cid: u32,
        window: u64,
        out: &mut Vec<Event<T>>,
    ) -> Result<(), Violation> {
        let granted = self.config.limits.circuit_window;
        let theirs = !self.circuits.is_own(cid);
        let Some(circuit) = self.circuits.open.get_mut(&cid) else {
            return self.known_circuit(cid);
        };
        // Whoever asked for a circuit does not answer for it.
        if circuit.answered || theirs {
            return Err(Code::FrameUnexpected.into());
        }
        circuit.answered = true;
        circuit.send_limit = window;
        let limit = circuit.far_limit(granted);
        circuit.announced = limit;
        out.push(Event::Circuit {
            far: circuit.far,
            signal: Signal::Opened { limit },
        });
        Ok(())
    }

    /// One message came in. `record` is the size of the buffer that `data` is a slice of.
    pub(super) fn circuit_data(
        &mut self,
        cid: u32,
        data: Bytes,
        record: usize,
        out: &mut Vec<Event<T>>,
    ) -> Result<(), Violation> {
        let window = self.window_of_end();
        let Some(circuit) = self.circuits.open.get_mut(&cid) else {
            return self.known_circuit(cid);
        };
        // A longer message would fit no record on its way on.
        if data.len() > CIRCUIT_MTU {
            return Err(Code::FrameMalformed.into());
        }
        circuit.received += cost(&data);
        if circuit.received > circuit.recv_limit {
            return Err(Code::FlowViolated.into());
        }
        // What ends here is handled at once, so its credit returns at once; what goes on earns credit as it leaves.
        if matches!(circuit.far, Far::Pipe(_)) && circuit.recv_limit - circuit.received < window / 2
        {
            circuit.recv_limit = circuit.received + window;
            let limit = circuit.recv_limit;
            self.sender
                .push_control(&Frame::CircuitCredit { cid, limit });
            self.dirty = true;
        }
        out.push(Event::Circuit {
            far: circuit.far,
            signal: Signal::Data(own_share(data, record)),
        });
        Ok(())
    }

    pub(super) fn circuit_credit(
        &mut self,
        cid: u32,
        limit: u64,
        out: &mut Vec<Event<T>>,
    ) -> Result<(), Violation> {
        let window = self.config.limits.circuit_window;
        let Some(circuit) = self.circuits.open.get_mut(&cid) else {
            return self.known_circuit(cid);
        };
        circuit.send_limit = circuit.send_limit.max(limit);
        match circuit.far {
            Far::Hop { .. } => {
                let far_limit = circuit.far_limit(window);
                if far_limit >= circuit.announced + window / 4 {
                    circuit.announced = far_limit;
                    out.push(Event::Circuit {
                        far: circuit.far,
                        signal: Signal::Credit { limit: far_limit },
                    });
                }
            }
            Far::Pipe(_) => out.push(Event::CircuitRoom { cid }),
            Far::Undecided => {}
        }
        if circuit.ready() {
            self.sender.push_bulk(Bulk::Circuit(cid));
            self.dirty = true;
        }
        Ok(())
    }

    /// Closes a circuit towards the peer and tells its far end.
    pub(super) fn fail_circuit(
        &mut self,
        cid: u32,
        code: Code,
        retry: Option<Duration>,
        out: &mut Vec<Event<T>>,
    ) {
        if let Some(circuit) = self.circuits.open.remove(&cid) {
            let (code, retry_ms) = (code.as_u16(), retry_ms(retry));
            self.sender.push_control(&Frame::CircuitClose {
                cid,
                code,
                retry_ms,
            });
            self.dirty = true;
            out.push(Event::Circuit {
                far: circuit.far,
                signal: Signal::Closed { code, retry_ms },
            });
        }
    }

    fn known_circuit(&self, cid: u32) -> Result<(), Violation> {
        if self.circuits.was_used(cid) {
            Ok(())
        } else {
            Err(Code::FrameUnexpected.into())
        }
    }

    pub(super) fn fill_circuit(
        &mut self,
        record: &mut BytesMut,
        max: usize,
        cid: u32,
        out: &mut Vec<Event<T>>,
    ) -> bool {
        let window = self.config.limits.circuit_window;
        let Some(circuit) = self.circuits.open.get_mut(&cid) else {
            return false;
        };
        if let Some(data) = circuit.take(max.saturating_sub(record.len() + 7)) {
            write_circuit(record, cid, &data);
            match circuit.far {
                Far::Hop { .. } => {
                    let limit = circuit.far_limit(window);
                    if limit >= circuit.announced + window / 4 {
                        circuit.announced = limit;
                        out.push(Event::Circuit {
                            far: circuit.far,
                            signal: Signal::Credit { limit },
                        });
                    }
                }
                Far::Pipe(_) => out.push(Event::CircuitRoom { cid }),
                Far::Undecided => {}
            }
            if let Some((code, retry_ms)) = circuit.closing_now() {
                self.circuits.open.remove(&cid);
                self.sender.push_control(&Frame::CircuitClose {
                    cid,
                    code,
                    retry_ms,
                });
            }
        }
        self.circuits.open.get(&cid).is_some_and(Circuit::ready)
    }
}

#[derive(Debug)]
pub(super) struct Circuit {
    pub(super) far: Far,
    /// What the peer lets us send, in all; and what we have sent.
    pub(super) send_limit: u64,
    pub(super) sent: u64,
    queue: VecDeque<Bytes>,
    queued: u64,
    /// What we let the peer send, in all; and what it has sent.
    pub(super) recv_limit: u64,
    pub(super) received: u64,
    /// The limit that the far end was last told.
    pub(super) announced: u64,
    pub(super) answered: bool,
    /// It ends once what is queued has left.
    pub(super) closing: Option<(u16, u32)>,
}

impl Circuit {
    pub(super) fn new(far: Far, send_limit: u64, recv_limit: u64) -> Self {
        Self {
            far,
            send_limit,
            sent: 0,
            queue: VecDeque::new(),
            queued: 0,
            recv_limit,
            received: 0,
            announced: 0,
            answered: false,
            closing: None,
        }
    }

    pub(super) fn push(&mut self, data: Bytes) {
        self.queued += cost(&data);
        self.queue.push_back(data);
    }

    pub(super) fn queued(&self) -> u64 {
        self.queued
    }

    /// Whether the next message may go out.
    pub(super) fn ready(&self) -> bool {
        self.queue
            .front()
            .is_some_and(|data| self.sent + cost(data) <= self.send_limit)
    }

    /// The next message, if it fits `max` bytes and credit allows.
    pub(super) fn take(&mut self, max: usize) -> Option<Bytes> {
        if !self.ready() || self.queue.front()?.len() > max {
            return None;
        }
        let data = self.queue.pop_front()?;
        self.queued -= cost(&data);
        self.sent += cost(&data);
        Some(data)
    }

    /// Code and retry of its end, once that is due.
    pub(super) fn closing_now(&self) -> Option<(u16, u32)> {
        self.closing.filter(|_| self.queue.is_empty())
    }

    /// What the far end may send through us: what the peer accepts, but never more than `window` beyond what has left.
    pub(super) fn far_limit(&self, window: u64) -> u64 {
        self.send_limit.min(self.sent + window)
    }
}

/// A message that waits for somebody else's socket must not keep a record alive that is much longer than itself: credit
/// was charged for the message alone, and whatever else was in the record may have cost its sender nothing.
fn own_share(data: Bytes, record: usize) -> Bytes {
    if data.len() < record / 2 {
        Bytes::copy_from_slice(&data)
    } else {
        data
    }
}

/// What a circuit message costs of its credit.
pub fn cost(data: &[u8]) -> u64 {
    data.len() as u64 + CHARGE
}

#[derive(Debug)]
pub(super) struct Circuits {
    pub(super) open: Map<u32, Circuit>,
    /// Next number of our own; even for the channel's initiator, odd for its responder.
    next_own: u32,
    /// Lowest number the peer has not used.
    next_theirs: u32,
}

impl Circuits {
    pub(super) fn new(initiator: bool) -> Self {
        Self {
            open: Map::default(),
            next_own: u32::from(!initiator),
            next_theirs: u32::from(initiator),
        }
    }

    /// Enters a circuit of our own; `None` once all numbers of this channel are used.
    pub(super) fn insert(&mut self, circuit: Circuit) -> Option<u32> {
        let cid = self.next_own;
        self.next_own = cid.checked_add(2)?;
        self.open.insert(cid, circuit);
        Some(cid)
    }

    /// Enters a circuit that the peer numbered; false when the number is not its next.
    #[must_use]
    pub(super) fn insert_theirs(&mut self, cid: u32, circuit: Circuit) -> bool {
        // Those that were under way when a channel was lost are skipped.
        if cid < self.next_theirs || self.is_own(cid) {
            return false;
        }
        let Some(next) = cid.checked_add(2) else {
            return false;
        };
        self.next_theirs = next;
        self.open.insert(cid, circuit);
        true
    }

    /// Whether we numbered it.
    pub(super) fn is_own(&self, cid: u32) -> bool {
        cid % 2 == self.next_own % 2
    }

    /// Whether the number was in use at some time: frames for it may still be under way after it closed.
    pub(super) fn was_used(&self, cid: u32) -> bool {
        if cid % 2 == self.next_own % 2 {
            cid < self.next_own
        } else {
            cid < self.next_theirs
        }
    }
}
