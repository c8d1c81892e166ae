#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use node_core::registry::FetchFailure;
use node_native::rpc::{http_client, post};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

/// An endpoint that answers every request with `answer` and hangs up.
async fn endpoint(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

async fn ask(url: &str) -> Result<Vec<u8>, FetchFailure> {
    let client = http_client().unwrap();
    post(&client, url, "{}".into(), 1000, Duration::from_millis(500)).await
}

fn http(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\ncontent-length: {}\r\n{headers}\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn an_answer_is_bounded_in_size_and_time_and_redirects_are_none() {
    let answer = ask(&endpoint(http("200 OK", "", "{\"result\":1}")).await).await;
    assert_eq!(answer.unwrap(), b"{\"result\":1}");
    let answer = ask(&endpoint(http("400 Bad Request", "", "{\"error\":1}")).await).await;
    assert_eq!(
        answer.unwrap(),
        b"{\"error\":1}",
        "JSON-RPC errors come under many statuses"
    );
    let answer = ask(&endpoint(http("429 Too Many Requests", "", "slow down")).await).await;
    assert_eq!(answer, Err(FetchFailure::Status(429)));
    let answer = ask(&endpoint(http("200 OK", "", &"x".repeat(1001))).await).await;
    assert_eq!(answer, Err(FetchFailure::TooLarge));
    let target = endpoint(http("200 OK", "", "{}")).await;
    let answer = ask(&endpoint(http(
        "307 Temporary Redirect",
        &format!("location: {target}\r\n"),
        "",
    ))
    .await)
    .await;
    assert_eq!(answer, Err(FetchFailure::Status(307)));
    let answer = ask(&endpoint("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".into()).await).await;
    assert_eq!(answer, Err(FetchFailure::Unreachable), "broken off");
    assert_eq!(
        ask("http://127.0.0.1:1").await,
        Err(FetchFailure::Unreachable)
    );

    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    assert_eq!(ask(&url).await, Err(FetchFailure::Timeout));
}
