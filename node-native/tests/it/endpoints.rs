//! What owners sign, where an endpoint lies to them.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use crate::{
    chain::{KEY, OTHER_KEY, key},
    posted,
    support::{Anvil, deploy, wallet},
};
use alloy::primitives::{U256, utils::parse_ether};
use node_core::{Label, registry::RegistryConfig};
use node_native::{
    chain::{Chain, ChainError, NewRecord},
    rpc,
};
use serde_json::{Value, json};
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// How an endpoint lies.
#[derive(Clone, Copy)]
struct Lie {
    /// What is asked and what an honest endpoint answers become what is answered.
    told: fn(&Value, Value) -> Value,
    /// Whether it keeps transactions to itself.
    keeps: bool,
}

const MIN_COMMITMENT_AGE: &str = "minCommitmentAge()";
const MAKE_COMMITMENT: &str =
    "makeCommitment(string,address,(bytes32,uint8,bytes,uint16,uint8,uint32[]),bytes32)";

/// An endpoint in front of an honest one, and all that it was asked.
struct Liar {
    url: String,
    asked: Arc<Mutex<Vec<Value>>>,
}

impl Liar {
    async fn start(honest: &str, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (honest, heard) = (honest.to_owned(), asked.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, honest.clone(), heard.clone(), lie));
            }
        });
        Self { url, asked }
    }

    fn was_asked(&self, method: &str) -> bool {
        let asked = self.asked.lock().unwrap();
        asked.iter().any(|asked| asked["method"] == method)
    }

    fn was_called(&self, signature: &str) -> bool {
        self.asked
            .lock()
            .unwrap()
            .iter()
            .any(|asked| asks(asked, signature))
    }
}

async fn answer(
    stream: TcpStream,
    honest: String,
    asked: Arc<Mutex<Vec<Value>>>,
    lie: Lie,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let body = posted::body(&mut stream).await?;
        let question: Value = serde_json::from_slice(&body).unwrap();
        asked.lock().unwrap().push(question.clone());
        let mut told = if lie.keeps && question["method"] == "eth_sendRawTransaction" {
            json!({ "jsonrpc": "2.0", "id": question["id"], "result": null })
        } else {
            let client = rpc::http_client().unwrap();
            let body = String::from_utf8(body).unwrap();
            let told = rpc::post(&client, &honest, body, 1 << 20, Duration::from_secs(10)).await;
            serde_json::from_slice(&told.unwrap()).unwrap()
        };
        if told.get("result").is_some() {
            told["result"] = (lie.told)(&question, told["result"].take());
        }
        let told = told.to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", told.len());
        stream.write_all((head + &told).as_bytes()).await?;
    }
}

const ROBS: Lie = Lie {
    told: rob,
    keeps: false,
};
const FORGES: Lie = Lie {
    told: forge,
    keeps: false,
};
const FEIGNS: Lie = Lie {
    told: feign,
    keeps: true,
};

/// 500,000 gwei for whoever includes a transaction, and a commitment that rests for ten days.
fn rob(question: &Value, honest: Value) -> Value {
    match question["method"].as_str().unwrap() {
        "eth_feeHistory" => {
            let mut told = honest;
            let blocks = told["gasUsedRatio"].as_array().unwrap().len().max(1);
            told["reward"] = vec![vec!["0x1c6bf52634000"]; blocks].into();
            told
        }
        "eth_maxPriorityFeePerGas" => "0x1c6bf52634000".into(),
        "eth_call" if asks(question, MIN_COMMITMENT_AGE) => format!("0x{:064x}", 864_000).into(),
        _ => honest,
    }
}

/// Another key in each record.
fn forge(question: &Value, honest: Value) -> Value {
    match question["method"].as_str() {
        Some("eth_call") => {
            let told = honest.as_str().unwrap_or_default();
            told.replace(KEY, OTHER_KEY).into()
        }
        _ => honest,
    }
}

/// Takes transactions and keeps them, and says that they were mined.
fn feign(question: &Value, honest: Value) -> Value {
    let hash = format!("0x{}", "11".repeat(32));
    match question["method"].as_str().unwrap() {
        "eth_sendRawTransaction" => hash.into(),
        "eth_getTransactionReceipt" => json!({
            "transactionHash": question["params"][0], "blockHash": hash, "blockNumber": "0x2", "transactionIndex": "0x0",
            "from": format!("0x{}", "00".repeat(20)), "to": null, "cumulativeGasUsed": "0x1", "gasUsed": "0x1",
            "effectiveGasPrice": "0x1", "logs": [], "logsBloom": format!("0x{}", "00".repeat(256)), "status": "0x1",
            "type": "0x2", "contractAddress": null,
        }),
        _ => honest,
    }
}

