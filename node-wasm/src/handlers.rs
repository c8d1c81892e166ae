//! The application's callbacks: who answers requests, takes messages and streams, and hears the news.

use crate::{
    convert::{bytes, object, optional},
    driver::Token,
    scope::{console_error, field, pause},
    stream::WasmStream,
};
use bytes::Bytes;
use js_sys::{Function, Promise, Uint8Array};
use node_core::{
    Code, Name,
    node::{Incoming, IncomingMessage, IncomingStream, Node},
    sorted::Map,
    wire::frame::Response,
};
use std::{cell::RefCell, collections::VecDeque};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::{JsFuture, spawn_local};

/// Most events that wait for the application to listen; beyond it the oldest go.
const WAITING: usize = 256;

type ByProtocol = RefCell<Map<String, Function>>;

/// All callbacks of one node. A function is cloned out of its cell before it is called: it may register another.
#[derive(Default)]
pub(crate) struct Handlers {
    pub(crate) requests: ByProtocol,
    pub(crate) messages: ByProtocol,
    pub(crate) streams: ByProtocol,
    events: RefCell<Option<Function>>,
    waiting: RefCell<VecDeque<JsValue>>,
}

impl Handlers {
    /// Sends all events to `sink`, with those that it missed first.
    pub(crate) fn listen(&self, sink: Function) {
        self.events.replace(Some(sink));
        let waiting = self.waiting.take();
        for event in waiting {
            self.tell(&event);
        }
    }

    pub(crate) fn tell(&self, event: &JsValue) {
        let sink = self.events.borrow().clone();
        match sink {
            Some(sink) => report(sink.call1(&JsValue::UNDEFINED, event)),
            None => {
                let mut waiting = self.waiting.borrow_mut();
                if waiting.len() == WAITING {
                    waiting.pop_front();
                }
                waiting.push_back(event.clone());
            }
        }
    }

    /// Has a request answered.
    pub(crate) fn request(&self, node: &Node<Token>, incoming: Incoming<Token>) {
        let Some(handler) = find(&self.requests, &incoming.request.protocol) else {
            incoming.respond(Response::refuse(Code::NoHandler));
            return;
        };
        let metadata = incoming.request.metadata.as_ref().map(|data| bytes(data));
        let request = object([
            ("from", from(node, incoming.from())),
            ("payload", bytes(&incoming.request.payload)),
            ("metadata", optional(metadata)),
        ]);
        let answer = call(&handler, &request);
        spawn_local(async move {
            incoming.respond(response(answer.await));
        });
    }

    /// Hands a message over, and confirms it once the application has taken it. One that nobody takes is not confirmed:
    /// it is kept until its sender has given up, within the inbox that the sender was granted.
    pub(crate) fn message(&self, node: &Node<Token>, message: IncomingMessage<Token>) {
        let called = find(&self.messages, &message.protocol).map(|handler| {
            let content = object([
                ("from", from(node, message.from())),
                ("payload", bytes(&message.payload)),
            ]);
            call(&handler, &content)
        });
        let patience = node.config().limits.request_deadline;
        spawn_local(async move {
            if let Some(called) = called {
                match called.await {
                    Ok(_) => return message.taken(),
                    Err(thrown) => console_error("a message was not taken:", &thrown),
                }
            }
            pause(patience).await;
            drop(message);
        });
    }

    /// Hands a stream over, or refuses it where nobody takes such streams.
    pub(crate) fn stream(&self, node: &Node<Token>, incoming: IncomingStream<Token>) {
        let Some(handler) = find(&self.streams, &incoming.protocol) else {
            return incoming.refuse(Code::NoHandler.as_u16());
        };
        let peer = incoming.from().map(|name| node.display_name(name));
        let protocol = incoming.protocol.to_string();
        let metadata = Some(incoming.metadata.clone()).filter(|metadata| !metadata.is_empty());
        if let Some(stream) = incoming.accept() {
            let stream = WasmStream::new(stream, peer, protocol, metadata);
            report(handler.call1(&JsValue::UNDEFINED, &stream.into()));
        }
    }

    /// Forgets all of them.
    pub(crate) fn clear(&self) {
        let former = (
            self.requests.take(),
            self.messages.take(),
            self.streams.take(),
            self.events.take(),
            self.waiting.take(),
        );
        drop(former);
    }
}

fn find(handlers: &ByProtocol, protocol: &str) -> Option<Function> {
    handlers.borrow().get(protocol).cloned()
}

fn from(node: &Node<Token>, peer: Option<&Name>) -> JsValue {
    peer.map_or(JsValue::NULL, |name| node.display_name(name).into())
}

/// Calls now and waits later, whether the function is asynchronous or not.
fn call(
    handler: &Function,
    argument: &JsValue,
) -> impl Future<Output = Result<JsValue, JsValue>> + use<> {
    let called = handler.call1(&JsValue::UNDEFINED, argument);
    async move { JsFuture::from(Promise::resolve(&called?)).await }
}

/// What a handler's end means to the one who asked.
fn response(ended: Result<JsValue, JsValue>) -> Response {
    let answer = match ended {
        Ok(answer) => answer,
        Err(thrown) => return refusal(&thrown),
    };
    if answer.is_undefined() {
        return Response::Success(None);
    }
    if let Some(data) = data(&answer) {
        return Response::Success(Some(data));
    }
    let kind = field(&answer, "kind").and_then(|kind| kind.as_string());
    let body = field(&answer, "data");
    let known = match (kind.as_deref(), body.as_ref().map(data)) {
        (Some("success"), None) => Some(Response::Success(None)),
        (Some("success"), Some(Some(body))) => Some(Response::Success(Some(body))),
        (Some("protocol"), None) => Some(Response::Protocol(Bytes::new())),
        (Some("protocol"), Some(Some(body))) => Some(Response::Protocol(body)),
        _ => None,
    };
    known.unwrap_or_else(|| {
        console_error(
            "a request's handler answered neither with a Uint8Array nor with an Answer:",
            &answer,
        );
        Response::refuse(Code::HandlerFailed)
    })
}

/// An error in the shape of the table is passed on; anything else is our own affair.
fn refusal(thrown: &JsValue) -> Response {
    let code = field(thrown, "code")
        .and_then(|code| code.as_f64())
        .filter(|code| code.fract() == 0.0 && (0.0..=f64::from(u16::MAX)).contains(code));
    match (
        code,
        field(thrown, "message").and_then(|message| message.as_string()),
    ) {
        (Some(code), Some(message)) => Response::Error {
            code: code as u16,
            message: message.into(),
        },
        _ => {
            console_error("a request's handler failed:", thrown);
            Response::refuse(Code::HandlerFailed)
        }
    }
}

fn data(value: &JsValue) -> Option<Bytes> {
    value
        .dyn_ref::<Uint8Array>()
        .map(|data| data.to_vec().into())
}

/// What an application's callback throws is shown, since nobody else hears of it.
fn report<T>(called: Result<T, JsValue>) {
    if let Err(thrown) = called {
        console_error("a nectar node's callback failed:", &thrown);
    }
}
