//! Conntrack events and dumps against the real kernel and against what conntrack-tools says of the same entries.

use crate::support::netns::{Lab, Netns};
use nufw_agent::conntrack::{
    Chosen, Dump, DumpProgress, EventOptions, Events, Interest, Received, SocketCounters, socket_counters,
};
use nufw_agent::keeper::Access;
use nufw_common::clock;
use nufw_proto::{CtEntry, CtEvent, CtEventKind, Mark, TcpState, Timestamp};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::time::Duration;

const ALL: EventOptions = EventOptions {
    receive_buffer: 8 << 20,
    interest: Interest::All,
};

/// An event socket in a namespace; the runtime that it is registered with lives beside it.
struct Listener {
    runtime: tokio::runtime::Runtime,
    events: Events,
}

impl Listener {
    fn open(netns: &Netns, options: EventOptions) -> Self {
        netns.run(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            let events = runtime.block_on(async { Events::open(&options).unwrap() });
            Self { runtime, events }
        })
    }

    fn receive(&mut self) -> (Vec<CtEvent>, Received) {
        let mut out = Vec::new();
        let events = &mut self.events;
        let received = self
            .runtime
            .block_on(async { events.receive(1 << 20, clock::wall(), &mut out).unwrap() });
        (out, received)
    }

    fn wait_for(&mut self, what: impl Fn(&[CtEvent]) -> bool, lab: &Lab) -> Vec<CtEvent> {
        let mut seen = Vec::new();
        for _ in 0..400 {
            seen.extend(self.receive().0);
            if what(&seen) {
                return seen;
            }
            lab.reap();
            std::thread::sleep(Duration::from_millis(25));
        }
        panic!("not seen within 10 s: {seen:#?}");
    }
}

fn dump(netns: &Netns, interest: Interest) -> Vec<CtEntry> {
    netns.run(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut dump = Dump::start(&Access::Own, interest).unwrap();
            let mut entries = Vec::new();
            loop {
                match dump.step(1, &mut entries) {
                    DumpProgress::More => dump.readable().await.unwrap(),
                    DumpProgress::Done { complete } => {
                        assert!(complete);
                        assert_eq!(dump.unrepresentable(), 0);
                        return entries;
                    }
                }
            }
        })
    })
}

/// TCP, UDP and ICMP, over IPv4 and IPv6, each answered.
fn traffic(lab: &Lab) -> Vec<std::net::TcpStream> {
    let mut kept = Vec::new();
    for (listen, connect) in [("10.2.0.2:80", "10.2.0.2:80"), ("[fd02::2]:80", "[fd02::2]:80")] {
        let listener = lab.listen(listen);
        let mut stream = lab.connect(connect, Duration::from_secs(5)).unwrap();
        let (mut accepted, _) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        accepted.read_exact(&mut [0; 5]).unwrap();
        accepted.write_all(b"hello back").unwrap();
        stream.read_exact(&mut [0; 10]).unwrap();
        kept.push(stream);
        kept.push(accepted);
    }
    for server in ["10.2.0.2:53", "[fd02::2]:53"] {
        ask_udp(lab, server, server);
    }
    ping(lab, "10.2.0.2");
    ping(lab, "fd02::2");
    kept
}

fn ping(lab: &Lab, server: &'static str) {
    // Group 0 is the only one in a user namespace.
    lab.client.sh("sysctl -qw net.ipv4.ping_group_range='0 0'");
    lab.client.run(move || {
        use socket2::{Domain, Protocol, Socket, Type};
        let to: std::net::IpAddr = server.parse().unwrap();
        let (domain, protocol, kind) = match to {
            std::net::IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8),
            std::net::IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128),
        };
        let mut socket = Socket::new(domain, Type::DGRAM, Some(protocol)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.connect(&std::net::SocketAddr::new(to, 0).into()).unwrap();
        // Kernel fills in identifier and checksum.
        socket
            .write_all(&[kind, 0, 0, 0, 0, 0, 0, 1, b'p', b'i', b'n', b'g'])
            .unwrap();
        assert!(socket.read(&mut [0; 64]).unwrap() > 0);
    });
}

