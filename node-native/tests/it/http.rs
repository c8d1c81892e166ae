#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use node_core::{
    Code,
    registry::{Host, Routing},
};
use node_native::{
    config::{Config, Listen, Override, Sources},
    dial::{DialError, Dialer},
    http::{Accepted, EXCUSES, Page, Server, Site},
    metrics::Metrics,
    stream::MESSAGE_MAX,
};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
    task::JoinHandle,
};
use tokio_tungstenite::tungstenite::{Error, Message};

pub(crate) const UPGRADE: &str = "GET /nectar HTTP/1.1\r\nhost: node.example\r\nconnection: keep-alive, Upgrade\r\n\
                       upgrade: websocket\r\nsec-websocket-version: 13\r\n\
                       sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-protocol: nectar.1\r\n";

pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) accepted: mpsc::UnboundedReceiver<Accepted>,
    task: JoinHandle<()>,
    metrics: Arc<Metrics>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(crate) fn listen(settings: &[(&str, &str)]) -> Listen {
    let mut flags = vec![("listen.address", "127.0.0.1"), ("listen.port", "0")];
    flags.extend_from_slice(settings);
    let flags = flags
        .into_iter()
        .map(|(path, value)| Override {
            place: path.into(),
            path: path.into(),
            value: value.into(),
        })
        .collect();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("nectar.toml");
    std::fs::write(&file, "").unwrap();
    Config::load(&Sources {
        file: Some(file),
        environment: Vec::new(),
        flags,
    })
    .unwrap()
    .listen
    .unwrap()
}

pub(crate) async fn start(listen: Listen, site: Site) -> Running {
    let metrics = site.metrics.clone();
    let server = Server::bind(listen, site).await.unwrap();
    let address = server.local_addr();
    let (sender, accepted) = mpsc::unbounded_channel();
    let accept = move |socket| drop(sender.send(socket));
    let task = tokio::spawn(server.serve(accept, std::future::pending()));
    Running {
        address,
        accepted,
        task,
        metrics,
    }
}

/// Sends `request` as it is and returns everything that comes back until the server closes.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await;
    assert!(
        read.is_ok(),
        "the server keeps the connection open after {request:?}"
    );
    String::from_utf8_lossy(&answer).into_owned()
}

async fn get(address: SocketAddr, path: &str, headers: &str) -> String {
    raw(
        address,
        &format!("GET {path} HTTP/1.1\r\nconnection: close\r\n{headers}\r\n"),
    )
    .await
}

fn page(files: &[(&str, &[u8])]) -> (tempfile::TempDir, Page) {
    let dir = tempfile::tempdir().unwrap();
    for (name, body) in files {
        let path = dir.path().join("www").join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, body).unwrap();
    }
    std::fs::write(dir.path().join("secret"), "hunter2").unwrap();
    let page = Page::load(&dir.path().join("www")).unwrap();
    (dir, page)
}

#[tokio::test]
async fn a_path_never_leaves_the_page() {
    let (_dir, page) = page(&[
        ("index.html", b"<!doctype html>"),
        ("assets/a-12345678.js", b"1"),
    ]);
    let node = start(
        listen(&[]),
        Site {
            page: Some(page),
            ..Site::default()
        },
    )
    .await;
    for path in [
        "/../secret",
        "/assets/../../secret",
        "/%2e%2e/secret",
        "/..%2fsecret",
        "/assets/..%5c..%5csecret",
        "//secret",
        "/./../secret",
        "/assets/",
        "/assets",
        "/index.html/",
        "/.well-known/../../secret",
        "/\u{0}secret",
    ] {
        let answer = get(node.address, path, "host: x\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 40"), "{path}: {answer}");
        assert!(!answer.contains("hunter2"), "{path}");
    }
    assert!(
        get(node.address, "/", "host: x\r\n")
            .await
            .ends_with("<!doctype html>")
    );
}

