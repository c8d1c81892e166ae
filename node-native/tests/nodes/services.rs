//! Handlers, and what becomes of requests when they fail.

use crate::support::{Network, echo, name, ok, soon, until};
use node_core::Limits;
use node_native::node::{Code, Node, Request, Response};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn pair() -> [Node; 2] {
    let network = Network::default().direct("alice").direct("bob");
    [network.start("alice").await, network.start("bob").await]
}

async fn ask(from: &Node, protocol: &str) -> Response {
    let to = name("bob");
    let asking = from.request(&to, Request::new(protocol, "?"));
    soon("an answer", asking).await.unwrap()
}

#[tokio::test]
async fn a_handler_that_panics_says_that_it_failed_and_the_next_request_is_answered() {
    let [alice, bob] = pair().await;
    bob.serve("at-once", |_| async { panic!("on purpose") });
    bob.serve("when-called", |_| -> std::future::Ready<Response> {
        panic!("on purpose")
    });
    bob.serve("later", |_| async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        panic!("on purpose")
    });
    for protocol in ["at-once", "when-called", "later"] {
        assert_eq!(
            ask(&alice, protocol).await,
            Response::refuse(Code::HandlerFailed),
            "{protocol}"
        );
    }
    assert_eq!(echo(&alice, "bob", b"alive").await, ok(b"alive"));
}

#[tokio::test]
async fn a_protocol_that_nobody_serves_is_refused() {
    let [alice, bob] = pair().await;
    assert_eq!(
        ask(&alice, "nonsense.1").await,
        Response::refuse(Code::NoHandler)
    );
    let mut stream = soon("open", alice.open_stream(&name("bob"), "nonsense.1", ""))
        .await
        .unwrap();
    let error = soon("reset", stream.read_chunk()).await.unwrap_err();
    assert_eq!(
        error,
        node_native::node::StreamError::Reset(Code::NoHandler.as_u16())
    );
    drop(bob);
}

#[tokio::test]
async fn a_request_whose_future_is_dropped_stops_its_handler() {
    struct Counted(Arc<AtomicUsize>);
    impl Drop for Counted {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let [alice, bob] = pair().await;
    let (begun, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counting, guard) = (begun.clone(), stopped.clone());
    bob.serve("slow", move |_| {
        counting.fetch_add(1, Ordering::SeqCst);
        let guard = Counted(guard.clone());
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            Response::Success(None)
        }
    });
    let to = name("bob");
    let asking = alice.request(&to, Request::new("slow", "?"));
    tokio::select! {
        _ = asking => panic!("nobody answers"),
        () = until("the handler runs", || begun.load(Ordering::SeqCst) == 1) => {}
    }
    until("the handler is stopped", || {
        stopped.load(Ordering::SeqCst) == 1
    })
    .await;
    assert_eq!(echo(&alice, "bob", b"alive").await, ok(b"alive"));
}

#[tokio::test]
async fn a_message_that_nobody_takes_is_not_delivered() {
    let network = Network::default().direct("alice").direct("bob");
    let limits = Limits {
        request_deadline: Duration::from_millis(400),
        ..Limits::default()
    };
    let alice = Node::start(network.config("alice").limits(limits))
        .await
        .unwrap();
    let bob = network.start("bob").await;
    let to = name("bob");
    let error = soon("no delivery", alice.message(&to, "nonsense.1", "?")).await;
    assert_eq!(error.unwrap_err().code, Code::Timeout);
    bob.on_message("text.1", |_| async {});
    soon("a delivery", alice.message(&to, "text.1", "?"))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_stream_is_a_reader_and_a_writer() {
    let [alice, bob] = pair().await;
    bob.serve_stream("shout.1", |incoming| async move {
        let mut stream = incoming.accept();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        stream
            .write_all(text.to_uppercase().as_bytes())
            .await
            .unwrap();
        stream.shutdown().await.unwrap();
    });
    let mut stream = soon("open", alice.open_stream(&name("bob"), "shout.1", ""))
        .await
        .unwrap();
    let said = soon("an answer", async {
        stream.write_all(b"hello, ").await.unwrap();
        stream.write_all(b"world").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await.unwrap();
        heard
    })
    .await;
    assert_eq!(said, "HELLO, WORLD");
}
