//! Posting the JSON-RPC bodies that the core writes.

use crate::scope::{Timer, field};
use js_sys::{Promise, Uint8Array};
use node_core::{registry::FetchFailure, time::Duration};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    AbortController, AbortSignal, ReadableStreamDefaultReader, RequestCache, RequestCredentials,
    RequestInit, RequestMode, RequestRedirect, Response,
};

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_name = fetch)]
    fn global_fetch(url: &str, init: &RequestInit) -> Promise;
}

/// Ends a fetch when it takes too long, and when dropped.
pub(crate) struct Leash {
    controller: AbortController,
    _timer: Timer,
}

impl Leash {
    /// A leash that pulls after `timeout`. `None` where the browser cannot abort anything.
    pub(crate) fn new(timeout: Duration) -> Option<Self> {
        let controller = AbortController::new().ok()?;
        let late = controller.clone();
        Some(Self {
            _timer: Timer::once(timeout, move || late.abort()),
            controller,
        })
    }

    pub(crate) fn signal(&self) -> AbortSignal {
        self.controller.signal()
    }
}

impl Drop for Leash {
    fn drop(&mut self) {
        self.controller.abort();
    }
}

/// Posts `body` and returns what came back, at most `limit` bytes of it. Nothing of the person's goes along, and no
/// redirect is followed.
pub(crate) async fn post(
    url: &str,
    body: &str,
    limit: usize,
    signal: &AbortSignal,
) -> Result<Vec<u8>, FetchFailure> {
    exchange(url, body, limit, signal).await.map_err(|failure| {
        if signal.aborted() {
            FetchFailure::Timeout
        } else {
            failure
        }
    })
}

async fn exchange(
    url: &str,
    body: &str,
    limit: usize,
    signal: &AbortSignal,
) -> Result<Vec<u8>, FetchFailure> {
    let headers = crate::convert::object([("content-type", "application/json".into())]);
    let init = RequestInit::new();
    init.set_method("POST");
    init.set_headers(&headers);
    init.set_body(&body.into());
    init.set_mode(RequestMode::Cors);
    init.set_cache(RequestCache::NoStore);
    init.set_redirect(RequestRedirect::Error);
    init.set_credentials(RequestCredentials::Omit);
    init.set_referrer("");
    init.set_signal(Some(signal));
    let response: Response = finished(global_fetch(url, &init)).await?.unchecked_into();
    let status = response.status();
    let mut answer = Vec::new();
    if let Some(stream) = response.body() {
        let reader: ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
        while let Some(chunk) = field(&finished(reader.read().unchecked_into()).await?, "value") {
            let chunk: Uint8Array = chunk.unchecked_into();
            let held = answer.len();
            let length = held + chunk.length() as usize;
            if length > limit {
                return Err(FetchFailure::TooLarge);
            }
            answer.resize(length, 0);
            chunk.copy_to(&mut answer[held..]);
        }
    }
    // Many endpoints send JSON-RPC errors under other statuses; the core reads those.
    if !response.ok() && !answer.trim_ascii_start().starts_with(b"{") {
        return Err(FetchFailure::Status(status));
    }
    Ok(answer)
}

async fn finished(promise: Promise) -> Result<JsValue, FetchFailure> {
    let ended = JsFuture::from(promise).await;
    ended.map_err(|_| FetchFailure::Unreachable)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const ANSWER: &str = "data:application/json,{\"result\":1}";

    async fn fetched(url: &str, limit: usize, leash: &Leash) -> Result<Vec<u8>, FetchFailure> {
        post(url, "{}", limit, &leash.signal()).await
    }

    #[test]
    async fn an_answer_is_read_up_to_its_limit() {
        let leash = Leash::new(Duration::from_secs(5)).unwrap();
        assert_eq!(
            fetched(ANSWER, 12, &leash).await,
            Ok(b"{\"result\":1}".to_vec())
        );
        assert_eq!(
            fetched(ANSWER, 11, &leash).await,
            Err(FetchFailure::TooLarge)
        );
    }

    #[test]
    async fn where_nobody_listens_nothing_is_reached() {
        let leash = Leash::new(Duration::from_secs(5)).unwrap();
        let url = "http://127.0.0.1:49151/";
        assert_eq!(
            fetched(url, 100, &leash).await,
            Err(FetchFailure::Unreachable)
        );
    }

    #[test]
    async fn a_leash_that_has_run_out_is_a_timeout() {
        let leash = Leash::new(Duration::ZERO).unwrap();
        let mut timer = None;
        let late = Promise::new(&mut |done, _| {
            let done: js_sys::Function = done.unchecked_into();
            timer = Some(Timer::once(Duration::from_millis(20), move || {
                let _ = done.call0(&JsValue::UNDEFINED);
            }));
        });
        JsFuture::from(late).await.unwrap();
        assert_eq!(
            fetched(ANSWER, 100, &leash).await,
            Err(FetchFailure::Timeout)
        );
    }
}
