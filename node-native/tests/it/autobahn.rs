//! The Autobahn suite, hundreds of conversations with a WebSocket server, against what accepts our sockets.
//!
//! `cargo xtask conformance` installs the suite and runs this.
#![allow(clippy::unwrap_used, reason = "a failed step fails the test")]

use crate::http::{listen, start};
use futures_util::{SinkExt, StreamExt};
use node_native::http::{Accepted, Site};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

/// How many cases the suite has in the version that we install. One that runs fewer has shown less.
const CASES: usize = 517;

/// Longer than all of them take on a slow machine.
const PATIENCE: Duration = Duration::from_secs(900);

/// What we refuse by design: why, and the cases, by number or by the beginning of it. These must fail.
const LEFT_OUT: [(&str, &[&str]); 2] = [
    (
        // `stream::MESSAGE_MAX`: what a peer can make us hold is bounded, and no record is longer.
        "with messages above 65 KiB",
        &[
            "9.1.2", "9.1.3", "9.1.4", "9.1.5", "9.1.6", "9.2.2", "9.2.3", "9.2.4", "9.2.5",
            "9.2.6", "9.3.", "9.4.", "9.5.", "9.6.",
        ],
    ),
    // Ciphertext does not shrink, and what is inflated can be large.
    ("with compression", &["12.", "13."]),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs the suite, which needs Python 2.7: cargo xtask conformance"]
async fn our_accepted_sockets_behave_as_the_suite_demands() {
    let wstest = std::env::var_os("NECTAR_WSTEST").expect("cargo xtask conformance sets it");
    let mut server = start(listen(&[]), Site::default()).await;
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("autobahn");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).unwrap();
    let spec = json!({
        "outdir": "reports",
        "servers": [{
            "agent": "nectar",
            "url": format!("ws://{}/nectar", server.address),
            "protocols": ["nectar.1"],
        }],
        "cases": ["*"],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    fs::write(directory.join("spec.json"), spec.to_string()).unwrap();
    let printed = fs::File::create(directory.join("wstest.log")).unwrap();
    let mut suite = tokio::process::Command::from({
        let mut suite = Command::new(wstest);
        suite
            .args(["--mode", "fuzzingclient", "--spec", "spec.json"])
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(printed.try_clone().unwrap())
            .stderr(printed);
        suite
    });
    let mut suite = suite.kill_on_drop(true).spawn().unwrap();
    let echoing = async {
        while let Some(accepted) = server.accepted.recv().await {
            tokio::spawn(echo(accepted));
        }
    };
    let ended = tokio::select! {
        ended = tokio::time::timeout(PATIENCE, suite.wait()) => ended,
        () = echoing => unreachable!("the server accepts as long as it is there"),
    };
    let ended = ended.expect("the suite ends").unwrap();
    let lies = directory.display();
    assert!(ended.success(), "{ended}, see {lies}/wstest.log");
    let index = fs::read_to_string(directory.join("reports/index.json")).unwrap();
    let cases = read(&serde_json::from_str(&index).unwrap());
    let counts = judge(&cases).unwrap_or_else(|wrong| {
        panic!("{}; see {lies}/reports/index.html", wrong.join("; "));
    });
    assert_eq!(cases.len(), CASES);
    println!("suite\tAutobahn WebSocket\t{}", shown(&counts));
}

/// Says again whatever is said, text included, on which a node would end the socket: what is tested lies beneath the node.
async fn echo(accepted: Accepted) {
    let Accepted {
        mut socket,
        slot: _slot,
        ..
    } = accepted;
    while let Some(Ok(message)) = socket.next().await {
        if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
            return;
        }
    }
}

/// How a case went, and how its closing did, in the suite's words.
type Case = [String; 2];

fn read(index: &Value) -> BTreeMap<String, Case> {
    let cases = index["nectar"].as_object().unwrap();
    let word = |case: &Value, key: &str| case[key].as_str().unwrap().to_owned();
    cases
        .iter()
        .map(|(id, case)| {
            let case = ["behavior", "behaviorClose"].map(|key| word(case, key));
            (id.clone(), case)
        })
        .collect()
}

/// How many went how, those that are left out under why they are. Or what is not as it should be.
fn judge(cases: &BTreeMap<String, Case>) -> Result<BTreeMap<&str, usize>, Vec<String>> {
    let mut counts = BTreeMap::new();
    let mut wrong = Vec::new();
    for (id, case) in cases {
        let verdict = verdict(case);
        let why = match (verdict, left_out(id)) {
            (Some(verdict), None) => verdict,
            (None, Some(reason)) => reason,
            (Some(_), Some(reason)) => {
                wrong.push(format!("{id} passes, and is among those {reason}"));
                continue;
            }
            (None, None) => {
                wrong.push(format!("{id} is {} and closes {}", case[0], case[1]));
                continue;
            }
        };
        *counts.entry(why).or_default() += 1;
    }
    if wrong.is_empty() {
        Ok(counts)
    } else {
        Err(wrong)
    }
}

/// The worst of the words with which a case still passes, if it does.
fn verdict(case: &Case) -> Option<&'static str> {
    let words = ["INFORMATIONAL", "NON-STRICT", "OK"];
    let place = |word: &String| words.iter().position(|known| known == word);
    let [behaviour, closing] = case;
    Some(words[place(behaviour)?.min(place(closing)?)])
}

