//! What those who watch the agent see: each packet counted where it went, readiness with the link.

use super::{datagrams, lab, linked, runtime};
use crate::support::netns::Lab;
use crate::support::peer::Peer;
use crate::support::process::{Agent, directory};
use nufw_common::observe::Scrape;
use nufw_proto::gateway::{KnownAddresses, ToAgent, Verdict};
use nufw_proto::{Batch, ConnId, Mark};
use std::io::{Read as _, Write as _};
use std::time::Duration;

/// How often is looked, and how many times at most.
const LOOK: Duration = Duration::from_millis(50);
const LOOKS: usize = 600;

fn get(lab: &Lab, path: &'static str) -> String {
    lab.gateway.run(move || {
        let mut stream = std::net::TcpStream::connect("127.0.0.1:9641").unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text
    })
}

fn scrape(lab: &Lab) -> Scrape {
    Scrape::parse(get(lab, "/metrics").split_once("\r\n\r\n").unwrap().1).unwrap()
}

/// Waits until a number is told.
async fn told(lab: &Lab, name: &str, labels: &[(&str, &str)], wanted: impl Fn(f64) -> bool) {
    for _ in 0..LOOKS {
        if scrape(lab).get(name, labels).is_some_and(&wanted) {
            return;
        }
        tokio::time::sleep(LOOK).await;
    }
    panic!("{name} {labels:?} is {:?}", scrape(lab).get(name, labels));
}

#[expect(clippy::float_cmp, reason = "counts are whole numbers far below 2^53")]
fn exactly(count: f64) -> impl Fn(f64) -> bool {
    move |found| found == count
}

#[test]
fn each_packet_is_counted_where_it_went() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory(
            "[queue]\npacket-timeout = \"3s\"\n[marks]\nreject-bit = 0\n[metrics]\nlisten = \"127.0.0.1:9641\"\n",
        );
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let verdicts = "nufw_agent_verdicts_total";
        let of = |verdict, reason| [("verdict", verdict), ("reason", reason)];

        assert!(get(&lab, "/health").starts_with("HTTP/1.1 200 "));
        assert!(get(&lab, "/ready").starts_with("HTTP/1.1 503 "), "no link yet");

        let mut link = linked(&peer, &mut agent).await;
        told(&lab, "nufw_agent_link_up", &[], exactly(1.0)).await;
        assert!(get(&lab, "/ready").starts_with("HTTP/1.1 200 "));
        for (port, verdict) in [
            (2010, Some("accept")),
            (2011, Some("drop")),
            (2012, Some("reject")),
            (2013, None),
        ] {
            datagrams(&lab, "10.2.0.2", port..port + 1);
            let ask = link.ask().await;
            let answer = match verdict {
                Some("accept") => Verdict::Accept {
                    row: ConnId::try_from(1).unwrap(),
                    mark: Mark(7),
                },
                Some("drop") => Verdict::Drop,
                Some(_) => Verdict::Reject,
                // Too late.
                None => {
                    told(&lab, "nufw_agent_pending_packets", &[], exactly(1.0)).await;
                    told(&lab, verdicts, &of("drop", "timeout"), exactly(1.0)).await;
                    Verdict::Drop
                }
            };
            link.answer(&ask, answer).await;
            if let Some(verdict) = verdict {
                told(&lab, verdicts, &of(verdict, "server"), exactly(1.0)).await;
            }
        }
        told(&lab, "nufw_agent_late_answers_total", &[], exactly(1.0)).await;
        told(&lab, "nufw_agent_wait_seconds_count", &[], exactly(3.0)).await;
        told(&lab, "nufw_agent_events_total", &[("type", "new")], |found| found >= 1.0).await;

        link.say(ToAgent::KnownAddresses(KnownAddresses {
            reset: true,
            added: Batch::try_from(vec!["10.9.9.9".parse().unwrap()]).unwrap(),
            removed: Batch::default(),
            others_can_pass: false,
        }))
        .await;
        told(&lab, "nufw_agent_known_sources", &[], exactly(1.0)).await;
        datagrams(&lab, "10.2.0.2", 3000..3200);
        told(&lab, verdicts, &of("drop", "unknown-source"), |found| found >= 100.0).await;
        drop(link);
        told(&lab, "nufw_agent_link_failures_total", &[], |found| found >= 1.0).await;
        assert!(get(&lab, "/ready").starts_with("HTTP/1.1 503 "));
        // They wait while a link may be had at any moment, and no longer.
        drop(peer);
        datagrams(&lab, "10.2.0.2", 2000..2003);
        told(&lab, verdicts, &of("drop", "no-link"), |found| found >= 3.0).await;
        told(&lab, "nufw_agent_packets_total", &[], exactly(207.0)).await;
        told(&lab, "nufw_agent_pending_packets", &[], exactly(0.0)).await;
        let all = scrape(&lab).sum(verdicts, &[]);
        assert!(exactly(207.0)(all), "{all} verdicts for 207 packets");
    });
}
