//! Peers that break the rules beneath the protocol: messages that are no records at all.

use crate::support::{Network, echo, ok, soon};
use futures_util::{SinkExt, StreamExt};
use node_core::{Code, channel::Reject};
use node_native::node::{Event, PeerState};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{Message, client::ClientRequestBuilder},
};

async fn dial(address: SocketAddr) -> WebSocketStream<TcpStream> {
    let uri = format!("ws://{address}/nectar").parse().unwrap();
    let request = ClientRequestBuilder::new(uri).with_sub_protocol("nectar.1");
    let stream = TcpStream::connect(address).await.unwrap();
    client_async(request, stream).await.unwrap().0
}

/// What the node answers before it closes, and the close code.
async fn outcome(mut socket: WebSocketStream<TcpStream>, said: Message) -> (Vec<Message>, u16) {
    soon("closed", async {
        // A message that is refused while it is being written breaks the connection under our hands.
        let _ = socket.send(said).await;
        let mut answers = Vec::new();
        while let Some(message) = socket.next().await {
            match message.unwrap() {
                Message::Close(frame) => return (answers, frame.unwrap().code.into()),
                other => answers.push(other),
            }
        }
        panic!("ended without a close frame");
    })
    .await
}

#[tokio::test]
async fn what_is_no_record_is_refused_with_the_reason_and_nobody_else_notices() {
    let network = Network::default().direct("alice").direct("bob");
    let (alice, bob) = (network.start("alice").await, network.start("bob").await);
    assert_eq!(echo(&alice, "bob", b"before").await, ok(b"before"));
    let address = network.address("bob");

    let (answers, code) = outcome(dial(address).await, Message::text("hello")).await;
    assert_eq!(code, Code::FrameUnexpected.close_code());
    assert!(answers.is_empty());

    let large = Message::binary(vec![1; 200 << 10]);
    let (answers, code) = outcome(dial(address).await, large).await;
    assert_eq!(code, Code::RecordTooLarge.close_code());
    assert!(answers.is_empty());

    for garbage in [vec![], vec![0xff], vec![2; 1218], vec![0x10; 65_000]] {
        let length = garbage.len();
        let (_, code) = outcome(dial(address).await, Message::binary(garbage)).await;
        let code = Code::from_u16(code - 4000).unwrap();
        assert!(
            matches!(code, Code::Malformed | Code::VersionUnknown),
            "{length} bytes: {code:?}"
        );
    }

    assert_eq!(echo(&alice, "bob", b"after").await, ok(b"after"));
    assert_eq!(bob.counts().half_open, 0);
    assert_eq!(bob.counts().sessions, 1);
}

#[tokio::test]
async fn pings_of_websocket_are_answered_until_they_come_too_fast() {
    let network = Network::default().direct("bob");
    let _bob = network.start("bob").await;
    let mut socket = dial(network.address("bob")).await;
    let mut answered = 0;
    let code = soon("closed", async {
        loop {
            // It may be closed under our hands.
            let _ = socket.send(Message::Ping("there?".into())).await;
            match socket.next().await.unwrap().unwrap() {
                Message::Pong(payload) => {
                    assert_eq!(payload, "there?");
                    answered += 1;
                }
                Message::Close(frame) => return u16::from(frame.unwrap().code),
                other => panic!("{other:?}"),
            }
        }
    })
    .await;
    assert_eq!(code, Code::FrameRate.close_code());
    // A hundred at once, and ten for each second that it took.
    assert!((100..250).contains(&answered), "{answered}");
}

#[tokio::test]
async fn a_node_whose_places_are_taken_says_so_before_any_handshake() {
    let network = Network::default().direct("bob");
    let config = network.config("bob").with_core(|core| {
        core.limits.half_open = 1;
    });
    let bob = node_native::node::Node::start(config).await.unwrap();
    let _first = dial(network.address("bob")).await;
    crate::support::until("the first is in", || bob.counts().half_open == 1).await;
    let mut second = dial(network.address("bob")).await;
    let mut heard = async || soon("a refusal", second.next()).await.unwrap().unwrap();
    let (first, then) = (heard().await, heard().await);
    let reject = Reject::parse(&first.into_data()).unwrap();
    assert_eq!(reject.code, Some(Code::HalfOpenBudget));
    assert_eq!(reject.retry, Duration::from_secs(1));
    let Message::Close(Some(frame)) = then else {
        panic!("expected a close frame, got {then:?}")
    };
    assert_eq!(u16::from(frame.code), Code::HalfOpenBudget.close_code());
}

#[tokio::test]
async fn a_node_that_is_turned_away_comes_back_when_it_was_told_to_and_not_before() {
    let network = Network::default().direct("alice").direct("bob");
    let config = network.config("bob").with_core(|core| {
        core.limits.half_open = 1;
    });
    let bob = node_native::node::Node::start(config).await.unwrap();
    let first = dial(network.address("bob")).await;
    crate::support::until("the first is in", || bob.counts().half_open == 1).await;
    let alice = network.start("alice").await;
    let failure = echo(&alice, "bob", b"?").await.unwrap_err();
    assert_eq!(failure.cause, Some(Code::HalfOpenBudget));
    assert_eq!(failure.retry, Some(Duration::from_secs(1)));

    let mut events = alice.events();
    alice.keep(&crate::support::name("bob"), true);
    let begun = Instant::now();
    let offline = async {
        loop {
            if let Event::Peer {
                state: PeerState::Offline { reason, retry },
                ..
            } = events.next().await.unwrap()
                && retry.is_some()
            {
                return (reason, retry.unwrap());
            }
        }
    };
    let (reason, retry) = soon("a refusal", offline).await;
    assert_eq!(reason, Code::HalfOpenBudget);
    assert!(retry >= Duration::from_secs(1), "{retry:?}");
    drop(first);
    crate::support::until("alice has come back", || bob.counts().sessions == 1).await;
    assert!(begun.elapsed() >= retry, "{:?}", begun.elapsed());
}
