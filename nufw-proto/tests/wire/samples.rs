//! Values of every message, each with the name that its vector has.
//!
//! Small ones only: the tests look at every prefix of each. Sizes at the limits are `limits`' part.

use nufw_proto::client::{self, OsInfo};
use nufw_proto::gateway;
use nufw_proto::{
    Addr, AskId, Batch, BootId, ClaimId, ConnId, Count, Counters, CtEntry, CtEvent, CtEventKind, CtStatus,
    Decoded, DumpId, EventSeq, IcmpKey, LoginBytes, MAX_BODY, Mark, Message, Ports, Removal, SecretBytes,
    SessionId, TcpState, Text, Timestamp, Transport, Tuple, decode, encode,
};

/// One value of a message: the name of the message, which of its values, and the value.
pub(crate) struct Sample<M> {
    pub(crate) name: &'static str,
    pub(crate) case: &'static str,
    pub(crate) message: M,
}

/// Lists the samples of one direction. The match makes the compiler ask for a message that has none.
macro_rules! every {
    ($function:ident: $module:ident::$direction:ident {
        $($variant:ident { $($case:literal => $value:expr,)+ })+
    }) => {
        pub(crate) fn $function() -> Vec<Sample<$module::$direction>> {
            fn name(message: &$module::$direction) -> &'static str {
                match message {
                    $($module::$direction::$variant(_) => stringify!($variant),)+
                }
            }
            let samples = vec![$($(($case, $module::$direction::$variant($value)),)+)+];
            samples
                .into_iter()
                .map(|(case, message)| Sample { name: name(&message), case, message })
                .collect()
        }
    };
}

/// Runs a generic function over the samples of all four directions.
macro_rules! for_every_direction {
    ($check:path) => {
        $check(&crate::samples::agent_to_server());
        $check(&crate::samples::server_to_agent());
        $check(&crate::samples::client_to_server());
        $check(&crate::samples::server_to_client());
    };
}
pub(crate) use for_every_direction;

pub(crate) fn frame<M: Message>(message: &M) -> Vec<u8> {
    let mut out = Vec::new();
    encode(message, &mut out).unwrap();
    out
}

/// Reads bytes that are one frame, no more and no less.
pub(crate) fn read_whole<M: Message + std::fmt::Debug>(bytes: &[u8]) -> M {
    match decode(bytes, MAX_BODY) {
        Ok(Decoded::Message(message, used)) if used == bytes.len() => message,
        other => panic!("{} bytes are not one {} frame: {other:?}", bytes.len(), M::NAME),
    }
}

pub(crate) fn text<const MAX: usize>(text: &str) -> Text<MAX> {
    Text::new(text).unwrap()
}

pub(crate) fn batch<T>(items: Vec<T>) -> Batch<T> {
    Batch::try_from(items).unwrap()
}

pub(crate) fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

pub(crate) fn row(id: u64) -> ConnId {
    ConnId::try_from(id).unwrap()
}

pub(crate) fn tuple(src: &str, dst: &str, transport: Transport) -> Tuple {
    Tuple::new(addr(src), addr(dst), transport).unwrap()
}

pub(crate) fn web() -> Tuple {
    tuple("10.0.0.7", "10.1.1.1", Transport::Tcp(PORTS))
}

const PORTS: Ports = Ports { src: 40312, dst: 443 };
const PING: IcmpKey = IcmpKey {
    kind: 8,
    code: 0,
    id: 0x1234,
};
const PING6: IcmpKey = IcmpKey {
    kind: 128,
    code: 0,
    id: 0x1234,
};

