//! `nectar keygen`.

use super::{Failure, args::KeygenArgs, output::Output};
use crate::keystore::{self, PassphraseSource, Protection};
use serde_json::json;
use std::path::PathBuf;

pub(super) fn keygen(args: KeygenArgs, out: Output) -> Result<(), Failure> {
    let default = if args.wallet {
        "wallet.key"
    } else {
        "nectar.key"
    };
    let path = args.out.unwrap_or_else(|| PathBuf::from(default));
    // Before a passphrase is asked for in vain.
    if path.symlink_metadata().is_ok() {
        return Err(keystore::KeyError::Exists(path).into());
    }
    let source = if args.wallet {
        PassphraseSource::wallet()
    } else {
        PassphraseSource::networking()
    };
    let protection = if args.unencrypted {
        Protection::FileMode
    } else {
        Protection::Sealed(source.choose(&path)?)
    };
    let file = path.display().to_string();
    let sealed = !args.unencrypted;
    if args.wallet {
        let address = keystore::create_wallet(&path, &protection)?
            .address()
            .to_string();
        out.result(
            format_args!("wallet {address} in {file}"),
            &json!({ "kind": "wallet", "address": address, "file": file, "sealed": sealed }),
        );
    } else {
        let key = hex::encode(
            keystore::create_networking(&path, &protection)?
                .verifying_key()
                .as_bytes(),
        );
        out.result(
            format_args!("networking key {key} in {file}"),
            &json!({ "kind": "networking", "public_key": key, "file": file, "sealed": sealed }),
        );
    }
    Ok(())
}
