#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use crate::{
    cli::{failure, json, nectar, nectar_with, pinned},
    support::{Anvil, KEYS, deploy, guarded},
};
use serde_json::Value;

#[test]
fn mistakes_on_the_command_line_are_answered_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    std::fs::write(dir.join("named.toml"), pinned(&"d7".repeat(32).into())).unwrap();
    std::fs::write(dir.join("bad.toml"), "[listen]\nprot = 1\n").unwrap();
    std::fs::write(dir.join("port.toml"), "[listen]\nport = 99999\n").unwrap();
    let tls = "[listen]\ntls_cert = \"none.pem\"\ntls_key = \"none.pem\"\n";
    std::fs::write(dir.join("tls.toml"), tls).unwrap();
    let registry = [
        "--contract",
        "0x5FbDB2315678afecb367f032d93F642f64180aa3",
        "--chain-id",
        "31337",
        "--rpc",
        "http://127.0.0.1:1",
    ];
    std::fs::write(dir.join("torn.toml"), "[node]\nname = \"alice.nectar\n").unwrap();
    let cases: [(&[&str], i32, &str); 19] = [
        (
            &["--config", "torn.toml", "run", "--check"],
            2,
            "torn.toml:2:",
        ),
        (
            &["resolv", "a.nectar"],
            2,
            "similar subcommand exists: 'resolve'",
        ),
        (&["resolve", "alice.nectar", "--jsn"], 2, "'--json'"),
        (&["resolve"], 2, "<NAME>"),
        (
            &["resolve", "alice.nectar"],
            2,
            "add a [[registry]] to nectar.toml",
        ),
        (
            &["resolve", "alice.nectar", "--rpc", "ftp://x"],
            2,
            "not an http or https URL",
        ),
        (
            &[
                "resolve",
                "alice.nectar",
                "--contract",
                "0x12",
                "--chain-id",
                "1",
            ],
            2,
            "0x and 40 hex digits",
        ),
        (
            &["resolve", "alice.nectar", "--chain-id", "1"],
            2,
            "--contract",
        ),
        (&["run", "--check", "--port", "http"], 2, "--port: \"http\""),
        (
            &["--config", "port.toml", "run", "--check"],
            2,
            "expected a port, which is a number from 0 to 65535",
        ),
        (
            &["--config", "tls.toml", "run", "--check"],
            2,
            "none.pem: it cannot be read: No such file or directory (os error 2); correct listen.tls_cert",
        ),
        (
            &["demo"],
            2,
            "`cargo xtask demo`, in a clone of the sources, builds what they name",
        ),
        (
            &["--config", "named.toml", "ban", "add", "192.0.2.7/33"],
            2,
            "write 192.0.2.0/24",
        ),
        (
            &["--config", "bad.toml", "run", "--check"],
            2,
            "bad.toml:2: unknown field `prot`",
        ),
        (
            &["--config", "none.toml", "run", "--check"],
            2,
            "none.toml: cannot be read",
        ),
        (
            &["--set", "listen.port", "run", "--check"],
            2,
            "--set section.key=value",
        ),
        (
            &["--config", "named.toml", "run", "--check"],
            2,
            "there is no key file nectar.key: create one with `nectar keygen --out nectar.key`",
        ),
        (
            &["register", "alice.nectar", "--host", "192.0.2.1"],
            2,
            "--port",
        ),
        (
            &["register", "alice.nectar", "--host", "1", "--port", "1"],
            2,
            "does not end in a number",
        ),
    ];
    for (args, exit, says) in cases {
        let (found, text) = failure(&nectar(dir, args));
        assert_eq!(found, exit, "{args:?}: {text}");
        assert!(text.contains(says), "{args:?}: {text}");
    }
    for (name, says) in [
        ("al.nectar", "at least 3"),
        ("Alice.nectar", "'A' is not allowed"),
        ("alice", "with its ending"),
        ("a.eth", "names that end in .eth"),
    ] {
        let args = [&["resolve", name, "--json"], &registry[..]].concat();
        let (exit, text) = failure(&nectar(dir, &args));
        let error: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((exit, &error["error"]["exit"]), (2, &2.into()));
        assert!(
            error["error"]["message"].as_str().unwrap().contains(says),
            "{text}"
        );
    }
    let (exit, text) = failure(&nectar(
        dir,
        &[&["resolve", "alice.nectar"], &registry[..]].concat(),
    ));
    assert!(
        exit == 1 && text.contains("127.0.0.1:1: no connection; check that it runs"),
        "{exit} {text}"
    );
    let (exit, text) = failure(&nectar(dir, &["status", "--port", "1"]));
    assert!(exit == 1 && text.contains("is it running"), "{exit} {text}");
}

