//! What attackers make of a disk that takes nothing, of descriptors that are out, and of slow endpoints.

use super::attacker::{Caller, somewhere, tcp};
use crate::{
    home::{Home, Running},
    support::{Network, PATIENCE, REGISTRY, direct_at, free_address, get},
};
use node_core::{Code, wire::frame::Frame};
use std::{
    fs::File,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// Somebody breaks a rule inside a record, for which its name is banned.
async fn earn_a_ban(label: &str, bob: SocketAddr) {
    let mallory = Caller::named(label);
    let mut peer = mallory.enter(bob, somewhere(1), "bob").await.unwrap();
    peer.say(&[Frame::Ack(u64::MAX)]).await.unwrap();
    let said = peer.until(|_| None::<()>).await;
    assert_eq!(said, Err(Some(Code::FrameUnexpected)));
}

async fn is_banned(label: &str, bob: SocketAddr) -> bool {
    let entered = Caller::named(label).enter(bob, somewhere(1), "bob").await;
    entered.map(drop) == Err(Some(Code::Banned))
}

/// Bob runs with so many descriptors, and logs into a file.
fn run(home: &Home, bob: SocketAddr, args: &[&str], descriptors: usize) -> Running {
    let inner = home.run_command(Some(bob), &[&["--echo"][..], args].concat());
    let mut command = Command::new("sh");
    command
        .arg("-c")
        .arg(format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""))
        .arg(inner.get_program())
        .args(inner.get_args())
        .current_dir(home.path())
        .env_clear()
        .stderr(File::create(home.path().join("log")).unwrap());
    Running::begin(command)
}

