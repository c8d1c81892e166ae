//! Sends a file over a stream, and receives files. Both ends compare the SHA-256.
//!
//! ```text
//! cargo run --example file_stream                          # receives
//! cargo run --example file_stream -- bob.nectar FILE       # sends
//! ```

use bytes::Bytes;
use node_native::{
    config::{Config, Sources},
    keystore::{PassphraseSource, load_networking},
    node::{IncomingStream, Node, NodeConfig, StreamError},
};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(&Sources::from_environment())?;
    let key = load_networking(&config.node.key_file, &PassphraseSource::networking())?;
    let setup = NodeConfig::from_file(&config, key).serve_stream("sha256.1", |incoming| async {
        if let Err(error) = receive(incoming).await {
            eprintln!("a file broke off: {error}");
        }
    });
    let node = Node::start(setup).await?;
    let mut arguments = std::env::args().skip(1);
    match (arguments.next(), arguments.next()) {
        (Some(to), Some(file)) => send(&node, &to, &file).await?,
        _ => tokio::signal::ctrl_c().await?,
    }
    node.close().await;
    Ok(())
}

async fn receive(incoming: IncomingStream) -> Result<(), StreamError> {
    let mut stream = incoming.accept();
    let mut hash = Sha256::new();
    // Only what is read here is granted anew: a slow receiver slows the sender, and nobody in between swells.
    while let Some(chunk) = stream.read_chunk().await? {
        hash.update(&chunk);
    }
    let hash = hex::encode(hash.finalize());
    println!("received {hash}");
    stream.write_chunk(hash.into()).await?;
    stream.finish();
    Ok(())
}

async fn send(node: &Node, to: &str, file: &str) -> Result<(), Box<dyn std::error::Error>> {
    let to = node.parse_name(to)?;
    let mut file = tokio::fs::File::open(file).await?;
    let mut stream = node.open_stream(&to, "sha256.1", Bytes::new()).await?;
    let (mut hash, mut buffer) = (Sha256::new(), vec![0; 64 << 10]);
    loop {
        let length = file.read(&mut buffer).await?;
        if length == 0 {
            break;
        }
        hash.update(&buffer[..length]);
        stream.write_all(&buffer[..length]).await?;
    }
    stream.shutdown().await?;
    let mut theirs = String::new();
    stream.read_to_string(&mut theirs).await?;
    let ours = hex::encode(hash.finalize());
    println!(
        "{}",
        if ours == theirs {
            "the same"
        } else {
            "not the same!"
        }
    );
    Ok(())
}
