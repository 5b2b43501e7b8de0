-- Which access lists decided, and how sure it was whose connection it is.
--
-- Why: lists are edited. A row keeps the version of the lists that decided (the beginning of the hash of their normal form), so
-- that a later edit does not rewrite what happened; and how the user had shown who it is (address, password, certificate), which
-- rules look at. NULL: no rule decided, or nobody was logged in.

ALTER TABLE conntrack_ulog ADD COLUMN policy TEXT;
ALTER TABLE conntrack_ulog ADD COLUMN auth TEXT;
ALTER TABLE ulog ADD COLUMN policy TEXT;
ALTER TABLE ulog ADD COLUMN auth TEXT;

DROP VIEW connections;

CREATE VIEW connections AS
SELECT id, state,
       strftime('%Y-%m-%dT%H:%M:%S', oob_time_sec, 'unixepoch') || printf('.%06dZ', oob_time_usec) AS oob_time,
       oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport,
       coalesce(tcp_dport, udp_dport, dport) AS dport,
       tcp_sport, tcp_dport, udp_sport, udp_dport, icmp_type, icmp_code, icmp_id,
       user_id, username, client_os, client_app,
       strftime('%Y-%m-%dT%H:%M:%S', start_timestamp / 1000000, 'unixepoch')
           || printf('.%06dZ', start_timestamp % 1000000) AS start_timestamp,
       strftime('%Y-%m-%dT%H:%M:%S', end_timestamp / 1000000, 'unixepoch')
           || printf('.%06dZ', end_timestamp % 1000000) AS end_timestamp,
       (end_timestamp - start_timestamp) / 1000000.0 AS duration,
       packets_in, packets_out, bytes_in, bytes_out,
       reply_saddr, reply_daddr, reply_sport, reply_dport, reply_icmp_type, reply_icmp_code, reply_icmp_id,
       gateway, ct_id, ct_mark, ct_zone, acl, close_reason, parent_id, phys_in, phys_out, policy, auth
FROM (SELECT * FROM conntrack_ulog UNION ALL SELECT * FROM ulog);

DROP VIEW live_rows;

CREATE VIEW live_rows AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport, coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
       reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason, parent_id, phys_in, phys_out, policy, auth
FROM conntrack_ulog;

DROP VIEW archived_rows;

CREATE VIEW archived_rows AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport, coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
       reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason, parent_id, phys_in, phys_out, policy, auth
FROM ulog;
