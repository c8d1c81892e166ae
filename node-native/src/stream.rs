//! The byte stream beneath a WebSocket, the same type for both directions, and the WebSocket's bounds.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    task::coop,
    time::Sleep,
};
use tokio_rustls::TlsStream;
use tokio_tungstenite::{WebSocketStream, tungstenite::protocol::WebSocketConfig};

/// A WebSocket, accepted or dialled.
pub type Socket = WebSocketStream<Stream>;

/// Largest WebSocket message, in bytes: a record of 64 KiB, and slack that lets the core say what is wrong with one
/// that is a little larger.
pub const MESSAGE_MAX: usize = (64 << 10) + 1024;

/// Read buffer of a socket, in bytes, held as long as the socket: 2 KiB keep idle connections cheap.
pub const READ_BUFFER: usize = 2 << 10;

/// Bytes that collect before a socket writes without being flushed. 16 KiB.
const WRITE_BUFFER: usize = 16 << 10;

/// Most bytes that wait in a socket that cannot write. 128 KiB, and the message that crosses the line.
const WRITE_BUFFER_MAX: usize = (128 << 10) + MESSAGE_MAX;

/// Bounds of a WebSocket with a read buffer of `read_buffer` bytes.
pub fn socket_config(read_buffer: usize) -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(read_buffer)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(WRITE_BUFFER_MAX)
        .max_message_size(Some(MESSAGE_MAX))
        .max_frame_size(Some(MESSAGE_MAX))
}

/// Bytes read at once while a peer sends faster than we read. 64 KiB for each connection that is busy, none for others.
pub(crate) const AHEAD: usize = 64 << 10;

/// Bytes read ahead after which it is seen how long they took.
const LOOK: usize = 8 << 10;

/// Time after which a connection that has more lets others have their turn. It takes longer by what was under way then, a
/// message or 8 KiB of small frames, and writing has as long again.
pub const SLICE: Duration = Duration::from_micros(100);

/// Most bytes that one connection holds beneath the core: what is read ahead, a message coming in, and what waits for
/// the socket.
pub const SOCKET_BUFFERS: usize = AHEAD + MESSAGE_MAX + WRITE_BUFFER_MAX;

/// TCP, with or without TLS over it.
///
/// Whoever reads from it may ask for little at a time, so that idle connections stay small. When more keeps coming than
/// was asked for, it reads ahead; a buffer for that exists only as long as it is of use.
#[derive(Debug)]
pub struct Stream {
    transport: Transport,
    /// The last read filled all that it was given: there is probably more.
    busy: bool,
    ahead: Option<Ahead>,
    /// Before more is handed out, other tasks get their turn.
    spent: bool,
    /// Bytes that whoever reads has been given.
    given: u64,
    /// How long the peer may take nothing of what is written.
    patience: Option<Duration>,
    /// When that is over, while it takes nothing.
    stall: Option<Pin<Box<Sleep>>>,
}

#[derive(Debug)]
enum Transport {
    Plain(TcpStream),
    /// Boxed: its state is a hundred times as large as a TCP stream's.
    Tls(Box<TlsStream<TcpStream>>),
}

/// Bytes that were read ahead of their asking.
#[derive(Debug)]
struct Ahead {
    bytes: Box<[u8]>,
    taken: usize,
    filled: usize,
    /// When the turn of whoever reads began.
    turn: Instant,
}

impl Ahead {
    fn new() -> Self {
        Self {
            bytes: vec![0; AHEAD].into(),
            taken: 0,
            filled: 0,
            turn: Instant::now(),
        }
    }

    fn is_empty(&self) -> bool {
        self.taken == self.filled
    }

