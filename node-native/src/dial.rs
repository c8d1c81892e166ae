//! Dialling a direct node at the address that its record names.
//!
//! Whoever registers a name chooses what stands there, so the address is hostile: a DNS name is resolved once, every
//! address is judged, and only an address that was judged is dialled. Redirects are not followed, and TLS is never
//! given up for plain text.

use crate::{
    stream::{READ_BUFFER, Socket, Stream, socket_config},
    tls::{self, TlsError},
};
use bytes::Bytes;
use hyper::header;
use node_core::{
    Code,
    registry::{
        Host, Routing,
        address::{AddressClass, forbidden, port_blocked},
    },
    wire::upgrade::{PATH, SUBPROTOCOL, SUBPROTOCOL_FIRST, offers},
};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpStream, task::JoinSet};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::{
    client_async_with_config,
    tungstenite::{self, client::ClientRequestBuilder},
};

/// Time for everything: DNS, TCP, TLS and the upgrade.
const DIAL_TIMEOUT: Duration = Duration::from_secs(10);
/// Most addresses of one DNS name that are tried.
const ADDRESSES: usize = 4;
/// Head start of an address over the next (RFC 8305).
const STAGGER: Duration = Duration::from_millis(250);

/// Why an address could not be dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The record names an address that we do not knock at.
    #[error("{address} is {class} and not dialled: set allow_private if you mean it")]
    Refused {
        /// The address.
        address: IpAddr,
        /// What it is.
        class: AddressClass,
    },
    /// The record names a port of another protocol.
    #[error("port {0} belongs to another protocol and is not dialled")]
    RefusedPort(u16),
    /// DNS knows no address.
    #[error("{host} has no address: {source}")]
    Dns {
        /// The DNS name.
        host: String,
        /// What the resolver said.
        source: io::Error,
    },
    /// Nobody listens, or a network in between is down.
    #[error("{address} does not accept connections: {source}")]
    Tcp {
        /// The address that was tried last.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The certificate is not valid for the host, or no TLS is spoken.
    #[error("TLS with {host} failed: {source}")]
    Tls {
        /// The host.
        host: String,
        /// What rustls said.
        source: io::Error,
    },
    /// Something answers there that is no nectar node.
    #[error("{host} does not speak nectar over WebSockets: {detail}")]
    Upgrade {
        /// The host.
        host: String,
        /// What was wrong with the answer.
        detail: String,
    },
    /// Whoever answers there has no place for us.
    #[error("{host} has too many connections at the moment")]
    Busy {
        /// The host.
        host: String,
    },
    /// Too slow.
    #[error("no connection within {} s", DIAL_TIMEOUT.as_secs())]
    Timeout,
}

impl DialError {
    /// What applications see of it.
    pub const fn code(&self) -> Code {
        match self {
            Self::Refused { .. } | Self::RefusedPort(_) => Code::AddressRefused,
            Self::Busy { .. } => Code::Overloaded,
            _ => Code::DialFailed,
        }
    }
}

/// A WebSocket that was opened.
#[derive(Debug)]
pub struct Dialled {
    /// The socket, its upgrade done.
    pub socket: Socket,
    /// Message 1, if it did not ride in the upgrade.
    pub unsent: Option<Bytes>,
}

/// Opens WebSockets to direct nodes.
#[derive(Clone, Debug)]
pub struct Dialer {
    tls: Arc<ClientConfig>,
    allow_private: bool,
}

impl Dialer {
    /// Believes the certificate authorities of this system. `allow_private` lets it dial addresses of this machine and
    /// of private networks.
    pub fn new(allow_private: bool) -> Result<Self, TlsError> {
        Ok(Self::with_tls(tls::client_config()?, allow_private))
    }

    /// Believes whom `tls` believes.
    pub const fn with_tls(tls: Arc<ClientConfig>, allow_private: bool) -> Self {
        Self { tls, allow_private }
    }

    /// Opens a WebSocket to where `routing` points: over TLS if the record offers it, else without. `first` is asked for
    /// message 1 of the handshake once somebody is there to hear it.
    pub async fn connect(
        &self,
        routing: &Routing,
        first: impl FnOnce() -> Option<Bytes>,
    ) -> Result<Dialled, DialError> {
        tokio::time::timeout(DIAL_TIMEOUT, self.open(routing, first, resolve))
            .await
            .unwrap_or(Err(DialError::Timeout))
    }

