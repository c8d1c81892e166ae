//! The router that lies, behind a listener of this machine.

use crate::{
    sockets::lock,
    support::{Network, soon},
};
use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use nectar_sim::{Lie, LineId, LyingRouter};
use node_core::{
    Now,
    wire::upgrade::{PATH, SUBPROTOCOL},
};
use node_native::{
    resolve::Clock,
    stream::{READ_BUFFER, socket_config},
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Message,
        handshake::server::{ErrorResponse, Request, Response},
        http::{HeaderValue, header},
    },
};

/// It listens until the test ends.
pub(crate) struct Liar(Arc<Mutex<Served>>);

struct Served {
    router: LyingRouter,
    clock: Clock,
    /// What is to be sent over each line.
    lines: HashMap<LineId, UnboundedSender<Bytes>>,
    last: LineId,
}

impl Liar {
    /// The router called `label`, where its record says.
    pub(crate) async fn start(network: &Network, label: &str, lie: Lie) -> Self {
        let listener = TcpListener::bind(network.address(label)).await.unwrap();
        let served = Arc::new(Mutex::new(Served {
            router: LyingRouter::new(label, lie),
            clock: Clock::new(),
            lines: HashMap::new(),
            last: 0,
        }));
        let serving = served.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serve(tcp, serving.clone()));
            }
        });
        Self(served)
    }

    /// Whether the lie made a difference to anybody.
    pub(crate) fn told(&self) -> bool {
        lock(&self.0).router.told()
    }

    /// Every byte of circuits that it has seen in clear.
    pub(crate) fn captured(&self) -> Vec<u8> {
        lock(&self.0).router.captured().to_vec()
    }
}

impl Served {
    fn open(&mut self) -> (LineId, UnboundedReceiver<Bytes>) {
        let (says, said) = unbounded_channel();
        self.last += 1;
        self.lines.insert(self.last, says);
        self.router.handle_opened(self.last);
        (self.last, said)
    }

    /// Tells the router what has happened, and hands out what it says to that.
    fn act(&mut self, work: impl FnOnce(&mut LyingRouter, Now)) {
        let now = self.clock.now();
        work(&mut self.router, now);
        while let Some((line, message)) = self.router.poll_transmit(now.mono) {
            if let Some(says) = self.lines.get(&line) {
                // A line that has just ended hears nothing.
                let _ = says.send(message);
            }
        }
    }
}

/// One line, from the upgrade to its end.
async fn serve(tcp: TcpStream, served: Arc<Mutex<Served>>) {
    let config = Some(socket_config(READ_BUFFER));
    let upgraded = accept_hdr_async_with_config(tcp, upgrade, config);
    // Whoever found another way meanwhile goes away.
    let Ok(mut socket) = soon("an upgrade", upgraded).await else {
        return;
    };
    let (line, mut said) = lock(&served).open();
    while let Some(message) = next(&mut socket, &mut said).await {
        lock(&served).act(|router, now| router.handle_message(line, &message, now));
    }
    let mut served = lock(&served);
    served.lines.remove(&line);
    served.act(|router, now| router.handle_ended(line, now.mono));
}

/// Message 1 comes over the WebSocket, whatever else was offered.
#[allow(clippy::result_large_err, reason = "the signature is tungstenite's")]
fn upgrade(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    assert_eq!(request.uri().path(), PATH);
    response.headers_mut().insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(SUBPROTOCOL),
    );
    Ok(response)
}

/// The next message that comes in; until then, what is to be sent is.
async fn next(
    socket: &mut WebSocketStream<TcpStream>,
    said: &mut UnboundedReceiver<Bytes>,
) -> Option<Bytes> {
    loop {
        tokio::select! {
            heard = socket.next() => match heard {
                Some(Ok(Message::Binary(message))) => return Some(message),
                // A close frame is answered beneath us, and then nothing more comes.
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            },
            Some(message) = said.recv() => socket.send(Message::Binary(message)).await.ok()?,
        }
    }
}
