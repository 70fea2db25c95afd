//! One suite for every engine: each scenario runs on each of them and must end alike.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

#[path = "conformance/bed.rs"]
mod bed;
#[path = "conformance/commit.rs"]
mod commit;
#[path = "conformance/groups.rs"]
mod groups;
#[path = "conformance/hosts.rs"]
mod hosts;
#[path = "conformance/log.rs"]
mod log;
#[path = "conformance/wakeups.rs"]
mod wakeups;

/// Runs every scenario on every engine. One that is missing here is dead code, which the lints find.
macro_rules! suite {
    ($engine:ident: $($file:ident::{ $($scenario:ident),* $(,)? })*) => {
        mod $engine {
            $(mod $file {
                $(#[tokio::test]
                async fn $scenario() {
                    crate::$file::$scenario(crate::bed::Bed::$engine().await).await;
                })*
            })*
        }
    };
}

macro_rules! engines {
    ($($scenarios:tt)*) => {
        suite! { memory: $($scenarios)* }
        suite! { sqlite: $($scenarios)* }
    };
}

engines! {
    log::{
        offsets_are_dense_in_each_partition,
        events_of_a_key_keep_their_order,
        an_event_is_read_as_it_was_appended,
        an_id_that_is_there_already_is_reported_and_not_appended,
        an_id_twice_in_one_batch_is_appended_once,
        a_long_batch_with_duplicates_in_the_middle_stays_dense,
        an_id_is_looked_for_in_its_own_partition_only,
        one_faulty_event_refuses_the_whole_batch_and_is_named,
        a_payload_of_exactly_the_limit_is_taken,
        the_payload_limit_may_change,
        the_number_of_partitions_may_not_change,
        unknown_streams_and_partitions_are_named_with_those_there_are,
        a_read_ends_at_its_limit_of_events,
        a_read_ends_at_its_limit_of_bytes,
        a_read_gives_one_event_however_large,
        a_read_at_or_past_the_head_is_empty,
        one_large_event_does_not_shorten_a_read_of_small_ones,
        appends_at_the_same_time_get_different_offsets,
    }
    groups::{
        a_group_starts_at_the_first_event,
        a_group_starts_at_the_head,
        a_group_starts_at_a_time,
        a_group_keeps_its_place_when_declared_again,
        a_group_cannot_change_its_stream,
        a_group_may_change_its_handler,
        unknown_groups_and_partitions_are_named_with_those_there_are,
        acquiring_raises_the_epoch_and_tells_what_is_stored,
        a_released_partition_has_no_owner,
        only_the_present_lease_releases,
        a_pause_is_stored_for_one_partition_or_all,
        resuming_ends_a_pause_and_a_stop_and_is_counted,
        progress_tells_where_every_partition_stands,
    }
    commit::{
        position_state_and_emits_are_stored_together,
        an_older_epoch_is_fenced,
        another_owner_is_fenced,
        another_from_offset_is_fenced,
        a_released_lease_is_fenced,
        an_unknown_group_is_fenced,
        nothing_of_a_fenced_commit_is_kept,
        a_repeated_commit_stores_nothing_twice,
        a_copy_that_arrives_after_a_later_commit_is_fenced,
        the_version_that_failed_is_told_to_the_next_owner,
        a_repeated_commit_that_moves_nothing_is_taken_again,
        a_mark_is_stored_and_returned_when_acquired,
        a_commit_without_a_mark_clears_it,
        state_is_overwritten_and_deleted,
        state_belongs_to_one_group_and_partition,
        large_state_and_many_keys_are_kept,
        emits_go_to_several_streams_and_keep_their_order,
        an_emitted_duplicate_is_passed_over_in_silence,
        an_emit_to_an_unknown_stream_is_refused_and_nothing_is_kept,
        a_faulty_emit_is_refused_and_nothing_is_kept,
        a_fenced_commit_is_fenced_whatever_its_effects,
        a_position_past_the_head_is_refused,
        a_position_does_not_move_back,
        commits_of_many_partitions_at_once_all_succeed,
        a_refused_commit_takes_no_other_along,
        the_time_of_a_commit_is_stored_only_when_it_moves,
    }
    hosts::{
        a_host_registers_beats_and_leaves,
        a_heartbeat_of_an_unknown_host_is_told_so,
        registering_again_changes_the_groups,
        a_host_cannot_join_an_unknown_group,
        a_group_names_its_consumers,
        a_report_replaces_the_one_before,
        reports_outlive_their_host,
    }
    wakeups::{
        an_append_wakes,
        an_emit_wakes,
        a_resume_wakes,
        a_change_between_two_waits_is_not_lost,
        waiting_ends_without_a_change,
        declaring_what_is_there_wakes_nobody,
    }
}
