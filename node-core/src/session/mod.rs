//! A session: ordered frames between two nodes, with everything that applications do over them.
//!
//! The session is the data plane. It owns the channel it is attached to, numbers what it sends, keeps it until it is
//! acknowledged, and seals as late as possible: only when its pipe has room, so that short and urgent frames overtake
//! bulk up to the last moment.

mod app;
mod attach;
mod circuits;
mod incoming;
mod items;
mod keepalive;
mod numbers;
mod receive;
mod sender;
mod streams;
mod transmit;

pub use app::{Operation, Request};
pub use attach::{Held, Resumed};
pub use circuits::{Far, Signal, cost};
pub use receive::Violation;
pub use streams::{STREAM_BUFFER, StreamError, StreamOpened};

use crate::{
    channel::{Channel, MAX_RECORD, RECORD_OVERHEAD, Role},
    code::Code,
    crypto::{self, Secret},
    limits::Limits,
    name::Name,
    sorted::Map,
    time::{Duration, Instant},
    wire::frame::{Attach, Frame, INBOX_INITIAL, Response},
};
use alloc::{boxed::Box, collections::VecDeque, sync::Arc, vec::Vec};
use bytes::Bytes;
use circuits::Circuits;
use items::Items;
use keepalive::{CONTROL_BURST, CONTROL_PER_SECOND, Check, Keepalive, Rate};
use numbers::Numbers;
use sender::Sender;
use streams::Stream;

/// Records stay at most this long while several circuits share a channel, so that none waits long for another.
pub const SHARED_RECORD: usize = 16 << 10;

/// Longest message that fits a circuit: a record that carries it stays within [`MAX_RECORD`].
pub const CIRCUIT_MTU: usize = 65_472;

/// Time that a closing session has to send what is queued.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);

/// What a session tells its node and, through it, the application.
#[derive(Debug)]
pub enum Event<T> {
    /// The peer has proved the channel with its ATTACH.
    Attached {
        /// Which process of that name it is.
        instance: [u8; 16],
        /// What it calls itself, if it said so here.
        agent: Box<str>,
    },
    /// A request was answered.
    Answered {
        /// The application's token.
        token: T,
        /// The answer.
        response: Response,
    },
    /// The peer's application has taken a message.
    Delivered {
        /// The application's token.
        token: T,
    },
    /// A request or message came to nothing.
    Failed {
        /// The application's token.
        token: T,
        /// Why.
        code: Code,
        /// The reason beneath, if the session ended before the peer had attached it.
        cause: Option<Code>,
    },
    /// The peer asks something: answer with [`Session::respond`].
    Request {
        /// The item.
        id: u64,
        /// What it asks.
        request: Request,
        /// How long it waits.
        deadline: Duration,
    },
    /// The peer no longer waits for this request's answer.
    Cancelled {
        /// The item.
        id: u64,
    },
    /// The peer sends something: confirm with [`Session::delivered`].
    Message {
        /// The item.
        id: u64,
        /// Application protocol.
        protocol: Box<str>,
        /// Payload.
        payload: Bytes,
    },
    /// The peer opened a stream: accept or stop it.
    Stream(StreamOpened),
    /// The peer asks for a circuit to `to`.
    CircuitOpen {
        /// Its number on this channel.
        cid: u32,
        /// What the caller accepts.
        window: u64,
        /// Whether the target may not learn who calls.
        hide: bool,
        /// Whom to reach.
        to: Name,
        /// Handshake message 1.
        first: Bytes,
    },
    /// The router brings us a circuit.
    CircuitIncoming {
        /// Its number on this channel.
        cid: u32,
        /// Who calls, says the router.
        from: Option<Name>,
        /// Handshake message 1.
        first: Bytes,
    },
    /// Something for the far end of a circuit.
    Circuit {
        /// The far end.
        far: Far,
        /// What.
        signal: Signal,
    },
    /// A circuit that ends here has room for more again.
    CircuitRoom {
        /// Its number.
        cid: u32,
    },
    /// A round trip was measured.
    RoundTrip(Duration),
    /// The peer will go away; reconnect after the delay.
    GoAway(Duration),
    /// Another pipe is to be looked for while this one stays: see [`Session::wants_pipe`].
    PipeWanted,
    /// The pipe is dead, but nobody has said the end: the session may go on over another one.
    Lost(Code),
    /// It holds noticeably more than when it was parked, or last said so.
    Grown,
    /// The peer began more than may be under way, and was told so.
    Refused(Code),
    /// The session is at its end.
    Ended {
        /// Why.
        code: Code,
        /// When to try again, if the peer said so.
        retry: Option<Duration>,
        /// Whether the peer said so.
        by_peer: bool,
    },
}

