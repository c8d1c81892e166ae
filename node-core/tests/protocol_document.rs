//! `docs/PROTOCOL.md` says what the code does: its tables are compared with the code's, its worked example is made again.
//!
//! `UPDATE=1 cargo test -p node-core --test protocol_document` writes the tables of errors and limits and the worked
//! example anew. Everything else in the document is written by hand, and a test says what is missing there.
#![cfg(not(target_arch = "wasm32"))]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use bytes::{Bytes, BytesMut};
use common::{Actor, NOW, admit, stranger};
use node_core::{
    Code, Instant, Limits, channel, crypto, name, registry,
    session::{self, Session, SessionConfig},
    wire::{frame, handshake},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// Bytes on a line of a hexadecimal block.
const LINE: usize = 48;

#[test]
fn the_error_table_is_the_codes() {
    let rows: Vec<String> = Code::ALL
        .iter()
        .map(|code| {
            format!(
                "| {} | `{}` | {} | {} | {} |",
                code.as_u16(),
                code.name(),
                lower(&code.fault()),
                lower(&code.retry()),
                code.meaning()
            )
        })
        .collect();
    assert_table("| number | name | fault | retry | meaning |", &rows);
}

#[test]
fn the_tables_of_limits_are_the_defaults_of_every_field() {
    let source = node_core_source("limits.rs");
    let rows = limit_rows(&Limits::default(), &source);
    assert_table("| limit | default | of what |", &rows);
    let source = node_core_source("registry/config.rs");
    let rows = limit_rows(&registry::ResolverLimits::default(), &source);
    assert_table("| limit | default | of a chain read |", &rows);
}

#[test]
fn the_constants_are_those_of_the_code() {
    let rows = table("| constant | value | |");
    let documented: BTreeMap<&str, usize> = rows
        .iter()
        .map(|row| {
            let cells = cells(row);
            let value = cells[1].replace(',', "").parse().unwrap();
            (cells[0].trim_matches('`'), value)
        })
        .collect();
    let actual = BTreeMap::from([
        ("LABEL_MIN", name::LABEL_MIN),
        ("LABEL_MAX", name::LABEL_MAX),
        ("HELLO_BLOCK", handshake::HELLO_BLOCK),
        ("HELLO_BLOCKS_MAX", handshake::HELLO_BLOCKS_MAX),
        ("USER_AGENT_MAX", handshake::USER_AGENT_MAX),
        ("AGENT_MAX", frame::AGENT_MAX),
        ("MAX_RECORD", channel::MAX_RECORD),
        ("MAX_FRAMES", channel::MAX_FRAMES),
        ("RECORDS_PER_KEY", channel::RECORDS_PER_KEY as usize),
        ("INLINE", frame::INLINE),
        ("CHARGE", frame::CHARGE as usize),
        ("PROTOCOL_MAX", frame::PROTOCOL_MAX),
        ("METADATA_MAX", frame::METADATA_MAX),
        ("ERROR_TEXT_MAX", frame::ERROR_TEXT_MAX),
        ("INBOX_INITIAL", frame::INBOX_INITIAL as usize),
        ("CIRCUIT_MTU", session::CIRCUIT_MTU),
        ("SHARED_RECORD", session::SHARED_RECORD),
        ("ROUTERS_MAX", registry::ROUTERS_MAX),
        ("DNS_MAX", registry::DNS_MAX),
    ]);
    assert_eq!(documented, actual);
}

#[test]
fn every_frame_type_has_its_row_and_its_example() {
    let known = frame_types_of_the_code();
    assert!(known.len() > 20, "the frame types were found: {known:02x?}");

    let rows: BTreeSet<u8> = table("| type | frame | body |")
        .iter()
        .map(|row| u8::from_str_radix(cells(row)[0].trim_matches('`'), 16).unwrap())
        .collect();
    assert_eq!(rows, known, "rows of the table of frames");

    let mut examples = BTreeSet::new();
    for line in block("frames").lines() {
        let example = unhex(line);
        let mut rest = Bytes::from(example.clone());
        let (kind, length, parsed) = frame::next(&mut rest).unwrap().unwrap();
        assert_eq!((length, rest.len()), (example.len(), 0), "{line}");
        let parsed = parsed.unwrap();
        assert_eq!(
            hex::encode(parsed.encode()),
            hex::encode(example),
            "{parsed:?}"
        );
        examples.insert(kind);
    }
    assert_eq!(examples, known, "examples of frames");
}

#[test]
fn the_worked_example_is_what_the_code_does() {
    for (title, content) in example() {
        assert_block(title, &content);
    }
}

#[test]
fn the_worked_example_holds_for_an_implementation_that_is_not_ours() {
    let value = |key: &str| {
        let values = block("values");
        let found = values
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(" = "))
            .map(unhex);
        found.unwrap_or_else(|| panic!("the example has no value {key:?}"))
    };
    let bytes32 = |key: &str| <[u8; 32]>::try_from(value(key)).unwrap();
    let padded = |title: &str| {
        let mut hello = unhex(&block(title));
        hello.resize(256, 0);
        hello
    };

    let (mut dialling, message1) = stranger::Initiator::dial(
        1,
        bytes32("initiator x25519 secret"),
        bytes32("initiator mlkem d"),
        bytes32("initiator mlkem z"),
    );
    assert_eq!(message1, unhex(&block("message 1")));
    let says = |secret, context, hello| stranger::Speech::honest(secret, context, hello);
    let (answered, message2) = stranger::Responder::answer(
        &message1,
        bytes32("responder x25519 secret"),
        bytes32("responder mlkem m"),
        &says(
            bytes32("responder ed25519 secret"),
            stranger::AS_RESPONDER,
            padded("hello 2"),
        ),
    );
    assert_eq!(message2, unhex(&block("message 2")));
    assert!(dialling.hear(&message2).is_some());
    let (message3, noise) = dialling.say(&says(
        bytes32("initiator ed25519 secret"),
        stranger::AS_INITIATOR,
        padded("hello 3"),
    ));
    assert_eq!(message3, unhex(&block("message 3")));
    drop(answered.hear(&message3));

    let (to_responder, to_initiator, id) = noise.finish("session id");
    assert_eq!(noise.h, bytes32("final h"));
    assert_eq!(to_responder, bytes32("key I to R"));
    assert_eq!(to_initiator, bytes32("key R to I"));
    assert_eq!(id[..16], value("sid"));
    for (side, key) in [("initiator", to_responder), ("responder", to_initiator)] {
        let record = unhex(&block(&format!("{side} record 0")));
        assert_eq!(record[0], 0x10);
        let frames = stranger::aead_open(&key, 0, &[0x10], &record[1..]).unwrap();
        assert_eq!(frames, unhex(&block(&format!("{side} frames"))));
        assert_eq!(
            frames[..3],
            [1, 0, if side == "initiator" { 0x56 } else { 0x61 }]
        );
        assert_eq!(frames[4..20], value("sid"));
        assert_eq!(frames[40..56], value(&format!("{side} instance")));
    }
}

