//! One suite for every engine: each scenario runs on each of them and must end alike.

#![allow(clippy::unwrap_used, reason = "a test that fails may panic")]

#[path = "conformance/bed.rs"]
mod bed;
#[path = "postgres/bouncer.rs"]
mod bouncer;
#[path = "conformance/by_hand.rs"]
mod by_hand;
#[path = "conformance/commit.rs"]
mod commit;
#[path = "conformance/groups.rs"]
mod groups;
#[path = "conformance/hosts.rs"]
mod hosts;
#[path = "conformance/letters.rs"]
mod letters;
#[path = "conformance/log.rs"]
mod log;
#[path = "conformance/membership.rs"]
mod membership;
#[path = "conformance/remembered.rs"]
mod remembered;
#[path = "conformance/retention.rs"]
mod retention;
#[path = "postgres/schema.rs"]
mod schema;
#[path = "conformance/skip.rs"]
mod skip;
#[path = "postgres/user.rs"]
mod user;
#[path = "conformance/versions.rs"]
mod versions;
#[path = "conformance/wakeups.rs"]
mod wakeups;

/// Runs every scenario on every engine. One that is missing here is dead code, which the lints find.
macro_rules! suite {
    ($engine:ident: $($file:ident::{ $($scenario:ident),* $(,)? })*) => {
        mod $engine {
            $(mod $file {
                $(#[tokio::test]
                async fn $scenario() {
                    let bed: Option<crate::bed::Bed> = crate::bed::Bed::$engine().await.into();
                    if let Some(bed) = bed {
                        crate::$file::$scenario(bed).await;
                    }
                })*
            })*
        }
    };
}

macro_rules! engines {
    ($($scenarios:tt)*) => {
        suite! { memory: $($scenarios)* }
        suite! { sqlite: $($scenarios)* }
        suite! { postgres: $($scenarios)* }
        suite! { postgres_pooled: $($scenarios)* }
    };
}

