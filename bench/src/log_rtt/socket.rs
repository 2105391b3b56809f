//! UDP, TCP and packet sockets, with one system call per message.

use super::variant::{Client, PAYLOAD_BYTES, Server, check, request};
use crate::PATIENCE;
use crate::error::BenchError;
use crate::lan::{Host, INTERFACE};
use logchan::time::Time;
use netpath::{FRAME_MIN, WaitPolicy, plain_socket, wait};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};
use socket2::{Domain, SockAddr, Socket, Type};
use std::net::SocketAddrV4;
use std::os::fd::AsRawFd;
use std::time::Instant;

/// UDP and TCP port at both ends.
const PORT: u16 = 7001;
/// Local Experimental EtherType 2 (IEEE 802, clause 9.2.4). The channel uses the first one.
const ETHERTYPE: u16 = 0x88b6;
/// Size of the longest message.
const BUFFER_BYTES: usize = FRAME_MIN + PAYLOAD_BYTES;

/// The kind of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SocketKind {
    Udp,
    Tcp,
    Packet,
}

/// One side of a connection: a socket that sends to the other side and receives from it.
pub(super) struct SocketPeer {
    kind: SocketKind,
    socket: Socket,
    wait: WaitPolicy,
    /// Header before each payload; empty except for packet sockets.
    header: Vec<u8>,
}

impl SocketPeer {
    /// Opens the side that answers. TCP accepts its client in `serve`.
    pub(super) fn server(kind: SocketKind, wait: WaitPolicy) -> Result<SocketPeer, BenchError> {
        SocketPeer::open(kind, wait, Host::Server)
    }

    /// Opens the side that sends requests.
    pub(super) fn client(kind: SocketKind, wait: WaitPolicy) -> Result<SocketPeer, BenchError> {
        SocketPeer::open(kind, wait, Host::Client)
    }

    fn open(kind: SocketKind, wait: WaitPolicy, host: Host) -> Result<SocketPeer, BenchError> {
        let failed = || BenchError::os(format!("opening a {kind:?} socket"));
        let mut header = Vec::new();
        let socket = match kind {
            SocketKind::Udp => open_udp(host).map_err(failed())?,
            SocketKind::Tcp => open_tcp(host).map_err(failed())?,
            SocketKind::Packet => {
                header.extend(host.other().mac().octets());
                header.extend(host.mac().octets());
                header.extend(ETHERTYPE.to_be_bytes());
                Socket::from(plain_socket(INTERFACE, ETHERTYPE)?)
            }
        };
        socket.set_nonblocking(false).map_err(failed())?;
        socket.set_read_timeout(Some(PATIENCE)).map_err(failed())?;
        Ok(SocketPeer { kind, socket, wait, header })
    }

    fn send(&self, payload: &[u8]) -> Result<(), BenchError> {
        let mut buffer = [0; BUFFER_BYTES];
        let message = &mut buffer[..self.header.len() + payload.len()];
        message[..self.header.len()].copy_from_slice(&self.header);
        message[self.header.len()..].copy_from_slice(payload);
        let sent = send(self.socket.as_raw_fd(), message, MsgFlags::empty());
        let sent = sent.map_err(BenchError::os(format!("sending by {:?}", self.kind)))?;
        if sent < message.len() {
            return Err(BenchError::Wrong(format!("{sent} of {} bytes sent", message.len())));
        }
        Ok(())
    }

    /// Receives the next message, which must be `number`.
    fn receive(&self, number: u64) -> Result<(), BenchError> {
        let mut buffer = [0; BUFFER_BYTES];
        let whole = self.header.len() + PAYLOAD_BYTES;
        let mut have = 0;
        // TCP may deliver a message in pieces.
        while have < whole {
            have += match self.receive_some(&mut buffer[have..whole]) {
                Ok(0) => {
                    return Err(BenchError::Wrong(String::from(
                        "the other side closed the connection",
                    )));
                }
                Ok(length) => length,
                Err(Errno::EAGAIN) => return Err(BenchError::no_answer("the other side")),
                Err(errno) => return Err(BenchError::os("receiving")(errno)),
            };
        }
        check(&buffer[self.header.len()..whole], number)
    }

    fn receive_some(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        let socket = self.socket.as_raw_fd();
        if !self.wait.spin.is_zero() {
            let mut seen = Err(Errno::EAGAIN);
            let mut look = || {
                seen = recv(socket, buffer, MsgFlags::MSG_DONTWAIT);
                seen != Err(Errno::EAGAIN)
            };
            if look() || wait::spin(&self.wait, &mut Instant::now(), None, look) {
                return seen;
            }
        }
        recv(socket, buffer, MsgFlags::empty())
    }
}

fn open_udp(host: Host) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, None)?;
    socket.bind(&address(host))?;
    socket.connect(&address(host.other()))?;
    Ok(socket)
}

fn open_tcp(host: Host) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    // Connections of earlier rounds are still in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    match host {
        Host::Client => socket.connect(&address(host.other()))?,
        Host::Server => {
            socket.bind(&address(host))?;
            socket.listen(1)?;
        }
    }
    Ok(socket)
}

fn address(host: Host) -> SockAddr {
    SocketAddrV4::new(host.ip(), PORT).into()
}

impl Client for SocketPeer {
    fn exchange(&mut self, _now: Time, number: u64) -> Result<(), BenchError> {
        self.send(&request(number))?;
        self.receive(number)
    }
}

impl Server for SocketPeer {
    fn serve(&mut self, count: u64) -> Result<(), BenchError> {
        if self.kind == SocketKind::Tcp {
            let (connection, _client) =
                self.socket.accept().map_err(BenchError::os("waiting for the client"))?;
            connection
                .set_tcp_nodelay(true)
                .and_then(|()| connection.set_read_timeout(Some(PATIENCE)))
                .map_err(BenchError::os("preparing a connection"))?;
            self.socket = connection;
        }
        for number in 0..count {
            self.receive(number)?;
            self.send(&request(number))?;
        }
        Ok(())
    }
}
