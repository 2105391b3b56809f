//! [`Clients`].

use super::rig::Rig;
use crate::patience::{Waiting, pace, wait_until};
use crossbeam::channel;
use std::ops::Deref;
use testbed::Guest;
use testbed::clients::StopOnDrop;
use testbed::clients::load::{Load, Threads};
use testbed::pair::{Host, Message};
use vmm::devices::DEFAULT_MAC;
use vmm::link::now;

/// Clients of the VM: one connection to the counter for the whole time, TCP echo transfers, web pages,
/// and a listener on the switch.
#[derive(Debug)]
pub struct Clients(Load);

impl Deref for Clients {
    type Target = Load;

    fn deref(&self) -> &Load {
        &self.0
    }
}

impl Clients {
    /// Runs `work` while clients use the VM of `rig`, which must be running. Checks afterwards that no
    /// client saw an error, and returns the clients.
    ///
    /// # Panics
    ///
    /// If a client saw an error: a number lost or repeated, a connection reset, a corrupted transfer.
    pub fn during<T>(rig: &Rig, work: impl FnOnce(&Clients) -> T) -> (T, Clients) {
        let clients = Clients(Load::new(&Guest::Reference, pace()));
        let (trouble, troubles) = channel::unbounded();
        let result = std::thread::scope(|scope| {
            let _stop = StopOnDrop(&clients.stop);
            let mut threads = Threads::new(scope, &rig.scene.network, &clients, trouble);
            threads.start_sniffer(DEFAULT_MAC).expect("a thread can be started");
            wait_until("the sniffer", || clients.is_listening() || !troubles.is_empty());
            threads.start_rest().expect("a thread can be started");
            clients.wait_until_served();
            work(&clients)
        });
        if let Ok(Message::Client(error)) = troubles.try_recv() {
            panic!("{error}");
        }
        clients.check();
        (result, clients)
    }

    /// Waits until a request made after this call is answered.
    pub fn wait_until_served(&self) {
        let (begin, waiting) = (now().as_nanos(), Waiting::default());
        let before = self.counting.tally().requests;
        // The second answer from here on belongs to a request made after this call began.
        while self.counting.tally().requests < before + 2
            || self.counting.tally().times.last() < Some(begin)
        {
            waiting.pause(|| String::from("an answer to the counter's client"));
        }
    }

    /// Returns the sequence of hosts that the VM's frames came from, as seen by the switch.
    pub fn host_sequence(&self) -> Vec<Host> {
        let seen = self.sniffer.seen();
        assert_eq!(seen.missed, 0, "the kernel dropped frames");
        seen.source_changes.iter().map(|change| change.host).collect()
    }

    fn check(&self) {
        let (tally, traffic) = (self.counting.tally(), self.traffic.seen());
        let wrong = (tally.lost, tally.repeated, tally.resets, traffic.failed);
        assert_eq!(
            wrong,
            (0, 0, 0, 0),
            "numbers lost, repeated, connections reset, transfers failed: {:?}",
            traffic.first_failure
        );
        assert!(traffic.echoes > 0, "no echo transfer completed");
    }
}
