//! `clean-conntrack` on real logs: the program as it is installed, the accounts of sql/grants, kills at every moment.
//!
//! Where a server runs on the log in a file, the tests are among the end-to-end ones.

#![recursion_limit = "256"]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod kills;
mod lab;
mod rows;
mod runs;
#[path = "../../../tests/support/mod.rs"]
#[expect(dead_code, reason = "the tests of the log use the rest")]
mod support;

/// Makes every behaviour a test on each database.
macro_rules! on_every_database {
    ($($module:ident::$name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::$module::$name(crate::lab::Lab::sqlite()).await;
            })+
        }
        on_every_database!(server postgres Postgres $($module::$name),+);
        on_every_database!(server mariadb MariaDb $($module::$name),+);
    };
    (server $database:ident $kind:ident $($module:ident::$name:ident),+) => {
        mod $database {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                if let Some(lab) = crate::lab::Lab::on(crate::support::Kind::$kind, stringify!($name)).await {
                    crate::$module::$name(lab).await;
                }
            })+
        }
    };
}

on_every_database! {
    runs::dead_rows_move_when_the_grace_is_over_and_nothing_else_moves,
    runs::a_dry_run_says_what_would_be_and_changes_nothing,
    runs::a_second_run_leaves_at_once,
    runs::a_row_that_is_in_both_tables_stays_and_is_named,
    runs::a_run_that_is_told_to_end_ends_after_its_batch,
    runs::old_rows_are_closed_only_where_the_gateway_is_lost,
    runs::what_comes_late_fills_the_archive,
    kills::killed_at_any_moment_it_loses_doubles_and_changes_nothing,
}

mod on_servers {
    use crate::support::Kind;

    #[tokio::test]
    async fn postgres_a_gateway_whose_heart_beats_is_never_lost_whatever_the_clocks_say() {
        crate::runs::a_gateway_whose_heart_beats_is_never_lost(Kind::Postgres).await;
    }

    #[tokio::test]
    async fn mariadb_a_gateway_whose_heart_beats_is_never_lost_whatever_the_clocks_say() {
        crate::runs::a_gateway_whose_heart_beats_is_never_lost(Kind::MariaDb).await;
    }

    #[tokio::test]
    async fn postgres_rows_that_somebody_holds_are_passed_over() {
        crate::runs::rows_that_somebody_holds_are_passed_over(Kind::Postgres).await;
    }

    #[tokio::test]
    async fn mariadb_rows_that_somebody_holds_are_passed_over() {
        crate::runs::rows_that_somebody_holds_are_passed_over(Kind::MariaDb).await;
    }
}
