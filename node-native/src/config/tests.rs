#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use super::*;
use layers::known;

const EXAMPLE: &str = include_str!("../../nectar.example.toml");
const REGISTRY: &str = "[[registry]]\ntld = \"nectar\"\nchain_id = 31337\n\
                        contract = \"0x5FbDB2315678afecb367f032d93F642f64180aa3\"\nrpcs = [\"http://127.0.0.1:8545\"]\n";

/// Loads `text` as `nectar.toml`, with variables and flags over it.
fn load(text: &str, variables: &[(&str, &str)], flags: &[(&str, &str)]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nectar.toml");
    std::fs::write(&path, text).unwrap();
    let sources = Sources {
        file: Some(path.clone()),
        environment: variables
            .iter()
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
        flags: flags
            .iter()
            .map(|(path, value)| Override {
                place: format!("--{path}"),
                path: (*path).into(),
                value: (*value).into(),
            })
            .collect(),
    };
    let prefix = format!("{}/", dir.path().display());
    Config::load(&sources).map_err(|error| error.to_string().replace(&prefix, ""))
}

#[test]
fn the_example_is_valid_complete_and_tells_the_true_defaults() {
    let config = load(EXAMPLE, &[], &[]).unwrap();
    assert_eq!(config.limits, Limits::default());
    assert_eq!(
        config.router,
        RouterPolicy {
            host: Access::Anyone,
            call: Access::Anyone,
            guests: false
        }
    );
    assert_eq!(config.pinned.len(), 2);
    assert_eq!(config.faucet.unwrap().amount, 1_000_000_000_000_000_000);
    assert!(config.warnings.is_empty());
    let table: toml::Table = toml::from_str(EXAMPLE).unwrap();
    for path in known() {
        let (section, key) = path.split_once('.').unwrap();
        assert!(
            table[section].get(key).is_some(),
            "{path} is not in the example"
        );
    }
    let written = config.listen.unwrap();
    let default = load("[listen]", &[], &[]).unwrap().listen.unwrap();
    assert_eq!(written.address, default.address);
    assert_eq!(
        (written.origins, written.page_connect),
        (default.origins, default.page_connect)
    );
    assert_eq!(
        (
            written.connections,
            written.connections_per_address,
            written.header_timeout,
            written.header_bytes
        ),
        (
            default.connections,
            default.connections_per_address,
            default.header_timeout,
            default.header_bytes
        )
    );
}

#[test]
fn every_mistake_in_the_file_is_told_with_its_line_and_a_remedy() {
    let cases = [
        (
            "[node]\nnmae = \"a\"",
            "nectar.toml:2: unknown field `nmae`",
            "did you mean `name`?",
        ),
        (
            "[nodes]",
            "nectar.toml:1: unknown field `nodes`",
            "did you mean `node`?",
        ),
        (
            "[node]\nzebra = 1",
            "nectar.toml:2: unknown field `zebra`",
            "known here are name",
        ),
        (
            "[listen]\nport = 70000",
            "nectar.toml:2: invalid value: integer `70000`, expected a port, which is a number from 0 to 65535",
            "in that form",
        ),
        (
            "[listen]\n\nport = \"x\"",
            "nectar.toml:3: invalid type: string \"x\", expected a port",
            "in that form",
        ),
        (
            "[node]\nguests = 1",
            "expected true or false",
            "in that form",
        ),
        (
            "[listen]\nconnections = -1",
            "expected a whole number that is not negative",
            "in that form",
        ),
        ("[listen]\nport = ", "nectar.toml:2:", "nectar.example.toml"),
        (
            "[listen]\nport = 1\nport = 2",
            "nectar.toml:3: duplicate key",
            "keep one",
        ),
        (
            "[listen]\ntls_cert = \"a\"",
            "nectar.toml:2: a certificate without its key",
            "listen.tls_key",
        ),
        (
            "[listen]\norigins = \"some\"",
            "nectar.toml:2: \"some\" is neither",
            "[\"https://app.example\"]",
        ),
        (
            "[listen]\norigins = [\"https://A.example/\"]",
            "nectar.toml:2:",
            "write \"https://a.example\"",
        ),
        (
            "[listen]\npublic_host = \"http://x\"",
            "nectar.toml:2: ':' is not allowed",
            "without scheme",
        ),
        (
            "[listen]\nconnections = 0",
            "nectar.toml:2: with 0 connections",
            "at least 1",
        ),
        (
            "[listen]\nheader_bytes = \"1 GiB\"",
            "nectar.toml:2: out of range",
            "between",
        ),
        (
            "[limits]\nkeepalive = 15",
            "nectar.toml:2: invalid type: integer `15`, expected a time",
            "in that form",
        ),
        (
            "[limits]\nkeepalive = \"15\"",
            "nectar.toml:2: a time is a whole number with a unit",
            "example",
        ),
        (
            "[limits]\ninbox_bytes = \"1 MB\"",
            "nectar.toml:2: a size is a whole number with a unit",
            "example",
        ),
        (
            "[limits]\nkeepalive_misses = 5000000000",
            "nectar.toml:2: limits.keepalive_misses is out",
            "smaller",
        ),
        (
            "[[registry]]\ntld = \"nectar\"",
            "nectar.toml:1: missing field `chain_id`",
            "add `chain_id = …`",
        ),
        (
            "[node]\nname = \"alice\"",
            "nectar.toml:2: \"alice\": a name is written with its ending",
            "label.tld",
        ),
        (
            "[node]\nname = \"alice.eth\"",
            "nectar.toml:2: \"alice.eth\": no registry is configured",
            "[[registry]]",
        ),
    ];
    for (text, problem, remedy) in cases {
        let error = load(text, &[], &[]).unwrap_err();
        assert!(
            error.contains(problem),
            "{text:?} gave\n{error}\ninstead of {problem}"
        );
        assert!(
            error.split_once("remedy: ").unwrap().1.contains(remedy),
            "{text:?} gave\n{error}\nwithout {remedy}"
        );
    }
}

