-- The log of connections, sessions, gaps, gateways and servers, for PostgreSQL 13 or later.
--
-- Why: conntrack_ulog keeps NuFW's column names and state numbers (0 DROP, 1 OPEN, 2 ESTABLISHED, 3 CLOSE), since
-- single-sign-on helpers, nutop and nulog read them. What NuFW could not hold is added beside them. NULL means "not known",
-- never 0. Everything that a server needs to go on with a live row after a restart is in the row itself. The columns are
-- those of the other databases, in the same order, with this one's own types.
--
-- Ports: tcp_* for TCP, udp_* for UDP and UDP-Lite (as NuFW's readers expect); SCTP and DCCP, which NuFW could not log,
-- have sport and dport. The view `connections` has sport and dport for all of them. reply_sport and reply_dport serve
-- every protocol. Until the kernel's entry is seen (ct_id is NULL), reply_saddr and reply_sport are the destination that
-- the packet showed in the queue, which is the reply direction's source; reply_daddr and reply_dport are NULL.

CREATE TABLE conntrack_ulog (
    id              bigint        NOT NULL PRIMARY KEY, -- server number << 49 | sequence, given by the server, never reused
    state           smallint      NOT NULL CHECK (state BETWEEN 0 AND 3),
    oob_time_sec    bigint        NOT NULL,    -- when the gateway received the packet, UTC
    oob_time_usec   integer       NOT NULL,
    oob_prefix      text,                      -- log prefix of the rule
    oob_mark        bigint        NOT NULL,    -- mark given with the verdict
    oob_in          text,
    oob_out         text,
    ip_protocol     smallint      NOT NULL,
    ip_saddr        inet          NOT NULL,    -- original tuple
    ip_daddr        inet          NOT NULL,
    tcp_sport       integer,
    tcp_dport       integer,
    udp_sport       integer,
    udp_dport       integer,
    sport           integer,                   -- SCTP and DCCP
    dport           integer,
    icmp_type       smallint,
    icmp_code       smallint,
    icmp_id         integer,
    user_id         bigint,
    username        text,
    client_os       text,                      -- as the client says
    client_app      text,                      -- as the client says
    start_timestamp timestamptz,               -- the server answered
    end_timestamp   timestamptz,               -- the kernel's entry ended
    packets_in      bigint,                    -- original direction
    packets_out     bigint,                    -- reply direction
    bytes_in        bigint,
    bytes_out       bigint,
    reply_saddr     inet,                      -- reply tuple: the NAT side
    reply_daddr     inet,
    reply_sport     integer,
    reply_dport     integer,
    reply_icmp_type smallint,
    reply_icmp_code smallint,
    reply_icmp_id   integer,
    gateway         text          NOT NULL,
    ct_id           bigint,                    -- the kernel's id of the entry; NULL until an entry was seen
    ct_mark         bigint,
    ct_zone         integer       NOT NULL,
    acl             text,                      -- the rule that decided
    close_reason    text,
    -- The reply's destination where it is not the original source: set for connections with source NAT alone.
    nat_saddr       inet GENERATED ALWAYS AS (CASE WHEN reply_daddr <> ip_saddr
        OR reply_dport <> coalesce(tcp_sport, udp_sport, sport) THEN reply_daddr END) STORED,
    nat_sport       integer GENERATED ALWAYS AS (CASE WHEN reply_daddr <> ip_saddr
        OR reply_dport <> coalesce(tcp_sport, udp_sport, sport) THEN reply_dport END) STORED
)
-- Every row is updated twice. As long as no indexed column changes and its page has room, an update touches no index (HOT),
-- which doubles the rate. So no index may name state or ct_id, not even in its condition. Rows come and are updated in the
-- same order, a page of them in one transaction: each page must have room for every row once more, and they grow.
WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.1);

-- Who is behind this connection, asked by its source: as the client has it, and as source NAT shows it.
CREATE INDEX conntrack_source ON conntrack_ulog (ip_saddr, (coalesce(tcp_sport, udp_sport, sport)));
CREATE INDEX conntrack_nat ON conntrack_ulog (nat_saddr, nat_sport) WHERE nat_saddr IS NOT NULL;

