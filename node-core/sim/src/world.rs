//! What a scenario needs of a world: names in a registry, nodes that run under them, what these ask each other, and
//! time that passes.
//!
//! [`Town`](crate::Town) is such a world in virtual time. The tests of node-native have another one, of real sockets.
//! A scenario ([`scenarios`](mod@crate::scenarios)) cannot tell which of them it runs in.

use crate::{OPEN_ROUTER, chain::View, names::key_of};
use bytes::Bytes;
use ed25519_dalek::SigningKey;
use node_core::{
    Name,
    node::{Counts, Event, Failure, NodeConfig, PeerInfo, Stream},
    registry::{Record, ResolveError, Resolved},
    session::{Request, StreamError},
    time::Duration,
    wire::frame::Response,
};
use std::{
    ops::Range,
    task::{Context, Poll, Waker},
};

/// The token of every operation in a world: a number, unique in it.
pub type Token = u64;

/// A node of the world, by its place: the first one that was started is 0.
pub type NodeId = usize;

/// Longer than anything takes that ends at all.
pub const PATIENCE: Duration = Duration::from_secs(100);

/// The protocol of requests that every node answers with their own payload.
pub const ECHO: &str = "echo.1";

/// The protocol of messages that every node takes.
pub const CHAT: &str = "chat.1";

/// The protocol of streams that every node takes.
pub const FILE: &str = "file.1";

/// Names, nodes and the time.
pub trait World: Sized {
    /// Bytes between two nodes.
    type Stream: ByteStream;

    /// How many times longer than promised anything may take: 1, unless the machine may be busy with something else.
    fn lenience() -> u32;

    // Names.

    /// Registers names, with the keys that [`key_of`] gives them. Direct ones get an address each.
    fn register(&mut self, labels: &[&str], place: Place<'_>);

    /// Changes a registered name's record, for whoever reads the chain from now on, in a block of the height that is
    /// returned.
    fn change(&mut self, label: &str, change: impl FnOnce(&mut Record)) -> u64;

    /// The chain goes another way from this height on, on which nothing was changed.
    fn undo(&mut self, height: u64);

    /// Lets an endpoint show the chain like this from now on, after such a delay. Number 0 is there from the start, honest
    /// and prompt; the next number is that of a new one, of which those know who read the chain and start later.
    fn show(&mut self, endpoint: usize, view: View, delay: Duration);

    /// How often an endpoint was asked so far.
    fn reads(&self, endpoint: usize) -> usize;

    // Nodes.

    /// Starts a node.
    fn start(&mut self, plan: Plan) -> NodeId;

    /// Ends a node, with a word to its peers.
    fn close(&mut self, node: NodeId);

    /// Ends a node without a word: its sockets close, and nobody answers at its address.
    fn kill(&mut self, node: NodeId);

    /// Whether others can reach it.
    fn is_reachable(&self, node: NodeId) -> bool;

    /// Its peers that are connected or wanted.
    fn peers(&self, node: NodeId) -> Vec<PeerInfo>;

    /// How much it holds.
    fn counts(&self, node: NodeId) -> Counts;

    // What they ask.

    /// Begins an operation.
    fn ask(&mut self, from: NodeId, to: &Name, what: Ask) -> Token;

    /// How the operation ended, once, if it has.
    fn ended(&mut self, node: NodeId, token: Token) -> Option<Outcome<Self::Stream>>;

    // What they hear.

    /// What has come in so far.
    fn inbox(&self, node: NodeId) -> Inbox;

    /// Takes the next stream that a peer opened to the node.
    fn accept(&mut self, node: NodeId) -> Option<Accepted<Self::Stream>>;

    // Time.

    /// Lets everything run until `done` or until `limit` has passed; whether it was done.
    fn wait(&mut self, limit: Duration, done: impl FnMut(&mut Self) -> bool) -> bool;

    /// Lets everything run for a while.
    fn pass(&mut self, time: Duration) {
        self.wait(time, |_| false);
    }

    /// Lets everything run until the operation has ended, and returns how.
    ///
    /// # Panics
    /// When it has not ended after [`PATIENCE`].
    fn outcome(&mut self, node: NodeId, token: Token) -> Outcome<Self::Stream> {
        let mut outcome = None;
        self.wait(PATIENCE, |world| {
            outcome = world.ended(node, token);
            outcome.is_some()
        });
        outcome.unwrap_or_else(|| panic!("operation {token} of node {node} never ended"))
    }
}

/// A world in which somebody stands on the way to the nodes' addresses.
pub trait Wire: World {
    /// Harms the sockets that lead to a node's address at this moment.
    fn harm(&mut self, node: NodeId, harm: Harm) {
        self.harm_some(node, 0..self.dialled(node), harm);
    }

    /// Harms some of all the sockets that have ever been opened to a node's address, in that order. Those of one dialler are
    /// known by what [`dialled`](Self::dialled) has said before and after it dialled.
    fn harm_some(&mut self, node: NodeId, which: Range<usize>, harm: Harm);

    /// How many sockets have been opened to its address so far.
    fn dialled(&self, node: NodeId) -> usize;
}

/// What somebody on the way can do to a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Harm {
    /// It ends for both sides, and what was in it is lost.
    Cut,
    /// It ends for one of them, and what was in it is lost. What the other one sends is taken and lost, and nobody is told.
    CutFor(End),
    /// A bit changes in a long piece of what is on its way to the node.
    Alter,
    /// Nothing arrives any more, one way or both, and nobody is told.
    Swallow(Ways),
    /// Nothing more is taken, one way or both: what is to be sent waits, and nobody is told.
    Stall(Ways),
}