/// A tuple of every transport, of both families.
fn every_transport() -> Vec<Tuple> {
    let v4 = |transport| tuple("192.0.2.1", "198.51.100.2", transport);
    let v6 = |transport| tuple("2001:db8::1", "2001:db8::2", transport);
    let all = [
        v4(Transport::Tcp(PORTS)),
        v6(Transport::Udp(PORTS)),
        v4(Transport::UdpLite(PORTS)),
        v6(Transport::Sctp(PORTS)),
        v4(Transport::Dccp(PORTS)),
        v4(Transport::Icmp(PING)),
        v6(Transport::Icmpv6(PING6)),
        v6(Transport::Gre(Ports { src: 0, dst: 51 })),
        v6(Transport::Other(50)),
    ];
    for tuple in &all {
        // A transport that is new in the code must be added above.
        match tuple.transport() {
            Transport::Tcp(_)
            | Transport::Udp(_)
            | Transport::UdpLite(_)
            | Transport::Sctp(_)
            | Transport::Dccp(_)
            | Transport::Gre(_)
            | Transport::Icmp(_)
            | Transport::Icmpv6(_)
            | Transport::Other(_) => {}
        }
    }
    all.to_vec()
}

const MOMENT: i64 = 1_700_000_000_123_456;

fn moment() -> Timestamp {
    Timestamp::from_micros(MOMENT)
}

fn entry() -> CtEntry {
    CtEntry {
        id: 0xdead_beef,
        zone: 0,
        original: web(),
        reply: tuple(
            "10.1.1.1",
            "203.0.113.9",
            Transport::Tcp(Ports { src: 443, dst: 61000 }),
        ),
        master: Some(tuple(
            "10.0.0.7",
            "10.1.1.1",
            Transport::Tcp(Ports { src: 40311, dst: 21 }),
        )),
        mark: Mark(1001),
        status: CtStatus(0x18e),
        tcp_state: Some(TcpState::ESTABLISHED),
        counters: Some(Counters {
            original: Count {
                packets: 3,
                bytes: 180,
            },
            reply: Count {
                packets: u64::MAX,
                bytes: u64::MAX,
            },
        }),
        start: Some(moment()),
        stop: Some(Timestamp::from_micros(MOMENT + 1)),
    }
}

fn bare_entry() -> CtEntry {
    CtEntry {
        id: 0,
        zone: u16::MAX,
        original: tuple(
            "2001:db8::1",
            "2001:db8::2",
            Transport::Udp(Ports { src: 5353, dst: 53 }),
        ),
        reply: tuple(
            "2001:db8::2",
            "2001:db8::1",
            Transport::Udp(Ports { src: 53, dst: 5353 }),
        ),
        master: None,
        mark: Mark(0),
        status: CtStatus(0),
        tcp_state: None,
        counters: None,
        start: None,
        stop: None,
    }
}

fn ask(id: u64, tuple: Tuple) -> gateway::Ask {
    gateway::Ask {
        id: AskId(id),
        hook: gateway::Hook::Forward,
        zone: 0,
        tuple,
        in_dev: text("eth0"),
        out_dev: text(""),
        mark: Mark(0),
        received: moment(),
        tracked: true,
    }
}

fn hooks() -> Vec<gateway::Hook> {
    use gateway::Hook;
    let all = vec![
        Hook::Prerouting,
        Hook::Input,
        Hook::Forward,
        Hook::Output,
        Hook::Postrouting,
    ];
    for hook in &all {
        match hook {
            Hook::Prerouting | Hook::Input | Hook::Forward | Hook::Output | Hook::Postrouting => {}
        }
    }
    all
}

fn removal(kind: CtEventKind) -> Removal {
    match kind {
        CtEventKind::New => Removal::Unsaid,
        CtEventKind::Update => Removal::Early,
        CtEventKind::Destroy => Removal::ByProgram,
    }
}

fn live(original: Tuple) -> gateway::Live {
    gateway::Live {
        row: row(1 << 50),
        id: 0xdead_beef,
        zone: 7,
        original,
    }
}

fn goodbye() -> gateway::Goodbye {
    gateway::Goodbye {
        reason: text("the server is being restarted"),
    }
}

fn mine(program: Option<&str>) -> client::Mine {
    client::Mine {
        seen: web(),
        program: program.map(text),
    }
}

fn ended(cause: client::EndCause) -> client::Ended {
    client::Ended {
        cause,
        reason: text("the session is over"),
    }
}

