//! From the core's values to plain JavaScript data, in the shapes of `js/types.ts`.

use js_sys::{Array, Object, Reflect, Uint8Array};
use node_core::{
    Code, Name,
    node::{Failure, Node, PeerState, Route},
    registry::{NameParseError, Provenance, ResolveError, Resolved, Routing},
    session::StreamError,
    time::Duration,
    wire::frame::Response,
};
use std::fmt::Write as _;
use wasm_bindgen::prelude::*;

/// An object with these properties; those that are `undefined` are left out.
pub(crate) fn object<const N: usize>(fields: [(&str, JsValue); N]) -> JsValue {
    from_fields(&fields)
}

fn from_fields(fields: &[(&str, JsValue)]) -> JsValue {
    let object = Object::new();
    for (name, value) in fields {
        if !value.is_undefined() {
            // Setting a property of a plain object never fails.
            let _ = Reflect::set(&object, &(*name).into(), value);
        }
    }
    object.into()
}

/// `undefined` for nothing.
pub(crate) fn optional<T: Into<JsValue>>(value: Option<T>) -> JsValue {
    value.map_or(JsValue::UNDEFINED, Into::into)
}

pub(crate) fn bytes(bytes: &[u8]) -> JsValue {
    Uint8Array::from(bytes).into()
}

pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_micros() as f64 / 1000.0
}

/// `0x` and the bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("0x"), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// An error as plain data: what `NodeError.from` reads.
pub(crate) fn error(code: Code, message: &str, retry: Option<Duration>) -> JsValue {
    object([
        ("code", code.as_u16().into()),
        ("name", code.name().into()),
        ("message", message.into()),
        ("retryAfterMs", optional(retry.map(millis))),
    ])
}

/// An error that needs no more words than its meaning.
pub(crate) fn plain(code: Code) -> JsValue {
    error(code, code.meaning(), None)
}

/// An argument that makes no sense.
pub(crate) fn invalid(message: &str) -> JsValue {
    error(Code::InvalidArgument, message, None)
}

/// Named after the reason beneath; `kind` is what applications distinguish, mostly `offline` or `timeout`.
pub(crate) fn failure(failure: &Failure) -> JsValue {
    let reason = failure.reason();
    object([
        ("code", reason.as_u16().into()),
        ("name", reason.name().into()),
        ("message", failure.to_string().into()),
        ("kind", failure.code.name().into()),
        ("retryAfterMs", optional(failure.retry.map(millis))),
    ])
}

pub(crate) fn not_a_name(text: &str, why: &NameParseError) -> JsValue {
    error(why.code(), &format!("\"{text}\": {why}"), None)
}

pub(crate) fn unresolved(why: &ResolveError) -> JsValue {
    error(why.code, &why.to_string(), why.retry)
}

/// A stream that the peer ended carries the peer's own code.
pub(crate) fn stream_error(why: StreamError) -> JsValue {
    match why {
        StreamError::Reset(number) | StreamError::Stopped(number) => {
            let known = Code::from_u16(number);
            let name = known.map_or_else(|| format!("code_{number}"), |code| code.name().into());
            object([
                ("code", number.into()),
                ("name", name.into()),
                ("message", why.to_string().into()),
                ("kind", Code::StreamReset.name().into()),
            ])
        }
        StreamError::Lost(code) => plain(code),
        StreamError::Finished => plain(Code::ReadOnlyStream),
    }
}

pub(crate) fn answer(response: &Response) -> JsValue {
    match response {
        Response::Success(data) => object([
            ("kind", "success".into()),
            ("data", optional(data.as_ref().map(|data| bytes(data)))),
        ]),
        Response::Protocol(data) => object([("kind", "protocol".into()), ("data", bytes(data))]),
        Response::Error { code, message } => object([
            ("kind", "error".into()),
            ("code", (*code).into()),
            ("message", (&**message).into()),
        ]),
    }
}

