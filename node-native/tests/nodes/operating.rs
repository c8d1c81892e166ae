//! What `docs/OPERATING.md` says of the program, and the unit beside it.

use crate::support::{Network, get, soon};
use std::{collections::BTreeSet, path::Path, process::Command};

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::fs::read_to_string(root.join(path)).unwrap()
}

#[tokio::test]
async fn the_operators_document_has_every_metric_with_its_type_and_no_other() {
    let network = Network::default().direct("alice");
    let _alice = network.start("alice").await;
    let address = network.address("alice");
    let exposed = soon("metrics", get(address, "/metrics")).await;
    let labels: BTreeSet<&str> = exposed
        .lines()
        .filter_map(|line| line.split_once("{code=\"")?.1.split('"').next())
        .collect();
    let mut exposed: Vec<_> = exposed
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let document = read("docs/OPERATING.md");
    let mut documented: Vec<_> = document
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("| `nectar_")?.split_once("` | ")?;
            let at = line.find(name)? - "nectar_".len();
            Some((
                &line[at..][..name.len() + "nectar_".len()],
                rest.split(" | ").next()?,
            ))
        })
        .collect();
    exposed.sort_unstable();
    documented.sort_unstable();
    assert!(!exposed.is_empty());
    assert_eq!(documented, exposed, "document and program");
    let (_, values) = document.split_once("The label `code`").unwrap();
    let (values, _) = values.split_once("What was refused").unwrap();
    let values: BTreeSet<&str> = values.split('`').skip(1).step_by(2).collect();
    assert_eq!(values, labels, "values of the label");
}

/// Whether the command line that follows `nectar` is understood: with `--help` at its end it does nothing but that.
fn understood(line: &str) -> Result<(), String> {
    let output = Command::new(env!("CARGO_BIN_EXE_nectar"))
        .args(line.split_whitespace())
        .arg("--help")
        .env_clear()
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn every_command_that_the_operators_document_shows_is_understood() {
    let document = read("docs/OPERATING.md");
    let commands: Vec<&str> = document
        .lines()
        .filter_map(|line| line.strip_prefix("nectar "))
        .map(|line| line.split_once(" #").map_or(line, |(command, _)| command))
        .collect();
    assert!(commands.len() >= 10, "{commands:?}");
    for command in commands {
        if let Err(said) = understood(command) {
            panic!("nectar {command}: {said}");
        }
    }
    assert!(understood("run --chek").is_err());
}

#[test]
fn the_operators_document_shows_what_peers_may_cost_as_the_program_says_it() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_nectar"))
        .args(["run", "--check", "--port", "9444"])
        .current_dir(directory.path())
        .env_clear()
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let (_, cost) = said.split_once("\nmemory ").unwrap();
    let shown = format!("```text\nmemory {cost}```\n");
    assert!(
        read("docs/OPERATING.md").contains(&shown),
        "the document should show:\n{shown}"
    );
}

#[cfg(target_os = "linux")]
#[test]
fn a_node_that_may_open_fewer_files_than_connections_can_come_says_so_with_the_remedy() {
    use crate::home::{Home, Running};

    let network = Network::default().direct("rho");
    let home = Home::new(&network, "rho");
    let address = network.address("rho");
    let limited = |command: &Command, most: &str| {
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-c", "ulimit -n \"$0\" && exec \"$@\"", most])
            .arg(command.get_program())
            .args(command.get_args())
            .current_dir(home.path())
            .env_clear();
        shell
    };
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    for (most, connections, enough) in [
        ("300", "300", false),
        ("300", "100", true),
        ("1000", "300", true),
    ] {
        let settings = [&format!("--set=listen.connections={connections}")[..]];
        let check = ["run", "--check", "--address", &host, "--port", &port];
        let check = home.nectar(&[&check[..], &settings].concat());
        let output = limited(&check, most).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let said = String::from_utf8(output.stdout).unwrap();
        let warned = format!("files       warning: only {most} may be open");
        let told = format!("files       {most} may be open, sockets included");
        assert!(
            said.contains(if enough { &told } else { &warned }),
            "{said}"
        );

        let mut command = limited(&home.run_command(Some(address), &settings), most);
        let log = home.path().join("log");
        command.stderr(std::fs::File::create(&log).unwrap());
        drop(Running::begin(command));
        let log = std::fs::read_to_string(log).unwrap();
        let warned = log.contains("WARN") && log.contains("LimitNOFILE");
        assert_eq!(warned, !enough, "{log}");
    }
}