    /// `resolve` is asked once: who answers for a DNS name may say something else the next time.
    async fn open(
        &self,
        routing: &Routing,
        first: impl FnOnce() -> Option<Bytes>,
        resolve: impl AsyncFnOnce(&Host, u16) -> Result<Vec<SocketAddr>, DialError>,
    ) -> Result<Dialled, DialError> {
        if port_blocked(routing.port) && !self.allow_private {
            return Err(DialError::RefusedPort(routing.port));
        }
        let addresses = self.judge(resolve(&routing.host, routing.port).await?)?;
        let stream = race(addresses).await?;
        let host = routing.host.to_string();
        let (stream, scheme) = if routing.wss {
            (self.secure(&routing.host, stream).await?, "wss")
        } else {
            (Stream::plain(stream), "ws")
        };
        upgrade(
            stream,
            &host,
            &format!("{scheme}://{host}:{}{PATH}", routing.port),
            first(),
        )
        .await
    }

    /// Leaves the addresses that may be dialled.
    fn judge(&self, addresses: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, DialError> {
        let mut refused = None;
        let allowed: Vec<_> = addresses
            .into_iter()
            .filter(|address| match forbidden(address.ip()) {
                Some(class) if !(self.allow_private && is_dialable(class)) => {
                    refused = Some(DialError::Refused {
                        address: address.ip(),
                        class,
                    });
                    false
                }
                _ => true,
            })
            .take(ADDRESSES)
            .collect();
        match refused {
            Some(error) if allowed.is_empty() => Err(error),
            _ => Ok(allowed),
        }
    }

    async fn secure(&self, host: &Host, stream: TcpStream) -> Result<Stream, DialError> {
        let failed = |source| DialError::Tls {
            host: host.to_string(),
            source,
        };
        let name = match host {
            Host::V4(address) => ServerName::IpAddress(IpAddr::V4(*address).into()),
            Host::V6(address) => ServerName::IpAddress(IpAddr::V6(*address).into()),
            Host::Dns(name) => ServerName::try_from(name.to_string())
                .map_err(|error| failed(io::Error::other(error)))?,
        };
        let stream = TlsConnector::from(self.tls.clone())
            .connect(name, stream)
            .await
            .map_err(failed)?;
        Ok(Stream::tls(stream.into()))
    }
}

/// Whether there can be a node at addresses of this class in somebody's own network.
const fn is_dialable(class: AddressClass) -> bool {
    !matches!(
        class,
        AddressClass::Unspecified | AddressClass::Multicast | AddressClass::Reserved
    )
}

async fn resolve(host: &Host, port: u16) -> Result<Vec<SocketAddr>, DialError> {
    let name = match host {
        Host::V4(address) => return Ok(vec![SocketAddr::new(IpAddr::V4(*address), port)]),
        Host::V6(address) => return Ok(vec![SocketAddr::new(IpAddr::V6(*address), port)]),
        Host::Dns(name) => name,
    };
    let failed = |source| DialError::Dns {
        host: name.to_string(),
        source,
    };
    let addresses: Vec<_> = tokio::net::lookup_host((&**name, port))
        .await
        .map_err(failed)?
        .collect();
    if addresses.is_empty() {
        return Err(failed(io::Error::other(
            "the name exists, but not with an address",
        )));
    }
    Ok(addresses)
}

/// The first address that accepts; each has a head start over the next.
async fn race(addresses: Vec<SocketAddr>) -> Result<TcpStream, DialError> {
    // Most records name one address: that needs neither a task nor a timer, whose shortest time is a millisecond.
    if let [address] = addresses[..] {
        return reach(address).await;
    }
    let mut attempts = JoinSet::new();
    for (index, address) in addresses.into_iter().enumerate() {
        attempts.spawn(async move {
            tokio::time::sleep(STAGGER * u32::try_from(index).unwrap_or(u32::MAX)).await;
            reach(address).await
        });
    }
    let mut last = DialError::Timeout;
    while let Some(attempt) = attempts.join_next().await {
        match attempt {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(error) => tracing::error!(%error, "an attempt to connect ended abnormally"),
        }
    }
    Err(last)
}

async fn reach(address: SocketAddr) -> Result<TcpStream, DialError> {
    let failed = |source| DialError::Tcp { address, source };
    let stream = TcpStream::connect(address).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}

async fn upgrade(
    stream: Stream,
    host: &str,
    uri: &str,
    first: Option<Bytes>,
) -> Result<Dialled, DialError> {
    let failed = |detail: String| DialError::Upgrade {
        host: host.to_owned(),
        detail,
    };
    let uri = uri.parse().map_err(|error| failed(format!("{error}")))?;
    let request = ClientRequestBuilder::new(uri);
    let request = match &first {
        Some(first) => offers(first)
            .into_iter()
            .fold(request, ClientRequestBuilder::with_sub_protocol),
        None => request.with_sub_protocol(SUBPROTOCOL),
    };
    match client_async_with_config(request, stream, Some(socket_config(READ_BUFFER))).await {
        Ok((socket, answer)) => {
            let answer = answer.headers().get(header::SEC_WEBSOCKET_PROTOCOL);
            let taken = answer.is_some_and(|answer| answer == SUBPROTOCOL_FIRST);
            Ok(Dialled {
                socket,
                unsent: first.filter(|_| !taken),
            })
        }
        Err(tungstenite::Error::Http(response)) if response.status() == 503 => {
            Err(DialError::Busy {
                host: host.to_owned(),
            })
        }
        Err(tungstenite::Error::Http(response)) => {
            Err(failed(format!("HTTP {}", response.status())))
        }
        Err(error) => Err(failed(error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
    use super::*;

    fn routing(host: &str, port: u16) -> Routing {
        Routing {
            host: Host::parse(host).unwrap(),
            port,
            ws: true,
            wss: false,
        }
    }

    #[tokio::test]
    async fn private_addresses_and_foreign_ports_are_not_dialled_unless_allowed() {
        let strict = Dialer::new(false).unwrap();
        for host in [
            "127.0.0.1",
            "10.0.0.1",
            "::1",
            "::ffff:127.0.0.1",
            "169.254.169.254",
            "localhost",
        ] {
            let error = strict
                .connect(&routing(host, 9444), || None)
                .await
                .unwrap_err();
            assert!(
                matches!(error, DialError::Refused { .. }),
                "{host}: {error}"
            );
            assert_eq!(error.code(), Code::AddressRefused);
            assert!(error.to_string().contains("allow_private"), "{error}");
        }
        let error = strict
            .connect(&routing("192.0.2.1", 25), || None)
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::RefusedPort(25)), "{error}");
        let lenient = Dialer::new(true).unwrap();
        for host in ["0.0.0.0", "224.0.0.1", "ff02::1"] {
            let error = lenient
                .connect(&routing(host, 9444), || None)
                .await
                .unwrap_err();
            assert!(
                matches!(error, DialError::Refused { .. }),
                "{host}: {error}"
            );
        }
    }

    #[tokio::test]
    async fn a_closed_port_and_a_server_of_another_kind_are_told_apart() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let dialer = Dialer::new(true).unwrap();
        let server = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 1024];
            let read = tokio::io::AsyncReadExt::read(&mut stream, &mut head)
                .await
                .unwrap();
            assert!(head[..read].starts_with(b"GET /nectar HTTP/1.1"));
            let moved =
                b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n";
            tokio::io::AsyncWriteExt::write_all(&mut stream, moved)
                .await
                .unwrap();
        });
        let error = dialer
            .connect(&routing("127.0.0.1", port), || None)
            .await
            .unwrap_err();
        assert!(
            error.to_string().contains("HTTP 302"),
            "redirects are not followed: {error}"
        );
        server.await.unwrap();
        let error = dialer
            .connect(&routing("127.0.0.1", port), || None)
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::Tcp { .. }), "{error}");
    }

    #[tokio::test]
    async fn what_was_judged_is_what_is_dialled_whatever_dns_says_the_next_time() {
        let judged = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = judged.local_addr().unwrap();
        // Where the name points once it was judged.
        let rebound = std::net::TcpListener::bind(("127.0.0.2", at.port())).unwrap();
        rebound.set_nonblocking(true).unwrap();
        let answers = std::sync::atomic::AtomicU8::new(1);
        let dns = async |host: &Host, port| {
            assert_eq!(host.to_string(), "rebinding.example");
            let last = answers.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Ok(vec![SocketAddr::from(([127, 0, 0, last], port))])
        };
        let routing = routing("rebinding.example", at.port());
        let server = tokio::spawn(async move {
            let (stream, _) = judged.accept().await.unwrap();
            drop(stream);
        });
        let error = Dialer::new(true)
            .unwrap()
            .open(&routing, || None, dns)
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::Upgrade { .. }), "{error}");
        server.await.unwrap();
        assert!(rebound.accept().is_err(), "nobody came");

        let mixed = async |_: &Host, port| {
            let hosts: [[u8; 4]; 3] = [[127, 0, 0, 1], [10, 0, 0, 1], [169, 254, 169, 254]];
            Ok(hosts.map(|host| SocketAddr::from((host, port))).to_vec())
        };
        let error = Dialer::new(false)
            .unwrap()
            .open(&routing, || None, mixed)
            .await
            .unwrap_err();
        assert!(matches!(error, DialError::Refused { .. }), "{error}");
        // A public address among private ones does not let those in.
        let some: [SocketAddr; 3] =
            ["127.0.0.1:9444", "198.41.0.4:9444", "[fe80::1]:9444"].map(|at| at.parse().unwrap());
        let left = Dialer::new(false).unwrap().judge(some.to_vec()).unwrap();
        assert_eq!(left, [some[1]]);
    }
}
