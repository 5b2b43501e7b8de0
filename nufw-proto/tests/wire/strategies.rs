//! Proptest strategies for every message: any value that a message can hold, the limits' edges included.
//!
//! `random_messages` shows that none is missing.

use nufw_proto::client::{self, OsInfo};
use nufw_proto::gateway;
use nufw_proto::{
    Addr, AskId, Batch, BootId, ClaimId, ConnId, Count, Counters, CtEntry, CtEvent, CtEventKind, CtStatus,
    DumpId, EventSeq, IcmpKey, Mark, Ports, Removal, Secret, SessionId, TcpState, Text, Timestamp, Transport,
    Tuple,
};
use proptest::collection::vec;
use proptest::prelude::*;
use std::net::{Ipv4Addr, Ipv6Addr};

pub(crate) fn v4() -> impl Strategy<Value = Addr> {
    any::<u32>().prop_map(|bits| Addr::from(Ipv4Addr::from(bits)))
}

/// Never a mapped address: those become IPv4 addresses.
pub(crate) fn v6() -> impl Strategy<Value = Addr> {
    any::<u128>().prop_map(|bits| match bits >> 32 {
        0xffff => Addr::from(Ipv6Addr::LOCALHOST),
        _ => Addr::from(Ipv6Addr::from(bits)),
    })
}

pub(crate) fn addr() -> impl Strategy<Value = Addr> {
    prop_oneof![v4(), v6()]
}

fn ports() -> impl Strategy<Value = Ports> {
    (any::<u16>(), any::<u16>()).prop_map(|(src, dst)| Ports { src, dst })
}

fn icmp() -> impl Strategy<Value = IcmpKey> {
    (any::<u8>(), any::<u8>(), any::<u16>()).prop_map(|(kind, code, id)| IcmpKey { kind, code, id })
}

/// Any transport, whatever the family.
pub(crate) fn transport() -> impl Strategy<Value = Transport> {
    (any::<u8>(), ports(), icmp(), 0..9_u8).prop_map(|(number, ports, icmp, kind)| {
        let number = [6, 17, 136, 132, 33, 47, 1, 58, number][usize::from(kind)];
        Transport::from_parts(number, Some(ports), Some(icmp)).unwrap()
    })
}

pub(crate) fn tuple() -> impl Strategy<Value = Tuple> {
    prop_oneof![(v4(), v4(), transport()), (v6(), v6(), transport())].prop_map(|(src, dst, transport)| {
        let transport = match transport {
            Transport::Icmp(key) if !src.is_ipv4() => Transport::Icmpv6(key),
            Transport::Icmpv6(key) if src.is_ipv4() => Transport::Icmp(key),
            fitting => fitting,
        };
        Tuple::new(src, dst, transport).unwrap()
    })
}

pub(crate) fn text<const MAX: usize>() -> impl Strategy<Value = Text<MAX>> {
    vec(any::<char>(), 0..=MAX.min(40)).prop_map(|chars| Text::lossy(&chars.into_iter().collect::<String>()))
}

fn batch<T: std::fmt::Debug>(item: impl Strategy<Value = T>) -> impl Strategy<Value = Batch<T>> {
    vec(item, 0..6).prop_map(|items| Batch::try_from(items).unwrap())
}

fn secret<const MAX: usize>() -> impl Strategy<Value = Secret<MAX>> {
    vec(any::<u8>(), 0..80).prop_map(|bytes| Secret::new(bytes).unwrap())
}

fn row() -> impl Strategy<Value = ConnId> {
    (1..=u64::MAX >> 1).prop_map(|id| ConnId::try_from(id).unwrap())
}

fn time() -> impl Strategy<Value = Timestamp> {
    any::<i64>().prop_map(Timestamp::from_micros)
}

fn hook() -> impl Strategy<Value = gateway::Hook> {
    use gateway::Hook;
    prop_oneof![
        Just(Hook::Prerouting),
        Just(Hook::Input),
        Just(Hook::Forward),
        Just(Hook::Output),
        Just(Hook::Postrouting)
    ]
}

fn counters() -> impl Strategy<Value = Counters> {
    any::<[u64; 4]>().prop_map(|[a, b, c, d]| Counters {
        original: Count { packets: a, bytes: b },
        reply: Count { packets: c, bytes: d },
    })
}

