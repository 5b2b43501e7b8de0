# Shared by the scripts of this directory: tools, build, namespaces. Sourced by bash; runs nothing by itself.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
target=${CARGO_TARGET_DIR:-$root/target}
# One profile serves the daemons, the tests and the lab: what is tested is what was built. Measurements have their own.
profile=lab
PATH=$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin

say() { printf '%s\n' "$*" >&2; }

die() {
    say "$*"
    exit 69
}

# need TOOL:PACKAGE:REASON… — installs missing Debian packages as root; names the command otherwise.
need() {
    local packages=() reasons=() entry tool package reason
    for entry in "$@"; do
        IFS=: read -r tool package reason <<<"$entry"
        if ! command -v "$tool" >/dev/null; then
            packages+=("$package")
            reasons+=("  $package: $reason")
        fi
    done
    [ ${#packages[@]} -gt 0 ] || return 0
    mapfile -t packages < <(printf '%s\n' "${packages[@]}" | sort -u)
    say "Missing Debian packages:"
    printf '%s\n' "${reasons[@]}" | sort -u >&2
    local command="apt-get install --yes --no-install-recommends ${packages[*]}"
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        say "Installing them: $command"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive $command; } >&2 || die "The installation failed."
    else
        die "Install them first: sudo $command"
    fi
}

need_build_tools() {
    command -v cargo >/dev/null || die "There is no Rust toolchain: install one with rustup, 1.94 or later."
    need cc:gcc:"compiles SQLite and the cryptography of TLS" \
        ld:binutils:"links the programs"
    [ -e /usr/include/stdlib.h ] || need /usr/include/stdlib.h:libc6-dev:"headers of the C library, for SQLite"
    [ -n "$(ls /usr/lib/*/libpam.so 2>/dev/null)" ] || need libpam.so:libpam0g-dev:"the server checks passwords by PAM"
}

# What the feature "kerberos" is built with; the tests build everything.
features=nufw-e2e/kerberos
need_kerberos_headers() {
    [ -e /usr/include/gssapi/gssapi.h ] ||
        need gssapi.h:libkrb5-dev:"headers of the GSS-API library, for logging in by Kerberos"
    [ -n "$(ls /usr/lib/llvm-*/lib/libclang*.so* /usr/lib/*/libclang*.so* 2>/dev/null)" ] ||
        need libclang.so:libclang-dev:"reads those headers"
}

# Debian starts the servers that it installs; only private ones, which the tests start themselves, are wanted.
# without_starting COMMAND… — runs it with such starts forbidden.
without_starting() {
    local policy=/usr/sbin/policy-rc.d
    local made=
    if [ "$(id -u)" = 0 ] && [ ! -e $policy ]; then
        printf '#!/bin/sh\nexit 101\n' >$policy && chmod 755 $policy && made=1
        trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    "$@"
    [ -z "$made" ] || { rm -f $policy && trap - EXIT; }
}

need_database_servers() {
    without_starting need_postgres_and_mariadb
}

need_postgres_and_mariadb() {
    [ -n "$(ls -d /usr/lib/postgresql/*/bin/postgres 2>/dev/null)" ] ||
        need postgres:postgresql:"the log is tried on a private PostgreSQL server"
    need mariadbd:mariadb-server:"the log is tried on a private MariaDB server"
}

# Users of the tests come from a private LDAP server, too.
need_directory_servers() {
    without_starting need slapd:slapd:"users log in by a private LDAP server" \
        krb5kdc:krb5-kdc:"users log in by tickets of a private Kerberos realm" \
        kadmin.local:krb5-admin-server:"makes the principals of that realm" \
        kinit:krb5-user:"gets their tickets"
}

# What people use today, to compare with.
need_ulogd() {
    local plugin database
    without_starting need ulogd:ulogd2:"writes the same connections, to compare with"
    for database in PGSQL:pgsql MYSQL:mysql SQLITE3:sqlite3; do
        plugin=$(ls -d /usr/lib/*/ulogd/ulogd_output_"${database%:*}".so 2>/dev/null | head -1)
        [ -n "$plugin" ] || without_starting need "ulogd_output_${database%:*}:ulogd2-${database#*:}:lets ulogd2 write to that database"
    done
}

need_lab_tools() {
    need ip:iproute2:"makes the network of the lab" \
        iptables:iptables:"sends new connections to the queue" \
        nft:nftables:"loads the rules in their other form, and looks for rules that refuse" \
        conntrack:conntrack:"shows the kernel's table of connections" \
        sqlite3:sqlite3:"reads the log as a user would" \
        unshare:util-linux:"makes namespaces without root" \
        sysctl:procps:"sets what the gateway's rules need"
    [ "$(id -u)" = 0 ] || unshare -Urnm true 2>/dev/null ||
        die "Neither root nor user namespaces: run this as root, or allow them: sudo sysctl -w kernel.unprivileged_userns_clone=1 user.max_user_namespaces=10000"
}

# Programs that ask nu-sso. They are started by the tests alone, with their own configuration: the package's service is
# not wanted, and does not start where policy-rc.d forbids it.
need_web_tools() {
    need nginx:nginx-light:"asks for users with the sample configuration of nginx" \
        squid:squid:"asks for users with the sample configuration of Squid"
}

need_terminal_tools() {
    need tmux:tmux:"the live viewer is tried in a real terminal"
}

# Builds every program that the lab runs.
build() {
    (cd "$root" && cargo build --locked --profile $profile --workspace --bins) >&2
}

# Runs a command as root of namespaces: as root directly, since the lab makes its own; else in a user namespace.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    else
        # A new network namespace has its loopback device down; tests talk over it.
        unshare -Urnm sh -c 'ip link set lo up && exec "$@"' sh "$@"
    fi
}