/// What a new session needs to know.
#[derive(Clone)]
pub struct SessionConfig {
    /// Bounds.
    pub limits: Arc<Limits>,
    /// Longest record the pipe takes.
    pub mtu: usize,
    /// Our instance, as this peer sees it.
    pub instance: [u8; 16],
    /// What we call ourselves.
    pub agent: Box<str>,
    /// Known to us alone, and another for each session: what the peer must not foresee is made of it.
    pub secret: Secret,
}

impl core::fmt::Debug for SessionConfig {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Not its secret.
        f.debug_struct("SessionConfig").finish_non_exhaustive()
    }
}

/// One session. `T` is the application's token: handed in with a request or message, handed back with its outcome.
pub struct Session<T> {
    /// The channel that it is attached to; none while it is parked.
    channel: Option<Channel>,
    config: SessionConfig,
    /// Whether we began its first channel.
    initiator: bool,
    /// Whether we began the present one.
    dials: bool,
    sid: [u8; 16],
    /// Proves that a session is ours when it goes on over another channel.
    secret: Secret,
    attach_due: bool,
    attached: bool,
    /// Whether requests may leave before the peer's ATTACH has come.
    early: bool,
    /// Until when it waits for another pipe, and what became of the last.
    parked: Option<(Instant, Code)>,
    /// Bytes that it held when its node last counted them, while it is parked.
    counted: usize,
    /// Its pipe is dead; whether it waits for another or ends is for the node to say.
    lost: bool,
    /// The peer begins nothing more over the present channel.
    left: bool,
    /// We have said that nothing begins on it any more.
    retired: bool,
    /// The newest attempt to attach it that we made, and the newest that led to something.
    offered: u32,
    seen: u32,
    /// From where we go on over a channel that is not the first.
    resumed_from: Option<u64>,
    /// Session bytes that come a second time.
    skip: u64,
    sender: Sender,
    received: u64,
    acknowledged: u64,
    ack_at: Option<Instant>,
    ack_due: bool,
    /// Since when the pipe takes nothing although there is something to send.
    blocked_since: Option<Instant>,
    /// Since when the peer acknowledges nothing although there is something to acknowledge.
    unacknowledged_since: Option<Instant>,
    items: Items<T>,
    streams: Map<u64, Stream>,
    numbers: Numbers,
    circuits: Circuits,
    keepalive: Keepalive,
    /// Pings sent so far, over all channels.
    pings: u64,
    control_rate: Rate,
    /// Circuits that the peer asks for.
    open_rate: Rate,
    /// Circuits that others have us bring to the peer.
    bring_rate: Rate,
    /// Circuits brought to the peer since it was last asked whether it has seen those before.
    unseen: u32,
    closing: Option<(Code, Option<Duration>)>,
    closing_until: Option<Instant>,
    ended: bool,
    dirty: bool,
    /// When the circuits that the peer has not answered were opened, oldest first.
    unanswered: VecDeque<(Instant, u32)>,
}

impl<T> core::fmt::Debug for Session<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        // Not the secret that it goes on by, nor what anybody said.
        f.debug_struct("Session")
            .field("channel", &self.channel)
            .field("attached", &self.attached)
            .finish_non_exhaustive()
    }
}

impl<T> Session<T> {
    /// A new session on a channel that we began: our ATTACH goes first, everything else waits for the peer's.
    pub fn begin(channel: Channel, config: SessionConfig, now: Instant) -> Self {
        Self::new(channel, config, now)
    }

