//! A peer that speaks TLS as it should and then whatever a test wants: frames, halves of frames, rubbish.

use anyhow::{Context, Result, anyhow};
use lab::NetNs;
use nufw_proto::{Decoded, MAX_BODY, Message, decode, encode};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A TLS connection to one of the server's ports.
pub(crate) struct Peer {
    tls: StreamOwned<ClientConnection, TcpStream>,
    buffer: Vec<u8>,
}

/// A plain connection from a host.
pub(crate) fn plain(host: &NetNs, address: IpAddr, port: u16) -> Result<TcpStream> {
    let to = SocketAddr::new(address, port);
    Ok(host.enter(|| TcpStream::connect_timeout(&to, Duration::from_secs(10)))??)
}

impl Peer {
    /// Connects and completes the handshake.
    pub(crate) fn connect(
        stream: TcpStream,
        pki: &Path,
        certificate: Option<&str>,
        alpn: Option<&[u8]>,
    ) -> Result<Self> {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_file(pki.join("ca.crt")).map_err(|e| anyhow!("ca.crt: {e:?}"))?)?;
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots);
        let mut config = match certificate {
            Some(name) => {
                let chain = CertificateDer::pem_file_iter(pki.join(format!("{name}.crt")))
                    .and_then(Iterator::collect)
                    .map_err(|e| anyhow!("{name}.crt: {e:?}"))?;
                let key = PrivateKeyDer::from_pem_file(pki.join(format!("{name}.key")))
                    .map_err(|e| anyhow!("{name}.key: {e:?}"))?;
                builder.with_client_auth_cert(chain, key)?
            }
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = alpn.map(<[u8]>::to_vec).into_iter().collect();
        let connection = ClientConnection::new(Arc::new(config), "nuauth.lab".try_into()?)?;
        let mut peer = Self {
            tls: StreamOwned::new(connection, stream),
            buffer: Vec::new(),
        };
        while peer.tls.conn.is_handshaking() {
            peer.tls
                .conn
                .complete_io(&mut peer.tls.sock)
                .context("the TLS handshake failed")?;
        }
        Ok(peer)
    }

    /// Sends a message as it should be.
    pub(crate) fn send(&mut self, message: &impl Message) -> Result<()> {
        let mut bytes = Vec::new();
        encode(message, &mut bytes)?;
        self.write(&bytes)
    }

    /// Sends bytes.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.tls.write_all(bytes)?;
        Ok(self.tls.flush()?)
    }

    /// Waits for the next message.
    pub(crate) fn receive<M: Message>(&mut self) -> Result<M> {
        self.tls.sock.set_read_timeout(Some(Duration::from_secs(20)))?;
        loop {
            if let Decoded::Message(message, used) = decode::<M>(&self.buffer, MAX_BODY)? {
                self.buffer.drain(..used);
                return Ok(message);
            }
            let mut chunk = [0; 4096];
            let length = self.tls.read(&mut chunk)?;
            anyhow::ensure!(length > 0, "the server ended the connection");
            self.buffer.extend_from_slice(&chunk[..length]);
        }
    }

    /// Whether the server ends the connection within the time, whatever it says before. `trickle` is written byte by
    /// byte meanwhile, a byte each 200 ms.
    pub(crate) fn is_cut_within(&mut self, limit: Duration, trickle: &[u8]) -> Result<bool> {
        let start = lab::now();
        let mut bytes = trickle.iter();
        self.tls.sock.set_read_timeout(Some(Duration::from_millis(200)))?;
        while start.elapsed() < limit {
            if let Some(byte) = bytes.next()
                && self.write(std::slice::from_ref(byte)).is_err()
            {
                return Ok(true);
            }
            match self.tls.read(&mut [0; 4096]) {
                Ok(1..) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Ok(0) | Err(_) => return Ok(true),
            }
        }
        Ok(false)
    }
}

/// The same for a connection without TLS.
pub(crate) fn plain_is_cut_within(mut stream: TcpStream, limit: Duration, first: &[u8]) -> Result<bool> {
    let start = lab::now();
    stream.write_all(first).ok();
    stream.set_read_timeout(Some(Duration::from_millis(200)))?;
    while start.elapsed() < limit {
        match stream.read(&mut [0; 4096]) {
            Ok(1..) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Ok(0) | Err(_) => return Ok(true),
        }
    }
    Ok(false)
}
