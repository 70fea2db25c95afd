//! Waiting for a change.

use std::time::Duration;

use futures_util::FutureExt;
use pelton_core::{Commit, LetterRequest};

use crate::bed::{Bed, at, emits, moves, stop};

/// Far longer than a test runs: a wait that ends was woken.
const LONG: Duration = Duration::from_secs(3_600);

/// Takes the hints of what a test set up.
async fn settle(bed: &Bed) {
    bed.store.changed(Duration::from_millis(1)).await;
}

pub(crate) async fn an_append_wakes(bed: Bed) {
    bed.orders(0).await;
    settle(&bed).await;
    let mut waits = bed.store.changed(LONG);
    assert!((&mut waits).now_or_never().is_none());
    bed.append("orders", &["a"]).await;
    waits.await;
}

pub(crate) async fn an_emit_wakes(bed: Bed) {
    bed.orders(1).await;
    let lease = bed.acquire("billing", 0, "host").await;
    settle(&bed).await;
    let commit = Commit { effects: emits("orders", &["more"]), ..moves(&lease, 0, 1) };
    bed.commit(commit).await;
    bed.store.changed(LONG).await;
}

pub(crate) async fn a_resume_wakes(bed: Bed) {
    bed.orders(0).await;
    settle(&bed).await;
    bed.store.resume("billing", None).await.unwrap();
    bed.store.changed(LONG).await;
}

pub(crate) async fn a_request_for_dead_letters_wakes(bed: Bed) {
    bed.orders(1).await;
    let lease = bed.acquire("billing", 0, "host").await;
    bed.set_aside(&lease, 0..1, false).await;
    settle(&bed).await;
    bed.ask(&at(0), LetterRequest::Discard).await;
    bed.store.changed(LONG).await;
}

pub(crate) async fn a_skip_wakes(bed: Bed) {
    bed.orders(1).await;
    let lease = bed.acquire("billing", 0, "host").await;
    bed.commit(Commit { mark: Some(stop(0, 1)), ..moves(&lease, 0, 0) }).await;
    settle(&bed).await;
    bed.store.skip("billing", 0, false).await.unwrap();
    bed.store.changed(LONG).await;
}

pub(crate) async fn a_change_between_two_waits_is_not_lost(bed: Bed) {
    bed.orders(0).await;
    settle(&bed).await;
    bed.append("orders", &["a"]).await;
    bed.store.changed(LONG).await;
    bed.append("orders", &["b"]).await;
    bed.store.changed(LONG).await;
}

pub(crate) async fn waiting_ends_without_a_change(bed: Bed) {
    bed.orders(0).await;
    settle(&bed).await;
    bed.store.changed(Duration::from_millis(1)).await;
}

pub(crate) async fn declaring_what_is_there_wakes_nobody(bed: Bed) {
    bed.orders(0).await;
    settle(&bed).await;
    let mut waits = bed.store.changed(LONG);
    assert!((&mut waits).now_or_never().is_none());
    bed.stream("orders", 1).await;
    bed.group("billing", "orders").await;
    bed.append("orders", &[]).await;
    assert!((&mut waits).now_or_never().is_none());
}

pub(crate) async fn a_registration_wakes_who_looks_after_members(bed: Bed) {
    bed.orders(0).await;
    settle(&bed).await;
    let mut waits = bed.store.membership_changed(LONG);
    assert!((&mut waits).now_or_never().is_none());
    bed.register("one", &["billing"]).await;
    waits.await;
}