    /// Lets what is asked from now on leave right behind our ATTACH. On a channel that we began, before the peer's ATTACH.
    pub fn speak_early(&mut self) {
        self.early = true;
        self.sender.confirmed = true;
    }

    /// A new session on a channel that the peer began, with its ATTACH.
    pub fn accept(
        channel: Channel,
        config: SessionConfig,
        attach: &Attach,
        now: Instant,
        out: &mut Vec<Event<T>>,
    ) -> Result<Self, Violation> {
        let mut session = Self::new(channel, config, now);
        session.handle_attach(attach, out)?;
        Ok(session)
    }

    fn new(channel: Channel, config: SessionConfig, now: Instant) -> Self {
        let initiator = channel.role() == Role::Initiator;
        let secret = channel.export("session");
        let id = channel.export("session id");
        let mut sid = [0; 16];
        sid.copy_from_slice(&id[..16]);
        Self {
            initiator,
            dials: initiator,
            sid,
            secret,
            attach_due: true,
            attached: false,
            early: false,
            parked: None,
            counted: 0,
            lost: false,
            left: false,
            retired: false,
            offered: 0,
            seen: 0,
            resumed_from: None,
            skip: 0,
            sender: Sender::new(INBOX_INITIAL),
            received: 0,
            acknowledged: 0,
            ack_at: None,
            ack_due: false,
            blocked_since: None,
            unacknowledged_since: None,
            items: Items::new(INBOX_INITIAL),
            streams: Map::default(),
            numbers: Numbers::new(initiator),
            circuits: Circuits::new(initiator),
            keepalive: Keepalive::new(&channel, &config.limits, now),
            pings: 0,
            control_rate: Rate::new(CONTROL_PER_SECOND, CONTROL_BURST, now),
            open_rate: Rate::new(
                config.limits.circuit_opens.into(),
                config.limits.circuit_opens.saturating_mul(2),
                now,
            ),
            bring_rate: Rate::new(circuits::BROUGHT_PER_SECOND, circuits::BROUGHT_BURST, now),
            unseen: 0,
            closing: None,
            closing_until: None,
            ended: false,
            dirty: true,
            unanswered: VecDeque::new(),
            channel: Some(channel),
            config,
        }
    }

    // Getters.

    /// Whether the peer's ATTACH has come.
    pub fn is_attached(&self) -> bool {
        self.attached
    }

    /// Whether the peer has shown that it knows of the session: our ATTACH has come, and it has spoken after it.
    pub fn is_confirmed(&self) -> bool {
        self.sender.confirmed
    }

    /// Whether nothing can be begun on it any more: it is over, or says its last words.
    pub fn is_closing(&self) -> bool {
        self.ended || self.closing.is_some()
    }

    /// Whether anything may begin on it: not once we have said that nothing does, nor while it waits for a pipe.
    pub fn begins(&self, now: Instant) -> bool {
        !(self.is_closing() || self.is_parked() || self.retired || self.is_overdue(now))
    }

    /// Whether we have said that nothing begins on it any more.
    pub fn is_retired(&self) -> bool {
        self.retired
    }

    /// Whether we close it because another process of the peer's has taken its place.
    pub fn is_superseded_here(&self) -> bool {
        matches!(self.closing, Some((Code::Superseded, _)))
    }

    /// Whether it is over.
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// Whether the peer has said that it begins nothing more over the present channel.
    pub fn is_left(&self) -> bool {
        self.left
    }

    /// Whether nothing is under way: no item, no stream, no circuit, nothing unacknowledged.
    pub fn is_idle(&self) -> bool {
        self.circuits.open.is_empty() && self.is_quiet()
    }

    /// Whether nothing is under way but circuits. The sessions over these go on elsewhere.
    pub fn is_quiet(&self) -> bool {
        self.items.asked.is_empty()
            && self.items.served.is_empty()
            && self.streams.is_empty()
            && self.sender.all_acknowledged()
    }

