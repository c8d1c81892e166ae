//! Every answer that is not a WebSocket.

use super::{
    Page,
    upgrade::{Refusal, Seat, is_own, upgrade, without_port},
};
use crate::{
    config::{Allow, Config, Listen, parse_address},
    metrics::Metrics,
};
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    HeaderMap, Request, Response,
    body::Incoming,
    header::{self, HeaderName, HeaderValue},
    http::{Method, StatusCode},
};
use node_core::{registry::RegistryConfig, wire::upgrade::PATH};
use serde::{Deserialize, Serialize};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// Gives test money to an address; the transaction's hash, or why not.
pub type FaucetFn =
    Arc<dyn Fn([u8; 20]) -> BoxFuture<'static, Result<String, String>> + Send + Sync>;
/// What `nectar status` shows.
pub type StatusFn = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;

/// Largest body of a request, in bytes; only the faucet reads one.
const BODY_MAX: usize = 1024;
const BODY_TIMEOUT: Duration = Duration::from_secs(5);
/// When to come back, in seconds, to a node that has too many connections.
const COME_BACK: &str = "5";

/// What there is to serve beside WebSockets.
#[derive(Default)]
pub struct Site {
    /// The page; without it `/` explains what this is.
    pub page: Option<Page>,
    /// For pages and other nodes.
    pub well_known: WellKnown,
    /// What `/metrics` shows.
    pub metrics: Arc<Metrics>,
    /// What `/status` shows.
    pub status: Option<StatusFn>,
    /// Serves `/faucet`.
    pub faucet: Option<FaucetFn>,
}

/// `/.well-known/nectar.json`: what a page pins at its first use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WellKnown {
    /// Version of this document: 1.
    pub version: u32,
    /// The node's name as people write it, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Registries whose names are spoken here.
    pub registries: Vec<PublicRegistry>,
    /// Routers on offer.
    pub routers: Vec<PublicRouter>,
    /// The page that is served here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<PublicPage>,
    /// Path of the faucet, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub faucet: Option<String>,
    /// A node that answers `echo.1` requests, to try things on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo: Option<String>,
}

impl WellKnown {
    /// What the configuration says; `routers` are those that this node offers, itself among them if it is one.
    pub fn of(config: &Config, routers: Vec<PublicRouter>) -> Self {
        Self {
            version: 1,
            node: config
                .node
                .name
                .as_ref()
                .map(|name| config.display_name(name)),
            registries: config.registries.iter().map(PublicRegistry::of).collect(),
            routers,
            echo: config
                .offer
                .echo
                .as_ref()
                .map(|name| config.display_name(name)),
            ..Self::default()
        }
    }
}

/// A registry as pages see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublicRegistry {
    /// Ending of its names.
    pub tld: String,
    /// EIP-155 chain id.
    pub chain_id: u64,
    /// `0x` and 40 hex digits.
    pub contract: String,
    /// RPC endpoints that browsers may use.
    pub rpcs: Vec<String>,
    /// Endpoints that must agree.
    pub quorum: u8,
}

impl PublicRegistry {
    /// As configured.
    pub fn of(registry: &RegistryConfig) -> Self {
        Self {
            tld: registry.tld.to_string(),
            chain_id: registry.id.chain_id,
            contract: format!("0x{}", hex::encode(registry.id.contract)),
            rpcs: registry.rpcs.iter().map(ToString::to_string).collect(),
            quorum: registry.effective_quorum(),
        }
    }
}

/// A router as pages see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicRouter {
    /// Its name as people write it.
    pub name: String,
    /// Where browsers reach it: `ws://` or `wss://`, host and port.
    pub url: String,
    /// Its number in the registry, which records list.
    pub index: u32,
}

/// The page, so that whoever cares can compare it with a build of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicPage {
    /// SHA-256 in hex, as `nectar run` prints it.
    pub hash: String,
}

/// What proxies add to requests that they pass on. Not all do, so they must be told to keep these paths to themselves.
const PROXIED: [&str; 4] = ["forwarded", "via", "x-forwarded-for", "x-real-ip"];

/// Where the faucet is, on nodes that have one.
const FAUCET: &str = "/faucet";

/// A site, with everything computed that does not depend on a request.
pub(super) struct Prepared {
    site: Site,
    well_known: Bytes,
    policy: HeaderValue,
}

impl Prepared {
    pub(super) fn new(mut site: Site, listen: &Listen) -> Self {
        site.well_known.version = 1;
        site.well_known.page = site.page.as_ref().map(|page| PublicPage {
            hash: page.hash().to_owned(),
        });
        site.well_known.faucet = site.faucet.as_ref().map(|_| FAUCET.to_owned());
        let well_known = serde_json::to_vec_pretty(&site.well_known)
            .unwrap_or_default()
            .into();
        let policy = content_security_policy(&site.well_known, &listen.page_connect);
        Self {
            site,
            well_known,
            policy,
        }
    }

