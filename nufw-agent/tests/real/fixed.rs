//! What the kernel lets a program do with the end of a live entry: fix it, and never take that back.
//!
//! The agent's way with connections whose time is limited stands on exactly this. If another kernel says otherwise, this
//! test shows it first.

use crate::support::netns::Lab;
use nufw_agent::conntrack::{Answer, Control, Dump, DumpProgress, Interest, Order, Target};
use nufw_agent::keeper::Access;
use nufw_proto::CtEntry;
use std::io::{Read as _, Write as _};
use std::time::Duration;

fn only_entry(lab: &Lab) -> CtEntry {
    let mut entries = lab.gateway.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut dump = Dump::start(&Access::Own, Interest::All).unwrap();
            let mut entries = Vec::new();
            while let DumpProgress::More = dump.step(1, &mut entries) {
                dump.readable().await.unwrap();
            }
            entries
        })
    });
    assert_eq!(entries.len(), 1, "{entries:?}");
    entries.remove(0)
}

fn ask(lab: &Lab, target: Target, order: Order) -> Answer {
    lab.gateway.run(move || {
        let mut control = Control::open().unwrap();
        control.submit(5, &target, order);
        let mut answers = Vec::new();
        control.exchange(&mut answers).unwrap();
        assert_eq!(answers.len(), 1);
        answers.remove(0).1
    })
}

/// What is left of the entry's time: `tcp 6 SECONDS ESTABLISHED …`.
fn left(lab: &Lab) -> u32 {
    let line = lab.gateway.sh("conntrack -L 2>/dev/null");
    line.split_whitespace().nth(2).unwrap().parse().unwrap()
}

#[test]
fn a_live_entry_takes_a_fixed_end_and_neither_packets_nor_programs_change_it() {
    let lab = match Lab::new() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let listener = lab.listen("10.2.0.2:80");
    let mut client = lab.connect("10.2.0.2:80", Duration::from_secs(5)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let mut talk = || {
        client.write_all(b"hello").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        server.write_all(b"again").unwrap();
        client.read_exact(&mut [0; 5]).unwrap();
    };
    talk();
    let entry = only_entry(&lab);
    assert!(!entry.status.fixed_timeout() && left(&lab) > 1000);
    let target = Target {
        id: entry.id,
        zone: 0,
        original: entry.original,
    };
    // A status bit that was set meanwhile cannot be taken away by an older look: it is refused.
    let stale = Order::EndIn {
        seconds: 100,
        status: 0,
    };
    assert_eq!(ask(&lab, target, stale), Answer::Refused(libc::EBUSY));
    let order = Order::EndIn {
        seconds: 100,
        status: only_entry(&lab).status.0,
    };
    assert_eq!(ask(&lab, target, order), Answer::Done);
    assert!(only_entry(&lab).status.fixed_timeout());
    talk();
    assert!(left(&lab) <= 100, "packets do not prolong it");
    assert_eq!(
        ask(&lab, target, order),
        Answer::Refused(libc::EPERM),
        "nor does a program"
    );
    // Both sides finish: the entry stays, and can be deleted.
    drop((client, server));
    for _ in 0..200 {
        if only_entry(&lab).tcp_state == Some(nufw_proto::TcpState::TIME_WAIT) {
            break;
        }
        std::thread::sleep(Duration::from_millis(25));
    }
    assert!(left(&lab) > 10, "it outlives its connection");
    assert_eq!(ask(&lab, target, Order::Delete), Answer::Done);
    assert_eq!(ask(&lab, target, Order::Look), Answer::Absent);
}
