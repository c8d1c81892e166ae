//! `nectar send` and `nectar request`: one operation with one peer.

use super::{
    CallerArgs, Context, Failure, MessageArgs,
    failure::trouble,
    own::{self, Fault},
    serve,
};
use crate::{
    config::Config,
    node::{Code, Name, Node, NodeConfig, NodeError, Request, Response},
};
use bytes::Bytes;
use serde_json::{Value, json};
use std::{fs::File, io::Read, time::Duration};

pub(super) async fn send(context: Context, args: MessageArgs) -> Result<(), Failure> {
    let Context { mut config, out } = context;
    args.caller.registry.apply(&mut config);
    let payload = payload(&args.payload)?;
    let to = config.parse_name(&args.name)?;
    let caller = Caller::start(config, &args.caller).await?;
    let sending = caller.node.message(&to, &args.protocol, payload);
    let sent = match tokio::time::timeout(Duration::from_secs(args.timeout), sending).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(caller.failure(error, &to).await),
        Err(_) => Err(untaken(&args)),
    };
    caller.node.close().await;
    sent?;
    out.result(
        format_args!("delivered to {}", args.name),
        &json!({ "delivered": true, "to": args.name }),
    );
    Ok(())
}

pub(super) async fn request(context: Context, args: MessageArgs) -> Result<(), Failure> {
    let Context { mut config, out } = context;
    args.caller.registry.apply(&mut config);
    let payload = payload(&args.payload)?;
    let to = config.parse_name(&args.name)?;
    let caller = Caller::start(config, &args.caller).await?;
    // There is nothing else on the way that it could overtake, and one round trip less is what people notice.
    let request = Request::new(args.protocol, payload).early();
    let timeout = Duration::from_secs(args.timeout);
    let answer = match caller.node.request_within(&to, request, timeout).await {
        Ok(answer) => Ok(answer),
        Err(error) => Err(caller.failure(error, &to).await),
    };
    caller.node.close().await;
    let (kind, data) = match answer? {
        Response::Success(data) => ("success", data.unwrap_or_default()),
        Response::Protocol(data) => ("protocol", data),
        Response::Error { code, message } => {
            // One line of ours, not several of the peer's.
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
        out.data(&data);
    }
    Ok(())
}

/// A node for the time of one command. It calls, but does not connect to routers of its own: nobody calls it.
pub(super) struct Caller {
    pub(super) node: Node,
    /// The key that this process has for its name.
    key: Option<[u8; 32]>,
    /// Keeps a running node of the same name from being superseded.
    _lock: Option<File>,
}

impl Caller {
    pub(super) async fn start(mut config: Config, args: &CallerArgs) -> Result<Self, Failure> {
        config.listen = None;
        config.node.allow_private |= args.allow_private;
        if !args.guest
            && let Some(own) = &config.node.name
            && !config.registries.iter().any(|each| each.id == own.registry)
        {
            return Err(Failure::usage(format!(
                "{} is not of the registry that --contract names: call as a guest with --guest",
                own.label
            )));
        }
        let (node_config, key, lock) = if args.guest || config.node.name.is_none() {
            (NodeConfig::guest_from_file(&config), None, None)
        } else {
            let (key, lock) = serve::own_key(&config, "call as a guest with --guest")?;
            let public = key.verifying_key().to_bytes();
            let node_config = NodeConfig::from_file(&config, key).calls_only();
            (node_config, Some(public), Some(lock))
        };
        Ok(Self {
            node: Node::start(node_config).await?,
            key,
            _lock: lock,
        })
    }

    /// In words, why `to` was not reached. What others refuse about our own name has the same codes as what we find
    /// wrong with theirs, and would read as if theirs were meant.
    pub(super) async fn failure(&self, error: NodeError, to: &Name) -> Failure {
        if let Code::HostingRefused | Code::NotHosted = error.reason() {
            let shown = self.node.display_name(to);
            return Failure::failed(format!(
                "{error}: the owner of {shown} lists a router that does with `nectar record update {shown} --router …`, \
                 or the router's operator lets it in with router.host"
            ));
        }
        if let Some(trouble) = trouble(error.reason(), &self.node.endpoints()) {
            let shown = self.node.display_name(to);
            return Failure::failed(format!("{shown} cannot be looked up: {trouble}"));
        }
        let own = match (self.node.name(), self.key) {
            (Some(own), Some(key)) if own != to && own::may_be_ours(error.reason()) => {
                Some((own, key))
            }
            _ => None,
        };
        let Some((own, key)) = own else {
            return error.into();
        };
        // A name that nobody has is reason enough, whatever is wrong with ours.
        if self.node.resolve(to, false).await.is_err() {
            return error.into();
        }
        let shown = self.node.display_name(own);
        let remedy = match own::fault(&self.node, key).await {
            Ok(Some(Fault::Unregistered)) => format!("run `nectar register {shown}`"),
            Ok(Some(Fault::OtherKey)) => {
                format!("it has another key, run `nectar record rotate {shown}`")
            }
            Ok(None) if error.reason() == Code::NameUnknown => {
                "it was not yet when they last looked, try again in 15 s".into()
            }
            _ => return error.into(),
        };
        Failure::failed(format!(
            "{error}; this is about {shown}, your own name: {remedy}, or call as a guest with --guest"
        ))
    }
}

/// A peer keeps messages for protocols that its application may yet serve: that nobody takes one is no error of its own.
fn untaken(args: &MessageArgs) -> Failure {
    Failure::failed(format!(
        "{} did not take the message within {} s: its application may not know {}",
        args.name, args.timeout, args.protocol
    ))
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
