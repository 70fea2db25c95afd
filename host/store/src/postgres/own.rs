//! The registrations of this process, for where no lock tells whose one is.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

/// Registrations of one host that are remembered. More than one only if answers were lost.
const REMEMBERED_MAX: usize = 16;

/// By host, the incarnations that this process has registered or tried to.
#[derive(Default)]
pub(super) struct Own(Mutex<BTreeMap<String, Vec<i64>>>);

impl Own {
    /// Remembers one more, before it is stored: if the answer is lost, the next try must not take it for a stranger's.
    pub(super) fn remember(&self, host: &str, incarnation: i64) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = all.entry(host.to_owned()).or_default();
        if own.len() == REMEMBERED_MAX {
            own.remove(0);
        }
        own.push(incarnation);
    }

    /// All that are remembered.
    pub(super) fn of(&self, host: &str) -> Vec<i64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(host).cloned().unwrap_or_default()
    }

    /// The host is gone.
    pub(super) fn forget(&self, host: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(host);
    }
}