fn entry() -> impl Strategy<Value = CtEntry> {
    let kernel = (
        any::<u32>(),
        any::<u16>(),
        tuple(),
        tuple(),
        any::<u32>(),
        any::<u32>(),
    );
    let optional = (
        proptest::option::of(any::<u8>()),
        proptest::option::of(counters()),
        proptest::option::of(time()),
        proptest::option::of(time()),
        proptest::option::of(tuple()),
    );
    (kernel, optional).prop_map(
        |((id, zone, original, reply, mark, status), (tcp, counters, start, stop, master))| CtEntry {
            id,
            zone,
            original,
            reply,
            master,
            mark: Mark(mark),
            status: CtStatus(status),
            tcp_state: tcp.map(TcpState),
            counters,
            start,
            stop,
        },
    )
}

fn event() -> impl Strategy<Value = CtEvent> {
    let kind = prop_oneof![
        Just(CtEventKind::New),
        Just(CtEventKind::Update),
        Just(CtEventKind::Destroy)
    ];
    let removal = prop_oneof![
        Just(Removal::Unsaid),
        Just(Removal::Early),
        Just(Removal::ByProgram)
    ];
    (kind, entry(), time(), any::<bool>(), removal).prop_map(|(kind, entry, at, at_kernel, removal)| {
        CtEvent {
            kind,
            entry,
            at,
            at_kernel,
            removal,
        }
    })
}

fn capabilities() -> impl Strategy<Value = gateway::Capabilities> {
    any::<u64>().prop_map(gateway::Capabilities)
}

fn goodbye() -> impl Strategy<Value = gateway::Goodbye> {
    text().prop_map(|reason| gateway::Goodbye { reason })
}

fn gateway_hello() -> impl Strategy<Value = gateway::Hello> {
    (
        text(),
        any::<u64>(),
        capabilities(),
        any::<u32>(),
        any::<[bool; 3]>(),
        any::<u64>(),
    )
        .prop_map(
            |(
                software,
                boot,
                capabilities,
                packet_timeout_ms,
                [relays_events, marked_only, sets_marks],
                first,
            )| {
                gateway::Hello {
                    software,
                    boot: BootId(boot),
                    capabilities,
                    packet_timeout_ms,
                    relays_events,
                    marked_only,
                    sets_marks,
                    first_held: EventSeq(first),
                }
            },
        )
}

fn bridged_ask() -> impl Strategy<Value = gateway::BridgedAsk> {
    (ask(), text(), text()).prop_map(|(ask, phys_in, phys_out)| gateway::BridgedAsk {
        ask,
        phys_in,
        phys_out,
    })
}

fn ask() -> impl Strategy<Value = gateway::Ask> {
    (
        any::<u64>(),
        hook(),
        any::<u16>(),
        tuple(),
        text(),
        text(),
        any::<u32>(),
        (time(), any::<bool>()),
    )
        .prop_map(
            |(id, hook, zone, tuple, in_dev, out_dev, mark, (received, tracked))| gateway::Ask {
                id: AskId(id),
                hook,
                zone,
                tuple,
                in_dev,
                out_dev,
                mark: Mark(mark),
                received,
                tracked,
            },
        )
}

fn gap() -> impl Strategy<Value = gateway::Gap> {
    let cause = prop_oneof![
        Just(gateway::GapCause::NetlinkOverrun),
        Just(gateway::GapCause::StoreFull),
        Just(gateway::GapCause::RulesMissing)
    ];
    (time(), time(), cause).prop_map(|(from, to, cause)| gateway::Gap { from, to, cause })
}

pub(crate) fn agent_to_server() -> impl Strategy<Value = gateway::ToServer> {
    use gateway::{DumpBegin, DumpEnd, DumpPart, Events, ToServer, Unused};
    let unused = (any::<u64>(), row()).prop_map(|(id, row)| Unused { id: AskId(id), row });
    let dump = || any::<u64>().prop_map(DumpId);
    prop_oneof![
        gateway_hello().prop_map(ToServer::Hello),
        batch(ask()).prop_map(ToServer::Asks),
        batch(unused).prop_map(ToServer::Unused),
        (any::<u64>(), batch(event())).prop_map(|(first, events)| ToServer::Events(Events {
            first: EventSeq(first),
            events
        })),
        gap().prop_map(ToServer::Gap),
        any::<u32>().prop_map(|bit| ToServer::Blind(gateway::Blind { bit: Mark(bit) })),
        batch(ask()).prop_map(ToServer::Elsewhere),
        batch(bridged_ask()).prop_map(ToServer::BridgedAsks),
        batch(row()).prop_map(ToServer::LetGo),
        dump().prop_map(|dump| ToServer::DumpBegin(DumpBegin { dump })),
        (dump(), batch(entry())).prop_map(|(dump, entries)| ToServer::DumpPart(DumpPart { dump, entries })),
        (dump(), any::<bool>()).prop_map(|(dump, complete)| ToServer::DumpEnd(DumpEnd { dump, complete })),
        Just(ToServer::Heartbeat(gateway::Heartbeat)),
        goodbye().prop_map(ToServer::Goodbye),
        row().prop_map(|row| ToServer::LastRow(gateway::LastRow { row })),
        batch(killed()).prop_map(ToServer::Killed),
    ]
}

