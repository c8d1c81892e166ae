//! `StartOptions`, read field by field: what is wrong is named with its place.

use crate::convert::invalid;
use js_sys::{Array, Object, Reflect};
use node_core::{
    Label, Limits, Name, RegistryId,
    registry::{Host, NameParseError, Record, RegistryConfig, Resolver, ResolverLimits, Routing},
    time::Duration,
};
use wasm_bindgen::prelude::*;

/// What a node is started with.
#[derive(Debug)]
pub(crate) struct Options {
    /// Own name; none for a guest.
    pub(crate) name: Option<Name>,
    pub(crate) registries: Vec<RegistryConfig>,
    /// Routers that a guest keeps a connection to.
    pub(crate) routers: Vec<Name>,
    pub(crate) pinned: Vec<(Name, Record)>,
    pub(crate) allow_private: bool,
    pub(crate) user_agent: Option<String>,
    pub(crate) limits: Limits,
}

impl Options {
    /// Reads and checks everything.
    ///
    /// # Errors
    /// `invalid_argument`, as plain data, with the field and what it should be.
    pub(crate) fn read(options: &JsValue) -> Result<Self, JsValue> {
        Self::parse(options).map_err(|why| invalid(&why))
    }

    fn parse(options: &JsValue) -> Result<Self, String> {
        let root = Fields::new(options, "the options")?;
        root.only(&[
            "name",
            "guest",
            "registries",
            "routers",
            "pinned",
            "allowPrivate",
            "userAgent",
            "limits",
        ])?;
        let registries = each(&root.list("registries")?, |_, fields| registry(fields))?;
        for (index, registry) in registries.iter().enumerate() {
            if registries[..index]
                .iter()
                .any(|other| other.tld == registry.tld)
            {
                return Err(format!("two registries have the ending .{}", registry.tld));
            }
        }
        let names = Names::new(&registries)?;
        let name = root.optional("name", Fields::text)?;
        let guest = root.optional("guest", Fields::flag)?.unwrap_or(false);
        let name = match (name, guest) {
            (Some(name), false) => Some(names.parse(&name, "name")?),
            (None, true) => None,
            (Some(_), true) => return Err("a node has a name or is a guest, not both".into()),
            (None, false) => return Err("name is missing; a node without one sets guest".into()),
        };
        Ok(Self {
            name,
            routers: each(&root.list("routers")?, |_, router| {
                known_router(router, &names)
            })?,
            pinned: each(&root.list("pinned")?, |_, record| pinned(record, &names))?,
            registries,
            allow_private: root
                .optional("allowPrivate", Fields::flag)?
                .unwrap_or(false),
            user_agent: root.optional("userAgent", Fields::text)?,
            limits: match root.optional("limits", Fields::inner)? {
                Some(fields) => limits(&fields)?,
                None => Limits::default(),
            },
        })
    }
}

fn registry(fields: &Fields) -> Result<RegistryConfig, String> {
    fields.only(&["tld", "chainId", "contract", "rpcs", "quorum"])?;
    let tld = fields.text("tld")?;
    let plain = |part: &str| {
        !part.is_empty()
            && part
                .bytes()
                .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
    };
    if !tld.split('.').all(plain) {
        return Err(fields.wrong(
            "tld",
            "an ending of names such as \"nectar\", without its dot",
        ));
    }
    let contract = fields.text("contract")?;
    let contract = contract
        .strip_prefix("0x")
        .and_then(unhex)
        .ok_or_else(|| fields.wrong("contract", "0x and 40 hexadecimal digits"))?;
    let rpcs = fields.texts("rpcs")?;
    for (index, rpc) in rpcs.iter().enumerate() {
        if !has_scheme(rpc, &["https://", "http://"]) {
            return Err(fields.wrong(&format!("rpcs[{index}]"), "an http or https address"));
        }
    }
    let most = u8::try_from(rpcs.len()).unwrap_or(u8::MAX).max(1);
    let quorum = match fields.optional("quorum", Fields::whole)? {
        None => None,
        Some(quorum) => Some(
            u8::try_from(quorum)
                .ok()
                .filter(|quorum| (1..=most).contains(quorum))
                .ok_or_else(|| fields.wrong("quorum", &format!("between 1 and {most}")))?,
        ),
    };
    Ok(RegistryConfig {
        id: RegistryId {
            chain_id: fields.whole("chainId")?,
            contract,
        },
        tld: tld.into(),
        rpcs: rpcs.into_iter().map(Into::into).collect(),
        quorum,
    })
}

/// Reads the items of a list by their places. A loop: what collects results is longer to download.
fn each<I, O>(
    items: &[I],
    mut read: impl FnMut(usize, &I) -> Result<O, String>,
) -> Result<Vec<O>, String> {
    let mut all = Vec::new();
    for (index, item) in items.iter().enumerate() {
        all.push(read(index, item)?);
    }
    Ok(all)
}

