//! The services, and what they have in common: pools of TCP connections.
//!
//! A socket of the stack is one connection, so a service that takes several at once has several sockets
//! on its port. A pool keeps them listening, runs the service on the connected ones, and gets rid of
//! peers that never finish.
//!
//! ```text
//!   listening -> connected (Service::serve) -> closing (input is dropped) -> closed -> listening
//!                    \ silent too long, or closing too long: reset ------------^
//! ```
//!
//! A socket does not stay in TIME-WAIT: a handful of sockets would soon all be there, and refusing a client
//! is worse than what is risked. The last acknowledgment leaves before the socket listens again (it is not
//! delayed while closing); if it is lost, the peer's repeated FIN meets a reset after all data was through.

mod counter;
mod disk;
mod disk_io;
mod echo;
mod http;
mod page;
mod request;

use smoltcp::iface::{SocketHandle, SocketSet, SocketStorage};
use smoltcp::socket::tcp::{self, Socket, State};
use smoltcp::time::{Duration, Instant};

use crate::disk::Disk;
use crate::entropy::Entropy;
use crate::mem::once;

const ECHO_CONNECTIONS: usize = 6;
const COUNTER_CONNECTIONS: usize = 20;
const HTTP_CONNECTIONS: usize = 12;
const DISK_CONNECTIONS: usize = 2;
/// One more for the UDP echo.
const SOCKETS: usize =
    1 + ECHO_CONNECTIONS + COUNTER_CONNECTIONS + HTTP_CONNECTIONS + DISK_CONNECTIONS;

const ECHO_BUFFER: usize = 32 * 1024;
const COUNTER_BUFFER: usize = 2 * 1024;
const DISK_BUFFER: usize = 1024;
const HTTP_RX_BUFFER: usize = http::HEAD_BYTES_MAX;
const HTTP_TX_BUFFER: usize = 2 * http::RESPONSE_BYTES_MAX;

/// An idle peer is asked for a sign of life this often, and dropped after this much silence. Longer than
/// any failover: the peer of a protected machine must not be lost because its host was.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Acknowledgments wait this long for data to travel with.
const ACK_DELAY: Duration = Duration::from_millis(10);
/// How long a peer may take to finish a connection that we have closed.
const CLOSING_MAX: Duration = Duration::from_secs(10);

/// What one connection of a TCP service does.
trait Service {
    const PORT: u16;
    /// State of a connection; a new one gets the default.
    type Connection: Default;

    /// Moves a connection on as far as its buffers allow, up to closing it. Returns whether it did
    /// anything, that is, whether the stack has work now.
    fn serve(
        &mut self,
        socket: &mut Socket<'_>,
        connection: &mut Self::Connection,
        now: Instant,
    ) -> bool;
}

/// What a round over the services found.
#[derive(Clone, Copy, Default)]
pub(crate) struct Activity {
    /// Something was done: poll the stack, then look again.
    pub(crate) progressed: bool,
    /// There are connections, and with them timeouts to look after.
    pub(crate) connected: bool,
}

impl Activity {
    fn add(&mut self, other: Self) {
        self.progressed |= other.progressed;
        self.connected |= other.connected;
    }
}

/// All services, with all sockets.
pub(crate) struct Services {
    pub(crate) sockets: SocketSet<'static>,
    udp_echo: echo::UdpEcho,
    echo: Pool<echo::TcpEcho, ECHO_CONNECTIONS>,
    counter: Pool<counter::Counter, COUNTER_CONNECTIONS>,
    http: Pool<http::Http, HTTP_CONNECTIONS>,
    disk: Pool<disk::DiskService, DISK_CONNECTIONS>,
}

