//! What encoding and decoding the three busiest batches costs, for comparing two versions of the codec on one machine:
//! `cargo run --release -p nufw-proto --example codec_cost`. It asserts nothing: a time is no test.

use nufw_proto::{
    AskId, Batch, ConnId, Count, Counters, CtEntry, CtEvent, CtEventKind, CtStatus, Decoded, EventSeq,
    MAX_BODY, Mark, Message, Ports, Removal, TcpState, Text, Timestamp, Transport, Tuple, decode, encode,
    gateway,
};
use std::error::Error;
use std::hint::black_box;
use std::io::Write;
use std::time::Duration;

const ROUNDS: u32 = 20_000;

fn main() -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    measure(&mut out, "256 answers", 256, &answers()?)?;
    measure(&mut out, "64 asks", 64, &asks()?)?;
    measure(&mut out, "64 events", 64, &events()?)
}

fn measure<M: Message>(
    out: &mut impl Write,
    name: &str,
    items: u32,
    message: &M,
) -> Result<(), Box<dyn Error>> {
    let mut frame = Vec::new();
    encode(message, &mut frame)?;
    let encoding = timed(|| {
        let mut buffer = Vec::with_capacity(frame.len());
        encode(black_box(message), &mut buffer).ok();
        black_box(buffer);
    });
    let decoding = timed(|| {
        black_box::<Result<Decoded<M>, _>>(decode(black_box(&frame), MAX_BODY)).ok();
    });
    writeln!(
        out,
        "{name}: {} bytes; encode {:?}, decode {:?} an item",
        frame.len(),
        encoding / ROUNDS / items,
        decoding / ROUNDS / items
    )?;
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "a measurement asks the clock itself")]
fn timed(mut work: impl FnMut()) -> Duration {
    let start = std::time::Instant::now();
    for _ in 0..ROUNDS {
        work();
    }
    start.elapsed()
}

fn tuple(port: u16) -> Result<Tuple, Box<dyn Error>> {
    let ports = Ports { src: port, dst: 443 };
    Ok(Tuple::new(
        "10.0.0.7".parse()?,
        "10.1.1.1".parse()?,
        Transport::Tcp(ports),
    )?)
}

fn answers() -> Result<gateway::ToAgent, Box<dyn Error>> {
    let mut answers = Vec::new();
    for n in 0..256 {
        answers.push(gateway::Answer {
            id: AskId(1_000_000 + n),
            verdict: gateway::Verdict::Accept {
                row: ConnId::try_from((1 << 40) + n)?,
                mark: Mark(1001),
            },
        });
    }
    Ok(gateway::ToAgent::Answers(Batch::try_from(answers)?))
}

fn asks() -> Result<gateway::ToServer, Box<dyn Error>> {
    let mut asks = Vec::new();
    for n in 0..64 {
        asks.push(gateway::Ask {
            id: AskId(1_000_000 + u64::from(n)),
            hook: gateway::Hook::Forward,
            zone: 0,
            tuple: tuple(40_000 + n)?,
            in_dev: Text::new("eth0")?,
            out_dev: Text::new("eth1")?,
            mark: Mark(0),
            received: Timestamp::from_micros(1_700_000_000_000_000),
            tracked: true,
        });
    }
    Ok(gateway::ToServer::Asks(Batch::try_from(asks)?))
}

fn events() -> Result<gateway::ToServer, Box<dyn Error>> {
    let mut events = Vec::new();
    for n in 0..64 {
        let count = Count {
            packets: 17,
            bytes: 23_456,
        };
        let time = Timestamp::from_micros(1_700_000_000_000_000);
        let entry = CtEntry {
            id: 0x9abc_def0,
            zone: 0,
            original: tuple(40_000 + n)?,
            reply: tuple(40_000 + n)?,
            master: None,
            mark: Mark(1001),
            status: CtStatus(0x18e),
            tcp_state: Some(TcpState::TIME_WAIT),
            counters: Some(Counters {
                original: count,
                reply: count,
            }),
            start: Some(time),
            stop: Some(time),
        };
        events.push(CtEvent {
            kind: CtEventKind::Destroy,
            entry,
            at: time,
            at_kernel: true,
            removal: Removal::Unsaid,
        });
    }
    Ok(gateway::ToServer::Events(gateway::Events {
        first: EventSeq(1),
        events: Batch::try_from(events)?,
    }))
}
