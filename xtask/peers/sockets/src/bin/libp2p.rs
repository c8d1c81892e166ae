//! rust-libp2p over TCP + WebSocket + Noise XX + Yamux, direct and through circuit relay v2.
use anyhow::{Context, Result};
use clap::Parser;
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt, stream};
use libp2p::{
    Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, identity,
    multiaddr::Protocol,
    noise, relay,
    swarm::{NetworkBehaviour, SwarmEvent},
    yamux,
};
use libp2p_stream as p2p_stream;
use measure::*;
use std::time::{Duration, Instant};

const PROTO: StreamProtocol = StreamProtocol::new("/bench/1");

#[derive(NetworkBehaviour)]
struct Behaviour {
    stream: p2p_stream::Behaviour,
    client: relay::client::Behaviour,
    server: libp2p::swarm::behaviour::toggle::Toggle<relay::Behaviour>,
    identify: libp2p::identify::Behaviour,
}

#[derive(Parser)]
enum Cmd {
    /// Listens directly; with --relay also through a relay.
    Server {
        port: u16,
        #[arg(long)]
        relay: Option<u16>,
    },
    Relay {
        port: u16,
    },
    Client {
        port: u16,
        server_pid: u32,
        #[arg(long)]
        via: Option<u16>,
    },
}

fn key(seed: u8) -> identity::Keypair {
    let mut b = [seed; 32];
    identity::Keypair::ed25519_from_bytes(&mut b).unwrap()
}
const SERVER: u8 = 1;
const RELAY: u8 = 2;
fn id(seed: u8) -> PeerId {
    key(seed).public().to_peer_id()
}
fn addr(port: u16) -> Multiaddr {
    format!("/ip4/127.0.0.1/tcp/{port}/ws").parse().unwrap()
}

async fn swarm(key: identity::Keypair, is_relay: bool) -> Result<Swarm<Behaviour>> {
    Ok(SwarmBuilder::with_existing_identity(key)
        .with_tokio()
        .with_websocket(noise::Config::new, yamux::Config::default)
        .await?
        .with_relay_client(noise::Config::new, yamux::Config::default)?
        .with_behaviour(|k, client| Behaviour {
            stream: p2p_stream::Behaviour::new(),
            client,
            server: is_relay
                .then(|| {
                    relay::Behaviour::new(
                        k.public().to_peer_id(),
                        relay::Config {
                            max_circuit_bytes: u64::MAX,
                            max_circuit_duration: Duration::from_secs(3600),
                            max_circuits: 4096,
                            max_circuits_per_peer: 4096,
                            max_reservations: 4096,
                            max_reservations_per_peer: 64,
                            reservation_rate_limiters: vec![],
                            circuit_src_rate_limiters: vec![],
                            ..Default::default()
                        },
                    )
                })
                .into(),
            identify: libp2p::identify::Behaviour::new(libp2p::identify::Config::new(
                "/bench/1".into(),
                k.public(),
            )),
        })?
        .with_swarm_config(|c| c.with_idle_connection_timeout(Duration::from_secs(600)))
        .build())
}

async fn serve(mut s: p2p_stream::IncomingStreams) {
    while let Some((_, mut io)) = s.next().await {
        tokio::spawn(async move {
            let mut mode = [0u8; 1];
            io.read_exact(&mut mode).await?;
            if mode[0] == b'b' {
                let mut buf = vec![0u8; CHUNK];
                let mut left = BULK_BYTES;
                while left > 0 {
                    let n = io.read(&mut buf).await?;
                    if n == 0 {
                        break;
                    }
                    left -= n as u64;
                }
                io.write_all(&[1]).await?;
                io.flush().await?;
            } else {
                let mut buf = [0u8; 32];
                loop {
                    io.read_exact(&mut buf).await?;
                    io.write_all(&buf).await?;
                    io.flush().await?;
                }
            }
            anyhow::Ok(())
        });
    }
}

struct Dialer {
    control: p2p_stream::Control,
}

/// A fresh swarm connected to the server at `target`; resolves when the connection is up.
async fn dial(
    target: Multiaddr,
    seed: Option<u8>,
) -> Result<(Dialer, tokio::task::JoinHandle<()>)> {
    let k = seed
        .map(key)
        .unwrap_or_else(identity::Keypair::generate_ed25519);
    let mut s = swarm(k, false).await?;
    let control = s.behaviour().stream.new_control();
    let want = id(SERVER);
    s.dial(target)?;
    let (up, is_up) = tokio::sync::oneshot::channel();
    let mut up = Some(up);
    let h = tokio::spawn(async move {
        loop {
            match s.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == want => {
                    if let Some(u) = up.take() {
                        let _ = u.send(());
                    }
                }
                SwarmEvent::OutgoingConnectionError { error, .. } => {
                    eprintln!("dial: {error:?}");
                    return;
                }
                _ => {}
            }
        }
    });
    is_up.await.context("dial failed")?;
    Ok((Dialer { control }, h))
}

