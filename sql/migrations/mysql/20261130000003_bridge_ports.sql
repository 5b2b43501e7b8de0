-- The ports of a bridge.
--
-- Why: on a gateway that is a bridge, oob_in and oob_out are the bridge itself. Which of its ports the packet came in by and would
-- leave by is in phys_in and phys_out; NULL: it passed through no bridge, or nobody told.
--
-- Nothing here minds being run again: only one of the two systems can add a column "if not exists".

SET @missing = (SELECT count(*) = 0 FROM information_schema.columns
    WHERE table_schema = database() AND table_name = 'conntrack_ulog' AND column_name = 'phys_in');
SET @change = if(@missing, 'ALTER TABLE conntrack_ulog ADD COLUMN phys_in TEXT, ADD COLUMN phys_out TEXT', 'DO 0');
PREPARE change_it FROM @change;
EXECUTE change_it;
DEALLOCATE PREPARE change_it;

SET @missing = (SELECT count(*) = 0 FROM information_schema.columns
    WHERE table_schema = database() AND table_name = 'ulog' AND column_name = 'phys_in');
SET @change = if(@missing, 'ALTER TABLE ulog ADD COLUMN phys_in TEXT, ADD COLUMN phys_out TEXT', 'DO 0');
PREPARE change_it FROM @change;
EXECUTE change_it;
DEALLOCATE PREPARE change_it;

CREATE OR REPLACE VIEW connections AS
SELECT id, state,
       timestampadd(MICROSECOND, oob_time_sec * 1000000 + oob_time_usec, timestamp'1970-01-01 00:00:00') AS oob_time,
       oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol,
       inet6_ntoa(ip_saddr) AS ip_saddr, inet6_ntoa(ip_daddr) AS ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport,
       coalesce(tcp_dport, udp_dport, dport) AS dport,
       tcp_sport, tcp_dport, udp_sport, udp_dport, icmp_type, icmp_code, icmp_id,
       user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       timestampdiff(MICROSECOND, start_timestamp, end_timestamp) / 1e6 AS duration,
       packets_in, packets_out, bytes_in, bytes_out,
       inet6_ntoa(reply_saddr) AS reply_saddr, inet6_ntoa(reply_daddr) AS reply_daddr,
       reply_sport, reply_dport, reply_icmp_type, reply_icmp_code, reply_icmp_id,
       gateway, ct_id, ct_mark, ct_zone, acl, close_reason, parent_id, phys_in, phys_out
FROM (SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr, tcp_sport,
             tcp_dport, udp_sport, udp_dport, sport, dport, icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app,
             start_timestamp, end_timestamp, packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
             reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason, parent_id, phys_in, phys_out
      FROM conntrack_ulog
      UNION ALL
      SELECT * FROM ulog) AS every_row;

CREATE OR REPLACE VIEW live_rows AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       any_sport AS sport, coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
       reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason,
       nat_saddr, nat_sport, parent_id, phys_in, phys_out
FROM conntrack_ulog;

CREATE OR REPLACE VIEW archived_rows AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport, coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
       reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason, parent_id, phys_in, phys_out
FROM ulog;

CREATE OR REPLACE VIEW live AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol,
       inet6_ntoa(ip_saddr) AS ip_saddr, inet6_ntoa(ip_daddr) AS ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport,
       coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp,
       packets_in, packets_out, bytes_in, bytes_out,
       inet6_ntoa(reply_saddr) AS reply_saddr, inet6_ntoa(reply_daddr) AS reply_daddr, reply_sport, reply_dport,
       gateway, ct_id, ct_mark, ct_zone, acl, phys_in, phys_out
FROM conntrack_ulog
WHERE state IN (1, 2);
