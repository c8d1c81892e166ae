//! Dialling a direct node at the address that its record names.
//!
//! Whoever registers a name chooses what stands there, so the address is hostile: a DNS name is resolved once, every
//! address is judged, by its range and by the way to it, and only an address that was judged is dialled. Redirects are not
//! followed, and TLS is never given up for plain text.

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
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs, UdpSocket},
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::TcpStream,
    sync::Semaphore,
    task::{JoinSet, spawn_blocking},
};
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

/// DNS names that are looked up at once, of all nodes in this process; 16, worst case 16 threads. A look-up that nobody answers
/// holds its thread for half a minute and longer, and tokio has 512 for everything that blocks.
static LOOKUPS: Semaphore = Semaphore::const_new(16);

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
    /// The record names an address of the public internet that no firewall stands before when we knock.
    #[error("{address} is {near} and not dialled: set allow_private if you mean it")]
    Near {
        /// The address.
        address: IpAddr,
        /// How near it is.
        near: Near,
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
            Self::Refused { .. } | Self::Near { .. } | Self::RefusedPort(_) => Code::AddressRefused,
            Self::Busy { .. } => Code::Overloaded,
            _ => Code::DialFailed,
        }
    }
}

/// Where an address is that its range says nothing about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Near {
    /// Delivered without leaving this machine.
    Here,
    /// On a network that this machine is on.
    Neighbour,
}

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here => "an address of this machine",
            Self::Neighbour => "a neighbour's address, of this machine's own /64",
        })
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
        let addresses = resolve(&routing.host, routing.port).await?;
        let addresses = self.judge(addresses, dialled_from)?;
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

    /// Leaves the addresses that may be dialled. `from` says which address of ours each is dialled from.
    fn judge(
        &self,
        addresses: Vec<SocketAddr>,
        from: impl Fn(SocketAddr) -> io::Result<IpAddr>,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let mut refused = None;
        let allowed: Vec<_> = addresses
            .into_iter()
            // As what the kernel takes it for: a mapped address leads where the IPv4 address does.
            .map(|address| SocketAddr::new(address.ip().to_canonical(), address.port()))
            .filter(|address| match self.judge_one(*address, &from) {
                Ok(()) => true,
                Err(error) => {
                    refused = Some(error);
                    false
                }
            })
            .take(ADDRESSES)
            .collect();
        match refused {
            Some(error) if allowed.is_empty() => Err(error),
            _ => Ok(allowed),
        }
    }

    fn judge_one(
        &self,
        target: SocketAddr,
        from: impl Fn(SocketAddr) -> io::Result<IpAddr>,
    ) -> Result<(), DialError> {
        let address = target.ip();
        match forbidden(address) {
            Some(class) if !(self.allow_private && is_dialable(class)) => {
                return Err(DialError::Refused { address, class });
            }
            _ if self.allow_private => return Ok(()),
            _ => {}
        }
        // Without a way to it nobody can say where it leads, and nothing would come of dialling it.
        let from = from(target).map_err(|source| DialError::Tcp {
            address: target,
            source,
        })?;
        match near(address, from) {
            Some(near) => Err(DialError::Near { address, near }),
            None => Ok(()),
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

/// How near a target is that is dialled from this address. What is delivered on this machine, or by one hop, passes no
/// firewall: what listens there counts on one. Of IPv4 networks nobody knows the size, and strangers share them.
fn near(target: IpAddr, from: IpAddr) -> Option<Near> {
    if target == from || from.is_loopback() {
        return Some(Near::Here);
    }
    match (target, from) {
        (IpAddr::V6(target), IpAddr::V6(from))
            if target.segments()[..4] == from.segments()[..4] =>
        {
            Some(Near::Neighbour)
        }
        _ => None,
    }
}

/// The address of this machine that the kernel dials `target` from: the same one, if it is of this machine itself. Nothing
/// is sent, and nothing waited for.
fn dialled_from(target: SocketAddr) -> io::Result<IpAddr> {
    let from = |from: IpAddr| {
        let socket = UdpSocket::bind((from, 0))?;
        socket.connect(target)?;
        Ok(socket.local_addr()?.ip())
    };
    match target.ip() {
        // Where this machine has several addresses of one network, it dials all of them from the first. But it lets a socket
        // have the address of another machine not at all, or (`ip_nonlocal_bind`) lets it go nowhere.
        own @ IpAddr::V4(_) => from(own).or_else(|_| from(Ipv4Addr::UNSPECIFIED.into())),
        IpAddr::V6(_) => from(Ipv6Addr::UNSPECIFIED.into()),
    }
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
    let asked = (name.to_string(), port);
    let look_up = move || Ok(asked.to_socket_addrs()?.collect::<Vec<_>>());
    let addresses = on_a_thread(&LOOKUPS, look_up).await.map_err(failed)?;
    if addresses.is_empty() {
        return Err(failed(io::Error::other(
            "the name exists, but not with an address",
        )));
    }
    Ok(addresses)
}

/// Has a thread do what blocks. It goes on when nobody waits for it any more, and keeps its place until it really ends.
async fn on_a_thread<T: Send + 'static>(
    places: &'static Semaphore,
    block: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let place = places.acquire().await.map_err(io::Error::other)?;
    let thread = spawn_blocking(move || {
        let result = block();
        drop(place);
        result
    });
    thread.await.map_err(io::Error::other)?
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
        let elsewhere = |_| Ok([192, 168, 1, 2].into());
        let left = Dialer::new(false).unwrap().judge(some.to_vec(), elsewhere);
        assert_eq!(left.unwrap(), [some[1]]);
    }

    #[tokio::test]
    async fn names_that_dns_never_answers_hold_the_threads_of_look_ups_and_no_more() {
        static PLACES: Semaphore = Semaphore::const_new(2);
        let (silent, begun) = (
            Arc::new(tokio::sync::Mutex::new(())),
            Arc::new(std::sync::atomic::AtomicUsize::new(0)),
        );
        let look_up = || {
            let (silent, begun) = (silent.clone(), begun.clone());
            tokio::time::timeout(
                Duration::from_millis(50),
                on_a_thread(&PLACES, move || {
                    begun.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    drop(silent.blocking_lock());
                    Ok(())
                }),
            )
        };
        let begun = || begun.load(std::sync::atomic::Ordering::Relaxed);
        let silence = silent.lock().await;
        for _ in 0..6 {
            assert!(look_up().await.is_err(), "its time is over");
        }
        assert_eq!(begun(), 2, "the others waited for a thread to end");
        drop(silence);
        // Whoever gave up waiting is in nobody's way.
        let answered = async { while look_up().await.is_err() {} };
        tokio::time::timeout(DIAL_TIMEOUT, answered).await.unwrap();
        assert!(begun() >= 3);
    }

    #[test]
    fn an_address_of_this_machine_or_of_its_own_64_is_not_dialled_though_it_is_public() {
        let judged = |allow_private, target: &str, from: &str| {
            let (target, from): (IpAddr, IpAddr) = (target.parse().unwrap(), from.parse().unwrap());
            let dialer = Dialer::new(allow_private).unwrap();
            dialer.judge(vec![(target, 9444).into()], |_| Ok(from))
        };
        for (target, from, expected) in [
            ("198.41.0.4", "198.41.0.4", Some(Near::Here)),
            ("::ffff:198.41.0.4", "198.41.0.4", Some(Near::Here)),
            ("198.41.0.4", "127.0.0.1", Some(Near::Here)),
            ("2a00:1450::7", "2a00:1450::7", Some(Near::Here)),
            ("2a00:1450::1", "2a00:1450::7", Some(Near::Neighbour)),
            ("2a00:1450:0:1::1", "2a00:1450::7", None),
            // Strangers have them, at whoever lets machines.
            ("198.41.0.5", "198.41.0.4", None),
            ("198.41.0.4", "192.168.1.2", None),
        ] {
            let strict = judged(false, target, from);
            assert_eq!(strict.is_ok(), expected.is_none(), "{target} from {from}");
            if let Err(error) = strict {
                assert_eq!(error.code(), Code::AddressRefused);
                assert!(error.to_string().contains("allow_private"), "{error}");
                assert!(
                    matches!(error, DialError::Near { near, .. } if Some(near) == expected),
                    "{target} from {from}: {error}"
                );
            }
            assert!(judged(true, target, from).is_ok(), "{target} from {from}");
        }
        let nowhere = |_| Err(io::ErrorKind::NetworkUnreachable.into());
        let target = "2a00:1450::1".parse().unwrap();
        let error = Dialer::new(false)
            .unwrap()
            .judge(vec![(IpAddr::V6(target), 9444).into()], nowhere);
        assert!(matches!(error, Err(DialError::Tcp { .. })), "{error:?}");
    }

    #[test]
    fn the_kernel_says_from_where_it_dials_without_dialling() {
        let listener = UdpSocket::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let from = dialled_from(listener.local_addr().unwrap()).unwrap();
        assert_eq!(from, IpAddr::from([127, 0, 0, 1]));
        assert!(listener.recv(&mut [0; 1]).is_err(), "nothing came");
        // All of 127.0.0.0/8 is this machine, though one address of it stands for the others.
        let other = dialled_from(([127, 0, 0, 2], 9444).into()).unwrap();
        assert_eq!(near([127, 0, 0, 2].into(), other), Some(Near::Here));
    }
}