    /// Whether something that our side has begun is not over: a request, a message, a stream.
    pub fn has_begun(&self) -> bool {
        let ours = |id: &u64| self.numbers.is_own(*id);
        !self.items.asked.is_empty() || self.streams.keys().any(ours)
    }

    /// Whether it is of no use to us at the moment: whatever is under way was begun by the peer, and it carries no circuits.
    pub fn is_spare(&self) -> bool {
        self.circuits.open.is_empty() && !self.has_begun()
    }

    /// Bytes of requests, messages and answers that wait to be sent.
    pub fn waiting_bytes(&self) -> usize {
        self.sender.queued + self.items.long_bytes
    }

    /// The last measured round trip.
    pub fn round_trip(&self) -> Option<Duration> {
        self.keepalive.round_trip
    }

    /// Whether the peer has yet to answer the last ping.
    pub fn awaits_pong(&self) -> bool {
        self.keepalive.awaits_pong()
    }

    /// When a record last came in.
    pub fn last_received(&self) -> Instant {
        self.keepalive.last_received
    }

    /// Whether the peer is silent although something is due of it: the pipe may be dead, or only slow.
    pub fn is_suspected(&self) -> bool {
        self.keepalive.suspected
    }

    /// Whether another pipe should take the place of this one: the peer is suspected, or the channel is old.
    pub fn wants_pipe(&self) -> bool {
        self.keepalive.suspected || self.keepalive.old
    }

    /// Whether nothing has come for so long that the peer has given the pipe up: nothing new should go over it.
    pub fn is_overdue(&self, now: Instant) -> bool {
        self.attached && self.keepalive.is_overdue(now, &self.config.limits)
    }

    /// Whether there is something to send since the last call; the driver then polls the session's pipe.
    pub fn take_dirty(&mut self) -> bool {
        core::mem::take(&mut self.dirty) && self.wants_transmit()
    }

    fn wants_transmit(&self) -> bool {
        !self.ended
            && (self.attach_due
                || self.closing.is_some()
                || (self.speaks() && (self.sender.has_work(&self.config.limits) || self.ack_due)))
    }

    /// Whether anything but ATTACH may leave.
    const fn speaks(&self) -> bool {
        self.attached || self.early
    }

