//! Web pages, and whoever else speaks HTTP.

use super::{
    attacker::{UPGRADE, get, somewhere, tcp},
    siege::{LITTLE, Siege},
};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The status with which an upgrade is answered that a page of `origin` asks `host` for.
async fn upgraded(router: SocketAddr, host: &str, origin: &str) -> String {
    let mut stream = tcp(router, somewhere(1)).await.unwrap();
    let request = UPGRADE.replace("host: rho", &format!("host: {host}"));
    let request = format!("{request}origin: {origin}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).await.unwrap();
    String::from_utf8_lossy(&status[9..]).into_owned()
}

#[test]
fn a_page_of_another_origin_does_not_get_in_even_under_a_name_of_its_own() {
    let siege = Siege::lay(&[("listen.origins", "[\"https://app.example\"]")], &[]);
    let report = siege.attack("pages of other origins", LITTLE, async |router| {
        let own = router.to_string();
        let cases = [
            ("https://app.example", own.as_str(), "101"),
            ("http://OWN", own.as_str(), "101"),
            ("https://evil.example", own.as_str(), "403"),
            ("null", own.as_str(), "403"),
            ("http://localhost:1234", own.as_str(), "403"),
            // A name of the attacker's that points at this machine by now: what it asks for is "its own" host.
            ("http://evil.example:9444", "evil.example:9444", "403"),
            ("http://evil.example", "evil.example", "403"),
            (
                "http://127.0.0.1.evil.example",
                "127.0.0.1.evil.example",
                "403",
            ),
        ];
        let mut came = Vec::new();
        for (origin, host, expected) in cases {
            let origin = origin.replace("OWN", &own);
            let status = upgraded(router, host, &origin).await;
            came.push((origin, host.to_owned(), status, expected));
        }
        came
    });
    for (origin, host, status, expected) in report.seen {
        assert_eq!(status, expected, "{origin} asks {host}");
    }
    siege.lift();
}

#[test]
fn metrics_and_status_of_a_running_node_are_for_this_machine_and_health_tells_nothing() {
    let siege = Siege::lay(&[], &[]);
    let report = siege.attack(
        "strangers at /metrics, /status and /healthz",
        LITTLE,
        async |router| {
            let mut came = Vec::new();
            for path in ["/metrics", "/status"] {
                for headers in [
                    "host: evil.example\r\n".to_owned(),
                    format!("host: {router}\r\norigin: http://evil.example\r\n"),
                    format!("host: {router}\r\nsec-fetch-site: cross-site\r\n"),
                    format!("host: {router}\r\nx-forwarded-for: 203.0.113.9\r\n"),
                    String::new(),
                ] {
                    let answer = get(router, path, &headers).await;
                    came.push((path, headers, answer));
                }
            }
            (
                came,
                get(router, "/healthz", "host: evil.example\r\n").await,
            )
        },
    );
    let (came, health) = report.seen;
    for (path, headers, answer) in came {
        assert!(
            answer.starts_with("HTTP/1.1 40"),
            "{path} {headers}: {answer}"
        );
        assert!(
            !answer.contains("nectar_") && !answer.contains("alice"),
            "{answer}"
        );
    }
    assert!(health.ends_with("\r\n\r\nok\n"), "{health}");
    siege.lift();
}
