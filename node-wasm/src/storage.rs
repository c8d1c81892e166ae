//! IndexedDB, as far as a key needs it: one store, read and written whole.

use crate::scope::global;
use js_sys::Promise;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use web_sys::{
    IdbDatabase, IdbFactory, IdbOpenDbRequest, IdbRequest, IdbTransaction, IdbTransactionMode,
};

/// The only store of a database.
const STORE: &str = "values";

/// An open database; closed when dropped.
pub(crate) struct Storage {
    database: IdbDatabase,
}

impl Storage {
    /// Opens or makes a database.
    ///
    /// # Errors
    /// What the browser says; a realm without IndexedDB says so too.
    pub(crate) async fn open(name: &str) -> Result<Self, JsValue> {
        let factory: IdbFactory = global("indexedDB")
            .ok_or("there is no IndexedDB here")?
            .unchecked_into();
        let request = factory.open_with_u32(name, 1)?;
        let made = request.clone();
        // Lives until the request has ended.
        let upgrade = Closure::<dyn FnMut() -> Result<(), JsValue>>::new(move || {
            let database: IdbDatabase = made.result()?.unchecked_into();
            database.create_object_store(STORE).map(drop)
        });
        request.set_onupgradeneeded(Some(upgrade.as_ref().unchecked_ref()));
        let opened = result(&request).await;
        request.set_onupgradeneeded(None);
        Ok(Self {
            database: opened?.unchecked_into(),
        })
    }

    /// What stands under `key`; `undefined` for nothing.
    pub(crate) async fn get(&self, key: &str) -> Result<JsValue, JsValue> {
        let transaction = self.transaction(IdbTransactionMode::Readonly)?;
        result(&transaction.object_store(STORE)?.get(&key.into())?).await
    }

    /// Writes, replacing what was there.
    pub(crate) async fn put(&self, key: &str, value: &JsValue) -> Result<(), JsValue> {
        let transaction = self.transaction(IdbTransactionMode::Readwrite)?;
        transaction
            .object_store(STORE)?
            .put_with_key(value, &key.into())?;
        completed(&transaction).await
    }

    /// Writes unless something is there already; false then.
    pub(crate) async fn add(&self, key: &str, value: &JsValue) -> Result<bool, JsValue> {
        let transaction = self.transaction(IdbTransactionMode::Readwrite)?;
        let request = transaction
            .object_store(STORE)?
            .add_with_key(value, &key.into())?;
        match completed(&transaction).await {
            Ok(()) => Ok(true),
            Err(_) if reason(&request).is_some_and(|why| why == "ConstraintError") => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn transaction(&self, mode: IdbTransactionMode) -> Result<IdbTransaction, JsValue> {
        self.database.transaction_with_str_and_mode(STORE, mode)
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        self.database.close();
    }
}

/// Waits for a request's result. The promise's own functions are the callbacks, so that nothing of ours outlives it.
async fn result(request: &IdbRequest) -> Result<JsValue, JsValue> {
    let promise = Promise::new(&mut |resolve, reject| {
        request.set_onsuccess(Some(resolve.unchecked_ref()));
        request.set_onerror(Some(reject.unchecked_ref()));
        if let Some(open) = request.dyn_ref::<IdbOpenDbRequest>() {
            open.set_onblocked(Some(reject.unchecked_ref()));
        }
    });
    match JsFuture::from(promise).await {
        Ok(_) => request.result(),
        Err(_) => Err(reason(request).map_or_else(|| "the database is busy".into(), Into::into)),
    }
}

/// Waits until a transaction is on its way to the disk.
async fn completed(transaction: &IdbTransaction) -> Result<(), JsValue> {
    let promise = Promise::new(&mut |resolve, reject| {
        transaction.set_oncomplete(Some(resolve.unchecked_ref()));
        transaction.set_onabort(Some(reject.unchecked_ref()));
    });
    match JsFuture::from(promise).await {
        Ok(_) => Ok(()),
        Err(_) => Err(transaction.error().map_or_else(
            || "the database gave up".into(),
            |error| error.name().into(),
        )),
    }
}

fn reason(request: &IdbRequest) -> Option<String> {
    request.error().ok().flatten().map(|error| error.name())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;
    use wasm_bindgen_test::wasm_bindgen_test as test;

    #[test]
    async fn of_two_who_add_only_the_first_succeeds() {
        let name = format!("storage test {}", js_sys::Math::random());
        let (one, other) = (
            Storage::open(&name).await.unwrap(),
            Storage::open(&name).await.unwrap(),
        );
        assert!(one.get("key").await.unwrap().is_undefined());
        assert_eq!(one.add("key", &1.into()).await, Ok(true));
        assert_eq!(other.add("key", &2.into()).await, Ok(false));
        assert_eq!(other.get("key").await.unwrap(), 1);
        other.put("key", &3.into()).await.unwrap();
        assert_eq!(one.get("key").await.unwrap(), 3);
    }

    #[test]
    async fn what_cannot_be_stored_is_an_error_with_its_name() {
        let name = format!("storage test {}", js_sys::Math::random());
        let storage = Storage::open(&name).await.unwrap();
        let function = js_sys::Function::new_no_args("");
        let error = storage.put("key", &function).await.unwrap_err();
        let name = crate::scope::field(&error, "name").unwrap();
        assert_eq!(name, "DataCloneError");
    }
}
