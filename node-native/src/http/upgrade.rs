//! From a request to a WebSocket (RFC 6455 section 4.2).

use crate::{
    config::{Allow, Listen},
    stream::{READ_BUFFER, Socket, Stream, socket_config},
};
use bytes::Bytes;
use hyper::{
    HeaderMap, Request, Response,
    body::{Body as _, Incoming},
    header::{self, HeaderName, HeaderValue},
    http::{Method, StatusCode, Version},
    upgrade::OnUpgrade,
};
use hyper_util::rt::TokioIo;
use node_core::wire::upgrade::{SUBPROTOCOL, SUBPROTOCOL_FIRST, first_among};
use std::{
    net::{IpAddr, SocketAddr},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio_tungstenite::tungstenite::{handshake::derive_accept_key, protocol::Role};

/// What a connection leaves behind when it becomes a WebSocket.
pub(super) struct Seat {
    pub(super) peer: SocketAddr,
    granted: Mutex<Option<Granted>>,
}

/// What an upgrade was granted with.
struct Granted {
    /// The connection, once the answer is written.
    upgraded: OnUpgrade,
    /// Whether a page asked for it that this node did not serve.
    foreign: bool,
    /// Message 1 of the handshake, if it came along.
    first: Option<Bytes>,
}

impl Seat {
    pub(super) fn new(peer: SocketAddr) -> Self {
        Self {
            peer,
            granted: Mutex::default(),
        }
    }

    /// The WebSocket that the connection became, if it became one, whether a page that is not ours asked for it, and message 1.
    /// To be called when nothing serves the connection any more.
    pub(super) async fn socket(&self) -> Option<(Socket, bool, Option<Bytes>)> {
        let Granted {
            upgraded,
            foreign,
            first,
        } = self.lock().take()?;
        let peer = self.peer;
        let upgraded = upgraded
            .await
            .inspect_err(|error| tracing::debug!(%peer, %error, "upgrade"))
            .ok()?;
        // Back to the concrete stream: no allocation and no virtual call per read from here on.
        let Ok(parts) = upgraded.downcast::<TokioIo<Stream>>() else {
            tracing::error!(%peer, "an upgraded connection of foreign type");
            return None;
        };
        let config = Some(socket_config(READ_BUFFER));
        let mut stream = parts.io.into_inner();
        stream.set_patience(None);
        let socket =
            Socket::from_partially_read(stream, parts.read_buf.to_vec(), Role::Server, config)
                .await;
        Some((socket, foreign, first))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Granted>> {
        self.granted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a request is no upgrade that we can do: status and a sentence for whoever debugs the other side.
pub(super) type Refusal = (StatusCode, &'static str);

/// Answers 101 and leaves the connection at the `seat`, or says what is missing.
pub(super) fn upgrade(
    request: Request<Incoming>,
    listen: &Listen,
    seat: &Seat,
) -> Result<Response<Bytes>, Refusal> {
    let headers = request.headers();
    if request.method() != Method::GET || request.version() != Version::HTTP_11 {
        return Err((
            StatusCode::METHOD_NOT_ALLOWED,
            "a WebSocket is opened by GET over HTTP/1.1",
        ));
    }
    // Nothing would be a WebSocket before a body has come, and it need not come.
    if !request.body().is_end_stream() {
        return Err((StatusCode::BAD_REQUEST, "an upgrade has no body"));
    }
    if !has_token(headers, &header::UPGRADE, "websocket")
        || !has_token(headers, &header::CONNECTION, "upgrade")
    {
        return Err((
            StatusCode::UPGRADE_REQUIRED,
            "this path is for WebSockets: send Connection: Upgrade and Upgrade: websocket",
        ));
    }
    if headers
        .get(header::SEC_WEBSOCKET_VERSION)
        .is_none_or(|version| version != "13")
    {
        return Err((
            StatusCode::UPGRADE_REQUIRED,
            "only WebSocket version 13 is spoken here",
        ));
    }
    let key = headers
        .get(header::SEC_WEBSOCKET_KEY)
        .map(HeaderValue::as_bytes);
    // 16 bytes in Base64.
    let Some(key) = key.filter(|key| key.len() == 24 && key.ends_with(b"==")) else {
        return Err((
            StatusCode::BAD_REQUEST,
            "Sec-WebSocket-Key is missing or malformed",
        ));
    };
    if !has_token(headers, &header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL) {
        return Err((
            StatusCode::BAD_REQUEST,
            "the subprotocol nectar.1 must be offered",
        ));
    }
    let origin = headers
        .get(header::ORIGIN)
        .and_then(|origin| origin.to_str().ok())
        .map(str::to_owned);
    let is_page = headers.contains_key(header::ORIGIN);
    if is_page && !is_allowed(origin.as_ref(), headers, listen) {
        return Err((
            StatusCode::FORBIDDEN,
            "pages of this origin may not use this node",
        ));
    }
    let accept = HeaderValue::try_from(derive_accept_key(key))
        .map_err(|_| (StatusCode::BAD_REQUEST, "Sec-WebSocket-Key is malformed"))?;
    let foreign = is_page && !origin.is_some_and(|origin| is_own(&origin, headers, listen));
    let first = first_among(tokens(headers, &header::SEC_WEBSOCKET_PROTOCOL)).map(Bytes::from);
    let answer = match first {
        Some(_) => SUBPROTOCOL_FIRST,
        None => SUBPROTOCOL,
    };
    *seat.lock() = Some(Granted {
        upgraded: hyper::upgrade::on(request),
        foreign,
        first,
    });

    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    // One of two constants: nothing that came along is sent back.
    headers.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(answer),
    );
    Ok(response)
}

fn is_allowed(origin: Option<&String>, headers: &HeaderMap, listen: &Listen) -> bool {
    match (&listen.origins, origin) {
        (Allow::Anyone, _) => true,
        (_, None) => false,
        (origins, Some(origin)) => is_own(origin, headers, listen) || origins.allows(origin),
    }
}

/// Whether this node served the page of `origin`: under the host that this request is for, and a host that is ours. A page
/// elsewhere can let its own name point at this machine later, and then asks "its own" host too. It cannot do so with an
/// address, nor with a name for which our certificate is good.
pub(super) fn is_own(origin: &str, headers: &HeaderMap, listen: &Listen) -> bool {
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    // Under TLS a page that came without is another's; without, a proxy may have added TLS.
    let origin = origin.strip_prefix("https://").or_else(|| {
        let plain = origin.strip_prefix("http://");
        plain.filter(|_| listen.tls.is_none())
    });
    let Some(host) = host.filter(|host| origin == Some(host)) else {
        return false;
    };
    let host = without_port(host);
    let public = listen.public.as_ref().map(|(public, _)| public.to_string());
    listen.tls.is_some()
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok()
        || public.is_some_and(|public| public == host)
}

/// The host of a `Host` header, an IPv6 address without its brackets.
pub(super) fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    }
}

fn has_token(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    tokens(headers, name).any(|token| token.eq_ignore_ascii_case(wanted))
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter();
    let values = values.filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',').map(str::trim))
}