-- What came when, for who searches; and of the last moments, for which service: single sign-on waits for rows whose reply
-- side is not known yet. Rows come in the order of their time, so this costs the writer the least of all.
CREATE INDEX conntrack_time ON conntrack_ulog (oob_time_sec, oob_time_usec, id, reply_saddr, reply_sport);

-- The archive: the same columns in the same order. Rows in it are dead; only NULLs may still be filled. In ranges of time,
-- so that what is old goes at once; whatever no range was made for is in ulog_rest.
CREATE TABLE ulog (
    id              bigint        NOT NULL,
    state           smallint      NOT NULL CHECK (state IN (0, 3)),
    oob_time_sec    bigint        NOT NULL,
    oob_time_usec   integer       NOT NULL,
    oob_prefix      text,
    oob_mark        bigint        NOT NULL,
    oob_in          text,
    oob_out         text,
    ip_protocol     smallint      NOT NULL,
    ip_saddr        inet          NOT NULL,
    ip_daddr        inet          NOT NULL,
    tcp_sport       integer,
    tcp_dport       integer,
    udp_sport       integer,
    udp_dport       integer,
    sport           integer,
    dport           integer,
    icmp_type       smallint,
    icmp_code       smallint,
    icmp_id         integer,
    user_id         bigint,
    username        text,
    client_os       text,
    client_app      text,
    start_timestamp timestamptz,
    end_timestamp   timestamptz,
    packets_in      bigint,
    packets_out     bigint,
    bytes_in        bigint,
    bytes_out       bigint,
    reply_saddr     inet,
    reply_daddr     inet,
    reply_sport     integer,
    reply_dport     integer,
    reply_icmp_type smallint,
    reply_icmp_code smallint,
    reply_icmp_id   integer,
    gateway         text          NOT NULL,
    ct_id           bigint,
    ct_mark         bigint,
    ct_zone         integer       NOT NULL,
    acl             text,
    close_reason    text,
    PRIMARY KEY (id, oob_time_sec)
) PARTITION BY RANGE (oob_time_sec);

CREATE TABLE ulog_rest PARTITION OF ulog DEFAULT;

-- What came when; whose it was, and from and to where; and who had an address and port, as the outside saw it. A name can be
-- longer than an index takes.
CREATE INDEX ulog_time ON ulog (oob_time_sec, oob_time_usec, id);
CREATE INDEX ulog_user ON ulog ("left"(username, 64), oob_time_sec, oob_time_usec, id) WHERE username IS NOT NULL;
CREATE INDEX ulog_source ON ulog (ip_saddr, oob_time_sec, oob_time_usec, id);
CREATE INDEX ulog_destination ON ulog (ip_daddr, oob_time_sec, oob_time_usec, id);
CREATE INDEX ulog_nat ON ulog (reply_daddr, reply_dport, oob_time_sec) WHERE reply_daddr IS NOT NULL;

-- Client sessions. A session that a crash of the server left open has no end_time, and end_reason says why.
CREATE TABLE users (
    id          bigint PRIMARY KEY,           -- from the same blocks as connection ids
    user_id     bigint NOT NULL,
    username    text   NOT NULL,
    ip_saddr    inet   NOT NULL,
    os_sysname  text   NOT NULL,
    os_release  text   NOT NULL,
    os_version  text   NOT NULL,
    start_time  timestamptz NOT NULL,
    end_time    timestamptz,
    end_reason  text
) WITH (fillfactor = 90);

-- The open ones, which are closed when their server starts.
CREATE INDEX users_open ON users (id) WHERE end_reason IS NULL;

-- Times in which something may have been missed. A gap that is told twice is one gap.
CREATE TABLE log_gap (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    gateway        text,
    from_timestamp timestamptz NOT NULL,
    to_timestamp   timestamptz NOT NULL,
    cause          text        NOT NULL,
    count          bigint
);

