//! Many connections at once, made by the database itself: for plans and measurements, which need a table of some size.
//!
//! Each has a user, ends of its own, and source NAT to 203.0.113.5; ten begin in a second, and each lasts half a minute.

/// Which database makes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Maker {
    Sqlite,
    Postgres,
    MariaDb,
}

/// When the first one begins: 2026-01-01T00:00:00Z.
pub(crate) const BEGIN: i64 = 1_767_225_600;

/// The statement that puts the connections with numbers from `first` to `last` into a table: ended ones, or, into the live
/// table, established ones.
pub(crate) fn statement(maker: Maker, table: &str, first: u64, last: u64) -> String {
    let n = match maker {
        Maker::MariaDb => "seq",
        Maker::Sqlite | Maker::Postgres => "n",
    };
    let source = match maker {
        Maker::Sqlite => format!(
            "WITH RECURSIVE numbers(n) AS (SELECT {first} UNION ALL SELECT n + 1 FROM numbers WHERE n < {last}) "
        ),
        Maker::Postgres | Maker::MariaDb => String::new(),
    };
    let from = match maker {
        Maker::Sqlite => "numbers".to_owned(),
        Maker::Postgres => format!("generate_series({first}::bigint, {last}) AS n"),
        Maker::MariaDb => format!("seq_{first}_to_{last}"),
    };
    let address = |network: [u8; 2], host: &str| {
        let [a, b] = network;
        match maker {
            Maker::Sqlite => format!("'{a}.{b}.' || (({host}) / 256) || '.' || (({host}) % 256)"),
            Maker::Postgres => format!("inet '{a}.{b}.0.0' + ({host})"),
            Maker::MariaDb => {
                let base = u32::from_be_bytes([a, b, 0, 0]);
                format!("unhex(lpad(hex({base} + ({host})), 8, '0'))")
            }
        }
    };
    let nat = match maker {
        Maker::Sqlite => "'203.0.113.5'",
        Maker::Postgres => "inet '203.0.113.5'",
        Maker::MariaDb => "inet6_aton('203.0.113.5')",
    };
    let seconds = match maker {
        Maker::MariaDb => format!("{BEGIN} + {n} DIV 10"),
        Maker::Sqlite | Maker::Postgres => format!("{BEGIN} + {n} / 10"),
    };
    let time = |after: u32| match maker {
        Maker::Sqlite => format!("({seconds} + {after}) * 1000000"),
        Maker::Postgres => format!("to_timestamp({seconds} + {after})"),
        Maker::MariaDb => {
            format!("timestampadd(SECOND, {seconds} + {after}, timestamp'1970-01-01 00:00:00')")
        }
    };
    let user = match maker {
        Maker::MariaDb => format!("concat('user', {n} % 1000)"),
        Maker::Sqlite | Maker::Postgres => format!("'user' || ({n} % 1000)"),
    };
    let (state, end, reason) = if table == "ulog" {
        (3, time(30), "'finished'")
    } else {
        (2, "NULL".to_owned(), "NULL")
    };
    let (source_address, destination) = (
        address([10, 0], &format!("{n} * 7 % 5000")),
        address([198, 51], &format!("{n} * 13 % 2000")),
    );
    format!(
        "{source}INSERT INTO {table} (id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, \
         ip_protocol, ip_saddr, ip_daddr, tcp_sport, tcp_dport, user_id, username, client_os, client_app, \
         start_timestamp, end_timestamp, packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, \
         reply_sport, reply_dport, gateway, ct_id, ct_mark, ct_zone, acl, close_reason) \
         SELECT {server} + {n}, {state}, {seconds}, {n} % 10 * 100000, 'web', 1001, 'lan', 'wan', 6, {source_address}, \
         {destination}, 1024 + {n} * 7919 % 60000, 443, 1000 + {n} % 1000, {user}, 'Linux 6.1.0 x86_64', \
         '/usr/lib/firefox-esr/firefox-esr', {start}, {end}, 12, 9, 4711, 815, {destination}, {nat}, 443, \
         1024 + {n} * 104729 % 64000, 'gw1', 7, 1001, 0, 'web-out', {reason} FROM {from}",
        server = 1_u64 << 49,
        start = time(0),
    )
}
