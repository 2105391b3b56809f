//! [`Clients`].

use super::rig::Rig;
use crate::patience::{Waiting, pace, patience};
use std::sync::atomic::{AtomicBool, Ordering};
use testbed::capture::sniffer::Sniffer;
use testbed::clients::StopOnDrop;
use testbed::clients::counting::Counting;
use testbed::clients::traffic::Traffic;
use testbed::pair::Host;
use testbed::{Guest, TestbedError};
use vmm::cli::options::DEFAULT_MAC;
use vmm::link::now;

/// Clients of the VM: one connection to the counter for the whole time, TCP echo transfers, web pages,
/// and a listener on the switch.
#[derive(Debug)]
pub struct Clients {
    /// The counter's client.
    pub counting: Counting,
    /// The other clients.
    pub traffic: Traffic,
    /// The listener on the switch.
    pub sniffer: Sniffer,
    stop: AtomicBool,
}

impl Default for Clients {
    fn default() -> Clients {
        let (guest, pace) = (Guest::Reference, pace());
        Clients {
            counting: Counting::new(guest.clone(), pace),
            traffic: Traffic::new(guest, pace),
            sniffer: Sniffer::default(),
            stop: AtomicBool::new(false),
        }
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
        let clients = Clients::default();
        let result = std::thread::scope(|scope| {
            let _stop = StopOnDrop(&clients.stop);
            let (stop, network) = (&clients.stop, &rig.scene.network);
            let (ready_sender, ready) = std::sync::mpsc::channel();
            let listener = scope.spawn(|| {
                network.switch().join()?;
                let is_ready = move || ready_sender.send(()).expect("the receiver waits");
                clients.sniffer.run(DEFAULT_MAC, stop, is_ready)
            });
            ready.recv_timeout(patience()).expect("the switch can be listened on");
            let others = [
                scope.spawn(|| {
                    network.client().join()?;
                    clients.counting.run(stop)
                }),
                scope.spawn(|| {
                    network.client().join()?;
                    clients.traffic.echo(stop);
                    Ok::<(), TestbedError>(())
                }),
                scope.spawn(|| {
                    network.client().join()?;
                    clients.traffic.pages(stop);
                    Ok(())
                }),
            ];
            clients.wait_until_served();
            let result = work(&clients);
            stop.store(true, Ordering::Relaxed);
            for thread in others.into_iter().chain([listener]) {
                thread.join().expect("no client panics").unwrap_or_else(|error| panic!("{error}"));
            }
            result
        });
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