#[tokio::test]
async fn files_come_with_their_type_their_caching_and_a_strict_policy() {
    let (_dir, page) = page(&[
        ("index.html", b"<!doctype html>"),
        ("worker.js", b"self"),
        ("assets/core-B3xKq9Za.wasm", b"\0asm"),
        ("assets/core-B3xKq9Za.wasm.br", b"small"),
    ]);
    let node = start(
        listen(&[]),
        Site {
            page: Some(page),
            ..Site::default()
        },
    )
    .await;
    let worker = get(node.address, "/worker.js", "host: x\r\n").await;
    assert!(worker.contains("content-type: text/javascript"), "{worker}");
    assert!(worker.contains("cache-control: no-cache"), "{worker}");
    assert!(
        worker.contains("script-src 'self' 'wasm-unsafe-eval'"),
        "a worker obeys its own policy: {worker}"
    );
    assert!(
        worker.contains("x-content-type-options: nosniff"),
        "{worker}"
    );
    let wasm = get(
        node.address,
        "/assets/core-B3xKq9Za.wasm",
        "host: x\r\naccept-encoding: gzip, br;q=0.9\r\n",
    )
    .await;
    assert!(
        wasm.contains("content-type: application/wasm") && wasm.contains("immutable"),
        "{wasm}"
    );
    assert!(
        wasm.contains("content-encoding: br") && wasm.ends_with("small"),
        "{wasm}"
    );
    let wasm = get(
        node.address,
        "/assets/core-B3xKq9Za.wasm",
        "host: x\r\naccept-encoding: br;q=0\r\n",
    )
    .await;
    assert!(
        !wasm.contains("content-encoding") && wasm.ends_with("\0asm"),
        "{wasm}"
    );
    let etag = wasm
        .lines()
        .find_map(|line| line.strip_prefix("etag: "))
        .unwrap()
        .to_owned();
    let again = get(
        node.address,
        "/assets/core-B3xKq9Za.wasm",
        &format!("host: x\r\nif-none-match: {etag}\r\n"),
    )
    .await;
    assert!(again.starts_with("HTTP/1.1 304"), "{again}");
    assert!(
        get(node.address, "/assets/core-B3xKq9Za.wasm.br", "host: x\r\n")
            .await
            .starts_with("HTTP/1.1 404")
    );
}

#[tokio::test]
async fn metrics_and_status_are_for_this_machine_and_not_for_web_pages() {
    let status: node_native::http::StatusFn = Arc::new(|| serde_json::json!({ "sessions": 0 }));
    let node = start(
        listen(&[]),
        Site {
            status: Some(status),
            ..Site::default()
        },
    )
    .await;
    let own = format!("host: 127.0.0.1:{}\r\n", node.address.port());
    for path in ["/metrics", "/status"] {
        assert!(
            get(node.address, path, &own)
                .await
                .starts_with("HTTP/1.1 200"),
            "{path}"
        );
        for foreign in [
            "host: evil.example\r\n",
            "host: 127.0.0.1.evil.example\r\n",
            "host: localhost\r\norigin: https://evil.example\r\n",
            "host: localhost\r\norigin: null\r\n",
            "host: localhost\r\nsec-fetch-site: cross-site\r\n",
            "host: localhost\r\nx-forwarded-for: 192.0.2.1\r\n",
            "host: localhost\r\nx-real-ip: 192.0.2.1\r\n",
            "host: localhost\r\nforwarded: for=192.0.2.1\r\n",
            "host: localhost\r\nvia: 1.1 proxy\r\n",
            "",
        ] {
            let answer = get(node.address, path, foreign).await;
            assert!(
                answer.starts_with("HTTP/1.1 40"),
                "{path} with {foreign:?}: {answer}"
            );
        }
    }
    assert!(
        get(node.address, "/metrics", &own)
            .await
            .contains("nectar_http_accepted_total")
    );
    assert!(
        get(node.address, "/healthz", "host: evil.example\r\n")
            .await
            .ends_with("ok\n")
    );
}

#[tokio::test]
async fn a_slow_or_oversized_request_head_is_cut() {
    let node = start(
        listen(&[
            ("listen.header_timeout", "300ms"),
            ("listen.header_bytes", "8 KiB"),
        ]),
        Site::default(),
    )
    .await;
    let begun = Instant::now();
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let mut answer = Vec::new();
    // A byte now and then keeps no connection alive.
    let drip = async {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            if stream.write_all(b"x").await.is_err() {
                break;
            }
            let mut byte = [0; 64];
            if let Ok(Ok(read)) =
                tokio::time::timeout(Duration::from_millis(1), stream.read(&mut byte)).await
            {
                answer.extend_from_slice(&byte[..read]);
                if read == 0 {
                    break;
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(5), drip)
        .await
        .unwrap();
    assert!(begun.elapsed() < Duration::from_secs(2));

    let mut silent = TcpStream::connect(node.address).await.unwrap();
    let mut byte = [0; 1];
    let closed = tokio::time::timeout(Duration::from_secs(5), silent.read(&mut byte));
    assert!(
        matches!(closed.await.unwrap(), Ok(0) | Err(_)),
        "who says nothing is cut, too"
    );

    let long = format!(
        "GET / HTTP/1.1\r\nhost: x\r\nx-filler: {}\r\n\r\n",
        "a".repeat(64 << 10)
    );
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    // The server may cut us off before everything is written.
    let _ = stream.write_all(long.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer))
        .await
        .unwrap();
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );

    let many = "x: y\r\n".repeat(100);
    let answer = get(node.address, "/", &format!("host: x\r\n{many}")).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
}

