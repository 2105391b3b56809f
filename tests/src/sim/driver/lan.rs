//! The LAN: a hub with the taps of both hosts and the clients. It delays and loses frames. The simulator of the
//! pair has a switch with an address table.

use std::rc::Rc;

use super::count::Count;
use super::state::{Event, State};
use crate::sim::Checked;
use crate::sim::system::packet;

impl State {
    /// A frame of the tap of `host` is on the LAN.
    pub(super) fn leave_host(&mut self, host: usize, frame: &Rc<[u8]>) -> Checked {
        self.check_speaker(host)?;
        let Some(number) = packet::number(frame) else {
            self.counts.count(Count::Announcements);
            self.note(Some(host), "announce", format_args!("{} bytes", frame.len()));
            return Ok(());
        };
        self.counts.count(Count::VmFrames);
        self.note(Some(host), "output", format_args!("{number}"));
        self.check_vm_frame(host, number, frame)?;
        for client in 0..self.clients.len() {
            let (mac, _) = packet::client_addresses(client as u8);
            if packet::stations(frame).is_some_and(|(to, _)| to == mac)
                && let Some(at) = self.lan_delay()
            {
                self.queue.push(at, Event::Client { client, frame: Rc::clone(frame) });
            }
        }
        Ok(())
    }

    /// Draws when a frame arrives that is on the LAN now; `None` if it is lost.
    fn lan_delay(&mut self) -> Option<u64> {
        let is_lost = self.rng.chance(self.options.lan_loss) && self.is_faulty();
        let takes_ns = self.rng.within(1..=self.options.lan_ns_max);
        (!is_lost).then(|| self.queue.now() + takes_ns)
    }

    /// Sets the timer of a client. Replaces an earlier setting.
    pub(super) fn set_client_timer(&mut self, client: usize, at: u64) {
        let ticket = self.clients.set_timer(client);
        self.queue.push(at, Event::Ask { client, ticket });
    }

    /// A client sends its next request, or its current one again.
    pub(super) fn client_asks(&mut self, client: usize, ticket: u64) {
        if !self.clients.is_due(client, ticket) {
            return;
        }
        let (frame, next_at) = self.clients.ask(client, self.queue.now(), true);
        self.set_client_timer(client, next_at);
        let Some(frame) = frame else { return };
        let frame: Rc<[u8]> = frame.into();
        self.counts.count(Count::RequestsSent);
        for to in [0, 1] {
            if let Some(at) = self.lan_delay() {
                self.queue.push(at, Event::Tap { to, frame: Rc::clone(&frame) });
            }
        }
    }

    /// A client receives a frame.
    pub(super) fn client_gets(&mut self, client: usize, frame: &[u8]) -> Checked {
        if let Some(next_at) = self.clients.get(client, self.queue.now(), frame)? {
            self.counts.count(Count::Answers);
            self.note(None, "answered", format_args!("client {client}"));
            self.set_client_timer(client, next_at);
        }
        Ok(())
    }
}
