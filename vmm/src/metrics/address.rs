//! [`MetricsAddress`].

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where metrics are served. Metrics are neither encrypted nor is anybody asked who he is, so no other host can reach it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// A TCP port of a loopback address.
    Loopback(SocketAddr),
    /// A Unix socket.
    Path(PathBuf),
}

/// Why a text is no address for metrics.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is an address of another host, or of this one for others.
    #[error(
        "other hosts could read them, because {0} is no loopback address: give 127.0.0.1:PORT, [::1]:PORT or the path of a \
         socket, and let a proxy with authentication serve others"
    )]
    NotLoopback(SocketAddr),
    /// The port would be a random one.
    #[error("give a port")]
    NoPort,
    /// It is something else.
    #[error("give 127.0.0.1:PORT, [::1]:PORT or the path of a socket, which has a '/'")]
    NoAddress,
}

impl MetricsAddress {
    /// Returns the path, if it is a Unix socket.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Loopback(_) => None,
            Self::Path(path) => Some(path),
        }
    }
}

impl FromStr for MetricsAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<MetricsAddress, AddressError> {
        if text.contains('/') {
            return Ok(Self::Path(text.into()));
        }
        let address: SocketAddr = text.parse().map_err(|_| AddressError::NoAddress)?;
        match address {
            _ if !address.ip().is_loopback() => Err(AddressError::NotLoopback(address)),
            _ if address.port() == 0 => Err(AddressError::NoPort),
            _ => Ok(Self::Loopback(address)),
        }
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(address) => address.fmt(f),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_one_that_no_other_host_reaches() {
        for text in ["127.0.0.1:9100", "127.3.2.1:1", "[::1]:65535", "/run/metrics.sock", "./m"] {
            let address: MetricsAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.path().is_some(), text.contains('/'));
        }
        for text in ["0.0.0.0:9100", "10.0.0.1:9100", "[::]:9100", "[::ffff:127.0.0.1]:9100"] {
            let error = text.parse::<MetricsAddress>().unwrap_err();
            assert_eq!(error, AddressError::NotLoopback(text.parse().unwrap()));
        }
        assert_eq!("127.0.0.1:0".parse::<MetricsAddress>(), Err(AddressError::NoPort));
        for text in ["", "9100", "localhost:9100", "127.0.0.1", "[::1]", "127.0.0.1:99999"] {
            assert_eq!(text.parse::<MetricsAddress>(), Err(AddressError::NoAddress), "{text}");
        }
    }
}