    // Outputs.

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    pub fn deadline(&self) -> Option<Instant> {
        if self.ended || self.lost {
            return None;
        }
        if let Some((until, _)) = self.parked {
            if self.closing.is_some() || self.has_grown() {
                return Some(Instant::default());
            }
            let first = self.items.deadlines.first().map(|(at, _)| *at);
            return Some(first.map_or(until, |at| at.min(until)));
        }
        let unanswered = self
            .unanswered
            .front()
            .map(|(at, _)| *at + self.config.limits.circuit_timeout);
        let patience = self.keepalive.patience(&self.config.limits);
        // The first call after `close`, which is not told the time, is due at once and sets the end.
        let closing = self
            .closing
            .is_some()
            .then(|| self.closing_until.unwrap_or_default());
        [
            closing,
            self.blocked_since.map(|since| since + patience),
            self.unacknowledged_since.map(|since| since + patience),
            self.ack_at,
            self.items.deadlines.first().map(|(at, _)| *at),
            self.attached
                .then(|| self.keepalive.deadline(&self.config.limits, self.dials)),
            self.suspicion(),
            self.keepalive.renew_at,
            unanswered,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due: acknowledgements, deadlines, keepalive, unanswered circuits.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Event<T>>) {
        if self.ended || self.lost {
            return;
        }
        while let Some(&(at, id)) = self.items.deadlines.first() {
            if at > now {
                break;
            }
            self.abandon(id, Code::Timeout, out);
        }
        if let Some((until, code)) = self.parked {
            // Nobody is there to hear last words.
            if until <= now || self.closing.is_some() {
                self.end(self.closing.map_or(code, |(code, _)| code), None, out);
            } else if self.has_grown() {
                self.counted = self.held_bytes();
                out.push(Event::Grown);
            }
            return;
        }
        if self.ack_at.is_some_and(|at| at <= now) {
            self.ack_at = None;
            self.ack_due = true;
            self.dirty = true;
        }
        if let Some((code, retry)) = self.closing {
            let until = *self.closing_until.get_or_insert(now + CLOSE_WITHIN);
            if until <= now {
                return self.end(code, retry, out);
            }
        }
        let patience = self.keepalive.patience(&self.config.limits);
        let stuck = |since: Option<Instant>| since.is_some_and(|since| since + patience <= now);
        if stuck(self.blocked_since) || stuck(self.unacknowledged_since) {
            return self.lose(Code::KeepaliveTimeout, out);
        }
        while self
            .unanswered
            .front()
            .is_some_and(|(at, _)| *at + self.config.limits.circuit_timeout <= now)
        {
            if let Some((_, cid)) = self.unanswered.pop_front()
                && self
                    .circuits
                    .open
                    .get(&cid)
                    .is_some_and(|circuit| !circuit.answered)
            {
                self.fail_circuit(cid, Code::CircuitTimeout, None, out);
            }
        }
        if self.suspicion().is_some_and(|at| at <= now) {
            if self.keepalive.suspect() {
                self.ping(now);
            }
            out.push(Event::PipeWanted);
        }
        if self.keepalive.renew_at.is_some_and(|at| at <= now) {
            self.keepalive.renew_at = None;
            self.keepalive.old = true;
            out.push(Event::PipeWanted);
        }
        // Before, the handshake's time runs.
        if self.attached {
            match self.keepalive.check(now, &self.config.limits, self.dials) {
                Check::Fine => {}
                Check::Ping => self.ping(now),
                Check::Dead => return self.lose(Code::KeepaliveTimeout, out),
            }
        }
        self.note_blocked(now);
    }

    /// When the peer is to be suspected, if nothing comes before.
    fn suspicion(&self) -> Option<Instant> {
        let limits = &self.config.limits;
        self.keepalive.suspicion(self.unacknowledged_since, limits)
    }

    fn lose(&mut self, code: Code, out: &mut Vec<Event<T>>) {
        self.lost = true;
        out.push(Event::Lost(code));
    }

    fn end(&mut self, code: Code, retry: Option<Duration>, out: &mut Vec<Event<T>>) {
        self.ended = true;
        out.push(Event::Ended {
            code,
            retry,
            by_peer: false,
        });
    }

    /// Remembers since when there is something to send that the pipe does not ask for.
    fn note_blocked(&mut self, now: Instant) {
        if self.blocked_since.is_none() && self.wants_transmit() {
            self.blocked_since = Some(now);
        }
    }

    // What the node asks for.

    /// Measures the round trip, and finds out whether the peer is still there.
    pub fn ping(&mut self, now: Instant) {
        if self.channel.is_none() {
            return;
        }
        self.pings += 1;
        let parts: [&[u8]; 2] = [b"nectar/1 ping", &self.pings.to_be_bytes()];
        let [a, b, c, d, e, f, g, h, ..] = *crypto::hmac(&self.config.secret, &parts);
        // A token that the peer could foresee would let it answer before it was asked, and look nearer than it is; one that
        // told our time would tell how long this process has run.
        let token = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
        self.keepalive.pinged(token, now);
        self.sender.push_control(&Frame::Ping(token));
        self.dirty = true;
    }

    /// Tells the peer that we will go away.
    pub fn go_away(&mut self, delay: Duration) {
        if self.channel.is_none() {
            return;
        }
        self.retired |= delay.is_zero();
        self.sender.push_control(&Frame::GoAway(delay));
        self.dirty = true;
    }

    /// Closes the channel once what is queued has left.
    pub fn close(&mut self, code: Code, retry: Option<Duration>) {
        if !self.ended {
            self.closing.get_or_insert((code, retry));
            self.dirty = true;
        }
    }
}

const _: () = assert!(
    CIRCUIT_MTU + 7 + RECORD_OVERHEAD + 3 <= MAX_RECORD,
    "a circuit message fits one record"
);
