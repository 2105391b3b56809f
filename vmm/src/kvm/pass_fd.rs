//! Messages with descriptors, through a socket (SCM_RIGHTS in unix(7)).

use nix::cmsg_space;
use nix::sys::socket::{
    self, ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// Most descriptors of a message.
pub const DESCRIPTORS_MAX: usize = 2;

/// Sends `bytes` and `descriptors` as one message. Without descriptors, by send(2): the threads of a VM's process may
/// use nothing else.
///
/// # Errors
///
/// As those of sendmsg(2). The other end is gone: `EPIPE`.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
) -> io::Result<()> {
    if descriptors.is_empty() {
        return Ok(socket::send(socket.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL).map(drop)?);
    }
    let numbers: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&numbers)];
    let parts = [IoSlice::new(bytes)];
    sendmsg::<UnixAddr>(socket.as_raw_fd(), &parts, &rights, MsgFlags::MSG_NOSIGNAL, None)?;
    Ok(())
}

/// Waits for a message, and receives it into `buffer`. Returns its length and its descriptors, at most
/// [`DESCRIPTORS_MAX`]; the kernel closes those that are too many. A length of 0: the other end is gone.
///
/// # Errors
///
/// As those of recvmsg(2), but not EINTR.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let mut space = cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<UnixAddr>(socket.as_raw_fd(), &mut parts, Some(&mut space), flags);
        let message = match message {
            Err(nix::Error::EINTR) => continue,
            message => message?,
        };
        let mut descriptors = Vec::new();
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(numbers) = part {
                // SAFETY: the kernel has made these descriptors just now, and nothing else owns them.
                descriptors
                    .extend(numbers.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        return Ok((message.bytes, descriptors));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::io::Write;
    use std::os::fd::AsFd;

    #[test]
    fn descriptors_arrive_with_their_message_and_the_end_is_an_empty_one() {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap();
        let (mut reader, writer) = io::pipe().unwrap();
        send(ours.as_fd(), b"one", &[writer.as_fd()]).unwrap();
        send(ours.as_fd(), b"none", &[]).unwrap();
        drop(writer);
        let mut buffer = [0; 8];
        let (length, mut descriptors) = receive(theirs.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], descriptors.len()), (&b"one"[..], 1));
        std::fs::File::from(descriptors.remove(0)).write_all(b"x").unwrap();
        assert_eq!(io::read_to_string(&mut reader).unwrap(), "x");
        let (length, descriptors) = receive(theirs.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..length], descriptors.len()), (&b"none"[..], 0));
        drop(ours);
        assert_eq!(receive(theirs.as_fd(), &mut buffer).unwrap().0, 0);
        assert!(send(theirs.as_fd(), b"x", &[]).is_err());
    }
}