    pub(super) async fn answer(
        &self,
        request: Request<Incoming>,
        listen: &Listen,
        seat: &Seat,
    ) -> Response<Full<Bytes>> {
        let mut response = match self.route(request, listen, seat).await {
            Ok(response) => response,
            Err((status, problem)) => {
                let mut response = plain(status, problem.to_owned() + "\n");
                if status == StatusCode::UPGRADE_REQUIRED {
                    let headers = response.headers_mut();
                    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
                    headers.insert(
                        header::SEC_WEBSOCKET_VERSION,
                        HeaderValue::from_static("13"),
                    );
                }
                response
            }
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            self.harden(response.headers_mut());
        }
        response.map(Full::new)
    }

    /// What is answered, whatever was asked, where there are too many connections or requests.
    pub(super) fn busy(&self) -> Response<Full<Bytes>> {
        let text = "Too many connections, from this address or in all, or too many requests.\n";
        let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, text);
        let headers = response.headers_mut();
        headers.insert(header::RETRY_AFTER, HeaderValue::from_static(COME_BACK));
        self.harden(headers);
        response.map(Full::new)
    }

    async fn route(
        &self,
        request: Request<Incoming>,
        listen: &Listen,
        seat: &Seat,
    ) -> Result<Response<Bytes>, Refusal> {
        let path = request.uri().path();
        if path == PATH {
            return upgrade(request, listen, seat);
        }
        if path == FAUCET {
            return self.faucet(request, listen).await;
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return Err((
                StatusCode::METHOD_NOT_ALLOWED,
                "only GET and HEAD are answered here",
            ));
        }
        match path {
            "/healthz" => Ok(plain(StatusCode::OK, "ok\n")),
            "/.well-known/nectar.json" => {
                let mut response = json(self.well_known.clone());
                // Public, and read by pages of other origins that want to use this router.
                response.headers_mut().insert(
                    header::ACCESS_CONTROL_ALLOW_ORIGIN,
                    HeaderValue::from_static("*"),
                );
                Ok(response)
            }
            "/metrics" => {
                Self::only_from_here(&request, seat.peer)?;
                let mut response = plain(StatusCode::OK, self.site.metrics.render());
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, kind);
                Ok(response)
            }
            "/status" => {
                Self::only_from_here(&request, seat.peer)?;
                let status = self
                    .site
                    .status
                    .as_ref()
                    .ok_or((StatusCode::NOT_FOUND, "this node tells no status"))?;
                Ok(json(serde_json::to_vec(&status()).unwrap_or_default()))
            }
            path => match &self.site.page {
                Some(page) => page
                    .get(path, request.headers())
                    .ok_or((StatusCode::NOT_FOUND, "there is nothing here")),
                None if path == "/" => Ok(plain(
                    StatusCode::OK,
                    "This is a nectar node. It serves no page; WebSockets are at /nectar.\n",
                )),
                None => Err((StatusCode::NOT_FOUND, "there is nothing here")),
            },
        }
    }

    /// Lets through what comes from this machine and not from a web page. A page elsewhere that makes its own name
    /// point at 127.0.0.1 is known by the `Host` that its requests carry, what a proxy on this machine passes on by the
    /// headers that proxies add.
    fn only_from_here<B>(request: &Request<B>, peer: SocketAddr) -> Result<(), Refusal> {
        const REFUSED: Refusal = (
            StatusCode::FORBIDDEN,
            "only for programs on this machine, by its loopback address",
        );
        let headers = request.headers();
        let host = headers
            .get(header::HOST)
            .and_then(|host| host.to_str().ok());
        let from_a_page = headers.contains_key(header::ORIGIN)
            || headers
                .get("sec-fetch-site")
                .is_some_and(|site| site != "none" && site != "same-origin");
        let passed_on = PROXIED.iter().any(|name| headers.contains_key(*name));
        let from_here = peer.ip().is_loopback() && host.is_some_and(is_loopback_host);
        if from_here && !from_a_page && !passed_on {
            Ok(())
        } else {
            Err(REFUSED)
        }
    }

    async fn faucet(
        &self,
        request: Request<Incoming>,
        listen: &Listen,
    ) -> Result<Response<Bytes>, Refusal> {
        #[derive(Deserialize)]
        struct Wish {
            address: String,
        }
        const MALFORMED: Refusal = (StatusCode::BAD_REQUEST, "send {\"address\": \"0x…\"}");
        let faucet = self
            .site
            .faucet
            .as_ref()
            .ok_or((StatusCode::NOT_FOUND, "no faucet is configured here"))?;
        if request.method() != Method::POST {
            return Err((
                StatusCode::METHOD_NOT_ALLOWED,
                "the faucet is asked by POST",
            ));
        }
        if let Some(origin) = request.headers().get(header::ORIGIN)
            && !origin
                .to_str()
                .is_ok_and(|origin| is_own(origin, request.headers(), listen))
        {
            return Err((
                StatusCode::FORBIDDEN,
                "the faucet serves this node's own page",
            ));
        }
        let body = Limited::new(request.into_body(), BODY_MAX).collect();
        let body = match tokio::time::timeout(BODY_TIMEOUT, body).await {
            Ok(Ok(body)) => body.to_bytes(),
            Ok(Err(_)) => {
                return Err((
                    StatusCode::PAYLOAD_TOO_LARGE,
                    "the body is larger than 1 KiB or broke off",
                ));
            }
            Err(_) => {
                return Err((
                    StatusCode::REQUEST_TIMEOUT,
                    "the body did not arrive in time",
                ));
            }
        };
        let wish: Wish = serde_json::from_slice(&body).map_err(|_| MALFORMED)?;
        let address = parse_address(&wish.address).ok_or(MALFORMED)?;
        Ok(match faucet(address).await {
            Ok(transaction) => json(serde_json::json!({ "transaction": transaction }).to_string()),
            Err(problem) => {
                let mut response = json(serde_json::json!({ "error": problem }).to_string());
                *response.status_mut() = StatusCode::BAD_GATEWAY;
                response
            }
        })
    }

    fn harden(&self, headers: &mut HeaderMap) {
        // On every answer: a worker obeys the policy of its own response, not of the page that starts it.
        headers.insert(header::CONTENT_SECURITY_POLICY, self.policy.clone());
        for (name, value) in [
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            (
                HeaderName::from_static("cross-origin-opener-policy"),
                "same-origin-allow-popups",
            ),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
    }
}

