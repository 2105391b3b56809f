//! Serves the status over a Unix socket: each connection receives one line of JSON.

use super::status::StatusBoard;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest time that writing to a client may take.
const WRITE_MAX: Duration = Duration::from_secs(1);

/// The status socket. It is removed when this is dropped.
#[derive(Debug)]
pub struct StatusServer {
    path: PathBuf,
}

impl StatusServer {
    /// Listens at `path` on a thread of its own, which ends with the process. A socket that a dead process
    /// left there is replaced.
    ///
    /// # Errors
    ///
    /// `AddrInUse` if a process already listens there, and any error of the kernel.
    pub fn start(path: &Path, board: StatusBoard) -> io::Result<StatusServer> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let is_socket = fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
        if is_socket {
            if UnixStream::connect(path).is_ok() {
                return Err(io::Error::from(io::ErrorKind::AddrInUse));
            }
            fs::remove_file(path)?;
        }
        let listener = UnixListener::bind(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        std::thread::Builder::new().name("status".into()).spawn(move || {
            for stream in listener.incoming() {
                // An error means that the client has disconnected or is too slow.
                let _ = stream.and_then(|stream| answer(stream, &board));
            }
        })?;
        Ok(StatusServer { path: path.to_path_buf() })
    }
}

impl Drop for StatusServer {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

fn answer(mut stream: UnixStream, board: &StatusBoard) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_MAX))?;
    let status = board.lock().map_err(|_| io::Error::other("the vCPU thread panicked"))?.clone();
    let mut line = serde_json::to_vec(&status)?;
    line.push(b'\n');
    stream.write_all(&line)
}
