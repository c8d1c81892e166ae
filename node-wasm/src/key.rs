//! The networking key of this origin: Ed25519 in WebCrypto, not extractable, kept in IndexedDB.
//!
//! Scripts of the page can use it while they run; nobody can take it along.

use crate::{
    convert::error,
    scope::{field, global},
    storage::Storage,
};
use js_sys::{Array, ArrayBuffer, Promise, Uint8Array};
use node_core::{Code, channel::SignRequest};
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{CryptoKey, SubtleCrypto};

/// The database of the key, and the key's place in it.
const DATABASE: &str = "nectar-node";
const PLACE: &str = "networking key";

const ALGORITHM: &str = "Ed25519";

/// A key pair whose private half stays in the browser.
#[derive(Clone, Debug)]
pub(crate) struct DeviceKey {
    /// What is registered onchain.
    pub(crate) public: [u8; 32],
    private: CryptoKey,
}

impl DeviceKey {
    /// The key of this origin, made at its first use. Several tabs that ask at once get the same one.
    ///
    /// # Errors
    /// [`Code::SignerFailed`], as plain data, with what is missing: a secure context, Ed25519, storage.
    pub(crate) async fn load_or_make() -> Result<Self, JsValue> {
        let subtle = subtle().ok_or_else(|| {
            refusal("this page has no WebCrypto: it needs https, or an address of this machine")
        })?;
        let storage = Storage::open(DATABASE)
            .await
            .map_err(|why| failed("the key's storage cannot be opened", &why))?;
        let stored = |why: JsValue| failed("the key cannot be read from storage", &why);
        let found = storage.get(PLACE).await.map_err(stored)?;
        if let Some(key) = Self::read(&subtle, &found).await {
            return Ok(key);
        }
        let made = make(&subtle)
            .await
            .map_err(|why| failed("this browser makes no Ed25519 keys", &why))?;
        let kept = |why: JsValue| failed("this browser does not keep keys", &why);
        if !found.is_undefined() {
            // What was there is of no use to anybody.
            storage.put(PLACE, &made).await.map_err(kept)?;
        } else if !storage.add(PLACE, &made).await.map_err(kept)? {
            let first = storage.get(PLACE).await.map_err(stored)?;
            return Self::read(&subtle, &first)
                .await
                .ok_or_else(|| refusal("another tab has stored something that is no key"));
        }
        Self::read(&subtle, &made)
            .await
            .ok_or_else(|| refusal("the browser's new key is no Ed25519 key"))
    }

    /// Signs a handshake. `None` when the browser refuses.
    pub(crate) async fn sign(&self, request: &SignRequest) -> Option<[u8; 64]> {
        let promise = subtle()?
            .sign_with_str_and_u8_array(ALGORITHM, &self.private, &request.message())
            .ok()?;
        fixed(&JsFuture::from(promise).await.ok()?)
    }

    /// Reads a `CryptoKeyPair`, or something that is none.
    async fn read(subtle: &SubtleCrypto, pair: &JsValue) -> Option<Self> {
        let half = |name| field(pair, name)?.dyn_into::<CryptoKey>().ok();
        let (private, public) = (half("privateKey")?, half("publicKey")?);
        if private.type_() != "private" {
            return None;
        }
        let raw = subtle.export_key("raw", &public).ok()?;
        Some(Self {
            public: fixed(&JsFuture::from(raw).await.ok()?)?,
            private,
        })
    }
}

async fn make(subtle: &SubtleCrypto) -> Result<JsValue, JsValue> {
    let uses: Array = ["sign", "verify"].into_iter().map(JsValue::from).collect();
    let promise: Promise = subtle
        .generate_key_with_str(ALGORITHM, false, &uses)?
        .unchecked_into();
    JsFuture::from(promise).await
}

/// WebCrypto; browsers have it in secure contexts only.
fn subtle() -> Option<SubtleCrypto> {
    Some(field(&global("crypto")?, "subtle")?.unchecked_into())
}

/// An `ArrayBuffer` of exactly `N` bytes.
fn fixed<const N: usize>(buffer: &JsValue) -> Option<[u8; N]> {
    let bytes = Uint8Array::new(buffer.dyn_ref::<ArrayBuffer>()?);
    bytes.to_vec().try_into().ok()
}

fn refusal(message: &str) -> JsValue {
    error(Code::SignerFailed, message, None)
}

fn failed(what: &str, why: &JsValue) -> JsValue {
    let name = why
        .as_string()
        .or_else(|| field(why, "name")?.as_string())
        .unwrap_or_default();
    refusal(&format!("{what}: {name}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use ed25519_dalek::{Signature, VerifyingKey};
    use node_core::channel::Role;
    use wasm_bindgen_test::wasm_bindgen_test as test;

    const REQUEST: SignRequest = SignRequest {
        role: Role::Initiator,
        h: [1; 32],
        binding: [2; 32],
    };

    async fn forget() {
        let storage = Storage::open(DATABASE).await.unwrap();
        storage.put(PLACE, &JsValue::NULL).await.unwrap();
    }

    #[test]
    async fn other_nodes_accept_what_the_browser_signs() {
        let key = DeviceKey::load_or_make().await.unwrap();
        let signature = Signature::from_bytes(&key.sign(&REQUEST).await.unwrap());
        let public = VerifyingKey::from_bytes(&key.public).unwrap();
        assert!(public.verify_strict(&REQUEST.message(), &signature).is_ok());
    }

    #[test]
    async fn the_private_half_cannot_be_exported() {
        let key = DeviceKey::load_or_make().await.unwrap();
        assert!(!key.private.extractable());
        for format in ["pkcs8", "jwk", "raw"] {
            let exported = subtle().unwrap().export_key(format, &key.private);
            let exported = match exported {
                Ok(promise) => JsFuture::from(promise).await,
                Err(thrown) => Err(thrown),
            };
            assert!(exported.is_err(), "{format}");
        }
    }

    #[test]
    async fn what_is_no_key_is_replaced_and_the_new_key_stays() {
        let before = DeviceKey::load_or_make().await.unwrap();
        forget().await;
        let after = DeviceKey::load_or_make().await.unwrap();
        assert_ne!(before.public, after.public);
        assert_eq!(
            DeviceKey::load_or_make().await.unwrap().public,
            after.public
        );
    }
}