#[test]
fn every_mistake_about_registries_and_names_is_told_with_its_line() {
    let pin = |rest: &str| {
        format!(
            "{REGISTRY}[[pin]]\nname = \"bob.nectar\"\nkey = \"{}\"\n{rest}",
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        )
    };
    let registry = |from: &str, to: &str| REGISTRY.replace(from, to);
    let cases = [
        (
            registry("\"nectar\"", "\".nectar\""),
            "nectar.toml:2: \".nectar\" is not an ending",
        ),
        (registry("0x5F", "5F"), "nectar.toml:4:"),
        (registry("http://", ""), "nectar.toml:5:"),
        (
            format!("{REGISTRY}quorum = 2"),
            "nectar.toml:6: 2 of 1 RPC endpoints cannot agree",
        ),
        (
            format!("{REGISTRY}{REGISTRY}"),
            "nectar.toml:7: .nectar is configured twice",
        ),
        (
            format!("{REGISTRY}{}", registry("\"nectar\"", "\"other\"")),
            "nectar.toml:9: this registry is configured twice",
        ),
        (
            format!("{REGISTRY}[node]\nname = \"Al.nectar\""),
            "nectar.toml:7: \"Al.nectar\": a name needs at least 3",
        ),
        (
            format!("{REGISTRY}[node]\nname = \"al--ice.nectar\""),
            "no two hyphens",
        ),
        (
            format!("{REGISTRY}[router]\nhost = \"all\""),
            "nectar.toml:7: \"all\" is neither \"anyone\" nor a list",
        ),
        (
            format!("{REGISTRY}[router]\ncall = [\"bob.nectar\", \"x.nectar\"]"),
            "nectar.toml:7: \"x.nectar\"",
        ),
        (pin("host = \"192.0.2.1\""), "half an address"),
        (
            pin("host = \"192.0.2.1\"\nport = 1\nschemes = [\"http\"]"),
            "nectar.toml:11: \"http\" is not a scheme",
        ),
        (
            pin("host = \"192.0.2.1\"\nport = 1\nrouters = [\"carol.nectar\"]"),
            "a direct node lists no routers",
        ),
        (pin("").replace("d75a", "zz"), "nectar.toml:8:"),
        (
            pin("").replace(
                "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
                &"00".repeat(32),
            ),
            "no networking key",
        ),
        (
            format!(
                "{}[faucet]\ntld = \"nectar\"\nwallet_file = \"w\"",
                registry("31337", "1")
            ),
            "nectar.toml:7: chain 1 is no development chain",
        ),
        (
            format!("{REGISTRY}[faucet]\ntld = \"nectar\"\nwallet_file = \"w\"\namount = \"1\""),
            "nectar.toml:9: not an amount",
        ),
    ];
    for (text, problem) in cases {
        let error = load(&text, &[], &[]).unwrap_err();
        assert!(
            error.contains(problem),
            "{text}\ngave\n{error}\ninstead of {problem}"
        );
        assert!(error.contains("remedy: "), "{error}");
    }
}

