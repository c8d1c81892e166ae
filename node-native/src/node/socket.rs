//! One WebSocket, one task: it reads, writes, and carries out what follows from both.
//!
//! A single task for both directions means that an answer which is ready at once leaves without another task's waking,
//! and that everything which came in together is answered in one write.

use super::{Token, driver::Shared};
use crate::stream::{READ_BUFFER, SLICE, Socket, socket_config};
use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt, task::AtomicWaker};
use node_core::{
    Code,
    channel::HandshakeError,
    node::{Output, Pipe},
    time::take,
};
use std::{
    future::poll_fn,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{
    Error, Message,
    error::ProtocolError,
    protocol::{CloseFrame, Role, frame::coding::CloseCode},
};

/// Messages read before writing gets its turn, and written before reading does.
const TURN: usize = 32;
/// Bytes that the kernel holds unsent before it says that the socket is full. Beyond them nothing is sealed, so that
/// urgent frames overtake bulk up to here.
const UNSENT: u32 = 128 << 10;
/// From this length on a message may have made the WebSocket's buffers grow.
const LARGE: usize = 1 << 10;
/// Bytes of frames that one message may take, and what has been read beyond it. 1 MiB; worst case some 180,000 frames of nothing,
/// which would have no end. A record in frames of one byte each has 460 KiB.
const FRAMES: u64 = 1 << 20;
/// The same before any message has come: those of the handshake have 1.2 KiB. 16 KiB; worst case some 2,700 frames of nothing,
/// from whoever can connect. In frames of one byte each they have 9 KiB.
const FIRST_FRAMES: u64 = 16 << 10;
/// One ping or pong of WebSocket in this time. Nobody needs any; proxies and libraries send one in some seconds, and each ping is
/// answered.
const PING: Duration = Duration::from_millis(100);
/// The window of that: 100 at once. Worst case: 100 pongs of 125 bytes, and ten a second.
const PINGS: Duration = Duration::from_secs(10);
/// Messages that we send until the handshake is over: its own, and the first record.
const HANDSHAKE: u8 = 2;
/// When nothing so long has passed for this time, large buffers are given up.
const REST: Duration = Duration::from_secs(1);
/// Time for the last messages, the close frame and the peer's answer to it.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes of a peer that goes on talking which are read and dropped, so that our close frame is not lost in a reset.
const DRAIN: usize = 256 << 10;
/// The same while they are whole frames: what a peer may have had under way when we said that we close, and not a second's worth
/// of a fast link. Beyond [`DRAIN`] no more than it has sent before, by which TCP lets it go ahead.
const UNDER_WAY: u64 = 8 << 20;

/// How the rest of the node ends a socket, or its dialling.
#[derive(Debug, Default)]
pub(super) struct Link {
    /// 0 while open, else the code that closes it, plus one.
    closing: AtomicU32,
    waker: AtomicWaker,
}

impl Link {
    /// Asks the socket's task to close it. The first code stands.
    pub(super) fn close(&self, code: Code) {
        let wish = u32::from(code.as_u16()) + 1;
        let _ = self
            .closing
            .compare_exchange(0, wish, Ordering::AcqRel, Ordering::Acquire);
        self.waker.wake();
    }

    /// Resolves once [`close`](Self::close) was called.
    pub(super) async fn closed(&self) -> Code {
        poll_fn(|cx| self.poll_closed(cx)).await
    }

    fn poll_closed(&self, cx: &mut Context<'_>) -> Poll<Code> {
        if let Some(code) = self.wish() {
            return Poll::Ready(code);
        }
        self.waker.register(cx.waker());
        // It may have been closed between the look and the registration.
        self.wish().map_or(Poll::Pending, Poll::Ready)
    }

    fn wish(&self) -> Option<Code> {
        let wish = self.closing.load(Ordering::Acquire).checked_sub(1)?;
        let code = u16::try_from(wish).ok().and_then(Code::from_u16);
        Some(code.unwrap_or(Code::Closed))
    }
}

/// Drives an open socket until it is closed from either side. `role` is ours on it.
///
/// What is kept while it is open is a task of its own: whatever is needed at its end only is boxed.
pub(super) async fn drive(
    shared: &Arc<Shared>,
    mut socket: Box<Socket>,
    role: Role,
    pipe: &Pipe<Token>,
    link: &Link,
) {
    limit_unsent(&socket);
    let mut driven = Driven {
        shared,
        pipe,
        link,
        out: Vec::new(),
        unflushed: false,
        heard: false,
        taken: socket.get_ref().given(),
        whole: socket.get_ref().given(),
        masked: role == Role::Server,
        large: Some(Instant::now()),
        sent: 0,
        begun: Instant::now(),
        pings: node_core::time::Instant::default(),
    };
    loop {
        match poll_fn(|cx| driven.poll(&mut socket, cx)).await {
            End::Here(code) => {
                shared.closed(pipe, code);
                return Box::pin(farewell(shared, *socket, Some(pipe), code)).await;
            }
            End::There(code) => return shared.closed(pipe, code),
            End::Rests => socket = Box::pin(rested(socket, role)).await,
        }
    }
}

/// Closes a socket that never became a pipe, and says why and when to come back.
pub(super) async fn turn_away(
    shared: &Arc<Shared>,
    mut socket: Box<Socket>,
    refusal: &HandshakeError,
) {
    if let Some(reject) = refusal.reject() {
        // It leaves with the close frame, which alone has no room for a time.
        let message = Message::Binary(Bytes::copy_from_slice(&reject.to_bytes()));
        if socket.feed(message).await.is_err() {
            return;
        }
    }
    Box::pin(farewell(shared, *socket, None, refusal.code)).await;
}

/// The same socket with buffers as small as at first: a WebSocket's buffers only grow. Nothing may be in them.
async fn rested(socket: Box<Socket>, role: Role) -> Box<Socket> {
    let config = Some(socket_config(READ_BUFFER));
    Box::new(Socket::from_raw_socket(socket.into_inner(), role, config).await)
}

/// Bytes of a frame with a payload of this length, as everybody writes it (RFC 6455 section 5.2).
const fn on_the_wire(payload: usize, masked: bool) -> u64 {
    let length = match payload {
        0..126 => 0,
        126..=0xffff => 2,
        _ => 8,
    };
    let mask = if masked { 4 } else { 0 };
    2 + length + mask + payload as u64
}

/// Who ended it, and why.
enum End {
    Here(Code),
    There(Code),
    /// It goes on, with fewer buffers.
    Rests,
}

struct Driven<'a> {
    shared: &'a Arc<Shared>,
    pipe: &'a Pipe<Token>,
    link: &'a Link,
    out: Vec<Output<Token>>,
    unflushed: bool,
    /// Whether any message came in. Until then a close frame's code is all that can say why we are turned away;
    /// afterwards reasons are authenticated, and a close frame, which anybody on the way can forge, is only an end.
    heard: bool,
    /// Bytes of the stream that came in as whole messages, or were there before: all that the stream has given, if nothing
    /// waits in the WebSocket's buffer. A peer that writes its frames in unusual ways makes it less, and the buffers stay. Where
    /// we dialled it says nothing: what came along with the answer to our upgrade counts twice.
    taken: u64,
    /// Bytes that the stream had given when the last message was whole.
    whole: u64,
    /// Whether what comes in is masked: we serve.
    masked: bool,
    /// Messages sent; the greatest number once the buffers were exchanged, or when it no longer matters.
    sent: u8,
    /// When a message last passed for which the WebSocket's buffers may have grown; `None` if they are small.
    large: Option<Instant>,
    /// When this turn of the task began, or its writing.
    begun: Instant,
    /// The bucket of pings and pongs of WebSocket.
    pings: node_core::time::Instant,
}

