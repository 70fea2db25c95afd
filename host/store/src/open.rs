//! From a URL to a store.

use std::{path::Path, sync::Arc};

use crate::{Clock, Durability, PostgresStore, SqliteStore, Store, StoreError, system_clock};

/// How a store is opened.
#[derive(Clone)]
pub struct StoreOptions {
    /// Whether missing migrations are applied; if not, a database that lacks some is refused.
    pub auto_migrate: bool,
    /// Whether a database that is not there is created. Needs `auto_migrate`.
    pub create: bool,
    /// Whether the store will register hosts. PostgreSQL's then keeps a connection of its own for their locks.
    pub host: bool,
    /// The schema in which PostgreSQL's tables and functions live.
    pub schema: String,
    /// Connections kept at most, where the engine has some.
    pub connections_max: u32,
    /// What a commit that moves only positions waits for.
    pub durability: Durability,
    /// Where the store takes the time from.
    pub clock: Clock,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            auto_migrate: true,
            create: true,
            host: false,
            schema: "pelton".into(),
            connections_max: 8,
            durability: Durability::default(),
            clock: system_clock(),
        }
    }
}

/// Opens the store that a URL names: `sqlite://PATH` or `postgres://USER@HOST/DATABASE`.
///
/// # Errors
/// [`StoreError::CannotOpen`] if the URL is of another form or there is nothing to open,
/// [`StoreError::SchemaTooNew`] and [`StoreError::SchemaTooOld`] if the database is of another version,
/// [`StoreError::Unavailable`] if it stays locked.
pub async fn open(url: &str, options: &StoreOptions) -> Result<Arc<dyn Store>, StoreError> {
    let cannot = |reason: &str| StoreError::CannotOpen { url: without_password(url), reason: reason.into() };
    match url.split_once("://") {
        Some(("sqlite", path)) if path.is_empty() || path.starts_with(':') => {
            Err(cannot("it names no file; expected sqlite://PATH"))
        }
        Some(("sqlite", path)) => Ok(Arc::new(SqliteStore::open(Path::new(path), options).await?)),
        Some(("postgres" | "postgresql", _)) => Ok(Arc::new(PostgresStore::open(url, options).await?)),
        _ if url.starts_with("sqlite:") && url.contains(":memory:") => {
            Err(cannot("a database in memory would lose every event at the end of the process; use sqlite://PATH"))
        }
        _ => Err(cannot("expected sqlite://PATH, such as sqlite://pelton.db, or postgres://USER@HOST/DATABASE")),
    }
}

/// What [`open`] would have against a URL of PostgreSQL, without connecting to anything.
///
/// # Errors
/// Why, and what is expected.
pub fn check_url(url: &str) -> Result<(), String> {
    match PostgresStore::check_url(url) {
        Err(StoreError::CannotOpen { reason, .. }) => Err(reason),
        Err(error) => Err(error.to_string()),
        Ok(()) => Ok(()),
    }
}

/// A URL that may be shown: `user:password@` and `?password=` lose the password.
#[must_use]
pub fn without_password(url: &str) -> String {
    // The query first: what looks like a user's password may reach into it.
    let mut parts = url.split_inclusive(['?', '&']);
    let mut shown: String = parts.next().unwrap_or_default().into();
    for part in parts {
        match part.strip_prefix("password=") {
            Some(value) => {
                shown.push_str("password=***");
                shown.extend(value.chars().next_back().filter(|end| matches!(end, '?' | '&')));
            }
            None => shown.push_str(part),
        }
    }
    let Some((scheme, rest)) = shown.split_once("://") else { return shown };
    // A password may hold an `@` that nobody escaped, or a `/`: everything up to the last `@` is taken for it.
    let Some((user, host)) = rest.rsplit_once('@') else { return shown };
    let Some((name, _)) = user.split_once(':') else { return shown };
    format!("{scheme}://{name}:***@{host}")
}

/// A URL that a command can be given: without the password, for which the tool asks or looks elsewhere.
pub(crate) fn without_any_password(url: &str) -> String {
    let shown = without_password(url).replacen(":***@", "@", 1);
    let Some((before, query)) = shown.split_once('?') else { return shown };
    let kept: Vec<&str> = query.split('&').filter(|part| *part != "password=***").collect();
    if kept.is_empty() { before.into() } else { format!("{before}?{}", kept.join("&")) }
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
    }

    #[tokio::test]
    async fn a_password_is_never_shown() {
        for url in [
            "postgres://me:s3cret@[::1]:1/db",
            "postgres://me:s3cret/@x@[::1]:1/db",
            "mysql://me:s3cret@[::1]:1/?password=s3cret&x=y",
        ] {
            let message = refusal(url).await;
            assert!(!message.contains("s3cret") && message.contains("me:***@[::1]:1/"), "{message}");
        }
    }

    #[test]
    fn a_password_in_the_query_is_hidden_whatever_it_holds() {
        let shown = without_password("postgres://127.0.0.1:1/db?user=u&password=Top@Secret&sslmode=require");
        assert_eq!(shown, "postgres://127.0.0.1:1/db?user=u&password=***&sslmode=require");
        assert_eq!(without_password("postgres://h:1/db?password=a@b"), "postgres://h:1/db?password=***");
        assert!(!without_password("postgres://me:s3?c@ret@h/db?password=x").contains("ret@"));
    }

    #[test]
    fn a_url_for_other_tools_has_no_password_at_all() {
        let url = "postgres://me:s3cret@h/db?password=x&sslmode=require";
        assert_eq!(without_any_password(url), "postgres://me@h/db?sslmode=require");
        assert_eq!(without_any_password("postgres://me:s3cret@h/db"), "postgres://me@h/db");
        assert_eq!(without_any_password("postgres://me@h/db?password=x"), "postgres://me@h/db");
    }
}
