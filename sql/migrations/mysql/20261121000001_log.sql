-- The log of connections, sessions, gaps, gateways and servers, for MariaDB 10.6 and MySQL 8.0 or later.
--
-- Why: conntrack_ulog keeps NuFW's column names and state numbers (0 DROP, 1 OPEN, 2 ESTABLISHED, 3 CLOSE), since
-- single-sign-on helpers, nutop and nulog read them. What NuFW could not hold is added beside them. NULL means "not known",
-- never 0. Everything that a server needs to go on with a live row after a restart is in the row itself. The columns are
-- those of the other databases, in the same order, with this one's own types.
--
-- Addresses are 4 or 16 bytes, as INET6_ATON makes them, since only one of the two systems has a type for them; the views
-- show them as text. Times are UTC. Ports: tcp_* for TCP, udp_* for UDP and UDP-Lite (as NuFW's readers expect); SCTP and
-- DCCP, which NuFW could not log, have sport and dport. reply_sport and reply_dport serve every protocol. Until the kernel's
-- entry is seen (ct_id is NULL), reply_saddr and reply_sport are the destination that the packet showed in the queue, which
-- is the reply direction's source; reply_daddr and reply_dport are NULL.
--
-- Nothing here minds being run again: these systems cannot take back what an interrupted migration did.

CREATE TABLE IF NOT EXISTS conntrack_ulog (
    id              BIGINT        NOT NULL PRIMARY KEY, -- server number << 49 | sequence, given by the server, never reused
    state           SMALLINT      NOT NULL CHECK (state BETWEEN 0 AND 3),
    oob_time_sec    BIGINT        NOT NULL,    -- when the gateway received the packet, UTC
    oob_time_usec   INTEGER       NOT NULL,
    oob_prefix      TEXT,                      -- log prefix of the rule
    oob_mark        BIGINT        NOT NULL,    -- mark given with the verdict
    oob_in          TEXT,
    oob_out         TEXT,
    ip_protocol     SMALLINT      NOT NULL,
    ip_saddr        VARBINARY(16) NOT NULL,    -- original tuple
    ip_daddr        VARBINARY(16) NOT NULL,
    tcp_sport       INTEGER,
    tcp_dport       INTEGER,
    udp_sport       INTEGER,
    udp_dport       INTEGER,
    sport           INTEGER,                   -- SCTP and DCCP
    dport           INTEGER,
    icmp_type       SMALLINT,
    icmp_code       SMALLINT,
    icmp_id         INTEGER,
    user_id         BIGINT,
    username        TEXT,
    client_os       TEXT,                      -- as the client says
    client_app      TEXT,                      -- as the client says
    start_timestamp DATETIME(6),               -- the server answered
    end_timestamp   DATETIME(6),               -- the kernel's entry ended
    packets_in      BIGINT,                    -- original direction
    packets_out     BIGINT,                    -- reply direction
    bytes_in        BIGINT,
    bytes_out       BIGINT,
    reply_saddr     VARBINARY(16),             -- reply tuple: the NAT side
    reply_daddr     VARBINARY(16),
    reply_sport     INTEGER,
    reply_dport     INTEGER,
    reply_icmp_type SMALLINT,
    reply_icmp_code SMALLINT,
    reply_icmp_id   INTEGER,
    gateway         VARCHAR(255)  NOT NULL,
    ct_id           BIGINT,                    -- the kernel's id of the entry; NULL until an entry was seen
    ct_mark         BIGINT,
    ct_zone         INTEGER       NOT NULL,
    acl             TEXT,                      -- the rule that decided
    close_reason    TEXT,
    -- The source's port whatever the protocol, and the reply's destination where it is not the original source: set for
    -- connections with source NAT alone.
    any_sport       INTEGER GENERATED ALWAYS AS (coalesce(tcp_sport, udp_sport, sport)) STORED,
    nat_saddr       VARBINARY(16) GENERATED ALWAYS AS (CASE WHEN reply_daddr <> ip_saddr
        OR reply_dport <> coalesce(tcp_sport, udp_sport, sport) THEN reply_daddr END) STORED,
    nat_sport       INTEGER GENERATED ALWAYS AS (CASE WHEN reply_daddr <> ip_saddr
        OR reply_dport <> coalesce(tcp_sport, udp_sport, sport) THEN reply_dport END) STORED,
    -- Who is behind this connection, asked by its source: as the client has it, and as source NAT shows it.
    INDEX conntrack_source (ip_saddr, any_sport),
    INDEX conntrack_nat (nat_saddr, nat_sport),
    -- What came when, for who searches; and of the last moments, for which service: single sign-on waits for rows whose
    -- reply side is not known yet.
    INDEX conntrack_time (oob_time_sec, oob_time_usec, id, reply_saddr, reply_sport)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

-- The archive: the same columns in the same order. Rows in it are dead; only NULLs may still be filled. In ranges of time,
-- so that what is old goes at once; whatever no range was made for is in `rest`.
CREATE TABLE IF NOT EXISTS ulog (
    id              BIGINT        NOT NULL,
    state           SMALLINT      NOT NULL CHECK (state IN (0, 3)),
    oob_time_sec    BIGINT        NOT NULL,
    oob_time_usec   INTEGER       NOT NULL,
    oob_prefix      TEXT,
    oob_mark        BIGINT        NOT NULL,
    oob_in          TEXT,
    oob_out         TEXT,
    ip_protocol     SMALLINT      NOT NULL,
    ip_saddr        VARBINARY(16) NOT NULL,
    ip_daddr        VARBINARY(16) NOT NULL,
    tcp_sport       INTEGER,
    tcp_dport       INTEGER,
    udp_sport       INTEGER,
    udp_dport       INTEGER,
    sport           INTEGER,
    dport           INTEGER,
    icmp_type       SMALLINT,
    icmp_code       SMALLINT,
    icmp_id         INTEGER,
    user_id         BIGINT,
    username        TEXT,
    client_os       TEXT,
    client_app      TEXT,
    start_timestamp DATETIME(6),
    end_timestamp   DATETIME(6),
    packets_in      BIGINT,
    packets_out     BIGINT,
    bytes_in        BIGINT,
    bytes_out       BIGINT,
    reply_saddr     VARBINARY(16),
    reply_daddr     VARBINARY(16),
    reply_sport     INTEGER,
    reply_dport     INTEGER,
    reply_icmp_type SMALLINT,
    reply_icmp_code SMALLINT,
    reply_icmp_id   INTEGER,
    gateway         VARCHAR(255)  NOT NULL,
    ct_id           BIGINT,
    ct_mark         BIGINT,
    ct_zone         INTEGER       NOT NULL,
    acl             TEXT,
    close_reason    TEXT,
    PRIMARY KEY (id, oob_time_sec),
    -- What came when; whose it was, and from and to where; and who had an address and port, as the outside saw it.
    INDEX ulog_time (oob_time_sec, oob_time_usec, id),
    INDEX ulog_user (username(64), oob_time_sec, oob_time_usec, id),
    INDEX ulog_source (ip_saddr, oob_time_sec, oob_time_usec, id),
    INDEX ulog_destination (ip_daddr, oob_time_sec, oob_time_usec, id),
    INDEX ulog_nat (reply_daddr, reply_dport, oob_time_sec)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin
PARTITION BY RANGE (oob_time_sec) (PARTITION rest VALUES LESS THAN MAXVALUE);

-- Client sessions. A session that a crash of the server left open has no end_time, and end_reason says why.
CREATE TABLE IF NOT EXISTS users (
    id          BIGINT PRIMARY KEY,           -- from the same blocks as connection ids
    user_id     BIGINT        NOT NULL,
    username    TEXT          NOT NULL,
    ip_saddr    VARBINARY(16) NOT NULL,
    os_sysname  TEXT          NOT NULL,
    os_release  TEXT          NOT NULL,
    os_version  TEXT          NOT NULL,
    start_time  DATETIME(6)   NOT NULL,
    end_time    DATETIME(6),
    end_reason  VARCHAR(32),
    -- The open ones, which are closed when their server starts.
    INDEX users_open (end_reason, id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

-- Times in which something may have been missed. A gap that is told twice is one gap.
CREATE TABLE IF NOT EXISTS log_gap (
    id             BIGINT AUTO_INCREMENT PRIMARY KEY,
    gateway        VARCHAR(255),
    from_timestamp DATETIME(6)  NOT NULL,
    to_timestamp   DATETIME(6)  NOT NULL,
    cause          VARCHAR(255) NOT NULL,
    count          BIGINT,
    any_gateway    VARCHAR(255) GENERATED ALWAYS AS (coalesce(gateway, '')) STORED,
    UNIQUE INDEX log_gap_once (from_timestamp, to_timestamp, cause, any_gateway)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

-- Up to where each gateway's events are in the log.
CREATE TABLE IF NOT EXISTS gateways (
    name           VARCHAR(255) PRIMARY KEY,
    boot           VARCHAR(20),               -- one run of the agent: an unsigned 64-bit number, decimal
    acknowledged   BIGINT,                    -- the last event of that boot that need not be sent again
    last_heartbeat DATETIME(6)
) ENGINE = InnoDB, CHARACTER SET utf8mb4, COLLATE utf8mb4_bin;

-- One row a server: the first sequence number that no block has been reserved of, and which of its lives may write. A server
-- holds the lock of its number (GET_LOCK) while it is connected; every transaction of it looks whether the epoch is its own.
CREATE TABLE IF NOT EXISTS servers (
    number        INTEGER PRIMARY KEY CHECK (number BETWEEN 1 AND 16383),
    next_sequence BIGINT      NOT NULL DEFAULT 1 CHECK (next_sequence >= 1),
    epoch         BIGINT      NOT NULL DEFAULT 1,
    since         DATETIME(6) NOT NULL,
    spool         BIGINT,                      -- the file in which this server keeps rows while the database is away
    spooled       BIGINT                       -- up to where that file's rows are in the log, committed with them
) ENGINE = InnoDB;

-- Every connection, live and archived, as people and programs read it: addresses as text, ports whatever the protocol, the
-- duration in seconds.
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
       gateway, ct_id, ct_mark, ct_zone, acl, close_reason
FROM (SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr, tcp_sport,
             tcp_dport, udp_sport, udp_dport, sport, dport, icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app,
             start_timestamp, end_timestamp, packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
             reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason
      FROM conntrack_ulog
      UNION ALL
      SELECT * FROM ulog) AS every_row;

-- What searches read: each table as it is, so that its indexes serve, and the ports whatever the protocol.
CREATE OR REPLACE VIEW live_rows AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       any_sport AS sport, coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
       reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason,
       nat_saddr, nat_sport
FROM conntrack_ulog;

CREATE OR REPLACE VIEW archived_rows AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol, ip_saddr, ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport, coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       packets_in, packets_out, bytes_in, bytes_out, reply_saddr, reply_daddr, reply_sport, reply_dport,
       reply_icmp_type, reply_icmp_code, reply_icmp_id, gateway, ct_id, ct_mark, ct_zone, acl, close_reason
FROM ulog;

-- What single sign-on asks: live rows alone, and of them only who it is and between which ends.
CREATE OR REPLACE VIEW sso AS
SELECT id, state, oob_time_sec, oob_time_usec, ip_protocol,
       ip_saddr, any_sport AS sport, ip_daddr, coalesce(tcp_dport, udp_dport, dport) AS dport,
       reply_saddr, reply_sport, reply_daddr, reply_dport, nat_saddr, nat_sport,
       user_id, username, gateway, ct_id
FROM conntrack_ulog
WHERE state IN (1, 2);

-- What is live, whole, as a viewer reads it.
CREATE OR REPLACE VIEW live AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol,
       inet6_ntoa(ip_saddr) AS ip_saddr, inet6_ntoa(ip_daddr) AS ip_daddr,
       coalesce(tcp_sport, udp_sport, sport) AS sport,
       coalesce(tcp_dport, udp_dport, dport) AS dport,
       icmp_type, icmp_code, icmp_id, user_id, username, client_os, client_app, start_timestamp,
       packets_in, packets_out, bytes_in, bytes_out,
       inet6_ntoa(reply_saddr) AS reply_saddr, inet6_ntoa(reply_daddr) AS reply_daddr, reply_sport, reply_dport,
       gateway, ct_id, ct_mark, ct_zone, acl
FROM conntrack_ulog
WHERE state IN (1, 2);

-- For programs made for NuFW: its columns alone, IPv4 alone, addresses as integers.
CREATE OR REPLACE VIEW conntrack_ulog_ipv4 AS
SELECT id, state, oob_time_sec, oob_time_usec, oob_prefix, oob_mark, oob_in, oob_out, ip_protocol,
       inet_aton(inet6_ntoa(ip_saddr)) AS ip_saddr, inet_aton(inet6_ntoa(ip_daddr)) AS ip_daddr,
       tcp_sport, tcp_dport, udp_sport, udp_dport, icmp_type, icmp_code,
       user_id, username, client_os, client_app, start_timestamp, end_timestamp,
       packets_in, packets_out, bytes_in, bytes_out
FROM conntrack_ulog
WHERE length(ip_saddr) = 4;

CREATE OR REPLACE VIEW sessions AS
SELECT id, user_id, username, inet6_ntoa(ip_saddr) AS ip_saddr, os_sysname, os_release, os_version,
       start_time, end_time, timestampdiff(MICROSECOND, start_time, end_time) / 1e6 AS duration, end_reason
FROM users;

CREATE OR REPLACE VIEW gaps AS SELECT id, gateway, from_timestamp, to_timestamp, cause, count FROM log_gap;
