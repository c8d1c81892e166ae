//! A node under TLS whose certificate is replaced while it runs.

use crate::{
    home::{Home, Running},
    support::{Network, direct_at, free_address, name, soon},
};
use node_native::node::{Event, Node, PeerState, Request, Response};
use rcgen::{CertifiedKey, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    client::Resumption,
    pki_types::{CertificateDer, ServerName},
};
use std::{fs::File, net::SocketAddr, sync::Arc, time::Duration};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

type Certificate = CertifiedKey<KeyPair>;

/// Whoever believes these certificates and no others.
fn trusting(certificates: [&Certificate; 2]) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate.cert.der().clone()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    // Who resumes is shown no certificate.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// The certificate that a new connection is shown.
async fn shown(tls: &Arc<ClientConfig>, to: SocketAddr) -> CertificateDer<'static> {
    let stream = TcpStream::connect(to).await.unwrap();
    let name = ServerName::from(to.ip());
    let connecting = TlsConnector::from(tls.clone()).connect(name, stream);
    let stream = soon("a TLS handshake", connecting).await.unwrap();
    let (_, session) = stream.get_ref();
    session.peer_certificates().unwrap()[0].clone()
}

struct Bob {
    home: Home,
    address: SocketAddr,
    alice: Node,
}

impl Bob {
    fn write(&self, file: &str, content: &str) {
        std::fs::write(self.home.path().join(file), content).unwrap();
    }

    /// As most tools that renew a certificate do it: one file after the other.
    fn install(&self, certificate: &Certificate) {
        self.write("cert.pem", &certificate.cert.pem());
        self.write("key.pem", &certificate.signing_key.serialize_pem());
    }

    /// Asks over the connection that there is until the log has one more line with `wanted`.
    async fn until_logged(&self, wanted: &str) {
        let count = || {
            let log = std::fs::read_to_string(self.home.path().join("log")).unwrap();
            log.matches(wanted).count()
        };
        let before = count();
        soon(wanted, async {
            while count() == before {
                self.ask().await;
                // As fast as a stranger may ask.
                tokio::time::sleep(Duration::from_millis(120)).await;
            }
        })
        .await;
    }

    async fn ask(&self) {
        let (to, request) = (name("bob"), Request::new("echo.1", "?"));
        let asked = self.alice.request(&to, request);
        let answer = soon("an answer", asked).await;
        assert_eq!(answer, Ok(Response::Success(Some("?".into()))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_replaced_under_a_running_node_is_shown_to_newcomers_and_a_broken_one_is_not()
{
    let address = free_address();
    let make = || rcgen::generate_simple_self_signed([address.ip().to_string()]).unwrap();
    let (first, second) = (make(), make());
    let tls = trusting([&first, &second]);
    let mut record = direct_at("bob", address);
    let routing = record.routing.as_mut().unwrap();
    (routing.ws, routing.wss) = (false, true);
    let network = Network::default().known("bob", record).direct("alice");
    let home = Home::new(&network, "bob");
    let alice = Node::start(network.config("alice").tls(tls.clone()));
    let bob = Bob {
        home,
        address,
        alice: alice.await.unwrap(),
    };
    bob.install(&first);
    let files = ["listen.tls_cert=cert.pem", "listen.tls_key=key.pem"];
    let args = ["--echo", "--set", files[0], "--set", files[1]];
    let mut command = bob.home.run_command(Some(address), &args);
    command.stderr(File::create(bob.home.path().join("log")).unwrap());
    let running = Running::begin(command);
    assert_eq!(running.said["tls"], true);

    bob.ask().await;
    let mut events = bob.alice.events();
    while events.try_next().is_some() {}
    assert_eq!(shown(&tls, bob.address).await, *first.cert.der());
    bob.install(&second);
    bob.until_logged("the certificate was read again").await;
    assert_eq!(shown(&tls, bob.address).await, *second.cert.der());

    // A key without its certificate, and a certificate that is being written.
    let key = first.signing_key.serialize_pem();
    for (file, content, problem) in [
        ("key.pem", &key[..], "key.pem: it cannot be used with"),
        (
            "cert.pem",
            "half a file",
            "cert.pem: it holds no certificate",
        ),
    ] {
        bob.write(file, content);
        bob.until_logged(problem).await;
        assert_eq!(shown(&tls, bob.address).await, *second.cert.der());
    }
    bob.ask().await;
    while let Some(event) = events.try_next() {
        if let Event::Peer { state, .. } = event {
            assert!(matches!(state, PeerState::Online { .. }), "{state:?}");
        }
    }
    assert!(running.terminate().success());
}
