//! Talks with one peer, line by line, and shows whether it is there.
//!
//! ```text
//! cargo run --example chat -- bob.nectar
//! ```

use node_native::{
    config::{Config, Sources},
    keystore::{PassphraseSource, load_networking},
    node::{Event, Node, NodeConfig, PeerState},
};
use tokio::sync::mpsc;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let Some(to) = std::env::args().nth(1) else {
        return Err("usage: chat NAME".into());
    };
    let config = Config::load(&Sources::from_environment())?;
    let key = load_networking(&config.node.key_file, &PassphraseSource::networking())?;
    let setup = NodeConfig::from_file(&config, key).on_message("text.1", |message| async move {
        // Once this is done, the message counts as delivered.
        println!("< {}", String::from_utf8_lossy(&message.payload));
    });
    let node = Node::start(setup).await?;
    let to = node.parse_name(&to)?;
    let mut events = node.events();
    node.keep(&to, true);

    // Standard input blocks whoever reads it.
    let (typed, mut lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if typed.blocking_send(line).is_err() {
                break;
            }
        }
    });
    loop {
        tokio::select! {
            line = lines.recv() => match line {
                None => break,
                Some(text) => match node.message(&to, "text.1", text).await {
                    Ok(()) => println!("  delivered"),
                    Err(error) => println!("  not delivered: {error}"),
                },
            },
            event = events.next() => match event {
                Some(Event::Peer { name, state, .. }) if name == to => match state {
                    PeerState::Online { .. } => println!("* online"),
                    PeerState::Connecting => println!("* connecting"),
                    PeerState::Interrupted { .. } => println!("* interrupted"),
                    PeerState::Offline { reason, .. } => println!("* offline: {reason}"),
                },
                Some(_) => {}
                None => break,
            },
        }
    }
    node.close().await;
    Ok(())
}