/// A router that the serving node offers. Its record says where it is dialled, and only its record can say with which
/// key it answers, so of the address just the form is checked.
fn known_router(fields: &Fields, names: &Names) -> Result<Name, String> {
    fields.only(&["name", "url"])?;
    if !has_scheme(&fields.text("url")?, &["wss://", "ws://"]) {
        return Err(fields.wrong("url", "a ws or wss address"));
    }
    names.parse(&fields.text("name")?, &fields.path("name"))
}

fn pinned(fields: &Fields, names: &Names) -> Result<(Name, Record), String> {
    fields.only(&["name", "key", "routing", "routers"])?;
    let name = names.parse(&fields.text("name")?, &fields.path("name"))?;
    let key =
        unhex(&fields.text("key")?).ok_or_else(|| fields.wrong("key", "64 hexadecimal digits"))?;
    let routing = match fields.optional("routing", Fields::inner)? {
        Some(fields) => Some(routing(&fields)?),
        None => None,
    };
    let routers = each(&fields.texts("routers")?, |index, router| {
        let path = fields.path(&format!("routers[{index}]"));
        names.router(router, &name, &path)
    })?;
    let record = Record::unowned(key, routing, routers);
    match record.check() {
        Ok(()) => Ok((name, record)),
        Err(why) => Err(format!("{}: {why}", fields.path)),
    }
}

fn routing(fields: &Fields) -> Result<Routing, String> {
    fields.only(&["host", "port", "schemes"])?;
    let host = Host::parse(&fields.text("host")?)
        .map_err(|why| format!("{}: {why}", fields.path("host")))?;
    let port = u16::try_from(fields.whole("port")?)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| fields.wrong("port", "between 1 and 65535"))?;
    let schemes = fields.texts("schemes")?;
    if schemes.is_empty()
        || schemes
            .iter()
            .any(|scheme| scheme != "ws" && scheme != "wss")
    {
        return Err(fields.wrong("schemes", "\"ws\", \"wss\" or both"));
    }
    let has = |wanted| schemes.iter().any(|scheme| scheme == wanted);
    Ok(Routing {
        host,
        port,
        ws: has("ws"),
        wss: has("wss"),
    })
}

/// A year; every sum of times stays far from the end of the clock.
const DURATION_MAX_MS: u64 = 366 * 24 * 3600 * 1000;

/// A limit that an application may set.
trait Limit {
    /// Sets it, unless the number is too large.
    fn set(&mut self, value: u64) -> Option<()>;
}

impl Limit for Duration {
    fn set(&mut self, millis: u64) -> Option<()> {
        *self = Self::from_millis(Some(millis).filter(|millis| *millis <= DURATION_MAX_MS)?);
        Some(())
    }
}

macro_rules! numbers {
    ($($number:ty)*) => {
        $(impl Limit for $number {
            fn set(&mut self, value: u64) -> Option<()> {
                *self = value.try_into().ok()?;
                Some(())
            }
        })*
    };
}

numbers! { u32 u64 usize }

/// [`Limits`] by the names that JavaScript gives them; times are in milliseconds.
fn limits(fields: &Fields) -> Result<Limits, String> {
    let mut limits = Limits::default();
    let known: [(&str, &mut dyn Limit); 19] = [
        ("handshakeTimeoutMs", &mut limits.handshake_timeout),
        ("clockWindowMs", &mut limits.clock_window),
        ("messageBytes", &mut limits.message_bytes),
        ("inboxBytes", &mut limits.inbox_bytes),
        ("retainedBytes", &mut limits.retained_bytes),
        ("outboxBytes", &mut limits.outbox_bytes),
        ("streamWindow", &mut limits.stream_window),
        ("streams", &mut limits.streams),
        ("requests", &mut limits.requests),
        ("requestDeadlineMs", &mut limits.request_deadline),
        ("keepaliveMs", &mut limits.keepalive),
        ("keepaliveMisses", &mut limits.keepalive_misses),
        ("circuits", &mut limits.circuits),
        ("circuitWindow", &mut limits.circuit_window),
        ("routers", &mut limits.routers),
        ("backoffMinMs", &mut limits.backoff_min),
        ("backoffMaxMs", &mut limits.backoff_max),
        ("waiting", &mut limits.waiting),
        ("raceStaggerMs", &mut limits.race_stagger),
    ];
    fields.only(&known.each_ref().map(|(name, _)| *name))?;
    for (name, limit) in known {
        if let Some(value) = fields.optional(name, Fields::whole)? {
            limit
                .set(value)
                .ok_or_else(|| fields.wrong(name, "a smaller number"))?;
        }
    }
    Ok(limits)
}

/// Reads names before there is a node.
struct Names(Resolver);

impl Names {
    fn new(registries: &[RegistryConfig]) -> Result<Self, String> {
        Resolver::new(registries.to_vec(), Vec::new(), ResolverLimits::default())
            .map(Self)
            .map_err(|(name, why)| format!("{name}: {why}"))
    }

