-- The log of connections, sessions, gaps and gateways.
--
-- Why: conntrack_ulog keeps NuFW's column names and state numbers (0 DROP, 1 OPEN, 2 ESTABLISHED, 3 CLOSE), since
-- single-sign-on helpers, nutop and nulog read them. What NuFW could not hold is added beside them: 64-bit counters and
-- microseconds, the NAT side, the gateway, the kernel's entry, the rule, and the reason of the end. NULL means "not known",
-- never 0. Everything that the server needs to go on with a live row after a restart is in the row itself.
--
-- Ports: tcp_* for TCP, udp_* for UDP and UDP-Lite (as NuFW's readers expect); SCTP and DCCP, which NuFW could not log,
-- have sport and dport. The view `connections` has sport and dport for all of them. reply_sport and reply_dport serve
-- every protocol. Until the kernel's entry is seen (ct_id is NULL), reply_saddr and reply_sport are the destination that
-- the packet showed in the queue, which is the reply direction's source; reply_daddr and reply_dport are NULL.

CREATE TABLE conntrack_ulog (
    id              INTEGER PRIMARY KEY,  -- server number << 49 | sequence, given by the server, never reused
    state           INTEGER NOT NULL CHECK (state BETWEEN 0 AND 3),
    oob_time_sec    INTEGER NOT NULL,     -- when the gateway received the packet, UTC
    oob_time_usec   INTEGER NOT NULL,
    oob_prefix      TEXT,                 -- log prefix of the rule
    oob_mark        INTEGER NOT NULL,     -- mark given with the verdict
    oob_in          TEXT,
    oob_out         TEXT,
    ip_protocol     INTEGER NOT NULL,
    ip_saddr        TEXT    NOT NULL,     -- original tuple
    ip_daddr        TEXT    NOT NULL,
    tcp_sport       INTEGER,
    tcp_dport       INTEGER,
    udp_sport       INTEGER,
    udp_dport       INTEGER,
    sport           INTEGER,              -- SCTP and DCCP
    dport           INTEGER,
    icmp_type       INTEGER,
    icmp_code       INTEGER,
    icmp_id         INTEGER,
    user_id         INTEGER,
    username        TEXT,
    client_os       TEXT,                 -- as the client says
    client_app      TEXT,                 -- as the client says
    start_timestamp INTEGER,              -- microseconds since 1970, UTC: the server answered
    end_timestamp   INTEGER,              -- microseconds since 1970, UTC: the kernel's entry ended
    packets_in      INTEGER,              -- original direction
    packets_out     INTEGER,              -- reply direction
    bytes_in        INTEGER,
    bytes_out       INTEGER,
    reply_saddr     TEXT,                 -- reply tuple: the NAT side
    reply_daddr     TEXT,
    reply_sport     INTEGER,
    reply_dport     INTEGER,
    reply_icmp_type INTEGER,
    reply_icmp_code INTEGER,
    reply_icmp_id   INTEGER,
    gateway         TEXT    NOT NULL,
    ct_id           INTEGER,              -- the kernel's id of the entry; NULL until an entry was seen
    ct_mark         INTEGER,
    ct_zone         INTEGER NOT NULL,
    acl             TEXT,                 -- the rule that decided
    close_reason    TEXT
);

-- The live rows, which the server loads at its start; the condition keeps the index as small as they are.
CREATE INDEX conntrack_live ON conntrack_ulog (id) WHERE state IN (1, 2);

-- What came when, for who searches.
CREATE INDEX conntrack_time ON conntrack_ulog (oob_time_sec, oob_time_usec);

-- The archive: the same columns in the same order. Rows in it are dead; only NULLs may still be filled.
CREATE TABLE ulog (
    id              INTEGER PRIMARY KEY,
    state           INTEGER NOT NULL CHECK (state IN (0, 3)),
    oob_time_sec    INTEGER NOT NULL,
    oob_time_usec   INTEGER NOT NULL,
    oob_prefix      TEXT,
    oob_mark        INTEGER NOT NULL,
    oob_in          TEXT,
    oob_out         TEXT,
    ip_protocol     INTEGER NOT NULL,
    ip_saddr        TEXT    NOT NULL,
    ip_daddr        TEXT    NOT NULL,
    tcp_sport       INTEGER,
    tcp_dport       INTEGER,
    udp_sport       INTEGER,
    udp_dport       INTEGER,
    sport           INTEGER,
    dport           INTEGER,
    icmp_type       INTEGER,
    icmp_code       INTEGER,
    icmp_id         INTEGER,
    user_id         INTEGER,
    username        TEXT,
    client_os       TEXT,
    client_app      TEXT,
    start_timestamp INTEGER,
    end_timestamp   INTEGER,
    packets_in      INTEGER,
    packets_out     INTEGER,
    bytes_in        INTEGER,
    bytes_out       INTEGER,
    reply_saddr     TEXT,
    reply_daddr     TEXT,
    reply_sport     INTEGER,
    reply_dport     INTEGER,
    reply_icmp_type INTEGER,
    reply_icmp_code INTEGER,
    reply_icmp_id   INTEGER,
    gateway         TEXT    NOT NULL,
    ct_id           INTEGER,
    ct_mark         INTEGER,
    ct_zone         INTEGER NOT NULL,
    acl             TEXT,
    close_reason    TEXT
);

-- What came when: for what is too old to be kept, and for who searches.
CREATE INDEX ulog_time ON ulog (oob_time_sec, oob_time_usec);

-- Whose it was, and from and to where.
CREATE INDEX ulog_user ON ulog (username, oob_time_sec, oob_time_usec) WHERE username IS NOT NULL;
CREATE INDEX ulog_source ON ulog (ip_saddr, oob_time_sec, oob_time_usec);
CREATE INDEX ulog_destination ON ulog (ip_daddr, oob_time_sec, oob_time_usec);

-- Who had an address and port, as the outside saw it. By day first: a gateway's ports are taken by chance, and one day's part
-- of the index is in memory while it is written.
CREATE INDEX ulog_nat ON ulog (oob_time_sec / 86400, reply_daddr, reply_dport) WHERE reply_daddr IS NOT NULL;

-- Client sessions. A session that a crash of the server left open has no end_time, and end_reason says why.
CREATE TABLE users (
    id          INTEGER PRIMARY KEY,      -- from the same blocks as connection ids
    user_id     INTEGER NOT NULL,
    username    TEXT    NOT NULL,
    ip_saddr    TEXT    NOT NULL,
    os_sysname  TEXT    NOT NULL,
    os_release  TEXT    NOT NULL,
    os_version  TEXT    NOT NULL,
    start_time  INTEGER NOT NULL,         -- microseconds since 1970, UTC
    end_time    INTEGER,
    end_reason  TEXT
);

-- The open ones, which are closed when the server starts.
CREATE INDEX users_open ON users (id) WHERE end_reason IS NULL;

-- Times in which something may have been missed.
CREATE TABLE log_gap (
    id             INTEGER PRIMARY KEY,
    gateway        TEXT,
    from_timestamp INTEGER NOT NULL,      -- microseconds since 1970, UTC
    to_timestamp   INTEGER NOT NULL,
    cause          TEXT    NOT NULL,
    count          INTEGER
);

-- A gap that is told twice is one gap.
CREATE UNIQUE INDEX log_gap_once ON log_gap (from_timestamp, to_timestamp, cause, ifnull(gateway, ''));

-- Up to where each gateway's events are in the log.
CREATE TABLE gateways (
    name           TEXT PRIMARY KEY,
    boot           TEXT,                  -- one run of the agent: an unsigned 64-bit number, decimal
    acknowledged   INTEGER,               -- the last event of that boot that need not be sent again
    last_heartbeat INTEGER                -- microseconds since 1970, UTC
) WITHOUT ROWID;

-- One row: who owns this log, the first sequence number that no block has been reserved of, and what came from the spool.
CREATE TABLE meta (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    server_number INTEGER NOT NULL CHECK (server_number BETWEEN 1 AND 16383),
    next_sequence INTEGER NOT NULL CHECK (next_sequence >= 1),
    spool         INTEGER,                -- the file in which the server keeps rows while this one cannot be written
    spooled       INTEGER                 -- up to where that file's rows are in the log, committed with them
);

-- Every connection, live and archived, as people and programs read it: times as RFC 3339 text, ports whatever the
-- protocol, the duration in seconds.
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
       gateway, ct_id, ct_mark, ct_zone, acl, close_reason
FROM (SELECT * FROM conntrack_ulog UNION ALL SELECT * FROM ulog);

CREATE VIEW sessions AS
SELECT id, user_id, username, ip_saddr, os_sysname, os_release, os_version,
       strftime('%Y-%m-%dT%H:%M:%S', start_time / 1000000, 'unixepoch')
           || printf('.%06dZ', start_time % 1000000) AS start_time,
       strftime('%Y-%m-%dT%H:%M:%S', end_time / 1000000, 'unixepoch')
           || printf('.%06dZ', end_time % 1000000) AS end_time,
       (end_time - start_time) / 1000000.0 AS duration,
       end_reason
FROM users;

CREATE VIEW gaps AS
SELECT id, gateway,
       strftime('%Y-%m-%dT%H:%M:%S', from_timestamp / 1000000, 'unixepoch')
           || printf('.%06dZ', from_timestamp % 1000000) AS from_timestamp,
       strftime('%Y-%m-%dT%H:%M:%S', to_timestamp / 1000000, 'unixepoch')
           || printf('.%06dZ', to_timestamp % 1000000) AS to_timestamp,
       cause, count
FROM log_gap;
