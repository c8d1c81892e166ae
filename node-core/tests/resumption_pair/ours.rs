//! A node that lists dan as its router and dials him; the test plays dan, and whoever is on the way.

use super::{MTU, config, opened};
use crate::common::{self, Actor, NOW, admit};
use bytes::{Bytes, BytesMut};
use nectar_sim::{direct, indirect, name};
use node_core::{
    Code, Instant, Limits, Now,
    channel::{Channel, RECORD},
    node::{Event as NodeEvent, Node, NodeConfig, Output, Pipe},
    registry::RegistryConfig,
    session::{Event, Request, Resumed, Session},
    time::Duration,
    wire::frame::{Attach, AttachStatus, Frame, Response},
};
use std::{
    sync::{Arc, Mutex},
    task::{Wake, Waker},
};

/// The node, and what it has said.
pub struct Ours {
    pub node: Node<u64>,
    pub actor: Actor,
    pub dan: Actor,
    pub now: Instant,
    pub seed: u8,
    pub dialled: Vec<Pipe<u64>>,
    pub answered: Vec<u64>,
    pub failed: Vec<(u64, Code)>,
    pub events: Vec<NodeEvent>,
}

/// dan's end of a session, and the pipe that carries it.
pub struct Dans {
    pub pipe: Pipe<u64>,
    pub session: Session<u64>,
    pub events: Vec<Event<u64>>,
}

impl Ours {
    pub fn new(label: &str) -> Self {
        Self::with(label, |_| ())
    }

    pub fn with(label: &str, configure: impl FnOnce(&mut NodeConfig)) -> Self {
        let (actor, dan) = (Actor::named(label, 1), Actor::named("dan", 2));
        let mut node = NodeConfig::new(actor.local.identity.clone());
        node.registries = vec![RegistryConfig {
            id: common::REGISTRY,
            tld: "nectar".into(),
            rpcs: Vec::new(),
            quorum: None,
        }];
        let eve = Actor::named("eve", 3);
        for (known, mut record) in [
            (&actor, indirect(label, &["dan"])),
            (&dan, direct("dan", 1)),
            (&eve, indirect("eve", &["dan"])),
        ] {
            record.key = known.key();
            node.pinned.push((known.name(), record));
        }
        configure(&mut node);
        Self {
            node: Node::new(node, [9; 32]).unwrap(),
            actor,
            dan,
            now: Instant::from_micros(1_000_000),
            seed: 0,
            dialled: Vec::new(),
            answered: Vec::new(),
            failed: Vec::new(),
            events: Vec::new(),
        }
    }

    pub fn now(&self) -> Now {
        Now {
            mono: self.now,
            wall: NOW,
        }
    }

