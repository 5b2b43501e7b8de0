-- Which access lists decided, and how sure it was whose connection it is.
--
-- Why: lists are edited. A row keeps the version of the lists that decided (the beginning of the hash of their normal form), so
-- that a later edit does not rewrite what happened; and how the user had shown who it is (address, password, certificate), which
-- rules look at. NULL: no rule decided, or nobody was logged in.

ALTER TABLE conntrack_ulog ADD COLUMN policy text;
ALTER TABLE conntrack_ulog ADD COLUMN auth text;
ALTER TABLE ulog ADD COLUMN policy text;
ALTER TABLE ulog ADD COLUMN auth text;

CREATE OR REPLACE VIEW connections AS
SELECT id, state,
       to_timestamp(oob_time_sec) + oob_time_usec * interval '1 microsecond' AS oob_time,
       oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport,
       coalesce(tcp_dport, udp_dport, dport) AS dport,
       tcp_sport, tcp_dport, udp_sport, udp_dport, icmp_type, icmp_code, icmp_id,
       user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       extract(epoch FROM end_timestamp - start_timestamp)::double precision AS duration,
       packets_in, packets_out, bytes_in, bytes_out,
       reply_saddr, reply_daddr, reply_sport, reply_dport, reply_icmp_type, reply_icmp_code, reply_icmp_id,
       gateway, ct_id, ct_mark, ct_zone, acl, close_reason, parent_id, phys_in, phys_out, policy, auth
FROM (SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr, tcp_sport,
             tcp_dport, udp_sport, udp_dport, sport, dport, icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app,
             start_timestamp, end_timestamp, packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
             reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason, parent_id, phys_in, phys_out, policy, auth
      FROM conntrack_ulog
      UNION ALL
      SELECT * FROM ulog) AS every_row;

CREATE OR REPLACE VIEW live_rows AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport, coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
       reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason,
       nat_saddr, nat_sport, parent_id, phys_in, phys_out, policy, auth
FROM conntrack_ulog;

CREATE OR REPLACE VIEW archived_rows AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport, coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
       reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason, parent_id, phys_in, phys_out, policy, auth
FROM ulog;
