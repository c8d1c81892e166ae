//! Attackers at public addresses, in a network that a test has to itself.

use super::{
    attacker::{Caller, Wire, get, get_from, request, somewhere},
    siege::{LITTLE, Siege},
};
use crate::{
    home::Home,
    support::{Network, strict},
};
use futures_util::future::join_all;
use node_core::{Code, wire::frame::Frame};
use std::{
    fs,
    io::{self, Write},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    process::Command,
};

/// Two addresses of one network, and one of another.
const EVIL: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);
const EVILS_NEIGHBOUR: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 9);
const HONEST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

/// Whether this process is the one inside.
const INSIDE: &str = "NECTAR_ATTACKS_INSIDE";

/// Whether the test goes on here, in a network and with files of its own, where these addresses are this machine's. Otherwise
/// it has run there, in another process, or cannot.
pub(super) fn inside(test: &str, addresses: &[Ipv4Addr]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        done(Command::new("ip").args(["link", "set", "lo", "up"]));
        for address in addresses {
            done(Command::new("ip").args(["address", "add", &address.to_string(), "dev", "lo"]));
        }
        return true;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--map-root-user", "--net", "--mount", "--"]);
        command
    };
    // Some have somebody in a second network.
    let tries = "ip link set lo up && ip link add near type veth peer name far";
    let tried = unshare().args(["sh", "-c", tries]).output();
    if !tried.as_ref().is_ok_and(|tried| tried.status.success()) {
        let why = match tried {
            Ok(tried) => String::from_utf8_lossy(&tried.stderr).into_owned(),
            Err(error) => format!("unshare: {error}"),
        };
        let why = format!("\nSKIPPED {test}: no network namespace to be had here: {why}\n");
        assert!(!strict(), "{why}");
        // Past what keeps to itself what a test says that succeeds.
        let _ = io::stderr().write_all(why.as_bytes());
        return false;
    }
    let module = module_path!().split_once("::").unwrap().1;
    let module = module.rsplit_once("::").unwrap().0;
    let test = format!("{module}::{test}");
    let mut command = unshare();
    command.arg(std::env::current_exe().unwrap());
    command
        .args(["--exact", &test, "--nocapture"])
        .env(INSIDE, "1");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} fails inside");
    assert!(
        said.contains("1 passed"),
        "{test} is not the name of a test"
    );
    false
}

/// Puts a file in the place of another, for this process and those that it starts.
pub(super) fn replace(path: &str, with: &Path, text: &str) {
    fs::write(with, text).unwrap();
    done(Command::new("mount").arg("--bind").arg(with).arg(path));
}

