//! The service LAN: a learning switch with a port for each host and each client.

use std::rc::Rc;

use netpath::MacAddr;

use super::client::FIRST_PORT;
use super::count::Count;
use super::packet::{self, VM_MAC};
use super::pair::{Event, Pair};
use super::process::ProcessId;
use crate::sim::Checked;
use crate::sim::link::Link;

/// Index of a port's link to the switch.
const TO_SWITCH: usize = 0;
/// Index of a port's link from the switch.
const FROM_SWITCH: usize = 1;

/// A frame that a process has given to its host's tap.
#[derive(Clone, Debug)]
pub(crate) struct TapFrame {
    /// The process that gave it.
    pub(crate) speaker: ProcessId,
    /// Whether it is a takeover announcement of the host, not a frame of the VM.
    pub(crate) announcement: bool,
    /// The frame.
    pub(crate) frame: Rc<[u8]>,
}

/// The switch and its links.
#[derive(Debug)]
pub(crate) struct Lan {
    /// The links to and from the switch, by port.
    pub(crate) links: Vec<[Link; 2]>,
    /// The address table: the port of each learned station.
    table: Vec<(MacAddr, usize)>,
}

impl Lan {
    /// Creates a switch with an empty address table.
    pub(crate) fn new(links: Vec<[Link; 2]>) -> Self {
        Self { links, table: Vec::new() }
    }

    /// Clears the address table.
    pub(crate) fn forget(&mut self) {
        self.table.clear();
    }

    /// Cuts a port, or restores it.
    pub(crate) fn set_cut(&mut self, port: usize, cut: bool) {
        self.links[port].iter_mut().for_each(|link| link.set_cut(cut));
    }

    /// Whether the port is cut.
    pub(crate) fn is_cut(&self, port: usize) -> bool {
        self.links[port].iter().any(Link::is_cut)
    }

    /// Ends all faults of the links.
    pub(crate) fn heal(&mut self) {
        self.links.iter_mut().flatten().for_each(Link::heal);
    }

    /// Learns the port of a frame's sender, and returns the ports that the frame is forwarded to.
    fn ports(&mut self, port: usize, frame: &[u8]) -> Vec<usize> {
        let Some((to, from)) = packet::stations(frame) else { return Vec::new() };
        match self.table.iter_mut().find(|(station, _)| *station == from) {
            Some((_, known)) => *known = port,
            None => self.table.push((from, port)),
        }
        match self.table.iter().find(|(station, _)| *station == to) {
            Some(&(_, known)) => Vec::from_iter((known != port).then_some(known)),
            None => (0..self.links.len()).filter(|&other| other != port).collect(),
        }
    }
}

impl Pair<'_> {
    /// A frame leaves a host's tap for the LAN.
    pub(crate) fn leave_host(&mut self, host: usize, tap_frame: TapFrame) -> Checked {
        let TapFrame { speaker, announcement, frame } = tap_frame;
        let now = self.queue.now();
        self.check_speaker(host, speaker)?;
        if announcement {
            self.counts.count(Count::Announcements);
            self.trace.line(now, Some(host), "announce", format_args!("{} bytes", frame.len()));
        } else {
            self.counts.count(Count::VmFrames);
            let number = packet::number(&frame);
            self.trace.line(now, Some(host), "output", format_args!("{number:?}"));
            self.check_vm_frame(host, speaker, &frame)?;
        }
        self.send_to_switch(host, &frame);
        Ok(())
    }

    /// Sends a frame from the station at `port` to the switch.
    pub(crate) fn send_to_switch(&mut self, port: usize, frame: &Rc<[u8]>) {
        self.send_over(port, TO_SWITCH, frame);
    }

    fn send_over(&mut self, port: usize, direction: usize, frame: &Rc<[u8]>) {
        self.counts.count(Count::LanFrames);
        let now = self.queue.now();
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.lan.links[port][direction].offer(now, frame.len(), &mut deliveries);
        for delivery in deliveries.drain(..) {
            // The receiver drops a frame with a wrong check sequence (IEEE 802.3 clause 4.2.4.1).
            if delivery.damage.is_none() {
                let frame = Rc::clone(frame);
                let event = match direction {
                    TO_SWITCH => Event::AtSwitch { port, frame },
                    _ => Event::AtPort { port, frame },
                };
                self.queue.push(delivery.at, event);
            }
        }
        self.deliveries = deliveries;
    }

    /// Forwards a frame that has reached the switch.
    pub(crate) fn forward(&mut self, port: usize, frame: &Rc<[u8]>) {
        for to in self.lan.ports(port, frame) {
            self.send_over(to, FROM_SWITCH, frame);
        }
    }

    /// Delivers a frame to the station at `port`.
    pub(crate) fn arrive(&mut self, port: usize, frame: Rc<[u8]>) -> Checked {
        if port >= FIRST_PORT {
            return self.client_gets(port - FIRST_PORT, &frame);
        }
        let to_vm =
            packet::stations(&frame).is_some_and(|(to, _)| to == VM_MAC || to.is_broadcast());
        let now = self.queue.now();
        let own = &mut self.hosts[port];
        let Some(process) = own.process.as_mut().filter(|process| process.world.is_live()) else {
            return Ok(());
        };
        if to_vm && process.world.frames.len() < self.options.hosts[port].tap_frames_max {
            self.passed.arrived(&frame);
            process.world.frames.push_back((own.clock.shows(now), frame));
            self.wake_soon(port);
        }
        Ok(())
    }
}
