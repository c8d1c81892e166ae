//! What a router tells visitors about itself, and who can change that.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use crate::{
    cli::{json, nectar},
    posted,
    support::{Anvil, CHAIN_ID, deploy, wallet},
};
use node_core::{
    Label,
    registry::{Host, RegistryConfig, Routing},
};
use node_native::{
    chain::{Chain, ChainError, NewRecord},
    rpc,
};
use std::{
    process::{Command, Stdio},
    time::Duration,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

const HONEST: &str = "router.example";
/// As long as the other, so that it fits into the same answer.
const ELSEWHERE: &str = "beware.example";

/// How an endpoint answers.
#[derive(Clone, Copy)]
enum Answers {
    /// As the one behind it, but for the router's address.
    Falsely,
    /// Without end.
    AtLength,
}

/// An endpoint in front of an honest one.
async fn endpoint(behind: String, answers: Answers) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, behind.clone(), answers));
        }
    });
    url
}

async fn answer(stream: TcpStream, behind: String, answers: Answers) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let body = posted::body(&mut stream).await?;
        match answers {
            Answers::Falsely => {
                let client = rpc::http_client().unwrap();
                let body = String::from_utf8(body).unwrap();
                let within = Duration::from_secs(10);
                let honest = rpc::post(&client, &behind, body, 1 << 20, within)
                    .await
                    .unwrap();
                let honest = String::from_utf8(honest).unwrap();
                let told = honest.replace(&hex::encode(HONEST), &hex::encode(ELSEWHERE));
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", told.len());
                stream.write_all((head + &told).as_bytes()).await?;
            }
            Answers::AtLength => {
                let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n";
                stream.write_all(head.as_bytes()).await?;
                loop {
                    stream.write_all(&[b' '; 1 << 16]).await?;
                }
            }
        }
    }
}

#[tokio::test]
async fn an_answer_without_end_is_not_read_to_its_end() {
    let anvil = Anvil::start();
    let mut registry = deploy(&anvil, 0).await;
    let url = endpoint(anvil.url.clone(), Answers::AtLength).await;
    registry.rpcs = vec![url.into()];
    match Chain::connect(&registry, None).await.map(drop) {
        Err(ChainError::Unreachable { detail, .. }) => {
            assert!(detail.contains("too long"), "{detail}")
        }
        other => panic!("{other:?}"),
    }
}

/// What `/.well-known/nectar.json` of a router says that has these endpoints.
async fn told(registry: &RegistryConfig, rpcs: &[&str]) -> String {
    let dir = tempfile::tempdir().unwrap();
    let contract = hex::encode(registry.id.contract);
    let text = format!(
        "[node]\nname = \"router.nectar\"\n[listen]\naddress = \"127.0.0.1\"\nport = 0\n\
         [[registry]]\ntld = \"nectar\"\nchain_id = {CHAIN_ID}\ncontract = \"0x{contract}\"\nrpcs = {rpcs:?}\n"
    );
    std::fs::write(dir.path().join("nectar.toml"), text).unwrap();
    json(&nectar(dir.path(), &["keygen", "--unencrypted", "--json"]));
    let mut node = tokio::process::Command::from({
        let mut command = Command::new(env!("CARGO_BIN_EXE_nectar"));
        command
            .args(["run", "--json"])
            .current_dir(dir.path())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command
    })
    .kill_on_drop(true)
    .spawn()
    .unwrap();
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let line = lines.next_line().await.unwrap().unwrap();
    let said: serde_json::Value = serde_json::from_str(&line).unwrap();
    let mut stream = TcpStream::connect(said["listen"].as_str().unwrap())
        .await
        .unwrap();
    let request =
        "GET /.well-known/nectar.json HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_endpoint_below_the_quorum_sends_no_visitors_elsewhere() {
    let anvil = Anvil::start();
    let registry = deploy(&anvil, 0).await;
    let chain = Chain::connect(&registry, Some(wallet(0))).await.unwrap();
    let label = Label::new("router").unwrap();
    let record = NewRecord {
        key: [3; 32],
        routing: Some(Routing {
            host: Host::parse(HONEST).unwrap(),
            port: 9444,
            ws: true,
            wss: true,
        }),
        routers: Vec::new(),
    };
    let account = chain.account();
    chain
        .register(&label, account, &record, &mut |_| {})
        .await
        .unwrap();
    chain.enlist(&label, &mut |_| {}).await.unwrap();

    let lying = endpoint(anvil.url.clone(), Answers::Falsely).await;
    let endless = endpoint(anvil.url.clone(), Answers::AtLength).await;
    let named = anvil.url.replace("127.0.0.1", "localhost");
    // Alone it is what the operator trusts.
    let alone = told(&registry, &[&lying]).await;
    assert!(alone.contains(ELSEWHERE), "{alone}");
    for first in [&lying, &endless] {
        let answer = told(&registry, &[first, &anvil.url, &named]).await;
        assert!(
            answer.contains(HONEST) && !answer.contains(ELSEWHERE),
            "{answer}"
        );
    }
    let split = told(&registry, &[&lying, &anvil.url]).await;
    assert!(!split.contains("wss://"), "{split}");
}