#[test]
fn an_endpoint_that_cannot_be_used_is_named_with_what_it_said() {
    let dir = tempfile::tempdir().unwrap();
    let page = web_page();
    let contract = "0x5FbDB2315678afecb367f032d93F642f64180aa3";
    let says = |args: &[&str], rpc: &str| {
        let registry = ["--contract", contract, "--chain-id", "31337", "--rpc", rpc];
        let (exit, text) = failure(&nectar(dir.path(), &[args, &registry].concat()));
        assert_eq!(exit, 1, "{text}");
        text
    };
    for args in [
        &["resolve", "alice.nectar"][..],
        &["ping", "--guest", "alice.nectar"],
        &["request", "--guest", "alice.nectar", "echo.1"],
    ] {
        let text = says(args, &format!("http://{page}"));
        let said = format!("{page}: HTTP 405");
        assert_eq!(text.matches(&said).count(), 1, "{args:?}: {text}");
        assert!(text.contains("rpcs (--rpc) is right"), "{args:?}: {text}");
        let text = says(args, "http://127.0.0.1:1");
        assert!(
            text.contains("127.0.0.1:1: no connection"),
            "{args:?}: {text}"
        );
    }
}

/// A server that refuses whatever is posted, as those of pages do.
fn web_page() -> std::net::SocketAddr {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.read(&mut [0; 4096]);
            let refusal =
                "HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            let _ = stream.write_all(refusal.as_bytes());
        }
    });
    address
}

#[test]
fn a_name_is_told_what_is_wrong_with_it_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let registry = "[[registry]]\ntld = \"nectar\"\nchain_id = 1\n\
                    contract = \"0x5FbDB2315678afecb367f032d93F642f64180aa3\"\n";
    for (name, problem, remedy) in [
        ("X.nectar", "at least 3", "remedy: choose 3 to 63"),
        ("a.eth", "end in .eth", "remedy: add a [[registry]]"),
        ("alice", "alice.nectar", "remedy: write it as \"label.tld\""),
    ] {
        let text = format!("[node]\nname = \"{name}\"\n{registry}");
        std::fs::write(dir.path().join("nectar.toml"), text).unwrap();
        let (exit, text) = failure(&nectar(dir.path(), &["run", "--check"]));
        assert!(
            exit == 2 && text.contains(problem) && text.contains(remedy),
            "{name}: {text}"
        );
    }
}

#[test]
fn a_filter_of_the_log_that_makes_no_sense_is_told_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let check = |filter| nectar_with(dir.path(), &["run", "--check"], &[("NECTAR_LOG", filter)]);
    let said = |filter| String::from_utf8(check(filter).stderr).unwrap();
    assert!(said("foo=bar").contains("NECTAR_LOG=foo=bar is ignored: write a level"));
    for right in ["debug", "", "info,node_native::http=debug"] {
        assert!(!said(right).contains("NECTAR_LOG"), "{right}");
    }
}

#[test]
fn a_format_of_the_log_that_makes_no_sense_is_told_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let check = |format| {
        nectar_with(
            dir.path(),
            &["run", "--check"],
            &[("NECTAR_LOG_FORMAT", format)],
        )
    };
    let said = |format| String::from_utf8(check(format).stderr).unwrap();
    assert!(said("xml").contains("NECTAR_LOG_FORMAT=xml is ignored: write text or json"));
    for right in ["text", "json", ""] {
        assert!(!said(right).contains("NECTAR_LOG_FORMAT"), "{right}");
    }
}

