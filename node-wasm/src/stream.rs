//! A stream as JavaScript sees it.

use crate::{
    convert::{bytes, invalid, stream_error},
    driver::Token,
};
use bytes::Bytes;
use js_sys::{Promise, Uint8Array};
use node_core::{node::Stream, session::StreamError};
use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    rc::Rc,
    task::{Context, Poll, Waker},
};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;

/// Bytes of any length to and from a peer. What is unfinished is reset once JavaScript lets go of it.
#[wasm_bindgen]
pub struct WasmStream {
    from: Option<String>,
    protocol: String,
    metadata: Option<Bytes>,
    inner: Rc<Inner>,
}

struct Inner {
    /// Gone as soon as both directions are through: a garbage collector may let go much later, and the peer's count of
    /// open streams must not wait for it.
    stream: RefCell<Option<Rc<Stream<Token>>>>,
    reads: Turns,
    writes: Turns,
    /// Who reads and has to hear that we no longer want to.
    reader: RefCell<Option<Waker>>,
    read: Cell<bool>,
    written: Cell<bool>,
}

#[wasm_bindgen]
impl WasmStream {
    /// The peer, proved by the handshake; null for a guest.
    pub fn from(&self) -> JsValue {
        self.from.as_deref().map_or(JsValue::NULL, JsValue::from)
    }

    /// Application protocol.
    pub fn protocol(&self) -> String {
        self.protocol.clone()
    }

    /// What the opener sent along.
    pub fn metadata(&self) -> Option<Uint8Array> {
        self.metadata.as_deref().map(Uint8Array::from)
    }

    /// The next bytes; undefined at the end.
    pub fn read(&self) -> Promise {
        let inner = self.inner.clone();
        let turn = inner.reads.take();
        future_to_promise(async move {
            inner.reads.reached(turn).await;
            let next = match inner.stream() {
                Some(stream) => poll_fn(|cx| inner.poll_read(&stream, cx)).await,
                None => Ok(None),
            };
            inner.reads.next();
            match next {
                Ok(Some(data)) => Ok(bytes(&data)),
                Ok(None) => {
                    inner.through(&inner.read);
                    Ok(JsValue::UNDEFINED)
                }
                Err(why) => {
                    inner.through(&inner.read);
                    Err(stream_error(why))
                }
            }
        })
    }

    /// Takes bytes; resolves once there is room for more.
    pub fn write(&self, chunk: &JsValue) -> Promise {
        let Some(chunk) = chunk.dyn_ref::<Uint8Array>() else {
            return Promise::reject(&invalid("a chunk of a stream is a Uint8Array"));
        };
        let inner = self.inner.clone();
        let turn = inner.writes.take();
        let mut data = Bytes::from(chunk.to_vec());
        future_to_promise(async move {
            inner.writes.reached(turn).await;
            let written = match inner.stream() {
                Some(stream) => poll_fn(|cx| stream.poll_write(&mut data, cx)).await,
                None => Err(StreamError::Finished),
            };
            inner.writes.next();
            written.map(|()| JsValue::UNDEFINED).map_err(|why| {
                inner.through(&inner.written);
                stream_error(why)
            })
        })
    }

    /// Says that no more follows; what was written still goes out.
    pub fn finish(&self) -> Promise {
        let inner = self.inner.clone();
        let turn = inner.writes.take();
        future_to_promise(async move {
            inner.writes.reached(turn).await;
            if let Some(stream) = inner.stream() {
                stream.finish();
            }
            inner.writes.next();
            inner.through(&inner.written);
            Ok(JsValue::UNDEFINED)
        })
    }

    /// Gives up sending.
    pub fn reset(&self, code: u16) {
        if let Some(stream) = self.inner.stream() {
            stream.reset(code);
        }
        self.inner.through(&self.inner.written);
    }

    /// Asks the peer to send no more.
    pub fn stop(&self, code: u16) {
        if let Some(stream) = self.inner.stream() {
            stream.stop(code);
        }
        self.inner.through(&self.inner.read);
    }
}

impl WasmStream {
    pub(crate) fn new(
        stream: Stream<Token>,
        from: Option<String>,
        protocol: String,
        metadata: Option<Bytes>,
    ) -> Self {
        Self {
            from,
            protocol,
            metadata,
            inner: Rc::new(Inner {
                stream: RefCell::new(Some(Rc::new(stream))),
                reads: Turns::default(),
                writes: Turns::default(),
                reader: RefCell::new(None),
                read: Cell::new(false),
                written: Cell::new(false),
            }),
        }
    }
}

impl std::fmt::Debug for WasmStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "WasmStream({:?}, {})", self.from, self.protocol)
    }
}

impl Inner {
    fn stream(&self) -> Option<Rc<Stream<Token>>> {
        self.stream.borrow().clone()
    }

    fn poll_read(
        &self,
        stream: &Stream<Token>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Bytes>, StreamError>> {
        if self.read.get() {
            return Poll::Ready(Ok(None));
        }
        self.reader.replace(Some(cx.waker().clone()));
        stream.poll_read(cx)
    }

    /// Marks a direction as through; after both, the stream is let go.
    fn through(&self, direction: &Cell<bool>) {
        direction.set(true);
        let reader = self.reader.take().filter(|_| self.read.get());
        if let Some(reader) = reader {
            reader.wake();
        }
        if self.read.get() && self.written.get() {
            let stream = self.stream.take();
            drop(stream);
        }
    }
}

/// Lets calls through one at a time, in the order in which they were made: a stream wakes one reader and one writer.
#[derive(Debug, Default)]
struct Turns {
    taken: Cell<u64>,
    serving: Cell<u64>,
    waiting: RefCell<Vec<(u64, Waker)>>,
}

impl Turns {
    fn take(&self) -> u64 {
        let turn = self.taken.get();
        self.taken.set(turn + 1);
        turn
    }

    async fn reached(&self, turn: u64) {
        poll_fn(|cx| {
            if self.serving.get() == turn {
                return Poll::Ready(());
            }
            self.waiting.borrow_mut().push((turn, cx.waker().clone()));
            Poll::Pending
        })
        .await;
    }

    fn next(&self) {
        let turn = self.serving.get() + 1;
        self.serving.set(turn);
        let waiting = {
            let mut waiting = self.waiting.borrow_mut();
            let at = waiting.iter().position(|(waits, _)| *waits == turn);
            at.map(|at| waiting.swap_remove(at))
        };
        if let Some((_, waker)) = waiting {
            waker.wake();
        }
    }
}
