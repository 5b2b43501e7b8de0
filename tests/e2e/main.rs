//! End-to-end tests: the real daemons on the real kernel, one claim a file.

#![cfg(test)]

mod agent_killed_fails_closed_and_loses_no_row;
mod asynchronous_log_loses_nothing_while_it_runs;
mod asynchronous_rule_passes_while_the_database_is_locked;
mod bad_bytes_end_that_peer_only;
mod black_hole_is_one_row;
mod certificates_decide_who_is_a_gateway;
mod certificates_decide_who_is_a_user;
mod check_says_what_is_missing;
mod cleaning_beside_a_working_server_loses_no_row;
mod client_gone_means_dropped_not_stuck;
mod commit_precedes_the_verdict;
mod configuration_mistakes_name_file_line_and_key;
mod connection_of_before_is_not_invented;
mod connection_to_the_gateway_itself_is_marked_and_closed;
#[cfg(target_arch = "x86_64")]
mod daemons_hold_only_what_they_need;
mod database_killed_connections_go_on_and_no_row_is_lost;
mod expired;
mod forbidden_port_is_dropped_with_a_row;
mod fragmented_datagram_passes_whole;
mod gateway_without_events_leaves_untracked_rows;
mod hangup_reloads_without_dropping_a_session;
mod hundred_datagrams_one_way_are_one_row;
#[cfg(target_arch = "x86_64")]
mod inject;
mod log_that_cannot_be_written_accepts_nothing;
mod logged_in_user_passes_and_the_row_is_complete;
mod mark_reaches_the_conntrack_entry;
mod marked_only_relays_marked_connections;
mod missing_capability_is_said;
mod nobody_logged_in_is_dropped_with_a_row;
mod one_client_serves_both_families;
mod other_users_socket_is_not_claimed;
mod peer;
mod queue_taken_is_said_with_its_holder;
mod rejected_connection_is_refused_quickly;
mod reset_answer_closes_the_row_as_refused;
mod retransmissions_of_a_dropped_packet_are_one_row;
mod rule_without_log_passes_and_leaves_no_row;
mod second_server_on_the_same_log_is_refused;
mod server_killed_fails_closed_and_loses_no_row;
mod service_manager_hears_of_every_step;
mod sso_finds_the_user_on_the_first_request_behind_masquerade;
#[path = "../../sql/tests/support/mod.rs"]
#[expect(dead_code, reason = "other tests use the rest")]
mod support;
mod terminated_daemons_end_in_order;
mod thousand_parallel_connections_make_thousand_rows;
mod translated_connections_bind_their_events;
mod two_users_on_one_host_keep_apart;
mod wrong_password_is_refused_and_limited;
