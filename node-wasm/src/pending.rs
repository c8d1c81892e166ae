//! Operations whose promises are not settled yet.

use crate::{convert, driver::Token, scope::Timer};
use bytes::Bytes;
use js_sys::{Function, Promise};
use node_core::{
    Code, Name,
    node::Node,
    registry::{ResolveError, Resolved},
};
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

/// What an operation is to bring.
pub(crate) enum Goal {
    /// What the node's outcome says.
    Outcome,
    /// A stream; what it is called is told to the application.
    Stream {
        to: String,
        protocol: String,
        metadata: Option<Bytes>,
    },
    /// A record.
    Record,
    /// Whether there is no record.
    Available,
    /// A round trip, before the timer gives up.
    Ping(
        Name,
        #[allow(dead_code, reason = "runs until it is dropped")] Timer,
    ),
}

/// A promise, its two ends, and what may cancel it.
pub(crate) struct Pending {
    goal: Goal,
    promise: Promise,
    resolve: Function,
    reject: Function,
    _abort: Option<Abort>,
}

impl Pending {
    pub(crate) fn new(goal: Goal) -> Self {
        let mut ends = None;
        let promise = Promise::new(&mut |resolve, reject| {
            ends = Some((resolve.unchecked_into(), reject.unchecked_into()));
        });
        // The executor of a promise runs before its constructor returns.
        let (resolve, reject) = ends.unwrap_or_default();
        Self {
            goal,
            promise,
            resolve,
            reject,
            _abort: None,
        }
    }

    /// The same, cancelled by `signal`.
    pub(crate) fn aborted_by(
        mut self,
        signal: Option<&AbortSignal>,
        cancel: impl FnMut() + 'static,
    ) -> Self {
        self._abort = signal.map(|signal| Abort::new(signal, cancel));
        self
    }

    pub(crate) fn promise(&self) -> Promise {
        self.promise.clone()
    }

    /// Whom an unfinished ping is for.
    pub(crate) fn pinged(&self) -> Option<&Name> {
        match &self.goal {
            Goal::Ping(peer, _) => Some(peer),
            _ => None,
        }
    }

    pub(crate) fn resolve(self, value: impl FnOnce(Goal) -> JsValue) {
        // The functions that settle a promise do not throw.
        let _ = self.resolve.call1(&JsValue::UNDEFINED, &value(self.goal));
    }

    pub(crate) fn reject(self, error: &JsValue) {
        let _ = self.reject.call1(&JsValue::UNDEFINED, error);
    }

    /// Settles with the end of a look-up.
    pub(crate) fn resolved(self, node: &Node<Token>, result: Result<Resolved, ResolveError>) {
        match (&self.goal, result) {
            (Goal::Available, Ok(_)) => self.resolve(|_| false.into()),
            // A record that cannot be used is a record.
            (Goal::Available, Err(why)) if why.code == Code::RecordInvalid => {
                self.resolve(|_| false.into())
            }
            (Goal::Available, Err(why)) if why.code == Code::NameUnknown => {
                self.resolve(|_| true.into())
            }
            (_, Ok(record)) => self.resolve(|_| convert::resolved(node, &record)),
            (_, Err(why)) => self.reject(&convert::unresolved(&why)),
        }
    }
}

/// A listener on an `AbortSignal`, taken off when dropped.
struct Abort {
    signal: AbortSignal,
    listener: Closure<dyn FnMut()>,
}

const ABORT: &str = "abort";

impl Abort {
    fn new(signal: &AbortSignal, cancel: impl FnMut() + 'static) -> Self {
        let listener = Closure::new(cancel);
        // Adding a function as a listener does not fail.
        let _ = signal.add_event_listener_with_callback(ABORT, listener.as_ref().unchecked_ref());
        Self {
            signal: signal.clone(),
            listener,
        }
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        let listener = self.listener.as_ref().unchecked_ref();
        let _ = self
            .signal
            .remove_event_listener_with_callback(ABORT, listener);
    }
}
