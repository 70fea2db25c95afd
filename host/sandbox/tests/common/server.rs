//! A web server on this machine that behaves as badly as its path says.
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "tests")]

use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
};

pub struct Server {
    pub address: SocketAddr,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    open: AtomicUsize,
    ever: AtomicUsize,
}

impl Server {
    pub async fn start() -> Self {
        Self::listen(None).await
    }

    /// With the certificate in `tests/tls`, for `inside.test` and 127.0.0.1.
    pub async fn start_tls() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tls");
        let certificate = CertificateDer::from_pem_file(folder.join("certificate.pem")).unwrap();
        let key = PrivateKeyDer::from_pem_file(folder.join("key.pem")).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).unwrap();
        Self::listen(Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::<Counts>::default();
        let counted = Arc::clone(&counts);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (counts, tls) = (Arc::clone(&counted), tls.clone());
                counts.open.fetch_add(1, Ordering::SeqCst);
                counts.ever.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(async move {
                    // Whatever goes wrong, the other side has gone.
                    let _ = match tls {
                        None => serve(stream).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream).await,
                            Err(fault) => Err(fault),
                        },
                    };
                    counts.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { address, counts }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.counts.ever.load(Ordering::SeqCst)
    }

    /// Waits until nobody is connected any more.
    pub async fn left_alone(&self) {
        for _ in 0..500 {
            if self.counts.open.load(Ordering::SeqCst) == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} connections are still open", self.counts.open.load(Ordering::SeqCst));
    }
}

async fn serve(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8_lossy(&request).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (path, query) = path.split_once('?').unwrap_or((&path, ""));
    match path {
        "/ok" => answer(&mut stream, "", "hello").await?,
        "/head" => answer(&mut stream, "", &head).await?,
        "/redirect" => {
            stream
                .write_all(format!("HTTP/1.1 302 Found\r\nlocation: {query}\r\ncontent-length: 0\r\n\r\n").as_bytes())
                .await?;
        }
        "/silent" => {}
        "/slow-body" => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbeginning").await?,
        "/short-body" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nbeginning").await?;
            return Ok(());
        }
        "/large" => {
            stream.write_all(format!("HTTP/1.1 200 OK\r\ncontent-length: {query}\r\n\r\n").as_bytes()).await?;
            flood(&mut stream, b"x").await?;
        }
        "/endless" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
            flood(&mut stream, b"x").await?;
        }
        "/endless-head" => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await?;
            flood(&mut stream, b"x").await?;
        }
        "/many-headers" => {
            let headers: String = (0..1000).map(|number| format!("x-{number}: y\r\n")).collect();
            answer(&mut stream, &headers, "hello").await?;
        }
        "/nonsense" => stream.write_all(b"220 smtp.example.com ESMTP\r\n").await?,
        // Reads all there is.
        "/body" => {
            let begin = request.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
            let mut bytes = request.len() - begin;
            let mut last = request[begin..].to_vec();
            while !last.ends_with(b"0\r\n\r\n") {
                let mut part = Vec::new();
                match stream.read_buf(&mut part).await? {
                    0 => return Ok(()),
                    read => bytes += read,
                }
                last.extend(part);
                last.drain(..last.len().saturating_sub(8));
            }
            answer(&mut stream, "", &format!("took about {} KiB", bytes / 1024)).await?;
        }
        other => panic!("the server knows no {other}"),
    }
    // Until the other side goes.
    let mut rest = Vec::new();
    while stream.read_buf(&mut rest).await? > 0 {
        rest.clear();
    }
    Ok(())
}

async fn answer(stream: &mut (impl AsyncWrite + Unpin), headers: &str, body: &str) -> std::io::Result<()> {
    let length = body.len();
    let response = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {length}\r\n\r\n{body}");
    stream.write_all(response.as_bytes()).await
}

async fn flood(stream: &mut (impl AsyncWrite + Unpin), byte: &[u8; 1]) -> std::io::Result<()> {
    let part = vec![byte[0]; 64 * 1024];
    loop {
        stream.write_all(&part).await?;
    }
}