/// Every block of the worked example, made from its seeds.
fn example() -> Vec<(&'static str, String)> {
    let (mut alice, bob) = (Actor::named("alice", 0xa1), Actor::named("bob", 0xb0));
    alice.local.hello.head = Some(channel::ChainHead {
        number: 19_000_000,
        hash: [0xbb; 32],
    });
    let (seed1, seed2) = ([0x11; 32], [0x22; 32]);

    let (dialling, message1) =
        channel::initiator::start(alice.local(), bob.name(), bob.key(), seed1);
    let answering = channel::responder::start(bob.local(), &message1, seed2, NOW).unwrap();
    let signed2 = *answering.request();
    let (message2, answered) = answering.signed(bob.sign(&signed2)).unwrap();
    let concluding = dialling.handle(&message2, NOW).unwrap();
    let signed3 = *concluding.request().unwrap();
    let (message3, ours) = concluding.signed(Some(alice.sign(&signed3))).unwrap();
    let theirs = admit(answered, &message3).unwrap();
    let transcript = *ours.transcript();
    let sid = ours.export("session id")[..16].to_vec();

    // What our code keeps to itself comes from the implementation that is not ours.
    let (mut mirror, _) = stranger::Initiator::dial(
        1,
        stranger::from_seed(seed1, "x25519"),
        stranger::from_seed(seed1, "mlkem d"),
        stranger::from_seed(seed1, "mlkem z"),
    );
    let (_, hello2, _) = mirror.hear(&message2).unwrap();
    let hello3 = heard_by_bob(&message1, &bob, seed2, &hello2, &message3);
    let speech = stranger::Speech::honest(alice.secret, stranger::AS_INITIATOR, hello3.clone());
    let (to_responder, to_initiator, _) = mirror.say(&speech).1.finish("");

    let instance = |process: u8, peer: &Actor| {
        let parts: [&[u8]; 2] = [b"nectar/1 instance", &peer.name().to_bytes()];
        crypto::hmac(&[process; 32], &parts)[..16].to_vec()
    };
    let instances = (instance(0x33, &bob), instance(0x44, &alice));
    let config = |instance: &[u8]| SessionConfig {
        limits: Arc::new(Limits::default()),
        mtu: channel::MAX_RECORD,
        instance: instance.try_into().unwrap(),
        agent: "nectar/test".into(),
        secret: [5; 32].into(),
    };
    let now = Instant::default();
    let mut events = Vec::<session::Event<()>>::new();
    let mut begun = Session::begin(ours, config(&instances.0), now);
    let record1 = begun.poll_transmit(now, false, &mut events).unwrap();
    let mut channel2 = theirs;
    let frames1 = channel2.open(BytesMut::from(&record1[..])).unwrap();
    let mut rest = Bytes::from(frames1.to_vec());
    let Some((_, _, Some(frame::Frame::Attach(attach)))) = frame::next(&mut rest).unwrap() else {
        panic!("the first frame is an ATTACH")
    };
    let mut accepted =
        Session::accept(channel2, config(&instances.1), &attach, now, &mut events).unwrap();
    let record2 = accepted.poll_transmit(now, false, &mut events).unwrap();
    begun
        .handle_record(record2.clone(), now, &mut events)
        .unwrap();
    assert!(begun.is_attached() && accepted.is_attached());
    let frames2 = stranger::aead_open(&to_initiator, 0, &[0x10], &record2[1..]).unwrap();

    let secret = |seed, purpose| stranger::from_seed(seed, purpose).to_vec();
    let values = [
        ("initiator name", alice.name().to_bytes()),
        ("initiator ed25519 secret", alice.secret.to_vec()),
        ("initiator ed25519 key", alice.key().to_vec()),
        ("initiator x25519 secret", secret(seed1, "x25519")),
        ("initiator mlkem d", secret(seed1, "mlkem d")),
        ("initiator mlkem z", secret(seed1, "mlkem z")),
        ("responder name", bob.name().to_bytes()),
        ("responder ed25519 secret", bob.secret.to_vec()),
        ("responder ed25519 key", bob.key().to_vec()),
        ("responder x25519 secret", secret(seed2, "x25519")),
        ("responder mlkem m", secret(seed2, "mlkem m")),
        ("h signed in message 2", signed2.h.to_vec()),
        ("HASH(s, hello) in message 2", signed2.binding.to_vec()),
        ("h signed in message 3", signed3.h.to_vec()),
        ("HASH(s, hello) in message 3", signed3.binding.to_vec()),
        ("final h", transcript.to_vec()),
        ("key I to R", to_responder.to_vec()),
        ("key R to I", to_initiator.to_vec()),
        ("sid", sid),
        ("initiator instance", instances.0),
        ("responder instance", instances.1),
    ];
    let values: Vec<String> = values
        .iter()
        .map(|(key, value)| format!("{key} = {}", hex::encode(value)))
        .collect();
    vec![
        ("values", values.join("\n")),
        ("message 1", lines(&message1)),
        ("hello 2", lines(unpadded(&hello2))),
        ("message 2", lines(&message2)),
        ("hello 3", lines(unpadded(&hello3))),
        ("message 3", lines(&message3)),
        ("initiator frames", lines(&frames1)),
        ("initiator record 0", lines(&record1)),
        ("responder frames", lines(&frames2)),
        ("responder record 0", lines(&record2)),
    ]
}

