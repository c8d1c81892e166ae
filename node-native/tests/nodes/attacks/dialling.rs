//! Records that point at where nobody should knock.

use super::siege::{LITTLE, computed, memory};
use crate::{
    home::{Home, Running},
    sockets::Sockets,
    support::{PATIENCE, free_address},
};
use nectar_sim::{World, world::Place};
use node_core::registry::Host;
use std::{
    fs::File,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

#[test]
fn a_running_node_does_not_knock_where_records_point_at_this_machine_or_private_networks() {
    // Whoever registers names writes these into their records, and a victim's record lists them as its routers.
    let here = free_address();
    let knocks = Arc::new(AtomicUsize::new(0));
    // What the others lead to may be somebody else's port.
    let local: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let others = local.map(|ip| TcpListener::bind((ip, here.port())).ok());
    let listener = TcpListener::bind(here).unwrap();
    for listener in others.into_iter().flatten().chain([listener]) {
        let counted = knocks.clone();
        std::thread::spawn(move || {
            while listener.accept().is_ok() {
                counted.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    let hosts = [
        ("this-machine", here.ip().to_string()),
        ("ten-slash-eight", "10.0.0.1".to_owned()),
        ("ipv6-loopback", "::1".to_owned()),
        ("ipv6-link-local", "fe80::1".to_owned()),
        ("metadata", "169.254.169.254".to_owned()),
        ("mapped", format!("::ffff:{}", here.ip())),
        ("by-dns", "localhost".to_owned()),
        ("cgnat", "100.64.0.1".to_owned()),
    ];
    let mut world = Sockets::new();
    let labels = hosts.each_ref().map(|(label, _)| *label);
    for (label, host) in &hosts {
        world.register(&[label], Place::Direct);
        let host = Host::parse(host).unwrap();
        world.change(label, |record| {
            let routing = record.routing.as_mut().unwrap();
            (routing.host, routing.port) = (host, here.port());
        });
    }
    world.register(&["victim"], Place::Behind(&labels));
    let home = Home::on_chain("victim", world.rpc());
    let log = home.path().join("log");
    let mut command = home.run_command(None, &["--set", "node.allow_private=false"]);
    command.env("NECTAR_LOG", "info,node_native::cli=debug");
    command.stderr(File::create(&log).unwrap());
    let running = Running::begin(command);
    let rest = memory(running.pid(), "VmRSS");
    let said = || std::fs::read_to_string(&log).unwrap();
    for label in labels {
        let refused = format!("the router {label}.nectar is offline: ");
        let told = world.wait(PATIENCE, |_| said().contains(&refused));
        assert!(told, "{label}: {}", said());
        let (_, why) = said()
            .split_once(&refused)
            .map(|(a, b)| (a.to_owned(), b.to_owned()))
            .unwrap();
        let why = why.lines().next().unwrap_or_default().to_owned();
        assert!(why.contains("may not be dialled"), "{label}: {why}");
    }
    // Nor when it tries again, and the log is not filled with what it says already.
    for label in labels {
        let tries = format!("{label}.nectar: connecting");
        let again = world.wait(PATIENCE, |_| said().matches(&tries).count() > 2);
        assert!(again, "{label}: {}", said());
        let told = format!("the router {label}.nectar is offline: ");
        assert_eq!(said().matches(&told).count(), 1, "{label}: {}", said());
    }
    assert_eq!(knocks.load(Ordering::Relaxed), 0);
    // What it cost: each record is read once, and its own by and by.
    let (reads, took) = (world.asked(), computed(running.pid()));
    let grown = memory(running.pid(), "VmHWM").saturating_sub(rest);
    println!(
        "{reads} requests to the endpoint, computed {took:?}, {} KiB",
        grown >> 10
    );
    assert!(reads <= 4 * hosts.len() + 8, "{reads}");
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert!(grown < LITTLE << 20, "{grown}");
    assert!(running.terminate().success());
    assert!(!said().contains("panicked"), "{}", said());
}
