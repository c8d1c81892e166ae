//! A server under TLS, and pages that did not come from it.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use crate::http::{UPGRADE, listen, start};
use node_native::{config::TlsFiles, http::Site};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// On the port for plain HTTP of the same host stands another server, or whoever is on the way.
#[tokio::test]
async fn a_page_that_came_without_tls_is_none_of_a_node_that_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["node.example".into()]).unwrap();
    let files = TlsFiles {
        cert: dir.path().join("c.pem"),
        key: dir.path().join("k.pem"),
    };
    std::fs::write(&files.cert, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    let mut listen = listen(&[("listen.origins", "[\"https://app.example\"]")]);
    listen.tls = Some(files);
    let site = Site {
        faucet: Some(Arc::new(|_| Box::pin(async { Ok("0x1".to_owned()) }))),
        ..Site::default()
    };
    let node = start(listen, site).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(tls));
    let ask = async |request: String| {
        let stream = TcpStream::connect(node.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from("node.example").unwrap();
        let mut stream = tls.connect(name, stream).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    };
    let body = r#"{"address":"0x70997970C51812dc3A010C7d01b50e0d17dc79C8"}"#;
    for (scheme, upgraded, funded) in [("http", 403, 403), ("https", 101, 200)] {
        let origin = format!("origin: {scheme}://node.example\r\n");
        let answer = ask(format!("{UPGRADE}{origin}\r\n")).await;
        assert_eq!(answer, format!("HTTP/1.1 {upgraded}"), "{scheme}");
        let length = body.len();
        let head = format!(
            "POST /faucet HTTP/1.1\r\nhost: node.example\r\n{origin}content-length: {length}\r\n"
        );
        let answer = ask(format!("{head}\r\n{body}")).await;
        assert_eq!(answer, format!("HTTP/1.1 {funded}"), "{scheme}");
    }
}
