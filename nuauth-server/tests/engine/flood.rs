//! Floods of packets that are dropped: their rows are bounded, and counted.

use crate::world::{World, tcp};
use nuauth_server::engine::{Input, Limits, LinkId};
use std::time::Duration;

/// One packet from nobody, of a flow of its own.
fn packet(w: &mut World, gw: LinkId, source: &str, number: u16) {
    w.ask(gw, tcp(&format!("{source}:{number}"), "192.0.2.1:443"));
}

fn counted(w: &World) -> Vec<u64> {
    let gaps = w.gaps().into_iter();
    gaps.filter(|gap| &*gap.cause == "drops-aggregated")
        .map(|gap| gap.count.unwrap())
        .collect()
}

fn world(change: impl FnOnce(&mut Limits)) -> World {
    World::with(|limits| {
        limits.drops_per_source = 5;
        limits.drops_per_gateway = 1000;
        limits.drop_burst = Duration::from_secs(2);
        change(limits);
    })
}

#[test]
fn one_source_gets_its_burst_then_its_rate_and_others_are_not_crowded_out() {
    let mut w = world(|_| {});
    let gw = w.gateway();
    (1..=500).for_each(|number| packet(&mut w, gw, "10.0.0.66", number));
    assert_eq!(w.dropped().len(), 10, "what two seconds allow");
    packet(&mut w, gw, "10.0.0.7", 1);
    assert_eq!(w.dropped().len(), 11);
    let (from, to) = (w.dropped()[9].received, w.wall());
    w.pass(Duration::from_secs(2));
    assert_eq!(counted(&w), [490]);
    let gap = w.gaps()[0].clone();
    assert_eq!(gap.gateway.as_deref(), Some("gw"));
    assert!(from < gap.from && gap.from < gap.to && gap.to < to, "{gap:?}");
    (501..=600).for_each(|number| packet(&mut w, gw, "10.0.0.66", number));
    assert_eq!(w.dropped().len(), 21, "two seconds brought ten more");
    assert_eq!(w.stats().drops_aggregated, 580);
}

#[test]
fn a_retransmission_of_what_was_counted_is_neither_a_row_nor_counted() {
    let mut w = world(|limits| limits.drops_per_gateway = 1);
    let gw = w.gateway();
    for number in [1, 2, 3, 3, 3] {
        packet(&mut w, gw, "10.0.0.66", number);
    }
    assert_eq!((w.dropped().len(), w.stats().drops_aggregated), (2, 1));
}

#[test]
fn made_up_sources_share_the_rate_of_their_gateway_and_fill_no_table() {
    let mut w = world(|limits| limits.drops_per_gateway = 50);
    let gw = w.gateway_as("gw1", |_| {});
    let other = w.gateway_as("gw2", |_| {});
    for number in 0..2000_u32 {
        let source = std::net::Ipv4Addr::from(0x0b00_0000 + number).to_string();
        packet(&mut w, gw, &source, 1);
    }
    assert_eq!(w.dropped().len(), 100, "what two seconds allow");
    packet(&mut w, other, "10.0.0.66", 1);
    assert_eq!(w.dropped().len(), 101, "another gateway has its own");
    w.pass(Duration::from_secs(2));
    assert_eq!(counted(&w), [1900]);
}

#[test]
fn sources_beyond_the_table_are_counted_until_others_are_forgotten() {
    let mut w = world(|limits| limits.drop_sources = 2);
    let gw = w.gateway();
    for source in ["10.0.0.1", "10.0.0.2", "10.0.0.3"] {
        packet(&mut w, gw, source, 1);
    }
    assert_eq!((w.dropped().len(), w.stats().drops_aggregated), (2, 1));
    w.pass(Duration::from_secs(2));
    packet(&mut w, gw, "10.0.0.3", 2);
    assert_eq!(w.dropped().len(), 3);
}

#[test]
fn a_flood_that_goes_on_is_told_from_time_to_time_and_at_the_end_of_the_server() {
    let mut w = world(|limits| limits.drops_per_source = 1);
    let gw = w.gateway();
    for number in 0..150 {
        packet(&mut w, gw, "10.0.0.66", number);
        w.pass(Duration::from_millis(100));
    }
    let told = counted(&w);
    assert_eq!(told.len(), 1, "one in ten seconds: {told:?}");
    w.input(Input::Stopping);
    assert_eq!(counted(&w).iter().sum::<u64>(), w.stats().drops_aggregated);
    assert_eq!(w.dropped().len() as u64 + w.stats().drops_aggregated, 150);
}

#[test]
fn without_ids_drops_are_counted() {
    let mut w = World::without_ids(|_| {});
    let gw = w.gateway();
    packet(&mut w, gw, "10.0.0.66", 1);
    w.pass(Duration::from_secs(2));
    assert_eq!((w.dropped().len(), counted(&w)), (0, vec![1]));
}