pub(crate) fn resolved<T>(node: &Node<T>, resolved: &Resolved) -> JsValue {
    let record = &resolved.record;
    // Routers are names of the same registry.
    let routers: Array = record
        .routers
        .iter()
        .map(|label| {
            let name = Name {
                registry: resolved.name.registry,
                label: label.clone(),
            };
            JsValue::from(node.display_name(&name))
        })
        .collect();
    let owner = (resolved.how != Provenance::Pinned).then(|| hex(&record.owner));
    object([
        ("name", node.display_name(&resolved.name).into()),
        ("key", bytes(&record.key)),
        ("owner", optional(owner)),
        ("epoch", record.epoch.into()),
        ("version", record.version.into()),
        ("routing", optional(record.routing.as_ref().map(routing))),
        ("routers", routers.into()),
        ("how", how(&resolved.how).into()),
    ])
}

fn routing(routing: &Routing) -> JsValue {
    let schemes: Array = [("ws", routing.ws), ("wss", routing.wss)]
        .into_iter()
        .filter(|(_, served)| *served)
        .map(|(scheme, _)| JsValue::from(scheme))
        .collect();
    object([
        ("host", routing.host.to_string().into()),
        ("port", routing.port.into()),
        ("schemes", schemes.into()),
    ])
}

fn how(how: &Provenance) -> String {
    match how {
        Provenance::Pinned => "pinned".into(),
        Provenance::OneRpc => "one RPC".into(),
        Provenance::Quorum { agreeing, of } => format!("{agreeing} of {of} RPCs"),
    }
}

/// "direct", or "via " and the router's name.
pub(crate) fn route<T>(node: &Node<T>, route: &Route) -> String {
    match route {
        Route::Direct => "direct".into(),
        Route::Via(router) => format!("via {}", node.display_name(router)),
    }
}

/// A peer's state, or a router's, with `type` if it is an event.
pub(crate) fn peer<T>(
    node: &Node<T>,
    name: &Name,
    router: bool,
    state: &PeerState,
    round_trip: Option<Duration>,
    event: bool,
) -> JsValue {
    let (text, over, known, problem) = match state {
        PeerState::Connecting => ("connecting", None, None, None),
        PeerState::Online {
            route: over,
            how: known,
            ..
        } => {
            let over = (!router).then(|| route(node, over));
            let known = known.as_ref().filter(|_| !router).map(how);
            ("online", over, known, None)
        }
        PeerState::Interrupted { reason } => {
            let problem = error(*reason, reason.meaning(), None);
            ("interrupted", None, None, Some(problem))
        }
        PeerState::Offline { reason, retry } => {
            let text = if router && is_refusal(*reason) {
                "refused"
            } else {
                "offline"
            };
            let problem =
                (*reason != Code::Closed).then(|| error(*reason, reason.meaning(), *retry));
            (text, None, None, problem)
        }
    };
    let kind = event.then_some(if router { "router" } else { "peer" });
    object([
        ("type", optional(kind)),
        ("name", node.display_name(name).into()),
        ("state", text.into()),
        ("route", optional(over)),
        ("latencyMs", optional(round_trip.map(millis))),
        ("how", optional(known)),
        ("error", optional(problem)),
    ])
}

/// Whether a router answered and does not want us: trying harder changes nothing.
fn is_refusal(code: Code) -> bool {
    matches!(
        code,
        Code::HostingRefused
            | Code::CallingRefused
            | Code::NotHosted
            | Code::NotAllowed
            | Code::GuestRefused
            | Code::Banned
    )
}

/// Whether others can reach us, and if not, what is wrong with our name.
pub(crate) fn identity(state: &str, problem: Option<Code>) -> JsValue {
    object([
        ("type", "identity".into()),
        ("state", state.into()),
        ("error", optional(problem.map(plain))),
    ])
}

/// A line for whoever wants to know more.
pub(crate) fn log(level: &str, message: &str) -> JsValue {
    object([
        ("type", "log".into()),
        ("level", level.into()),
        ("message", message.into()),
    ])
}
