//! Streams: bytes of any length, in order, with credit of their own and an end on either side.

use super::{
    Session,
    numbers::Class,
    sender::{Bulk, Outgoing},
};
use crate::{code::Code, limits::Limits, wire::frame::Frame};
use alloc::{boxed::Box, collections::VecDeque};
use bytes::{Bytes, BytesMut};
use core::task::{Context, Poll, Waker};

/// Bytes an application may have waiting in one stream before a write must wait.
pub const STREAM_BUFFER: usize = 256 << 10;

/// Slices below this are copied together: of what comes in, so that a small slice never keeps a whole record alive; of what
/// goes out, so that many small writes are one frame.
const COPY_BELOW: usize = 4 << 10;

/// Why a stream's read or write failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The peer reset its sending half with this code.
    #[error("the peer ended the stream early (code {0})")]
    Reset(u16),
    /// The peer does not want more of our bytes.
    #[error("the peer reads no further (code {0})")]
    Stopped(u16),
    /// The session that carried the stream is gone.
    #[error("{0}")]
    Lost(Code),
    /// Written after finish or reset.
    #[error("this side of the stream is finished")]
    Finished,
}

impl<T> Session<T> {
    /// Opens a stream. The peer may send up to a window's worth at once.
    pub fn open_stream(&mut self, protocol: Box<str>, metadata: Bytes) -> u64 {
        let id = self.numbers.take(Class::Stream);
        let window = self.config.limits.stream_window;
        self.streams.insert(
            id,
            Stream::new(self.config.limits.stream_initial, window, false),
        );
        if self.is_closing() {
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.lose(Code::Closed);
            }
            return id;
        }
        let frame = Frame::Stream {
            id,
            window,
            protocol,
            metadata: Bytes::new(),
        };
        self.sender
            .push_urgent(Outgoing::with_payload(&frame, metadata));
        self.dirty = true;
        id
    }

    /// Takes a stream that the peer opened: its window becomes the whole one.
    pub fn accept_stream(&mut self, id: u64) {
        self.grant(id);
    }

    /// Queues `data` on a stream, which takes all of it or none.
    pub fn write(
        &mut self,
        id: u64,
        data: &mut Bytes,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(StreamError::Lost(Code::Closed)));
        };
        let written = stream.send.write(data, cx);
        self.stream_ready(id);
        written
    }

    /// Ends our half: what is queued still goes out.
    pub fn finish(&mut self, id: u64) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.send.finish();
            self.stream_ready(id);
        }
    }

    /// Gives our half up.
    pub fn reset(&mut self, id: u64, code: u16) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.send.closed()
        {
            stream.send.reset();
            self.sender
                .push_urgent(Outgoing::new(&Frame::Reset(id, code)));
            self.dirty = true;
            self.settle_stream(id);
        }
    }

    /// Asks the peer to send no more.
    pub fn stop(&mut self, id: u64, code: u16) {
        if let Some(stream) = self.streams.get_mut(&id)
            && !stream.recv.closed()
        {
            stream.recv.stop();
            self.sender
                .push_urgent(Outgoing::new(&Frame::Stop(id, code)));
            self.dirty = true;
        }
    }

    /// The next bytes of a stream; `None` at its end.
    pub fn read(
        &mut self,
        id: u64,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        let Some(stream) = self.streams.get_mut(&id) else {
            return Poll::Ready(Err(StreamError::Lost(Code::Closed)));
        };
        let read = stream.recv.read(cx);
        if matches!(read, Poll::Ready(Ok(Some(_)))) {
            self.grant(id);
        }
        read
    }

    /// Bytes of a stream that have been sealed so far.
    pub fn sent(&self, id: u64) -> u64 {
        self.streams.get(&id).map_or(0, |stream| stream.send.sent)
    }

    /// The application lets go of a stream: unfinished halves are reset and stopped.
    pub fn release_stream(&mut self, id: u64) {
        self.refuse_stream(id, Code::Cancelled);
    }

    /// The same, with what the peer is told.
    pub fn refuse_stream(&mut self, id: u64, code: Code) {
        self.reset(id, code.as_u16());
        self.stop(id, code.as_u16());
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.released = true;
            self.settle_stream(id);
        }
    }

    /// The application lets go of a stream whose writing half is finished: what is queued still goes out.
    pub fn detach_stream(&mut self, id: u64) {
        self.stop(id, Code::Cancelled.as_u16());
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.released = true;
            self.settle_stream(id);
        }
    }

    pub(super) fn stream_ready(&mut self, id: u64) {
        if self
            .streams
            .get(&id)
            .is_some_and(|stream| stream.send.ready())
        {
            self.sender.push_bulk(Bulk::Stream(id));
            self.dirty = true;
        }
    }

    pub(super) fn grant(&mut self, id: u64) {
        if let Some(limit) = self
            .streams
            .get_mut(&id)
            .and_then(|s| s.recv.grant(&self.config.limits))
        {
            self.sender
                .push_urgent(Outgoing::new(&Frame::Credit { id, limit }));
            self.dirty = true;
        }
    }

    pub(super) fn settle_stream(&mut self, id: u64) {
        if self.streams.get(&id).is_some_and(Stream::is_done) {
            self.streams.remove(&id);
        }
    }
}

