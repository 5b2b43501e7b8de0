-- Who may do what with the log on PostgreSQL. Run it as the owner of the tables, after `nuauth-server db migrate` and
-- again after every later one: psql -d nulog -f postgres.sql
--
-- Roles without login; give them to accounts of your own: CREATE ROLE nuauth LOGIN PASSWORD '…' IN ROLE nufw_server;

DO $$
DECLARE
    role text;
BEGIN
    FOREACH role IN ARRAY ARRAY['nufw_server', 'nufw_cleaner', 'nufw_rotator', 'nufw_reader', 'nufw_sso'] LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I NOLOGIN', role);
        EXCEPTION
            -- Roles are of the whole server: another log's grants may have made it.
            WHEN duplicate_object OR unique_violation THEN NULL;
        END;
        EXECUTE format('GRANT USAGE ON SCHEMA public TO %I', role);
        EXECUTE format('GRANT SELECT ON _sqlx_migrations TO %I', role);
    END LOOP;
END
$$;

-- The server: adds rows and changes what is not an id; deletes nothing.
GRANT SELECT, INSERT ON conntrack_ulog, users, gateways, log_gap, servers TO nufw_server;
GRANT SELECT ON ulog TO nufw_server;
GRANT UPDATE (state, ip_protocol, ip_saddr, ip_daddr, tcp_sport, tcp_dport, udp_sport, udp_dport, sport, dport,
              icmp_type, icmp_code, icmp_id, start_timestamp, end_timestamp, packets_in, packets_out, bytes_in, bytes_out,
              reply_saddr, reply_daddr, reply_sport, reply_dport, reply_icmp_type, reply_icmp_code, reply_icmp_id,
              ct_id, ct_mark, close_reason) ON conntrack_ulog, ulog TO nufw_server;
GRANT UPDATE (end_time, end_reason) ON users TO nufw_server;
GRANT UPDATE (boot, acknowledged, last_heartbeat) ON gateways TO nufw_server;
GRANT UPDATE (next_sequence, epoch, since, spool, spooled) ON servers TO nufw_server;

-- The cleaner: moves dead rows to the archive, and closes rows of gateways that have long been silent.
GRANT SELECT, DELETE, UPDATE (state, end_timestamp, close_reason) ON conntrack_ulog TO nufw_cleaner;
GRANT SELECT, INSERT ON ulog TO nufw_cleaner;
GRANT SELECT ON gateways, servers TO nufw_cleaner;

-- The rotator: makes partitions of the archive and drops them, which only an owner may; and old sessions and gaps. Whoever
-- runs this stays a member of it: the views read the archive as their owner, and later migrations change it.
DO $$
BEGIN
    IF NOT pg_has_role(current_user, 'nufw_rotator', 'USAGE') THEN
        EXECUTE format('GRANT nufw_rotator TO %I', current_user);
    END IF;
END
$$;
GRANT CREATE ON SCHEMA public TO nufw_rotator;
DO $$
DECLARE
    part regclass;
BEGIN
    FOR part IN SELECT relid FROM pg_partition_tree('ulog') LOOP
        EXECUTE format('ALTER TABLE %s OWNER TO nufw_rotator', part);
    END LOOP;
END
$$;
GRANT SELECT, DELETE ON users, log_gap TO nufw_rotator;

-- Readers: the views alone.
GRANT SELECT ON connections, live, live_rows, archived_rows, sessions, gaps, sso, conntrack_ulog_ipv4 TO nufw_reader;

-- Single sign-on: live rows, and of them only who it is and between which ends.
GRANT SELECT ON sso TO nufw_sso;