engines! {
    versions::{
        a_rollout_is_stored_whole_and_replaced_whole,
        a_rollout_is_stored_only_over_the_revision_it_was_made_from,
        of_two_who_change_a_rollout_at_once_one_succeeds,
        the_sum_of_revisions_grows_with_every_change,
        a_module_is_kept_as_long_as_a_rollout_keeps_it,
        two_handlers_may_share_a_module,
        a_module_stays_while_one_handler_lets_go_of_it_and_another_takes_it,
        many_handlers_may_be_saved_at_once,
        a_large_module_is_kept_whole,
        a_version_handles_a_range_until_another_takes_over,
        the_next_owner_is_told_who_handled_what_came_last,
        nothing_is_on_record_of_a_fenced_or_refused_commit,
        a_repeated_commit_records_nothing_twice,
        a_range_may_begin_in_the_middle_of_a_commit_and_several_may,
        a_reset_ends_the_range_where_the_position_was,
        the_newest_ranges_are_kept,
        ranges_are_those_of_the_handler_that_the_group_had,
        ranges_go_with_their_group,
        a_group_created_again_has_nothing_on_record,
        a_skip_leaves_the_version_on_record,
        of_ranges_of_one_moment_the_newest_come_last,
        versions_take_over_in_many_partitions_at_once,
    }
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
        a_mark_replaces_the_one_before_whole,
        progress_tells_a_stop_and_why_a_partition_is_held,
        a_reason_of_any_text_refuses_no_commit,
        a_cleared_mark_is_gone,
        a_commit_that_says_nothing_of_the_mark_leaves_it,
        what_was_given_up_in_a_row_is_as_the_last_commit_says,
        skipped_events_are_counted_up,
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
        joining_changes_the_groups,
        a_host_cannot_join_an_unknown_group,
        a_group_names_its_consumers,
        a_report_replaces_the_one_before,
        a_report_tells_failures_of_every_class,
        reports_outlive_their_host,
    }
    membership::{
        only_the_target_acquires,
        a_held_partition_is_not_acquired_until_it_is_released,
        the_same_host_acquires_again_after_a_lost_answer,
        only_a_member_in_good_standing_acquires,
        an_ended_registration_acquires_nothing,
        registering_again_frees_the_seats_and_keeps_the_targets,
        an_incarnation_is_never_used_twice,
        many_heartbeats_are_answered_one_by_one,
        expelling_a_host_ends_its_registration_and_frees_what_it_holds,
        expelling_from_one_group_keeps_the_others,
        expelling_fails_when_a_heartbeat_came_in_between,
        expelling_does_not_hit_a_later_registration,
        assigning_under_an_old_generation_changes_nothing,
        targets_and_homes_of_many_partitions_are_written_at_once,
        joining_and_leaving_change_the_generation,
        leaving_a_group_keeps_what_is_owned_until_it_is_released,
        deregistering_frees_everything,
        a_survey_tells_hosts_members_and_seats,
        cleaning_up_removes_the_expelled_and_names_them,
        progress_tells_owner_and_target,
        hosts_show_labels_and_groups,
        a_silent_host_shows_as_stale,
    }
    letters::{
        an_event_is_set_aside_whole,
        every_class_of_failure_is_kept,
        a_commit_that_fails_sets_nothing_aside,
        a_repeated_commit_sets_nothing_aside_twice,
        many_events_are_set_aside_at_once,
        more_are_asked_for_than_a_piece_takes,
        a_parked_key_is_asked_for_once_wherever_its_letters_are,
        what_is_busy_far_behind_is_refused_and_the_rest_is_asked_for_later,
        more_are_discarded_than_a_piece_takes,
        commits_of_many_partitions_set_aside_at_once,
        an_owner_learns_which_keys_are_parked,
        letters_that_park_nothing_are_no_parked_keys,
        an_empty_key_is_parked_like_any_other,
        parked_keys_are_listed_by_partition_and_key,
        parked_keys_of_all_partitions_are_listed,
        letters_wait_behind_the_first_of_their_key,
        an_event_behind_a_key_to_be_replayed_is_replayed_with_it,
        an_event_behind_one_to_be_discarded_is_left_alone,
        a_key_that_is_replayed_elsewhere_is_not_inherited,
        what_is_settled_counts_before_what_is_set_aside,
        what_was_asked_is_handed_to_the_owner_in_order,
        what_was_asked_elsewhere_is_handed_to_nobody_else,
        a_query_finds_what_fits_in_every_way,
        a_discard_reaches_what_its_query_finds,
        a_replay_reaches_the_whole_keys_of_what_its_query_finds,
        a_replay_leaves_plain_letters_of_the_same_key,
        a_partition_is_asked_alone,
        the_same_may_be_asked_twice,
        a_letter_to_be_discarded_is_not_replayed,
        a_letter_to_be_replayed_is_not_discarded,
        who_asks_for_what_is_idle_finds_nothing_busy,
        a_request_is_counted_in_the_partitions_it_concerns,
        a_letter_that_was_handled_is_gone,
        a_key_is_free_when_its_last_letter_is_gone,
        what_is_settled_beside_the_position_leaves_it_and_the_mark,
        letters_that_are_not_there_may_be_settled,
        a_commit_that_fails_settles_nothing,
        a_repeated_commit_settles_nothing_twice,
        a_letter_that_fails_again_goes_back_with_its_history,
        a_key_that_fails_again_is_not_replayed_any_further,
        a_plain_letter_that_fails_again_stops_no_key,
        settling_touches_no_other_group_or_partition,
        letters_are_listed_page_by_page,
        a_page_counts_only_what_its_query_finds,
        an_edited_letter_has_its_new_payload,
        a_letter_of_which_something_was_asked_is_not_edited,
        a_letter_that_is_not_there_is_not_edited,
        a_reset_back_over_letters_is_refused,
        a_reset_to_behind_the_letters_keeps_them,
        letters_elsewhere_are_in_no_resets_way,
        a_group_with_letters_is_deleted_only_with_them,
        a_group_at_work_is_not_deleted_with_its_letters,
        unknown_groups_have_no_letters,
        a_reason_of_any_text_is_set_aside,
    }
    skip::{
        a_skipped_event_is_a_dead_letter,
        a_skip_clears_what_was_known_and_moves_by_one,
        a_skip_fences_the_owner,
        a_skip_needs_no_owner,
        whatever_a_partition_waits_for_is_skipped,
        a_skip_with_its_key_parks_it,
        a_skip_without_its_key_parks_nothing,
        a_skip_of_a_parked_key_waits_behind_it,
        a_skip_of_an_event_without_a_key_is_a_plain_letter,
        a_skip_behind_a_key_to_be_replayed_is_replayed_with_it,
        there_is_nothing_to_skip_where_nothing_failed,
        an_event_is_skipped_only_once,
        a_skip_passes_over_nothing_that_is_not_committed,
        a_skip_touches_no_other_group,
        a_skipped_event_is_edited_and_discarded_like_any_other,
        unknown_groups_and_partitions_have_nothing_to_skip,
    }
    retention::{
        retention_is_kept_and_may_change,
        only_what_is_old_enough_is_removed,
        what_any_group_has_not_passed_stays,
        each_partition_is_trimmed_as_far_as_its_own_position,
        without_a_group_all_that_is_old_goes,
        so_many_of_each_partition_are_removed_at_once,
        a_younger_event_keeps_older_ones_behind_it,
        an_event_of_the_future_goes_with_an_old_one_behind_it,
        an_event_of_the_future_with_nothing_behind_it_stays,
        an_event_of_the_future_is_judged_by_what_all_groups_have_passed,
        more_events_of_the_future_than_a_step_takes_go_all_the_same,
        a_read_from_before_the_first_begins_there,
        an_id_is_known_as_long_as_its_event_is_there,
        offsets_go_on_after_all_was_removed,
        a_new_group_starts_at_the_first_event_that_is_left,
        a_new_group_of_an_emptied_stream_starts_at_the_head,
        a_reset_to_removed_events_is_refused,
        dead_letters_keep_their_events,
        many_events_are_removed_at_once,
        an_unknown_stream_is_not_trimmed,
    }
    remembered::{
        ids_are_remembered_with_their_commit,
        ids_belong_to_one_group_and_partition,
        a_commit_that_fails_remembers_nothing,
        many_ids_are_remembered_at_once,
        a_reset_forgets_however_many_there_are,
        a_deleted_group_forgets_however_many_there_are,
        what_is_refused_forgets_nothing,
        what_is_discarded_is_not_remembered_any_more,
        what_is_handled_after_all_stays_remembered,
        what_is_discarded_elsewhere_stays_remembered,
        a_discard_that_fails_forgets_nothing,
        what_is_skipped_by_hand_is_remembered_until_it_is_discarded,
        a_skip_leaves_what_is_remembered_of_its_id,
        an_id_may_be_remembered_twice,
        ids_are_forgotten_after_a_time,
        ids_far_behind_the_position_are_forgotten,
        the_distance_counts_from_each_partitions_own_position,
        so_many_ids_are_forgotten_at_once,
        forgetting_touches_no_other_group,
        a_reset_forgets_ids_from_its_position_on,
        a_reset_forgets_nothing_in_other_partitions,
        a_deleted_group_remembers_nothing,
        unknown_groups_remember_nothing,
    }
    by_hand::{
        a_reset_moves_positions_and_fences_the_owner,
        a_reset_moves_only_the_partitions_that_are_named,
        a_reset_refuses_active_members_unless_forced,
        a_reset_to_where_no_event_is_or_will_be_next_is_refused,
        a_reset_past_state_wants_a_word_about_it,
        clearing_state_clears_only_the_partitions_that_are_named,
        a_dry_run_changes_nothing,
        a_time_leads_to_its_first_event,
        a_deleted_group_leaves_nothing,
        a_group_with_active_members_is_not_deleted,
        a_group_deleted_and_created_again_starts_anew,
    }
    wakeups::{
        an_append_wakes,
        an_emit_wakes,
        a_resume_wakes,
        a_request_for_dead_letters_wakes,
        a_skip_wakes,
        a_change_between_two_waits_is_not_lost,
        waiting_ends_without_a_change,
        declaring_what_is_there_wakes_nobody,
        a_registration_wakes_who_looks_after_members,
    }
}