fn left_out(id: &str) -> Option<&'static str> {
    let is_of = |wanted: &str| id == wanted || wanted.ends_with('.') && id.starts_with(wanted);
    LEFT_OUT
        .iter()
        .find(|(_, wanted)| wanted.iter().any(|wanted| is_of(wanted)))
        .map(|(reason, _)| *reason)
}

/// As the command's table has it: run, passed, left out, and the details.
fn shown(counts: &BTreeMap<&str, usize>) -> String {
    let count = |word| counts.get(word).copied().unwrap_or_default();
    let [ok, lax, told] = ["OK", "NON-STRICT", "INFORMATIONAL"].map(count);
    let refused = LEFT_OUT.map(|(reason, _)| (count(reason), reason));
    let left_out: usize = refused.iter().map(|(count, _)| count).sum();
    let [(large, largely), (deflated, how)] = refused;
    format!(
        "{ok_all}\t{ok_all}\t{left_out}\t{ok} OK, {lax} non-strict, {told} informational; left out {large} {largely}, \
         {deflated} {how}",
        ok_all = ok + lax + told
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cases(list: &[(&str, &str, &str)]) -> BTreeMap<String, Case> {
        list.iter()
            .map(|(id, behaviour, closing)| {
                let case = [behaviour, closing].map(|word| (*word).to_owned());
                ((*id).to_owned(), case)
            })
            .collect()
    }

    #[test]
    fn a_case_of_the_suite_that_fails_or_passes_against_the_table_is_told() {
        let as_it_should_be = cases(&[
            ("1.1.1", "OK", "OK"),
            ("6.4.3", "NON-STRICT", "OK"),
            ("7.1.6", "INFORMATIONAL", "INFORMATIONAL"),
            ("9.1.2", "FAILED", "FAILED"),
            ("9.3.1", "FAILED", "FAILED"),
            ("12.1.1", "UNIMPLEMENTED", "OK"),
        ]);
        let counts = judge(&as_it_should_be).unwrap();
        assert_eq!(
            shown(&counts),
            "3\t3\t3\t1 OK, 1 non-strict, 1 informational; left out 2 with messages above 65 KiB, 1 with compression"
        );
        for (case, says) in [
            (("1.2.1", "FAILED", "OK"), "1.2.1 is FAILED and closes OK"),
            (
                ("1.2.1", "OK", "WRONG CODE"),
                "1.2.1 is OK and closes WRONG CODE",
            ),
            (("1.2.1", "UNIMPLEMENTED", "OK"), "1.2.1 is UNIMPLEMENTED"),
            (("9.1.2", "OK", "OK"), "9.1.2 passes, and is among those"),
            (("12.1.1", "NON-STRICT", "OK"), "12.1.1 passes"),
        ] {
            let wrong = judge(&cases(&[case])).unwrap_err();
            assert!(wrong.len() == 1 && wrong[0].starts_with(says), "{wrong:?}");
        }
        assert_eq!(left_out("9.1.21"), None);
        assert_eq!(left_out("1.12.1"), None);
    }
}
