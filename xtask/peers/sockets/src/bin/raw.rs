//! The floor: unencrypted, unauthenticated tokio-tungstenite, the least any WebSocket peer can cost.
use anyhow::Result;
use clap::Parser;
use futures::{SinkExt, StreamExt, stream};
use measure::*;
use std::time::Instant;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{
    accept_async_with_config, client_async_with_config,
    tungstenite::{Message, protocol::WebSocketConfig},
};

#[derive(Parser)]
enum Cmd {
    Server { port: u16 },
    Client { port: u16, server_pid: u32 },
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        .write_buffer_size(0)
}

async fn dial(port: u16) -> Result<tokio_tungstenite::WebSocketStream<TcpStream>> {
    let tcp = TcpStream::connect(("127.0.0.1", port)).await?;
    tcp.set_nodelay(true)?;
    Ok(
        client_async_with_config(format!("ws://127.0.0.1:{port}/"), tcp, Some(config()))
            .await?
            .0,
    )
}

/// A task of its own, as applications do: the thread that waits for it would have to be woken for everything.
#[tokio::main]
async fn main() -> Result<()> {
    tokio::spawn(run()).await?
}

async fn run() -> Result<()> {
    match Cmd::parse() {
        Cmd::Server { port } => {
            let listener = TcpListener::bind(("127.0.0.1", port)).await?;
            loop {
                let (tcp, _) = listener.accept().await?;
                tcp.set_nodelay(true)?;
                tokio::spawn(async move {
                    let mut ws = accept_async_with_config(tcp, Some(config())).await?;
                    let mut sunk = 0u64;
                    while let Some(Ok(m)) = ws.next().await {
                        if let Message::Binary(b) = m {
                            if b.len() == CHUNK {
                                sunk += b.len() as u64;
                                if sunk >= BULK_BYTES {
                                    sunk = 0;
                                    ws.send(Message::Binary(vec![1u8; 1].into())).await?;
                                }
                            } else {
                                ws.send(Message::Binary(b)).await?;
                            }
                        }
                    }
                    anyhow::Ok(())
                });
            }
        }
        Cmd::Client { port, server_pid } => {
            let t = Instant::now();
            stream::iter(0..HANDSHAKES)
                .for_each_concurrent(CONCURRENT, |_| async move {
                    let mut ws = dial(port).await.unwrap();
                    let _ = ws.close(None).await;
                })
                .await;
            report(
                "raw-ws",
                "handshake",
                HANDSHAKES as f64 / t.elapsed().as_secs_f64(),
                "1/s",
            );

            let mut ws = dial(port).await?;
            let mut lat = vec![];
            for _ in 0..REQUESTS / SERIAL {
                let t = Instant::now();
                ws.send(Message::Binary(vec![7u8; 32].into())).await?;
                ws.next().await.unwrap()?;
                lat.push(t.elapsed());
            }
            report_latencies("raw-ws", "request.serial", lat);

            let (mut tx, mut rx) = dial(port).await?.split();
            let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT));
            let g = gate.clone();
            let t = Instant::now();
            let send = tokio::spawn(async move {
                for _ in 0..REQUESTS {
                    g.acquire().await.unwrap().forget();
                    tx.send(Message::Binary(vec![7u8; 32].into()))
                        .await
                        .unwrap();
                }
                tx
            });
            for _ in 0..REQUESTS {
                rx.next().await.unwrap()?;
                gate.add_permits(1);
            }
            report(
                "raw-ws",
                "request.pipelined",
                REQUESTS as f64 / t.elapsed().as_secs_f64(),
                "1/s",
            );
            drop(send);

            let mut ws = dial(port).await?;
            let chunk = bytes::Bytes::from(vec![9u8; CHUNK]);
            let t = Instant::now();
            for _ in 0..BULK_BYTES / CHUNK as u64 {
                ws.send(Message::Binary(chunk.clone())).await?;
            }
            ws.next().await.unwrap()?;
            report("raw-ws", "bulk", mib_per_s(BULK_BYTES, t), "MiB/s");

            let before = rss_kib(server_pid);
            let mut held = vec![];
            for _ in 0..IDLE {
                held.push(dial(port).await?);
            }
            tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            report(
                "raw-ws",
                "idle.rss",
                (rss_kib(server_pid) - before) / IDLE as f64,
                "KiB/conn",
            );
        }
    }
    Ok(())
}
