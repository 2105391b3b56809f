//! The address of an etcd witness: `etcd://HOST:PORT[,HOST:PORT...]/PREFIX`, or `etcds://` for TLS.

use crate::limits::{ETCD_ENDPOINTS_MAX, ETCD_PREFIX_BYTES_MAX};
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};

/// The form of an address, for messages.
const FORM: &str = "etcd://HOST:PORT[,HOST:PORT...]/PREFIX, or etcds:// for TLS";

/// Where the claims of an etcd witness are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EtcdAddress {
    /// Whether the servers are reached over TLS.
    pub(super) is_tls: bool,
    /// `HOST:PORT` of each server, in the order in which they are asked.
    pub(super) endpoints: Vec<String>,
    /// What every key begins with; without a slash at its end.
    pub(super) prefix: String,
}

/// Why a text is not the address of an etcd witness.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("witness {text}: {reason}: give {FORM}")]
pub struct AddressError {
    text: String,
    reason: &'static str,
}

impl EtcdAddress {
    /// Parses an address; `None` if `text` is none, but for example the path of a folder.
    ///
    /// # Errors
    ///
    /// The text begins like an address, but is not a valid one.
    pub fn parse(text: &str) -> Result<Option<EtcdAddress>, AddressError> {
        let (is_tls, rest) = match (text.strip_prefix("etcd://"), text.strip_prefix("etcds://")) {
            (Some(rest), _) => (false, rest),
            (None, Some(rest)) => (true, rest),
            (None, None) => return Ok(None),
        };
        let error = |reason| {
            // The text may have control characters.
            let text = text.escape_debug().take(200).collect();
            AddressError { text, reason }
        };
        let (endpoints, prefix) =
            rest.split_once('/').ok_or_else(|| error("it has no prefix for the keys"))?;
        let endpoints: Vec<String> = endpoints.split(',').map(String::from).collect();
        if endpoints.len() > ETCD_ENDPOINTS_MAX {
            return Err(error("it has too many servers"));
        }
        if !endpoints.iter().all(|endpoint| is_endpoint(endpoint)) {
            return Err(error("a server is not HOST:PORT"));
        }
        if endpoints.iter().enumerate().any(|(n, endpoint)| endpoints[..n].contains(endpoint)) {
            return Err(error("a server is there twice"));
        }
        let prefix = prefix.strip_suffix('/').unwrap_or(prefix).to_string();
        let is_prefix = (1..=ETCD_PREFIX_BYTES_MAX).contains(&prefix.len())
            && prefix.bytes().all(|byte| byte.is_ascii_graphic());
        match is_prefix {
            true => Ok(Some(EtcdAddress { is_tls, endpoints, prefix })),
            false => Err(error("the prefix must have 1 to 128 visible ASCII characters")),
        }
    }

    /// Returns whether the servers are reached over TLS.
    pub fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Returns the URL of a server.
    pub(super) fn url(&self, endpoint: &str) -> String {
        format!("http{}://{endpoint}", if self.is_tls { "s" } else { "" })
    }
}

impl fmt::Display for EtcdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_tls { "etcds" } else { "etcd" };
        write!(f, "{scheme}://{}/{}", self.endpoints.join(","), self.prefix)
    }
}

/// Returns whether `text` is `HOST:PORT`, with a name, an IPv4 address or an IPv6 address in brackets.
fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else { return false };
    let is_port = port.parse::<u16>().is_ok_and(|port| port != 0)
        && port.bytes().all(|byte| byte.is_ascii_digit());
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<Ipv6Addr>().is_ok(),
        None => is_name(host) || text.parse::<SocketAddr>().is_ok(),
    };
    is_port && is_host
}

/// Returns whether `host` is a host name.
fn is_name(host: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    host.len() <= 253 && host.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn valid_address_is_parsed_and_shown() {
        for (text, is_tls, endpoints, prefix) in [
            ("etcd://10.0.0.1:2379/understudy", false, 1, "understudy"),
            ("etcds://a.lan:1,b:65535,[fd00::1]:2379/x/y", true, 3, "x/y"),
        ] {
            let address = EtcdAddress::parse(text).unwrap().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(address.endpoints.len(), endpoints);
            assert_eq!((address.is_tls, address.prefix.as_str()), (is_tls, prefix));
        }
        let slash = EtcdAddress::parse("etcd://a:1/x/").unwrap().unwrap();
        assert_eq!(slash.to_string(), "etcd://a:1/x");
    }

    #[test]
    fn path_of_a_folder_is_no_address() {
        for text in ["/mnt/etcd", "etcd", "./etcd:/x", ""] {
            assert_eq!(EtcdAddress::parse(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn invalid_address_is_refused_in_one_line() {
        let many = format!("etcd://{}/x", ["a:1"; 10].join(","));
        let long = format!("etcd://a:1/{}", "x".repeat(129));
        for text in [
            "etcd://",
            "etcd:///x",
            "etcd://a:1",
            "etcd://a:1/",
            "etcd://a/x",
            "etcd://a:0/x",
            "etcd://a:+1/x",
            "etcd://a:65536/x",
            "etcd://a:1,/x",
            "etcd://a:1,a:1/x",
            "etcd://user:password@a:1/x",
            "etcd://[::g]:1/x",
            "etcd://::1:1/x",
            "etcd://a b:1/x",
            "etcd://a:1/x y",
            "etcd://a:1/x\n",
            &many,
            &long,
        ] {
            let error = EtcdAddress::parse(text).expect_err(text).to_string();
            assert!(error.contains("etcds://") && !error.contains('\n'), "{error}");
        }
    }
}