fn content_security_policy(site: &WellKnown, connect: &Allow<String>) -> HeaderValue {
    let mut sources = vec!["'self'".to_owned()];
    // Routers and direct nodes have addresses that only the registry knows.
    match connect {
        Allow::Anyone => sources.extend(["ws:".into(), "wss:".into()]),
        Allow::Only(list) => sources.extend(list.iter().cloned()),
    }
    for rpc in site.registries.iter().flat_map(|registry| &registry.rpcs) {
        let origin = reqwest::Url::parse(rpc)
            .map(|url| url.origin().ascii_serialization())
            .unwrap_or_default();
        if !origin.is_empty() && !sources.contains(&origin) {
            sources.push(origin);
        }
    }
    let policy = format!(
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src {}; img-src 'self' data: blob:; \
         object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        sources.join(" ")
    );
    // Without a policy that can be sent, nothing at all is allowed rather than everything.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'none'"))
}

fn is_loopback_host(host: &str) -> bool {
    let name = without_port(host);
    name == "localhost"
        || name
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn json(text: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(text.into());
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
    use super::*;

    #[test]
    fn what_operators_look_at_is_not_for_other_machines_whatever_they_claim() {
        let from = |peer: &str, host: &str| {
            let request = Request::builder().header(header::HOST, host).body(());
            let peer = SocketAddr::new(peer.parse().unwrap(), 50_000);
            Prepared::only_from_here(&request.unwrap(), peer).is_ok()
        };
        assert!(from("127.0.0.1", "localhost:9444") && from("::1", "[::1]:9444"));
        for peer in ["192.0.2.1", "10.0.0.1", "2001:db8::1", "fe80::1"] {
            for host in ["localhost", "127.0.0.1:9444", "[::1]"] {
                assert!(!from(peer, host), "{peer} asks {host}");
            }
        }
    }

    #[test]
    fn only_loopback_hosts_are_this_machine() {
        for host in [
            "localhost",
            "localhost:9444",
            "127.0.0.1:80",
            "127.8.8.8",
            "[::1]:9444",
            "[::1]",
        ] {
            assert!(is_loopback_host(host), "{host}");
        }
        for host in [
            "localhost.evil.example",
            "evil.example:9444",
            "192.0.2.1",
            "[2001:db8::1]:9",
            "",
            "[",
            "::1",
        ] {
            assert!(!is_loopback_host(host), "{host}");
        }
    }

    #[test]
    fn the_policy_names_the_rpcs_and_nothing_else_unless_told() {
        let site = WellKnown {
            registries: vec![PublicRegistry {
                tld: "nectar".into(),
                chain_id: 1,
                contract: String::new(),
                rpcs: vec![
                    "https://rpc.example/key".into(),
                    "http://127.0.0.1:8545".into(),
                ],
                quorum: 1,
            }],
            ..WellKnown::default()
        };
        let strict = content_security_policy(&site, &Allow::Only(vec!["wss://r1.example".into()]));
        let strict = strict.to_str().unwrap_or_default();
        assert!(
            strict.contains(
                "connect-src 'self' wss://r1.example https://rpc.example http://127.0.0.1:8545;"
            ),
            "{strict}"
        );
        let open = content_security_policy(&WellKnown::default(), &Allow::Anyone);
        assert!(
            open.to_str()
                .unwrap_or_default()
                .contains("connect-src 'self' ws: wss:;")
        );
    }
}
