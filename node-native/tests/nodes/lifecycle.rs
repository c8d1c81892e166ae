//! How nodes begin and end.

use crate::support::{Network, echo, key_of, name, ok, soon, until};
use ed25519_dalek::SigningKey;
use node_core::channel::SignRequest;
use node_native::{
    http::BindError,
    node::{Code, Node, NodeConfig, PeerState, Signer, Signing, StartError},
};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn network() -> Network {
    Network::default().direct("alice").direct("bob")
}

#[tokio::test]
async fn a_port_that_is_occupied_is_an_error_that_names_it() {
    let network = network();
    let _first = network.start("alice").await;
    let error = Node::start(network.config("alice")).await.unwrap_err();
    assert!(
        matches!(error, StartError::Bind(BindError::InUse(address)) if address == network.address("alice")),
        "{error}"
    );
}

#[tokio::test]
async fn a_private_address_is_not_dialled_unless_allowed() {
    let network = network();
    let _bob = network.start("bob").await;
    let strict = Node::start(network.config("alice").allow_private(false))
        .await
        .unwrap();
    let error = echo(&strict, "bob", b"?").await.unwrap_err();
    assert_eq!(
        (error.code, error.cause),
        (Code::Offline, Some(Code::AddressRefused))
    );
}

#[tokio::test]
async fn the_last_handle_that_is_dropped_ends_the_node() {
    let network = network();
    let (alice, bob) = (network.start("alice").await, network.start("bob").await);
    let another = bob.clone();
    assert_eq!(echo(&alice, "bob", b"1").await, ok(b"1"));
    drop(bob);
    assert_eq!(echo(&alice, "bob", b"2").await, ok(b"2"));
    drop(another);
    until("the peer sees the end", || {
        !alice
            .peers()
            .iter()
            .any(|peer| matches!(peer.state, PeerState::Online { .. }))
    })
    .await;
    // Its port is free as soon as its tasks are gone.
    until("the port is free", || {
        std::net::TcpListener::bind(network.address("bob")).is_ok()
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_with_its_node() {
    let network = network();
    let (alice, bob) = (network.start("alice").await, network.start("bob").await);
    bob.serve_stream("hold.1", |incoming| async move {
        let stream = incoming.accept();
        std::future::pending::<()>().await;
        drop(stream);
    });
    let mut stream = soon("open", alice.open_stream(&name("bob"), "hold.1", ""))
        .await
        .unwrap();
    drop(alice);
    let error = soon("an end", stream.read_chunk()).await.unwrap_err();
    assert!(
        matches!(error, node_native::node::StreamError::Lost(_)),
        "{error}"
    );
}

#[tokio::test]
async fn metrics_and_status_tell_what_the_node_does() {
    let network = network();
    let (alice, bob) = (network.start("alice").await, network.start("bob").await);
    assert_eq!(echo(&alice, "bob", b"hello").await, ok(b"hello"));
    let address = network.address("bob");
    let get = async |path: &str| {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let metrics = soon("metrics", get("/metrics")).await;
    assert!(metrics.contains("\nnectar_sessions 1\n"), "{metrics}");
    assert!(metrics.contains("\nnectar_inbound 1\n"), "{metrics}");
    let status = soon("status", get("/status")).await;
    let (_, body) = status.split_once("\r\n\r\n").unwrap();
    let status: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(status, bob.status());
    assert_eq!(status["name"], "bob.nectar");
    assert_eq!(status["peers"][0]["name"], "alice.nectar");
    assert_eq!(status["peers"][0]["state"], "online");
}

/// Signs on another thread, after a while; or not at all.
struct Agent {
    key: SigningKey,
    willing: bool,
}

impl Signer for Agent {
    fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    fn sign(&self, request: &SignRequest) -> Signing {
        let (key, willing) = (self.key.clone(), self.willing);
        let message = request.message();
        Signing::Pending(Box::pin(async move {
            let signing = tokio::task::spawn_blocking(move || {
                std::thread::sleep(Duration::from_millis(20));
                ed25519_dalek::Signer::sign(&key, &message).to_bytes()
            });
            let signature = signing.await.ok()?;
            willing.then_some(signature)
        }))
    }
}

#[tokio::test]
async fn a_signer_outside_the_process_may_take_its_time_or_refuse() {
    let network = network();
    let _bob = network.start("bob").await;
    for willing in [true, false] {
        let key = key_of("alice");
        let config = NodeConfig::named(name("alice"), Agent { key, willing });
        let alice = Node::start(network.know(config)).await.unwrap();
        let answer = echo(&alice, "bob", b"signed").await;
        match answer {
            Ok(_) => assert!(willing),
            Err(error) => {
                assert!(!willing, "{error}");
                assert_eq!(error.reason(), Code::SignerFailed);
            }
        }
    }
}