#[test]
fn the_unit_starts_a_command_that_is_understood_with_settings_that_exist() {
    let unit = read("node-native/packaging/nectar.service");
    let values = |key: &str| {
        let key = format!("{key}=");
        let values = unit.lines().filter_map(|line| line.strip_prefix(&key));
        values.map(str::to_owned).collect::<Vec<_>>()
    };
    let start = values("ExecStart").pop().unwrap();
    let (program, command) = start.split_once(' ').unwrap();
    assert!(program.ends_with("/nectar"), "{program}");
    assert_eq!(understood(command), Ok(()));
    // A variable that means nothing is warned of.
    let environment = values("Environment");
    assert!(environment.len() >= 2, "{environment:?}");
    let directory = tempfile::tempdir().unwrap();
    let check = |environment: &[String]| {
        let output = Command::new(env!("CARGO_BIN_EXE_nectar"))
            .args(["run", "--check"])
            .current_dir(directory.path())
            .env_clear()
            .envs(environment.iter().filter_map(|pair| pair.split_once('=')))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert_eq!(check(&environment), "");
    assert!(check(&["NECTAR_NODE_KEY=x".to_owned()]).contains("warning"));
    // What it says of the program in numbers.
    let number = |key: &str| values(key).pop().unwrap().parse::<u64>().unwrap();
    assert!(
        number("TimeoutStopSec") > 3,
        "as long as a goodbye may take"
    );
    let usage = Command::new(env!("CARGO_BIN_EXE_nectar"))
        .args(["run", "--no-such-option"])
        .output()
        .unwrap();
    let exit = usage.status.code().unwrap();
    assert_eq!(number("RestartPreventExitStatus"), exit as u64);
    let example = read("node-native/nectar.example.toml");
    let connections = example
        .lines()
        .find_map(|line| line.strip_prefix("connections = "));
    assert!(number("LimitNOFILE") > 2 * connections.unwrap().parse::<u64>().unwrap());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/nectar.service");
    // Older ones do not know all of it.
    let version = Command::new("systemd-analyze").arg("--version").output();
    let version = version.ok().and_then(|said| {
        let said = String::from_utf8(said.stdout).ok()?;
        said.split_whitespace().nth(1)?.parse::<u32>().ok()
    });
    if version.is_some_and(|version| version >= 250) {
        let mut verify = Command::new("systemd-analyze");
        let verified = verify.arg("verify").arg(path).output().unwrap();
        let said = String::from_utf8(verified.stderr).unwrap();
        // It looks for the program, too.
        let wrong = said
            .lines()
            .filter(|line| !line.contains("/usr/local/bin/nectar"));
        assert_eq!(wrong.collect::<Vec<_>>(), [""; 0]);
    }
}

#[test]
fn the_container_is_built_of_all_that_the_workspace_needs_by_a_compiler_that_is_new_enough() {
    let file = read("node-native/packaging/Containerfile");
    let copied: BTreeSet<&str> = file
        .lines()
        .filter(|line| line.starts_with("COPY ") && !line.contains("--from"))
        .flat_map(|line| line.split_whitespace().skip(1))
        .collect();
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--locked",
            "--no-deps",
            "--offline",
            "--format-version=1",
        ])
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let root = Path::new(metadata["workspace_root"].as_str().unwrap());
    for package in metadata["packages"].as_array().unwrap() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let within = manifest.strip_prefix(root).unwrap();
        let directory = within.components().next().unwrap().as_os_str();
        assert!(copied.contains(directory.to_str().unwrap()), "{within:?}");
        let least = package["rust_version"].as_str().unwrap();
        let rust = file
            .lines()
            .find_map(|line| line.strip_prefix("ARG RUST="))
            .unwrap();
        let version = |text: &str| -> Vec<u32> {
            text.split('.').map(|part| part.parse().unwrap()).collect()
        };
        assert!(version(rust) >= version(least), "{rust}");
    }
    for file in ["Cargo.toml", "Cargo.lock"] {
        assert!(copied.contains(file), "{file}");
    }
}
