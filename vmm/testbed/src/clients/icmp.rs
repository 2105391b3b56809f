//! ICMP echo requests and replies (RFC 792) for raw sockets.

use pnet::packet::Packet;
use pnet::packet::icmp::echo_reply::EchoReplyPacket;
use pnet::packet::icmp::echo_request::MutableEchoRequestPacket;
use pnet::packet::icmp::{IcmpPacket, IcmpTypes, checksum};
use pnet::packet::ipv4::Ipv4Packet;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;

/// Bytes of an ICMP header.
const HEADER_BYTES: usize = 8;

/// Opens a raw ICMP socket. It also receives replies to the requests of other processes.
///
/// # Errors
///
/// If the socket can't be opened.
pub fn socket() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))
}

/// Echo requests with this identifier, and their replies. The identifier distinguishes them from those of
/// other processes on the host.
#[derive(Clone, Copy, Debug)]
pub struct Echo(pub u16);

/// The identifier of the clients in this crate.
pub const CLIENTS: Echo = Echo(0x5553);

/// A reply to an echo request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Sequence number of the request.
    pub sequence: u16,
    /// Payload of the request.
    pub payload: Vec<u8>,
}

impl Echo {
    /// Returns the ICMP message of a request.
    pub fn request(self, sequence: u16, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; HEADER_BYTES];
        bytes.extend(payload);
        let mut request = MutableEchoRequestPacket::new(&mut bytes).expect("it has a header");
        request.set_icmp_type(IcmpTypes::EchoRequest);
        request.set_identifier(self.0);
        request.set_sequence_number(sequence);
        let sum = checksum(&IcmpPacket::new(request.packet()).expect("it has a header"));
        request.set_checksum(sum);
        bytes
    }

    /// Returns the reply to one of these requests that the IPv4 `packet` holds, if it holds one.
    pub fn reply(self, packet: &[u8]) -> Option<Reply> {
        let ip = Ipv4Packet::new(packet)?;
        let reply = EchoReplyPacket::new(ip.payload())?;
        let is_ours =
            reply.get_icmp_type() == IcmpTypes::EchoReply && reply.get_identifier() == self.0;
        let sequence = reply.get_sequence_number();
        is_ours.then(|| Reply { sequence, payload: reply.payload().to_vec() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Wraps an ICMP message in an IPv4 packet.
    fn packet(message: &[u8]) -> Vec<u8> {
        let length = (20 + message.len()) as u8;
        let header = [0x45, 0, 0, length, 0, 0, 0, 0, 64, 1, 0, 0, 10, 77, 0, 2, 10, 77, 0, 1];
        [&header, message].concat()
    }

    #[test]
    fn reply_to_ours_has_its_number_and_payload_and_anything_else_none() {
        let mut message = CLIENTS.request(7, b"payload");
        assert_eq!(message[6..8], [0, 7]);
        assert_eq!(CLIENTS.reply(&packet(&message)), None, "a request");
        message[0] = 3;
        assert_eq!(CLIENTS.reply(&packet(&message)), None, "unreachable");
        message[0] = 0;
        let reply = Reply { sequence: 7, payload: b"payload".to_vec() };
        assert_eq!(CLIENTS.reply(&packet(&message)), Some(reply));
        message[4] ^= 1;
        assert_eq!(CLIENTS.reply(&packet(&message)), None, "another identifier");
        assert_eq!(CLIENTS.reply(&packet(&message[..4])), None, "cut short");
        assert_eq!(CLIENTS.reply(&[]), None);
    }

    #[test]
    fn request_has_a_valid_checksum() {
        let bytes = CLIENTS.request(0x1234, &[0; 56]);
        // The one's complement sum over everything, the checksum included, is all ones (RFC 1071).
        let words =
            bytes.chunks_exact(2).map(|word| u32::from(u16::from_be_bytes([word[0], word[1]])));
        let sum: u32 = words.sum();
        assert_eq!((sum >> 16) + (sum & 0xffff), 0xffff);
    }
}
