//! Asks somebody, as a guest, and prints the answer.
//!
//! ```text
//! cargo run --example request -- bob.nectar hello
//! ```

use node_native::{
    config::{Config, Sources},
    node::{Code, Node, NodeConfig, Request, Response},
};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(to), Some(text)) = (arguments.next(), arguments.next()) else {
        return Err("usage: request NAME TEXT".into());
    };
    let config = Config::load(&Sources::from_environment())?;
    let node = Node::start(NodeConfig::guest_from_file(&config).calls_only()).await?;
    let to = node.parse_name(&to)?;
    match node.request(&to, Request::new("echo.1", text)).await {
        Ok(Response::Success(data)) => {
            println!("{}", String::from_utf8_lossy(&data.unwrap_or_default()));
        }
        Ok(other) => println!("{other:?}"),
        // Nobody is there; `error` says what was tried, and how it failed.
        Err(error) if error.code == Code::Offline => println!("offline: {error}"),
        Err(error) => return Err(error.into()),
    }
    node.close().await;
    Ok(())
}
