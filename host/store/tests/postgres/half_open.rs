//! Connections that broke on one side only.

use std::{sync::Arc, time::Duration};

use pelton_core::LockSeen;
use pelton_store::{PostgresStore, Store};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{Mutex, watch},
    time::timeout,
};

use crate::{group, register, schema::Schema, seen_host, stream, try_register};

/// Stands between a store and the server. What it cuts, the server takes for alive.
struct Wire {
    port: u16,
    cuts: watch::Sender<u32>,
    /// The server's ends of what was cut.
    kept: Arc<Mutex<Vec<TcpStream>>>,
}

impl Wire {
    async fn to(server: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (cuts, _) = watch::channel(0);
        let kept = Arc::<Mutex<Vec<TcpStream>>>::default();
        let (all_cuts, all_kept) = (cuts.clone(), Arc::clone(&kept));
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut server = TcpStream::connect(&server).await.unwrap();
                let (mut cut, kept) = (all_cuts.subscribe(), Arc::clone(&all_kept));
                tokio::spawn(async move {
                    let is_cut = tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => false,
                        _ = cut.changed() => true,
                    };
                    if is_cut {
                        kept.lock().await.push(server);
                    }
                });
            }
        });
        Self { port, cuts, kept }
    }

    /// Breaks all connections on the store's side.
    fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }
}

#[tokio::test]
async fn a_lock_that_an_earlier_connection_of_ours_still_holds_is_taken_over() {
    let Some(schema) = Schema::new() else { return };
    let (user, place) = schema.url.rsplit_once('@').unwrap();
    let (server, database) = place.split_once('/').unwrap();
    let wire = Wire::to(server.to_owned()).await;
    let url = format!("{user}@127.0.0.1:{}/{database}", wire.port);
    let one = PostgresStore::open(&url, &schema.options(true)).await.unwrap();
    let other = schema.open(true).await;
    stream(&one, "orders", 1).await;
    group(&one, "billing", "orders").await;
    let session = register(&one, "host", "billing").await;

    let lost = one.lock_lost();
    wire.cut();
    timeout(Duration::from_secs(5), lost).await.unwrap();
    assert!(!wire.kept.lock().await.is_empty());
    // Nobody else may have it: as far as the server knows, the host lives.
    assert_eq!(seen_host(&other, "host").await.lock, LockSeen::Held);
    assert!(try_register(&other, "host", "billing").await.is_err());
    let registering = async {
        loop {
            match try_register(&one, "host", "billing").await {
                Ok(again) => break again,
                // Found out on a connection that was cut as well.
                Err(error) => assert!(error.is_transient(), "{error}"),
            }
        }
    };
    let again = timeout(Duration::from_secs(5), registering).await.unwrap();
    assert!(again.incarnation > session.incarnation);
    assert_eq!(seen_host(&other, "host").await.lock, LockSeen::Held);
    assert!(timeout(Duration::from_millis(100), one.lock_lost()).await.is_err());
}