    /// Gives some of it, and says whether that is enough for now: a peer that sends frames of a byte would otherwise have the
    /// thread for all that a task's turn lets in.
    fn hand_out(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let length = buf.remaining().min(self.filled - self.taken);
        buf.put_slice(&self.bytes[self.taken..self.taken + length]);
        let looks = self.taken / LOOK;
        self.taken += length;
        let enough = looks < self.taken / LOOK && self.turn.elapsed() > SLICE;
        if enough {
            self.turn = Instant::now();
        }
        enough
    }

    /// Reads while nothing is left from the last time.
    fn refill(&mut self, transport: &mut Transport, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut space = ReadBuf::new(&mut self.bytes);
        let read = transport.poll_read(cx, &mut space);
        (self.taken, self.filled) = (0, space.filled().len());
        self.turn = Instant::now();
        read
    }
}

impl Stream {
    /// Plain TCP.
    pub fn plain(stream: TcpStream) -> Self {
        Self::new(Transport::Plain(stream))
    }

    /// TLS over TCP.
    pub fn tls(stream: TlsStream<TcpStream>) -> Self {
        Self::new(Transport::Tls(Box::new(stream)))
    }

    fn new(transport: Transport) -> Self {
        Self {
            transport,
            busy: false,
            ahead: None,
            spent: false,
            given: 0,
            patience: None,
            stall: None,
        }
    }

    /// Whoever reads has its turn again.
    pub const fn begin_turn(&mut self, at: Instant) {
        self.spent = false;
        if let Some(ahead) = &mut self.ahead {
            ahead.turn = at;
        }
    }

    /// Lets writing fail once the peer has taken nothing for so long; under TLS, not all of what waits for the socket, some 64
    /// KiB. Nothing waits for ever.
    pub fn set_patience(&mut self, patience: Option<Duration>) {
        self.patience = patience;
        self.stall = None;
    }

