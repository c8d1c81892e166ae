//! Many callers in one process, who do as they are told, line by line.

use crate::{
    common::{BROUGHT_EVERY, CHUNK, SMALL, calling, known, name, percentile},
    paced,
};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use node_core::registry::Record;
use node_native::node::{Name, Node, Request, Response, StreamReader, StreamWriter};
use rustls::ClientConfig;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::runtime::Runtime;

/// Handshakes, and transfers, at the same time.
const CONCURRENT: usize = 16;
/// Between two looks at how much may be sent by now.
const BREATH: Duration = Duration::from_millis(1);

pub(crate) struct Callers {
    known: Vec<(Name, Record)>,
    targets: Vec<Name>,
    first: usize,
    /// Between two connections.
    pace: Duration,
    tls: Arc<ClientConfig>,
    held: Vec<Caller>,
}

struct Caller {
    node: Node,
    to: Name,
    echo: Option<(StreamReader, StreamWriter)>,
}

impl Callers {
    pub(crate) fn new(port: &str, first: &str, routed: bool, labels: &[&str]) -> Self {
        Self {
            known: known(port.parse().unwrap(), labels, routed),
            targets: labels.iter().map(|label| name(label)).collect(),
            first: first.parse().unwrap(),
            pace: if routed {
                BROUGHT_EVERY / labels.len() as u32
            } else {
                Duration::ZERO
            },
            tls: node_native::tls::client_config().unwrap(),
            held: Vec::new(),
        }
    }

    /// Carries out one command after the other and says what came of it.
    pub(crate) fn obey(mut self) {
        let runtime = Runtime::new().unwrap();
        for line in std::io::stdin().lines() {
            let line = line.unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            let figures = runtime.block_on(self.carry_out(&words));
            let figures: Vec<String> = figures.iter().map(f64::to_string).collect();
            println!("{}", figures.join(" "));
        }
    }

    async fn carry_out(&mut self, words: &[&str]) -> Vec<f64> {
        let number = |word: &str| word.parse::<u32>().unwrap();
        let milliseconds = |word: &str| Duration::from_millis(number(word).into());
        match *words {
            ["connect", count] => self.connect(number(count) as usize).await,
            ["connected"] => self.connected(),
            ["pass", bytes] => self.pass(number(bytes) as usize).await,
            ["serial", time] => self.serial(milliseconds(time)).await,
            ["paced", per_second, time] => {
                let per_second = number(per_second);
                let every = Duration::from_secs(1) / per_second;
                self.paced(every, per_second * number(time) / 1000).await
            }
            ["bulk", mib, time] => self.bulk(number(mib), milliseconds(time)).await,
            _ => panic!("no such command: {words:?}"),
        }
    }

    /// Connects more of them, until there are so many.
    async fn connect(&mut self, count: usize) -> Vec<f64> {
        let (this, begun) = (&*self, tokio::time::Instant::now());
        let more: Vec<Caller> = stream::iter(self.held.len()..count)
            .map(|place| async move {
                let before = (place - this.held.len()) as u32;
                tokio::time::sleep_until(begun + this.pace * before).await;
                let config = calling(this.first + place, &this.known).tls(this.tls.clone());
                let to = this.targets[place % this.targets.len()].clone();
                let node = Node::start(config).await.unwrap();
                node.connect(&to).await.unwrap();
                Caller {
                    node,
                    to,
                    echo: None,
                }
            })
            .buffer_unordered(CONCURRENT)
            .collect()
            .await;
        self.held.extend(more);
        self.connected()
    }

    /// How many have a session.
    fn connected(&self) -> Vec<f64> {
        let connected = |caller: &&Caller| caller.node.counts().sessions > 0;
        vec![self.held.iter().filter(connected).count() as f64]
    }

    /// So many bytes from each of them.
    async fn pass(&self, bytes: usize) -> Vec<f64> {
        let chunk = Bytes::from(vec![9; CHUNK]);
        stream::iter(&self.held)
            .for_each_concurrent(CONCURRENT, |caller| {
                let chunk = chunk.clone();
                async move {
                    let Caller { node, to, .. } = caller;
                    let mut stream = node.open_stream(to, "sink.1", "").await.unwrap();
                    for _ in 0..bytes / CHUNK {
                        stream.write_chunk(chunk.clone()).await.unwrap();
                    }
                    stream.finish();
                    assert!(stream.read_chunk().await.unwrap().is_some());
                }
            })
            .await;
        self.connected()
    }

    /// Requests of the first one, each after the answer to the one before: how many, and the median.
    async fn serial(&self, time: Duration) -> Vec<f64> {
        let Caller { node, to, .. } = &self.held[0];
        let payload = Bytes::from_static(&[7; SMALL]);
        let (begun, mut times) = (Instant::now(), Vec::new());
        while begun.elapsed() < time {
            let asked = Instant::now();
            let request = Request::new("echo.1", payload.clone());
            let answer = node.request(to, request).await.unwrap();
            times.push(asked.elapsed());
            assert_eq!(answer, Response::Success(Some(payload.clone())));
        }
        times.sort();
        vec![times.len() as f64, percentile(&times, 0.5)]
    }

    /// Small messages of everybody over streams that stay open: how many answers, their median and 99th percentile, and the
    /// seconds until the last had come.
    async fn paced(&mut self, every: Duration, rounds: u32) -> Vec<f64> {
        let mut streams = Vec::with_capacity(self.held.len());
        for caller in &mut self.held {
            let stream = match caller.echo.take() {
                Some(stream) => stream,
                None => {
                    let opened = caller.node.open_stream(&caller.to, "echo.1", "").await;
                    opened.unwrap().split()
                }
            };
            streams.push(stream);
        }
        let begun = Instant::now();
        let (streams, mut times) = paced::exchange(streams, every, rounds).await;
        let seconds = begun.elapsed().as_secs_f64();
        for (caller, stream) in self.held.iter_mut().zip(streams) {
            caller.echo = Some(stream);
        }
        times.sort();
        let [p50, p99] = [0.5, 0.99].map(|share| percentile(&times, share));
        vec![times.len() as f64, p50, p99, seconds]
    }

    /// Bulk of the first one for so long, so many MiB a second at most, or as many as pass if that is 0: how many they were.
    async fn bulk(&self, mib: u32, time: Duration) -> Vec<f64> {
        let Caller { node, to, .. } = &self.held[0];
        let chunk = Bytes::from(vec![9; CHUNK]);
        let mut stream = node.open_stream(to, "sink.1", "").await.unwrap();
        let most = match mib {
            0 => f64::INFINITY,
            mib => f64::from(mib),
        };
        let (begun, mut sent) = (Instant::now(), 0.0);
        while begun.elapsed() < time {
            if sent > most * begun.elapsed().as_secs_f64() {
                tokio::time::sleep(BREATH).await;
                continue;
            }
            stream.write_chunk(chunk.clone()).await.unwrap();
            sent += CHUNK as f64 / f64::from(1 << 20);
        }
        stream.finish();
        assert!(stream.read_chunk().await.unwrap().is_some());
        vec![sent / begun.elapsed().as_secs_f64()]
    }
}