#[test]
fn flags_win_over_variables_and_variables_over_the_file() {
    let text = "[listen]\nport = 1000\nconnections = 7";
    let config = load(text, &[("NECTAR_LISTEN_PORT", "2000")], &[]).unwrap();
    assert_eq!(config.listen.unwrap().address.port(), 2000);
    let config = load(
        text,
        &[("NECTAR_LISTEN_PORT", "2000")],
        &[("listen.port", "3000")],
    )
    .unwrap();
    let listen = config.listen.unwrap();
    assert_eq!((listen.address.port(), listen.connections), (3000, 7));
    let config = load(
        "",
        &[
            ("NECTAR_LIMITS_KEEPALIVE", "5s"),
            ("NECTAR_NODE_ALLOW_PRIVATE", "true"),
        ],
        &[],
    )
    .unwrap();
    assert_eq!(config.limits.keepalive, Duration::from_secs(5));
    assert!(config.node.allow_private);
    let names = [("NECTAR_ROUTER_HOST", "[\"bob.nectar\"]")];
    let config = load(&format!("{REGISTRY}[listen]"), &names, &[]).unwrap();
    assert_eq!(
        config.router.host,
        Access::Only([config.parse_name("bob.nectar").unwrap()].into())
    );
}

#[test]
fn a_bad_variable_or_flag_is_named_in_its_error() {
    let error = load("", &[("NECTAR_LISTEN_PORT", "http")], &[]).unwrap_err();
    assert!(error.starts_with("NECTAR_LISTEN_PORT: \"http\""), "{error}");
    let error = load("", &[("NECTAR_NODE_NAME", "alice.eth")], &[]).unwrap_err();
    assert!(error.starts_with("NECTAR_NODE_NAME: "), "{error}");
    let error = load("", &[], &[("listen.prot", "1")]).unwrap_err();
    assert!(
        error.contains("there is no setting listen.prot")
            && error.contains("did you mean listen.port?"),
        "{error}"
    );
}

#[test]
fn an_unknown_variable_is_a_warning_and_a_secret_is_none() {
    let variables = [
        ("NECTAR_LISTEN_PROT", "1"),
        ("NECTAR_WALLET_KEY", "ff"),
        ("PATH", "/bin"),
    ];
    let config = load("", &variables, &[]).unwrap();
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
    assert!(
        config.warnings[0].contains("did you mean NECTAR_LISTEN_PORT?"),
        "{:?}",
        config.warnings
    );
}

#[test]
fn paths_start_where_their_setting_stands() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("nectar.toml");
    std::fs::write(
        &path,
        "[node]\nkey_file = \"a.key\"\n[listen]\npage = \"www\"",
    )
    .unwrap();
    let environment = vec![("NECTAR_LISTEN_PAGE".into(), "elsewhere".into())];
    let config = Config::load(&Sources {
        file: Some(path),
        environment,
        flags: Vec::new(),
    })
    .unwrap();
    assert_eq!(config.node.key_file, dir.path().join("a.key"));
    assert_eq!(config.listen.unwrap().page.unwrap(), Path::new("elsewhere"));
}

#[test]
fn a_file_that_is_named_must_exist() {
    let sources = Sources {
        file: Some("/nonexistent/nectar.toml".into()),
        ..Sources::default()
    };
    let error = Config::load(&sources).unwrap_err().to_string();
    assert!(
        error.starts_with("/nonexistent/nectar.toml: cannot be read"),
        "{error}"
    );
}

#[test]
fn pages_and_the_core_are_told_what_the_file_says() {
    let config = load(EXAMPLE, &[], &[]).unwrap();
    let offered = crate::http::PublicRouter {
        name: "alice.nectar".into(),
        url: "ws://127.0.0.1:9000".into(),
        index: 1,
    };
    let document = crate::http::WellKnown::of(&config, vec![offered]);
    let shown = serde_json::to_value(&document).unwrap();
    assert_eq!(shown["registries"][0]["chainId"], 31337);
    assert_eq!(shown["routers"][0]["index"], 1);
    assert!(
        shown.get("faucet").is_none(),
        "what there is not, is not said"
    );
    assert_eq!(shown["echo"], "carol.nectar");
    assert_eq!(
        config.offer.routers,
        [config.parse_name("bob.nectar").unwrap()]
    );
    assert_eq!(document.node.as_deref(), Some("alice.nectar"));
    let registry = &document.registries[0];
    assert_eq!(
        registry.contract,
        "0x5fbdb2315678afecb367f032d93f642f64180aa3"
    );
    assert_eq!(
        (registry.chain_id, registry.quorum, registry.rpcs.len()),
        (31337, 1, 1)
    );
    let identity = Identity {
        name: config.node.name.clone(),
        key: [7; 32],
    };
    let core = config.node_config(identity);
    assert!(core.direct && core.router.host == Access::Anyone && core.pinned.len() == 2);

    let indirect = load(REGISTRY, &[], &[]).unwrap();
    let core = indirect.node_config(Identity {
        name: None,
        key: [7; 32],
    });
    assert!(
        !core.direct && core.router == RouterPolicy::default(),
        "who does not listen routes for nobody"
    );
}
