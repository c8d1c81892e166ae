#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use super::*;
use std::fs;

const PASSPHRASE: &str = "correct horse battery";

fn sealed() -> Protection {
    Protection::Sealed(Passphrase::new(PASSPHRASE).unwrap())
}

fn given(text: &str) -> PassphraseSource {
    PassphraseSource::Given(Passphrase::new(text).unwrap())
}

fn rewrite(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    assert!(text.contains(from), "{from} is not in {text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_sealed_key_opens_with_its_passphrase_and_with_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.key");
    let key = create_networking(&path, &sealed()).unwrap();
    assert!(
        !fs::read_to_string(&path)
            .unwrap()
            .contains(&hex::encode(key.to_bytes()))
    );
    assert_eq!(
        load_networking(&path, &given(PASSPHRASE))
            .unwrap()
            .to_bytes(),
        key.to_bytes()
    );
    let error = load_networking(&path, &given("wrong horse battery")).unwrap_err();
    assert!(matches!(error, KeyError::WrongPassphrase(_)), "{error}");
    assert!(error.to_string().contains("does not open"));
}

#[test]
fn another_public_key_or_kind_or_cost_in_front_of_a_sealed_secret_does_not_open() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.key");
    let key = create_networking(&path, &sealed()).unwrap();
    let public = hex::encode(key.verifying_key().as_bytes());
    for (from, to) in [
        (public.as_str(), "00".repeat(32).as_str()),
        ("\"passes\": 3", "\"passes\": 1"),
        ("\"memory_kib\": 65536", "\"memory_kib\": 64"),
    ] {
        rewrite(&path, from, to);
        let error = load_networking(&path, &given(PASSPHRASE)).unwrap_err();
        assert!(
            matches!(error, KeyError::WrongPassphrase(_)),
            "{from}: {error}"
        );
        rewrite(&path, to, from);
    }
    assert!(load_networking(&path, &given(PASSPHRASE)).is_ok());
}

#[test]
fn a_file_cannot_ask_for_unbounded_memory_or_time() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.key");
    create_networking(&path, &sealed()).unwrap();
    rewrite(&path, "\"memory_kib\": 65536", "\"memory_kib\": 4294967295");
    let error = load_networking(&path, &given(PASSPHRASE)).unwrap_err();
    assert!(error.to_string().contains("more memory or time"), "{error}");
}

#[test]
fn an_unencrypted_key_round_trips_and_is_written_for_the_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.key");
    let key = create_networking(&path, &Protection::FileMode).unwrap();
    assert_eq!(
        load_networking(&path, &PassphraseSource::networking())
            .unwrap()
            .to_bytes(),
        key.to_bytes()
    );
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }
    assert_eq!(
        fs::read_dir(dir.path()).unwrap().count(),
        1,
        "no temporary file stays"
    );
}

#[cfg(unix)]
#[test]
fn a_key_that_others_may_read_is_refused_with_the_remedy() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.key");
    create_networking(&path, &Protection::FileMode).unwrap();
    for mode in [0o644, 0o640, 0o604, 0o620] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let error = load_networking(&path, &PassphraseSource::networking())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&format!("chmod 600 {}", path.display())),
            "{error}"
        );
    }
}

#[test]
fn an_existing_file_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.key");
    fs::write(&path, "precious").unwrap();
    let error = create_networking(&path, &Protection::FileMode).unwrap_err();
    assert!(matches!(error, KeyError::Exists(_)), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn wallets_come_from_key_files_and_from_bare_hex() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet.key");
    let wallet = create_wallet(&path, &sealed()).unwrap();
    assert_eq!(
        load_wallet(&path, &given(PASSPHRASE)).unwrap().address(),
        wallet.address()
    );

    let bare = dir.path().join("bare.key");
    file::create(
        &bare,
        "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80\n",
    )
    .unwrap();
    let bare = load_wallet(&bare, &given(PASSPHRASE)).unwrap();
    assert_eq!(
        bare.address().to_string(),
        "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266"
    );
}

#[test]
fn a_wallet_is_not_taken_for_a_networking_key() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallet.key");
    create_wallet(&path, &Protection::FileMode).unwrap();
    let error = load_networking(&path, &PassphraseSource::networking())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("holds a wallet key, but a networking key is needed"),
        "{error}"
    );
}

#[test]
fn what_is_not_a_key_file_is_refused_without_quoting_it() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("empty", ""),
        ("text", "hunter2hunter2"),
        (
            "number",
            r#"{"nectar_key": 7, "kind": "networking", "public": "", "seal": null, "secret": "hunter2"}"#,
        ),
        (
            "nothex",
            r#"{"nectar_key": 1, "kind": "networking", "public": "", "seal": null, "secret": "hunter2"}"#,
        ),
        (
            "short",
            r#"{"nectar_key": 1, "kind": "networking", "public": "", "seal": null, "secret": "00"}"#,
        ),
        (
            "kind",
            r#"{"nectar_key": 1, "kind": "hunter2", "public": "", "seal": null, "secret": "00"}"#,
        ),
    ] {
        let path = dir.path().join(name);
        file::create(&path, text).unwrap();
        let error = load_networking(&path, &PassphraseSource::networking()).unwrap_err();
        assert!(
            matches!(error, KeyError::Malformed { .. }),
            "{name}: {error}"
        );
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    let error =
        load_networking(&dir.path().join("absent"), &PassphraseSource::networking()).unwrap_err();
    assert!(error.to_string().contains("nectar keygen --out"), "{error}");
}

#[test]
fn a_secret_that_does_not_belong_to_its_public_key_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("node.key");
    let key = create_networking(&path, &Protection::FileMode).unwrap();
    rewrite(&path, &hex::encode(key.to_bytes()), &"11".repeat(32));
    let error = load_networking(&path, &PassphraseSource::networking())
        .unwrap_err()
        .to_string();
    assert!(error.contains("does not belong"), "{error}");
}

#[test]
fn short_passphrases_are_refused_and_none_is_printed() {
    assert!(matches!(
        Passphrase::new("short"),
        Err(KeyError::BadPassphrase(_))
    ));
    assert!(!format!("{:?}", sealed()).contains("horse"));
}