fn refused(cause: client::Refusal) -> client::Refused {
    client::Refused {
        cause,
        reason: text("no — «non»"),
    }
}

every! { agent_to_server: gateway::ToServer {
    Hello {
        "usual" => gateway::Hello {
            software: text("nufw-agent 0.1.0"),
            boot: BootId(0x0123_4567_89ab_cdef),
            capabilities: gateway::Capabilities(0),
            packet_timeout_ms: 15_000,
            relays_events: true,
            marked_only: false,
            sets_marks: true,
            first_held: EventSeq(1),
        },
        "all-bits" => gateway::Hello {
            software: text(""),
            boot: BootId(u64::MAX),
            capabilities: gateway::Capabilities(u64::MAX),
            packet_timeout_ms: u32::MAX,
            relays_events: false,
            marked_only: true,
            sets_marks: false,
            first_held: EventSeq(u64::MAX),
        },
    }
    Asks {
        "one" => batch(vec![ask(1, web())]),
        "none" => batch(vec![]),
        "every-transport" => batch(every_transport().into_iter().map(|tuple| ask(2, tuple)).collect()),
        "every-hook" => batch(hooks().into_iter().map(|hook| gateway::Ask { hook, ..ask(3, web()) }).collect()),
    }
    Unused {
        "two" => batch(vec![
            gateway::Unused { id: AskId(1), row: row(1) },
            gateway::Unused { id: AskId(u64::MAX), row: row(u64::MAX >> 1) },
        ]),
    }
    Events {
        "life" => gateway::Events {
            first: EventSeq(41),
            events: batch(
                [CtEventKind::New, CtEventKind::Update, CtEventKind::Destroy]
                    .map(|kind| CtEvent { kind, entry: entry(), at: moment(), at_kernel: true, removal: removal(kind) })
                    .to_vec(),
            ),
        },
        "bare" => gateway::Events {
            first: EventSeq(1),
            events: batch(vec![CtEvent {
                kind: CtEventKind::New,
                entry: bare_entry(),
                at: Timestamp::from_micros(-1),
                at_kernel: false,
                removal: Removal::Unsaid,
            }]),
        },
    }
    Gap {
        "overrun" => gateway::Gap { from: moment(), to: moment(), cause: gateway::GapCause::NetlinkOverrun },
        "store-full" => gateway::Gap {
            from: Timestamp::from_micros(0),
            to: Timestamp::from_micros(i64::MAX),
            cause: gateway::GapCause::StoreFull,
        },
        "rules-missing" => gateway::Gap {
            from: moment(),
            to: moment(),
            cause: gateway::GapCause::RulesMissing,
        },
    }
    Blind {
        "usual" => gateway::Blind { bit: Mark(0x0400_0000) },
        "none" => gateway::Blind { bit: Mark(0) },
    }
    Elsewhere { "one" => batch(vec![ask(1, web())]), }
    LetGo { "two" => batch(vec![row(1), row(u64::MAX >> 1)]), }
    BridgedAsks {
        "two" => batch(vec![
            gateway::BridgedAsk { ask: ask(1, web()), phys_in: text("port1"), phys_out: text("port2") },
            gateway::BridgedAsk { ask: ask(2, web()), phys_in: text("port1"), phys_out: text("") },
        ]),
    }
    DumpBegin { "asked" => gateway::DumpBegin { dump: DumpId(7) }, }
    DumpPart {
        "two" => gateway::DumpPart { dump: DumpId(7), entries: batch(vec![entry(), bare_entry()]) },
    }
    DumpEnd {
        "whole" => gateway::DumpEnd { dump: DumpId(7), complete: true },
        "cut" => gateway::DumpEnd { dump: DumpId(0), complete: false },
    }
    Heartbeat { "only" => gateway::Heartbeat, }
    Goodbye { "usual" => goodbye(), }
    LastRow { "usual" => gateway::LastRow { row: row(77) }, }
    Killed {
        "every-step" => batch(vec![
            gateway::Killed { row: row(1), step: gateway::KillStep::Refused },
            gateway::Killed { row: row(2), step: gateway::KillStep::Gone },
            gateway::Killed { row: row(u64::MAX >> 1), step: gateway::KillStep::Failed },
        ]),
    }
}}