fn killed() -> impl Strategy<Value = gateway::Killed> {
    use gateway::KillStep;
    let step = prop_oneof![
        Just(KillStep::Refused),
        Just(KillStep::Gone),
        Just(KillStep::Failed)
    ];
    (row(), step).prop_map(|(row, step)| gateway::Killed { row, step })
}

fn live() -> impl Strategy<Value = gateway::Live> {
    (row(), any::<u32>(), any::<u16>(), tuple()).prop_map(|(row, id, zone, original)| gateway::Live {
        row,
        id,
        zone,
        original,
    })
}

fn expiry() -> impl Strategy<Value = gateway::Expiry> {
    (live(), any::<u32>()).prop_map(|(live, seconds)| gateway::Expiry { live, seconds })
}

fn verdict() -> impl Strategy<Value = gateway::Verdict> {
    use gateway::Verdict;
    prop_oneof![
        (row(), any::<u32>()).prop_map(|(row, mark)| Verdict::Accept {
            row,
            mark: Mark(mark)
        }),
        Just(Verdict::Drop),
        Just(Verdict::Reject),
    ]
}

fn gateway_welcome() -> impl Strategy<Value = gateway::Welcome> {
    (
        text(),
        capabilities(),
        text(),
        any::<u64>(),
        any::<u32>(),
        any::<u32>(),
    )
        .prop_map(
            |(software, capabilities, gateway, acknowledged, dead_after_ms, mask)| gateway::Welcome {
                software,
                capabilities,
                gateway,
                acknowledged: EventSeq(acknowledged),
                dead_after_ms,
                mark_mask: Mark(mask),
            },
        )
}

fn known_addresses() -> impl Strategy<Value = gateway::KnownAddresses> {
    (any::<bool>(), batch(addr()), batch(addr()), any::<bool>()).prop_map(
        |(reset, added, removed, others_can_pass)| gateway::KnownAddresses {
            reset,
            added,
            removed,
            others_can_pass,
        },
    )
}

pub(crate) fn server_to_agent() -> impl Strategy<Value = gateway::ToAgent> {
    use gateway::{Answer, DumpRequest, EventAck, ToAgent};
    let answer = (any::<u64>(), verdict()).prop_map(|(id, verdict)| Answer {
        id: AskId(id),
        verdict,
    });
    prop_oneof![
        gateway_welcome().prop_map(ToAgent::Welcome),
        batch(answer).prop_map(ToAgent::Answers),
        any::<u64>().prop_map(|through| ToAgent::EventAck(EventAck {
            through: EventSeq(through)
        })),
        any::<u64>().prop_map(|dump| ToAgent::DumpRequest(DumpRequest { dump: DumpId(dump) })),
        known_addresses().prop_map(ToAgent::KnownAddresses),
        Just(ToAgent::Heartbeat(gateway::Heartbeat)),
        goodbye().prop_map(ToAgent::Goodbye),
        batch(live()).prop_map(ToAgent::Kill),
        batch(expiry()).prop_map(ToAgent::Expire),
    ]
}

fn client_hello() -> impl Strategy<Value = client::Hello> {
    let os = (text(), text(), text()).prop_map(|(name, release, version)| OsInfo {
        name,
        release,
        version,
    });
    (text(), capabilities(), os, any::<bool>()).prop_map(|(software, capabilities, os, system)| {
        client::Hello {
            software,
            capabilities,
            os,
            system,
        }
    })
}

fn mine() -> impl Strategy<Value = client::Mine> {
    (tuple(), proptest::option::of(text())).prop_map(|(seen, program)| client::Mine { seen, program })
}

