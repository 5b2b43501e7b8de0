//! nutop as people and scripts run it: in a real terminal, and on each database with the account of a reader.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

#[path = "../../../sql/tests/log/make.rs"]
#[expect(dead_code, reason = "the log's own tests use the rest")]
mod make;
mod scripts;
#[path = "../../../sql/tests/support/mod.rs"]
#[expect(dead_code, reason = "the log's own tests use the rest")]
mod support;
mod terminal;
mod tmux;

use nulog::{Change, Location, Store, User};
use std::process::Command;
use std::sync::Arc;

/// The program under test.
const NUTOP: &str = env!("CARGO_BIN_EXE_nutop");

fn nutop() -> Command {
    let mut command = Command::new(NUTOP);
    command.env_clear().env("PATH", "/usr/bin:/bin");
    command
}

/// The row of somebody's connection.
fn open_by(sequence: u64, user: &str, program: &str, source: &str) -> Change {
    let mut row = make::open_row(sequence);
    row.user = Some(User {
        id: 1000 + sequence,
        name: Arc::from(user),
    });
    row.client_app = Some(Arc::from(program));
    let [dst, shown] = if source.contains(':') {
        ["2001:db8::1", "2001:db8::2"]
    } else {
        ["10.1.1.1", "192.168.0.9"]
    };
    row.original = make::tcp(source, 40312, dst, 443);
    row.shown = make::tcp(source, 40312, shown, 8443);
    Change::Open(Box::new(row))
}

/// Three people's connections, one of them established, and what a viewer does not show.
async fn store_with_rows(url: &str) -> Store {
    let mut store = Store::open(&Location::parse(url).unwrap(), 1).await.unwrap();
    let changes = [
        open_by(1, "alice", "/usr/bin/firefox", "10.0.0.7"),
        make::established(1),
        open_by(2, "bob", "/usr/bin/ssh", "10.0.0.8"),
        open_by(3, "alice", "/usr/bin/ssh", "2001:db8::7"),
        open_by(4, "carol", "/usr/bin/curl", "10.0.0.9"),
        make::close(4),
        make::drop_row(5),
    ];
    store.apply(&changes).await.unwrap();
    store
}