/// A task of its own, as applications do: the thread that waits for it would have to be woken for everything.
#[tokio::main]
async fn main() -> Result<()> {
    tokio::spawn(run()).await?
}

async fn run() -> Result<()> {
    match Cmd::parse() {
        Cmd::Relay { port } => {
            let mut s = swarm(key(RELAY), true).await?;
            s.listen_on(addr(port))?;
            s.add_external_address(addr(port));
            loop {
                s.select_next_some().await;
            }
        }
        Cmd::Server { port, relay } => {
            let mut s = swarm(key(SERVER), false).await?;
            let incoming = s.behaviour().stream.new_control().accept(PROTO).unwrap();
            tokio::spawn(serve(incoming));
            s.listen_on(addr(port))?;
            if let Some(r) = relay {
                s.listen_on(
                    addr(r)
                        .with(Protocol::P2p(id(RELAY)))
                        .with(Protocol::P2pCircuit),
                )?;
            }
            loop {
                match s.select_next_some().await {
                    SwarmEvent::ListenerClosed { reason, .. } => {
                        eprintln!("listener closed {reason:?}")
                    }
                    _ => {}
                }
            }
        }
        Cmd::Client {
            port,
            server_pid,
            via,
        } => {
            let (name, target) = match via {
                None => ("libp2p-ws", addr(port).with(Protocol::P2p(id(SERVER)))),
                Some(r) => (
                    "libp2p-ws-relayed",
                    addr(r)
                        .with(Protocol::P2p(id(RELAY)))
                        .with(Protocol::P2pCircuit)
                        .with(Protocol::P2p(id(SERVER))),
                ),
            };
            let t = Instant::now();
            let n = if via.is_some() { 200 } else { HANDSHAKES };
            stream::iter(0..n)
                .for_each_concurrent(CONCURRENT, |_| {
                    let target = target.clone();
                    async move {
                        let (_, h) = dial(target, None).await.unwrap();
                        h.abort();
                    }
                })
                .await;
            report(
                name,
                "handshake",
                n as f64 / t.elapsed().as_secs_f64(),
                "1/s",
            );

            let (mut d, _h) = dial(target.clone(), None).await?;
            let mut io = d.control.open_stream(id(SERVER), PROTO).await?;
            io.write_all(b"r").await?;
            let mut lat = vec![];
            let mut buf = [7u8; 32];
            for _ in 0..REQUESTS / SERIAL {
                let t = Instant::now();
                io.write_all(&buf).await?;
                io.flush().await?;
                io.read_exact(&mut buf).await?;
                lat.push(t.elapsed());
            }
            report_latencies(name, "request.serial", lat);

            let (mut rx, mut tx) = io.split();
            let gate = std::sync::Arc::new(tokio::sync::Semaphore::new(IN_FLIGHT));
            let g = gate.clone();
            let t = Instant::now();
            tokio::spawn(async move {
                for _ in 0..REQUESTS {
                    g.acquire().await.unwrap().forget();
                    tx.write_all(&[7u8; 32]).await.unwrap();
                    tx.flush().await.unwrap();
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
            let n = REQUESTS / STREAMS;
            for _ in 0..n {
                let mut io = d.control.open_stream(id(SERVER), PROTO).await?;
                io.write_all(b"r").await?;
                io.write_all(&buf).await?;
                io.flush().await?;
                io.read_exact(&mut buf).await?;
                let _ = io.close().await;
            }
            report(
                name,
                "request.stream_each",
                n as f64 / t.elapsed().as_secs_f64(),
                "1/s",
            );

            let mut io = d.control.open_stream(id(SERVER), PROTO).await?;
            io.write_all(b"b").await?;
            let chunk = vec![9u8; CHUNK];
            let t = Instant::now();
            for _ in 0..BULK_BYTES / CHUNK as u64 {
                io.write_all(&chunk).await?;
            }
            io.flush().await?;
            io.read_exact(&mut buf[..1]).await?;
            report(name, "bulk", mib_per_s(BULK_BYTES, t), "MiB/s");

            let before = rss_kib(server_pid);
            let mut held = vec![];
            for _ in 0..if via.is_some() { 200 } else { IDLE } {
                held.push(dial(target.clone(), None).await?);
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
}
