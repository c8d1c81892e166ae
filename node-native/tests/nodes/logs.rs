//! What a log must never hold: nothing that is said, and nothing that signs or seals.

use crate::{
    home::{Home, Running},
    support::{Network, PATIENCE, key_of, name, soon, until},
};
use node_native::{
    keystore::{self, Passphrase, Protection},
    node::{Node, Request, Response},
};
use std::{
    fmt::Write as _,
    fs::File,
    io,
    sync::{Arc, Mutex},
    time::Instant,
};

const PASSPHRASE: &str = "correct horse battery staple";

/// Bytes of a secret that must not stand side by side in a log, however they are written.
const WINDOW: usize = 8;

#[tokio::test]
async fn the_log_of_a_router_and_of_both_ends_holds_no_payload_and_no_key() {
    let mut network = Network::default()
        .direct("rho")
        .indirect("alice", &["rho"])
        .indirect("bob", &["rho"])
        .indirect("carol", &["rho"]);
    let keys = tempfile::tempdir().unwrap();
    let mut secrets = Secrets::default();
    secrets.add("carol's key", key_of("carol").to_bytes());
    secrets.add("the passphrase", PASSPHRASE);
    for label in ["rho", "alice", "bob"] {
        let sealed = Protection::Sealed(Passphrase::new(PASSPHRASE).unwrap());
        let key = keystore::create_networking(&keys.path().join(label), &sealed).unwrap();
        network.rekey(label, &key.verifying_key());
        secrets.add(format!("{label}'s key"), key.to_bytes());
    }
    let [rho, alice, bob] = ["rho", "alice", "bob"].map(|label| {
        let home = Home::new(&network, label);
        std::fs::rename(keys.path().join(label), home.path().join("nectar.key")).unwrap();
        home
    });
    let run = |home: &Home, address, format| {
        let mut command = home.run_command(address, &["--echo"]);
        command.env("NECTAR_LOG", "trace");
        command.env("NECTAR_LOG_FORMAT", format);
        command.env("NECTAR_PASSPHRASE", PASSPHRASE);
        command.stderr(File::create(home.path().join("log")).unwrap());
        Running::begin(command)
    };
    let router = run(&rho, Some(network.address("rho")), "text");
    let answering = run(&bob, None, "json");

    // Carol runs in this process, and what she logs is kept.
    let log = Arc::new(Mutex::new(Vec::new()));
    let _log = tracing::subscriber::set_default(
        tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_writer({
                let log = log.clone();
                move || Keep(log.clone())
            })
            .finish(),
    );
    let carol = Node::start(network.config("carol")).await.unwrap();
    talk(&carol, &mut secrets).await;

    // Alice is a command.
    let asks = |args: &[&str]| {
        let mut command = alice.nectar(args);
        command.env("NECTAR_LOG", "trace");
        command.env("NECTAR_PASSPHRASE", PASSPHRASE);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{args:?}: {output:?}");
        output
    };
    let asked = asks(&[
        "request",
        "bob.nectar",
        "echo.1",
        secrets.say("a request of alice's"),
    ]);
    let chat = secrets.chat("a message of alice's");
    let sent = asks(&["send", "bob.nectar", "chat.1", &chat]);

    let stdout = [router.end(), answering.end()];
    carol.close().await;
    let read = |home: &Home| std::fs::read(home.path().join("log")).unwrap();
    for line in String::from_utf8(read(&bob)).unwrap().lines() {
        let object: serde_json::Value = serde_json::from_str(line).expect(line);
        let text = |key: &str| {
            object[key]
                .as_str()
                .unwrap_or_else(|| panic!("{key}: {line}"))
        };
        let levels = ["TRACE", "DEBUG", "INFO", "WARN", "ERROR"];
        assert!(levels.contains(&text("level")), "{line}");
        assert!(
            text("timestamp").ends_with('Z') && !text("target").is_empty(),
            "{line}"
        );
    }
    let logs = [
        (
            "the router",
            read(&rho),
            ["alice.nectar is online", " DEBUG "],
        ),
        ("bob", read(&bob), ["carol.nectar is online", "\"DEBUG\""]),
        ("carol", log.lock().unwrap().clone(), ["Peer", "rho"]),
        ("alice's request", asked.stderr, [" DEBUG ", ""]),
        ("alice's message", sent.stderr, [" DEBUG ", ""]),
        ("the router's output", stdout[0].clone(), ["", ""]),
        ("bob's output", stdout[1].clone(), ["", ""]),
    ];
    for (whose, log, wanted) in logs {
        let text = String::from_utf8_lossy(&log);
        for part in wanted {
            assert!(
                text.contains(part),
                "{part:?} is not in the log of {whose}: {text}"
            );
        }
        assert_eq!(
            secrets.found_in(&log),
            None,
            "in the log of {whose}: {text}"
        );
    }
}

