//! What JavaScript calls.

use crate::{
    convert,
    driver::{Driver, Token},
    key::DeviceKey,
    options::Options,
    pending::{Goal, Pending},
    scope,
};
use bytes::Bytes;
use js_sys::{Array, Function, Promise, Uint8Array};
use node_core::{
    Code, Name,
    channel::Identity,
    node::{Node, NodeConfig},
    session::Request,
    time::Duration,
};
use std::rc::Rc;
use wasm_bindgen::prelude::*;
use web_sys::AbortSignal;

/// Longest deadline of a request, in milliseconds: a day.
const DEADLINE_MAX_MS: f64 = 86_400_000.0;

/// A node that runs in this thread until it is closed.
#[wasm_bindgen]
pub struct WasmNode {
    driver: Rc<Driver>,
    name: Option<String>,
    key: Option<[u8; 32]>,
}

/// Makes or loads the key of this origin and returns its public half, 32 bytes.
#[wasm_bindgen(js_name = generateKey)]
pub async fn generate_key() -> Result<Uint8Array, JsValue> {
    let key = DeviceKey::load_or_make().await?;
    Ok(Uint8Array::from(key.public.as_slice()))
}

/// A panic is a defect of ours: it ends the module, but not in silence.
#[wasm_bindgen(start)]
fn begin() {
    std::panic::set_hook(Box::new(|panic| {
        scope::console_error(&format!("nectar: {panic}"), &JsValue::UNDEFINED);
    }));
}

#[wasm_bindgen]
impl WasmNode {
    /// Starts a node; resolves before it is online.
    pub async fn start(options: JsValue) -> Result<WasmNode, JsValue> {
        let options = Options::read(&options)?;
        let key = match &options.name {
            Some(_) => Some(DeviceKey::load_or_make().await?),
            None => None,
        };
        let public = key.as_ref().map(|key| key.public);
        let mut config = NodeConfig::new(Identity {
            name: options.name.clone(),
            key: public.unwrap_or_default(),
        });
        config.registries = options.registries;
        config.pinned = options.pinned;
        config.secure_only = scope::is_https();
        config.limits = options.limits;
        if let Some(user_agent) = options.user_agent {
            config.user_agent = user_agent;
        }
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|why| {
            let message = format!("the browser gives no random numbers: {why}");
            convert::error(Code::InvalidArgument, &message, None)
        })?;
        let node = Node::new(config, seed).map_err(|why| convert::invalid(&why.to_string()))?;
        let routers = match &options.name {
            Some(_) => Vec::new(),
            None => options.routers,
        };
        Ok(Self {
            name: options.name.map(|name| node.display_name(&name)),
            key: public,
            driver: Driver::start(node, key, routers, options.allow_private),
        })
    }

    /// Own name; undefined for a guest.
    pub fn name(&self) -> Option<String> {
        self.name.clone()
    }

    /// Own networking key, 32 bytes; none for a guest.
    #[wasm_bindgen(js_name = publicKey)]
    pub fn public_key(&self) -> Uint8Array {
        Uint8Array::from(self.key.as_ref().map_or(&[][..], |key| &key[..]))
    }

    /// Whether the key sits in WebCrypto, out of reach of scripts.
    pub fn secure(&self) -> bool {
        self.key.is_some()
    }

    /// Asks a peer.
    pub fn request(
        &self,
        name: &str,
        protocol: &str,
        payload: &JsValue,
        metadata: &JsValue,
        deadline_ms: Option<f64>,
        cancel: Option<AbortSignal>,
    ) -> Promise {
        settled(self.ask(name, protocol, payload, metadata, deadline_ms, cancel))
    }

    /// Sends a message; resolves when the other application took it.
    pub fn message(&self, name: &str, protocol: &str, payload: &JsValue) -> Promise {
        settled(self.send(name, protocol, payload))
    }

    /// Answers requests of a protocol.
    pub fn serve(&self, protocol: String, handler: Function) {
        self.driver
            .handlers
            .requests
            .borrow_mut()
            .insert(protocol, handler);
    }

    /// Stops answering.
    pub fn unserve(&self, protocol: &str) {
        let former = self.driver.handlers.requests.borrow_mut().remove(protocol);
        drop(former);
    }

    /// Takes messages of a protocol.
    #[wasm_bindgen(js_name = onMessage)]
    pub fn on_message(&self, protocol: String, handler: Function) {
        self.driver
            .handlers
            .messages
            .borrow_mut()
            .insert(protocol, handler);
    }

    /// Opens a stream.
    #[wasm_bindgen(js_name = openStream)]
    pub fn open_stream(&self, name: &str, protocol: String, metadata: &JsValue) -> Promise {
        settled(self.open(name, protocol, metadata))
    }

    /// Takes streams of a protocol.
    #[wasm_bindgen(js_name = serveStream)]
    pub fn serve_stream(&self, protocol: String, handler: Function) {
        self.driver
            .handlers
            .streams
            .borrow_mut()
            .insert(protocol, handler);
    }

    /// Tells all news to `handler`, those from before this call first.
    pub fn events(&self, handler: Function) {
        self.driver.handlers.listen(handler);
    }

    /// What is known about a name; `fresh` asks the chain even if the cache knows.
    pub fn resolve(&self, name: &str, fresh: bool) -> Promise {
        settled(
            self.parse(name)
                .map(|name| self.look_up(Goal::Record, &name, fresh)),
        )
    }

    /// Whether nobody has registered a label.
    pub fn available(&self, label: &str, tld: &str) -> Promise {
        settled(self.check_available(label, tld))
    }

    /// Keeps a session with a peer up from now on. Resolves at once; events tell how it goes.
    pub fn connect(&self, name: &str) -> Promise {
        settled(self.parse(name).map(|name| {
            self.driver
                .act(|node, now, out| node.keep(&name, true, None, now, out));
            Promise::resolve(&JsValue::UNDEFINED)
        }))
    }

    /// All peers that are no routers of ours.
    pub fn peers(&self) -> Array {
        self.states(false)
    }

    /// Our routers.
    pub fn routers(&self) -> Array {
        self.states(true)
    }

    /// Round trip to a peer, in milliseconds.
    pub fn ping(&self, name: &str) -> Promise {
        settled(self.parse(name).map(|name| self.driver.ping(&name)))
    }

    /// Ends the node; resolves when its last words have left.
    pub fn close(&self) -> Promise {
        self.driver.close()
    }
}

