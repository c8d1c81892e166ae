//! A browser's WebSocket as a pipe of the core.

use crate::driver::{Driver, Token, pipe_waker};
use bytes::Bytes;
use js_sys::{Array, ArrayBuffer, Uint8Array};
use node_core::{
    Code,
    channel::MAX_RECORD,
    node::{Address, Pipe},
    registry::{
        Host,
        address::{forbidden, port_blocked},
    },
    wire::upgrade::{PATH, SUBPROTOCOL_FIRST, offers},
};
use std::{
    cell::Cell,
    net::IpAddr,
    rc::{Rc, Weak},
    task::Waker,
};
use wasm_bindgen::prelude::*;
use web_sys::{BinaryType, CloseEvent, MessageEvent, WebSocket};

/// Bytes that may wait in a socket before the session is asked for no more; one record may cross the line.
const QUEUED_MAX: u32 = 128 << 10;

/// A WebSocket that is being opened or is open. Dropping it closes it.
pub(crate) struct Socket {
    pub(crate) pipe: Pipe<Token>,
    pub(crate) waker: Waker,
    /// Messages wait here because the WebSocket has enough.
    pub(crate) blocked: Cell<bool>,
    /// Whether it has ever been open.
    pub(crate) was_open: Cell<bool>,
    /// Whether any message came in. Until then a close code is all that can say why we are turned away; afterwards reasons
    /// are authenticated, and a close code, which anybody on the way can forge, is only an end.
    pub(crate) heard: Cell<bool>,
    /// Message 1, until it is known whether it rode in the upgrade.
    first: Cell<Bytes>,
    web: WebSocket,
    /// Called by `web` as long as this lives.
    _callbacks: Callbacks,
}

type Callbacks = (
    Closure<dyn FnMut()>,
    Closure<dyn FnMut(MessageEvent)>,
    Closure<dyn FnMut(CloseEvent)>,
);

impl Socket {
    /// Begins to connect.
    ///
    /// # Errors
    /// [`Code::AddressRefused`] for what is not to be dialled, [`Code::SchemeBlocked`] and [`Code::DialFailed`] when the
    /// browser does not even try.
    pub(crate) fn dial(
        driver: &Rc<Driver>,
        pipe: Pipe<Token>,
        address: &Address,
    ) -> Result<Self, Code> {
        let url = url(address, driver.allow_private)?;
        let first = driver.node.first_message(&pipe).unwrap_or_default();
        let [with_first, without, carried] = &offers(&first);
        let offered = Array::of3(&with_first.into(), &without.into(), &carried.into());
        let web = WebSocket::new_with_str_sequence(&url, &offered).map_err(|why| {
            match crate::scope::field(&why, "name") {
                Some(name) if name == "SecurityError" => Code::SchemeBlocked,
                _ => Code::DialFailed,
            }
        })?;
        web.set_binary_type(BinaryType::Arraybuffer);
        let callbacks = callbacks(Rc::downgrade(driver), pipe.id());
        let (open, message, close) = &callbacks;
        web.set_onopen(Some(open.as_ref().unchecked_ref()));
        web.set_onmessage(Some(message.as_ref().unchecked_ref()));
        // An error says nothing that the close after it does not.
        web.set_onclose(Some(close.as_ref().unchecked_ref()));
        Ok(Self {
            waker: pipe_waker(driver, pipe.id()),
            blocked: Cell::new(false),
            was_open: Cell::new(false),
            heard: Cell::new(false),
            first: Cell::new(first),
            pipe,
            web,
            _callbacks: callbacks,
        })
    }

    /// Message 1, if it did not ride in the upgrade. Once, when it is open.
    pub(crate) fn unsent(&self) -> Option<Bytes> {
        let first = self.first.take();
        (self.web.protocol() != SUBPROTOCOL_FIRST).then_some(first)
    }

    pub(crate) fn is_open(&self) -> bool {
        self.web.ready_state() == WebSocket::OPEN
    }

    /// Whether the WebSocket should be given more. Browsers tell nobody when their queue drains.
    pub(crate) fn has_room(&self) -> bool {
        self.web.buffered_amount() < QUEUED_MAX
    }

