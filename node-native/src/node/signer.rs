//! Who holds the networking key.

use ed25519_dalek::SigningKey;
use futures_util::future::BoxFuture;
use node_core::{
    channel::SignRequest,
    crypto::{Provider, Secret, Suite},
};

/// Signs handshakes with a node's networking key: in memory, in an agent, in an HSM.
///
/// A signer is given what a handshake binds and builds the signed bytes itself, with [`SignRequest::message`], so it
/// cannot be talked into signing anything else.
pub trait Signer: Send + Sync + 'static {
    /// The public key, as it stands in the name's record.
    fn public_key(&self) -> [u8; 32];

    /// Whether it is certain to sign with the secret of that key, because it computed the key from it. The first signature of
    /// another one is verified before it is sent.
    fn has_computed_key(&self) -> bool {
        false
    }

    /// The same signer, ready to sign often.
    fn prepared(self) -> Box<dyn Signer>
    where
        Self: Sized,
    {
        Box::new(self)
    }

    /// Signs. It must not block: what takes long is returned as [`Signing::Pending`].
    fn sign(&self, request: &SignRequest) -> Signing;
}

/// How a signer answers.
pub enum Signing {
    /// Here is the signature.
    Done([u8; 64]),
    /// It will come, or `None` if it will not. The handshake's own time limit applies.
    Pending(BoxFuture<'static, Option<[u8; 64]>>),
    /// There will be none.
    Refused,
}

impl std::fmt::Debug for Signing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Done(_) => "Done",
            Self::Pending(_) => "Pending",
            Self::Refused => "Refused",
        })
    }
}

impl Signer for SigningKey {
    fn public_key(&self) -> [u8; 32] {
        self.verifying_key().to_bytes()
    }

    fn has_computed_key(&self) -> bool {
        true
    }

    fn prepared(self) -> Box<dyn Signer> {
        Box::new(Prepared {
            public: self.public_key(),
            key: Suite::signing_key(&Secret::new(self.to_bytes())),
        })
    }

    fn sign(&self, request: &SignRequest) -> Signing {
        Signing::Done(ed25519_dalek::Signer::sign(self, &request.message()).to_bytes())
    }
}

/// A key in memory, as the fastest implementation wants it: that signs in less than half of the time.
struct Prepared {
    public: [u8; 32],
    key: <Suite as Provider>::SigningKey,
}

impl Signer for Prepared {
    fn public_key(&self) -> [u8; 32] {
        self.public
    }

    fn has_computed_key(&self) -> bool {
        true
    }

    fn sign(&self, request: &SignRequest) -> Signing {
        Signing::Done(Suite::sign(&self.key, &request.message()))
    }
}
