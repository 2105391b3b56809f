//! The service LAN: a switch that learns, and a port for each host and each client.

use std::rc::Rc;

use netpath::MacAddr;

use super::client::FIRST_PORT;
use super::count::Count;
use super::packet::{self, VM_MAC};
use super::pair::{Event, Pair};
use super::process::ProcessId;
use crate::sim::Checked;
use crate::sim::link::Link;

/// Direction of a port's link: to the switch.
const UP: usize = 0;
/// From the switch.
const DOWN: usize = 1;

/// A frame that a host's port of the LAN was given.
#[derive(Clone, Debug)]
pub(crate) struct Given {
    /// Who gave it.
    pub(crate) speaker: ProcessId,
    /// The host's own announcement, not a frame of the VM.
    pub(crate) announcement: bool,
    /// The frame.
    pub(crate) frame: Rc<[u8]>,
}

/// The switch and its links.
#[derive(Debug)]
pub(crate) struct Lan {
    /// By port: to the switch, and from it.
    pub(crate) links: Vec<[Link; 2]>,
    /// Which station is at which port.
    table: Vec<(MacAddr, usize)>,
}

impl Lan {
    /// A switch that knows nobody.
    pub(crate) fn new(links: Vec<[Link; 2]>) -> Self {
        Self { links, table: Vec::new() }
    }

    /// It forgets all that it learned.
    pub(crate) fn forget(&mut self) {
        self.table.clear();
    }

    /// Cuts a port, or mends it.
    pub(crate) fn set_cut(&mut self, port: usize, cut: bool) {
        self.links[port].iter_mut().for_each(|link| link.set_cut(cut));
    }

    /// Everything is whole.
    pub(crate) fn heal(&mut self) {
        self.links.iter_mut().flatten().for_each(Link::heal);
    }

    /// The ports that a frame from `port` goes to; learns where its sender is.
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
    /// What a host's port was given leaves the host.
    pub(crate) fn leave_host(&mut self, host: usize, given: Given) -> Checked {
        let Given { speaker, announcement, frame } = given;
        let now = self.queue.now();
        self.check_speaker(host, speaker)?;
        if announcement {
            self.counts.count(Count::Announcements);
            self.trace.line(now, Some(host), "announce", format_args!("{} bytes", frame.len()));
        } else {
            self.counts.count(Count::Said);
            let number = packet::number(&frame);
            self.trace.line(now, Some(host), "say", format_args!("{number:?}"));
            self.check_said(host, speaker, &frame)?;
        }
        self.send_to_switch(host, &frame);
        Ok(())
    }

    /// A frame leaves a station for the switch.
    pub(crate) fn send_to_switch(&mut self, port: usize, frame: &Rc<[u8]>) {
        self.send_over(port, UP, frame);
    }

    fn send_over(&mut self, port: usize, direction: usize, frame: &Rc<[u8]>) {
        self.counts.count(Count::LanFrames);
        let now = self.queue.now();
        let mut deliveries = std::mem::take(&mut self.deliveries);
        self.lan.links[port][direction].offer(now, frame.len(), &mut deliveries);
        for delivery in deliveries.drain(..) {
            // A frame whose check sequence is wrong goes no further (IEEE 802.3 clause 4.2.4.1).
            if delivery.damage.is_none() {
                let frame = Rc::clone(frame);
                let event = match direction {
                    UP => Event::AtSwitch { port, frame },
                    _ => Event::AtPort { port, frame },
                };
                self.queue.push(delivery.at, event);
            }
        }
        self.deliveries = deliveries;
    }

    /// A frame is at the switch.
    pub(crate) fn forward(&mut self, port: usize, frame: &Rc<[u8]>) {
        for to in self.lan.ports(port, frame) {
            self.send_over(to, DOWN, frame);
        }
    }

    /// A frame arrives at a station.
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
            process.world.frames.push_back((own.clock.shows(now), frame));
            self.wake_soon(port);
        }
        Ok(())
    }
}