/// The plaintext of hello₃, which only the responder can read.
fn heard_by_bob(
    message1: &[u8],
    bob: &Actor,
    seed: [u8; 32],
    hello2: &[u8],
    message3: &[u8],
) -> Vec<u8> {
    let speech = stranger::Speech::honest(bob.secret, stranger::AS_RESPONDER, hello2.to_vec());
    let (answered, _) = stranger::Responder::answer(
        message1,
        stranger::from_seed(seed, "x25519"),
        stranger::from_seed(seed, "mlkem m"),
        &speech,
    );
    answered.hear(message3).1
}

fn unpadded(hello: &[u8]) -> &[u8] {
    let length = usize::from(u16::from_be_bytes([hello[0], hello[1]]));
    &hello[..2 + length]
}

/// `| name | default | what |` for every field, from the fields themselves and their doc comments.
fn limit_rows(limits: &impl Debug, source: &str) -> Vec<String> {
    let text = format!("{limits:?}");
    let fields = text
        .split_once(" { ")
        .unwrap()
        .1
        .strip_suffix(" }")
        .unwrap();
    fields
        .split(", ")
        .map(|field| {
            let (name, value) = field.split_once(": ").unwrap();
            let what = doc_of(source, name);
            format!("| `{name}` | {} | {what} |", readable(value))
        })
        .collect()
}