impl Driven<'_> {
    fn poll(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Poll<End> {
        self.begin();
        socket.get_mut().begin_turn(self.begun);
        self.shared.node.attend(self.pipe);
        loop {
            if let Poll::Ready(code) = self.link.poll_closed(cx) {
                return Poll::Ready(End::Here(code));
            }
            let more_to_read = match self.read(socket, cx) {
                Ok(more) => more,
                Err(end) => return Poll::Ready(end),
            };
            let over = self.must_yield();
            if over {
                // What was read may have much to say: writing has as long by itself.
                self.begin();
            }
            let more_to_write = match self.write(socket, cx) {
                Ok(more) => more,
                Err(end) => return Poll::Ready(end),
            };
            if !more_to_read && !more_to_write {
                return if self.rests(socket) {
                    Poll::Ready(End::Rests)
                } else {
                    Poll::Pending
                };
            }
            if over || self.must_yield() {
                // What is written leaves before others have their turn.
                if let Err(end) = self.flush(Pin::new(&mut *socket), cx) {
                    return Poll::Ready(end);
                }
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        }
    }

    fn begin(&mut self) {
        self.begun = Instant::now();
    }

    /// Whether this turn has taken long enough.
    fn must_yield(&self) -> bool {
        self.begun.elapsed() >= SLICE
    }

    /// Whether the socket's buffers can be exchanged for small ones, and nothing large has passed for a while. Only those of
    /// sockets that came in, which may be thousands. Keepalive sees
    /// to it that somebody asks. After the handshake they are so at once: then the next handshake finds the memory free.
    fn rests(&mut self, socket: &Socket) -> bool {
        let quiet = self.large.is_some_and(|large| {
            (HANDSHAKE..u8::MAX).contains(&self.sent) || large.elapsed() >= REST
        });
        let rests =
            quiet && self.masked && !self.unflushed && self.taken == socket.get_ref().given();
        if rests {
            self.large = None;
            self.sent = u8::MAX;
        }
        rests
    }

    /// A message has passed.
    fn passed(&mut self, length: usize) {
        if length > LARGE {
            self.large = Some(Instant::now());
        }
    }

    /// Bytes of frames that the next message may take.
    const fn frames(&self) -> u64 {
        if self.heard { FRAMES } else { FIRST_FRAMES }
    }

    /// Reads what has arrived; whether more may have.
    fn read(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Result<bool, End> {
        for _ in 0..TURN {
            let message = match Pin::new(&mut *socket).poll_next(cx) {
                Poll::Pending if socket.get_ref().given() - self.whole > self.frames() => {
                    return Err(End::Here(Code::RecordTooLarge));
                }
                Poll::Pending => return Ok(false),
                Poll::Ready(Some(Ok(message))) => message,
                Poll::Ready(Some(Err(error))) => return Err(self.broken(&error)),
                Poll::Ready(None) => return Err(End::There(Code::PipeLost)),
            };
            self.taken += on_the_wire(message.len(), self.masked);
            // A ping between the frames of a message does not end it.
            if !matches!(message, Message::Ping(_) | Message::Pong(_)) {
                self.whole = socket.get_ref().given();
            }
            match message {
                Message::Binary(message) => {
                    self.heard = true;
                    self.passed(message.len());
                    let Shared { node, clock, .. } = &**self.shared;
                    node.handle_message(self.pipe, message, clock.now(), &mut self.out);
                    self.shared.carry_out(&mut self.out);
                    // What came in behind a message that ended the pipe is nobody's.
                    if let Some(code) = self.link.wish() {
                        return Err(End::Here(code));
                    }
                }
                Message::Close(frame) => return Err(End::There(self.said(frame.as_ref()))),
                // Answered beneath us.
                Message::Ping(_) | Message::Pong(_) => {
                    let now = self.shared.clock.now().mono;
                    if take(&mut self.pings, PING, PINGS, now).is_err() {
                        return Err(End::Here(Code::FrameRate));
                    }
                }
                Message::Text(_) | Message::Frame(_) => {
                    return Err(End::Here(Code::FrameUnexpected));
                }
            }
            if self.must_yield() {
                break;
            }
        }
        Ok(true)
    }

    /// Hands the socket what the pipe has to say, as long as it takes it; whether there may be more to say.
    fn write(&mut self, socket: &mut Socket, cx: &mut Context<'_>) -> Result<bool, End> {
        let mut socket = Pin::new(socket);
        for _ in 0..TURN {
            match socket.as_mut().poll_ready(cx) {
                Poll::Pending => return Ok(false),
                Poll::Ready(Err(error)) => return Err(self.broken(&error)),
                Poll::Ready(Ok(())) => {}
            }
            let Some(message) = self.next_message(cx.waker()) else {
                self.flush(socket, cx)?;
                return Ok(false);
            };
            self.passed(message.len());
            self.sent = self.sent.saturating_add(1);
            if let Err(error) = socket.as_mut().start_send(Message::Binary(message)) {
                return Err(self.broken(&error));
            }
            self.unflushed = true;
            if self.must_yield() {
                break;
            }
        }
        Ok(true)
    }

    fn flush(&mut self, socket: Pin<&mut Socket>, cx: &mut Context<'_>) -> Result<(), End> {
        if self.unflushed {
            match socket.poll_flush(cx) {
                Poll::Pending => {}
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => return Err(self.broken(&error)),
            }
        }
        Ok(())
    }

    fn next_message(&mut self, waker: &Waker) -> Option<Bytes> {
        let Shared { node, clock, .. } = &**self.shared;
        let message = node.poll_transmit(self.pipe, waker, clock.now(), &mut self.out);
        if !self.out.is_empty() {
            self.shared.carry_out(&mut self.out);
        }
        message
    }

    fn broken(&self, error: &Error) -> End {
        tracing::debug!(pipe = self.pipe.id(), %error, "socket");
        match error {
            Error::Capacity(_) => End::Here(Code::RecordTooLarge),
            Error::Utf8(_) => End::Here(Code::FrameUnexpected),
            // An end without a close frame: its process may have died.
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                End::There(Code::PipeLost)
            }
            Error::Protocol(_) => End::Here(Code::FrameMalformed),
            _ => End::There(Code::PipeLost),
        }
    }

    fn said(&self, frame: Option<&CloseFrame>) -> Code {
        frame
            .filter(|_| !self.heard)
            .and_then(|frame| u16::from(frame.code).checked_sub(4000))
            .and_then(Code::from_u16)
            .unwrap_or(Code::PipeLost)
    }
}

/// Says the last words and why, and gives the peer a moment to hear them.
async fn farewell(shared: &Arc<Shared>, socket: Socket, pipe: Option<&Pipe<Token>>, code: Code) {
    if tokio::time::timeout(FAREWELL, say_farewell(shared, socket, pipe, code))
        .await
        .is_err()
    {
        tracing::debug!(%code, "the peer did not close its end in time");
    }
}

async fn say_farewell(
    shared: &Arc<Shared>,
    mut socket: Socket,
    pipe: Option<&Pipe<Token>>,
    code: Code,
) {
    if let Some(pipe) = pipe {
        let mut out = Vec::new();
        while let Some(message) =
            shared
                .node
                .poll_transmit(pipe, Waker::noop(), shared.clock.now(), &mut out)
        {
            shared.carry_out(&mut out);
            if socket.feed(Message::Binary(message)).await.is_err() {
                return;
            }
        }
        shared.carry_out(&mut out);
    }
    let frame = CloseFrame {
        code: CloseCode::from(code.close_code()),
        reason: code.name().into(),
    };
    if socket.send(Message::Close(Some(frame))).await.is_err() {
        return;
    }
    let begun = socket.get_ref().given();
    let most = UNDER_WAY.min(begun + DRAIN as u64);
    let too_much = |socket: &Socket| socket.get_ref().given() - begun > most;
    // Looked at whenever it has its turn, so that frames which make no message count too.
    let next = |socket: &mut Socket, cx: &mut Context<'_>| {
        if too_much(socket) {
            return Poll::Ready(None);
        }
        socket.poll_next_unpin(cx)
    };
    while let Some(Ok(_)) = poll_fn(|cx| next(&mut socket, cx)).await {}
    if too_much(&socket) {
        return;
    }
    // After a message that was too large the rest of it is still on its way.
    let mut stream = socket.into_inner();
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut dropped = 0;
    let mut buffer = vec![0; 4 << 10];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        dropped += read;
        if dropped > DRAIN {
            return;
        }
    }
}

#[cfg(target_os = "linux")]
fn limit_unsent(socket: &Socket) {
    let tcp = socket2::SockRef::from(socket.get_ref().tcp());
    if let Err(error) = tcp.set_tcp_notsent_lowat(UNSENT) {
        tracing::debug!(%error, "TCP_NOTSENT_LOWAT");
    }
}

#[cfg(not(target_os = "linux"))]
fn limit_unsent(socket: &Socket) {
    let tcp = socket2::SockRef::from(socket.get_ref().tcp());
    if let Err(error) = tcp.set_send_buffer_size(UNSENT as usize) {
        tracing::debug!(%error, "SO_SNDBUF");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_code_closes_a_link() {
        let link = Link::default();
        assert!(
            tokio::time::timeout(Duration::from_millis(5), link.closed())
                .await
                .is_err()
        );
        link.close(Code::Duplicate);
        link.close(Code::GoingAway);
        assert_eq!(link.closed().await, Code::Duplicate);
    }
}
