//! Posting JSON-RPC bodies that the core writes.

use crate::tls::{self, TlsError};
use node_core::registry::FetchFailure;
use std::{sync::OnceLock, time::Duration};

/// Time to a connection, below the time that the core grants a fetch.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for a whole request of ours that the core does not watch over.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Why no client can be made.
#[derive(Clone, Debug, thiserror::Error)]
#[error("no HTTP client can be set up: {0}")]
pub struct ClientError(String);

/// The client that all RPC endpoints are reached through: no redirects, no proxies of the environment, one pool.
pub fn http_client() -> Result<reqwest::Client, ClientError> {
    static CLIENT: OnceLock<Result<reqwest::Client, ClientError>> = OnceLock::new();
    CLIENT
        .get_or_init(|| new_client().map_err(|error| ClientError(error.to_string())))
        .clone()
}

fn new_client() -> Result<reqwest::Client, Box<dyn std::error::Error>> {
    let tls = tls::client_config().map_err(|error: TlsError| Box::new(error))?;
    Ok(reqwest::Client::builder()
        .tls_backend_preconfigured(tls.as_ref().clone())
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(REQUEST_TIMEOUT)
        .build()?)
}

/// Posts `body` and returns what came back, at most `answer_bytes` of it.
pub async fn post(
    client: &reqwest::Client,
    url: &str,
    body: String,
    answer_bytes: usize,
    timeout: Duration,
) -> Result<Vec<u8>, FetchFailure> {
    tokio::time::timeout(timeout, exchange(client, url, body, answer_bytes))
        .await
        .unwrap_or(Err(FetchFailure::Timeout))
}

async fn exchange(
    client: &reqwest::Client,
    url: &str,
    body: String,
    answer_bytes: usize,
) -> Result<Vec<u8>, FetchFailure> {
    let failed = |error: reqwest::Error| match error.is_timeout() {
        true => FetchFailure::Timeout,
        false => FetchFailure::Unreachable,
    };
    let sent = send(client, url, body, answer_bytes).await;
    let (status, answer) = sent.map_err(failed)?;
    let answer = answer.ok_or(FetchFailure::TooLarge)?;
    // Many endpoints send JSON-RPC errors under other statuses; the core reads those.
    if !status.is_success() && !answer.trim_ascii_start().starts_with(b"{") {
        return Err(FetchFailure::Status(status.as_u16()));
    }
    Ok(answer)
}

/// Posts JSON: the status of what came back, and its body, nothing if that is longer than `most` bytes.
pub(crate) async fn send(
    client: &reqwest::Client,
    url: impl reqwest::IntoUrl,
    body: String,
    most: usize,
) -> Result<(reqwest::StatusCode, Option<Vec<u8>>), reqwest::Error> {
    let request = client
        .post(url)
        .header("content-type", "application/json")
        .body(body);
    let mut response = request.send().await?;
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if answer.len() + chunk.len() > most {
            return Ok((response.status(), None));
        }
        answer.extend_from_slice(&chunk);
    }
    Ok((response.status(), Some(answer)))
}