/// The doc comment of a field.
fn doc_of(source: &str, field: &str) -> String {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let at = lines
        .iter()
        .position(|line| line.starts_with(&format!("pub {field}:")))
        .unwrap_or_else(|| panic!("{field} is a public field"));
    let mut text: Vec<&str> = lines[..at]
        .iter()
        .rev()
        .map_while(|line| line.strip_prefix("/// "))
        .collect();
    text.reverse();
    assert!(!text.is_empty(), "{field} says what it bounds");
    text.join(" ")
}

/// `30s` as `30 s`, `65536` as `65,536`.
fn readable(value: &str) -> String {
    let digits = value
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(value.len());
    let (number, unit) = value.split_at(digits);
    let mut out = String::new();
    for (at, digit) in number.chars().enumerate() {
        let whole = !number.contains('.');
        if whole && at > 0 && (number.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if !unit.is_empty() {
        out.push(' ');
        out.push_str(unit);
    }
    out
}

/// The numbers of all frames, as the encoder has them.
fn frame_types_of_the_code() -> BTreeSet<u8> {
    let mut sources = Vec::new();
    collect(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src/wire"),
        &mut sources,
    );
    sources
        .iter()
        .flat_map(|file| {
            let text = fs::read_to_string(file).unwrap();
            let numbers: Vec<u8> = text
                .lines()
                .filter(|line| line.trim_start().starts_with("Self::"))
                .filter_map(|line| line.split_once("=> 0x")?.1.strip_suffix(','))
                .map(|number| u8::from_str_radix(number, 16).unwrap())
                .collect();
            numbers
        })
        .collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, files);
        } else {
            files.push(path);
        }
    }
}

fn node_core_source(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src").join(file)).unwrap()
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOL.md")
}

fn document() -> String {
    fs::read_to_string(path()).unwrap()
}

/// The rows of the table with this header.
fn table(header: &str) -> Vec<String> {
    let document = document();
    let header_line = format!("\n{header}\n");
    let mut found = document.split(&header_line);
    let (_, after) = (found.next(), found.next());
    assert!(found.next().is_none(), "one table has the header {header}");
    after
        .unwrap_or_else(|| panic!("the document has a table {header}"))
        .lines()
        .skip(1)
        .take_while(|line| line.starts_with('|'))
        .map(str::to_owned)
        .collect()
}

fn assert_table(header: &str, rows: &[String]) {
    if updating() {
        let old = table(header);
        let rule = "|---".repeat(cells(header).len()) + "|";
        replace(
            &[&[header.to_owned(), rule.clone()][..], &old]
                .concat()
                .join("\n"),
            &[&[header.to_owned(), rule][..], rows].concat().join("\n"),
        );
    }
    let documented = table(header);
    for row in rows {
        assert!(
            documented.contains(row),
            "missing or different:\n{row}\n{HINT}"
        );
    }
    assert_eq!(
        documented.len(),
        rows.len(),
        "rows beyond the code's. {HINT}"
    );
}

/// The content of the block that begins with "```hex title".
fn block(title: &str) -> String {
    let document = document();
    let (_, after) = document
        .split_once(&format!("```hex {title}\n"))
        .unwrap_or_else(|| panic!("the document has a block {title:?}"));
    after.split_once("```").unwrap().0.trim_end().to_owned()
}

fn assert_block(title: &str, content: &str) {
    if updating() {
        let (old, new) = (block(title), content);
        let begin = format!("```hex {title}\n");
        let old = if old.is_empty() { old } else { old + "\n" };
        replace(&format!("{begin}{old}```"), &format!("{begin}{new}\n```"));
    }
    assert!(
        block(title) == content,
        "the block {title:?} of the worked example is now\n{content}\n{HINT}"
    );
}

const HINT: &str = "If the protocol is meant to change so: UPDATE=1 cargo test -p node-core --test protocol_document";

fn updating() -> bool {
    std::env::var_os("UPDATE").is_some()
}

fn replace(old: &str, new: &str) {
    static WRITING: Mutex<()> = Mutex::new(());
    let _guard = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
    let document = document();
    assert!(document.contains(old), "not in the document:\n{old}");
    // Moved into place, because the other tests read it meanwhile.
    let draft = path().with_extension("md.new");
    fs::write(&draft, document.replacen(old, new, 1)).unwrap();
    fs::rename(draft, path()).unwrap();
}

fn cells(row: &str) -> Vec<&str> {
    let inner = row.trim_matches('|');
    inner.split('|').map(str::trim).collect()
}

fn lines(bytes: &[u8]) -> String {
    let lines: Vec<String> = bytes.chunks(LINE).map(hex::encode).collect();
    lines.join("\n")
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    hex::decode(digits).unwrap()
}

fn lower(value: &impl Debug) -> String {
    format!("{value:?}").to_lowercase()
}
