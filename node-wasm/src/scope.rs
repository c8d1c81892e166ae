//! What every realm offers alike, be it a page, a worker, a SharedWorker or Node.js: clocks, timers and a console.

use js_sys::{Function, Promise, Reflect};
use node_core::{Instant, Now, Timestamp, time::Duration};
use std::cell::RefCell;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;

/// Longest delay of a timer, in milliseconds: browsers take longer ones for none at all.
const DELAY_MAX: f64 = 2_147_483_647.0;

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
    #[wasm_bindgen(js_name = setTimeout)]
    fn set_timeout(callback: &Function, delay_ms: f64) -> JsValue;
    #[wasm_bindgen(js_name = clearTimeout)]
    fn clear_timeout(timer: &JsValue);
    #[wasm_bindgen(js_namespace = console, js_name = error)]
    pub(crate) fn console_error(text: &str, detail: &JsValue);
}

/// Both clocks. The monotonic one has this realm's birth as its origin.
pub(crate) fn now() -> Now {
    Now {
        mono: Instant::from_micros((performance_now() * 1000.0) as u64),
        wall: Timestamp(js_sys::Date::now() as u64),
    }
}

/// A global by its name; `None` where this realm has no such thing.
pub(crate) fn global(name: &str) -> Option<JsValue> {
    field(&js_sys::global(), name)
}

/// A property that is there and neither `undefined` nor `null`.
pub(crate) fn field(of: &JsValue, name: &str) -> Option<JsValue> {
    Reflect::get(of, &name.into())
        .ok()
        .filter(|value| !value.is_undefined() && !value.is_null())
}

/// Whether this realm's code came over https: browsers then open no `ws` connections.
pub(crate) fn is_https() -> bool {
    global("location")
        .and_then(|location| field(&location, "protocol"))
        .is_some_and(|protocol| protocol == "https:")
}

/// Resolves after `delay`.
pub(crate) async fn pause(delay: Duration) {
    let mut timer = None;
    let over = Promise::new(&mut |resolve, _| {
        timer = Some(Timer::once(delay, move || {
            // A promise's own function does not throw.
            let _ = resolve.call0(&JsValue::UNDEFINED);
        }));
    });
    let _ = JsFuture::from(over).await;
    drop(timer);
}

/// A callback with at most one call of it pending. Dropping the timer drops both.
pub(crate) struct Timer {
    callback: Closure<dyn FnMut()>,
    pending: RefCell<Option<JsValue>>,
}

impl Timer {
    pub(crate) fn new(callback: impl FnMut() + 'static) -> Self {
        Self {
            callback: Closure::new(callback),
            pending: RefCell::new(None),
        }
    }

    /// A timer that is set at once.
    pub(crate) fn once(delay: Duration, callback: impl FnMut() + 'static) -> Self {
        let timer = Self::new(callback);
        timer.set(delay);
        timer
    }

    /// Calls back after `delay`, instead of when it would have.
    pub(crate) fn set(&self, delay: Duration) {
        // Rounded up: a timer that fires a fraction early finds nothing due and spins.
        let delay = (delay.as_micros() as f64 / 1000.0).ceil().min(DELAY_MAX);
        let timer = set_timeout(self.callback.as_ref().unchecked_ref(), delay);
        self.replace(Some(timer));
    }

    fn replace(&self, timer: Option<JsValue>) {
        let former = self.pending.replace(timer);
        if let Some(former) = former {
            clear_timeout(&former);
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.replace(None);
    }
}
