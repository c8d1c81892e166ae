//! A name that points at a public address when it is judged, and at this machine the next time. A record that points at what is
//! public, but this machine's own or a neighbour's.

use super::outside::{inside, replace};
use crate::{
    home::{Home, Running},
    support::{Network, PATIENCE, direct_at},
};
use node_core::registry::Host;
use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, UdpSocket},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, channel},
    },
    time::{Duration, Instant},
};

/// Belongs to nobody's own network: a root server of the DNS, on another machine.
const PUBLIC: Ipv4Addr = Ipv4Addr::new(198, 41, 0, 4);
/// Public addresses of this machine, of one network with [`PUBLIC`].
const OWN: [Ipv4Addr; 2] = [Ipv4Addr::new(198, 41, 0, 9), Ipv4Addr::new(198, 41, 0, 10)];
/// This machine's own network: its address in there, and the other machine's.
const OWN_V6: Ipv6Addr = Ipv6Addr::new(0x2a00, 0x1450, 0, 0, 0, 0, 0, 7);
const NEIGHBOUR: Ipv6Addr = Ipv6Addr::new(0x2a00, 0x1450, 0, 0, 0, 0, 0, 1);
/// The other machine's in a network of its own.
const PUBLIC_V6: Ipv6Addr = Ipv6Addr::new(0x2a00, 0x1450, 0, 1, 0, 0, 0, 1);
/// Where the DNS server is asked.
const RESOLVER: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 53);
const PORT: u16 = 9444;

/// Whether this process is the other machine.
const BEYOND: &str = "NECTAR_ATTACKS_BEYOND";

/// Another machine on the same wire, with addresses that are not this one's.
struct Beyond {
    process: Child,
    knocks: Arc<Mutex<Vec<IpAddr>>>,
}

impl Beyond {
    /// The process of this test that is the other machine never comes back from here: it lets people in until this one ends.
    fn begin(test: &str) -> Self {
        if std::env::var_os(BEYOND).is_some() {
            serve_beyond();
        }
        let mut command = Command::new("unshare");
        command.args(["--net", "--"]);
        command.arg(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("attacks::{test}"), "--nocapture"]);
        command.env(BEYOND, "1");
        command.stdin(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.stdout(Stdio::null()).spawn().unwrap();
        let knocks = Arc::new(Mutex::new(Vec::new()));
        let said = heard(&mut process, knocks.clone());
        let wait = |wanted: &str| assert_eq!(said.recv_timeout(PATIENCE).unwrap(), wanted);
        wait("begun");
        let far = process.id().to_string();
        ip(&[
            "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", &far,
        ]);
        ip(&["link", "set", "near", "up"]);
        for own in OWN {
            ip(&["address", "add", &format!("{own}/24"), "dev", "near"]);
        }
        ip(&[
            "address",
            "add",
            &format!("{OWN_V6}/64"),
            "dev",
            "near",
            "nodad",
        ]);
        ip(&["route", "add", "default", "via", &NEIGHBOUR.to_string()]);
        wait("listens");
        Self { process, knocks }
    }

    /// How often somebody came to this address of it.
    fn knocks(&self, at: impl Into<IpAddr>) -> usize {
        let at = at.into();
        let knocks = self.knocks.lock().unwrap();
        knocks.iter().filter(|knock| **knock == at).count()
    }
}

impl Drop for Beyond {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What the other machine says. It says who knocks at which of its addresses.
fn heard(process: &mut Child, knocks: Arc<Mutex<Vec<IpAddr>>>) -> Receiver<String> {
    let lines = BufReader::new(process.stderr.take().unwrap()).lines();
    let (tell, said) = channel();
    std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            match line.strip_prefix("knock ") {
                Some(at) => knocks.lock().unwrap().push(at.parse().unwrap()),
                None => drop(tell.send(line)),
            }
        }
    });
    said
}