/// Requests, a message, the answer to it and a stream between carol and bob, through the router.
async fn talk(carol: &Node, secrets: &mut Secrets) {
    let bob = name("bob");
    until("carol is reachable", || carol.is_reachable()).await;
    let (replied, mut reply) = tokio::sync::mpsc::channel(1);
    carol.on_message("chat.1", move |message| {
        let replied = replied.clone();
        async move { replied.send(message.payload).await.unwrap() }
    });
    let payload = secrets.say("a request of carol's").to_owned();
    // Bob may still be on his way to the router.
    let begun = Instant::now();
    let answer = loop {
        match carol
            .request(&bob, Request::new("echo.1", payload.clone()))
            .await
        {
            Ok(answer) => break answer,
            Err(error) => assert!(begun.elapsed() < PATIENCE, "{error}"),
        }
    };
    assert_eq!(answer, Response::Success(Some(payload.into())));
    let chat = secrets.chat("a message of carol's");
    soon("a delivery", carol.message(&bob, "chat.1", chat))
        .await
        .unwrap();
    let said = soon("a reply", reply.recv()).await.unwrap();
    assert!(String::from_utf8_lossy(&said).contains("You wrote: "));

    let data: Vec<u8> = (0..100_000u32)
        .flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes())
        .collect();
    // The beginning of what would be logged, and some of the rest.
    secrets.add("a stream of carol's", &data[..64]);
    secrets.add("a stream of carol's, later", &data[200_000..200_064]);
    let head = serde_json::json!({ "name": "file", "size": data.len(), "type": "" }).to_string();
    let opening = carol.open_stream(&bob, "file.1", head);
    let mut stream = soon("a stream", opening).await.unwrap();
    let answer = soon("the file's hash", async {
        for chunk in data.chunks(50_000) {
            stream.write_chunk(chunk.to_vec().into()).await.unwrap();
        }
        stream.finish();
        let mut answer = Vec::new();
        while let Some(chunk) = stream.read_chunk().await.unwrap() {
            answer.extend_from_slice(&chunk);
        }
        String::from_utf8(answer).unwrap()
    })
    .await;
    assert!(answer.contains("\"size\":400000"), "{answer}");
}

#[test]
fn what_must_not_be_logged_is_found_in_every_form() {
    let secret = b"\x00\xffthe sentence that nobody may read\x7f\x80";
    let mut secrets = Secrets::default();
    secrets.add("it", secret);
    let part = &secret[5..13];
    let hexadecimal = hex::encode(part);
    for form in [
        String::from_utf8_lossy(part).into_owned(),
        hexadecimal.clone(),
        hexadecimal.to_uppercase(),
        format!("{part:?}"),
        format!("{part:02x?}"),
        format!("{part:#?}"),
        base64(secret),
        base64(&secret[1..]),
        base64(&secret[2..]),
    ] {
        let log = format!("10:00 INFO request payload={form} from=alice");
        assert_eq!(secrets.found_in(log.as_bytes()), Some("it"), "{form}");
    }
    let short = String::from_utf8_lossy(&part[..7]).into_owned();
    assert_eq!(secrets.found_in(short.as_bytes()), None);
}

/// What must not be found, each in all forms of all its parts.
#[derive(Default)]
struct Secrets(Vec<(String, String, Vec<Vec<u8>>)>);

impl Secrets {
    fn add(&mut self, what: impl Into<String>, secret: impl AsRef<[u8]>) {
        let secret = secret.as_ref();
        let mut forms = Vec::new();
        for part in secret.windows(WINDOW) {
            let hexadecimal = hex::encode(part);
            let listed = |separator| {
                let numbers = part.iter().map(u8::to_string);
                numbers.collect::<Vec<_>>().join(separator)
            };
            let mut spaced = String::new();
            for byte in part {
                write!(spaced, "{byte:02x}, ").unwrap();
            }
            spaced.truncate(spaced.len() - 2);
            forms.extend([
                part.to_vec(),
                hexadecimal.to_uppercase().into(),
                hexadecimal.into(),
                spaced.into(),
                listed(", ").into(),
                listed(",\n    ").into(),
                part.escape_ascii().to_string().into(),
            ]);
        }
        for shift in 0..3 {
            // The last characters depend on what follows.
            let encoded = base64(&secret[shift..]);
            let whole = encoded
                .as_bytes()
                .chunks(4)
                .filter(|chunk| !chunk.contains(&b'='));
            let whole = whole.collect::<Vec<_>>().concat();
            forms.extend(whole.windows(12).map(<[u8]>::to_vec));
        }
        let text = String::from_utf8_lossy(secret).into_owned();
        self.0.push((what.into(), text, forms));
    }

    /// A text without words, of which no part stands anywhere else.
    fn say(&mut self, what: &str) -> &str {
        let mut state = what
            .bytes()
            .fold(7u64, |state, byte| state * 31 % (1 << 40) + u64::from(byte));
        let letters = std::iter::repeat_with(|| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            char::from(b'A' + (state >> 33) as u8 % 26)
        });
        self.add(what, letters.take(40).collect::<String>());
        &self.0.last().unwrap().1
    }

    /// A message in which such a text stands.
    fn chat(&mut self, what: &str) -> String {
        serde_json::json!({ "id": "1", "text": self.say(what), "at": 1 }).to_string()
    }

    /// The first of them that is there.
    fn found_in(&self, log: &[u8]) -> Option<&str> {
        let holds = |form: &Vec<u8>| log.windows(form.len()).any(|part| part == form);
        let found = self.0.iter().find(|(.., forms)| forms.iter().any(holds));
        found.map(|(what, ..)| &**what)
    }
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let bits = chunk
            .iter()
            .fold(0u32, |bits, byte| bits << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() {
                char::from(digit)
            } else {
                '='
            });
        }
    }
    text
}

/// A log in memory.
struct Keep(Arc<Mutex<Vec<u8>>>);

impl io::Write for Keep {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
