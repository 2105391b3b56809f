//! [`ServiceManager`]: tells the service manager that has started this process, systemd, how it gets on: the protocol of
//! sd_notify(3), one datagram for each message to the socket that `NOTIFY_SOCKET` names.
//!
//! | message | sent |
//! |---|---|
//! | `READY=1` | once, when the loop of this process has turned for the first time |
//! | `WATCHDOG=1` | by the loop, four times in the time of `WatchdogSec=`; so a loop that stands still is noticed |
//! | `STATUS=...` | when the text has changed: role, term and protection |
//! | `STOPPING=1` | at the end |
//!
//! The socket is connected before the sandbox forbids to make one ([`sandbox`](crate::sandbox)). No call waits: a message
//! that the service manager has no room for is sent again later, by the next round of the loop.

use logchan::time::{Duration, Time};
use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Proofs of life in the time after which the service manager takes the process for dead.
const PROOFS: u64 = 4;

/// How long to wait before a message that could not be sent is sent again.
const RETRY: Duration = Duration::from_millis(100);

/// The service manager of this process, or none. One thread owns it.
#[derive(Debug, Default)]
pub struct ServiceManager(Option<Channel>);

#[derive(Debug)]
struct Channel {
    socket: UnixDatagram,
    /// Time between two proofs of life; `None`: nobody waits for them.
    interval: Option<Duration>,
    is_ready: bool,
    /// When the next message of the loop is due.
    due: Option<Time>,
    /// The status that was sent last.
    shown: String,
}

impl ServiceManager {
    /// Connects to the service manager that the environment names, if there is one.
    ///
    /// # Errors
    ///
    /// It can't be connected.
    pub fn of_environment() -> io::Result<ServiceManager> {
        let Some(address) = env::var_os("NOTIFY_SOCKET") else { return Ok(ServiceManager(None)) };
        let number = |name| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
        let is_watched =
            number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let longest = number("WATCHDOG_USEC").filter(|&us| is_watched && us > 0);
        ServiceManager::connect(&address, longest.map(Duration::from_micros))
    }

    /// Connects to the socket `address`, an absolute path, or a name behind `@`. `longest` is the time after which a
    /// process that gives no proof of life is taken for dead.
    fn connect(address: &OsStr, longest: Option<Duration>) -> io::Result<ServiceManager> {
        let address = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            _ => SocketAddr::from_pathname(address)?,
        };
        let socket = UnixDatagram::unbound()?;
        socket.connect_addr(&address)?;
        socket.set_nonblocking(true)?;
        let interval = longest.map(|longest| Duration::from_nanos(longest.as_nanos() / PROOFS));
        let shown = String::new();
        Ok(ServiceManager(Some(Channel { socket, interval, is_ready: false, due: None, shown })))
    }

    /// Proves that the loop of this process turns: it is in this round `now`.
    pub fn prove_alive(&mut self, now: Time) {
        let Some(channel) = &mut self.0 else { return };
        let is_due = match (channel.is_ready, channel.due) {
            (_, Some(due)) => now >= due,
            (is_ready, None) => !is_ready,
        };
        if !is_due {
            return;
        }
        let message = match (channel.is_ready, channel.interval) {
            (false, _) => "READY=1",
            (true, Some(_)) => "WATCHDOG=1",
            (true, None) => {
                channel.due = None;
                return;
            }
        };
        let is_sent = channel.send(message);
        channel.is_ready |= is_sent;
        channel.due = match (is_sent, channel.interval) {
            (true, interval) => interval.map(|interval| now + interval),
            (false, _) => Some(now + RETRY),
        };
    }

    /// Shows `status`, one line, to whoever asks the service manager (`systemctl status`).
    pub fn show(&mut self, status: &str) {
        let Some(channel) = &mut self.0 else { return };
        if channel.shown != status && channel.send(&format!("STATUS={status}")) {
            status.clone_into(&mut channel.shown);
        }
    }

    /// Says that this process ends.
    pub fn stopping(&mut self) {
        let Some(channel) = &mut self.0 else { return };
        // Without it, the service manager learns of the end when it comes.
        let _ = channel.send("STOPPING=1");
    }
}

impl Channel {
    /// Sends `message` unless that would wait. Returns whether it is sent.
    fn send(&self, message: &str) -> bool {
        self.socket.send(message.as_bytes()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_millis(1000);

    /// A service manager in `folder`, and its socket.
    fn manager(longest: Option<Duration>) -> (tempfile::TempDir, UnixDatagram, ServiceManager) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let manager = ServiceManager::connect(path.as_os_str(), longest).unwrap();
        (folder, socket, manager)
    }

    fn received(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 512];
        let next = || socket.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec());
        std::iter::from_fn(next).map(|bytes| String::from_utf8(bytes).unwrap()).collect()
    }

    #[test]
    fn round_of_the_loop_is_ready_once_and_then_proves_life_in_time() {
        let (_folder, socket, mut manager) = manager(Some(SECOND * 8));
        let mut now = Time::from_nanos(5);
        manager.prove_alive(now);
        manager.prove_alive(now);
        assert_eq!(received(&socket), ["READY=1"]);
        now = now + SECOND;
        manager.prove_alive(now);
        assert!(received(&socket).is_empty(), "a quarter of the time has not passed");
        for _ in 0..3 {
            now = now + SECOND * 2;
            manager.prove_alive(now);
            manager.prove_alive(now);
            assert_eq!(received(&socket), ["WATCHDOG=1"]);
        }
    }

    #[test]
    fn loop_without_a_watchdog_says_once_that_it_is_ready() {
        let (_folder, socket, mut manager) = manager(None);
        for second in 0..100 {
            manager.prove_alive(Time::from_nanos(0) + SECOND * second);
        }
        assert_eq!(received(&socket), ["READY=1"]);
    }

    #[test]
    fn message_without_room_is_sent_again_and_nobody_waits() {
        let (_folder, socket, mut manager) = manager(Some(SECOND * 8));
        let sender = &manager.0.as_ref().unwrap().socket;
        let filled = std::iter::repeat_with(|| sender.send(b"X=1")).take_while(Result::is_ok);
        assert!(filled.count() > 0);
        let now = Time::from_nanos(0);
        manager.prove_alive(now);
        manager.show("primary");
        assert!(received(&socket).iter().all(|message| message == "X=1"));
        manager.prove_alive(now);
        assert!(received(&socket).is_empty(), "it is sent again after a pause");
        manager.prove_alive(now + RETRY);
        manager.show("primary");
        assert_eq!(received(&socket), ["READY=1", "STATUS=primary"]);
    }

    #[test]
    fn status_is_shown_when_it_changes() {
        let (_folder, socket, mut manager) = manager(None);
        for status in ["backup", "backup", "primary"] {
            manager.show(status);
        }
        manager.stopping();
        assert_eq!(received(&socket), ["STATUS=backup", "STATUS=primary", "STOPPING=1"]);
    }

    #[test]
    fn abstract_socket_is_connected_and_no_service_manager_hears_nothing() {
        let name = format!("understudy-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let socket = UnixDatagram::bind_addr(&address).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut manager = ServiceManager::connect(OsStr::new(&format!("@{name}")), None).unwrap();
        manager.prove_alive(Time::from_nanos(0));
        assert_eq!(received(&socket), ["READY=1"]);
        let mut nobody = ServiceManager::default();
        nobody.prove_alive(Time::from_nanos(0));
        nobody.show("backup");
        nobody.stopping();
        assert!(ServiceManager::connect(OsStr::new("/nowhere/notify"), None).is_err());
    }
}
