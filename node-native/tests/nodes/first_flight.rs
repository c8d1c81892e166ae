//! How many flights it takes from a TCP connection to the first answer, over a way that takes 50 ms, beside TLS 1.3.

use crate::support::{Network, free_address, name, soon, strict};
use node_native::node::{Node, Request, Response};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};

/// Each way.
const LATENCY: Duration = Duration::from_millis(50);

/// Round trips after TCP's own: the second brings the answer.
const ROUND_TRIPS: usize = 2;
/// A machine that does much else may tear flights apart.
const ATTEMPTS: usize = 3;

/// Which way the bytes of each flight went, one after the other.
type Flights = Arc<Mutex<Vec<bool>>>;

/// A long way from `at` to `to`.
async fn long_way(at: SocketAddr, to: SocketAddr) -> Flights {
    let listener = TcpListener::bind(at).await.unwrap();
    let flights = Flights::default();
    let seen = flights.clone();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            let far = TcpStream::connect(to).await.unwrap();
            near.set_nodelay(true).unwrap();
            far.set_nodelay(true).unwrap();
            let (near_read, near_write) = near.into_split();
            let (far_read, far_write) = far.into_split();
            tokio::spawn(carry(near_read, far_write, true, seen.clone()));
            tokio::spawn(carry(far_read, near_write, false, seen.clone()));
        }
    });
    flights
}

async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, there: bool, seen: Flights) {
    let (queue, mut due) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some((at, bytes)) = due.recv().await {
            tokio::time::sleep_until(at).await;
            let bytes: Vec<u8> = bytes;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    let mut buffer = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        {
            let mut seen = seen.lock().unwrap();
            if seen.last() != Some(&there) {
                seen.push(there);
            }
        }
        let _ = queue.send((
            tokio::time::Instant::now() + LATENCY,
            buffer[..read].to_vec(),
        ));
    }
}

/// How many flights came back.
fn back(flights: &Flights) -> usize {
    let flights = flights.lock().unwrap();
    flights.iter().filter(|there| !**there).count()
}

/// How long the first request takes, and how many round trips, TCP's own left out.
async fn ask(early: bool) -> (Duration, usize) {
    let network = Network::default().direct("alice").direct("bob");
    let listens = free_address();
    let bob = Node::start(network.config("bob").listen(listens))
        .await
        .unwrap();
    let flights = long_way(network.address("bob"), listens).await;
    let alice = network.start("alice").await;
    let request = Request::new("echo.1", "first");
    let request = if early { request.early() } else { request };
    let begun = Instant::now();
    let answer = soon("the first answer", alice.request(&name("bob"), request)).await;
    let (took, flown) = (begun.elapsed(), back(&flights));
    assert_eq!(answer, Ok(Response::Success(Some("first".into()))));
    alice.close().await;
    bob.close().await;
    (took, flown)
}

/// The same of a page over https.
async fn get() -> (Duration, usize) {
    let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listens = free_address();
    let listener = TcpListener::bind(listens).await.unwrap();
    tokio::spawn(async move {
        let (tcp, _) = listener.accept().await.unwrap();
        let mut stream = acceptor.accept(tcp).await.unwrap();
        let mut request = [0; 1024];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
            .await
            .unwrap();
        stream.flush().await.unwrap();
        let _ = stream.read(&mut request).await;
    });
    let known = free_address();
    let flights = long_way(known, listens).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let begun = Instant::now();
    let tcp = TcpStream::connect(known).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
    let name = "localhost".try_into().unwrap();
    let mut stream = connector.connect(name, tcp).await.unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let mut answer = [0; 128];
    let read = soon("a page", stream.read(&mut answer)).await.unwrap();
    assert!(answer[..read].ends_with(b"ok"));
    (begun.elapsed(), back(&flights))
}

#[tokio::test(flavor = "multi_thread")]
async fn an_early_request_is_answered_after_as_many_flights_as_one_over_tls_1_3() {
    let mut best = [(Duration::MAX, usize::MAX); 3];
    for _ in 0..ATTEMPTS {
        for (best, now) in best
            .iter_mut()
            .zip([get().await, ask(true).await, ask(false).await])
        {
            *best = (best.0.min(now.0), best.1.min(now.1));
        }
    }
    let [
        (page, page_trips),
        (early, early_trips),
        (usual, usual_trips),
    ] = best;
    eprintln!(
        "first answer at 50 ms each way: early {early:?}, otherwise {usual:?}, TLS 1.3 {page:?}"
    );
    assert_eq!(page_trips, ROUND_TRIPS);
    assert_eq!(early_trips, ROUND_TRIPS);
    assert_eq!(usual_trips, ROUND_TRIPS + 1);
    // A machine that does much else makes everybody late, and nobody early.
    assert!(early >= LATENCY * 4 && usual >= LATENCY * 6);
    if strict() {
        let most = page + LATENCY / 2;
        assert!(early < most, "{early:?} beside {page:?}");
    }
}
