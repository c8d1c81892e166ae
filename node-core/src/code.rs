//! The one table of errors that cross a wire or reach an application.

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The other node broke the protocol.
    Peer,
    /// Both behave, but cannot work together.
    Incompatible,
    /// The other node is not who it says, or who we look for.
    Identity,
    /// Somebody's budget is spent.
    Limit,
    /// The network, a router or the chain between us.
    Network,
    /// Our own application or operator.
    Caller,
    /// Nobody: this is how things end.
    Nobody,
}

/// Whether trying again may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same attempt fails again.
    Never,
    /// After the delay that came with the refusal, or the usual backoff.
    Later,
    /// At once, over another route.
    Elsewhere,
}

macro_rules! codes {
    ($($number:literal $variant:ident $name:literal $fault:ident $retry:ident $meaning:literal;)*) => {
        /// An error on the wire: a number, stable for ever, and what it means.
        ///
        /// WebSocket close codes are 4000 + the number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        pub enum Code { $(#[doc = $meaning] $variant = $number,)* }

        impl Code {
            /// Every code, in ascending order.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The code of a number; `None` for numbers this version does not know.
            pub const fn from_u16(number: u16) -> Option<Self> {
                match number { $($number => Some(Self::$variant),)* _ => None }
            }

            /// Name and meaning of every code, a line each: a tab downloads them, and texts of their own would each add an
            /// address and a length.
            const LINES: &'static str = concat!($($name, "\n", $meaning, "\n",)*);

            /// Whose fault it is.
            pub const fn fault(self) -> Fault {
                match self { $(Self::$variant => Fault::$fault,)* }
            }

            /// Whether to try again.
            pub const fn retry(self) -> Retry {
                match self { $(Self::$variant => Retry::$retry,)* }
            }
        }
    };
}

