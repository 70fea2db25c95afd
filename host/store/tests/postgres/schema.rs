//! A schema of its own for each test, in the database that `PELTON_TEST_POSTGRES` names.

use std::{
    io::Write,
    process,
    sync::{
        Once,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use pelton_store::{PostgresStore, StoreOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

pub(crate) struct Schema {
    pub(crate) url: String,
    pub(crate) name: String,
}

impl Schema {
    /// `None`, after one line that says so, where there is no PostgreSQL to test with.
    pub(crate) fn new() -> Option<Self> {
        static TOLD: Once = Once::new();
        let url = std::env::var("PELTON_TEST_POSTGRES").ok().filter(|url| !url.is_empty());
        if url.is_none() {
            TOLD.call_once(|| {
                // Not with a macro, whose output cargo keeps to itself.
                let line = "NOT RUN: what takes PostgreSQL; set PELTON_TEST_POSTGRES or use scripts/with-postgres\n";
                drop(std::io::stderr().write_all(line.as_bytes()));
            });
        }
        Some(Self::at(url?))
    }

    /// In another database.
    pub(crate) fn at(url: String) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let nanos = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().subsec_nanos();
        let next = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { url, name: format!("test_{}_{next}_{nanos}", process::id()) }
    }

    pub(crate) fn options(&self, host: bool) -> StoreOptions {
        StoreOptions { schema: self.name.clone(), connections_max: 4, host, ..StoreOptions::default() }
    }

    pub(crate) async fn open(&self, host: bool) -> PostgresStore {
        PostgresStore::open(&self.url, &self.options(host)).await.unwrap()
    }

    /// A connection as any application has one.
    pub(crate) async fn connect(&self) -> PgConnection {
        PgConnection::connect(&self.url).await.unwrap()
    }

    /// A statement in which `@.` stands for the schema.
    pub(crate) fn sql(&self, text: &str) -> AssertSqlSafe<String> {
        AssertSqlSafe(text.replace("@.", &format!("{}.", self.name)))
    }

    /// Runs statements.
    pub(crate) async fn run(&self, text: &str) {
        self.connect().await.execute(sqlx::raw_sql(self.sql(text))).await.unwrap();
    }
}

impl Drop for Schema {
    fn drop(&mut self) {
        let (url, drop) = (self.url.clone(), format!("DROP SCHEMA IF EXISTS {} CASCADE", self.name));
        // On a thread of its own: the test's runtime is busy with this test. A server that is away keeps its schema.
        let done = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                let connected =
                    tokio::time::timeout(std::time::Duration::from_secs(5), PgConnection::connect(&url)).await;
                if let Ok(Ok(mut connection)) = connected {
                    let _ = connection.execute(sqlx::raw_sql(AssertSqlSafe(drop))).await;
                }
            });
            Ok::<_, std::io::Error>(())
        });
        let _ = done.join();
    }
}