    pub fn act(&mut self, work: impl FnOnce(&Node<u64>, Now, &mut Vec<Output<u64>>)) {
        let mut out = Vec::new();
        work(&self.node, self.now(), &mut out);
        while !out.is_empty() {
            match out.remove(0) {
                Output::Sign { pipe, request } => {
                    let signature = Some(self.actor.sign(&request));
                    self.node.signed(&pipe, signature, self.now(), &mut out);
                }
                Output::Dial { pipe, .. } => self.dialled.push(pipe),
                Output::Close { pipe, .. } => self.dialled.retain(|open| open.id() != pipe.id()),
                Output::Answered { token, .. } => self.answered.push(token),
                Output::Failed { token, failure } => self.failed.push((token, failure.reason())),
                Output::Event(event) => self.events.push(event),
                _ => {}
            }
        }
    }

    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(10);
            self.act(|node, now, out| node.handle_timeout(now, out));
        }
    }

    pub fn hear(&mut self, pipe: &Pipe<u64>, message: impl Into<Bytes>) {
        let message = message.into();
        self.act(|node, now, out| node.handle_message(pipe, message, now, out));
    }

    pub fn say(&mut self, pipe: &Pipe<u64>) -> Option<Bytes> {
        let mut said = None;
        self.act(|node, now, out| said = node.poll_transmit(pipe, Waker::noop(), now, out));
        said
    }

    pub fn lose(&mut self, pipe: &Pipe<u64>) {
        self.act(|node, now, out| node.closed(pipe, Code::PipeLost, now, out));
    }

    pub fn ask(&mut self, token: u64) {
        self.ask_of("dan", token);
    }

    pub fn ask_of(&mut self, label: &str, token: u64) {
        let request = Request::new("echo.1", b"?".as_slice());
        let timeout = Some(Duration::from_secs(60));
        let to = name(label);
        self.act(|node, now, out| node.request(token, &to, request, timeout, now, out));
    }

    /// dan answers the socket that was dialled first and is still open, and reads our ATTACH.
    pub fn picked_up(&mut self) -> (Pipe<u64>, Channel, Box<Attach>) {
        self.pass(Duration::from_secs(3));
        assert!(!self.dialled.is_empty(), "nobody dials");
        let pipe = self.dialled.remove(0);
        self.seed += 1;
        self.act(|node, _, _| node.opened(&pipe, None));
        let message1 = self.say(&pipe).expect("message 1");
        let (message2, state) = self.dan.answer(&message1, self.seed).unwrap();
        self.hear(&pipe, message2);
        let message3 = self.say(&pipe).expect("message 3");
        let mut channel = admit(state, &message3).unwrap();
        let record = BytesMut::from(&self.say(&pipe).expect("ATTACH")[..]);
        let (attach, _) = opened(&mut channel, record);
        (pipe, channel, attach)
    }

    /// dan accepts a new session over a socket that we dialled.
    pub fn accepted(&mut self, pipe: Pipe<u64>, channel: Channel, attach: &Attach) -> Dans {
        assert_eq!(attach.status, AttachStatus::Fresh);
        let mut events = Vec::new();
        let config = config(&Limits::default(), 7);
        let session = Session::accept(channel, config, attach, self.now, &mut events).unwrap();
        let mut dans = Dans {
            pipe,
            session,
            events,
        };
        self.carry(&mut dans);
        assert!(dans.session.is_attached());
        dans
    }

    pub fn reached(&mut self) -> Dans {
        let (pipe, channel, attach) = self.picked_up();
        self.accepted(pipe, channel, &attach)
    }

    /// dan, the same process, dials us and begins a session.
    pub fn called(&mut self) -> Dans {
        self.seed += 1;
        let pipe = self.node.accept(1, self.now()).unwrap();
        let (dialling, message1) = self.dan.dial(&self.actor, self.seed);
        self.hear(&pipe, message1);
        let message2 = self.say(&pipe).expect("message 2");
        let (message3, channel) = self.dan.conclude(dialling, &message2).unwrap();
        self.hear(&pipe, message3);
        let session = Session::begin(channel, config(&Limits::default(), 7), self.now);
        let mut dans = Dans {
            pipe,
            session,
            events: Vec::new(),
        };
        self.carry(&mut dans);
        assert!(dans.session.is_attached());
        dans
    }

    /// Everything that the two ends have to say to each other.
    pub fn carry(&mut self, dans: &mut Dans) {
        let pipe = dans.pipe.clone();
        loop {
            let mut quiet = true;
            while let Some(record) = dans
                .session
                .poll_transmit(self.now, false, &mut dans.events)
            {
                quiet = false;
                self.hear(&pipe, record.freeze());
            }
            while let Some(record) = self.say(&pipe) {
                quiet = false;
                let record = BytesMut::from(&record[..]);
                let session = &mut dans.session;
                session
                    .handle_record(record, self.now, &mut dans.events)
                    .unwrap();
            }
            if quiet {
                return;
            }
        }
    }

    /// We dial, ask to go on with one of these sessions, and dan agrees.
    pub fn goes_on(&mut self, waiting: &mut Vec<Dans>) -> Dans {
        let (pipe, channel, attach) = self.picked_up();
        assert_eq!(attach.status, AttachStatus::Resume);
        let at = waiting
            .iter()
            .position(|dans| *dans.session.id() == attach.sid);
        let mut dans = waiting.remove(at.expect("one that waits"));
        let now = self.now;
        if !dans.session.is_parked() {
            let parked = dans.session.park(Code::PipeLost, now, &mut dans.events);
            assert!(parked.is_some());
        }
        let events = &mut dans.events;
        let resumed = dans.session.presented(channel, &attach, MTU, now, events);
        assert!(matches!(resumed, Resumed::Done));
        dans.pipe = pipe;
        self.carry(&mut dans);
        self.answers(&mut dans);
        dans
    }

    /// dan answers every request that he has heard.
    pub fn answers(&mut self, dans: &mut Dans) {
        for event in std::mem::take(&mut dans.events) {
            if let Event::Request { id, .. } = event {
                assert!(dans.session.respond(id, Response::Success(None)));
            }
        }
        self.carry(dans);
    }
}

/// What dan answers to an ATTACH, sealed.
pub fn sealed(channel: &mut Channel, answer: Attach) -> Bytes {
    let mut record = BytesMut::from(&[RECORD][..]);
    record.extend_from_slice(&Frame::Attach(Box::new(answer)).encode());
    channel.seal(&mut record).unwrap();
    record.freeze()
}

/// Another thread, in one: it has its turn whenever a pipe is woken.
#[derive(Default)]
pub struct Other {
    work: Mutex<Option<Box<dyn FnOnce() + Send>>>,
}

impl Other {
    pub fn is_to(&self, work: impl FnOnce() + Send + 'static) {
        *self.work.lock().unwrap() = Some(Box::new(work));
    }

    pub fn is_done(&self) -> bool {
        self.work.lock().unwrap().is_none()
    }
}

impl Wake for Other {
    fn wake(self: Arc<Self>) {
        let work = self.work.lock().unwrap().take();
        if let Some(work) = work {
            work();
        }
    }
}
