//! iroh: QUIC directly, and QUIC through an iroh-relay (plain HTTP, one WebSocket per endpoint).
use anyhow::Result;
use clap::Parser;
use futures::{StreamExt, stream};
use iroh::{
    Endpoint, EndpointAddr, RelayMode, RelayUrl, SecretKey, TransportAddr,
    endpoint::{Connection, presets},
};
use iroh_relay::{
    RelayConfig, RelayMap,
    server::{RelayConfig as ServerRelay, Server, ServerConfig},
};
use measure::*;
use std::time::{Duration, Instant};

const ALPN: &[u8] = b"bench/1";

#[derive(Parser)]
enum Cmd {
    Relay {
        port: u16,
    },
    Server {
        port: u16,
        #[arg(long)]
        relay: Option<u16>,
    },
    Client {
        port: u16,
        server_pid: u32,
        #[arg(long)]
        via: Option<u16>,
    },
}

fn server_key() -> SecretKey {
    SecretKey::from_bytes(&[1; 32])
}
fn url(port: u16) -> RelayUrl {
    format!("http://127.0.0.1:{port}").parse().unwrap()
}

async fn endpoint(key: SecretKey, port: u16, relay: Option<u16>) -> Result<Endpoint> {
    let mut b = Endpoint::builder(presets::Minimal)
        .secret_key(key)
        .alpns(vec![ALPN.to_vec()]);
    b = match relay {
        Some(r) => {
            let m: RelayMap = RelayConfig::new(url(r), None).into();
            b.relay_mode(RelayMode::Custom(m)).clear_ip_transports()
        }
        None => b
            .relay_mode(RelayMode::Disabled)
            .clear_ip_transports()
            .bind_addr(format!("127.0.0.1:{port}").parse::<std::net::SocketAddr>()?)?,
    };
    let ep = b.bind().await?;
    if relay.is_some() {
        ep.online().await;
    }
    Ok(ep)
}

async fn serve(conn: Connection) -> Result<()> {
    loop {
        let (mut tx, mut rx) = conn.accept_bi().await?;
        tokio::spawn(async move {
            let mut mode = [0u8; 1];
            rx.read_exact(&mut mode).await?;
            if mode[0] == b'b' {
                let mut buf = vec![0u8; CHUNK];
                let mut left = BULK_BYTES;
                while left > 0 {
                    let n = rx.read(&mut buf).await?.unwrap_or(0);
                    if n == 0 {
                        break;
                    }
                    left -= n as u64;
                }
                tx.write_all(&[1]).await?;
            } else {
                let mut buf = [0u8; 32];
                loop {
                    rx.read_exact(&mut buf).await?;
                    tx.write_all(&buf).await?;
                }
            }
            anyhow::Ok(())
        });
    }
}

/// A task of its own, as applications do: the thread that waits for it would have to be woken for everything.
#[tokio::main]
async fn main() -> Result<()> {
    tokio::spawn(run()).await?
}

async fn run() -> Result<()> {
    match Cmd::parse() {
        Cmd::Relay { port } => {
            let mut c = ServerConfig::default();
            c.relay = Some(ServerRelay::new(([127, 0, 0, 1], port)));
            let _s = Server::spawn(c).await?;
            std::future::pending::<()>().await;
        }
        Cmd::Server { port, relay } => {
            let ep = endpoint(server_key(), port, relay).await?;
            eprintln!("up");
            while let Some(inc) = ep.accept().await {
                tokio::spawn(async move { serve(inc.await?).await });
            }
        }
        Cmd::Client {
            port,
            server_pid,
            via,
        } => {
            let name = if via.is_some() {
                "iroh-relayed"
            } else {
                "iroh-quic"
            };
            let target = match via {
                None => EndpointAddr::from_parts(
                    server_key().public(),
                    [TransportAddr::Ip(format!("127.0.0.1:{port}").parse()?)],
                ),
                Some(r) => {
                    EndpointAddr::from_parts(server_key().public(), [TransportAddr::Relay(url(r))])
                }
            };
            let n = 300;
            let t = Instant::now();
            stream::iter(0..n)
                .for_each_concurrent(CONCURRENT, |_| {
                    let target = target.clone();
                    async move {
                        let ep = endpoint(SecretKey::generate(), 0, via).await.unwrap();
                        let c = ep.connect(target, ALPN).await.unwrap();
                        c.close(0u32.into(), b"");
                        drop(ep);
                    }
                })
                .await;
            report(
                name,
                "handshake",
                n as f64 / t.elapsed().as_secs_f64(),
                "1/s",
            );

            let ep = endpoint(SecretKey::generate(), 0, via).await?;
            let conn = ep.connect(target.clone(), ALPN).await?;
            let (mut tx, mut rx) = conn.open_bi().await?;
            tx.write_all(b"r").await?;
            let mut buf = [7u8; 32];
            let mut lat = vec![];
            for _ in 0..REQUESTS / SERIAL {
                let t = Instant::now();
                tx.write_all(&buf).await?;
                rx.read_exact(&mut buf).await?;
                lat.push(t.elapsed());
            }
            report_latencies(name, "request.serial", lat);

            let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT));
            let g = gate.clone();
            let t = Instant::now();
            tokio::spawn(async move {
                for _ in 0..REQUESTS {
                    g.acquire().await.unwrap().forget();
                    tx.write_all(&[7u8; 32]).await.unwrap();
                }
                std::future::pending::<()>().await
            });
            for _ in 0..REQUESTS {
                rx.read_exact(&mut buf).await?;
                gate.add_permits(1);
            }
            report(
                name,
                "request.pipelined",
                REQUESTS as f64 / t.elapsed().as_secs_f64(),
                "1/s",
            );

            let t = Instant::now();
            for _ in 0..REQUESTS / STREAMS {
                let (mut tx, mut rx) = conn.open_bi().await?;
                tx.write_all(b"r").await?;
                tx.write_all(&buf).await?;
                rx.read_exact(&mut buf).await?;
                let _ = tx.finish();
            }
            report(
                name,
                "request.stream_each",
                (REQUESTS / STREAMS) as f64 / t.elapsed().as_secs_f64(),
                "1/s",
            );

            let (mut tx, mut rx) = conn.open_bi().await?;
            tx.write_all(b"b").await?;
            let chunk = vec![9u8; CHUNK];
            let t = Instant::now();
            for _ in 0..BULK_BYTES / CHUNK as u64 {
                tx.write_all(&chunk).await?;
            }
            rx.read_exact(&mut buf[..1]).await?;
            report(name, "bulk", mib_per_s(BULK_BYTES, t), "MiB/s");

            let before = rss_kib(server_pid);
            let mut held = vec![];
            for _ in 0..100 {
                let ep = endpoint(SecretKey::generate(), 0, via).await?;
                let c = ep.connect(target.clone(), ALPN).await?;
                held.push((ep, c));
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
            report(
                name,
                "idle.rss",
                (rss_kib(server_pid) - before) / held.len() as f64,
                "KiB/conn",
            );
            std::process::exit(0);
        }
    }
    Ok(())
}
