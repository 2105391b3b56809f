//! Echo on port 7, over UDP and TCP (RFC 862).

use smoltcp::iface::{SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::socket::udp::{self, PacketMetadata};
use smoltcp::time::Instant;

use super::{Activity, Service, send_room};
use crate::mem::once;

const PORT: u16 = 7;
/// Twice what the receive ring can deliver in one go.
const DATAGRAMS: usize = 64;
const DATAGRAM_BYTES: usize = 32 * 1024;
/// Larger than any datagram that arrives in one frame.
const CHUNK: usize = 4096;

/// Sends each datagram back to where it came from. What does not fit the send buffer waits in the
/// receive buffer; what does not fit there is lost, as UDP has it.
pub(super) struct UdpEcho {
    handle: SocketHandle,
    chunk: [u8; CHUNK],
}

impl UdpEcho {
    pub(super) fn new(sockets: &mut SocketSet<'static>) -> Self {
        let receive = udp::PacketBuffer::new(
            &mut once!([PacketMetadata; DATAGRAMS], [PacketMetadata::EMPTY; DATAGRAMS])[..],
            &mut once!([u8; DATAGRAM_BYTES], [0; DATAGRAM_BYTES])[..],
        );
        let transmit = udp::PacketBuffer::new(
            &mut once!([PacketMetadata; DATAGRAMS], [PacketMetadata::EMPTY; DATAGRAMS])[..],
            &mut once!([u8; DATAGRAM_BYTES], [0; DATAGRAM_BYTES])[..],
        );
        let mut socket = udp::Socket::new(receive, transmit);
        socket.bind(PORT).expect("a new socket can be bound to a nonzero port");
        Self { handle: sockets.add(socket), chunk: [0; CHUNK] }
    }

    pub(super) fn poll(&mut self, sockets: &mut SocketSet<'_>) -> Activity {
        let socket = sockets.get_mut::<udp::Socket<'_>>(self.handle);
        let mut activity = Activity::default();
        while socket.can_send() {
            let Ok((len, from)) = socket.recv_slice(&mut self.chunk) else { break };
            activity.progressed = true;
            if socket.send_slice(&self.chunk[..len], from.endpoint).is_err() {
                // No room for one this large: lost.
                break;
            }
        }
        activity
    }
}

/// Sends each byte back. A client that closes its half still gets everything it has sent.
pub(super) struct TcpEcho {
    chunk: [u8; CHUNK],
}

impl TcpEcho {
    pub(super) fn new() -> Self {
        Self { chunk: [0; CHUNK] }
    }
}

impl Service for TcpEcho {
    const PORT: u16 = PORT;
    type Connection = ();

    fn serve(&mut self, socket: &mut Socket<'_>, (): &mut (), _: Instant) -> bool {
        let mut progressed = false;
        loop {
            let room = send_room(socket).min(CHUNK);
            match socket.recv_slice(&mut self.chunk[..room]) {
                Ok(len @ 1..) => {
                    socket.send_slice(&self.chunk[..len]).expect("room was checked");
                    progressed = true;
                }
                Ok(0) | Err(_) => break,
            }
        }
        if socket.state() == State::CloseWait && !socket.can_recv() {
            socket.close();
            progressed = true;
        }
        progressed
    }
}