fn done(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// A siege of a router that all of these reach.
fn lay(settings: &[(&str, &str)]) -> Siege {
    let network = Network::default()
        .direct("rho")
        .indirect("alice", &["rho"])
        .indirect("bob", &["rho"])
        .direct("mallory")
        .direct("mordred");
    let home = Home::new(&network, "rho");
    let all = (Ipv6Addr::UNSPECIFIED, network.address("rho").port());
    Siege::open_to(all.into(), network, home, settings)
}

#[test]
fn whoever_is_not_on_this_machine_sees_no_metrics_and_no_status_whatever_he_claims() {
    let test =
        "outside::whoever_is_not_on_this_machine_sees_no_metrics_and_no_status_whatever_he_claims";
    if !inside(test, &[EVIL, EVILS_NEIGHBOUR, HONEST]) {
        return;
    }
    let siege = lay(&[]);
    let report = siege.attack("strangers from outside", LITTLE, async |router| {
        let mut came = Vec::new();
        for at in [SocketAddr::from((HONEST, router.port())), router] {
            for host in [
                at.to_string(),
                router.to_string(),
                "localhost".into(),
                "[::1]".into(),
            ] {
                for path in ["/metrics", "/status", "/healthz"] {
                    let headers = format!("host: {host}\r\n");
                    let answer = get_from(EVIL, at, path, &headers).await;
                    came.push((path, host.clone(), answer));
                }
            }
        }
        came
    });
    for (path, host, answer) in report.seen {
        if path == "/healthz" {
            assert!(answer.ends_with("\r\n\r\nok\n"), "{answer}");
            continue;
        }
        assert!(
            answer.starts_with("HTTP/1.1 403"),
            "{path} of {host}: {answer}"
        );
        assert!(
            !answer.contains("nectar_") && !answer.contains("alice"),
            "{answer}"
        );
    }
    // From here it is as it should be.
    assert_eq!(siege.metric("nectar_banned"), 0);
    siege.lift();
}

#[test]
fn a_network_that_sends_rubbish_is_banned_from_a_running_node_and_no_other() {
    let test = "outside::a_network_that_sends_rubbish_is_banned_from_a_running_node_and_no_other";
    if !inside(test, &[EVIL, EVILS_NEIGHBOUR, HONEST]) {
        return;
    }
    let siege = lay(&[]);
    let report = siege.attack("rubbish from one network", LITTLE, async |router| {
        let rubbish = async |from| {
            let mut wire = Wire::open(router, from).await.unwrap();
            // Who is banned may be cut off before this.
            let _ = wire.send(&[1; 1000]).await;
            wire.closed().await
        };
        let (mut codes, mut status) = (Vec::new(), String::new());
        for n in 0..20 {
            if n == 5 {
                status = get(router, "/status", &format!("host: {router}\r\n")).await;
            }
            codes.push(rubbish(EVIL).await);
            // Behind an address of this machine there may be a proxy, and behind that everybody.
            codes.push(rubbish(somewhere(1)).await);
        }
        let mut entered = Vec::new();
        for (label, from) in [
            ("mallory", EVIL),
            ("mallory", EVILS_NEIGHBOUR),
            ("mallory", HONEST),
            ("mordred", somewhere(1)),
        ] {
            let entry = Caller::named(label).enter(router, from, "rho").await;
            entered.push(entry.map(drop));
        }
        (codes, status, entered)
    });
    let (codes, status, entered) = report.seen;
    let malformed = |code: &Option<Code>| *code == Some(Code::Malformed);
    let (evil, shared): (Vec<_>, Vec<_>) = codes.chunks(2).map(|both| (both[0], both[1])).unzip();
    assert!(evil[..10].iter().all(malformed), "{evil:?}");
    assert!(
        evil[10..].iter().all(|code| *code == Some(Code::Banned)),
        "{evil:?}"
    );
    assert!(shared.iter().all(malformed), "{shared:?}");
    // Five of ten on the way to it.
    let (_, status) = status.split_once("\r\n\r\n").unwrap();
    let status: serde_json::Value = serde_json::from_str(status).unwrap();
    let [score] = &status["scores"].as_array().unwrap()[..] else {
        panic!("{status}");
    };
    let points = score["points"].as_u64().unwrap();
    assert_eq!(score["who"], "203.0.113.0/24");
    assert!((45..=50).contains(&points), "{points}");
    let banned = Err(Some(Code::Banned));
    assert_eq!(entered, [banned, banned, Ok(()), Ok(())]);
    assert_eq!(siege.metric("nectar_banned"), 1);
    // The operator sees which network it is, and lets it in again.
    let list = || siege.home.json(&["ban", "list"]);
    siege.until("the ban is on disk", || {
        list()[0]["who"] == "203.0.113.0/24"
    });
    siege.home.json(&["ban", "lift", "203.0.113.0/24"]);
    siege.until("the ban is lifted", || siege.metric("nectar_banned") == 0);
    let report = siege.attack(
        "somebody of a network that was banned",
        LITTLE,
        async |router| {
            let entered = Caller::named("mallory").enter(router, EVIL, "rho").await;
            entered.map(drop)
        },
    );
    assert_eq!(report.seen, Ok(()));
    siege.lift();
}

#[test]
fn guests_of_one_network_have_one_budget_of_requests_together_and_their_neighbours_another() {
    let test = "outside::\
        guests_of_one_network_have_one_budget_of_requests_together_and_their_neighbours_another";
    if !inside(test, &[EVIL, HONEST]) {
        return;
    }
    let siege = lay(&[("node.guests", "true")]);
    let report = siege.attack("guests who ask side by side", LITTLE, async |router| {
        // How many of fifty are answered.
        let ask = async |from| {
            let mut guest = Caller::guest().enter(router, from, "rho").await.unwrap();
            let asked: Vec<_> = (0..50).map(|n| request(4 + 4 * n, b"?")).collect();
            guest.say(&asked).await.unwrap();
            let (mut answered, mut refused) = (0, 0);
            while answered + refused < asked.len() {
                for frame in guest.hear().await.unwrap() {
                    if let Frame::Response { code, .. } = frame {
                        answered += usize::from(code == 0);
                        refused += usize::from(code == Code::RequestRate.as_u16());
                    }
                }
            }
            (answered, guest)
        };
        // None of them goes before the last has come.
        let evil = join_all((0..4).map(|_| ask(EVIL))).await;
        let (honest, _) = ask(HONEST).await;
        (
            evil.iter().map(|(answered, _)| answered).sum::<usize>(),
            honest,
        )
    });
    let (evil, honest) = report.seen;
    assert!((100..115).contains(&evil), "{evil}");
    assert_eq!(honest, 50);
    siege.lift();
}

/// More requests than one address may make at once.
const REQUESTS: usize = 700;

#[test]
fn who_asks_too_much_by_http_is_refused_and_his_neighbours_are_not() {
    let test = "outside::who_asks_too_much_by_http_is_refused_and_his_neighbours_are_not";
    if !inside(test, &[EVIL, EVILS_NEIGHBOUR, HONEST]) {
        return;
    }
    let siege = lay(&[]);
    let report = siege.attack("requests from outside", LITTLE, async |router| {
        let at = SocketAddr::from((HONEST, router.port()));
        let is_answered = async |from| {
            let said = get_from(from, at, "/healthz", "host: a\r\n").await;
            said.starts_with("HTTP/1.1 200")
        };
        let mut answered = 0;
        for _ in 0..REQUESTS {
            answered += usize::from(is_answered(EVIL).await);
        }
        (answered, is_answered(EVILS_NEIGHBOUR).await)
    });
    let (answered, neighbour) = report.seen;
    // 500 at once, and 100 more in each second.
    let most = 501 + 100 * report.took.as_millis() as usize / 1000;
    assert!(answered <= most, "{answered} in {:?}", report.took);
    assert!(answered >= 500 && neighbour);
    siege.lift();
}