pub(crate) fn client_to_server() -> impl Strategy<Value = client::ToServer> {
    use client::{Announce, Claim, Finding, Login, Prove, ToServer, Withdraw};
    let finding = prop_oneof![mine().prop_map(Finding::Mine), Just(Finding::NotMine)];
    let claim = (any::<u64>(), finding).prop_map(|(id, finding)| Claim {
        id: ClaimId(id),
        finding,
    });
    prop_oneof![
        client_hello().prop_map(ToServer::Hello),
        (text(), secret()).prop_map(|(mechanism, response)| ToServer::Login(Login { mechanism, response })),
        secret().prop_map(|token| ToServer::Prove(Prove { token })),
        addr().prop_map(|address| ToServer::Withdraw(Withdraw { address })),
        batch(claim).prop_map(ToServer::Claims),
        batch(mine().prop_map(|mine| Announce { mine })).prop_map(ToServer::Announce),
        Just(ToServer::Heartbeat(client::Heartbeat)),
        goodbye().prop_map(ToServer::Goodbye),
        batch(
            (any::<u64>(), any::<[u8; 32]>()).prop_map(|(id, sha256)| client::ProgramHash {
                id: ClaimId(id),
                sha256,
            })
        )
        .prop_map(ToServer::ProgramHashes),
        secret().prop_map(|ticket| ToServer::Resume(client::Resume { ticket })),
        (text(), secret()).prop_map(|(mechanism, response)| ToServer::Again(Login { mechanism, response })),
        secret().prop_map(|response| ToServer::Respond(client::Respond { response })),
    ]
}

fn refused() -> impl Strategy<Value = client::Refused> {
    use client::Refusal;
    let cause = prop_oneof![
        Just(Refusal::Credentials),
        Just(Refusal::TooManyFailures),
        Just(Refusal::Mechanism),
        Just(Refusal::Full),
        Just(Refusal::Token),
        Just(Refusal::Address),
        Just(Refusal::Unavailable),
        Just(Refusal::UserFull),
        Just(Refusal::AddressFull),
        Just(Refusal::Hours),
        Just(Refusal::Ticket),
    ];
    (cause, text()).prop_map(|(cause, reason)| client::Refused { cause, reason })
}

fn ended() -> impl Strategy<Value = client::Ended> {
    use client::EndCause;
    let cause = prop_oneof![
        Just(EndCause::Ordered),
        Just(EndCause::Removed),
        Just(EndCause::Replaced),
        Just(EndCause::Idle),
        Just(EndCause::Expired),
        Just(EndCause::Hours),
        Just(EndCause::Misbehaved),
    ];
    (cause, text()).prop_map(|(cause, reason)| client::Ended { cause, reason })
}

fn logged_in() -> impl Strategy<Value = client::LoggedIn> {
    (any::<u64>(), text(), addr(), secret(), any::<u32>(), any::<u32>()).prop_map(
        |(session, user, address, token, address_lease_ms, dead_after_ms)| client::LoggedIn {
            session: SessionId(session),
            user,
            address,
            token,
            address_lease_ms,
            dead_after_ms,
        },
    )
}

pub(crate) fn server_to_client() -> impl Strategy<Value = client::ToClient> {
    use client::{ClaimRequest, Notice, Proven, ToClient, Welcome};
    let welcome =
        (text(), capabilities(), batch(text())).prop_map(|(software, capabilities, mechanisms)| Welcome {
            software,
            capabilities,
            mechanisms,
        });
    let request = (any::<u64>(), hook(), tuple()).prop_map(|(id, hook, tuple)| ClaimRequest {
        id: ClaimId(id),
        hook,
        tuple,
    });
    prop_oneof![
        welcome.prop_map(ToClient::Welcome),
        logged_in().prop_map(ToClient::LoggedIn),
        refused().prop_map(ToClient::Refused),
        addr().prop_map(|address| ToClient::Proven(Proven { address })),
        batch(request).prop_map(ToClient::ClaimRequests),
        text().prop_map(|text| ToClient::Notice(Notice { text })),
        Just(ToClient::Heartbeat(client::Heartbeat)),
        goodbye().prop_map(ToClient::Goodbye),
        any::<bool>().prop_map(|wanted| ToClient::HashPrograms(client::HashPrograms { wanted })),
        (secret(), any::<u32>())
            .prop_map(|(ticket, lifetime_ms)| ToClient::Ticket(client::Ticket { ticket, lifetime_ms })),
        any::<u32>().prop_map(|within_ms| ToClient::Renew(client::Renew { within_ms })),
        Just(ToClient::Renewed(client::Renewed)),
        ended().prop_map(ToClient::Ended),
        secret().prop_map(|challenge| ToClient::Challenge(client::Challenge { challenge })),
        (mine(), any::<bool>(), any::<u32>()).prop_map(|(mine, rejected, untold)| {
            ToClient::Denied(client::Denied {
                mine,
                rejected,
                untold,
            })
        }),
    ]
}
