//! Whoever asks by HTTP as fast as it is answered.

use super::{
    attacker::{somewhere, tcp},
    siege::{LITTLE, Siege},
};
use futures_util::future::join_all;
use std::{net::SocketAddr, time::Duration};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Connections at a time, of four addresses: fewer than there may be.
const CONNECTIONS: u32 = 40;
const REQUEST: &str = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
/// How long each attack goes on.
const TIME: Duration = Duration::from_secs(6);

/// Does something with a new connection again and again on each of many at a time, and sums up what came of it.
async fn again_and_again(
    router: SocketAddr,
    one: impl AsyncFn(tokio::net::TcpStream) -> u64,
) -> u64 {
    let one = &one;
    let many = (0..CONNECTIONS).map(async |n| {
        let mut sum = 0;
        let all = async {
            loop {
                if let Ok(stream) = tcp(router, somewhere(n % 4)).await {
                    sum += one(stream).await;
                }
            }
        };
        let _ = tokio::time::timeout(TIME, all).await;
        sum
    });
    join_all(many).await.iter().sum()
}

#[test]
fn requests_without_end_on_few_connections_keep_nobody_waiting() {
    let siege = Siege::lay(&[], &[]);
    let report = siege.attack("HTTP requests without end", LITTLE, async |router| {
        let asked = REQUEST.repeat((64 << 10) / REQUEST.len());
        again_and_again(router, async |mut stream| {
            let (mut reader, mut writer) = stream.split();
            let write = async { while writer.write_all(asked.as_bytes()).await.is_ok() {} };
            let mut heard = 0;
            let read = async {
                let mut buffer = vec![0; 64 << 10];
                while let Ok(read @ 1..) = reader.read(&mut buffer).await {
                    heard += read as u64;
                }
            };
            // Whoever is closed upon comes again.
            tokio::select! { () = write => {}, () = read => {} }
            heard
        })
        .await
    });
    println!("{} MiB of answers", report.seen >> 20);
    assert!(report.seen > 0, "they are answered");
    siege.lift();
}

#[test]
fn connections_that_come_and_go_without_end_keep_nobody_waiting() {
    let siege = Siege::lay(&[], &[]);
    let report = siege.attack("connections that come and go", LITTLE, async |router| {
        again_and_again(router, async |mut stream| {
            // Their ends do not wait on the attacker's side.
            let _ = stream.set_zero_linger();
            let _ = stream.write_all(REQUEST.as_bytes()).await;
            let mut answer = [0; 512];
            let answered = stream.read(&mut answer).await;
            u64::from(answered.is_ok_and(|read| read > 0))
        })
        .await
    });
    println!("{} connections were answered", report.seen);
    assert!(report.seen > 0, "some are answered");
    siege.lift();
}
