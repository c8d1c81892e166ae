//! The native side of what a page's node is measured by (`node-wasm/js/e2e/rates.mjs`): a node that a page calls directly, a router,
//! and a node behind that router.
//!
//! ```text
//! cargo run --release --example tab -- server|router KEY
//! cargo run --release --example tab -- target KEY ROUTERS_PORT
//! cargo run --release --example tab -- plain
//! ```
//!
//! `plain` is no node but a bare WebSocket server: what the browser's WebSocket carries without us. `KEY` is that of `tab.bench`,
//! in hexadecimal. The first line on standard output says how to reach the node; it ends when standard input does.
#![allow(
    clippy::unwrap_used,
    reason = "a measurement that fails has nothing to report"
)]

#[allow(dead_code, reason = "others have more in common")]
mod common;

use bytes::Bytes;
use common::{
    CHUNK, arguments, behind, config, for_anyone, gone, indirect, key, listen, name, record,
    registry, run, serving,
};
use futures_util::{SinkExt, StreamExt};
use node_core::registry::Record;
use node_native::node::{IncomingStream, Node, NodeConfig};
use std::net::Ipv4Addr;
use tokio::net::TcpListener;
use tokio_tungstenite::{accept_async, tungstenite::Message};

const TAB: &str = "tab";
const TARGET: &str = "server";

fn main() {
    match *arguments() {
        ["server", key] => run(listening(TARGET, known(target(), key))),
        ["router", key] => {
            let config = config("router").router(for_anyone());
            run(listening(
                "router",
                known(config.pin(name(TARGET), indirect(TARGET)), key),
            ));
        }
        ["target", key, port] => run(async {
            let config = known(target(), key);
            let _node = behind(config, port.parse().unwrap(), TARGET).await;
            say(TARGET, None);
            gone().await;
        }),
        ["plain"] => run(plain()),
        _ => {
            eprintln!("usage: tab server|router KEY | tab target KEY ROUTERS_PORT | tab plain");
            std::process::exit(2);
        }
    }
}

async fn listening(label: &str, config: NodeConfig) {
    let node = Node::start(config.listen_with(listen())).await.unwrap();
    say(label, node.local_addr().map(|address| address.port()));
    gone().await;
}

fn say(label: &str, port: Option<u16>) {
    let registry = registry().id;
    println!(
        "{}",
        serde_json::json!({
            "port": port,
            "key": hex::encode(key(label).verifying_key().as_bytes()),
            "chainId": registry.chain_id,
            "contract": format!("0x{}", hex::encode(registry.contract)),
        })
    );
}

fn target() -> NodeConfig {
    serving(TARGET, 0).serve_stream("source.1", source)
}

/// Lets a node know the tab.
fn known(config: NodeConfig, key: &str) -> NodeConfig {
    let key = hex::decode(key).unwrap().try_into().unwrap();
    config.pin(
        name(TAB),
        Record {
            key,
            ..record(TAB, None, &[])
        },
    )
}

/// Sends as many bytes as the metadata says.
async fn source(incoming: IncomingStream) {
    let bytes = std::str::from_utf8(incoming.metadata())
        .unwrap()
        .parse::<usize>()
        .unwrap();
    let mut stream = incoming.accept();
    let chunk = Bytes::from(vec![9; CHUNK]);
    for _ in 0..bytes / CHUNK {
        if stream.write_chunk(chunk.clone()).await.is_err() {
            return;
        }
    }
    stream.finish();
}

/// Takes messages until an empty one, says so, and gives as many back.
async fn plain() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    say("plain", Some(listener.local_addr().unwrap().port()));
    let serve = async {
        let (stream, _) = listener.accept().await.unwrap();
        let mut socket = accept_async(stream).await.unwrap();
        let mut taken = 0;
        while let Some(Ok(message)) = socket.next().await
            && !message.is_empty()
        {
            taken += 1;
        }
        let chunk = Bytes::from(vec![9; CHUNK]);
        let all = std::iter::once(Bytes::new()).chain(std::iter::repeat_n(chunk, taken));
        for part in all {
            socket.send(Message::Binary(part)).await.unwrap();
        }
        while let Some(Ok(_)) = socket.next().await {}
    };
    tokio::select! {
        () = serve => {}
        () = gone() => {}
    }
}
