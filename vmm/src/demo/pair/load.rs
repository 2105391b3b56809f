//! The clients of the VM and the sniffer, each on a thread of its own.

use crate::cli::options::DEFAULT_MAC;
use crossbeam::channel::Sender;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};
use testbed::capture::sniffer::Sniffer;
use testbed::clients::counting::Counting;
use testbed::clients::prober::Prober;
use testbed::clients::redis_tools::Tool;
use testbed::clients::traffic::Traffic;
use testbed::pace::Pace;
use testbed::pair::{Message, Network};
use testbed::{Guest, Namespace, TestbedError};

/// State of the clients and the sniffer, shared with their threads.
#[derive(Debug)]
pub(super) struct Load {
    pub(super) stop: AtomicBool,
    is_listening: AtomicBool,
    pub(super) prober: Prober,
    pub(super) counting: Counting,
    pub(super) traffic: Traffic,
    pub(super) sniffer: Sniffer,
}

impl Load {
    /// Creates the load without starting it.
    pub(super) fn new(guest: &Guest, pace: Pace) -> Load {
        Load {
            stop: AtomicBool::new(false),
            is_listening: AtomicBool::new(false),
            prober: Prober::new(guest.probe(), &pace),
            counting: Counting::new(guest.clone(), pace),
            traffic: Traffic::new(guest.clone(), pace),
            sniffer: Sniffer::default(),
        }
    }

    /// Sets the stop flag of all threads.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Returns whether the sniffer captures every frame from now on.
    pub(super) fn is_listening(&self) -> bool {
        self.is_listening.load(Ordering::Relaxed)
    }
}

/// The threads of the clients and the sniffer.
pub(super) struct Threads<'scope, 'c> {
    scope: &'scope Scope<'scope, 'c>,
    network: &'c Network,
    load: &'c Load,
    /// Channel on which a thread reports that it can't continue.
    trouble: Sender<Message>,
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope, 'c: 'scope> Threads<'scope, 'c> {
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'c>,
        network: &'c Network,
        load: &'c Load,
        trouble: Sender<Message>,
    ) -> Threads<'scope, 'c> {
        Threads { scope, network, load, trouble, threads: Vec::new() }
    }

    /// Starts the sniffer on the switch.
    pub(super) fn start_sniffer(&mut self) -> Result<(), TestbedError> {
        let load = self.load;
        self.start("sniffer", self.network.switch(), move || {
            let ready = || load.is_listening.store(true, Ordering::Relaxed);
            load.sniffer.run(DEFAULT_MAC, &load.stop, ready)
        })
    }

    /// Starts the prober.
    pub(super) fn start_prober(&mut self) -> Result<(), TestbedError> {
        let load = self.load;
        self.start("prober", self.network.client(), move || load.prober.run(&load.stop))
    }

    /// Starts one of redis's programs.
    pub(super) fn start_redis_tool(&mut self, tool: Tool) -> Result<(), TestbedError> {
        let load = self.load;
        self.start(tool.name(), self.network.client(), move || {
            load.traffic.redis(tool, &load.stop);
            Ok(())
        })
    }

    /// Starts the other clients.
    pub(super) fn start_rest(&mut self) -> Result<(), TestbedError> {
        let (load, client) = (self.load, self.network.client());
        self.start("counter", client, move || load.counting.run(&load.stop))?;
        self.start("echo", client, move || {
            load.traffic.echo(&load.stop);
            Ok(())
        })?;
        self.start("pages", client, move || {
            load.traffic.pages(&load.stop);
            Ok(())
        })
    }

    /// Returns whether all threads have ended.
    pub(super) fn have_ended(&self) -> bool {
        self.threads.iter().all(ScopedJoinHandle::is_finished)
    }

    fn start(
        &mut self,
        name: &str,
        namespace: &'c Namespace,
        work: impl FnOnce() -> Result<(), TestbedError> + Send + 'c,
    ) -> Result<(), TestbedError> {
        let trouble = self.trouble.clone();
        let body = move || {
            if let Err(error) = namespace.join().and_then(|()| work()) {
                // Sending fails if the receiver is gone, because the demonstration is over.
                let _ = trouble.send(Message::Client(error));
            }
        };
        let thread = Builder::new().name(name.into()).spawn_scoped(self.scope, body);
        self.threads.push(thread.map_err(TestbedError::client("starting a thread"))?);
        Ok(())
    }
}