    pub(crate) fn send(&self, message: &[u8]) {
        // A socket that is closing takes messages and forgets them; its close event is on the way.
        let _ = self.web.send_with_u8_array(message);
    }

    /// What the close code that ended it means.
    pub(crate) fn said(&self, number: u16) -> Code {
        if self.heard.get() {
            Code::PipeLost
        } else {
            reason(number)
        }
    }

    /// Closes after everything that was sent, and says why.
    pub(crate) fn close(&self, code: Code) {
        self.silence();
        let _ = self
            .web
            .close_with_code_and_reason(code.close_code(), code.name());
    }

    fn silence(&self) {
        self.web.set_onopen(None);
        self.web.set_onmessage(None);
        self.web.set_onclose(None);
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.silence();
        // Does nothing to a socket that is closing already.
        let _ = self.web.close();
    }
}

fn callbacks(driver: Weak<Driver>, id: u64) -> Callbacks {
    let (for_message, for_close) = (driver.clone(), driver.clone());
    let open = Closure::new(move || {
        if let Some(driver) = driver.upgrade() {
            driver.opened(id);
        }
    });
    let message = Closure::new(move |event: MessageEvent| {
        if let Some(driver) = for_message.upgrade() {
            match read(&event.data()) {
                Ok(message) => driver.received(id, message),
                Err(code) => driver.lost(id, code),
            }
        }
    });
    let close = Closure::new(move |event: CloseEvent| {
        if let Some(driver) = for_close.upgrade() {
            driver.hung_up(id, event.code());
        }
    });
    (open, message, close)
}

/// The bytes of a message. What is no record is not even copied: anybody on the way can send it.
fn read(data: &JsValue) -> Result<Vec<u8>, Code> {
    let buffer: &ArrayBuffer = data.dyn_ref().ok_or(Code::FrameUnexpected)?;
    if buffer.byte_length() as usize > MAX_RECORD {
        return Err(Code::RecordTooLarge);
    }
    Ok(Uint8Array::new(buffer).to_vec())
}

/// What a close code says. Nobody has signed it, so it must not make us give our name up.
fn reason(number: u16) -> Code {
    number
        .checked_sub(Code::Closed.close_code())
        .and_then(Code::from_u16)
        .filter(|code| *code != Code::Superseded)
        .unwrap_or(Code::PipeLost)
}

/// Where to dial, if it may be dialled. A browser resolves names out of our sight, so only what is written is judged.
fn url(address: &Address, allow_private: bool) -> Result<String, Code> {
    let private = match &address.host {
        Host::V4(host) => forbidden(IpAddr::V4(*host)).is_some(),
        Host::V6(host) => forbidden(IpAddr::V6(*host)).is_some(),
        Host::Dns(name) => &**name == "localhost" || name.ends_with(".localhost"),
    };
    if port_blocked(address.port) || (private && !allow_private) {
        return Err(Code::AddressRefused);
    }
    let scheme = if address.secure { "wss" } else { "ws" };
    Ok(format!(
        "{scheme}://{}:{}{PATH}",
        address.host, address.port
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    fn private_addresses_are_dialled_only_where_that_is_allowed() {
        let to = |host: &str, port| Address {
            host: Host::parse(host).unwrap(),
            port,
            secure: false,
        };
        for host in ["127.0.0.1", "10.0.0.1", "::1", "localhost", "a.localhost"] {
            assert_eq!(
                url(&to(host, 8080), false),
                Err(Code::AddressRefused),
                "{host}"
            );
            assert!(url(&to(host, 8080), true).is_ok(), "{host}");
        }
        assert_eq!(url(&to("127.0.0.1", 22), true), Err(Code::AddressRefused));
        assert_eq!(
            url(&to("router.example", 443), false).unwrap(),
            "ws://router.example:443/nectar"
        );
        assert_eq!(
            url(&to("2a00:1450::1", 9000), false).unwrap(),
            "ws://[2a00:1450::1]:9000/nectar"
        );
    }

    #[test]
    fn a_close_code_tells_why_but_cannot_take_a_name_away() {
        assert_eq!(reason(4503), Code::Overloaded);
        assert_eq!(reason(4002), Code::PipeLost);
        assert_eq!(reason(1006), Code::PipeLost);
        assert_eq!(reason(4999), Code::PipeLost);
    }
}
