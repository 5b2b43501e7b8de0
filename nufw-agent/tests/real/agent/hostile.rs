//! A server that is not what it should be: whatever it says, the agent decides about nothing but the packets that wait, gives no
//! bit of a mark that is not the user's, touches no entry that it does not know, and goes on.

use super::{SERVER, SOON, connecting, lab, linked, runtime};
use crate::support::peer::Peer;
use crate::support::process::{Agent, directory};
use nufw_proto::gateway::{Answer, Expiry, KillStep, Live, ToAgent, ToServer, Verdict};
use nufw_proto::{
    AskId, Batch, ConnId, DumpId, EventSeq, MAX_BODY, Mark, Message, Ports, Transport, Tuple, WireError,
};

/// Bytes under a frame type.
struct Raw(u16, Vec<u8>);

impl Message for Raw {
    const NAME: &'static str = "nonsense";

    fn frame_type(&self) -> u16 {
        self.0
    }

    fn write_body(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.1);
    }

    fn read_body(_: u16, _: &[u8]) -> Option<Result<Self, WireError>> {
        None
    }
}

fn row(number: u64) -> ConnId {
    ConnId::try_from(number).unwrap()
}

fn stranger() -> Live {
    let addr = |text: &str| text.parse().unwrap();
    let ports = Transport::Tcp(Ports { src: 1, dst: 2 });
    Live {
        row: row(99),
        id: 77,
        zone: 9,
        original: Tuple::new(addr("10.1.0.2"), addr("10.2.0.2"), ports).unwrap(),
    }
}

fn one<T>(item: T) -> Batch<T> {
    Batch::try_from(vec![item]).unwrap()
}

#[test]
fn what_it_says_of_strangers_changes_nothing_and_its_marks_stay_under_the_mask() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        let mut link = linked(&peer, &mut agent).await;
        // Verdicts for packets that nobody asked about, and for the same packet twice.
        let accept = Verdict::Accept {
            row: row(5),
            mark: Mark(u32::MAX),
        };
        for id in [0, 1, 1_000_000, u64::MAX] {
            let answer = Answer {
                id: AskId(id),
                verdict: accept,
            };
            link.say(ToAgent::Answers(Batch::try_from(vec![answer; 2]).unwrap()))
                .await;
            assert_eq!((link.unused().await).row, row(5));
        }
        link.say(ToAgent::Kill(one(stranger()))).await;
        let step = link
            .expect("killed", |message| match message {
                ToServer::Killed(killed) => Some(killed[0].step),
                _ => None,
            })
            .await;
        assert_eq!(step, KillStep::Gone);
        let expiry = Expiry {
            live: stranger(),
            seconds: u32::MAX,
        };
        link.say(ToAgent::Expire(Batch::try_from(vec![expiry; 1024]).unwrap()))
            .await;
        // A packet that waits gets the first verdict, and of its mark only the user's bits.
        let listener = lab.listen(SERVER);
        let client = connecting(&lab, SOON);
        let ask = link.ask().await;
        link.accept(&ask, 6, u32::MAX).await;
        link.answer(&ask, Verdict::Drop).await;
        let stream = client.join().unwrap().unwrap();
        let (_accepted, _) = listener.accept().unwrap();
        let table = lab.gateway.sh("conntrack -L -p tcp --dport 80 2>/dev/null");
        assert!(table.contains(&format!("mark={} ", 0x00ff_ffff)), "{table}");
        drop(stream);
        // What was never sent cannot be acknowledged: that ends the link, and nothing else.
        link.say(ToAgent::EventAck(nufw_proto::gateway::EventAck {
            through: EventSeq(u64::MAX),
        }))
        .await;
        assert!(link.until_closed().await);
        let mut link = linked(&peer, &mut agent).await;
        link.say(ToAgent::DumpRequest(nufw_proto::gateway::DumpRequest {
            dump: DumpId(0),
        }))
        .await;
        let client = connecting(&lab, SOON);
        let ask = loop {
            // The dump that it asked for comes as well.
            if let ToServer::Asks(asks) = link.next().await.expect("the link holds") {
                break asks[0].clone();
            }
        };
        link.accept(&ask, 7, 1001).await;
        assert!(client.join().unwrap().is_ok(), "it works on");
    });
}

#[test]
fn a_frame_that_is_too_large_or_unknown_ends_the_link_and_the_next_one_works() {
    let lab = match lab() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    runtime().block_on(async {
        let dir = directory("");
        let peer = Peer::listen(&lab.gateway, dir.path());
        let mut agent = Agent::start(&lab.gateway, dir, &[]);
        for (what, raw) in [
            (
                "a batch that says it has more than may be",
                Raw(130, vec![0x81, 0x08, 0]),
            ),
            (
                "as many bytes as a frame can have, for a message of one",
                Raw(131, vec![0; MAX_BODY]),
            ),
            ("a type that nobody knows", Raw(9999, vec![1, 2, 3])),
            ("a verdict that there is not", Raw(130, vec![1, 1, 9])),
            ("half of a message", Raw(136, vec![1, 7])),
            ("a second welcome", Raw(129, vec![0, 0, 0, 0, 0, 0])),
        ] {
            let mut link = linked(&peer, &mut agent).await;
            link.say_any(&raw).await;
            assert!(link.until_closed().await, "{what}");
        }
        let mut link = linked(&peer, &mut agent).await;
        let _listener = lab.listen(SERVER);
        let client = connecting(&lab, SOON);
        let ask = link.ask().await;
        link.accept(&ask, 7, 1001).await;
        assert!(client.join().unwrap().is_ok());
    });
}
