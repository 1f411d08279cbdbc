//! Ways to a worker's values: where it listens, and what it tells others of that.

use crate::node::{Trust, let_readers_in, listen};
use crate::worker_loop::WorkerHandle;
use rasker_transport::{Address, Fingerprint, LinkOptions, TlsClient, TransportError};
use std::net::{IpAddr, UdpSocket};
use std::path::PathBuf;

/// Where a worker's values can be had, as others see it: the nearest way first.
pub(crate) struct Routes {
    pub address: String,
    pub host: String,
    pub routes: String,
    _folder: Option<SocketFolder>,
}

/// A private folder for a socket; it goes with its owner.
struct SocketFolder(PathBuf);

impl Drop for SocketFolder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn socket_folder() -> std::io::Result<SocketFolder> {
    use std::os::unix::fs::DirBuilderExt;
    let token =
        rasker_transport::Token::generate().map_err(|e| std::io::Error::other(e.to_string()))?;
    let path = std::env::temp_dir().join(format!("rasker-{}", &token.to_hex()[..16]));
    std::fs::DirBuilder::new().mode(0o700).create(&path)?;
    Ok(SocketFolder(path))
}

/// The address of this host on the way to another; nothing is sent to find it.
pub fn host_toward(host: &str, port: u16) -> Option<IpAddr> {
    let any = if host.contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect((host, port)).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

/// An address that others can reach, in place of one that means all interfaces.
pub(crate) fn advertised(listening: &Address, toward: Option<&Address>) -> Address {
    let (Address::Tcp { host, port } | Address::Tls { host, port }) = listening else {
        return listening.clone();
    };
    let means_all = host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    if !means_all {
        return listening.clone();
    }
    let way = match toward {
        Some(Address::Tcp { host, port } | Address::Tls { host, port }) => host_toward(host, *port),
        // Any address beyond this host shows the interface that leads out.
        _ => host_toward("198.51.100.1", 9),
    };
    let host = way.map_or_else(|| "127.0.0.1".to_owned(), |ip| ip.to_string());
    match listening {
        Address::Tls { .. } => Address::Tls { host, port: *port },
        _ => Address::Tcp { host, port: *port },
    }
}

/// How a worker's values are to be had.
pub(crate) struct Door<'a> {
    pub host: &'a str,
    pub port: u16,
    /// Where those who come are: they see this host as it is seen from there.
    pub toward: Option<Address>,
    pub shares_memory: bool,
}

/// Lets a worker's values be had: over the network, and within this host without a copy.
pub(crate) async fn serve_values(
    worker: &WorkerHandle,
    door: &Door<'_>,
    trust: &Trust,
    link: LinkOptions,
) -> Result<Routes, TransportError> {
    let (host, port) = (door.host.to_owned(), door.port);
    let address = match trust.server {
        Some(_) => Address::Tls { host, port },
        None => Address::Tcp { host, port },
    };
    let listener = listen(&address, trust, link.clone()).await?;
    let address = advertised(listener.local_address(), door.toward.as_ref());
    tokio::spawn(let_readers_in(worker.clone(), listener));
    let mut routes = far_route(&address, trust);
    let mut folder = None;
    if door.shares_memory
        && let Ok(made) = socket_folder()
    {
        let near = Address::Unix(made.0.join("values"));
        if let Ok(listener) = listen(&near, trust, link).await {
            tokio::spawn(let_readers_in(worker.clone(), listener));
            routes = format!("{near} {routes}");
            folder = Some(made);
        }
    }
    let (Address::Tcp { host, .. } | Address::Tls { host, .. }) = &address else {
        unreachable!("a worker listens on the network");
    };
    Ok(Routes { address: address.to_string(), host: host.clone(), routes, _folder: folder })
}

/// A worker's certificate is its own: who is told the way is told its fingerprint with it.
fn far_route(address: &Address, trust: &Trust) -> String {
    match &trust.server {
        Some(server) => format!("{address}#{}", server.fingerprint()),
        None => address.to_string(),
    }
}

/// One of the ways that a worker has told, and the certificate that stands at its end.
pub(crate) fn parse_route(route: &str) -> Option<(Address, Option<TlsClient>)> {
    let (address, fingerprint) = match route.split_once('#') {
        Some((address, text)) => (address, Some(text.parse::<Fingerprint>().ok()?)),
        None => (route, None),
    };
    let pinned = fingerprint.map(TlsClient::pinned).transpose().ok()?;
    Some((address.parse().ok()?, pinned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_all_interfaces_is_told_as_one_that_leads_here() {
        let all: Address = "tls://0.0.0.0:7".parse().unwrap();
        let near: Address = "tcp://127.0.0.1:9".parse().unwrap();
        assert_eq!(advertised(&all, Some(&near)).to_string(), "tls://127.0.0.1:7");
        let one: Address = "tcp://127.0.0.5:7".parse().unwrap();
        assert_eq!(advertised(&one, Some(&near)), one);
    }

    #[test]
    fn a_route_with_a_damaged_fingerprint_is_not_taken() {
        assert!(parse_route("tls://127.0.0.1:7#12").is_none());
        let (address, pinned) = parse_route("unix:///a/b").unwrap();
        assert!(pinned.is_none() && matches!(address, Address::Unix(_)));
    }
}
