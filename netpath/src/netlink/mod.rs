//! [`InterfaceSocket`]: asks the kernel for its interfaces, through netlink (rtnetlink(7)). [`ChangeSocket`]: learns
//! that an interface has changed.
//!
//! Netlink sees the network namespace in which its socket was opened; `/sys` shows the namespace in which it was
//! mounted. A question waits for changes of interfaces that are under way (the kernel's rtnl lock), so it is not
//! for a thread that runs a vCPU.
//!
//! - `message`: the messages

mod message;

pub(crate) use message::{BridgePort, Interface, Question};

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use self::message::{More, read_answer, request};
use crate::error::PortError;

/// Bytes of one read: more than the kernel puts into a datagram of a dump.
const DATAGRAM_BYTES: usize = 64 << 10;

/// Most ports of a bridge (`BR_MAX_PORTS`).
const PORTS_MAX: usize = 1024;

/// Most changes that are read at once. Those that remain end the next wait.
const CHANGES_MAX: usize = 1024;

/// Longest wait for an answer, seconds.
const ANSWER_S_MAX: i64 = 1;

/// A socket for questions about the interfaces of one network namespace.
pub(crate) struct InterfaceSocket {
    socket: OwnedFd,
    buffer: Box<[u8]>,
}

impl InterfaceSocket {
    /// Opens the socket in the calling thread's network namespace. It may be used on another thread.
    pub(crate) fn open() -> Result<InterfaceSocket, PortError> {
        let open = || -> io::Result<OwnedFd> {
            let socket = netlink_socket(SockFlag::empty())?;
            setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(ANSWER_S_MAX))?;
            Ok(socket)
        };
        let socket = open()
            .map_err(PortError::system("cannot open a socket to ask for interfaces (netlink)"))?;
        Ok(InterfaceSocket { socket, buffer: vec![0; DATAGRAM_BYTES].into_boxed_slice() })
    }

    /// Returns the interface that `question` asks for, if it exists.
    pub(crate) fn ask_for_one(
        &mut self,
        question: &Question<'_>,
    ) -> Result<Option<Interface>, PortError> {
        match self.ask(question) {
            Ok(found) => Ok(found.first().copied()),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(cannot_ask(error)),
        }
    }

    /// Returns the interfaces that `question` asks for.
    pub(crate) fn ask_for_all(
        &mut self,
        question: &Question<'_>,
    ) -> Result<Vec<Interface>, PortError> {
        self.ask(question).map_err(cannot_ask)
    }

    fn ask(&mut self, question: &Question<'_>) -> io::Result<Vec<Interface>> {
        self.discard_late_answers()?;
        send(self.socket.as_raw_fd(), &request(question), MsgFlags::empty())?;
        let mut found = Vec::new();
        loop {
            let length = recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?;
            let more = read_answer(question, &self.buffer[..length], &mut found)?;
            if more == More::No || found.len() > PORTS_MAX {
                return Ok(found);
            }
        }
    }

    /// Discards what is left of the answer to a question that ended with an error.
    fn discard_late_answers(&mut self) -> io::Result<()> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(nix::Error::EAGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// A socket on which the kernel tells that an interface was made, changed or deleted.
pub(crate) struct ChangeSocket(OwnedFd);

impl ChangeSocket {
    /// Opens the socket in the calling thread's network namespace. It may be used on another thread.
    pub(crate) fn open() -> Result<ChangeSocket, PortError> {
        let open = || -> io::Result<OwnedFd> {
            let socket = netlink_socket(SockFlag::SOCK_NONBLOCK)?;
            // The kernel chooses the socket's own address.
            bind(socket.as_raw_fd(), &NetlinkAddr::new(0, libc::RTMGRP_LINK as u32))?;
            Ok(socket)
        };
        let doing = "cannot open a socket for changes of interfaces (netlink)";
        open().map(ChangeSocket).map_err(PortError::system(doing))
    }

    /// Waits until there has been a change since the last call, but not longer than `timeout`. There may be changes
    /// that it does not tell: the kernel drops messages when memory is short.
    pub(crate) fn wait(&mut self, timeout: Duration) {
        let mut files = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        if !poll(&mut files, timeout).is_ok_and(|ready| ready > 0) {
            return;
        }
        // What has changed is asked afterwards, so only the end of the queue matters. ENOBUFS says that messages
        // were dropped, and the queue goes on behind it.
        let mut message = [0; 16];
        for _ in 0..CHANGES_MAX {
            match recv(self.0.as_raw_fd(), &mut message, MsgFlags::empty()) {
                Ok(_) | Err(nix::Error::ENOBUFS) => {}
                Err(_) => return,
            }
        }
    }
}

fn netlink_socket(flags: SockFlag) -> nix::Result<OwnedFd> {
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)
}

fn cannot_ask(source: io::Error) -> PortError {
    PortError::System { doing: "cannot ask for the state of interfaces (netlink)", source }
}
