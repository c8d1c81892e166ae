//! `nectar run`, `request`, `send` and `ping`, as processes.

use crate::{
    home::{Home, Running, write_key},
    sockets::Sockets,
    support::{Network, PATIENCE, key_of},
};
use nectar_sim::{
    World,
    world::{Place, Plan},
};
use serde_json::Value;
use std::{
    fs::File,
    time::{Duration, Instant},
};

#[test]
fn nodes_that_run_answer_the_commands_of_others() {
    let network = Network::default()
        .direct("rho")
        .indirect("bob", &["rho"])
        .indirect("alice", &["rho"]);
    let [rho, bob, alice] = ["rho", "bob", "alice"].map(|label| Home::new(&network, label));
    let address = network.address("rho");
    let router = rho.run(Some(address), &["--echo"]);
    assert_eq!(router.said["name"], "rho.nectar");
    assert_eq!(router.said["listen"], address.to_string());
    let running = bob.run(None, &["--echo"]);
    assert_eq!(running.said["listen"], Value::Null);

    let answer = alice.json(&["request", "rho.nectar", "echo.1", "direct"]);
    assert_eq!(
        answer,
        serde_json::json!({ "answer": "success", "data": "direct" })
    );
    // Bob may still be on his way to the router.
    let begun = Instant::now();
    let answer = loop {
        let output = alice.output(&["request", "bob.nectar", "echo.1", "routed"]);
        if output.status.success() {
            break output.stdout;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    assert_eq!(answer, b"routed\n");

    let chat = r#"{"id":"1","text":"hello","at":1}"#;
    let sent = alice.json(&["send", "bob.nectar", "chat.1", chat]);
    assert_eq!(sent["delivered"], true);
    let (exit, text) = alice.failure(&["request", "bob.nectar", "nonsense.1"]);
    assert!(exit == 1 && text.contains("error 404"), "{exit} {text}");

    let ping = alice.json(&["ping", "bob.nectar", "--explain", "--count", "2"]);
    assert_eq!(ping["resolved"]["by"], "pinned");
    assert_eq!(ping["connected"]["route"], "via rho.nectar");
    assert_eq!(ping["round_trip_ms"].as_array().unwrap().len(), 2);
    let attempts = ping["attempts"].as_array().unwrap();
    assert!(
        attempts
            .iter()
            .any(|attempt| attempt["route"] == "via rho.nectar" && attempt["error"].is_null()),
        "{ping}"
    );

    let (exit, text) = bob.failure(&["request", "rho.nectar", "echo.1", "?"]);
    assert!(
        exit == 1 && text.contains("in use by a running node") && text.contains("--guest"),
        "{exit} {text}"
    );
    #[cfg(unix)]
    assert!(running.terminate().success());
}

#[test]
fn a_peer_that_is_not_there_is_explained() {
    let network = Network::default().direct("alice").direct("bob");
    let alice = Home::new(&network, "alice");
    let (exit, text) = alice.failure(&["ping", "bob.nectar", "--explain"]);
    assert_eq!(exit, 1, "{text}");
    for part in ["resolved", "pinned", "route", "direct", "cannot be reached"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let (exit, text) = alice.failure(&["request", "bob.elsewhere", "echo.1"]);
    assert!(exit == 2 && text.contains("elsewhere"), "{exit} {text}");
}

#[test]
fn what_is_wrong_with_ones_own_name_is_not_said_of_the_peers() {
    let network = Network::default().direct("alice").direct("bob");
    let [alice, bob] = ["alice", "bob"].map(|label| Home::new(&network, label));
    let _running = bob.run(Some(network.address("bob")), &["--echo"]);
    write_key(&alice.path().join("nectar.key"), "mallory");
    for args in [
        &["ping", "bob.nectar"][..],
        &["request", "bob.nectar", "echo.1"],
        &["send", "bob.nectar", "chat.1"],
    ] {
        let (exit, text) = alice.failure(args);
        assert!(
            exit == 1
                && text.contains("alice.nectar, your own name")
                && text.contains("nectar record rotate alice.nectar"),
            "{exit} {text}"
        );
    }
    let elsewhere = format!("0x{}", "11".repeat(20));
    let registry = ["--contract", &elsewhere, "--chain-id", "31337"];
    let (exit, text) = alice.failure(&[&["ping", "bob.nectar"][..], &registry].concat());
    assert!(exit == 2 && text.contains("--guest"), "{exit} {text}");
}

#[test]
fn a_port_that_is_occupied_is_named_with_what_to_do() {
    let network = Network::default().direct("alice");
    let alice = Home::new(&network, "alice");
    let address = network.address("alice");
    let _other = std::net::TcpListener::bind(address).unwrap();
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let (exit, text) = alice.failure(&["run", "--address", &host, "--port", &port]);
    assert!(
        exit == 1 && text.contains(&address.to_string()) && text.contains("--port"),
        "{exit} {text}"
    );
}

#[test]
fn a_private_address_is_refused_with_the_flag_that_allows_it() {
    let network = Network::default().direct("alice").direct("bob");
    let alice = Home::new(&network, "alice");
    let (exit, text) = alice.failure(&[
        "--set",
        "node.allow_private=false",
        "request",
        "bob.nectar",
        "echo.1",
    ]);
    assert!(
        exit == 1 && text.contains("--allow-private"),
        "{exit} {text}"
    );
    let (exit, text) = alice.failure(&["request", "bob.nectar", "echo.1"]);
    assert!(
        exit == 1 && !text.contains("--allow-private") && text.contains("does not accept"),
        "{exit} {text}"
    );
}

#[test]
fn a_router_that_does_not_host_a_name_is_told_with_what_its_owner_can_do() {
    let network = Network::default()
        .direct("rho")
        .indirect("alice", &["rho"])
        .indirect("bob", &["rho"]);
    let [rho, alice, bob] = ["rho", "alice", "bob"].map(|label| Home::new(&network, label));
    let router = ["--set", "router.host=[\"alice.nectar\"]"];
    let _router = rho.run(Some(network.address("rho")), &router);
    let _running = bob.run(None, &["--echo"]);
    // Bob may still be on his way to the router.
    let begun = Instant::now();
    let (exit, text) = loop {
        let (exit, text) = alice.failure(&["request", "bob.nectar", "echo.1"]);
        if !text.contains("is not connected to this router") {
            break (exit, text);
        }
        assert!(begun.elapsed() < PATIENCE, "{text}");
    };
    assert!(
        exit == 1
            && text.contains("this router does not host that name")
            && text.contains("router.host")
            && text.contains("nectar record update bob.nectar --router"),
        "{exit} {text}"
    );
}

#[test]
fn a_node_whose_key_was_rotated_onchain_blames_itself_and_not_its_router() {
    let mut world = Sockets::new();
    world.register(&["rho"], Place::Direct);
    world.register(&["alice"], Place::Behind(&["rho"]));
    world.start(Plan::router("rho").on_chain().with(|config| {
        config.resolver.watch_interval = Duration::from_millis(500);
        config.resolver.fresh_for = Duration::from_secs(2);
    }));
    let alice = Home::on_chain("alice", world.rpc());
    let log = alice.path().join("log");
    let mut command = alice.run_command(None, &[]);
    command.stderr(File::create(&log).unwrap());
    let _running = Running::begin(command);
    let logged = |world: &mut Sockets, wanted: &str| {
        let said = || std::fs::read_to_string(&log).unwrap();
        let there = world.wait(PATIENCE, |_| said().contains(wanted));
        assert!(there, "{wanted:?} is not in the log: {}", said());
        said()
    };
    logged(&mut world, "rho.nectar is online");
    world.change("alice", |record| {
        record.key = key_of("alice2").verifying_key().to_bytes();
    });
    let text = logged(
        &mut world,
        "rho.nectar refuses this node: this node's own key is not, or no longer",
    );
    assert!(text.contains("nectar record rotate alice.nectar"), "{text}");
    assert!(!text.contains("the router rho.nectar is offline"), "{text}");
}
