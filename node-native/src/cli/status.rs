//! `nectar status`: asks the node on this machine.

use super::{Context, Failure, args::StatusArgs};
use crate::rpc;
use serde_json::Value;
use std::fmt::Write;

/// Largest status that is read, in bytes.
const STATUS_MAX: usize = 4 << 20;

pub(super) async fn status(context: Context, args: StatusArgs) -> Result<(), Failure> {
    let Context { config, out } = context;
    let listen = config.listen.as_ref();
    let port = args
        .port
        .or(listen.map(|listen| listen.address.port()))
        .ok_or_else(|| {
            Failure::usage("which node? give --port, or a configuration with [listen]; a node that does not listen has no status to ask for")
        })?;
    let tls = args.tls || listen.is_some_and(|listen| listen.tls.is_some());
    let url = format!(
        "{}://localhost:{port}/status",
        if tls { "https" } else { "http" }
    );
    let failed = |error: reqwest::Error| {
        let remedy = if error.is_connect() {
            "is it running, and is this its port?"
        } else {
            "see its log"
        };
        Failure::failed(format!("the node at {url} does not answer: {remedy}"))
    };
    let mut response = rpc::http_client()?.get(&url).send().await.map_err(failed)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(failed)? {
        body.extend_from_slice(&chunk);
        if body.len() > STATUS_MAX {
            return Err(Failure::failed(format!(
                "{url} answers endlessly: this is no nectar node"
            )));
        }
    }
    if !response.status().is_success() {
        return Err(Failure::failed(format!(
            "{url} answers {}: this is no nectar node, or no status of one",
            response.status()
        )));
    }
    let value: Value = serde_json::from_slice(&body)
        .map_err(|_| Failure::failed(format!("{url} answers no JSON: this is no nectar node")))?;
    out.result(outline(&value), &value);
    Ok(())
}

/// JSON as an indented outline.
fn outline(value: &Value) -> String {
    fn walk(out: &mut String, name: &str, value: &Value, depth: usize) {
        // Writing to a String does not fail.
        let _ = match value {
            Value::Object(map) => {
                let _ = writeln!(out, "{:indent$}{name}", "", indent = depth * 2);
                map.iter()
                    .for_each(|(name, value)| walk(out, name, value, depth + 1));
                Ok(())
            }
            Value::Array(items) => {
                let _ = writeln!(
                    out,
                    "{:indent$}{name} ({})",
                    "",
                    items.len(),
                    indent = depth * 2
                );
                items
                    .iter()
                    .for_each(|value| walk(out, "-", value, depth + 1));
                Ok(())
            }
            Value::String(text) => writeln!(out, "{:indent$}{name} {text}", "", indent = depth * 2),
            other => writeln!(out, "{:indent$}{name} {other}", "", indent = depth * 2),
        };
    }
    let mut out = String::new();
    match value {
        Value::Object(map) => map
            .iter()
            .for_each(|(name, value)| walk(&mut out, name, value, 0)),
        other => walk(&mut out, "-", other, 0),
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_reads_as_an_outline() {
        let value =
            serde_json::json!({ "name": "a.nectar", "sessions": [{ "peer": "b" }], "up": 3 });
        assert_eq!(
            outline(&value),
            "name a.nectar\nsessions (1)\n  -\n    peer b\nup 3"
        );
    }
}
