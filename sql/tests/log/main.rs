//! The log on real files and real servers: one binary, a module for each side of it.
//!
//! The behaviours of `life`, `plain` and `model` are those of every database: each runs unchanged on all of them.

#![recursion_limit = "256"]
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test fails by panicking"
)]

mod faults;
mod lab;
mod life;
mod live;
mod make;
mod model;
mod opening;
mod plain;
mod replay;
mod search;
mod servers;
#[path = "../support/mod.rs"]
#[expect(dead_code, reason = "the measurements use the rest")]
mod support;

/// Makes every behaviour a test on each database.
macro_rules! on_every_database {
    ($($module:ident::$name:ident),+ $(,)?) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                crate::$module::$name(crate::lab::Lab::sqlite()).await;
            })+

            #[test]
            fn any_sequence_of_changes_leaves_what_the_model_says() {
                let runtime = crate::runtime();
                crate::model::any_sequence_of_changes_leaves_what_the_model_says(&runtime, &crate::lab::Lab::sqlite());
            }
        }
        on_every_database!(server postgres Postgres $($module::$name),+);
        on_every_database!(server mariadb MariaDb $($module::$name),+);
    };
    (server $database:ident $kind:ident $($module:ident::$name:ident),+) => {
        mod $database {
            use crate::lab::Lab;
            use crate::support::Kind;

            $(#[tokio::test]
            async fn $name() {
                if let Some(lab) = Lab::on(Kind::$kind, stringify!($name)).await {
                    crate::$module::$name(lab).await;
                }
            })+

            #[test]
            fn any_sequence_of_changes_leaves_what_the_model_says() {
                let runtime = crate::runtime();
                if let Some(lab) = runtime.block_on(Lab::on(Kind::$kind, "any_sequence")) {
                    crate::model::any_sequence_of_changes_leaves_what_the_model_says(&runtime, &lab);
                }
            }
        }
    };
}

on_every_database! {
    life::a_whole_life_fills_every_column_as_numbers_texts_and_times,
    life::live_rows_of_every_protocol_come_back_as_they_were,
    life::a_connection_that_another_brought_names_it,
    life::only_tcp_and_udp_use_their_columns_and_the_view_has_ports_for_all,
    life::a_late_established_never_reopens_a_closed_row_but_fills_what_is_unknown,
    life::an_inferred_end_gives_way_to_the_kernels_word_and_never_the_reverse,
    life::interim_counters_fill_live_rows_and_never_go_back,
    life::what_is_set_is_not_overwritten,
    life::a_drop_row_is_never_touched,
    life::the_same_row_twice_is_one_row_even_when_it_has_moved_on,
    life::an_id_with_other_content_is_a_conflict_and_nothing_of_the_transaction_happens,
    life::a_user_id_beyond_63_bits_is_refused_by_row_and_an_absurd_counter_is_unknown,
    life::groups_of_every_size_are_applied_wholly,
    life::updates_of_unknown_rows_are_counted_and_archived_rows_are_filled,
    life::rows_are_filtered_by_user_source_state_and_id,
    life::texts_of_any_kind_come_back_whole_and_one_with_a_nul_is_refused_by_row,
    life::times_are_kept_to_the_microsecond_however_far_away,
    live::a_viewer_sees_the_live_rows_the_newest_first,
    live::a_viewer_is_told_when_there_are_more_rows_than_it_asked_for,
    live::a_row_that_was_changed_by_hand_does_not_blind_the_viewer,
    plain::acknowledgements_move_forward_within_a_boot_and_a_new_boot_replaces_them,
    plain::a_session_left_open_by_a_crash_is_ended_without_inventing_when,
    plain::a_gap_told_twice_is_one_gap,
    plain::ids_are_never_given_twice_whatever_is_killed_and_what_was_applied_is_there,
    replay::the_position_is_committed_with_the_rows_and_belongs_to_one_spool,
    replay::a_row_that_was_archived_meanwhile_is_not_made_anew_but_filled,
    replay::ids_that_the_spool_had_are_not_given_out_by_an_older_copy_of_the_database,
    replay::sessions_of_a_run_before_that_come_from_the_spool_are_ended,
    plain::every_table_has_its_columns_in_one_order_and_nufws_names_are_among_them,
    search::every_filter_finds_its_rows_in_both_tables,
    search::pages_give_each_row_once_in_order_while_rows_move,
    search::an_end_that_was_not_seen_is_never_taken_for_certain,
    search::whois_names_everybody_who_may_have_had_the_address_and_port_and_nobody_else,
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}