fn log(home: &Home) -> String {
    std::fs::read_to_string(home.path().join("log")).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bans_that_cannot_be_written_last_as_long_as_the_node_and_are_written_as_soon_as_they_can_be()
 {
    let network = Network::default()
        .direct("bob")
        .direct("mallory")
        .direct("mordred");
    let home = Home::new(&network, "bob");
    let bob = network.address("bob");
    // As on a full disk: the file that replaces the list cannot be made.
    let blocked = home.path().join("nectar.bans.new");
    std::fs::create_dir(&blocked).unwrap();
    let _node = run(&home, bob, &[], 1024);
    for label in ["mallory", "mordred"] {
        earn_a_ban(label, bob).await;
        // The file is looked at every second.
        tokio::time::sleep(Duration::from_millis(2500)).await;
    }
    assert!(is_banned("mallory", bob).await && is_banned("mordred", bob).await);
    let said = log(&home).matches("cannot be kept").count();
    assert_eq!(said, 1, "the log says it once: {}", log(&home));
    std::fs::remove_dir(&blocked).unwrap();
    let begun = Instant::now();
    while home.json(&["ban", "list"]).as_array().unwrap().len() < 2 {
        assert!(begun.elapsed() < PATIENCE, "{}", log(&home));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(is_banned("mallory", bob).await && is_banned("mordred", bob).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_of_bans_that_somebody_holds_keeps_no_node_from_its_end() {
    let network = Network::default().direct("bob").direct("mallory");
    let home = Home::new(&network, "bob");
    let bob = network.address("bob");
    let held = File::create(home.path().join("nectar.bans.lock")).unwrap();
    held.lock().unwrap();
    let node = run(&home, bob, &[], 1024);
    earn_a_ban("mallory", bob).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let begun = Instant::now();
    let ended = tokio::task::spawn_blocking(|| node.terminate());
    let ended = tokio::time::timeout(PATIENCE, ended).await;
    assert!(ended.is_ok_and(|ended| ended.unwrap().success()));
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_banned_where_bans_cannot_be_written_does_not_fill_the_log() {
    let labels: Vec<_> = (0..80).map(|n| format!("mallory{n}")).collect();
    let mut network = Network::default().direct("bob");
    for label in &labels {
        network = network.known(label, direct_at(label, free_address()));
    }
    let home = Home::new(&network, "bob");
    let bob = network.address("bob");
    std::fs::create_dir(home.path().join("nectar.bans.lock")).unwrap();
    let _node = run(&home, bob, &[], 1024);
    let begun = Instant::now();
    for label in &labels {
        earn_a_ban(label, bob).await;
    }
    // Twenty lines at once and one a second about others, and a few about the node.
    let allowed = 25 + begun.elapsed().as_secs();
    let lines = log(&home).lines().count() as u64;
    assert!(lines <= allowed, "{lines} lines: {}", log(&home));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_takes_all_descriptors_does_not_fill_the_log() {
    let network = Network::default().direct("bob");
    let home = Home::new(&network, "bob");
    let bob = network.address("bob");
    let _node = run(&home, bob, &[], 64);
    let mut held = Vec::new();
    for n in 0..100 {
        let connecting = tcp(bob, somewhere(n / 30));
        if let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(500), connecting).await {
            held.push(stream);
        }
    }
    let begun = Instant::now();
    while !log(&home).contains("accepting failed") {
        assert!(begun.elapsed() < PATIENCE, "{}", log(&home));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let said = log(&home).matches("accepting failed").count();
    assert_eq!(said, 1, "{}", log(&home));
}

/// Connections of this machine to such addresses that neither side has closed.
fn connected(to: [u8; 3]) -> usize {
    let [a, b, c] = to;
    let remote = format!("{c:02X}{b:02X}{a:02X}:");
    let all = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let of_ours = |line: &&str| {
        let mut fields = line.split_whitespace().skip(2);
        // Numbers of this machine: the first byte of the address is the last.
        let there = fields.next().is_some_and(|to| to[2..].starts_with(&remote));
        there && fields.next() == Some("01")
    };
    all.lines().filter(of_ours).count()
}

/// An endpoint of a registry without names, that takes nearly as long for each as it may.
async fn answer_slowly(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let body = crate::posted::body(&mut stream).await?;
        let asked: serde_json::Value = serde_json::from_slice(&body)?;
        let result = match asked["method"].as_str().unwrap() {
            "eth_chainId" => serde_json::json!(format!("0x{:x}", REGISTRY.chain_id)),
            "eth_getLogs" => serde_json::json!([]),
            "eth_call" => {
                tokio::time::sleep(Duration::from_millis(3800)).await;
                serde_json::json!("0x00")
            }
            _ => {
                let time = crate::sockets::unix_time();
                let hash = format!("0x{}", "11".repeat(32));
                serde_json::json!({"number": "0x10", "hash": hash, "timestamp": format!("0x{time:x}")})
            }
        };
        let answer = serde_json::json!({"jsonrpc": "2.0", "id": asked["id"], "result": result});
        let answer = answer.to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
            answer.len()
        );
        stream.write_all((head + &answer).as_bytes()).await?;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_endpoints_hold_no_more_descriptors_than_are_counted_for_them() {
    const ENDPOINTS: usize = 3;
    let mut urls = Vec::new();
    for n in 1..=ENDPOINTS as u8 {
        let address = SocketAddr::from(([127, 90, 0, n], 0));
        let listener = TcpListener::bind(address).await.unwrap();
        urls.push(format!("http://{}", listener.local_addr().unwrap()));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer_slowly(stream));
            }
        });
    }
    let network = Network::default().direct("bob");
    let home = Home::new(&network, "bob");
    home.reads(&urls.join("\", \""));
    let bob = network.address("bob");
    let _node = run(&home, bob, &["--set", "listen.connections=384"], 1024);
    let (begun, mut most) = (Instant::now(), 0);
    for n in 0.. {
        most = most.max(connected([127, 90, 0]));
        let caller = Caller::named(&format!("nobody{n}"));
        tokio::spawn(async move { caller.enter(bob, somewhere(n), "bob").await.map(drop) });
        tokio::time::sleep(Duration::from_millis(30)).await;
        if begun.elapsed() > Duration::from_secs(8) {
            break;
        }
    }
    let metrics = tokio::time::timeout(Duration::from_secs(2), get(bob, "/metrics")).await;
    assert!(metrics.is_ok_and(|said| said.contains("nectar_http_connections")));
    println!("{most} connections to endpoints at most");
    // And some whose end is under way.
    let places = ENDPOINTS * node_native::node::FETCHES + 16;
    assert!(
        (node_native::node::FETCHES..=places).contains(&most),
        "{most} of {places}"
    );
    assert!(!log(&home).contains("accepting failed"), "{}", log(&home));
}
