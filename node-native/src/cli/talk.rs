//! `nectar send` and `nectar request`: one operation with one peer.

use super::{CallerArgs, Context, Failure, MessageArgs, serve};
use crate::{
    config::Config,
    node::{Code, Node, NodeConfig, Request, Response},
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{Read, Write},
    time::Duration,
};

pub(super) async fn send(context: Context, args: MessageArgs) -> Result<(), Failure> {
    let Context { config, out } = context;
    let payload = payload(&args.payload)?;
    let to = config.parse_name(&args.name)?;
    let caller = Caller::start(config, &args.caller).await?;
    let sending = caller.node.message(&to, &args.protocol, payload);
    let sent = tokio::time::timeout(Duration::from_secs(args.timeout), sending).await;
    caller.node.close().await;
    sent.map_err(|_| Failure::failed(format!("{}: {}", args.name, Code::Timeout)))??;
    out.result(
        format_args!("delivered to {}", args.name),
        &json!({ "delivered": true, "to": args.name }),
    );
    Ok(())
}

pub(super) async fn request(context: Context, args: MessageArgs) -> Result<(), Failure> {
    let Context { config, out } = context;
    let payload = payload(&args.payload)?;
    let to = config.parse_name(&args.name)?;
    let caller = Caller::start(config, &args.caller).await?;
    let request = Request::new(args.protocol, payload);
    let timeout = Duration::from_secs(args.timeout);
    let answer = caller.node.request_within(&to, request, timeout).await;
    caller.node.close().await;
    let (kind, data) = match answer? {
        Response::Success(data) => ("success", data.unwrap_or_default()),
        Response::Protocol(data) => ("protocol", data),
        Response::Error { code, message } => {
            // Whatever the peer wrote must not steer our terminal.
            let message: String = message.chars().filter(|c| !c.is_control()).collect();
            return Err(Failure::failed(format!(
                "{} answers with error {code}: {message}",
                args.name
            )));
        }
    };
    if out.is_json() {
        out.result("", &json!({ "answer": kind, "data": text_or_hex(&data) }));
    } else {
        // As it came, for pipes. A reader that goes away is no error.
        let mut stdout = std::io::stdout();
        let _ = stdout.write_all(&data);
        let _ = stdout.write_all(b"\n");
    }
    Ok(())
}

/// A node for the time of one command. It calls, but does not connect to routers of its own: nobody calls it.
pub(super) struct Caller {
    pub(super) node: Node,
    /// Keeps a running node of the same name from being superseded.
    _lock: Option<File>,
}

impl Caller {
    pub(super) async fn start(mut config: Config, args: &CallerArgs) -> Result<Self, Failure> {
        config.listen = None;
        config.node.allow_private |= args.allow_private;
        let (node_config, lock) = if args.guest || config.node.name.is_none() {
            (NodeConfig::guest_from_file(&config), None)
        } else {
            let (key, lock) = serve::own_key(&config)?;
            (NodeConfig::from_file(&config, key).calls_only(), Some(lock))
        };
        Ok(Self {
            node: Node::start(node_config).await?,
            _lock: lock,
        })
    }
}

fn payload(text: &str) -> Result<Bytes, Failure> {
    if text != "-" {
        return Ok(Bytes::copy_from_slice(text.as_bytes()));
    }
    let mut read = Vec::new();
    std::io::stdin()
        .read_to_end(&mut read)
        .map_err(|error| Failure::failed(format!("standard input cannot be read: {error}")))?;
    Ok(read.into())
}

/// JSON carries text as text, and other bytes as an object that says so.
fn text_or_hex(data: &[u8]) -> Value {
    match std::str::from_utf8(data) {
        Ok(text) => text.into(),
        Err(_) => json!({ "hex": hex::encode(data) }),
    }
}
