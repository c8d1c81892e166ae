//! A name that points at a public address when it is judged, and at this machine the next time.

use super::outside::{inside, replace};
use crate::{
    home::{Home, Running},
    support::{Network, PATIENCE, direct_at},
};
use node_core::registry::Host;
use std::{
    fs::File,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// Belongs to nobody's own network: a root server of the DNS, outside.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 41, 0, 4);
/// Where the DNS server is asked.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
const PORT: u16 = 9444;

/// Counts who comes, and lets nobody stay.
fn count(address: Ipv4Addr) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind((address, PORT)).unwrap();
    let knocks = Arc::new(AtomicUsize::new(0));
    let counted = knocks.clone();
    std::thread::spawn(move || {
        while listener.accept().is_ok() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    knocks
}

/// Answers for any name: one time with a public address, the next time with this machine's, and then with both. How often it
/// was asked for an address.
fn lie() -> Arc<AtomicUsize> {
    let socket = UdpSocket::bind((RESOLVER, 53)).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut query) {
            // The name ends with an empty label; its type and class follow.
            let name = query[12..length]
                .iter()
                .position(|byte| *byte == 0)
                .unwrap();
            let question = &query[12..12 + name + 5];
            let addresses: &[Ipv4Addr] = match question[name + 1..] {
                [0, 1, ..] => match counted.fetch_add(1, Ordering::Relaxed) % 3 {
                    0 => &[PUBLIC],
                    1 => &[Ipv4Addr::LOCALHOST],
                    _ => &[Ipv4Addr::LOCALHOST, PUBLIC],
                },
                _ => &[],
            };
            let mut answer = [&query[..2], &[0x81, 0x80, 0, 1, 0]].concat();
            answer.push(addresses.len() as u8);
            answer.extend([0; 4]);
            answer.extend(question);
            for address in addresses {
                // The name of the question, A, IN, valid for no time.
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                answer.extend(address.octets());
            }
            let _ = socket.send_to(&answer, from);
        }
    });
    asked
}

#[test]
fn a_name_that_is_bound_again_after_it_was_judged_leads_nobody_to_this_machine() {
    let test =
        "rebinding::a_name_that_is_bound_again_after_it_was_judged_leads_nobody_to_this_machine";
    if !inside(test, &[PUBLIC]) {
        return;
    }
    let mut record = direct_at("rebinding", (PUBLIC, PORT).into());
    record.routing.as_mut().unwrap().host = Host::parse("rebinding.example").unwrap();
    let network = Network::default()
        .known("rebinding", record)
        .indirect("victim", &["rebinding"]);
    let home = Home::new(&network, "victim");
    replace(
        "/etc/resolv.conf",
        &home.path().join("resolv.conf"),
        &format!("nameserver {RESOLVER}\n"),
    );
    replace(
        "/etc/nsswitch.conf",
        &home.path().join("nsswitch.conf"),
        "hosts: dns\n",
    );
    let asked = lie();
    let [public, here] = [PUBLIC, Ipv4Addr::LOCALHOST].map(count);
    let strict = ["--set", "node.allow_private=false"];
    for _ in 0..3 {
        let ping = ["ping", "rebinding.nectar", "--count", "1"];
        home.failure(&[&ping[..], &strict].concat());
    }
    let pinged = public.load(Ordering::Relaxed);
    assert!(pinged > 0, "what was judged was dialled");
    let often = ["--set", "limits.backoff_max=250ms"];
    let mut command = home.run_command(None, &[strict, often].concat());
    let log = home.path().join("log");
    command.stderr(File::create(&log).unwrap());
    let running = Running::begin(command);
    let begun = Instant::now();
    let said = || std::fs::read_to_string(&log).unwrap();
    while public.load(Ordering::Relaxed) < pinged + 6 || asked.load(Ordering::Relaxed) < 12 {
        assert!(
            begun.elapsed() < PATIENCE,
            "{asked:?} questions; {}",
            said()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(here.load(Ordering::Relaxed), 0, "{}", said());
    assert!(running.terminate().success());
    assert!(!said().contains("panicked"), "{}", said());
    println!("{asked:?} answers, {public:?} of them dialled");
}
