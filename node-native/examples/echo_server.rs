//! Answers requests, as the name that `nectar.toml` gives it.
//!
//! ```text
//! cargo run --example echo_server
//! ```

use node_native::{
    config::{Config, Sources},
    keystore::{PassphraseSource, load_networking},
    node::{Node, NodeConfig, Response},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = Config::load(&Sources::from_environment())?;
    let key = load_networking(&config.node.key_file, &PassphraseSource::networking())?;
    // In place before the first peer comes.
    let setup = NodeConfig::from_file(&config, key).serve("echo.1", |request| async move {
        Response::Success(Some(request.payload))
    });
    let node = Node::start(setup).await?;
    if let Some(address) = node.local_addr() {
        println!("listening at {address}; press Ctrl-C to end");
    }
    tokio::signal::ctrl_c().await?;
    node.close().await;
    Ok(())
}
