//! What a running node tells whoever runs it.

use crate::{
    home::{Home, Running},
    support::{Network, PATIENCE, direct_at, echo, name, ok, soon},
};
use node_native::node::{Code, Node, Request, Response};
use serde_json::json;
use std::{
    fs::File,
    net::SocketAddr,
    time::{Duration, Instant},
};

/// A node whose log is kept.
fn run(home: &Home, address: Option<SocketAddr>, args: &[&str]) -> Running {
    let mut command = home.run_command(address, args);
    command.stderr(File::create(home.path().join("log")).unwrap());
    Running::begin(command)
}

/// The log, once `wanted` stands in it.
fn logged(home: &Home, wanted: &str) -> String {
    let begun = Instant::now();
    loop {
        let said = std::fs::read_to_string(home.path().join("log")).unwrap();
        if said.contains(wanted) {
            return said;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "{wanted:?} is not in the log: {said}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_ban_of_the_operators_is_told_as_such() {
    let network = Network::default().direct("bob");
    let bob = Home::new(&network, "bob");
    let _running = run(&bob, Some(network.address("bob")), &[]);
    bob.json(&["ban", "add", "203.0.113.0/24", "--for", "1h"]);
    logged(
        &bob,
        "203.0.113.0/24 is banned by the operator for 60 min\n",
    );
}

#[test]
fn a_node_whose_chain_cannot_be_read_names_the_endpoint_and_says_that_it_tries_again() {
    let alice = Home::on_chain("alice", "http://127.0.0.1:1");
    let _running = run(&alice, None, &[]);
    let said = logged(&alice, "this node's own name cannot be used");
    assert!(
        said.contains("127.0.0.1:1: no connection; check that it runs")
            && said.contains("trying again within a minute"),
        "{said}"
    );
}

#[test]
fn a_second_node_with_the_same_key_is_not_advised_of_a_flag_that_it_lacks() {
    let network = Network::default().direct("bob");
    let bob = Home::new(&network, "bob");
    let _running = run(&bob, Some(network.address("bob")), &[]);
    let (exit, text) = bob.failure(&["run"]);
    assert!(
        exit == 1 && text.contains("use another key (--key)") && !text.contains("--guest"),
        "{exit} {text}"
    );
}

#[test]
fn a_router_that_pages_cannot_be_offered_is_warned_of_where_a_page_is_served() {
    let alice = Home::on_chain("alice", "http://127.0.0.1:1");
    let page = alice.path().join("page");
    std::fs::create_dir(&page).unwrap();
    std::fs::write(page.join("index.html"), "<!doctype html>").unwrap();
    let page = format!("listen.page={}", page.display());
    let address = SocketAddr::from(([127, 0, 0, 1], 0));
    for (args, warned) in [(&[][..], false), (&["--set", &page], true)] {
        let running = run(&alice, Some(address), args);
        let said = logged(&alice, "this node's own name cannot be used");
        assert_eq!(
            said.contains("alice.nectar is not offered to pages"),
            warned,
            "{said}"
        );
        running.end();
    }
}

#[test]
fn a_status_is_told_in_words() {
    let network = Network::default().direct("bob");
    let bob = Home::new(&network, "bob");
    // It asks localhost, which is one address of many.
    let running = run(&bob, Some(SocketAddr::from(([127, 0, 0, 1], 0))), &[]);
    let listen: SocketAddr = running.said["listen"].as_str().unwrap().parse().unwrap();
    let output = bob.output(&["status", "--port", &listen.port().to_string()]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("name        bob.nectar\nsessions    0 connected, 0 parked\n"),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whom_a_node_refused_and_what_counts_against_whom_is_told_by_a_running_one() {
    let network = Network::default().direct("bob").direct("alice");
    let bob = Home::new(&network, "bob");
    let settings = ["limits.stranger_requests=1", "limits.message_bytes=64 KiB"];
    let settings = settings.map(|setting| format!("--set={setting}"));
    let here = SocketAddr::from(([127, 0, 0, 1], 0));
    let running = run(&bob, Some(here), &["--echo", &settings[0], &settings[1]]);
    let listen: SocketAddr = running.said["listen"].as_str().unwrap().parse().unwrap();
    let port = listen.port().to_string();
    let status = || bob.json(&["status", "--port", &port]);
    assert_eq!(status()["scores"], json!([]));

    let network = Network::default()
        .direct("alice")
        .known("bob", direct_at("bob", listen));
    let alice = Node::start(network.config("alice")).await.unwrap();
    assert_eq!(echo(&alice, "bob", b"one").await, ok(b"one"));
    let refused = echo(&alice, "bob", b"two").await.unwrap();
    let Response::Error { code, .. } = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(code, Code::RequestRate.as_u16());
    assert_eq!(status()["refused"]["request_rate"], json!(1));
    assert_eq!(
        status()["scores"],
        json!([]),
        "to ask too fast is no breach"
    );

    // A name that sends what is too large for bob, and says so in its own record.
    let large = Request::new("echo.1", vec![0; 128 << 10]);
    let failure = soon("the end", alice.request(&name("bob"), large)).await;
    failure.unwrap_err();
    let told = status();
    assert_eq!(told["scores"][0]["who"], json!("alice.nectar"));
    let points = told["scores"][0]["points"].as_u64().unwrap();
    assert!((30..=40).contains(&points), "{told}");
    let words = bob.output(&["status", "--port", &port]).stdout;
    let words = String::from_utf8(words).unwrap();
    assert!(words.contains("\nrefused     1 request_rate\n"), "{words}");
    assert!(words.contains("\nscore       alice.nectar: "), "{words}");
    let metrics = soon("metrics", crate::support::get(listen, "/metrics")).await;
    for wanted in [
        "\nnectar_refused_total{code=\"request_rate\"} 1\n",
        "\nnectar_scored 1\n",
    ] {
        assert!(metrics.contains(wanted), "{metrics}");
    }
    assert!(
        !metrics.contains("alice"),
        "no label that a peer chooses: {metrics}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_and_goes_all_the_time_does_not_fill_the_log_unless_all_of_it_is_wanted() {
    let network = Network::default().direct("bob").direct("alice");
    let bob = Home::new(&network, "bob");
    let said = || std::fs::read_to_string(bob.path().join("log")).unwrap();
    let come_and_go = async || {
        let alice = network.start("alice").await;
        assert_eq!(echo(&alice, "bob", b"?").await, ok(b"?"));
        alice.close().await;
    };
    let begun = Instant::now();
    let running = run(&bob, Some(network.address("bob")), &["--echo"]);
    let mut times = 0;
    while !said().contains(" more about other peers were not logged)") {
        assert!(begun.elapsed() < PATIENCE, "{}", said());
        come_and_go().await;
        times += 1;
    }
    let told = said().matches("alice.nectar is ").count();
    let most = 21 + usize::try_from(begun.elapsed().as_secs()).unwrap();
    assert!((20..=most).contains(&told), "{told}, {most}: {}", said());
    running.end();

    let mut command = bob.run_command(Some(network.address("bob")), &["--echo"]);
    command.env("NECTAR_LOG", "info,node_native::cli=debug");
    command.stderr(File::create(bob.path().join("log")).unwrap());
    let _running = Running::begin(command);
    for _ in 0..times {
        come_and_go().await;
    }
    crate::support::until("all is told", || {
        said().matches("alice.nectar is online").count() == times
    })
    .await;
    assert!(!said().contains("not logged"), "{}", said());
}