/// Whether a question calls the function of this signature.
fn asks(question: &Value, signature: &str) -> bool {
    let selector = &alloy::primitives::keccak256(signature)[..4];
    let call = format!("\"0x{}", hex::encode(selector));
    question.to_string().contains(&call)
}

fn alice() -> Label {
    Label::new("alice").unwrap()
}

fn record() -> NewRecord {
    NewRecord {
        key: key(KEY),
        routing: None,
        routers: Vec::new(),
    }
}

/// A registry that is read through a liar first, and through two honest endpoints.
async fn outvoted(anvil: &Anvil, lie: Lie) -> (RegistryConfig, Liar) {
    let mut registry = deploy(anvil, 0).await;
    let liar = Liar::start(&anvil.url, lie).await;
    let honest = anvil.url.as_str();
    registry.rpcs = [&liar.url, honest, &honest.replace("127.0.0.1", "localhost")]
        .map(Into::into)
        .into();
    (registry, liar)
}

async fn connect(registry: &RegistryConfig) -> Chain {
    Chain::connect(registry, Some(wallet(0))).await.unwrap()
}

async fn register(chain: &Chain) -> Result<(), ChainError> {
    let (label, record) = (alice(), record());
    let registered = chain
        .register(&label, chain.account(), &record, &mut |_| {})
        .await;
    registered.map(drop)
}

#[tokio::test]
async fn one_endpoint_of_three_sets_no_price_and_no_rest_and_makes_no_commitment() {
    let anvil = Anvil::start();
    let (registry, liar) = outvoted(&anvil, ROBS).await;
    let chain = connect(&registry).await;
    let before = chain.balance(chain.account()).await.unwrap();
    register(&chain).await.unwrap();
    let cost = before - chain.balance(chain.account()).await.unwrap();
    assert!(cost < parse_ether("0.01").unwrap(), "{cost} wei");
    assert!(liar.was_asked("eth_feeHistory") && liar.was_called(MIN_COMMITMENT_AGE));
    assert!(!liar.was_called(MAKE_COMMITMENT));
}

#[tokio::test]
async fn one_endpoint_alone_is_believed_up_to_a_bound_on_what_gas_costs_and_on_what_is_waited_for()
{
    let anvil = Anvil::start();
    let mut registry = deploy(&anvil, 0).await;
    let honest = connect(&registry).await;
    let liar = Liar::start(&anvil.url, ROBS).await;
    registry.rpcs = vec![liar.url.as_str().into()];
    let robbed = connect(&registry).await;
    let error = register(&robbed).await.unwrap_err();
    assert!(
        matches!(error, ChainError::RestsTooLong(864_000)),
        "{error}"
    );
    register(&honest).await.unwrap();
    let rotate = async |chain: &Chain| chain.rotate(&alice(), key(OTHER_KEY), &mut |_| {}).await;
    let error = rotate(&robbed).await.unwrap_err();
    assert!(matches!(error, ChainError::TooDear { .. }), "{error}");
    assert!(!liar.was_asked("eth_sendRawTransaction"));
    let allowed: U256 = parse_ether("1000").unwrap();
    rotate(&robbed.max_fee(allowed)).await.unwrap();
}

#[tokio::test]
async fn an_endpoint_that_keeps_transactions_and_says_that_they_were_mined_is_not_believed() {
    let anvil = Anvil::start();
    let (mut registry, liar) = outvoted(&anvil, FEIGNS).await;
    register(&connect(&registry).await).await.unwrap();
    let honest = RegistryConfig {
        rpcs: vec![anvil.url.as_str().into()],
        ..registry.clone()
    };
    let honest = connect(&honest).await;
    assert_eq!(honest.record(&alice()).await.unwrap().key, key(KEY));
    registry.rpcs = vec![liar.url.as_str().into(), "http://127.0.0.1:1".into()];
    let alone = connect(&registry).await;
    let rotated = alone.rotate(&alice(), key(OTHER_KEY), &mut |_| {}).await;
    let error = rotated.unwrap_err();
    assert!(
        matches!(error, ChainError::Disagree { quorum: 2, of: 2 }),
        "{error}"
    );
}

#[tokio::test]
async fn what_stays_in_a_record_is_not_what_one_endpoint_says() {
    let anvil = Anvil::start();
    let (registry, _liar) = outvoted(&anvil, FORGES).await;
    let chain = connect(&registry).await;
    register(&chain).await.unwrap();
    assert_eq!(chain.record(&alice()).await.unwrap().key, key(OTHER_KEY));
    assert_eq!(chain.agreed_record(&alice()).await.unwrap().key, key(KEY));
}
