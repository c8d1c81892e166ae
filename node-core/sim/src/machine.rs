//! A node of a simulation, and what its driver and its application do.

use crate::{
    network::{Happening, Socket},
    simulation::Simulation,
    world::{NodeId, Outcome, Token},
};
use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use node_core::{
    Code, Name,
    node::{Event, Failure, Incoming, IncomingMessage, IncomingStream, Node, Output},
    registry::Host,
    session::Request,
    time::Duration,
    wire::frame::Response,
};
use std::collections::HashMap;

/// How a node answers requests.
pub type Handler = Box<dyn FnMut(&Request, Option<&Name>) -> Option<Response>>;

/// One node and everything that has happened to it.
pub struct Machine {
    /// The node.
    pub node: Node<Token>,
    /// Its key.
    pub key: SigningKey,
    /// Outcomes by token, until they are taken.
    pub outcomes: HashMap<Token, Outcome>,
    /// Requests that came in, for tests to look at.
    pub requests: Vec<(Option<Name>, Request)>,
    /// Messages that came in and were confirmed: from, protocol, payload.
    pub messages: Vec<(Option<Name>, String, Bytes)>,
    /// Messages that are kept unconfirmed while [`hold_messages`](Self::hold_messages) is set.
    pub held: Vec<IncomingMessage<Token>>,
    /// Whether messages are kept unconfirmed.
    pub hold_messages: bool,
    /// Requests that are kept unanswered while [`hold_requests`](Self::hold_requests) is set.
    pub held_requests: Vec<Incoming<Token>>,
    /// Whether requests are kept unanswered.
    pub hold_requests: bool,
    /// Streams that peers opened.
    pub streams: Vec<IncomingStream<Token>>,
    /// News.
    pub events: Vec<Event>,
    /// Answers requests; an echo unless replaced.
    pub handler: Handler,
    /// Its clock minus the simulation's, in milliseconds.
    pub skew_ms: i64,
    /// Whether the signer works.
    pub signs: bool,
    /// Whether the process is gone: it neither hears nor says anything.
    pub dead: bool,
    /// What it has not heard of because it sleeps; `None` while it is awake.
    pub(crate) missed: Option<Vec<Happening>>,
    /// Where it listens.
    pub(crate) address: Option<(Host, u16)>,
    /// Round trips that are to be measured, or are being so.
    pub(crate) pings: Vec<(Token, Name)>,
}

impl Machine {
    pub(crate) fn new(node: Node<Token>, key: SigningKey, address: Option<(Host, u16)>) -> Self {
        Self {
            node,
            key,
            outcomes: HashMap::new(),
            requests: Vec::new(),
            messages: Vec::new(),
            held: Vec::new(),
            hold_messages: false,
            held_requests: Vec::new(),
            hold_requests: false,
            streams: Vec::new(),
            events: Vec::new(),
            handler: Box::new(|request, _| Some(Response::Success(Some(request.payload.clone())))),
            skew_ms: 0,
            signs: true,
            dead: false,
            missed: None,
            address,
            pings: Vec::new(),
        }
    }
}

impl Simulation {
    pub(crate) fn outputs(&mut self, id: NodeId, outputs: Vec<Output<Token>>) {
        for output in outputs {
            self.output(id, output);
        }
    }

    fn output(&mut self, id: NodeId, output: Output<Token>) {
        match output {
            Output::Dial { pipe, address } => {
                self.sockets.push(Socket::new(id, pipe, None));
                let (dialler, latency) = (self.sockets.len() - 1, self.latency);
                self.later(latency, Happening::Arrive { dialler, address });
            }
            Output::Close { pipe, code } => {
                let found = self
                    .sockets
                    .iter()
                    .position(|s| s.owner == id && s.pipe.id() == pipe.id());
                if let Some(socket) = found {
                    // What is left to say goes out before the socket closes.
                    self.flush_last(socket);
                    self.close(socket, code);
                }
            }
            Output::Fetch {
                id: fetch,
                url,
                body,
            } => {
                let now = self.now_of(id);
                let (delay, answer) = (self.rpc)(&url, &body, now);
                self.later(
                    delay,
                    Happening::Answer {
                        node: id,
                        id: fetch,
                        answer,
                    },
                );
            }
            Output::Sign { pipe, request } => {
                let machine = &self.machines[id];
                let signature = machine
                    .signs
                    .then(|| machine.key.sign(&request.message()).to_bytes());
                self.act(id, |node, now, out| node.signed(&pipe, signature, now, out));
            }
            Output::Answered { token, response } => {
                self.ended(id, token, Outcome::Answered(response))
            }
            Output::Delivered { token } => self.ended(id, token, Outcome::Delivered),
            Output::Connected { token } => self.connected(id, token),
            Output::Opened { token, stream } => self.ended(id, token, Outcome::Opened(stream)),
            Output::Resolved { token, result } => self.ended(id, token, Outcome::Resolved(result)),
            Output::Failed { token, failure } => self.ended(id, token, Outcome::Failed(failure)),
            Output::Request(incoming) => {
                let machine = &mut self.machines[id];
                let from = incoming.from().cloned();
                machine
                    .requests
                    .push((from.clone(), incoming.request.clone()));
                if machine.hold_requests {
                    machine.held_requests.push(incoming);
                } else if let Some(response) = (machine.handler)(&incoming.request, from.as_ref()) {
                    incoming.respond(response);
                }
            }
            Output::Cancelled { .. } => {}
            Output::Message(message) => {
                let machine = &mut self.machines[id];
                if machine.hold_messages {
                    machine.held.push(message);
                } else {
                    let from = message.from().cloned();
                    machine.messages.push((
                        from,
                        message.protocol.to_string(),
                        message.payload.clone(),
                    ));
                }
            }
            Output::Stream(stream) => self.machines[id].streams.push(stream),
            Output::Event(event) => {
                if let Event::Latency { name, round_trip } = &event {
                    self.measured(id, name, *round_trip);
                }
                self.machines[id].events.push(event);
            }
        }
    }

    fn ended(&mut self, id: NodeId, token: Token, outcome: Outcome) {
        let earlier = self.machines[id].outcomes.insert(token, outcome);
        assert!(earlier.is_none(), "operation {token} ended twice");
    }

    fn connected(&mut self, id: NodeId, token: Token) {
        let pings = self.machines[id].pings.iter();
        let Some((_, to)) = pings.clone().find(|(ping, _)| *ping == token).cloned() else {
            return self.ended(id, token, Outcome::Connected);
        };
        if !self.act(id, |node, now, _| node.ping(&to, now)) {
            let failure = Failure::offline(Code::PipeLost);
            self.ended(id, token, Outcome::Failed(failure));
        }
    }

    fn measured(&mut self, id: NodeId, whose: &Name, round_trip: Duration) {
        let pings = self.machines[id]
            .pings
            .extract_if(.., |(_, to)| to == whose);
        for (token, _) in pings.collect::<Vec<_>>() {
            self.ended(id, token, Outcome::RoundTrip(round_trip));
        }
    }
}
