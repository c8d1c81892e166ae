//! Bans of a running node, its file, and its operator.

use crate::{
    home::Home,
    support::{Network, echo, name, ok, soon},
};
use node_native::node::{Code, Node};
use serde_json::{Value, json};
use std::time::Duration;

fn banned(home: &Home) -> Value {
    let list = home.json(&["ban", "list"]);
    list.as_array()
        .unwrap()
        .iter()
        .map(|ban| ban["who"].clone())
        .collect()
}

/// Asks until the answer is what is waited for.
async fn until_refused(from: &Node, refused: bool) {
    soon("bob changes his mind", async {
        loop {
            match echo(from, "bob", b"?").await {
                Err(failure) if refused && failure.reason() == Code::Banned => return,
                answer if !refused && answer == ok(b"?") => return,
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bans_survive_a_restart_and_an_operator_adds_lists_and_lifts_them() {
    let network = Network::default().direct("bob").direct("mallory");
    let home = Home::new(&network, "bob");
    let run = || home.run(Some(network.address("bob")), &["--echo"]);
    assert_eq!(banned(&home), json!([]));
    let said = home.json(&["ban", "add", "mallory.nectar", "--for", "2h"]);
    assert_eq!(said["who"], json!("mallory.nectar"));

    let node = run();
    let mallory = network.start("mallory").await;
    let failure = echo(&mallory, "bob", b"?").await.unwrap_err();
    assert_eq!(failure.reason(), Code::Banned);
    node.end();
    let node = run();
    let failure = echo(&mallory, "bob", b"?").await.unwrap_err();
    assert_eq!(failure.reason(), Code::Banned, "after a restart");

    home.json(&["ban", "lift", "mallory.nectar"]);
    until_refused(&mallory, false).await;
    // A session that is up ends.
    home.json(&["ban", "add", "mallory.nectar"]);
    home.json(&["ban", "add", "203.0.113.77"]);
    until_refused(&mallory, true).await;
    assert_eq!(banned(&home), json!(["mallory.nectar", "203.0.113.0/24"]));
    node.end();
    assert_eq!(banned(&home).as_array().unwrap().len(), 2);
    let (code, _) = home.failure(&["ban", "lift", "alice.nectar"]);
    assert_eq!(code, 1, "who is not banned");
    let (code, text) = home.failure(&["ban", "add", "127.0.0.1"]);
    assert_eq!(code, 2);
    assert!(text.contains("proxy"), "{text}");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ban_that_a_peer_has_earned_outlives_the_process_that_is_killed_once_it_is_listed() {
    use crate::attacks::attacker::{Caller, somewhere};
    use node_core::wire::frame::Frame;

    let network = Network::default()
        .direct("bob")
        .direct("mallory")
        .direct("alice");
    let home = Home::new(&network, "bob");
    let bob = network.address("bob");
    let run = || home.run(Some(bob), &["--echo"]);
    let mallory = Caller::named("mallory");

    let node = run();
    let mut peer = mallory.enter(bob, somewhere(1), "bob").await.unwrap();
    // More than was ever sent: once is enough.
    peer.say(&[Frame::Ack(u64::MAX)]).await.unwrap();
    let said = peer.until(|_| None::<()>).await;
    assert_eq!(said, Err(Some(Code::FrameUnexpected)));
    let listed = soon("the ban is listed", async {
        loop {
            match home.json(&["ban", "list"]) {
                list if list == json!([]) => tokio::time::sleep(Duration::from_millis(20)).await,
                list => return list,
            }
        }
    })
    .await;
    assert_eq!(listed[0]["who"], json!("mallory.nectar"));
    node.end();

    let _node = run();
    for from in [1, 2] {
        let again = mallory.enter(bob, somewhere(from), "bob").await.map(drop);
        assert_eq!(again, Err(Some(Code::Banned)), "from wherever it comes");
    }
    assert_eq!(home.json(&["ban", "list"]), listed, "for as long as before");
    let alice = network.start("alice").await;
    assert_eq!(echo(&alice, "bob", b"?").await, ok(b"?"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_node_bans_is_on_disk_and_counted() {
    let network = Network::default().direct("bob").direct("mallory");
    let home = Home::new(&network, "bob");
    let file = node_native::bans::BanFile::new(
        &home.path().join("nectar.bans.json"),
        &[node_core::registry::RegistryConfig {
            id: nectar_sim::REGISTRY,
            tld: "nectar".into(),
            rpcs: Vec::new(),
            quorum: None,
        }],
    );
    let bob = Node::start(network.config("bob").bans(file.clone()))
        .await
        .unwrap();
    let ban = node_native::node::Ban {
        subject: node_native::node::Subject::Name(name("mallory")),
        until: node_core::Timestamp(u64::MAX),
        code: Some(Code::FrameMalformed),
    };
    bob.ban(ban.clone());
    crate::support::until("it is written", || {
        file.read().is_ok_and(|bans| bans == [ban.clone()])
    })
    .await;
    assert_eq!(bob.status()["banned"], json!(1));
    bob.close().await;
    // Another process knows it from its beginning.
    let bob = Node::start(network.config("bob").bans(file)).await.unwrap();
    assert_eq!(bob.bans(), [ban]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bans_beyond_what_the_node_keeps_stay_in_the_file_and_are_followed_once_there_is_room() {
    let network = Network::default().direct("bob");
    let home = Home::new(&network, "bob");
    let few = ["--set", "limits.standings=2"];
    let path = home.path().join("nectar.bans.json");
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let written = |names: &[&str]| {
        let bans = names.iter().zip(1..);
        let bans: Vec<_> = bans
            .map(
                |(who, hours)| json!({ "who": who, "until": now + hours * 3_600_000, "why": null }),
            )
            .collect();
        let beside = home.path().join("by.hand");
        std::fs::write(
            &beside,
            json!({ "nectar_bans": 1, "bans": bans }).to_string(),
        )
        .unwrap();
        std::fs::rename(beside, &path).unwrap();
    };
    let all = [
        "eve.nectar",
        "mallory.nectar",
        "mordred.nectar",
        "trudy.nectar",
    ];
    written(&all);
    let status = format!("http://{}/status", network.address("bob"));
    let banned_now = async || {
        let client = node_native::rpc::http_client().unwrap();
        let text = client.get(&status).send().await.unwrap().bytes().await;
        serde_json::from_slice::<Value>(&text.unwrap()).unwrap()["banned"].as_u64()
    };
    let node = home.run(Some(network.address("bob")), &few);
    assert_eq!(banned_now().await, Some(2));
    // The node has written its own, and looked more than once.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let mut listed: Vec<_> = serde_json::from_value::<Vec<String>>(banned(&home)).unwrap();
    listed.sort();
    assert_eq!(listed, all);
    assert_eq!(banned_now().await, Some(2));
    let (code, text) = home.failure(&[&few[..], &["ban", "add", "oscar.nectar"]].concat());
    assert_eq!(code, 1);
    assert!(text.contains("limits.standings"), "{text}");
    for who in &all[2..] {
        home.json(&[&few[..], &["ban", "lift", who]].concat());
    }
    soon("those that waited are followed", async {
        while banned_now().await != Some(2) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(banned(&home).as_array().unwrap().len(), 2);
    node.end();
}

#[test]
fn a_broken_file_of_bans_is_an_error_and_not_a_list_without_any() {
    let network = Network::default().direct("bob");
    let home = Home::new(&network, "bob");
    std::fs::write(home.path().join("nectar.bans.json"), "{\"nectar_bans\":1}").unwrap();
    for command in [
        &["run"][..],
        &["ban", "list"],
        &["ban", "add", "eve.nectar"],
    ] {
        let (code, text) = home.failure(command);
        assert_eq!(code, 2, "{command:?}");
        assert!(
            text.contains("nectar.bans.json is no list of bans"),
            "{text}"
        );
    }
}
