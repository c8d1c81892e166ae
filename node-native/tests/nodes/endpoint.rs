//! An RPC endpoint: JSON-RPC over HTTP, with what stands on a registry's chain, or what it says of it.

use crate::{
    posted,
    sockets::{lock, unix_time},
};
use nectar_sim::{Registry, chain::View};
use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// One that answers as long as its runtime lives.
pub(crate) struct Endpoint {
    url: String,
    shown: Arc<Shown>,
}

struct Shown {
    registry: Arc<Mutex<Registry>>,
    /// How it shows the chain, and how long it takes to answer.
    how: Mutex<(View, Duration)>,
    asked: AtomicUsize,
}

impl Endpoint {
    /// An honest and prompt one. The chain's newest block is never older than a second.
    pub(crate) async fn start(registry: Arc<Mutex<Registry>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shown = Arc::new(Shown {
            registry,
            how: Mutex::default(),
            asked: AtomicUsize::new(0),
        });
        let answers = shown.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                answers.asked.fetch_add(1, Ordering::Relaxed);
                let shown = answers.clone();
                tokio::spawn(async move { shown.answer(stream).await });
            }
        });
        Self { url, shown }
    }

    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// How often it was asked so far.
    pub(crate) fn asked(&self) -> usize {
        self.shown.asked.load(Ordering::Relaxed)
    }

    /// Shows the chain like this from now on, after such a delay.
    pub(crate) fn show(&self, view: View, delay: Duration) {
        *lock(&self.shown.how) = (view, delay);
    }
}

impl Shown {
    async fn answer(&self, stream: TcpStream) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let body = posted::body(&mut stream).await?;
        let (view, delay) = lock(&self.how).clone();
        let answer = {
            let chain = &mut lock(&self.registry).chain;
            let now = unix_time();
            if chain.time() < now {
                chain.mine(now);
            }
            chain.answer_as(&view, str::from_utf8(&body).unwrap())
        };
        if delay > Duration::ZERO {
            tokio::time::sleep(delay).await;
        }
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
            answer.len()
        );
        stream
            .write_all(&[head.as_bytes(), &answer].concat())
            .await?;
        stream.shutdown().await
    }
}
