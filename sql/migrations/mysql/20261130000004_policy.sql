-- Which access lists decided, and how sure it was whose connection it is.
--
-- Why: lists are edited. A row keeps the version of the lists that decided (the beginning of the hash of their normal form), so
-- that a later edit does not rewrite what happened; and how the user had shown who it is (address, password, certificate), which
-- rules look at. NULL: no rule decided, or nobody was logged in.
--
-- Nothing here minds being run again: only one of the two systems can add a column "if not exists".

SET @missing = (SELECT count(*) = 0 FROM information_schema.columns
    WHERE table_schema = database() AND table_name = 'conntrack_ulog' AND column_name = 'policy');
SET @change = if(@missing, 'ALTER TABLE conntrack_ulog ADD COLUMN policy VARCHAR(32)', 'DO 0');
PREPARE change_it FROM @change;
EXECUTE change_it;
DEALLOCATE PREPARE change_it;

SET @missing = (SELECT count(*) = 0 FROM information_schema.columns
    WHERE table_schema = database() AND table_name = 'conntrack_ulog' AND column_name = 'auth');
SET @change = if(@missing, 'ALTER TABLE conntrack_ulog ADD COLUMN auth VARCHAR(32)', 'DO 0');
PREPARE change_it FROM @change;
EXECUTE change_it;
DEALLOCATE PREPARE change_it;

SET @missing = (SELECT count(*) = 0 FROM information_schema.columns
    WHERE table_schema = database() AND table_name = 'ulog' AND column_name = 'policy');
SET @change = if(@missing, 'ALTER TABLE ulog ADD COLUMN policy VARCHAR(32)', 'DO 0');
PREPARE change_it FROM @change;
EXECUTE change_it;
DEALLOCATE PREPARE change_it;

SET @missing = (SELECT count(*) = 0 FROM information_schema.columns
    WHERE table_schema = database() AND table_name = 'ulog' AND column_name = 'auth');
SET @change = if(@missing, 'ALTER TABLE ulog ADD COLUMN auth VARCHAR(32)', 'DO 0');
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
       any_sport AS sport, coalesce(tcp_dport, udp_dport, dport) AS dport,
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