#[tokio::test]
async fn an_upgrade_needs_the_subprotocol_and_everything_else_that_the_rfc_asks_for() {
    let mut node = start(listen(&[]), Site::default()).await;
    for (from, to, status) in [
        ("nectar.1", "nectar.2", "400"),
        (
            "sec-websocket-protocol: nectar.1\r\n",
            "connection: close\r\n",
            "400",
        ),
        (
            "sec-websocket-version: 13",
            "sec-websocket-version: 8",
            "426",
        ),
        ("upgrade: websocket", "upgrade: h2c", "426"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "short", "400"),
        ("GET /nectar", "POST /nectar", "405"),
    ] {
        let request = UPGRADE.replacen(from, to, 1) + "connection: close\r\n\r\n";
        let answer = raw(node.address, &request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{from} -> {to}: {answer}"
        );
    }
    assert!(node.accepted.try_recv().is_err());

    let mut stream = TcpStream::connect(node.address).await.unwrap();
    stream
        .write_all((UPGRADE.replace("nectar.1", "data.abc, nectar.1") + "\r\n").as_bytes())
        .await
        .unwrap();
    let accepted = node.accepted.recv().await.unwrap();
    assert_eq!(accepted.peer, stream.local_addr().unwrap());
    let mut answer = vec![0; 512];
    let read = stream.read(&mut answer).await.unwrap();
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert!(answer.starts_with("HTTP/1.1 101"), "{answer}");
    assert!(
        answer.contains("sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
        "RFC 6455's example: {answer}"
    );
    assert!(
        answer.contains("sec-websocket-protocol: nectar.1\r\n"),
        "{answer}"
    );
    assert!(!answer.contains("extensions"), "no compression: {answer}");
}

#[tokio::test]
async fn origins_are_the_operators_choice() {
    const OWN: &str = "https://node.example";
    let mut open = start(listen(&[]), Site::default()).await;
    let mut strict = start(
        listen(&[
            ("listen.origins", "[\"https://app.example\"]"),
            ("listen.public_host", "node.example"),
        ]),
        Site::default(),
    )
    .await;
    for (origin, allowed) in [
        ("https://app.example", true),
        (OWN, true),
        ("https://app.example.evil.example", false),
        ("https://evil.example", false),
        ("null", false),
    ] {
        let request = format!("{UPGRADE}origin: {origin}\r\n\r\n");
        for (node, public, allowed) in [(&mut open, false, true), (&mut strict, true, allowed)] {
            let mut stream = TcpStream::connect(node.address).await.unwrap();
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            stream.read_exact(&mut answer).await.unwrap();
            let expected: &[u8] = if allowed {
                b"HTTP/1.1 101"
            } else {
                b"HTTP/1.1 403"
            };
            assert_eq!(answer, expected, "{origin}");
            if allowed {
                // What a page does that the node did not serve is not its visitor's fault.
                let foreign = node.accepted.recv().await.unwrap().foreign;
                let own = public && origin == OWN;
                assert_eq!(foreign, !own, "{origin}");
            }
        }
    }
}

#[tokio::test]
async fn messages_pass_both_ways_and_larger_ones_than_a_record_do_not() {
    let mut node = start(listen(&[]), Site::default()).await;
    let mut ours = dial(node.address, &Dialer::new(true).unwrap(), false)
        .await
        .unwrap();
    let mut theirs = node.accepted.recv().await.unwrap().socket;
    let record = vec![7; 64 << 10];
    ours.send(Message::binary(record.clone())).await.unwrap();
    assert_eq!(
        theirs.next().await.unwrap().unwrap(),
        Message::binary(record.clone())
    );
    theirs.send(Message::binary(record.clone())).await.unwrap();
    assert_eq!(ours.next().await.unwrap().unwrap(), Message::binary(record));
    ours.send(Message::binary(vec![7; MESSAGE_MAX + 1]))
        .await
        .unwrap();
    assert!(matches!(
        theirs.next().await.unwrap(),
        Err(Error::Capacity(_))
    ));
}

#[tokio::test]
async fn what_a_client_sends_right_after_its_upgrade_is_not_lost() {
    let mut node = start(listen(&[]), Site::default()).await;
    let mut stream = TcpStream::connect(node.address).await.unwrap();
    // One masked binary frame, in the same packet as the request.
    let mut bytes = (UPGRADE.to_owned() + "\r\n").into_bytes();
    bytes.extend([0x82, 0x83, 0, 0, 0, 0, 1, 2, 3]);
    stream.write_all(&bytes).await.unwrap();
    let mut socket = node.accepted.recv().await.unwrap().socket;
    assert_eq!(
        socket.next().await.unwrap().unwrap(),
        Message::binary(vec![1, 2, 3])
    );
}

#[tokio::test]
async fn a_socket_keeps_its_slot_until_it_is_dropped() {
    let mut node = start(
        listen(&[("listen.connections_per_address", "2")]),
        Site::default(),
    )
    .await;
    let dialer = Dialer::new(true).unwrap();
    let _first = dial(node.address, &dialer, false).await.unwrap();
    let _second = dial(node.address, &dialer, false).await.unwrap();
    let (one, two) = (
        node.accepted.recv().await.unwrap(),
        node.accepted.recv().await.unwrap(),
    );
    let third = dial(node.address, &dialer, false).await.unwrap_err();
    assert!(matches!(third, DialError::Busy { .. }), "{third}");
    assert_eq!(third.code(), Code::Overloaded);
    assert_eq!(node.metrics.gauge("nectar_http_connections", "").get(), 2);
    drop(one);
    assert!(dial(node.address, &dialer, false).await.is_ok());
    drop(two);
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let waited = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert!(waited.is_ok(), "too slow: {what}");
}

#[tokio::test]
async fn a_connection_too_many_is_told_when_to_come_back_and_one_of_a_crowd_is_closed() {
    let settings = [
        ("listen.connections_per_address", "1"),
        ("listen.header_timeout", "60s"),
    ];
    let node = start(listen(&settings), Site::default()).await;
    let _first = TcpStream::connect(node.address).await.unwrap();
    let open = node.metrics.gauge("nectar_http_connections", "");
    until("the first is in", || open.get() == 1).await;
    for path in ["/", "/healthz", "/nectar"] {
        let answer = get(node.address, path, "host: x\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nretry-after: 5\r\n"), "{answer}");
        assert!(answer.contains("content-security-policy"), "{answer}");
    }

    // Those who ask nothing keep others from being told.
    let refused = node.metrics.counter("nectar_http_refused_total", "");
    let before = refused.get();
    let mut crowd = Vec::new();
    for _ in 0..EXCUSES {
        crowd.push(TcpStream::connect(node.address).await.unwrap());
    }
    let all = before + EXCUSES as u64;
    until("the crowd is there", || refused.get() == all).await;
    let mut one_more = TcpStream::connect(node.address).await.unwrap();
    let mut said = Vec::new();
    let read = one_more.read_to_end(&mut said);
    let read = tokio::time::timeout(Duration::from_secs(20), read).await;
    assert!(matches!(read, Ok(Ok(0))), "closed without a word: {read:?}");
    assert_eq!(open.get(), 1);
    drop(crowd);
    let told = async {
        loop {
            let mut stream = TcpStream::connect(node.address).await.unwrap();
            let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
            let mut answer = Vec::new();
            // A connection that is closed at once may break under our hands.
            let _ = stream.write_all(request).await;
            let _ = stream.read_to_end(&mut answer).await;
            if answer.starts_with(b"HTTP/1.1 503 ") {
                return;
            }
        }
    };
    let told = tokio::time::timeout(Duration::from_secs(20), told).await;
    assert!(told.is_ok(), "nobody is told any more");
}

