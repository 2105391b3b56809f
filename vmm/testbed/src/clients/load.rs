//! The clients of a pair's VM and the sniffer, each on a thread of its own.

use super::counting::Counting;
use super::prober::Prober;
use super::redis_tools::Tool;
use super::traffic::Traffic;
use crate::capture::sniffer::Sniffer;
use crate::disk::chain::Chaining;
use crate::pace::Pace;
use crate::pair::{Message, Network, PairVm};
use crate::{Guest, Namespace, TestbedError};
use crossbeam::channel::Sender;
use pnet::util::MacAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// State of the clients and the sniffer, shared with their threads.
#[derive(Debug)]
pub struct Load {
    /// Ends all threads when it is set.
    pub stop: AtomicBool,
    is_listening: AtomicBool,
    /// The prober.
    pub prober: Prober,
    /// The counter's client.
    pub counting: Counting,
    /// The other clients.
    pub traffic: Traffic,
    /// The client of the disk service, if the VM is one of the reference guest with a disk.
    pub chaining: Option<Chaining>,
    /// The client of the database on the disk, if the VM is one of the Linux guest with a disk.
    pub inserting: Option<Counting>,
    /// The sniffer on the switch.
    pub sniffer: Sniffer,
}

impl Load {
    /// Creates the load of the first VM without starting it.
    pub fn new(guest: &Guest, pace: Pace) -> Load {
        Load::of(PairVm::default(), guest, pace)
    }

    /// Creates the load of `vm` without starting it. Of another VM than the first one, only the prober and the counter's
    /// client can be started.
    pub fn of(vm: PairVm, guest: &Guest, pace: Pace) -> Load {
        Load {
            stop: AtomicBool::new(false),
            is_listening: AtomicBool::new(false),
            prober: Prober::new(vm.address(), guest.probe(), &pace),
            counting: Counting::new(vm.address(), guest.counter(), pace),
            traffic: Traffic::new(guest.clone(), pace),
            chaining: None,
            inserting: None,
            sniffer: Sniffer::default(),
        }
    }

    /// Adds the client of the disk service, if there is one.
    pub fn with_chaining(self, chaining: Option<Chaining>) -> Load {
        Load { chaining, ..self }
    }

    /// Adds the client of the database, if there is one.
    pub fn with_inserting(self, inserting: Option<Counting>) -> Load {
        Load { inserting, ..self }
    }

    /// Sets the stop flag of all threads.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Returns whether the sniffer captures every frame from now on.
    pub fn is_listening(&self) -> bool {
        self.is_listening.load(Ordering::Relaxed)
    }
}

/// The threads of the clients and the sniffer.
pub struct Threads<'scope, 'c> {
    scope: &'scope Scope<'scope, 'c>,
    network: &'c Network,
    load: &'c Load,
    /// Channel on which a thread reports that it can't continue.
    trouble: Sender<Message>,
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope, 'c: 'scope> Threads<'scope, 'c> {
    /// Creates a set without threads. A thread that can't continue sends the reason to `trouble`.
    pub fn new(
        scope: &'scope Scope<'scope, 'c>,
        network: &'c Network,
        load: &'c Load,
        trouble: Sender<Message>,
    ) -> Threads<'scope, 'c> {
        Threads { scope, network, load, trouble, threads: Vec::new() }
    }

    /// Starts the sniffer on the switch, for frames from `vm`.
    ///
    /// # Errors
    ///
    /// If the thread can't be started.
    pub fn start_sniffer(&mut self, vm: MacAddr) -> Result<(), TestbedError> {
        let load = self.load;
        self.start("sniffer", self.network.switch(), move || {
            let ready = || load.is_listening.store(true, Ordering::Relaxed);
            load.sniffer.run(vm, &load.stop, ready)
        })
    }

    /// Starts the prober.
    ///
    /// # Errors
    ///
    /// If the thread can't be started.
    pub fn start_prober(&mut self) -> Result<(), TestbedError> {
        let load = self.load;
        self.start("prober", self.network.client(), move || load.prober.run(&load.stop))
    }

    /// Starts one of redis's programs.
    ///
    /// # Errors
    ///
    /// If the thread can't be started.
    pub fn start_redis_tool(&mut self, tool: Tool) -> Result<(), TestbedError> {
        let load = self.load;
        self.start(tool.name(), self.network.client(), move || {
            load.traffic.redis(tool, &load.stop);
            Ok(())
        })
    }

    /// Starts the counter's client.
    ///
    /// # Errors
    ///
    /// If the thread can't be started.
    pub fn start_counter(&mut self) -> Result<(), TestbedError> {
        let (load, client) = (self.load, self.network.client());
        self.start("counter", client, move || load.counting.run(&load.stop))
    }

    /// Starts the other clients.
    ///
    /// # Errors
    ///
    /// If the thread can't be started.
    pub fn start_rest(&mut self) -> Result<(), TestbedError> {
        self.start_counter()?;
        let (load, client) = (self.load, self.network.client());
        if let Some(chaining) = &load.chaining {
            self.start("disk", client, move || chaining.run(&load.stop))?;
        }
        if let Some(inserting) = &load.inserting {
            self.start("database", client, move || inserting.run(&load.stop))?;
        }
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
    pub fn have_ended(&self) -> bool {
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
                // Sending fails if the receiver is gone, because nobody is interested any more.
                let _ = trouble.send(Message::Client(error));
            }
        };
        let thread = Builder::new().name(name.into()).spawn_scoped(self.scope, body);
        self.threads.push(thread.map_err(TestbedError::client("starting a thread"))?);
        Ok(())
    }
}