every! { server_to_agent: gateway::ToAgent {
    Welcome {
        "usual" => gateway::Welcome {
            software: text("nuauth-server 0.1.0"),
            capabilities: gateway::Capabilities(0),
            gateway: text("gw1.example"),
            acknowledged: EventSeq(0),
            dead_after_ms: 10_000,
            mark_mask: Mark(0x00ff_ffff),
        },
    }
    Answers {
        "every-verdict" => batch(vec![
            gateway::Answer { id: AskId(1), verdict: gateway::Verdict::Accept { row: row(1 << 40), mark: Mark(1001) } },
            gateway::Answer { id: AskId(2), verdict: gateway::Verdict::Drop },
            gateway::Answer { id: AskId(3), verdict: gateway::Verdict::Reject },
        ]),
    }
    EventAck { "usual" => gateway::EventAck { through: EventSeq(43) }, }
    DumpRequest { "usual" => gateway::DumpRequest { dump: DumpId(7) }, }
    KnownAddresses {
        "change" => gateway::KnownAddresses {
            reset: false,
            added: batch(vec![addr("10.0.0.7"), addr("2001:db8::7")]),
            removed: batch(vec![addr("10.0.0.8")]),
            others_can_pass: true,
        },
        "reset" => gateway::KnownAddresses {
            reset: true,
            added: batch(vec![]),
            removed: batch(vec![]),
            others_can_pass: false,
        },
    }
    Heartbeat { "only" => gateway::Heartbeat, }
    Goodbye { "usual" => goodbye(), }
    Expire {
        "two" => batch(vec![
            gateway::Expiry { live: live(web()), seconds: 3600 },
            gateway::Expiry { live: live(web()), seconds: 0 },
        ]),
    }
    Kill { "every-transport" => batch(every_transport().into_iter().map(live).collect()), }
}}

every! { client_to_server: client::ToServer {
    Hello {
        "usual" => client::Hello {
            software: text("nutcpc 0.1.0"),
            capabilities: gateway::Capabilities(0),
            os: OsInfo { name: text("Linux"), release: text("6.12.0"), version: text("#1 SMP") },
            system: false,
        },
        "system" => client::Hello {
            software: text("nutcpc 0.1.0"),
            capabilities: gateway::Capabilities(1 << 63),
            os: OsInfo::default(),
            system: true,
        },
    }
    Login {
        "plain" => client::Login {
            mechanism: text("PLAIN"),
            response: LoginBytes::new(b"\0alice\0correct horse".to_vec()).unwrap(),
        },
        "scram" => client::Login {
            mechanism: text("SCRAM-SHA-256-PLUS"),
            response: LoginBytes::new(b"p=tls-exporter,,n=alice,r=rOprNGfwEbeRWgbNEkqO".to_vec()).unwrap(),
        },
        "external" => client::Login { mechanism: text("EXTERNAL"), response: LoginBytes::new(vec![]).unwrap() },
    }
    Prove { "usual" => client::Prove { token: SecretBytes::new((0..32).collect()).unwrap() }, }
    Withdraw { "usual" => client::Withdraw { address: addr("2001:db8::7") }, }
    Claims {
        "every-finding" => batch(vec![
            client::Claim { id: ClaimId(1), finding: client::Finding::Mine(mine(Some("/usr/bin/curl"))) },
            client::Claim { id: ClaimId(2), finding: client::Finding::Mine(mine(None)) },
            client::Claim { id: ClaimId(3), finding: client::Finding::NotMine },
        ]),
    }
    Announce { "one" => batch(vec![client::Announce { mine: mine(Some("/opt/ü")) }]), }
    Heartbeat { "only" => client::Heartbeat, }
    Goodbye { "usual" => goodbye(), }
    ProgramHashes { "one" => batch(vec![client::ProgramHash { id: ClaimId(7), sha256: [0x5a; 32] }]), }
    Resume { "usual" => client::Resume { ticket: SecretBytes::new((0..96).collect()).unwrap() }, }
    Again {
        "plain" => client::Login {
            mechanism: text("PLAIN"),
            response: LoginBytes::new(b"\0alice\0correct horse".to_vec()).unwrap(),
        },
    }
    Respond {
        "scram" => client::Respond {
            response: LoginBytes::new(b"c=biws,r=rOprNGfwEbeRWgbNEkqO,p=dHzbZapWIk4jUhN".to_vec()).unwrap(),
        },
        "empty" => client::Respond { response: LoginBytes::new(vec![]).unwrap() },
    }
}}