/// An end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// That of the node whose address it is.
    Node,
    /// That of whoever has dialled it.
    Dialler,
}

/// In which direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ways {
    /// Towards the node.
    There,
    /// From the node to whoever has dialled it.
    Back,
    /// Either.
    Both,
}

/// How a name is reached.
#[derive(Clone, Copy, Debug)]
pub enum Place<'a> {
    /// At an address of its own.
    Direct,
    /// Through these routers.
    Behind(&'a [&'a str]),
}

/// A node that is to be started. It answers [`ECHO`], and takes [`CHAT`] and [`FILE`].
pub struct Plan {
    /// Its name; `None` for a guest.
    pub label: Option<Box<str>>,
    /// Whose key it has; its own name's unless set.
    pub key: Option<Box<str>>,
    /// At whose address it listens; at that of its own name, if that has one, unless set.
    pub at: Option<Box<str>>,
    /// Whether it reads records from the chain. Otherwise those that are registered by now are pinned.
    pub chain: bool,
    /// Whether its application is stuck: requests stay unanswered, and messages are not taken.
    pub stuck: bool,
    /// The last word about its configuration.
    pub change: Change,
}

/// Changes a configuration.
pub type Change = Box<dyn FnOnce(&mut NodeConfig)>;

impl Plan {
    /// The node of a registered name.
    pub fn named(label: &str) -> Self {
        Self {
            label: Some(label.into()),
            ..Self::guest()
        }
    }

    /// A router that hosts and carries whoever asks, guests included.
    pub fn router(label: &str) -> Self {
        Self::named(label).with(|config| {
            config.router = OPEN_ROUTER;
        })
    }

    /// A node without a name.
    pub fn guest() -> Self {
        Self {
            label: None,
            key: None,
            at: None,
            chain: false,
            stuck: false,
            change: Box::new(|_| ()),
        }
    }

    /// Lets it have another name's key.
    #[must_use]
    pub fn key(self, label: &str) -> Self {
        Self {
            key: Some(label.into()),
            ..self
        }
    }

    /// Lets it listen at another name's address.
    #[must_use]
    pub fn at(self, label: &str) -> Self {
        Self {
            at: Some(label.into()),
            ..self
        }
    }

    /// What it signs with. A guest has a key that signs nothing.
    pub fn signing_key(&self) -> SigningKey {
        let label = self.key.as_ref().or(self.label.as_ref());
        key_of(label.map_or("guest", |label| &**label))
    }

    /// Lets it read the chain.
    #[must_use]
    pub fn on_chain(self) -> Self {
        Self {
            chain: true,
            ..self
        }
    }

    /// Lets its application be stuck.
    #[must_use]
    pub fn stuck(self) -> Self {
        Self {
            stuck: true,
            ..self
        }
    }

    /// Changes its configuration, after everything else.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut NodeConfig) + 'static) -> Self {
        let before = self.change;
        self.change = Box::new(|config| {
            before(config);
            change(config);
        });
        self
    }
}

/// What one node can ask of another.
#[derive(Clone, Debug)]
pub enum Ask {
    /// An answer, within a time of its own if there is one.
    Request(Request, Option<Duration>),
    /// That a message of the protocol [`CHAT`] is taken.
    Message(Bytes),
    /// A stream of the protocol [`FILE`], with metadata.
    Stream(Bytes),
    /// How long a round trip takes.
    Ping,
    /// The other's record.
    Resolve,
}

/// How an operation ended.
#[derive(Debug)]
pub enum Outcome<S = Stream<Token>> {
    /// A request was answered.
    Answered(Response),
    /// A message was delivered.
    Delivered,
    /// There is a session.
    Connected,
    /// A stream is open.
    Opened(S),
    /// A round trip took so long.
    RoundTrip(Duration),
    /// A look-up ended.
    Resolved(Result<Resolved, ResolveError>),
    /// It came to nothing.
    Failed(Failure),
}

/// What came in at a node.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    /// Requests: from whom, and what; those of guests come from nobody.
    pub requests: Vec<(Option<Name>, Request)>,
    /// Messages that the application took: from whom, protocol, payload.
    pub messages: Vec<(Option<Name>, String, Bytes)>,
    /// News.
    pub events: Vec<Event>,
}

/// A stream that a peer opened, and that was accepted.
#[derive(Debug)]
pub struct Accepted<S> {
    /// Who opened it; `None` for a guest.
    pub from: Option<Name>,
    /// What the peer sent along.
    pub metadata: Bytes,
    /// The stream.
    pub stream: S,
}

/// Bytes in both directions. What cannot happen yet is pending, and is tried again: nobody is woken.
pub trait ByteStream {
    /// Queues `data`, all of it, leaving it empty.
    fn write(&mut self, data: &mut Bytes) -> Poll<Result<(), StreamError>>;

    /// The next bytes; `None` at the end.
    fn read(&mut self) -> Poll<Result<Option<Bytes>, StreamError>>;

    /// Says that no more bytes follow. A stream that is dropped before is reset.
    fn finish(&mut self);
}

impl ByteStream for Stream<Token> {
    fn write(&mut self, data: &mut Bytes) -> Poll<Result<(), StreamError>> {
        self.poll_write(data, &mut Context::from_waker(Waker::noop()))
    }

    fn read(&mut self) -> Poll<Result<Option<Bytes>, StreamError>> {
        self.poll_read(&mut Context::from_waker(Waker::noop()))
    }

    fn finish(&mut self) {
        Stream::finish(self);
    }
}
