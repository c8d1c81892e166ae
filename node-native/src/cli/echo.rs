//! `nectar run --echo`: somebody to talk to.
//!
//! `echo.1` requests are answered with what they carry. A `chat.1` message, JSON `{id, text, at}`, is answered by
//! another one. `file.1` streams begin with JSON metadata `{name, size, type}`; they are read to their end and
//! answered, line by line, with `{"accept":true}` and `{"sha256", "size"}`.

use crate::node::{Code, IncomingMessage, IncomingStream, Name, Node, NodeConfig, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};
use tokio::sync::Semaphore;

/// Replies under way at once; messages beyond them are taken, but not answered.
const REPLIES: usize = 64;
/// Largest file that is read, in bytes. Nothing of it is kept.
const FILE_MAX: u64 = 1 << 31;

/// What `chat.1` carries.
#[derive(Debug, Serialize, Deserialize)]
struct Chat {
    /// 1 to 64 characters.
    id: String,
    text: String,
    /// Milliseconds since 1970.
    at: f64,
}

/// Answers requests and streams.
pub(super) fn serve(config: NodeConfig) -> NodeConfig {
    config
        .serve("echo.1", |request| async move {
            Response::Success(Some(request.payload))
        })
        .serve_stream("file.1", receive)
}

/// Answers messages, for which it needs the node.
pub(super) fn chat(node: &Node) {
    let replies = Arc::new(Semaphore::new(REPLIES));
    let answering = node.clone();
    node.on_message("chat.1", move |message| {
        let (node, replies) = (answering.clone(), replies.clone());
        async move {
            let Some((to, reply)) = reply_to(&message) else {
                return;
            };
            // The message is confirmed now; the reply has a life of its own.
            if let Ok(permit) = replies.try_acquire_owned() {
                tokio::spawn(async move {
                    if let Err(error) = node.message(&to, "chat.1", reply).await {
                        tracing::debug!(%error, "a reply was not delivered");
                    }
                    drop(permit);
                });
            }
        }
    });
}

/// Whom to answer, and what. A guest has no address, and what is no chat message no answer.
fn reply_to(message: &IncomingMessage) -> Option<(Name, Bytes)> {
    let to = message.from.clone()?;
    let chat: Chat = serde_json::from_slice(&message.payload).ok()?;
    let mut id = [0; 16];
    getrandom::fill(&mut id).ok()?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
    let reply = Chat {
        id: hex::encode(id),
        text: format!("You wrote: {}", chat.text),
        at: now.as_millis() as f64,
    };
    Some((to, serde_json::to_vec(&reply).ok()?.into()))
}

async fn receive(incoming: IncomingStream) {
    #[derive(Deserialize)]
    struct Head {
        size: u64,
    }
    let head: Head = match serde_json::from_slice(incoming.metadata()) {
        Ok(head) => head,
        Err(_) => return incoming.refuse(Code::InvalidArgument.as_u16()),
    };
    if head.size > FILE_MAX {
        return incoming.refuse(Code::TooLarge.as_u16());
    }
    let mut stream = incoming.accept();
    let received = async {
        stream
            .write_chunk(Bytes::from_static(b"{\"accept\":true}\n"))
            .await?;
        let (mut hash, mut size) = (Sha256::new(), 0);
        while let Some(chunk) = stream.read_chunk().await? {
            hash.update(&chunk);
            size += chunk.len() as u64;
            if size > head.size {
                stream.reset(Code::FlowViolated.as_u16());
                return Ok(());
            }
        }
        let sha256 = hex::encode(hash.finalize());
        let line = serde_json::json!({ "sha256": sha256, "size": size }).to_string() + "\n";
        stream.write_chunk(line.into()).await?;
        stream.finish();
        Ok::<_, crate::node::StreamError>(())
    };
    if let Err(error) = received.await {
        tracing::debug!(%error, "a file did not arrive");
    }
}