    /// What became of a write, unless that has waited too long.
    fn in_time<T>(
        &mut self,
        cx: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let (Some(patience), Poll::Pending) = (self.patience, &written) else {
            self.stall = None;
            return written;
        };
        let stall = self
            .stall
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(stall.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }

    /// Bytes that whoever reads has been given so far.
    pub const fn given(&self) -> u64 {
        self.given
    }

    /// The TCP stream beneath.
    pub fn tcp(&self) -> &TcpStream {
        match &self.transport {
            Transport::Plain(stream) => stream,
            Transport::Tls(stream) => stream.get_ref().0,
        }
    }

    /// Whether TLS protects the transport.
    pub const fn is_tls(&self) -> bool {
        matches!(self.transport, Transport::Tls(_))
    }
}

impl Transport {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream.as_mut()).poll_read(cx, buf),
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self {
            transport,
            busy,
            ahead,
            spent,
            given,
            ..
        } = self.get_mut();
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if std::mem::take(spent) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.remaining();
        if !*busy && ahead.is_none() {
            let read = transport.poll_read(cx, buf);
            *given += (before - buf.remaining()) as u64;
            *busy = buf.remaining() == 0 && before < AHEAD;
            return read;
        }
        let buffer = ahead.get_or_insert_with(Ahead::new);
        if buffer.is_empty() {
            let read = buffer.refill(transport, cx);
            if !matches!(read, Poll::Ready(Ok(()))) {
                (*busy, *ahead) = (false, None);
                return read;
            }
        }
        // What was read at once counts for a task's turn as if it had been read in parts.
        let turn = ready!(coop::poll_proceed(cx));
        *spent = buffer.hand_out(buf);
        *given += (before - buf.remaining()) as u64;
        turn.made_progress();
        if buffer.is_empty() {
            *busy = buffer.filled == AHEAD;
            if !*busy {
                *ahead = None;
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_write(cx, buf),
        };
        this.in_time(cx, written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        // Plain TCP has nothing to flush, and says nothing about what waits.
        match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_flush(cx),
            Transport::Tls(stream) => {
                let flushed = Pin::new(stream.as_mut()).poll_flush(cx);
                this.in_time(cx, flushed)
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let over = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(cx),
        };
        this.in_time(cx, over)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = match &mut this.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Transport::Tls(stream) => Pin::new(stream.as_mut()).poll_write_vectored(cx, bufs),
        };
        this.in_time(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
    use super::*;
    use std::future::poll_fn;
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    #[tokio::test]
    async fn a_reader_that_takes_long_lets_others_have_their_turn_and_misses_nothing() {
        let sent: Vec<u8> = (0..400_000_u32).map(|at| (at % 251) as u8).collect();
        for (begins_turns, lets_others) in [(false, true), (true, false)] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let to = listener.local_addr().unwrap();
            let mut sender = TcpStream::connect(to).await.unwrap();
            let mut stream = Stream::plain(listener.accept().await.unwrap().0);
            let bytes = sent.clone();
            let sending = tokio::spawn(async move { sender.write_all(&bytes).await });
            let (mut received, mut turns, mut buffer) = (Vec::new(), 0, [0; READ_BUFFER]);
            // A task's budget would end its turns as well.
            tokio::task::unconstrained(async {
                while received.len() < sent.len() {
                    if begins_turns {
                        stream.begin_turn(Instant::now());
                    }
                    let length = poll_fn(|cx| {
                        let mut space = ReadBuf::new(&mut buffer);
                        let read = Pin::new(&mut stream).poll_read(cx, &mut space);
                        let ahead = stream.ahead.as_ref();
                        if read.is_pending() && ahead.is_some_and(|ahead| !ahead.is_empty()) {
                            turns += 1;
                        }
                        read.map_ok(|()| space.filled().len())
                    });
                    let length = length.await.unwrap();
                    received.extend_from_slice(&buffer[..length]);
                    if stream.ahead.is_some() {
                        std::thread::sleep(SLICE / 3);
                    }
                }
            })
            .await;
            sending.await.unwrap().unwrap();
            assert!(received == sent);
            assert_eq!(turns > 0, lets_others, "{turns}");
        }
    }

    #[tokio::test]
    async fn who_takes_nothing_of_what_is_written_is_waited_for_only_so_long() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let mut reader = TcpStream::connect(to).await.unwrap();
        let mut stream = Stream::plain(listener.accept().await.unwrap().0);
        let patience = Duration::from_millis(200);
        stream.set_patience(Some(patience));
        let begun = Instant::now();
        let block = vec![0; 1 << 20];
        let failed = async {
            loop {
                if let Err(error) = stream.write_all(&block).await {
                    return error;
                }
            }
        };
        assert_eq!(failed.await.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= patience);
        // Of a WebSocket it is for the core to say when it is over.
        stream.set_patience(None);
        let waits = tokio::time::timeout(patience * 3, async {
            while stream.write_all(&block).await.is_ok() {}
        });
        assert!(waits.await.is_err());
        assert!(reader.read(&mut [0; 64]).await.unwrap() > 0);
    }

    #[tokio::test]
    async fn what_was_read_ahead_comes_in_order_and_leaves_no_buffer_behind() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let mut stream = Stream::plain(listener.accept().await.unwrap().0);
        let sent: Vec<u8> = (0..3_000_000_u32).map(|at| (at % 251) as u8).collect();
        let bytes = sent.clone();
        let sending = tokio::spawn(async move {
            sender.write_all(&bytes).await.unwrap();
            sender
        });
        let (mut received, mut read_ahead) = (Vec::new(), false);
        let mut buffer = [0; READ_BUFFER];
        while received.len() < sent.len() {
            let length = stream.read(&mut buffer).await.unwrap();
            received.extend_from_slice(&buffer[..length]);
            read_ahead |= stream.ahead.is_some();
        }
        assert!(received == sent && read_ahead);

        let mut sender = sending.await.unwrap();
        sender.write_all(b"little").await.unwrap();
        let length = stream.read(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"little");
        assert!(stream.ahead.is_none(), "an idle connection is small again");
        drop(sender);
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 0);
    }
}
