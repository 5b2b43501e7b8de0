//! The whole path into each database: real connections at full rate, and whether each of them has its whole row.

use super::case;
use super::place::Place;
use super::ulogd::load;
use crate::bench::figures::{Figure, Figures, Rate};
use crate::bench::{LOAD_PORT, SETTLE, SINK_KEEPS, SOURCES, drain, own, ratio};
use crate::daemons::Lab;
use crate::net::Net;
use crate::options::Options;
use crate::wait::wait_for;
use anyhow::Result;
use tokio::runtime::Runtime;

pub(super) fn run(place: &Place, runtime: &Runtime, connections: u32, figures: &mut Figures) -> Result<()> {
    let (database, _) = runtime.block_on(place.log())?;
    let net = Net::new(SOURCES)?;
    let mut options = Options::default()
        .nuauth("log.database", database.url.as_str())
        .nuauth("log.spool", "spool.db");
    options.client_addresses = SOURCES;
    "info".clone_into(&mut options.log_level);
    let lab = Lab::on(net.clone(), options)?;
    let args = ["sink", "--port", &LOAD_PORT.to_string(), "--keep", SINK_KEEPS];
    let _sink = own("sink", &net.server, lab.dir(), &args)?;
    let report = load(&net, connections)?;
    drain(&net)?;
    let count = |state: &str| {
        let query = format!("SELECT count(*) FROM conntrack_ulog WHERE {state} AND tcp_dport = {LOAD_PORT}");
        runtime.block_on(database.number(&query))
    };
    // What is stuck after the time is the figure.
    wait_for("every row to be closed", SETTLE, || {
        Ok(count("state IN (1, 2)")? == 0)
    })
    .ok();
    let (accepted, stuck) = (count("state > 0")?, count("state IN (1, 2)")?);
    let lost = u64::from(report.connected).saturating_sub(accepted);
    for (metric, value, unit) in [
        ("kernel_rows_lost", ratio(lost, 1), "rows"),
        ("kernel_rows_stuck", ratio(stuck, 1), "rows"),
        (
            "kernel_connections_per_second",
            report.connections_per_second,
            "1/s",
        ),
    ] {
        figures.add(Figure::new(case(place.kind), metric, Rate::Full, value, unit));
    }
    drop(lab);
    runtime.block_on(database.remove(place))
}
