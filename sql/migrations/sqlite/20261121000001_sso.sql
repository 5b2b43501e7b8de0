-- What single sign-on asks of the live rows: who is behind this connection, seen from either end.
--
-- Why these: a look-up knows the client's address and port as the asker sees them. Where the source is not translated that
-- is the original source (sso_source); where it is, the reply's destination (sso_translated, which holds translated rows
-- alone, so that a gateway without source NAT pays nothing for it). Until the kernel's entry is in the row its reply side is
-- not known; those few are found by the service they are for (sso_unbound), so that the answer waits for them. Each index
-- is as small as the live rows it holds. A condition counts only if the query repeats it word for word;
-- SQLite gives the view's sport, an expression, an explicit collation, so the index says it too.

CREATE INDEX sso_source ON conntrack_ulog (ip_saddr, coalesce(tcp_sport, udp_sport, sport)) WHERE state IN (1, 2);

CREATE INDEX sso_translated ON conntrack_ulog (reply_daddr, reply_dport)
    WHERE state IN (1, 2) AND (reply_daddr <> ip_saddr OR reply_dport <> coalesce(tcp_sport, udp_sport, sport) COLLATE BINARY);

CREATE INDEX sso_unbound ON conntrack_ulog (reply_saddr, reply_sport, ip_protocol) WHERE state = 1 AND ct_id IS NULL;

-- All that a look-up may see.
CREATE VIEW sso AS
SELECT id, state, oob_time_sec, oob_time_usec, ip_protocol,
       ip_saddr, coalesce(tcp_sport, udp_sport, sport) AS sport,
       ip_daddr, coalesce(tcp_dport, udp_dport, dport) AS dport,
       reply_saddr, reply_sport, reply_daddr, reply_dport,
       user_id, username, gateway, ct_id
FROM conntrack_ulog
WHERE state IN (1, 2);

-- What is live, whole, as a viewer reads it.
CREATE VIEW live AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport,
       coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app,
       strftime('%Y-%m-%dT%H:%M:%S', start_timestamp / 1000000, 'unixepoch')
           || printf('.%06dZ', start_timestamp % 1000000) AS start_timestamp,
       packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
       gateway, ct_id, ct_mark, ct_zone, acl
FROM conntrack_ulog
WHERE state IN (1, 2);

-- What searches read: each table as it is, so that its indexes serve, and the ports whatever the protocol.
CREATE VIEW live_rows AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport, coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
       reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason
FROM conntrack_ulog;

CREATE VIEW archived_rows AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport, coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
       reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason
FROM ulog;
