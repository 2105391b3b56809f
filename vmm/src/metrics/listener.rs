//! [`MetricsListener`].

use super::address::MetricsAddress;
use crate::opener;
use std::fs::{self, Permissions};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Who may connect to a socket with a path: its owner and its group, which is that of the folder if that is set so
/// (`chmod g+s`).
const MODE: u32 = 0o660;

/// Why metrics can't be served.
#[derive(Debug, thiserror::Error)]
pub enum MetricsError {
    /// Another process serves there.
    #[error("--metrics {address}: another process listens there: choose another address")]
    InUse {
        /// Where.
        address: MetricsAddress,
    },
    /// Something else has the path.
    #[error("--metrics {}: it exists, and is not a socket: choose another path", path.display())]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("--metrics {address}: {source}")]
    System {
        /// Where.
        address: MetricsAddress,
        /// Its error.
        source: io::Error,
    },
}

/// A socket at which clients ask for metrics. One with a path is removed when this is dropped.
#[derive(Debug)]
pub struct MetricsListener {
    socket: Socket,
    /// Path of the socket, if it has one.
    path: Option<PathBuf>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl MetricsListener {
    /// Listens at `address`. A socket that a dead process left there is replaced. The folder of a path is made.
    ///
    /// # Errors
    ///
    /// Another process listens there, or a system call fails.
    pub fn open(address: &MetricsAddress) -> Result<MetricsListener, MetricsError> {
        let socket = match address {
            MetricsAddress::Loopback(at) => TcpListener::bind(at).and_then(|listener| {
                listener.set_nonblocking(true)?;
                Ok(Socket::Tcp(listener))
            }),
            MetricsAddress::Path(path) => {
                if is_other_file(path) {
                    return Err(MetricsError::NotASocket { path: path.clone() });
                }
                listen(path).map(Socket::Unix)
            }
        };
        let path = address.path().map(PathBuf::from);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AddrInUse => MetricsError::InUse { address: address.clone() },
            _other => MetricsError::System { address: address.clone(), source },
        };
        Ok(MetricsListener { socket: socket.map_err(failed)?, path })
    }

    /// Removes the socket, if it has a path. It is still open, so no other process has taken it for one that was left.
    pub(super) fn remove(&self) {
        if let Some(path) = &self.path {
            opener::unlink_metrics(path);
        }
    }

    /// Accepts a client.
    pub(super) fn accept(&self) -> io::Result<OwnedFd> {
        match &self.socket {
            Socket::Tcp(listener) => listener.accept().map(|(stream, _)| stream.into()),
            Socket::Unix(listener) => listener.accept().map(|(stream, _)| stream.into()),
        }
    }
}

impl AsFd for MetricsListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Drop for MetricsListener {
    fn drop(&mut self) {
        self.remove();
    }
}

fn is_other_file(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| !found.file_type().is_socket())
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if fs::symlink_metadata(path).is_ok() {
        match UnixStream::connect(path) {
            Ok(_) => return Err(io::ErrorKind::AddrInUse.into()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                fs::remove_file(path)?;
            }
            Err(error) => return Err(error),
        }
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> Result<MetricsListener, MetricsError> {
        MetricsListener::open(&MetricsAddress::Path(path.into()))
    }

    #[test]
    fn socket_that_a_dead_process_left_is_replaced_and_one_in_use_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/metrics.sock");
        let first = open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let error = open(&path).unwrap_err();
        assert!(matches!(error, MetricsError::InUse { .. }), "{error}");
        drop(first);
        assert!(!path.exists(), "it is removed");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists(), "as a process that was killed leaves it");
        drop(open(&path).unwrap());
    }

    #[test]
    fn other_file_at_the_path_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let [file, link] = ["file", "link"].map(|name| folder.path().join(name));
        fs::write(&file, "text").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        for path in [&file, &link, &folder.path().into()] {
            let error = open(path).unwrap_err();
            assert!(matches!(error, MetricsError::NotASocket { .. }), "{error}");
        }
        assert_eq!(fs::read(&file).unwrap(), b"text");
    }

    #[test]
    fn port_in_use_is_named() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = MetricsAddress::Loopback(taken.local_addr().unwrap());
        let error = MetricsListener::open(&address).unwrap_err();
        assert!(matches!(error, MetricsError::InUse { .. }), "{error}");
    }
}