#[cfg(unix)]
#[test]
fn a_key_that_others_can_read_is_refused_with_the_remedy() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    json(&nectar(dir.path(), &["keygen", "--json", "--unencrypted"]));
    std::fs::write(
        dir.path().join("nectar.toml"),
        pinned(&"d7".repeat(32).into()),
    )
    .unwrap();
    std::fs::set_permissions(
        dir.path().join("nectar.key"),
        std::fs::Permissions::from_mode(0o644),
    )
    .unwrap();
    let (exit, text) = failure(&nectar(dir.path(), &["run", "--check"]));
    assert!(
        exit == 2 && text.contains("chmod 600 nectar.key"),
        "{exit} {text}"
    );
}

#[cfg(unix)]
#[test]
fn a_credential_of_a_service_may_show_rights_of_a_group_and_no_other_file_may() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let credentials = dir.path().join("credentials");
    let passphrase = credentials.join("passphrase");
    std::fs::create_dir(&credentials).unwrap();
    guarded(&passphrase, "correct horse\n");
    let variables = [
        ("NECTAR_PASSPHRASE_FILE", passphrase.to_str().unwrap()),
        ("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap()),
    ];
    let made = json(&nectar_with(dir.path(), &["keygen", "--json"], &variables));
    assert_eq!(made["sealed"], true);
    std::fs::write(dir.path().join("nectar.toml"), pinned(&made["public_key"])).unwrap();
    let check = |mode: u32, variables: &[(&str, &str)]| {
        std::fs::set_permissions(&passphrase, std::fs::Permissions::from_mode(mode)).unwrap();
        nectar_with(dir.path(), &["run", "--check", "--json"], variables)
    };
    assert_eq!(json(&check(0o440, &variables))["problems"], 0);
    for (mode, variables) in [
        (0o440, &variables[..1]),
        (0o444, &variables[..]),
        (0o460, &variables[..]),
    ] {
        let (exit, text) = failure(&check(mode, variables));
        assert!(exit == 2 && text.contains("chmod 600"), "{exit} {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_chain_and_what_is_no_registry_are_told_apart_with_what_to_do() {
    let anvil = Anvil::start();
    let registry = deploy(&anvil, 0).await;
    let dir = tempfile::tempdir().unwrap();
    guarded(&dir.path().join("wallet"), KEYS[0]);
    json(&nectar(dir.path(), &["keygen", "--json", "--unencrypted"]));
    let contract = format!("0x{}", hex::encode(registry.id.contract));
    // The contract that deterministic deployments use; anvil has it from the start.
    let other = "0x4e59b44847b379578588920ca78fbf26c0b4956c";
    let nobody = format!("0x{}", "11".repeat(20));
    for (contract, chain, expected) in [
        (
            &*contract,
            "1",
            [
                (2, "serves chain 31337, not 1: correct chain_id"),
                (2, "correct chain_id"),
            ],
        ),
        (
            other,
            "31337",
            [
                (1, "(--contract) is not a nectar registry"),
                (2, "is not a nectar registry"),
            ],
        ),
        (
            &*nobody,
            "31337",
            [
                (2, "correct contract (--contract)"),
                (2, "there is no contract at"),
            ],
        ),
    ] {
        for (command, (exit, says)) in ["resolve", "register"].into_iter().zip(expected) {
            let (found, text) = failure(&nectar_with(
                dir.path(),
                &[
                    command,
                    "alice.nectar",
                    "--contract",
                    contract,
                    "--chain-id",
                    chain,
                    "--rpc",
                    &anvil.url,
                ],
                &[("NECTAR_WALLET_KEY_FILE", "wallet")],
            ));
            assert!(
                found == exit && text.contains(says),
                "{command}: {found} {text}"
            );
        }
    }
}
