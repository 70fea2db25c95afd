//! From a URL to a store.

use std::{path::Path, sync::Arc};

use crate::{Clock, Durability, SqliteStore, Store, StoreError, system_clock};

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Whether missing migrations are applied; if not, a database that lacks some is refused.
    pub auto_migrate: bool,
    /// Whether a database that is not there is created. Needs `auto_migrate`.
    pub create: bool,
    /// Whether the store takes the lock that only one daemon of a database holds. Commands leave it and work beside the
    /// daemon.
    pub host: bool,
    /// What a commit that moves only positions waits for.
    pub durability: Durability,
    /// Where the store takes the time from.
    pub clock: Clock,
}

impl Default for StoreOptions {
    fn default() -> Self {
        let (durability, clock) = (Durability::default(), system_clock());
        Self { auto_migrate: true, create: true, host: false, durability, clock }
    }
}

/// Opens the store that a URL names: `sqlite://PATH`.
///
/// # Errors
/// [`StoreError::CannotOpen`] if the URL is of another form or there is nothing to open,
/// [`StoreError::InUse`] if another daemon holds the database, [`StoreError::SchemaTooNew`] and
/// [`StoreError::SchemaTooOld`] if it is of another version, [`StoreError::Unavailable`] if it stays locked.
pub async fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    let cannot = |reason: &str| StoreError::CannotOpen { url: without_password(url), reason: reason.into() };
    match url.split_once("://") {
        Some(("sqlite", path)) if path.is_empty() || path.starts_with(':') => {
            Err(cannot("it names no file; expected sqlite://PATH"))
        }
        Some(("sqlite", path)) => Ok(Arc::new(SqliteStore::open(Path::new(path), options).await?)),
        Some(("postgres" | "postgresql", _)) => {
            Err(cannot("PostgreSQL comes with a later version of pelton; use sqlite://PATH"))
        }
        _ if url.starts_with("sqlite:") && url.contains(":memory:") => {
            Err(cannot("a database in memory would lose every event at the end of the process; use sqlite://PATH"))
        }
        _ => Err(cannot("expected sqlite://PATH, such as sqlite://pelton.db")),
    }
}

/// A URL that may be shown: `user:password@` loses the password.
fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.into() };
    // A password may hold an `@` that nobody escaped, or a `/`: everything up to the last `@` is taken for it.
    let Some((user, host)) = rest.rsplit_once('@') else { return url.into() };
    let Some((name, _)) = user.split_once(':') else { return url.into() };
    format!("{scheme}://{name}:***@{host}")
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refusal(url: &str) -> String {
        match open(url, &StoreOptions::default()).await {
            Ok(_) => panic!("{url} was opened"),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn a_url_that_names_no_store_is_refused_with_the_form_expected() {
        assert!(refusal("sqlite://").await.contains("it names no file"));
        assert!(refusal("sqlite://:memory:").await.contains("it names no file"));
        assert!(refusal("sqlite::memory:").await.contains("in memory"));
        assert!(refusal("pelton.db").await.contains("expected sqlite://PATH"));
        assert!(refusal("mysql://host/db").await.contains("expected sqlite://PATH"));
        assert!(refusal("postgres://host/db").await.contains("later version"));
    }

    #[tokio::test]
    async fn a_password_is_never_shown() {
        for url in ["postgres://me:s3cret@host/db", "postgres://me:s3cret/@x@host/db", "mysql://me:s3cret@host"] {
            let message = refusal(url).await;
            assert!(!message.contains("s3cret") && message.contains("me:***@host"), "{message}");
        }
    }
}
