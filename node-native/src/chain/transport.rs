//! How our own questions about a registry travel: as those of a running node, with a bound on what comes back.

use crate::rpc;
use alloy::{
    rpc::json_rpc::{RequestPacket, ResponsePacket},
    transports::{TransportError, TransportErrorKind, TransportFut},
};
use std::task::{Context, Poll};
use tower_service::Service;

/// Longest answer that is read, in bytes: 1 MiB. The longest that we ask for, a block's head or a receipt, has some kilobytes.
/// Worst case: as much for each question under way, of which there is one for each endpoint.
const ANSWER_BYTES: usize = 1 << 20;

/// JSON-RPC over HTTP at one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Transport {
    pub(super) client: reqwest::Client,
    pub(super) url: reqwest::Url,
}

impl Transport {
    async fn ask(self, asked: RequestPacket) -> Result<ResponsePacket, TransportError> {
        let body = serde_json::to_string(&asked).map_err(TransportError::ser_err)?;
        let sent = rpc::send(&self.client, self.url, body, ANSWER_BYTES).await;
        let (status, answer) = sent.map_err(TransportErrorKind::custom)?;
        let too_long = || TransportErrorKind::custom_str("an answer that is too long");
        let answer = answer.ok_or_else(too_long)?;
        let text = || String::from_utf8_lossy(&answer).into_owned();
        match serde_json::from_slice(&answer) {
            // Many endpoints send JSON-RPC errors under other statuses.
            Ok(answered) => Ok(answered),
            Err(_) if !status.is_success() => {
                Err(TransportErrorKind::http_error(status.as_u16(), text()))
            }
            Err(error) => Err(TransportError::deser_err(error, text())),
        }
    }
}

impl Service<RequestPacket> for Transport {
    type Response = ResponsePacket;
    type Error = TransportError;
    type Future = TransportFut<'static>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, asked: RequestPacket) -> Self::Future {
        Box::pin(self.clone().ask(asked))
    }
}
