//! A server under TLS, who trusts it, and pages that did not come from it.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use crate::http::{UPGRADE, dial, listen, start};
use futures_util::{SinkExt, StreamExt};
use node_core::registry::{Host, Routing};
use node_native::{
    config::TlsFiles,
    dial::{DialError, Dialer},
    http::Site,
};
use rcgen::{CertifiedKey, KeyPair};
use std::sync::Arc;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::Message;

/// A certificate for one host that it has signed itself.
struct Certificate {
    made: CertifiedKey<KeyPair>,
    directory: tempfile::TempDir,
}

impl Certificate {
    fn of(host: &str) -> Self {
        Self {
            made: rcgen::generate_simple_self_signed([host.into()]).unwrap(),
            directory: tempfile::tempdir().unwrap(),
        }
    }

    fn files(&self) -> TlsFiles {
        let files = TlsFiles {
            cert: self.directory.path().join("c.pem"),
            key: self.directory.path().join("k.pem"),
        };
        std::fs::write(&files.cert, self.made.cert.pem()).unwrap();
        std::fs::write(&files.key, self.made.signing_key.serialize_pem()).unwrap();
        files
    }

    /// What a client needs that trusts it.
    fn trusted(&self) -> Arc<rustls::ClientConfig> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.made.cert.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

#[tokio::test]
async fn wss_needs_a_certificate_that_the_system_trusts_for_that_host() {
    let certificate = Certificate::of("localhost");
    let mut listen = listen(&[]);
    listen.tls = Some(certificate.files());
    let mut node = start(listen, Site::default()).await;

    let error = dial(node.address, &Dialer::new(true).unwrap(), true)
        .await
        .unwrap_err();
    assert!(
        matches!(error, DialError::Tls { .. }),
        "an unknown authority is refused: {error}"
    );

    let trusting = Dialer::with_tls(certificate.trusted(), true);
    let error = dial(node.address, &trusting, true).await.unwrap_err();
    assert!(
        matches!(error, DialError::Tls { .. }),
        "the certificate is for localhost, not 127.0.0.1: {error}"
    );
    let routing = Routing {
        host: Host::parse("localhost").unwrap(),
        port: node.address.port(),
        ws: true,
        wss: true,
    };
    let mut ours = trusting.connect(&routing, || None).await.unwrap().socket;
    let mut theirs = node.accepted.recv().await.unwrap().socket;
    assert!(theirs.get_ref().is_tls());
    ours.send(Message::binary(vec![1])).await.unwrap();
    assert_eq!(
        theirs.next().await.unwrap().unwrap(),
        Message::binary(vec![1])
    );
}

/// On the port for plain HTTP of the same host stands another server, or whoever is on the way.
#[tokio::test]
async fn a_page_that_came_without_tls_is_none_of_a_node_that_has_it() {
    let certificate = Certificate::of("node.example");
    let mut listen = listen(&[("listen.origins", "[\"https://app.example\"]")]);
    listen.tls = Some(certificate.files());
    let site = Site {
        faucet: Some(Arc::new(|_| Box::pin(async { Ok("0x1".to_owned()) }))),
        ..Site::default()
    };
    let node = start(listen, site).await;
    let tls = tokio_rustls::TlsConnector::from(certificate.trusted());
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