    fn parse(&self, text: &str, path: &str) -> Result<Name, String> {
        self.0
            .parse(text)
            .map_err(|why| format!("{path} \"{text}\": {why}"))
    }

    /// A router, with its ending or without: records list labels of their own registry.
    fn router(&self, text: &str, of: &Name, path: &str) -> Result<Label, String> {
        match self.0.parse(text) {
            Ok(name) if name.registry == of.registry => Ok(name.label),
            Ok(_) => Err(format!(
                "{path} \"{text}\": a router has the ending of the name it serves"
            )),
            Err(NameParseError::NoTld(_)) => {
                Label::new(text).map_err(|why| format!("{path} \"{text}\": {why}"))
            }
            Err(why) => Err(format!("{path} \"{text}\": {why}")),
        }
    }
}

/// The fields of an object and where it stands in the options.
struct Fields {
    object: JsValue,
    path: String,
}

impl Fields {
    fn new(value: &JsValue, path: &str) -> Result<Self, String> {
        if !value.is_object() || Array::is_array(value) {
            return Err(format!("{path}: an object is needed"));
        }
        Ok(Self {
            object: value.clone(),
            path: path.into(),
        })
    }

    /// A field's full name.
    fn path(&self, name: &str) -> String {
        if self.path.starts_with("the ") {
            name.into()
        } else {
            format!("{}.{name}", self.path)
        }
    }

    fn wrong(&self, name: &str, needed: &str) -> String {
        format!("{}: {needed} is needed", self.path(name))
    }

    /// Refuses misspelt fields, which would otherwise be ignored in silence.
    fn only(&self, known: &[&str]) -> Result<(), String> {
        let keys = Object::keys(self.object.unchecked_ref::<Object>());
        for key in keys.iter().filter_map(|key| key.as_string()) {
            if !known.contains(&key.as_str()) {
                let mut said = format!("{} is unknown; there are ", self.path(&key));
                for (at, known) in known.iter().enumerate() {
                    said.push_str(if at == 0 { "" } else { ", " });
                    said.push_str(known);
                }
                return Err(said);
            }
        }
        Ok(())
    }

    fn get(&self, name: &str) -> Option<JsValue> {
        crate::scope::field(&self.object, name)
    }

    fn optional<T>(
        &self,
        name: &str,
        read: impl FnOnce(&Self, &str) -> Result<T, String>,
    ) -> Result<Option<T>, String> {
        self.get(name).map(|_| read(self, name)).transpose()
    }

    fn text(&self, name: &str) -> Result<String, String> {
        self.get(name)
            .and_then(|value| value.as_string())
            .filter(|text| !text.is_empty())
            .ok_or_else(|| self.wrong(name, "a text"))
    }

    fn flag(&self, name: &str) -> Result<bool, String> {
        self.get(name)
            .and_then(|value| value.as_bool())
            .ok_or_else(|| self.wrong(name, "true or false"))
    }

    /// A whole number that is not negative and that JavaScript represents exactly.
    fn whole(&self, name: &str) -> Result<u64, String> {
        self.get(name)
            .and_then(|value| value.as_f64())
            .filter(|number| {
                number.fract() == 0.0 && (0.0..=9_007_199_254_740_991.0).contains(number)
            })
            .map(|number| number as u64)
            .ok_or_else(|| self.wrong(name, "a whole number"))
    }

    fn inner(&self, name: &str) -> Result<Self, String> {
        Self::new(&self.value(name), &self.path(name))
    }

    /// Objects in a list; none where there is no list.
    fn list(&self, name: &str) -> Result<Vec<Self>, String> {
        each(&self.items(name)?, |index, item| {
            Self::new(item, &self.path(&format!("{name}[{index}]")))
        })
    }

    fn texts(&self, name: &str) -> Result<Vec<String>, String> {
        each(&self.items(name)?, |index, item| {
            item.as_string()
                .ok_or_else(|| self.wrong(&format!("{name}[{index}]"), "a text"))
        })
    }

    fn items(&self, name: &str) -> Result<Vec<JsValue>, String> {
        match self.get(name) {
            None => Ok(Vec::new()),
            Some(list) if Array::is_array(&list) => {
                Ok(list.unchecked_into::<Array>().iter().collect())
            }
            Some(_) => Err(self.wrong(name, "a list")),
        }
    }

    fn value(&self, name: &str) -> JsValue {
        Reflect::get(&self.object, &name.into()).unwrap_or(JsValue::UNDEFINED)
    }
}

fn has_scheme(address: &str, schemes: &[&str]) -> bool {
    schemes.iter().any(|scheme| {
        address
            .strip_prefix(scheme)
            .is_some_and(|rest| !rest.is_empty() && !rest.starts_with('/'))
    })
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).ok().map(|()| bytes)
}
