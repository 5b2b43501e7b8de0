//! A thousand connections that are opened at the same time make a thousand complete rows.

use lab::{Closing, LoadOptions, Options, Pace, TcpService, addr, load, wait_for, with_lab};
use std::net::SocketAddr;
use std::time::Duration;

const COUNT: u32 = 1000;

#[test]
fn claim() {
    let mut options = Options::default();
    options.client_addresses = 4;
    with_lab(options, |lab| {
        let _web = TcpService::keep(&lab.net.server, 80, 64)?;
        let run = LoadOptions {
            target: SocketAddr::new(addr::SERVER4, 80),
            sources: (0..4).map(addr::client4).collect(),
            first_port: 20_000,
            count: COUNT,
            pace: Pace::Closed(1000),
            closing: Closing::Reset,
            timeout: Duration::from_secs(30),
        };
        let report = lab.net.client.enter(|| load(&run))??;
        assert_eq!(report.connected, COUNT, "{report:?}");
        let complete = "select count(*) from conntrack_ulog where state = 3 and username = 'alice' and oob_mark = 1001 \
            and ct_mark = 1001 and client_app is not null and start_timestamp is not null \
            and end_timestamp > start_timestamp and packets_in >= 2 and packets_out >= 1 and bytes_in > 0 \
            and bytes_out > 0 and close_reason = 'reset' and ct_id is not null";
        wait_for("a thousand complete rows", Duration::from_secs(90), || {
            lab.net.conntrack()?;
            Ok(lab.count(complete)? >= i64::from(COUNT))
        })?;
        assert_eq!(
            lab.count("select count(*) from conntrack_ulog")?,
            i64::from(COUNT)
        );
        assert_eq!(
            lab.count("select count(distinct tcp_sport || ip_saddr) from conntrack_ulog")?,
            i64::from(COUNT)
        );
        assert_eq!(lab.count("select count(*) from log_gap")?, 0);
        Ok(())
    });
}