codes! {
    // How things end.
    0   Closed            "closed"             Nobody       Never     "closed on purpose";
    1   GoingAway         "going_away"         Nobody       Later     "the node is restarting";
    2   Superseded        "superseded"         Nobody       Never     "the same name went online somewhere else";
    3   Duplicate         "duplicate"          Nobody       Never     "both sides dialled at once; the other connection is kept";
    4   Idle              "idle"               Nobody       Later     "closed after nothing happened for long";
    // Handshake.
    100 Malformed         "malformed"          Peer         Never     "a handshake message that is not one";
    101 VersionUnknown    "version_unknown"    Incompatible Never     "no protocol version in common";
    102 Downgrade         "downgrade"          Peer         Never     "somebody pushed us to an older protocol version than both sides speak";
    103 ClockSkew         "clock_skew"         Incompatible Later     "the clocks of the two nodes differ by more than the window";
    104 RegistryUnknown   "registry_unknown"   Incompatible Never     "the name's registry is not among the configured ones";
    105 NameUnknown       "name_unknown"       Identity     Later     "nobody has registered this name";
    106 KeyMismatch       "key_mismatch"       Identity     Later     "the key is not the one that is registered onchain";
    107 KeyUnconfirmed    "key_unconfirmed"    Identity     Later     "the key differs from the record we know, and the chain may not be asked again yet";
    108 BadSignature      "bad_signature"      Peer         Never     "the handshake's signature does not verify";
    109 WrongTarget       "wrong_target"       Identity     Elsewhere "the caller wanted somebody else";
    110 WrongName         "wrong_name"         Identity     Elsewhere "somebody else answered";
    111 WeakKey           "weak_key"           Identity     Never     "a key of small order, which proves nothing";
    112 Myself            "myself"             Caller       Never     "this is the node itself";
    113 NotAllowed        "not_allowed"        Identity     Never     "this node does not talk to that name";
    114 Banned            "banned"             Identity     Later     "banned, for breaking the protocol or by the operator";
    115 HandshakeTimeout  "handshake_timeout"  Network      Elsewhere "the handshake took too long";
    116 EpochChanged      "epoch_changed"      Identity     Never     "the name has a new owner; confirm the contact first";
    117 DecryptFailed     "decrypt_failed"     Peer         Elsewhere "a handshake message that was altered or is not for us";
    118 ChainUnavailable  "chain_unavailable"  Network      Later     "no RPC endpoint gives a usable answer";
    119 SignerFailed      "signer_failed"      Caller       Later     "the signer did not sign";
    120 GuestRefused      "guest_refused"      Identity     Never     "guests are not served here";
    121 ReadBudget        "read_budget"        Limit        Later     "too many chain look-ups were asked for";
    // Records and sessions.
    200 RecordForged      "record_forged"      Network      Elsewhere "a record that was altered, replayed or reordered on the way";
    201 RecordTooLarge    "record_too_large"   Peer         Never     "a record above 64 KiB";
    202 FrameMalformed    "frame_malformed"    Peer         Never     "a frame that does not parse";
    203 FrameUnexpected   "frame_unexpected"   Peer         Never     "a frame that has no place here";
    204 FlowViolated      "flow_violated"      Peer         Never     "more was sent than credit allows";
    205 RekeyOverdue      "rekey_overdue"      Peer         Never     "keys were used for too long";
    206 AttachRefused     "attach_refused"     Peer         Never     "the session was not proved";
    207 SessionUnknown    "session_unknown"    Nobody       Later     "the session is gone";
    208 KeepaliveTimeout  "keepalive_timeout"  Network      Elsewhere "the connection went silent";
    209 FrameRate         "frame_rate"         Peer         Later     "too many control frames";
    210 PipeLost          "pipe_lost"          Network      Elsewhere "the connection broke";
    // Circuits and routers.
    300 TargetOffline     "target_offline"     Network      Elsewhere "the target is not connected to this router";
    301 NotHosted         "not_hosted"         Network      Elsewhere "the target does not list this router";
    302 CircuitLimit      "circuit_limit"      Limit        Later     "too many circuits are open";
    303 CircuitRate       "circuit_rate"       Limit        Later     "circuits are opened too fast";
    304 TargetBusy        "target_busy"        Limit        Later     "too many circuits wait for the target's answer";
    305 CircuitTimeout    "circuit_timeout"    Network      Elsewhere "the target did not answer the circuit";
    306 CircuitUnknown    "circuit_unknown"    Network      Elsewhere "no such circuit";
    307 RouterLied        "router_lied"        Peer         Elsewhere "the router named another caller than the one that proved itself";
    308 HostingRefused    "hosting_refused"    Limit        Later     "this router does not host that name";
    309 CallingRefused    "calling_refused"    Limit        Later     "this router does not connect that caller";
    310 CircuitNested     "circuit_nested"     Peer         Never     "no circuit runs inside another";
    // What applications see.
    400 Offline           "offline"            Network      Later     "the peer cannot be reached";
    401 Timeout           "timeout"            Network      Later     "the peer did not answer in time";
    402 OutcomeUnknown    "outcome_unknown"    Network      Never     "the connection broke before an answer; the request may or may not have been handled";
    403 Cancelled         "cancelled"          Caller       Never     "cancelled";
    404 NoHandler         "no_handler"         Incompatible Never     "the peer serves no such protocol";
    405 TooLarge          "too_large"          Caller       Never     "larger than a message may be; use a stream";
    406 StreamReset       "stream_reset"       Peer         Never     "the peer ended the stream early";
    407 QueueFull         "queue_full"         Limit        Later     "too much is waiting to be sent to this peer";
    408 NodeClosed        "node_closed"        Caller       Never     "the node is closed";
    409 InvalidArgument   "invalid_argument"   Caller       Never     "an argument outside its range";
    410 HandlerFailed     "handler_failed"     Peer         Later     "the peer's handler failed";
    411 NoRoute           "no_route"           Network      Later     "the name has neither an address nor a router";
    412 ReadOnlyStream    "read_only_stream"   Caller       Never     "this direction of the stream is closed";
    // Budgets of an operator.
    500 ChannelBudget     "channel_budget"     Limit        Later     "the node holds as many connections as it may";
    501 HalfOpenBudget    "half_open_budget"   Limit        Later     "too many unfinished handshakes";
    502 SourceBudget      "source_budget"      Limit        Later     "too many connections from this address";
    503 Overloaded        "overloaded"         Limit        Later     "the node is overloaded";
    504 RequestRate       "request_rate"       Limit        Later     "requests come too fast";
    // The registry and the way to it.
    600 RpcUnreachable    "rpc_unreachable"    Network      Later     "the RPC endpoint does not answer";
    601 RpcStale          "rpc_stale"          Network      Later     "the RPC endpoint's newest block is too old";
    602 RpcDisagree       "rpc_disagree"       Network      Later     "answers about the chain do not agree";
    603 RpcInvalid        "rpc_invalid"        Network      Later     "the RPC endpoint's answer makes no sense";
    604 WrongChain        "wrong_chain"        Caller       Never     "the RPC endpoint serves another chain";
    605 NotARegistry      "not_a_registry"     Caller       Never     "the contract is not a nectar registry";
    606 NameInvalid       "name_invalid"       Caller       Never     "not a valid name";
    607 AddressRefused    "address_refused"    Identity     Never     "the record points at an address that may not be dialled";
    608 TldUnknown        "tld_unknown"        Caller       Never     "no registry is configured for this ending";
    609 DialFailed        "dial_failed"        Network      Elsewhere "the address does not accept a connection";
    610 RecordInvalid     "record_invalid"     Identity     Never     "the registered record makes no sense";
    611 SchemeBlocked     "scheme_blocked"     Incompatible Elsewhere "a page served over https reaches wss:// addresses only";
}

