//! Opening: what is wrong is said, and passwords are not.

use pelton_store::{PostgresStore, Store, StoreError, StoreOptions, open};

use crate::schema::Schema;

async fn refusal(url: &str, options: &StoreOptions) -> StoreError {
    match PostgresStore::open(url, options).await {
        Ok(_) => panic!("{url} was opened"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_url_opens_a_store() {
    let Some(schema) = Schema::new() else { return };
    let store = open(&schema.url, &schema.options(false)).await.unwrap();
    assert!(store.streams().await.unwrap().is_empty());
    // Again, and with nothing to do.
    let options = StoreOptions { auto_migrate: false, create: false, ..schema.options(false) };
    open(&schema.url, &options).await.unwrap();
}

#[tokio::test]
async fn several_processes_that_open_at_once_create_one_schema() {
    let Some(schema) = Schema::new() else { return };
    let stores = futures_util::future::join_all((0..8).map(|_| schema.open(false))).await;
    for store in stores {
        assert!(store.streams().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_told_from_a_wrong_url() {
    let options = StoreOptions::default();
    let away = refusal("postgres://me:s3cret@127.0.0.1:1/db", &options).await;
    assert!(away.is_transient() && away.to_string().contains("me:***@127.0.0.1:1/db"), "{away}");
    for wrong in [
        "postgres://me:s3cret/x@host/db",
        "postgres://me:s3cret@host:port/db",
        "postgres://host/db?user=me&password=s3cret&port=x",
    ] {
        let error = refusal(wrong, &options).await;
        assert!(!error.is_transient() && error.to_string().contains("expected postgres://USER"), "{error}");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
    let schema = refusal("postgres://host/db", &StoreOptions { schema: "a b".into(), ..options }).await;
    assert!(schema.to_string().contains("cannot be a schema"), "{schema}");
}

#[tokio::test]
async fn a_wrong_password_is_said_and_not_shown() {
    let Some(mut cluster) = crate::cluster::Cluster::start().await else { return };
    cluster.wants_passwords().await;
    let url = cluster.url().replace("pelton@", "somebody:s3cret@");
    let error = refusal(&url, &StoreOptions::default()).await;
    assert!(!error.is_transient(), "{error}");
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("password authentication failed") && text.contains("check the user and the password"),
        "{text}"
    );
    assert!(!text.contains("s3cret"), "{text}");
}

#[tokio::test]
async fn a_user_without_rights_is_told_who_can_help() {
    let Some(schema) = Schema::new() else { return };
    let role = format!("role_{}", schema.name);
    schema.run(&format!("CREATE ROLE {role} LOGIN")).await;
    let (_, host) = schema.url.rsplit_once('@').unwrap();
    let error = refusal(&format!("postgres://{role}@{host}"), &schema.options(false)).await;
    schema.run(&format!("DROP ROLE {role}")).await;
    let text = error.to_string();
    assert!(!error.is_transient() && text.contains("permission denied") && text.contains("grant CREATE"), "{text}");
}

#[tokio::test]
async fn a_schema_that_is_missing_or_of_another_version_is_said_so() {
    let Some(schema) = Schema::new() else { return };
    let options = StoreOptions { create: false, ..schema.options(false) };
    let missing = refusal(&schema.url, &options).await;
    assert!(
        matches!(&missing, StoreError::CannotOpen { .. }) && missing.to_string().contains("pelton migrate"),
        "{missing}"
    );

    schema.open(false).await;
    schema.run("UPDATE @.meta SET schema = 99, min_compatible = 2").await;
    schema.open(false).await;
    schema.run("UPDATE @.meta SET schema = 99, min_compatible = 99").await;
    let newer = refusal(&schema.url, &options).await;
    assert!(matches!(newer, StoreError::SchemaTooNew { found: 99, known: 4 }), "{newer}");
    schema.run("UPDATE @.meta SET schema = 1, min_compatible = 1").await;
    let older = refusal(&schema.url, &StoreOptions { auto_migrate: false, ..options }).await;
    assert!(matches!(older, StoreError::SchemaTooOld { found: 1, known: 4 }), "{older}");
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_named() {
    let Some(schema) = Schema::new() else { return };
    let (server, _) = schema.url.rsplit_once('/').unwrap();
    let error = refusal(&format!("{server}/nowhere"), &schema.options(false)).await;
    assert!(!error.is_transient() && error.to_string().contains("createdb"), "{error}");
}