every! { server_to_client: client::ToClient {
    Welcome {
        "usual" => client::Welcome {
            software: text("nuauth-server 0.1.0"),
            capabilities: gateway::Capabilities(0),
            mechanisms: batch(vec![text("EXTERNAL"), text("PLAIN")]),
        },
    }
    LoggedIn {
        "usual" => client::LoggedIn {
            session: SessionId(5),
            user: text("alice"),
            address: addr("10.0.0.7"),
            token: SecretBytes::new((0..32).collect()).unwrap(),
            address_lease_ms: 300_000,
            dead_after_ms: 10_000,
        },
    }
    Refused {
        "credentials" => refused(client::Refusal::Credentials),
        "too-many-failures" => refused(client::Refusal::TooManyFailures),
        "mechanism" => refused(client::Refusal::Mechanism),
        "full" => refused(client::Refusal::Full),
        "token" => refused(client::Refusal::Token),
        "address" => refused(client::Refusal::Address),
        "unavailable" => refused(client::Refusal::Unavailable),
        "user-full" => refused(client::Refusal::UserFull),
        "address-full" => refused(client::Refusal::AddressFull),
        "hours" => refused(client::Refusal::Hours),
        "ticket" => refused(client::Refusal::Ticket),
    }
    Proven { "usual" => client::Proven { address: addr("2001:db8::7") }, }
    ClaimRequests {
        "every-transport" => batch(
            every_transport()
                .into_iter()
                .map(|tuple| client::ClaimRequest { id: ClaimId(9), hook: gateway::Hook::Input, tuple })
                .collect(),
        ),
    }
    Notice { "usual" => client::Notice { text: text("your password ends in 3 days") }, }
    Heartbeat { "only" => client::Heartbeat, }
    Goodbye { "usual" => goodbye(), }
    Ticket {
        "usual" => client::Ticket {
            ticket: SecretBytes::new((0..96).collect()).unwrap(),
            lifetime_ms: 600_000,
        },
    }
    Renew { "usual" => client::Renew { within_ms: 60_000 }, }
    Renewed { "only" => client::Renewed, }
    Ended {
        "ordered" => ended(client::EndCause::Ordered),
        "removed" => ended(client::EndCause::Removed),
        "replaced" => ended(client::EndCause::Replaced),
        "idle" => ended(client::EndCause::Idle),
        "expired" => ended(client::EndCause::Expired),
        "hours" => ended(client::EndCause::Hours),
        "misbehaved" => ended(client::EndCause::Misbehaved),
    }
    Challenge {
        "scram" => client::Challenge {
            challenge: SecretBytes::new(b"r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096".to_vec()).unwrap(),
        },
    }
    HashPrograms {
        "wanted" => client::HashPrograms { wanted: true },
        "no-more" => client::HashPrograms { wanted: false },
    }
    Denied {
        "dropped" => client::Denied {
            mine: client::Mine { seen: every_transport()[0], program: Some(text("/usr/bin/ssh")) },
            rejected: false,
            untold: 0,
        },
        "rejected" => client::Denied {
            mine: client::Mine { seen: every_transport()[1], program: None },
            rejected: true,
            untold: 300,
        },
    }
}}