fn ask_udp(lab: &Lab, listen: &'static str, server: &'static str) {
    let answerer = lab.server.run(move || UdpSocket::bind(listen).unwrap());
    let asker = lab.client.run(move || {
        let any = if server.starts_with('[') {
            "[::]:0"
        } else {
            "0.0.0.0:0"
        };
        let socket = UdpSocket::bind(any).unwrap();
        socket.connect(server).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        socket.send(b"who?").unwrap();
        socket
    });
    let mut buffer = [0; 64];
    let (n, from) = answerer.recv_from(&mut buffer).unwrap();
    answerer.send_to(&buffer[..n], from).unwrap();
    asker.recv(&mut buffer).unwrap();
}

/// What `conntrack -L -o extended,id,timestamp` says, as far as the wire has it: id → fields of a line.
fn listed(netns: &Netns) -> BTreeMap<u32, Vec<String>> {
    let text = netns.sh(
        "conntrack -L -f ipv4 -o extended,id 2>/dev/null; conntrack -L -f ipv6 -o extended,id 2>/dev/null",
    );
    text.lines()
        .map(|line| {
            let fields: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            // An ICMP entry has two more before it, in its tuples.
            let id = fields
                .iter()
                .rev()
                .find_map(|f| f.strip_prefix("id="))
                .unwrap()
                .parse()
                .unwrap();
            (id, fields)
        })
        .collect()
}

/// The same facts in the words of conntrack-tools, original direction first.
fn words(entry: &CtEntry) -> Vec<String> {
    let mut words = Vec::new();
    let counts = entry
        .counters
        .map_or([None, None], |c| [Some(c.original), Some(c.reply)]);
    for (tuple, count) in [entry.original, entry.reply].into_iter().zip(counts) {
        words.push(format!("src={}", tuple.src()));
        words.push(format!("dst={}", tuple.dst()));
        if let Some(ports) = tuple.transport().ports() {
            words.push(format!("sport={}", ports.src));
            words.push(format!("dport={}", ports.dst));
        }
        if let Some(icmp) = tuple.transport().icmp() {
            words.push(format!("type={}", icmp.kind));
            words.push(format!("code={}", icmp.code));
            words.push(format!("id={}", icmp.id));
        }
        if let Some(count) = count {
            words.push(format!("packets={}", count.packets));
            words.push(format!("bytes={}", count.bytes));
        }
    }
    words
}

fn said(fields: &[String]) -> Vec<String> {
    let keys = [
        "src=", "dst=", "sport=", "dport=", "type=", "code=", "id=", "packets=", "bytes=",
    ];
    let mut said: Vec<String> = fields
        .iter()
        .filter(|f| keys.iter().any(|key| f.starts_with(key)))
        .cloned()
        .collect();
    // The last id is the entry's own.
    assert!(said.pop().is_some_and(|last| last.starts_with("id=")));
    said
}

