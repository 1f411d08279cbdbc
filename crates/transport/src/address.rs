//! Where a peer listens, and whether it may.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use crate::TransportError;

/// Where a peer listens. `host:port` alone means TCP.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    Tcp { host: String, port: u16 },
    Tls { host: String, port: u16 },
    Unix(PathBuf),
}

impl FromStr for Address {
    type Err = TransportError;

    fn from_str(text: &str) -> Result<Self, TransportError> {
        let wrong =
            |reason: &str| TransportError::Address { text: text.into(), reason: reason.into() };
        let (scheme, rest) = text.trim().split_once("://").unwrap_or(("tcp", text.trim()));
        if scheme == "unix" {
            if !rest.starts_with('/') {
                return Err(wrong("the path of a Unix socket starts with /"));
            }
            return Ok(Self::Unix(PathBuf::from(rest)));
        }
        if scheme != "tcp" && scheme != "tls" {
            return Err(wrong(&format!("there is no transport `{scheme}`")));
        }
        let (host, port) = rest.rsplit_once(':').ok_or_else(|| wrong("the port is missing"))?;
        let port = port.parse().map_err(|_| wrong("the port is not a number from 0 to 65535"))?;
        let host = match host.strip_prefix('[') {
            Some(bracketed) => {
                bracketed.strip_suffix(']').ok_or_else(|| wrong("a bracket is not closed"))?
            }
            None if host.contains(':') => return Err(wrong("an IPv6 address stands in brackets")),
            None => host,
        };
        if host.is_empty() || host.contains(['/', '@', ' ']) {
            return Err(wrong("the host is missing or not a host name"));
        }
        let host = host.to_string();
        Ok(if scheme == "tls" { Self::Tls { host, port } } else { Self::Tcp { host, port } })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, host, port) = match self {
            Self::Unix(path) => return write!(f, "unix://{}", path.display()),
            Self::Tcp { host, port } => ("tcp", host, port),
            Self::Tls { host, port } => ("tls", host, port),
        };
        if host.contains(':') {
            write!(f, "{scheme}://[{host}]:{port}")
        } else {
            write!(f, "{scheme}://{host}:{port}")
        }
    }
}

/// Refuses to listen where other hosts could read along, unless the user insists.
pub fn check_exposure(address: &Address, tls: bool, insecure: bool) -> Result<(), TransportError> {
    let host = match address {
        Address::Tcp { host, .. } => host,
        Address::Tls { .. } | Address::Unix(_) => return Ok(()),
    };
    let is_loopback =
        host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if is_loopback || tls || insecure {
        return Ok(());
    }
    Err(TransportError::Exposed { address: address.to_string() })
}