impl Code {
    /// The number on the wire.
    pub const fn as_u16(self) -> u16 {
        self as u16
    }

    /// The name under which applications in every language see it.
    pub fn name(self) -> &'static str {
        self.line(0)
    }

    /// One sentence for people.
    pub fn meaning(self) -> &'static str {
        self.line(1)
    }

    /// Found at once: refusals are told in these words, thousands a second if somebody wants it so.
    fn line(self, which: usize) -> &'static str {
        static ENDS: [u16; 2 * Code::ALL.len()] = ends(Code::LINES);
        let line = 2 * Self::ALL.partition_point(|code| *code < self) + which;
        let begin = line.checked_sub(1).map_or(0, |before| ENDS[before] + 1);
        Self::LINES
            .get(usize::from(begin)..usize::from(ENDS[line]))
            .unwrap_or_default()
    }

    /// The WebSocket close code that carries it (RFC 6455 section 7.4.2: 4000 to 4999 are private).
    pub const fn close_code(self) -> u16 {
        4000 + self.as_u16()
    }
}

/// Where each line of a text ends.
#[allow(
    clippy::cast_possible_truncation,
    reason = "no longer than 64 KiB, or it does not compile"
)]
const fn ends<const N: usize>(text: &str) -> [u16; N] {
    assert!(text.len() <= u16::MAX as usize, "lines end beyond 64 KiB");
    let (mut ends, mut line, mut at) = ([0; N], 0, 0);
    while at < text.len() {
        if text.as_bytes()[at] == b'\n' {
            ends[line] = at as u16;
            line += 1;
        }
        at += 1;
    }
    ends
}

impl core::fmt::Display for Code {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(self.meaning())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_one_number_one_name_and_fits_a_close_code() {
        for (index, code) in Code::ALL.iter().enumerate() {
            assert_eq!(Code::from_u16(code.as_u16()), Some(*code));
            assert!(code.close_code() <= 4999);
            assert!(!code.meaning().is_empty());
            for other in &Code::ALL[index + 1..] {
                assert_ne!(code.name(), other.name());
                assert!(code.as_u16() < other.as_u16(), "the table ascends");
            }
        }
    }

    #[test]
    fn every_code_has_a_line_for_its_name_and_one_for_its_meaning() {
        assert_eq!(Code::LINES.lines().count(), 2 * Code::ALL.len());
        for (code, name, meaning) in [
            (Code::Closed, "closed", "closed on purpose"),
            (
                Code::TooLarge,
                "too_large",
                "larger than a message may be; use a stream",
            ),
            (
                Code::SchemeBlocked,
                "scheme_blocked",
                "a page served over https reaches wss:// addresses only",
            ),
        ] {
            assert_eq!((code.name(), code.meaning()), (name, meaning));
        }
    }
}