#[test]
fn a_dump_says_what_conntrack_tools_say() {
    let lab = match Lab::new() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    // Source and destination translated, in a zone of its own, and marked.
    lab.gateway
        .sh("iptables -t nat -A POSTROUTING -o gs -p udp -j MASQUERADE
         iptables -t nat -A PREROUTING -i gc -d 10.1.0.1 -p tcp --dport 8080 -j DNAT --to 10.2.0.2:80
         iptables -t mangle -A POSTROUTING -p tcp -j CONNMARK --set-mark 0x2a
         iptables -t raw -I PREROUTING -p icmp -j CT --zone 7 --ctevents new,related,reply,destroy");
    let _open = traffic(&lab);
    let listener = lab.listen("10.2.0.2:80");
    let translated = lab.connect("10.1.0.1:8080", Duration::from_secs(5)).unwrap();
    let _accepted = listener.accept().unwrap();
    std::thread::sleep(Duration::from_millis(100));

    let ours = dump(&lab.gateway, Interest::All);
    let theirs = listed(&lab.gateway);
    assert!(ours.len() >= 7, "{ours:#?}");
    let ours: BTreeMap<u32, CtEntry> = ours.into_iter().map(|entry| (entry.id, entry)).collect();
    // ICMP of IPv6 for neighbours may come and go between the two looks.
    let solicitation = |entry: &CtEntry| entry.original.transport().icmp().is_some_and(|k| k.kind > 132);
    for (id, entry) in &ours {
        let Some(fields) = theirs.get(id) else {
            assert!(solicitation(entry), "conntrack -L does not know {entry:?}");
            continue;
        };
        assert_eq!(words(entry), said(fields));
        let mark = fields.iter().find_map(|f| f.strip_prefix("mark=")).unwrap();
        assert_eq!(entry.mark.0.to_string(), mark);
        let zone = fields.iter().find_map(|f| f.strip_prefix("zone=")).unwrap_or("0");
        assert_eq!(entry.zone.to_string(), zone);
        assert_eq!(entry.status.assured(), fields.contains(&"[ASSURED]".to_owned()));
        assert_eq!(
            entry.status.seen_reply(),
            !fields.contains(&"[UNREPLIED]".to_owned())
        );
        if entry.original.protocol() == 6 {
            let states = [
                "NONE",
                "SYN_SENT",
                "SYN_RECV",
                "ESTABLISHED",
                "FIN_WAIT",
                "CLOSE_WAIT",
                "LAST_ACK",
                "TIME_WAIT",
                "CLOSE",
            ];
            assert!(
                fields
                    .iter()
                    .any(|f| f == states[usize::from(entry.tcp_state.unwrap().0)]),
                "{entry:?} {fields:?}"
            );
        } else {
            assert_eq!(entry.tcp_state, None);
        }
        let age = clock::wall().micros() - entry.start.unwrap().micros();
        assert!((0..60_000_000).contains(&age), "{age}");
    }
    for (id, fields) in &theirs {
        assert!(ours.contains_key(id), "the dump lacks {fields:?}");
    }
    let dnat = ours
        .values()
        .find(|e| e.original.transport().ports().is_some_and(|p| p.dst == 8080))
        .unwrap();
    assert_eq!(dnat.original.dst().to_string(), "10.1.0.1");
    assert_eq!(dnat.reply.src().to_string(), "10.2.0.2");
    assert!(ours.values().any(|e| e.zone == 7 && e.original.protocol() == 1));
    assert!(
        ours.values()
            .any(|e| e.original.protocol() == 17 && e.reply.dst().to_string() == "10.2.0.1")
    );

    let marked = dump(&lab.gateway, Interest::Marked(Mark(0x00ff_ffff)));
    assert!(
        !marked.is_empty() && marked.iter().all(|e| e.mark == Mark(0x2a)),
        "{marked:#?}"
    );
    assert_eq!(
        marked.len(),
        ours.values().filter(|e| e.mark == Mark(0x2a)).count()
    );
    drop(translated);
}

#[test]
fn each_connection_is_three_events_with_counters_and_times() {
    let lab = match Lab::new() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    lab.gateway.sh(
        "sysctl -qw net.netfilter.nf_conntrack_udp_timeout=1 net.netfilter.nf_conntrack_icmp_timeout=1 \
             net.netfilter.nf_conntrack_icmpv6_timeout=1 net.netfilter.nf_conntrack_tcp_timeout_time_wait=1 \
             net.netfilter.nf_conntrack_tcp_timeout_last_ack=1 net.netfilter.nf_conntrack_tcp_timeout_close_wait=1
         iptables -t mangle -A POSTROUTING -j CONNMARK --set-mark 0x2a; ip6tables -t mangle -A POSTROUTING -j CONNMARK --set-mark 0x2a",
    );
    let mut listener = Listener::open(&lab.gateway, ALL);
    let before = clock::wall();
    drop(traffic(&lab));
    let wanted = [6, 17, 1, 58];
    let of_hosts = |e: &&CtEvent| {
        let src = e.entry.original.src().to_string();
        (src == "10.1.0.2" || src == "fd01::2")
            && e.entry
                .original
                .transport()
                .icmp()
                .is_none_or(|k| k.kind == 8 || k.kind == 128)
    };
    let events = listener.wait_for(
        |seen| {
            seen.iter()
                .filter(of_hosts)
                .filter(|e| e.kind == CtEventKind::Destroy)
                .count()
                >= 6
        },
        &lab,
    );
    let mut lives: BTreeMap<(u8, bool), Vec<CtEvent>> = BTreeMap::new();
    for event in events.iter().filter(of_hosts) {
        let key = (
            event.entry.original.protocol(),
            event.entry.original.src().is_ipv4(),
        );
        lives.entry(key).or_default().push(*event);
    }
    assert_eq!(lives.len(), 6);
    for ((protocol, _), life) in &lives {
        assert!(wanted.contains(protocol));
        let kinds: Vec<_> = life.iter().map(|e| e.kind).collect();
        assert_eq!(
            kinds,
            [CtEventKind::New, CtEventKind::Update, CtEventKind::Destroy],
            "{life:#?}"
        );
        let [new, update, destroy] = life[..] else {
            unreachable!()
        };
        assert_eq!(
            (new.entry.id, new.entry.original),
            (destroy.entry.id, destroy.entry.original)
        );
        assert_eq!(new.entry.reply, destroy.entry.reply);
        for event in [new, update, destroy] {
            assert_eq!(event.entry.mark, Mark(0x2a));
            assert!(event.at_kernel && event.at >= before && event.at <= clock::wall());
        }
        assert!(new.at <= update.at && update.at <= destroy.at);
        assert_eq!((new.entry.counters, new.entry.start), (None, None));
        let counters = destroy.entry.counters.unwrap();
        assert!(counters.original.packets > 0 && counters.reply.bytes > 0);
        let (start, stop) = (destroy.entry.start.unwrap(), destroy.entry.stop.unwrap());
        assert!(start >= before && stop > start);
        assert_eq!(
            update.entry.tcp_state,
            (*protocol == 6).then_some(TcpState::SYN_RECV)
        );
        assert!(update.entry.status.seen_reply() && !new.entry.status.seen_reply());
    }
}

#[test]
fn without_kernel_times_the_time_of_receipt_is_given_and_flagged() {
    let lab = match Lab::new() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    lab.gateway
        .sh("sysctl -qw net.netfilter.nf_conntrack_timestamp=0 net.netfilter.nf_conntrack_acct=0");
    let mut listener = Listener::open(&lab.gateway, ALL);
    ask_udp(&lab, "10.2.0.2:53", "10.2.0.2:53");
    lab.gateway.sh("conntrack -F 2>/dev/null");
    let mut events = Vec::new();
    let stamp = Timestamp::from_micros(123);
    let source = &mut listener.events;
    let received = listener
        .runtime
        .block_on(async { source.receive(1000, stamp, &mut events).unwrap() });
    assert_eq!(received, Received::Empty);
    let udp: Vec<_> = events
        .iter()
        .filter(|e| e.entry.original.protocol() == 17)
        .collect();
    assert_eq!(udp.len(), 3, "{events:#?}");
    for event in udp {
        assert_eq!((event.at, event.at_kernel), (stamp, false));
        assert_eq!(
            (event.entry.start, event.entry.stop, event.entry.counters),
            (None, None, None)
        );
    }
}

#[test]
fn the_kernel_keeps_unmarked_connections_to_itself() {
    let lab = match Lab::new() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    lab.gateway.sh(
        "iptables -t mangle -A POSTROUTING -p tcp -j CONNMARK --set-mark 0x01000007
         iptables -t mangle -A POSTROUTING -p udp -j CONNMARK --set-mark 0x01000000",
    );
    let interest = Interest::Marked(Mark(0x00ff_ffff));
    let mut marked = Listener::open(&lab.gateway, EventOptions { interest, ..ALL });
    let mut all = Listener::open(&lab.gateway, ALL);
    drop(traffic(&lab));
    lab.gateway.sh("conntrack -F 2>/dev/null");
    let (all, _) = all.receive();
    let (marked, _) = marked.receive();
    assert!(all.iter().any(|e| e.entry.original.protocol() == 17), "{all:#?}");
    assert!(all.iter().any(|e| e.entry.original.protocol() == 1));
    let expected: Vec<_> = all
        .iter()
        .filter(|e| e.entry.mark.0 & 0x00ff_ffff != 0)
        .copied()
        .collect();
    assert_eq!(marked, expected);
    let kinds: Vec<_> = marked.iter().map(|e| e.kind).collect();
    assert_eq!(
        kinds,
        [CtEventKind::New, CtEventKind::Update, CtEventKind::Destroy]
    );
}

#[test]
fn the_kernel_keeps_what_was_not_chosen_to_itself() {
    let lab = match Lab::new() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let nets = |list: &[&str]| list.iter().map(|net| net.parse().unwrap()).collect::<Vec<_>>();
    let choices = [
        Chosen {
            protocols: vec![1, 17],
            ..Chosen::default()
        },
        Chosen {
            sources: nets(&["192.0.2.0/24", "10.1.0.2/32"]),
            ..Chosen::default()
        },
        Chosen {
            sources: nets(&["fd00::/12", "2001:db8::/32"]),
            destinations: nets(&["fd02::2/128", "10.2.0.0/16"]),
            protocols: vec![6, 58],
            ..Chosen::default()
        },
        Chosen {
            destinations: nets(&["0.0.0.0/0"]),
            ..Chosen::default()
        },
        Chosen {
            destinations: nets(&["fd02::3/127", "fd02:0:0:1::/64"]),
            ..Chosen::default()
        },
    ];
    let interests = choices.map(|chosen| Interest::Chosen(std::sync::Arc::new(chosen)));
    let mut listeners: Vec<_> = interests
        .iter()
        .map(|interest| {
            let interest = interest.clone();
            Listener::open(&lab.gateway, EventOptions { interest, ..ALL })
        })
        .collect();
    let mut all = Listener::open(&lab.gateway, ALL);
    drop(traffic(&lab));
    lab.gateway.sh("conntrack -F 2>/dev/null");
    let (all, _) = all.receive();
    for (interest, listener) in interests.iter().zip(&mut listeners) {
        let (told, _) = listener.receive();
        let expected: Vec<_> = all
            .iter()
            .filter(|e| interest.includes(&e.entry))
            .copied()
            .collect();
        assert_eq!(told, expected, "{interest:?}");
        assert!(
            !told.is_empty() && told.len() < all.len(),
            "{interest:?} chooses nothing, or all"
        );
    }
}

#[test]
fn an_overrun_is_told_and_reading_goes_on() {
    let lab = match Lab::new() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    let mut listener = Listener::open(
        &lab.gateway,
        EventOptions {
            receive_buffer: 32 * 1024,
            ..ALL
        },
    );
    let flood = |ports: std::ops::Range<u16>| {
        lab.client.run(move || {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for port in ports {
                socket.send_to(b"x", ("10.2.0.2", port)).unwrap();
            }
        });
    };
    let port = listener.events.port().unwrap();
    let counters = || lab.gateway.run(move || socket_counters(port)).unwrap();
    assert_eq!(counters(), SocketCounters::default());
    flood(1000..1400);
    std::thread::sleep(Duration::from_millis(200));
    let full = counters();
    assert!(full.waiting > 10_000 && full.drops > 100, "{full:?}");
    assert_eq!(listener.receive(), (Vec::new(), Received::Overrun));
    let (held, received) = listener.receive();
    assert_eq!(received, Received::Empty);
    let read = counters();
    assert_eq!(
        (read.waiting, read.drops),
        (0, full.drops),
        "they are counted for ever"
    );
    assert!((10..400).contains(&held.len()), "{}", held.len());
    flood(2000..2003);
    std::thread::sleep(Duration::from_millis(200));
    let (later, received) = listener.receive();
    assert_eq!(
        (
            later.iter().filter(|e| e.kind == CtEventKind::New).count(),
            received
        ),
        (3, Received::Empty)
    );
    // What was lost is in the table.
    assert!(dump(&lab.gateway, Interest::All).len() >= 400);
}

#[test]
fn a_large_dump_comes_in_steps_and_lacks_nothing() {
    let lab = match Lab::new() {
        Ok(lab) => lab,
        Err(why) => crate::skip!("{why}"),
    };
    lab.client.run(|| {
        for _ in 0..4 {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            for port in 1..3001 {
                socket.send_to(b"x", ("10.2.0.2", port)).unwrap();
            }
        }
    });
    let count: usize = lab.gateway.sh("conntrack -C").trim().parse().unwrap();
    assert!(count >= 11_000, "{count}");
    let steps = lab.gateway.run(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut dump = Dump::start(&Access::Own, Interest::All).unwrap();
            let (mut steps, mut most, mut total) = (0, 0, std::collections::HashSet::new());
            loop {
                let mut entries = Vec::new();
                let progress = dump.step(8, &mut entries);
                (steps, most) = (steps + 1, most.max(entries.len()));
                total.extend(entries.into_iter().map(|e| e.original));
                if let DumpProgress::Done { complete } = progress {
                    assert!(complete);
                    return (steps, most, total.len());
                }
            }
        })
    });
    let (steps, most, total) = steps;
    assert_eq!(total, count);
    assert!(steps >= 6 && most <= 2048, "{steps} steps, at most {most}");
}
