//! Every bound that a peer could push against, in one place.

use crate::time::Duration;

/// Bounds with their units and defaults; each names its worst case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From first byte to established channel. 30 s. Worst case: a half-open slot is held that long.
    pub handshake_timeout: Duration,
    /// Greatest distance of a hello's timestamp from our clock, either way. 120 s.
    pub clock_window: Duration,
    /// Bytes held back while message 3 waits for the chain, with 64 for each message: the early credit, and its records. 96 KiB
    /// per half-open channel.
    pub held_before_admission: usize,
    /// Half-open inbound handshakes in all. 256; worst case times (`held_before_admission` + 4 KiB).
    pub half_open: usize,
    /// Inbound channels from named peers. 125.
    pub inbound_channels: usize,
    /// Inbound channels from one address group (IPv4 /24, IPv6 /48). 32.
    pub channels_per_group: usize,
    /// Those of them that one router brings from one caller. 8, and twice that from all whom it does not name, so that no
    /// caller takes a router's whole share.
    pub channels_per_caller: usize,
    /// Handshakes per second from one address group, or through one router; twice as many at once. 50; worst case times
    /// about 0.3 ms of computing.
    pub handshake_rate: u32,
    /// Requests, messages and streams per 10 s of a peer that is neither on the allow list, nor kept, nor a router of ours.
    /// 100; one more is answered with `request_rate`.
    pub stranger_requests: u32,
    /// How long a name that broke the rules may not come back; addresses may after a sixtieth of it. 1 h.
    pub ban: Duration,
    /// Names, and address groups, whose rates, scores and bans are remembered. 1,024 of each; worst case 512 B for both.
    pub standings: usize,
    /// Peers, besides its routers, that a node which is no router has dialled and stays connected to. 8; one more retires
    /// the one that it wants nothing of and has not used for longest.
    pub outbound_peers: usize,
    /// Whole message or request, in bytes. 16 MiB. Long ones that are put together or wait for the application take no
    /// more than this per session, and long answers to us as much again.
    pub message_bytes: usize,
    /// Requests and messages that wait for the application, in bytes per session. 1 MiB.
    pub inbox_bytes: u64,
    /// Plaintext kept until the peer acknowledges it, in bytes per session. 4 MiB.
    pub retained_bytes: usize,
    /// How long a session waits for another pipe when it has lost its own. 60 s.
    pub session_kept: Duration,
    /// Sessions that wait so, in all. 256; one more ends the one that has waited longest.
    pub parked_sessions: usize,
    /// What they hold together, in bytes. 64 MiB; beyond that the largest ends. What comes together in one that waits, such
    /// as answers, is counted in steps of a quarter of its even share, as soon as the node's timer runs: worst case 80 MiB, and
    /// what our own application adds at once.
    pub parked_bytes: usize,
    /// What an application may queue towards one peer beyond credit, in bytes, 96 more for each frame. 32 MiB.
    pub outbox_bytes: usize,
    /// Receive window of a stream, in bytes. 1 MiB, reserved when the application accepts the stream.
    pub stream_window: u64,
    /// Bytes a stream may send before it is accepted. 16 KiB.
    pub stream_initial: u64,
    /// Streams that one peer may hold open. 64; worst case times `stream_window`.
    pub streams: usize,
    /// Requests of one peer that the application handles at once. 256; their bytes count towards `inbox_bytes`, and one
    /// more is answered with `queue_full`.
    pub requests: usize,
    /// Default deadline of a request. 30 s.
    pub request_deadline: Duration,
    /// Silence after which the listening side pings. 15 s.
    pub keepalive: Duration,
    /// Time between two pings that are not answered, or two round trips (10 s at most) where that is longer. 1.25 s.
    pub keepalive_retry: Duration,
    /// Pings without an answer after which a pipe is dead. 3.
    pub keepalive_misses: u32,
    /// Silence of a peer of whom something is due after which another way to it is looked for, or three round trips (10 s at
    /// most) where that is longer. 1 s.
    pub suspicion: Duration,
    /// Acknowledgements are due after this many bytes. 256 KiB.
    pub ack_bytes: u64,
    /// Acknowledgements are due after this delay. 20 ms.
    pub ack_delay: Duration,
    /// Keys ratchet after this many bytes. 1 GiB.
    pub rekey_bytes: u64,
    /// Keys ratchet after this time. 10 min.
    pub rekey_after: Duration,
    /// Age at which the side that began a channel replaces it by another, with fresh keys and a fresh look at the peer's: two
    /// hours sooner or later by chance, or a sixth of this. 12 h.
    pub renew_after: Duration,
    /// Circuits open per channel of a caller. 128; worst case times `circuit_window`.
    pub circuits: usize,
    /// Circuit openings per second and channel. 10.
    pub circuit_opens: u32,
    /// Circuits of one caller to one target. 4.
    pub circuits_per_pair: usize,
    /// Unanswered circuits per target. 32.
    pub circuits_unanswered: usize,
    /// Time a target has to answer a circuit. 10 s.
    pub circuit_timeout: Duration,
    /// What a router holds for one circuit and direction, in bytes. 256 KiB; an end lets four times that come, and holds none of it.
    pub circuit_window: u64,
    /// Outbound routers an indirect node keeps. 8.
    pub routers: usize,
    /// First reconnect delay. 250 ms, doubling with full jitter.
    pub backoff_min: Duration,
    /// Longest reconnect delay. 30 s.
    pub backoff_max: Duration,
    /// Operations waiting for one peer that is being dialled. 256.
    pub waiting: usize,
    /// Time between two racing routes. 250 ms.
    pub race_stagger: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(30),
            clock_window: Duration::from_secs(120),
            held_before_admission: 96 << 10,
            half_open: 256,
            inbound_channels: 125,
            channels_per_group: 32,
            channels_per_caller: 8,
            handshake_rate: 50,
            stranger_requests: 100,
            ban: Duration::from_secs(3600),
            standings: 1024,
            outbound_peers: 8,
            message_bytes: 16 << 20,
            inbox_bytes: 1 << 20,
            retained_bytes: 4 << 20,
            session_kept: Duration::from_secs(60),
            parked_sessions: 256,
            parked_bytes: 64 << 20,
            outbox_bytes: 32 << 20,
            stream_window: 1 << 20,
            stream_initial: 16 << 10,
            streams: 64,
            requests: 256,
            request_deadline: Duration::from_secs(30),
            keepalive: Duration::from_secs(15),
            keepalive_retry: Duration::from_millis(1250),
            suspicion: Duration::from_secs(1),
            keepalive_misses: 3,
            ack_bytes: 256 << 10,
            ack_delay: Duration::from_millis(20),
            rekey_bytes: 1 << 30,
            rekey_after: Duration::from_secs(600),
            renew_after: Duration::from_secs(12 * 3600),
            circuits: 128,
            circuit_opens: 10,
            circuits_per_pair: 4,
            circuits_unanswered: 32,
            circuit_timeout: Duration::from_secs(10),
            circuit_window: 256 << 10,
            routers: 8,
            backoff_min: Duration::from_millis(250),
            backoff_max: Duration::from_secs(30),
            waiting: 256,
            race_stagger: Duration::from_millis(250),
        }
    }
}