/// Both halves of one stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) send: SendHalf,
    pub(super) recv: RecvHalf,
    /// The application's handle is gone.
    pub(super) released: bool,
    /// Opened by the peer, for the count of its open streams.
    pub(super) theirs: bool,
}

impl Stream {
    pub(super) fn new(send_limit: u64, recv_limit: u64, theirs: bool) -> Self {
        Self {
            send: SendHalf {
                limit: send_limit,
                ..SendHalf::default()
            },
            recv: RecvHalf {
                limit: recv_limit,
                ..RecvHalf::default()
            },
            released: false,
            theirs,
        }
    }

    /// Bytes that wait to be sent or read.
    pub(super) fn held(&self) -> usize {
        let unread = usize::try_from(self.recv.received - self.recv.consumed);
        self.send.queued + unread.unwrap_or(usize::MAX)
    }

    /// Nothing can happen on it any more. One of our own, whose other half was stopped when it was released, is not kept
    /// until the peer ends that half: a peer that never did would have us keep as many as we ever opened.
    pub(super) fn is_done(&self) -> bool {
        self.released && self.send.closed() && (self.recv.closed() || !self.theirs)
    }

    /// Ends both halves: the session is gone.
    pub(super) fn lose(&mut self, code: Code) {
        self.send.stopped.get_or_insert(StreamError::Lost(code));
        if !self.recv.fin {
            self.recv.failed.get_or_insert(StreamError::Lost(code));
        }
        self.send.wake();
        self.recv.wake();
    }
}

/// Bytes in order, the small ones among them copied together.
#[derive(Debug, Default)]
struct Chunks {
    whole: VecDeque<Bytes>,
    /// Small ones behind those.
    tail: BytesMut,
}

impl Chunks {
    fn push(&mut self, data: Bytes, is_small: bool) {
        if is_small {
            self.tail.extend_from_slice(&data);
            if self.tail.len() >= COPY_BELOW {
                self.flush_tail();
            }
        } else {
            self.flush_tail();
            self.whole.push_back(data);
        }
    }

    fn front_mut(&mut self) -> Option<&mut Bytes> {
        if self.whole.is_empty() {
            self.flush_tail();
        }
        self.whole.front_mut()
    }

    fn pop_front(&mut self) -> Option<Bytes> {
        self.front_mut()?;
        self.whole.pop_front()
    }

