//! TLS, on both sides: who we believe when we dial, and a certificate that is renewed under a running server.
//!
//! A certificate is transport, never identity: it keeps the network from reading, the handshake above proves names.

use crate::config::TlsFiles;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::SystemTime,
};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate or key file that cannot be used.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A combination that rustls refuses.
    #[error("TLS cannot be set up: {0}")]
    Rustls(#[from] rustls::Error),
}

/// What we require of servers that we dial: a certificate for their host, signed by an authority of this system, or,
/// where the system has none installed, by one of Mozilla's.
pub fn client_config() -> Result<Arc<ClientConfig>, TlsError> {
    let mut roots = RootCertStore::empty();
    let native = rustls_native_certs::load_native_certs();
    for error in &native.errors {
        tracing::debug!(%error, "a certificate authority of this system cannot be read");
    }
    roots.add_parsable_certificates(native.certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// A server's certificate, read again when its files change.
#[derive(Debug)]
pub struct ServerTls {
    files: TlsFiles,
    certificate: Arc<Current>,
    config: Arc<ServerConfig>,
}

impl ServerTls {
    /// Reads the certificate and its key.
    pub fn load(files: &TlsFiles) -> Result<Self, TlsError> {
        let certificate = Arc::new(Current(RwLock::new(Loaded::read(files)?)));
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(certificate.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self {
            files: files.clone(),
            certificate,
            config: Arc::new(config),
        })
    }

    /// For accepting connections; certificates read later take effect in it.
    pub fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }

    /// Reads the files again if one of them changed, and says whether it did. On failure the old certificate stays, and
    /// the next call tries again.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let seen = self
            .certificate
            .0
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .changed;
        if modified(&self.files) == seen {
            return Ok(false);
        }
        let loaded = Loaded::read(&self.files)?;
        *self
            .certificate
            .0
            .write()
            .unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(true)
    }
}

#[derive(Debug)]
struct Current(RwLock<Loaded>);

#[derive(Debug)]
struct Loaded {
    key: Arc<CertifiedKey>,
    /// Modification times from before the files were read, so that a change during reading is noticed later.
    changed: [Option<SystemTime>; 2],
}

impl ResolvesServerCert for Current {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(
            self.0
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .key
                .clone(),
        )
    }
}

impl Loaded {
    fn read(files: &TlsFiles) -> Result<Self, TlsError> {
        let file = |path: &Path, problem: String| TlsError::File {
            path: path.into(),
            problem,
        };
        let changed = modified(files);
        let chain = CertificateDer::pem_file_iter(&files.cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| file(&files.cert, unread("certificate chain", "tls_cert", &error)))?;
        if chain.is_empty() {
            return Err(file(
                &files.cert,
                "it holds no certificate in PEM: correct listen.tls_cert".into(),
            ));
        }
        let key = PrivateKeyDer::from_pem_file(&files.key)
            .map_err(|error| file(&files.key, unread("private key", "tls_key", &error)))?;
        let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
            file(
                &files.key,
                format!("it cannot be used with {}: {error}", files.cert.display()),
            )
        })?;
        Ok(Self {
            key: Arc::new(key),
            changed,
        })
    }
}

/// Why `what` was not read from the file of the setting `listen.{setting}`, and what to do.
fn unread(what: &str, setting: &str, error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!(
            "it cannot be read: {error}; correct listen.{setting}, or who may read the file"
        ),
        error => format!("no {what} in PEM can be read: {error}; correct listen.{setting}"),
    }
}

fn modified(files: &TlsFiles) -> [Option<SystemTime>; 2] {
    [&files.cert, &files.key].map(|path| {
        std::fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed step fails the test")]
    use super::*;
    use std::{fs, time::Duration};

    fn write_certificate(dir: &Path) -> (TlsFiles, Vec<u8>) {
        let made = rcgen::generate_simple_self_signed(["localhost".into()]).unwrap();
        let files = TlsFiles {
            cert: dir.join("cert.pem"),
            key: dir.join("key.pem"),
        };
        fs::write(&files.cert, made.cert.pem()).unwrap();
        fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        (files, made.cert.der().to_vec())
    }

    fn served(tls: &ServerTls) -> Vec<u8> {
        tls.certificate.0.read().unwrap().key.cert[0].to_vec()
    }

    fn touch(path: &Path) {
        let later = SystemTime::now() + Duration::from_secs(5);
        fs::File::options()
            .append(true)
            .open(path)
            .unwrap()
            .set_modified(later)
            .unwrap();
    }

    #[test]
    fn a_renewed_certificate_is_served_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (files, first) = write_certificate(dir.path());
        let tls = ServerTls::load(&files).unwrap();
        assert_eq!(served(&tls), first);
        assert!(!tls.reload().unwrap(), "nothing changed");

        let (_, second) = write_certificate(dir.path());
        touch(&files.cert);
        assert!(tls.reload().unwrap());
        assert_eq!(served(&tls), second);
        assert_ne!(first, second);

        fs::write(&files.cert, "half a file").unwrap();
        let error = tls.reload().unwrap_err().to_string();
        assert!(error.contains("cert.pem"), "{error}");
        assert_eq!(served(&tls), second, "the old one stays");
    }

    #[test]
    fn a_key_that_does_not_belong_to_the_certificate_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (files, _) = write_certificate(dir.path());
        fs::write(
            &files.key,
            rcgen::KeyPair::generate().unwrap().serialize_pem(),
        )
        .unwrap();
        let error = ServerTls::load(&files).unwrap_err().to_string();
        assert!(error.contains("key.pem: it cannot be used with"), "{error}");
    }
}