impl WasmNode {
    fn ask(
        &self,
        name: &str,
        protocol: &str,
        payload: &JsValue,
        metadata: &JsValue,
        deadline_ms: Option<f64>,
        cancel: Option<AbortSignal>,
    ) -> Result<Promise, JsValue> {
        let to = self.parse(name)?;
        let request = Request {
            protocol: protocol.into(),
            metadata: optional_bytes(metadata, "metadata")?,
            payload: bytes(payload, "the payload")?,
            early: false,
        };
        let timeout = deadline_ms.map(deadline).transpose()?;
        if cancel.as_ref().is_some_and(AbortSignal::aborted) {
            return Err(convert::plain(Code::Cancelled));
        }
        let weak = Rc::downgrade(&self.driver);
        let peer = to.clone();
        Ok(self.driver.begin(
            |token: Token| {
                Pending::new(Goal::Outcome).aborted_by(cancel.as_ref(), move || {
                    if let Some(driver) = weak.upgrade() {
                        driver.cancel(token, &peer);
                    }
                })
            },
            |node, token, now, out| node.request(token, &to, request, timeout, now, out),
        ))
    }

    fn send(&self, name: &str, protocol: &str, payload: &JsValue) -> Result<Promise, JsValue> {
        let to = self.parse(name)?;
        let payload = bytes(payload, "the payload")?;
        Ok(self.driver.begin(
            |_| Pending::new(Goal::Outcome),
            |node, token, now, out| node.message(token, &to, protocol, payload, now, out),
        ))
    }

    fn open(&self, name: &str, protocol: String, metadata: &JsValue) -> Result<Promise, JsValue> {
        let to = self.parse(name)?;
        let metadata = optional_bytes(metadata, "metadata")?;
        let goal = Goal::Stream {
            to: self.driver.node.display_name(&to),
            protocol: protocol.clone(),
            metadata: metadata.clone(),
        };
        Ok(self.driver.begin(
            |_| Pending::new(goal),
            |node, token, now, out| {
                node.open_stream(
                    token,
                    &to,
                    &protocol,
                    metadata.unwrap_or_default(),
                    now,
                    out,
                );
            },
        ))
    }

    fn look_up(&self, goal: Goal, name: &Name, fresh: bool) -> Promise {
        self.driver.begin(
            |_| Pending::new(goal),
            |node, token, now, out| node.resolve(token, name, fresh, now, out),
        )
    }

    fn check_available(&self, label: &str, tld: &str) -> Result<Promise, JsValue> {
        let name = self.parse(&format!("{label}.{tld}"))?;
        let registries = &self.driver.node.config().registries;
        let readable = |id| {
            registries
                .iter()
                .any(|registry| registry.id == id && !registry.rpcs.is_empty())
        };
        if !readable(name.registry) {
            let message = format!("there is no RPC endpoint that would know who has .{tld} names");
            return Err(convert::error(Code::ChainUnavailable, &message, None));
        }
        Ok(self.look_up(Goal::Available, &name, true))
    }

    fn states(&self, routers: bool) -> Array {
        let node = &self.driver.node;
        node.peers(scope::now().mono)
            .iter()
            .filter(|peer| self.driver.is_router(&peer.name, peer.router) == routers)
            .map(|peer| {
                convert::peer(
                    node,
                    &peer.name,
                    routers,
                    &peer.state,
                    peer.round_trip,
                    false,
                )
            })
            .collect()
    }

    fn parse(&self, name: &str) -> Result<Name, JsValue> {
        if self.driver.is_closed() {
            return Err(convert::plain(Code::NodeClosed));
        }
        let node = &self.driver.node;
        node.parse_name(name)
            .map_err(|why| convert::not_a_name(name, &why))
    }
}

impl std::fmt::Debug for WasmNode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WasmNode")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Whoever awaits a call hears of bad arguments in the same way as of everything else.
fn settled(begun: Result<Promise, JsValue>) -> Promise {
    begun.unwrap_or_else(|error| Promise::reject(&error))
}

fn bytes(value: &JsValue, what: &str) -> Result<Bytes, JsValue> {
    match value.dyn_ref::<Uint8Array>() {
        Some(bytes) => Ok(bytes.to_vec().into()),
        None => Err(convert::invalid(&format!("{what} is not a Uint8Array"))),
    }
}

fn optional_bytes(value: &JsValue, what: &str) -> Result<Option<Bytes>, JsValue> {
    if value.is_undefined() || value.is_null() {
        return Ok(None);
    }
    bytes(value, what).map(Some)
}

fn deadline(millis: f64) -> Result<Duration, JsValue> {
    if millis > 0.0 && millis <= DEADLINE_MAX_MS {
        Ok(Duration::from_micros((millis * 1000.0) as u64))
    } else {
        Err(convert::invalid(
            "the deadline is more than 0 and at most 86,400,000 milliseconds",
        ))
    }
}
