//! Streams of bytes as applications use them.

use super::Token;
use bytes::{Buf, Bytes};
use node_core::{Code, Name, node, session::StreamError};
use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Most bytes that one `poll_write` copies.
const COPY: usize = 64 << 10;

/// Bytes to and from a peer, with flow control in both directions.
///
/// Read and write whole chunks without copies ([`read_chunk`](Self::read_chunk), [`write_chunk`](Self::write_chunk)), or
/// use it as `AsyncRead` and `AsyncWrite`. [`finish`](Self::finish) or `shutdown` ends the writing half properly; what is
/// dropped unfinished is reset, and the peer sees an error instead of an end.
#[derive(Debug)]
pub struct Stream {
    reader: StreamReader,
    writer: StreamWriter,
}

/// The reading half of a [`Stream`]. Dropped before the end, it tells the peer to send no more.
#[derive(Debug)]
pub struct StreamReader {
    stream: Option<Arc<node::Stream<Token>>>,
    rest: Bytes,
    ended: bool,
}

/// The writing half of a [`Stream`]. Dropped unfinished, it resets the stream.
#[derive(Debug)]
pub struct StreamWriter {
    stream: Option<Arc<node::Stream<Token>>>,
    finished: bool,
}

impl Stream {
    /// `None` is a stream whose session is gone already.
    pub(super) fn new(stream: Option<node::Stream<Token>>) -> Self {
        let stream = stream.map(Arc::new);
        Self {
            reader: StreamReader {
                stream: stream.clone(),
                rest: Bytes::new(),
                ended: false,
            },
            writer: StreamWriter {
                stream,
                finished: false,
            },
        }
    }

    /// The peer; `None` for a guest.
    pub fn peer(&self) -> Option<&Name> {
        self.reader.stream.as_ref()?.peer()
    }

    /// The next bytes, as they came; `None` at the end. Cancel-safe.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, StreamError> {
        self.reader.read_chunk().await
    }

    /// Queues bytes, waiting for room first. Cancelled, it has queued nothing.
    pub async fn write_chunk(&mut self, data: Bytes) -> Result<(), StreamError> {
        self.writer.write_chunk(data).await
    }

    /// Ends the writing half; what is queued still goes out, also after the stream is dropped.
    pub fn finish(&mut self) {
        self.writer.finish();
    }

    /// Gives the writing half up: the peer sees `code` instead of an end.
    pub fn reset(&mut self, code: u16) {
        self.writer.reset(code);
    }

    /// Asks the peer to send no more.
    pub fn stop(&mut self, code: u16) {
        self.reader.stop(code);
    }

    /// Bytes that have left this node so far, for progress.
    pub fn sent(&self) -> u64 {
        self.writer.sent()
    }

    /// Both halves, for two tasks.
    pub fn split(self) -> (StreamReader, StreamWriter) {
        (self.reader, self.writer)
    }
}

impl StreamReader {
    /// The next bytes, as they came; `None` at the end. Cancel-safe.
    pub async fn read_chunk(&mut self) -> Result<Option<Bytes>, StreamError> {
        poll_fn(|cx| self.poll_chunk(cx)).await
    }

    /// Asks the peer to send no more.
    pub fn stop(&mut self, code: u16) {
        if let Some(stream) = &self.stream {
            stream.stop(code);
        }
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamError>> {
        if !self.rest.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.rest))));
        }
        if self.ended {
            return Poll::Ready(Ok(None));
        }
        let Some(stream) = &self.stream else {
            return Poll::Ready(Err(StreamError::Lost(Code::Closed)));
        };
        let chunk = ready!(stream.poll_read(cx))?;
        self.ended = chunk.is_none();
        Poll::Ready(Ok(chunk))
    }
}

impl StreamWriter {
    /// Queues bytes, waiting for room first. Cancelled, it has queued nothing.
    pub async fn write_chunk(&mut self, mut data: Bytes) -> Result<(), StreamError> {
        poll_fn(|cx| self.poll_chunk(&mut data, cx)).await
    }

    /// Ends the stream; what is queued still goes out, also after the stream is dropped.
    pub fn finish(&mut self) {
        self.finished = true;
        if let Some(stream) = &self.stream {
            stream.finish();
        }
    }

    /// Gives up: the peer sees `code` instead of an end.
    pub fn reset(&mut self, code: u16) {
        self.finished = true;
        if let Some(stream) = &self.stream {
            stream.reset(code);
        }
    }

    /// Bytes that have left this node so far, for progress.
    pub fn sent(&self) -> u64 {
        self.stream.as_ref().map_or(0, |stream| stream.sent())
    }

    fn poll_chunk(
        &mut self,
        data: &mut Bytes,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        match &self.stream {
            _ if self.finished => Poll::Ready(Err(StreamError::Finished)),
            Some(stream) => stream.poll_write(data, cx),
            None => Poll::Ready(Err(StreamError::Lost(Code::Closed))),
        }
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        if !self.ended {
            self.stop(Code::Cancelled.as_u16());
        }
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if !self.finished {
            self.reset(Code::Cancelled.as_u16());
        }
    }
}

impl AsyncRead for StreamReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(mut chunk) = ready!(self.poll_chunk(cx)).map_err(io_error)? {
            let length = chunk.len().min(buf.remaining());
            buf.put_slice(&chunk[..length]);
            chunk.advance(length);
            self.rest = chunk;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let length = buf.len().min(COPY);
        let mut data = Bytes::copy_from_slice(&buf[..length]);
        ready!(self.poll_chunk(&mut data, cx)).map_err(io_error)?;
        Poll::Ready(Ok(length))
    }

    /// Nothing: what is queued goes out by itself.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.finish();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}

fn io_error(error: StreamError) -> io::Error {
    let kind = match error {
        StreamError::Reset(_) => io::ErrorKind::ConnectionReset,
        StreamError::Stopped(_) | StreamError::Finished => io::ErrorKind::BrokenPipe,
        StreamError::Lost(_) => io::ErrorKind::ConnectionAborted,
    };
    io::Error::new(kind, error)
}
