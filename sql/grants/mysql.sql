-- Who may do what with the log on MariaDB and MySQL. Run it in the log's database, as an account that may grant, after
-- `nuauth-server db migrate` and again after every later one: mariadb nulog < mysql.sql
--
-- Roles; give them to accounts of your own:
--   CREATE USER nuauth@'%' IDENTIFIED BY '…' REQUIRE SSL; GRANT nufw_server TO nuauth@'%';
--   SET DEFAULT ROLE nufw_server FOR nuauth@'%';      (MySQL: SET DEFAULT ROLE nufw_server TO nuauth@'%')

CREATE ROLE IF NOT EXISTS nufw_server, nufw_cleaner, nufw_rotator, nufw_reader, nufw_sso;

GRANT SELECT ON _sqlx_migrations TO nufw_server;
GRANT SELECT ON _sqlx_migrations TO nufw_cleaner;
GRANT SELECT ON _sqlx_migrations TO nufw_rotator;
GRANT SELECT ON _sqlx_migrations TO nufw_reader;
GRANT SELECT ON _sqlx_migrations TO nufw_sso;

-- The server: adds rows and changes what is not an id; deletes nothing.
GRANT SELECT, INSERT, UPDATE (state, ip_protocol, ip_saddr, ip_daddr, tcp_sport, tcp_dport, udp_sport, udp_dport, sport,
    dport, icmp_type, icmp_code, icmp_id, start_timestamp, end_timestamp, packets_in, packets_out, bytes_in, bytes_out,
    reply_saddr, reply_daddr, reply_sport, reply_dport, reply_icmp_type, reply_icmp_code, reply_icmp_id, ct_id, ct_mark,
    close_reason) ON conntrack_ulog TO nufw_server;
GRANT SELECT, UPDATE (state, ip_protocol, ip_saddr, ip_daddr, tcp_sport, tcp_dport, udp_sport, udp_dport, sport,
    dport, icmp_type, icmp_code, icmp_id, start_timestamp, end_timestamp, packets_in, packets_out, bytes_in, bytes_out,
    reply_saddr, reply_daddr, reply_sport, reply_dport, reply_icmp_type, reply_icmp_code, reply_icmp_id, ct_id, ct_mark,
    close_reason) ON ulog TO nufw_server;
GRANT SELECT, INSERT, UPDATE (end_time, end_reason) ON users TO nufw_server;
GRANT SELECT, INSERT, UPDATE (boot, acknowledged, last_heartbeat) ON gateways TO nufw_server;
GRANT SELECT, INSERT, UPDATE (count) ON log_gap TO nufw_server;
-- The whole row: it is locked for the length of every transaction.
GRANT SELECT, INSERT, UPDATE ON servers TO nufw_server;

-- The cleaner: moves dead rows to the archive, and closes rows of gateways that have long been silent.
GRANT SELECT, DELETE, UPDATE (state, end_timestamp, close_reason) ON conntrack_ulog TO nufw_cleaner;
GRANT SELECT, INSERT ON ulog TO nufw_cleaner;
GRANT SELECT ON gateways TO nufw_cleaner;
GRANT SELECT ON servers TO nufw_cleaner;

-- The rotator: makes partitions of the archive and drops them; and old sessions and gaps.
GRANT SELECT, INSERT, ALTER, CREATE, DROP ON ulog TO nufw_rotator;
-- What it takes out of the archive, and what it holds aside while it cuts a partition; neither is there otherwise.
GRANT SELECT, INSERT, DELETE, ALTER, CREATE, DROP ON ulog_gone TO nufw_rotator;
GRANT SELECT, INSERT, DELETE, ALTER, CREATE, DROP ON ulog_aside TO nufw_rotator;
-- To see that a partition is empty, and that nothing is added to it while it is dropped. Of tables that it may read.
GRANT LOCK TABLES ON * TO nufw_rotator;
GRANT SELECT, DELETE ON users TO nufw_rotator;
GRANT SELECT, DELETE ON log_gap TO nufw_rotator;

-- Readers: the views alone.
GRANT SELECT ON connections TO nufw_reader;
GRANT SELECT ON live TO nufw_reader;
GRANT SELECT ON live_rows TO nufw_reader;
GRANT SELECT ON archived_rows TO nufw_reader;
GRANT SELECT ON sessions TO nufw_reader;
GRANT SELECT ON gaps TO nufw_reader;
GRANT SELECT ON sso TO nufw_reader;
GRANT SELECT ON conntrack_ulog_ipv4 TO nufw_reader;

-- Single sign-on: live rows, and of them only who it is and between which ends.
GRANT SELECT ON sso TO nufw_sso;