    fn flush_tail(&mut self) {
        if !self.tail.is_empty() {
            self.whole.push_back(self.tail.split().freeze());
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct SendHalf {
    queue: Chunks,
    /// Bytes in it.
    queued: usize,
    pub(super) limit: u64,
    pub(super) sent: u64,
    finishing: bool,
    finished: bool,
    stopped: Option<StreamError>,
    waker: Option<Waker>,
}

impl SendHalf {
    pub(super) fn closed(&self) -> bool {
        self.finished || self.stopped.is_some()
    }

    pub(super) fn write(
        &mut self,
        data: &mut Bytes,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), StreamError>> {
        if let Some(error) = self.stopped {
            return Poll::Ready(Err(error));
        }
        if self.finishing {
            return Poll::Ready(Err(StreamError::Finished));
        }
        if self.queued >= STREAM_BUFFER {
            self.waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let taken = core::mem::take(data);
        self.queued += taken.len();
        let is_small = taken.len() < COPY_BELOW;
        self.queue.push(taken, is_small);
        Poll::Ready(Ok(()))
    }

    pub(super) fn finish(&mut self) {
        self.finishing = true;
    }

    /// Gives up: what is queued is forgotten.
    pub(super) fn reset(&mut self) {
        self.forget();
        self.finishing = true;
        self.finished = true;
        self.wake();
    }

    /// The peer wants no more. Whether it has to be told that nothing more comes.
    pub(super) fn stop(&mut self, code: u16) -> bool {
        let open = !self.closed();
        if open {
            self.forget();
            self.stopped = Some(StreamError::Stopped(code));
        }
        self.wake();
        open
    }

    /// Whether bytes or the end can go out now.
    pub(super) fn ready(&self) -> bool {
        !self.closed()
            && if self.queued == 0 {
                self.finishing
            } else {
                self.sent < self.limit
            }
    }

    /// The next bytes, at most `max`, as credit allows.
    pub(super) fn take(&mut self, max: usize) -> Option<Bytes> {
        let credit = usize::try_from(self.limit.saturating_sub(self.sent)).unwrap_or(usize::MAX);
        let room = max.min(credit);
        let front = self.queue.front_mut()?;
        if room == 0 {
            return None;
        }
        let data = if front.len() <= room {
            self.queue.pop_front()?
        } else {
            front.split_to(room)
        };
        self.queued -= data.len();
        self.sent += data.len() as u64;
        // Half of the room at once: a writer woken for every record would cost more than the record.
        if self.queued <= STREAM_BUFFER / 2 {
            self.wake();
        }
        Some(data)
    }

    /// Whether the end is due now; says so once.
    pub(super) fn take_fin(&mut self) -> bool {
        let due = self.finishing && self.queued == 0 && !self.closed();
        self.finished |= due;
        due
    }

    fn forget(&mut self) {
        self.queue = Chunks::default();
        self.queued = 0;
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct RecvHalf {
    chunks: Chunks,
    received: u64,
    consumed: u64,
    limit: u64,
    fin: bool,
    failed: Option<StreamError>,
    stopped: bool,
    waker: Option<Waker>,
}

impl RecvHalf {
    pub(super) fn closed(&self) -> bool {
        self.fin || self.failed.is_some()
    }

    /// Takes bytes from the wire. `record` is the size of the buffer that `data` is a slice of.
    pub(super) fn receive(&mut self, data: Bytes, record: usize) -> Result<(), Code> {
        if self.fin {
            return Err(Code::FrameUnexpected);
        }
        self.received += data.len() as u64;
        if self.received > self.limit {
            return Err(Code::FlowViolated);
        }
        if self.stopped || self.failed.is_some() {
            self.consumed = self.received;
            return Ok(());
        }
        let is_small = data.len() < COPY_BELOW || data.len() < record / 2;
        self.chunks.push(data, is_small);
        self.wake();
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<(), Code> {
        if self.fin {
            return Err(Code::FrameUnexpected);
        }
        self.fin = true;
        self.wake();
        Ok(())
    }

    pub(super) fn fail(&mut self, code: u16) {
        self.chunks = Chunks::default();
        self.failed.get_or_insert(StreamError::Reset(code));
        self.wake();
    }

    /// The application wants no more; what is buffered is forgotten.
    pub(super) fn stop(&mut self) {
        self.stopped = true;
        self.chunks = Chunks::default();
        self.consumed = self.received;
        self.wake();
    }

    pub(super) fn read(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        if let Some(chunk) = self.chunks.pop_front() {
            self.consumed += chunk.len() as u64;
            return Poll::Ready(Ok(Some(chunk)));
        }
        if let Some(error) = self.failed {
            return Poll::Ready(Err(error));
        }
        if self.fin || self.stopped {
            return Poll::Ready(Ok(None));
        }
        self.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The new limit to announce, once half of the window has been consumed.
    pub(super) fn grant(&mut self, limits: &Limits) -> Option<u64> {
        let limit = self.consumed + limits.stream_window;
        if self.closed() || self.stopped || limit < self.limit + limits.stream_window / 2 {
            return None;
        }
        self.limit = limit;
        Some(limit)
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// A stream that the peer has opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamOpened {
    /// Its number.
    pub id: u64,
    /// Application protocol.
    pub protocol: Box<str>,
    /// Metadata; may be empty.
    pub metadata: Bytes,
}