impl Services {
    pub(crate) fn new(entropy: Entropy, disk: Option<Disk>) -> Self {
        let storage = once!([SocketStorage<'static>; SOCKETS], [SocketStorage::EMPTY; SOCKETS]);
        let mut sockets = SocketSet::new(&mut storage[..]);
        Self {
            udp_echo: echo::UdpEcho::new(&mut sockets),
            echo: Pool::new(
                echo::TcpEcho::new(),
                &mut sockets,
                once!([[u8; ECHO_BUFFER]; ECHO_CONNECTIONS], [[0; ECHO_BUFFER]; ECHO_CONNECTIONS]),
                once!([[u8; ECHO_BUFFER]; ECHO_CONNECTIONS], [[0; ECHO_BUFFER]; ECHO_CONNECTIONS]),
            ),
            counter: Pool::new(
                counter::Counter::new(),
                &mut sockets,
                once!(
                    [[u8; COUNTER_BUFFER]; COUNTER_CONNECTIONS],
                    [[0; COUNTER_BUFFER]; COUNTER_CONNECTIONS]
                ),
                once!(
                    [[u8; COUNTER_BUFFER]; COUNTER_CONNECTIONS],
                    [[0; COUNTER_BUFFER]; COUNTER_CONNECTIONS]
                ),
            ),
            http: Pool::new(
                http::Http::new(entropy),
                &mut sockets,
                once!(
                    [[u8; HTTP_RX_BUFFER]; HTTP_CONNECTIONS],
                    [[0; HTTP_RX_BUFFER]; HTTP_CONNECTIONS]
                ),
                once!(
                    [[u8; HTTP_TX_BUFFER]; HTTP_CONNECTIONS],
                    [[0; HTTP_TX_BUFFER]; HTTP_CONNECTIONS]
                ),
            ),
            disk: Pool::new(
                disk::DiskService::new(disk),
                &mut sockets,
                once!([[u8; DISK_BUFFER]; DISK_CONNECTIONS], [[0; DISK_BUFFER]; DISK_CONNECTIONS]),
                once!([[u8; DISK_BUFFER]; DISK_CONNECTIONS], [[0; DISK_BUFFER]; DISK_CONNECTIONS]),
            ),
            sockets,
        }
    }

    /// One round over all services. Returns when nothing more can be done before the stack is polled.
    pub(crate) fn poll(&mut self, now: Instant) -> Activity {
        let mut activity = self.udp_echo.poll(&mut self.sockets);
        activity.add(self.echo.poll(&mut self.sockets, now));
        activity.add(self.counter.poll(&mut self.sockets, now));
        self.http.service.count = self.counter.service.count;
        activity.add(self.http.poll(&mut self.sockets, now));
        activity.add(self.disk.poll(&mut self.sockets, now));
        activity
    }

    /// Whether an HTTP client waits for a burn.
    pub(crate) fn has_burn(&self) -> bool {
        self.http.slots.iter().any(|slot| slot.connection.has_burn())
    }

    /// Does one of the burns that are due.
    pub(crate) fn burn(&mut self) {
        if let Some(slot) = self.http.slots.iter_mut().find(|slot| slot.connection.has_burn()) {
            slot.connection.burn();
        }
    }
}

/// The connections of one service.
struct Pool<S: Service, const N: usize> {
    service: S,
    slots: [Slot<S::Connection>; N],
}

struct Slot<C> {
    handle: SocketHandle,
    connection: C,
    /// When the connection was first seen closing.
    closing_since: Option<Instant>,
}

impl<S: Service, const N: usize> Pool<S, N> {
    fn new<const RX: usize, const TX: usize>(
        service: S,
        sockets: &mut SocketSet<'static>,
        receive: &'static mut [[u8; RX]; N],
        transmit: &'static mut [[u8; TX]; N],
    ) -> Self {
        let mut buffers = receive.iter_mut().zip(transmit);
        let slots = core::array::from_fn(|_| {
            let (rx, tx) = buffers.next().expect("N of each");
            let mut socket = Socket::new(
                tcp::SocketBuffer::new(&mut rx[..]),
                tcp::SocketBuffer::new(&mut tx[..]),
            );
            // Answers are complete when they are written; there is nothing to wait for.
            socket.set_nagle_enabled(false);
            socket.set_keep_alive(Some(KEEP_ALIVE));
            socket.set_timeout(Some(SILENCE_MAX));
            Slot {
                handle: sockets.add(socket),
                connection: S::Connection::default(),
                closing_since: None,
            }
        });
        Self { service, slots }
    }

    fn poll(&mut self, sockets: &mut SocketSet<'_>, now: Instant) -> Activity {
        let mut activity = Activity::default();
        for slot in &mut self.slots {
            let socket = sockets.get_mut::<Socket<'_>>(slot.handle);
            match socket.state() {
                State::Closed | State::TimeWait => slot.listen(socket, S::PORT),
                State::Listen => {}
                State::SynReceived | State::SynSent => activity.connected = true,
                State::Established | State::CloseWait => {
                    activity.connected = true;
                    activity.progressed |= self.service.serve(socket, &mut slot.connection, now);
                }
                State::FinWait1 | State::FinWait2 | State::Closing | State::LastAck => {
                    activity.connected = true;
                    activity.progressed |= slot.finish(socket, now);
                }
            }
        }
        activity
    }
}

impl<C: Default> Slot<C> {
    fn listen(&mut self, socket: &mut Socket<'_>, port: u16) {
        self.connection = C::default();
        self.closing_since = None;
        socket.set_ack_delay(Some(ACK_DELAY));
        socket.listen(port).expect("a closed socket can listen on a nonzero port");
    }

    /// Sees a closed connection off: input is dropped, so that the peer's FIN can arrive behind it, and
    /// patience ends.
    fn finish(&mut self, socket: &mut Socket<'_>, now: Instant) -> bool {
        let since = *self.closing_since.get_or_insert(now);
        socket.set_ack_delay(None);
        if now - since > CLOSING_MAX {
            socket.abort();
            return true;
        }
        let mut dropped = false;
        while matches!(socket.recv(|bytes| (bytes.len(), bytes.len())), Ok(1..)) {
            dropped = true;
        }
        dropped
    }
}

/// Bytes that can be queued for sending.
fn send_room(socket: &Socket<'_>) -> usize {
    socket.send_capacity() - socket.send_queue()
}