fn serve_beyond() -> ! {
    // Whoever began it has gone.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read(&mut [0]);
        std::process::exit(0);
    });
    eprintln!("begun");
    let begun = Instant::now();
    while !try_ip(&["link", "set", "far", "up"]) {
        assert!(begun.elapsed() < PATIENCE, "no wire");
        std::thread::sleep(Duration::from_millis(10));
    }
    ip(&["address", "add", &format!("{PUBLIC}/24"), "dev", "far"]);
    for address in [NEIGHBOUR, PUBLIC_V6] {
        ip(&[
            "address",
            "add",
            &format!("{address}/64"),
            "dev",
            "far",
            "nodad",
        ]);
    }
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, PORT)).unwrap();
    eprintln!("listens");
    loop {
        let (stream, _) = listener.accept().unwrap();
        eprintln!("knock {}", stream.local_addr().unwrap().ip().to_canonical());
    }
}

fn ip(args: &[&str]) {
    assert!(try_ip(args), "{args:?}");
}

fn try_ip(args: &[&str]) -> bool {
    Command::new("ip")
        .args(args)
        .output()
        .unwrap()
        .status
        .success()
}

/// Counts who comes, and lets nobody stay.
fn count(address: impl Into<IpAddr>) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind((address.into(), PORT)).unwrap();
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
    if !inside(test, &[]) {
        return;
    }
    let beyond = Beyond::begin(test);
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
    let here = count(Ipv4Addr::LOCALHOST);
    let strict = ["--set", "node.allow_private=false"];
    for _ in 0..3 {
        let ping = ["ping", "rebinding.nectar", "--count", "1"];
        home.failure(&[&ping[..], &strict].concat());
    }
    let pinged = beyond.knocks(PUBLIC);
    assert!(pinged > 0, "what was judged was dialled");
    let often = ["--set", "limits.backoff_max=250ms"];
    let mut command = home.run_command(None, &[strict, often].concat());
    let log = home.path().join("log");
    command.stderr(File::create(&log).unwrap());
    let running = Running::begin(command);
    let begun = Instant::now();
    let said = || std::fs::read_to_string(&log).unwrap();
    while beyond.knocks(PUBLIC) < pinged + 6 || asked.load(Ordering::Relaxed) < 12 {
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
    let dialled = beyond.knocks(PUBLIC);
    println!("{asked:?} answers, {dialled} of them dialled");
}

#[test]
fn a_record_that_points_at_an_own_public_address_or_at_a_neighbour_leads_nobody_past_the_firewall()
{
    let test = "rebinding::\
        a_record_that_points_at_an_own_public_address_or_at_a_neighbour_leads_nobody_past_the_firewall";
    if !inside(test, &[]) {
        return;
    }
    let beyond = Beyond::begin(test);
    let here = count(Ipv6Addr::UNSPECIFIED);
    let refused: [(&str, IpAddr); 4] = [
        ("own", OWN[0].into()),
        // Dialled from the first of the two.
        ("second", OWN[1].into()),
        ("own-v6", OWN_V6.into()),
        ("neighbour", NEIGHBOUR.into()),
    ];
    let dialled: [(&str, IpAddr); 2] = [("public", PUBLIC.into()), ("public-v6", PUBLIC_V6.into())];
    let mut network = Network::default();
    for (label, at) in refused.iter().chain(&dialled) {
        let mut record = direct_at(label, (PUBLIC, PORT).into());
        record.routing.as_mut().unwrap().host = Host::parse(&at.to_string()).unwrap();
        network = network.known(label, record);
    }
    let home = Home::new(&network.indirect("victim", &["public"]), "victim");
    let ping = |label: &str, allow_private: bool| {
        let (name, allowed) = (
            format!("{label}.nectar"),
            format!("node.allow_private={allow_private}"),
        );
        home.failure(&["ping", &name, "--count", "1", "--set", &allowed])
    };
    for (label, at) in refused {
        let (_, why) = ping(label, false);
        assert!(why.contains("--allow-private"), "{label}: {why}");
        assert_eq!(beyond.knocks(at), 0, "{label}");
    }
    assert_eq!(here.load(Ordering::Relaxed), 0);
    for (label, at) in dialled {
        let (_, why) = ping(label, false);
        assert!(!why.contains("--allow-private"), "{label}: {why}");
        assert!(beyond.knocks(at) > 0, "{label}: {why}");
    }
    // Whoever means it gets there.
    for (label, at) in refused {
        let before = here.load(Ordering::Relaxed) + beyond.knocks(at);
        ping(label, true);
        let after = here.load(Ordering::Relaxed) + beyond.knocks(at);
        assert!(after > before, "{label}");
    }
}