#[tokio::test]
async fn an_occupied_port_is_an_error_that_names_it() {
    let node = start(listen(&[]), Site::default()).await;
    let mut second = listen(&[]);
    second.address = node.address;
    let error = Server::bind(second, Site::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&node.address.to_string()) && error.contains("in use by another program"),
        "{error}"
    );
    let mut elsewhere = listen(&[]);
    elsewhere.address = "192.0.2.1:0".parse().unwrap();
    let error = Server::bind(elsewhere, Site::default())
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no address of this machine"), "{error}");
}

#[tokio::test]
async fn the_faucet_serves_its_own_page_and_nobody_elses() {
    let faucet: node_native::http::FaucetFn = Arc::new(|address: [u8; 20]| {
        Box::pin(async move {
            if address[0] == 0 {
                Err("no money".into())
            } else {
                Ok(format!("0x{:02x}", address[0]))
            }
        })
    });
    let node = start(
        listen(&[("listen.public_host", "node.example")]),
        Site {
            faucet: Some(faucet),
            ..Site::default()
        },
    )
    .await;
    let ask = async |headers: &str, body: &str| {
        let length = body.len();
        let request = format!(
            "POST /faucet HTTP/1.1\r\nhost: node.example\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        raw(node.address, &request).await
    };
    let wish = format!("{{\"address\":\"0x{}\"}}", "ab".repeat(20));
    assert!(
        ask("origin: http://node.example\r\n", &wish)
            .await
            .ends_with("{\"transaction\":\"0xab\"}")
    );
    assert!(
        ask("origin: http://evil.example\r\n", &wish)
            .await
            .starts_with("HTTP/1.1 403")
    );
    assert!(ask("", "{}").await.starts_with("HTTP/1.1 400"));
    assert!(ask("", &" ".repeat(2000)).await.starts_with("HTTP/1.1 413"));
    let broke = format!("{{\"address\":\"0x{}\"}}", "00".repeat(20));
    assert!(ask("", &broke).await.ends_with("{\"error\":\"no money\"}"));
    let none = start(listen(&[]), Site::default()).await;
    assert!(
        get(none.address, "/faucet", "host: x\r\n")
            .await
            .starts_with("HTTP/1.1 404")
    );
}

#[tokio::test]
async fn the_well_known_document_says_what_a_page_must_know() {
    let (_dir, page) = page(&[("index.html", b"x")]);
    let hash = page.hash().to_owned();
    let node = start(
        listen(&[]),
        Site {
            page: Some(page),
            ..Site::default()
        },
    )
    .await;
    let answer = get(
        node.address,
        "/.well-known/nectar.json",
        "host: x\r\norigin: https://other.example\r\n",
    )
    .await;
    assert!(
        answer.contains("access-control-allow-origin: *"),
        "{answer}"
    );
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let document: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&document["version"], &document["page"]["hash"]),
        (&1.into(), &hash.into())
    );
}

