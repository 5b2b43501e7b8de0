//! How each database answers what look-ups and searches ask: by an index, whatever the size of the tables.
//!
//! Nothing but tests.

use crate::lookup;
use crate::search::plans::{Dialect, statements};
use fill::Maker;
use sqlx::{AssertSqlSafe, Connection as _, Executor as _, Row as _};
use support::Kind;

#[path = "../tests/support/fill.rs"]
#[expect(dead_code, reason = "others use the rest")]
mod fill;
#[path = "../tests/support/mod.rs"]
#[expect(dead_code, reason = "others use the rest")]
mod support;

/// Rows of the live table and of the archive.
const ROWS: (u64, u64) = (20_000, 60_000);

/// A database with rows, where its server can run.
async fn filled(kind: Kind, test: &str) -> Option<String> {
    let server = match support::shared(kind) {
        Ok(server) => server,
        Err(reason) => {
            support::skip(test, kind, reason);
            return None;
        }
    };
    let url = server.url(&server.database().await);
    crate::migrate(&url.parse().unwrap()).await.unwrap();
    let (maker, analyze) = match kind {
        Kind::Postgres => (Maker::Postgres, "ANALYZE"),
        Kind::MariaDb => (Maker::MariaDb, "ANALYZE TABLE conntrack_ulog, ulog"),
    };
    let (live, archived) = ROWS;
    for statement in [
        fill::statement(maker, "ulog", 1, archived),
        fill::statement(maker, "conntrack_ulog", archived + 1, archived + live),
        analyze.to_owned(),
    ] {
        support::execute(kind, &url, &statement).await.unwrap();
    }
    Some(url)
}

#[tokio::test]
async fn postgres_answers_by_indexes() {
    let Some(url) = filled(Kind::Postgres, "postgres_answers_by_indexes").await else {
        return;
    };
    let mut connection = sqlx::PgConnection::connect(&url).await.unwrap();
    for (name, text) in statements(Dialect::Postgres) {
        let plan = postgres_plan(&mut connection, &text).await;
        assert!(!plan.contains("Seq Scan"), "{name}:\n{text}\n{plan}");
    }
    connection
        .execute(sqlx::raw_sql(lookup::SETTINGS_POSTGRES))
        .await
        .unwrap();
    let prepare = format!("PREPARE look AS {}", lookup::LOOK_POSTGRES);
    connection.execute(AssertSqlSafe(prepare)).await.unwrap();
    let execute = "EXECUTE look('10.0.0.1', 1, '10.0.0.2', 2, 6::int2, 1, 1, 1)";
    let plan = postgres_plan(&mut connection, execute).await;
    let used = |index: &str| plan.matches(&format!("Scan using {index} ")).count();
    assert_eq!(
        (
            used("conntrack_source"),
            used("conntrack_nat"),
            used("conntrack_time")
        ),
        (3, 1, 1),
        "{plan}"
    );
    assert!(
        !plan.contains("Seq Scan") && !plan.contains("Gather") && !plan.contains("Bitmap"),
        "{plan}"
    );
}

async fn postgres_plan(connection: &mut sqlx::PgConnection, text: &str) -> String {
    let explain = AssertSqlSafe(format!("EXPLAIN {text}"));
    let lines = sqlx::raw_sql(explain).fetch_all(connection).await.unwrap();
    let lines = lines.iter().map(|line| line.get::<String, _>(0));
    lines.collect::<Vec<_>>().join("\n")
}

#[tokio::test]
async fn mariadb_answers_by_indexes() {
    let Some(url) = filled(Kind::MariaDb, "mariadb_answers_by_indexes").await else {
        return;
    };
    let mut connection = sqlx::MySqlConnection::connect(&url).await.unwrap();
    for (name, text) in statements(Dialect::MySql) {
        let plan = mariadb_plan(&mut connection, &text).await;
        assert!(
            plan.iter().all(|(kind, _)| kind != "ALL" && kind != "index"),
            "{name}:\n{text}\n{plan:?}"
        );
    }
    let text = mariadb_look();
    let plan = mariadb_plan(&mut connection, &text).await;
    let used = |index: &str| plan.iter().filter(|(_, key)| key == index).count();
    assert_eq!(
        (
            used("conntrack_source"),
            used("conntrack_nat"),
            used("conntrack_time")
        ),
        (3, 1, 1),
        "{plan:?}"
    );
}

/// The look-up with the values that it has in use: what is newer than `since` are the last few rows.
fn mariadb_look() -> String {
    let (live, archived) = ROWS;
    let since = (fill::BEGIN + i64::try_from((archived + live) / 10).unwrap()).to_string();
    let (client, server) = (["x'0a000001'", "1"], ["x'0a000002'", "2"]);
    let newest = ["18446744073709551615"];
    let way: [&[&[&str]]; 5] = [
        &[&client, &server, &["6"]],
        &[&client, &client, &server, &["6"]],
        &[&client, &server, &["6"]],
        &[&client, &server, &["6"], &newest],
        &[&[&since, &since, "0"], &server, &["6"], &newest],
    ];
    let mut values = way.into_iter().flatten().copied().flatten();
    let mut text = String::new();
    for part in lookup::LOOK_MYSQL.split_inclusive('?') {
        match part.strip_suffix('?') {
            Some(part) => text.extend([part, values.next().unwrap()]),
            None => text.push_str(part),
        }
    }
    assert_eq!(values.next(), None, "every parameter has its value");
    text
}

/// How each table is read, and by which key; what was derived apart.
async fn mariadb_plan(connection: &mut sqlx::MySqlConnection, text: &str) -> Vec<(String, String)> {
    let explain = AssertSqlSafe(format!("EXPLAIN {text}"));
    let lines = sqlx::raw_sql(explain).fetch_all(connection).await.unwrap();
    let word = |line: &sqlx::mysql::MySqlRow, column: &str| {
        line.try_get_unchecked::<Option<String>, _>(column)
            .unwrap()
            .unwrap_or_default()
    };
    lines
        .iter()
        .filter(|line| !word(line, "table").starts_with('<'))
        .map(|line| (word(line, "type"), word(line, "key")))
        .collect()
}

#[tokio::test]
async fn sqlite_answers_by_indexes() {
    let mut connection = sqlx::SqliteConnection::connect("sqlite::memory:").await.unwrap();
    crate::schema::bring_up_to_date(&mut connection, std::path::Path::new("memory"))
        .await
        .unwrap();
    for (name, text) in statements(Dialect::Sqlite) {
        let explain = AssertSqlSafe(format!("EXPLAIN QUERY PLAN {text}"));
        let lines = sqlx::raw_sql(explain).fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = lines.iter().map(|line| line.get("detail")).collect();
        let slow =
            |line: &String| line.starts_with("SCAN") && !line.contains("days") && !line.contains("CONSTANT");
        assert!(!plan.iter().any(slow), "{name}:\n{text}\n{plan:#?}");
    }
}
