//! ICMP echo requests and replies (RFC 792) for raw sockets.

use pnet::packet::Packet;
use pnet::packet::icmp::echo_reply::EchoReplyPacket;
use pnet::packet::icmp::echo_request::MutableEchoRequestPacket;
use pnet::packet::icmp::{IcmpPacket, IcmpTypes, checksum};
use pnet::packet::ipv4::Ipv4Packet;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;

/// Tells our replies from those that somebody else waits for.
const IDENTIFIER: u16 = 0x5553;

/// Bytes of an ICMP header.
const HEADER_BYTES: usize = 8;

/// A socket for both, which also gets what others are answered.
pub fn socket() -> io::Result<Socket> {
    Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))
}

/// An echo request.
pub fn request(sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; HEADER_BYTES];
    bytes.extend(payload);
    let mut request = MutableEchoRequestPacket::new(&mut bytes).expect("it has a header");
    request.set_icmp_type(IcmpTypes::EchoRequest);
    request.set_identifier(IDENTIFIER);
    request.set_sequence_number(sequence);
    let sum = checksum(&IcmpPacket::new(request.packet()).expect("it has a header"));
    request.set_checksum(sum);
    bytes
}

/// The payload of a reply to a request of ours, out of an IPv4 packet.
pub fn reply(packet: &[u8]) -> Option<Vec<u8>> {
    let ip = Ipv4Packet::new(packet)?;
    let reply = EchoReplyPacket::new(ip.payload())?;
    let is_ours =
        reply.get_icmp_type() == IcmpTypes::EchoReply && reply.get_identifier() == IDENTIFIER;
    is_ours.then(|| reply.payload().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The IPv4 packet around an ICMP message.
    fn packet(message: &[u8]) -> Vec<u8> {
        let length = (20 + message.len()) as u8;
        let header = [0x45, 0, 0, length, 0, 0, 0, 0, 64, 1, 0, 0, 10, 77, 0, 2, 10, 77, 0, 1];
        [&header, message].concat()
    }

    #[test]
    fn reply_to_ours_has_its_payload_and_anything_else_none() {
        let mut message = request(7, b"payload");
        assert_eq!(message[6..8], [0, 7]);
        assert_eq!(reply(&packet(&message)), None, "a request");
        message[0] = 0;
        assert_eq!(reply(&packet(&message)), Some(b"payload".to_vec()));
        message[4] ^= 1;
        assert_eq!(reply(&packet(&message)), None, "somebody else's");
        assert_eq!(reply(&packet(&message[..4])), None);
        assert_eq!(reply(&[]), None);
    }
}
