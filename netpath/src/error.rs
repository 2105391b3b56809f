//! [`PortError`]: what can be wrong in the environment of a port, each with a one-line message.

use std::io;

/// Why a port could not be opened or used. Every message is one line and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PortError {
    /// The tun driver is missing.
    #[error("/dev/net/tun is missing: modprobe tun")]
    TunMissing,
    /// This user may not open the tun driver.
    #[error("no permission to open /dev/net/tun: run as root or with CAP_NET_ADMIN")]
    TunPermission,
    /// The name is not a valid interface name.
    #[error("'{name}' is not an interface name: {why}")]
    BadName {
        /// The name given.
        name: String,
        /// The rule it breaks.
        why: &'static str,
    },
    /// No interface has this name, and the configuration does not ask to create one.
    #[error("tap {name} does not exist: create it with 'ip tuntap add dev {name} mode tap'")]
    TapMissing {
        /// The name given.
        name: String,
    },
    /// Another process is attached to the tap, and stayed attached for the whole retry time.
    #[error("tap {name} is in use by another process")]
    TapBusy {
        /// The name given.
        name: String,
    },
    /// The tap exists, but belongs to another user.
    #[error(
        "no permission to use tap {name}: run as root or with CAP_NET_ADMIN, or make it yours with 'ip tuntap add dev {name} mode tap user USER'"
    )]
    TapPermission {
        /// The name given.
        name: String,
    },
    /// The interface exists, but is not a tap.
    #[error(
        "{name} is not a tap but a {kind} interface: choose another name, or create one with 'ip tuntap add dev NAME mode tap'"
    )]
    NotATap {
        /// The name given.
        name: String,
        /// The kind of interface: the driver's name from `ETHTOOL_GDRVINFO`, or "kernel-internal".
        kind: String,
    },
    /// The tap was created with `multi_queue`; a single-queue reader cannot attach to it.
    #[error(
        "tap {name} was created with multi_queue: delete it and create it with 'ip tuntap add dev {name} mode tap'"
    )]
    TapMultiQueue {
        /// The name given.
        name: String,
    },
    /// The process that opens ports for this one has refused, or is gone.
    #[error("{reason}")]
    NotOpened {
        /// Its reason, in one line.
        reason: String,
    },
    /// The file descriptor of a ring will never deliver a frame again.
    #[error("{name} can no longer be read: it was deleted or shut down")]
    DescriptorDead {
        /// The name given at opening.
        name: String,
    },
    /// The kernel refuses to read frames from the descriptor under a ring.
    #[error("frames of {name} can't be read: {source}")]
    Unreadable {
        /// The name given at opening.
        name: String,
        /// What the kernel answered.
        source: io::Error,
    },
    /// No interface has this name.
    #[error("interface {name} does not exist: 'ip link' lists those that do")]
    InterfaceMissing {
        /// The name given.
        name: String,
    },
    /// The interface does not carry Ethernet frames.
    #[error("{name} is not an Ethernet interface: choose one that 'ip link' shows as link/ether")]
    NotEthernet {
        /// The name given.
        name: String,
    },
    /// The MTU is too small for the frames of the logging channel.
    #[error(
        "the MTU of {name} is {mtu_bytes}, at least {min_bytes} are needed: 'ip link set {name} mtu 1500'"
    )]
    MtuTooSmall {
        /// The interface.
        name: String,
        /// Its MTU, in bytes.
        mtu_bytes: u32,
        /// The smallest MTU that is accepted, in bytes.
        min_bytes: u32,
    },
    /// This user may not open packet sockets.
    #[error("no permission to open a packet socket: run as root or with CAP_NET_RAW")]
    PacketPermission,
    /// The interface of a packet port was deleted, or left the network namespace, while it was in use.
    #[error("interface {name} was deleted while in use: create it again and reopen the port")]
    InterfaceGone {
        /// The name given at opening.
        name: String,
    },
    /// The tap was deleted while it was in use.
    #[error("tap {name} was deleted while in use: create it again and restart")]
    TapGone {
        /// The name given at opening.
        name: String,
    },
    /// io_uring cannot be used at all.
    #[error("io_uring is not available: {why}")]
    RingUnavailable {
        /// The reason, with the remedy.
        why: &'static str,
    },
    /// The kernel's io_uring is too old.
    #[error("io_uring lacks {feature}, needed for {purpose}: use Linux {since} or newer")]
    RingFeature {
        /// The missing feature, in the kernel's spelling.
        feature: &'static str,
        /// What it is used for.
        purpose: &'static str,
        /// The first kernel version that has it.
        since: &'static str,
    },
    /// A started port was used from a second thread.
    #[error("the port of {name} belongs to the thread that used it first: move it before that")]
    WrongThread {
        /// The interface.
        name: String,
    },
    /// A system call failed in a way that none of the above explains.
    #[error("{doing}: {source}")]
    System {
        /// The operation that failed.
        doing: &'static str,
        /// The kernel's error.
        source: io::Error,
    },
}

impl PortError {
    pub(crate) fn system(doing: &'static str) -> impl FnOnce(io::Error) -> PortError {
        move |source| PortError::System { doing, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_line_and_name_the_remedy() {
        let name = || "tap0".to_string();
        let cases = [
            (PortError::TunMissing, "modprobe tun"),
            (PortError::TunPermission, "CAP_NET_ADMIN"),
            (PortError::TapMissing { name: name() }, "ip tuntap add dev tap0 mode tap"),
            (PortError::TapBusy { name: name() }, "tap tap0 is in use by another process"),
            (PortError::TapPermission { name: name() }, "user USER"),
            (PortError::NotATap { name: name(), kind: "veth".into() }, "not a tap but a veth"),
            (PortError::TapMultiQueue { name: name() }, "multi_queue"),
            (PortError::TapGone { name: name() }, "deleted while in use"),
            (PortError::DescriptorDead { name: name() }, "can no longer be read"),
            (
                PortError::Unreadable {
                    name: name(),
                    source: io::Error::from_raw_os_error(libc::EINVAL),
                },
                "frames of tap0 can't be read: Invalid argument",
            ),
            (PortError::InterfaceMissing { name: name() }, "'ip link' lists"),
            (PortError::NotEthernet { name: name() }, "link/ether"),
            (
                PortError::MtuTooSmall { name: name(), mtu_bytes: 68, min_bytes: 576 },
                "is 68, at least 576 are needed: 'ip link set tap0 mtu 1500'",
            ),
            (PortError::PacketPermission, "CAP_NET_RAW"),
            (PortError::InterfaceGone { name: name() }, "reopen the port"),
            (PortError::RingUnavailable { why: "sysctl kernel.io_uring_disabled=0" }, "sysctl"),
            (
                PortError::RingFeature { feature: "X", purpose: "sending", since: "6.1" },
                "lacks X, needed for sending: use Linux 6.1 or newer",
            ),
            (PortError::WrongThread { name: name() }, "thread that used it first"),
        ];
        for (error, part) in cases {
            let text = error.to_string();
            assert!(text.contains(part), "{text}");
            assert!(!text.contains('\n'), "{text}");
        }
    }
}