pub(crate) async fn dial(
    address: SocketAddr,
    dialer: &Dialer,
    wss: bool,
) -> Result<node_native::stream::Socket, DialError> {
    let host = Host::parse(&address.ip().to_string()).unwrap();
    let routing = Routing {
        host,
        port: address.port(),
        ws: true,
        wss,
    };
    let dialled = dialer.connect(&routing, || None).await?;
    Ok(dialled.socket)
}

#[tokio::test]
async fn message_1_rides_in_the_upgrade_and_the_answer_says_that_it_came() {
    let mut node = start(listen(&[]), Site::default()).await;
    let routing = Routing {
        host: Host::parse("127.0.0.1").unwrap(),
        port: node.address.port(),
        ws: true,
        wss: false,
    };
    let dialer = Dialer::new(true).unwrap();
    let first = Bytes::from(vec![7; 1218]);
    let dialled = dialer
        .connect(&routing, || Some(first.clone()))
        .await
        .unwrap();
    assert_eq!(dialled.unsent, None);
    assert_eq!(node.accepted.recv().await.unwrap().first, Some(first));

    // Longer than any message 1: it has to come over the socket, where it is judged.
    let long = Bytes::from(vec![7; 3000]);
    let dialled = dialer
        .connect(&routing, || Some(long.clone()))
        .await
        .unwrap();
    assert_eq!(dialled.unsent, Some(long));
    assert_eq!(node.accepted.recv().await.unwrap().first, None);
}

#[tokio::test]
async fn a_connection_is_closed_after_a_hundred_requests_and_the_next_one_is_served() {
    let node = start(listen(&[]), Site::default()).await;
    let request = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    for _ in 0..2 {
        let answers = raw(node.address, &request.repeat(150)).await;
        let closes = answers.matches("connection: close").count();
        assert_eq!((answers.matches("\r\n\r\nok\n").count(), closes), (100, 1));
    }
}

#[tokio::test]
async fn an_upgrade_that_promises_a_body_is_none() {
    let node = start(listen(&[]), Site::default()).await;
    for body in ["content-length: 1", "transfer-encoding: chunked"] {
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let request = format!("{UPGRADE}{body}\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status[9..], b"400", "{body}");
    }
}