CREATE UNIQUE INDEX log_gap_once ON log_gap (from_timestamp, to_timestamp, cause, (coalesce(gateway, '')));

-- Up to where each gateway's events are in the log.
CREATE TABLE gateways (
    name           text PRIMARY KEY,
    boot           text,                      -- one run of the agent: an unsigned 64-bit number, decimal
    acknowledged   bigint,                    -- the last event of that boot that need not be sent again
    last_heartbeat timestamptz
) WITH (fillfactor = 50);

-- One row a server: the first sequence number that no block has been reserved of, and which of its lives may write. A server
-- holds the advisory lock of its number while it is connected; every transaction of it looks whether the epoch is its own.
CREATE TABLE servers (
    number        integer PRIMARY KEY CHECK (number BETWEEN 1 AND 16383),
    next_sequence bigint      NOT NULL DEFAULT 1 CHECK (next_sequence >= 1),
    epoch         bigint      NOT NULL DEFAULT 1,
    since         timestamptz NOT NULL DEFAULT now(),
    spool         bigint,                      -- the file in which this server keeps rows while the database is away
    spooled       bigint                       -- up to where that file's rows are in the log, committed with them
) WITH (fillfactor = 50);

-- Every connection, live and archived, as people and programs read it: ports whatever the protocol, the duration in seconds.
CREATE VIEW connections AS
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
       gateway, ct_id, ct_mark, ct_zone, acl, close_reason
FROM (SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr, tcp_sport,
             tcp_dport, udp_sport, udp_dport, sport, dport, icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app,
             start_timestamp, end_timestamp, packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
             reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason
      FROM conntrack_ulog
      UNION ALL
      SELECT * FROM ulog) AS every_row;

-- What searches read: each table as it is, so that its indexes serve, and the ports whatever the protocol.
CREATE VIEW live_rows AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport, coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
       reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason,
       nat_saddr, nat_sport
FROM conntrack_ulog;

CREATE VIEW archived_rows AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport, coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
       reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason
FROM ulog;

-- What single sign-on asks: live rows alone, and of them only who it is and between which ends.
CREATE VIEW sso AS
SELECT id, state, oob_time_sec, oob_time_usec, ip_protocol,
       ip_saddr, coalesce(tcp_sport, udp_sport, sport) AS sport,
       ip_daddr, coalesce(tcp_dport, udp_dport, dport) AS dport,
       reply_saddr, reply_sport, reply_daddr, reply_dport, nat_saddr, nat_sport,
       user_id, username, gateway, ct_id
FROM conntrack_ulog
WHERE state IN (1, 2);

-- What is live, whole, as a viewer reads it.
CREATE VIEW live AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport,
       coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp,
       packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
       gateway, ct_id, ct_mark, ct_zone, acl
FROM conntrack_ulog
WHERE state IN (1, 2);

-- For programs made for NuFW: its columns alone, IPv4 alone, addresses as integers.
CREATE VIEW conntrack_ulog_ipv4 AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol,
       ip_saddr - inet '0.0.0.0' AS ip_saddr, ip_daddr - inet '0.0.0.0' AS ip_daddr,
       tcp_sport, tcp_dport, udp_sport, udp_dport, icmp_type, icmp_code,
       user_id, username, client_os, client_app,
       start_timestamp AT TIME ZONE 'UTC' AS start_timestamp, end_timestamp AT TIME ZONE 'UTC' AS end_timestamp,
       packets_in, packets_out, bytes_in, bytes_out
FROM conntrack_ulog
WHERE family(ip_saddr) = 4;

CREATE VIEW sessions AS
SELECT id, user_id, username, ip_saddr, os_sysname, os_release, os_version, start_time, end_time,
       extract(epoch FROM end_time - start_time)::double precision AS duration, end_reason
FROM users;

CREATE VIEW gaps AS SELECT id, gateway, from_timestamp, to_timestamp, cause, count FROM log_gap;
