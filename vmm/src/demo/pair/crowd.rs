//! Everybody who talks to the VM or listens, each on a thread of their own.

use super::counting::Counting;
use super::member::Message;
use super::network::Network;
use super::prober::Prober;
use super::redis_tools::Tool;
use super::sniffer::Sniffer;
use super::traffic::Traffic;
use crate::cli::options::DEFAULT_MAC;
use crate::demo::DemoError;
use crate::demo::guest::Guest;
use crate::demo::lan::Namespace;
use crate::demo::pace::Pace;
use crossbeam::channel::Sender;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{Builder, Scope, ScopedJoinHandle};

/// What they see.
#[derive(Debug)]
pub(super) struct Crowd {
    stop: AtomicBool,
    is_listening: AtomicBool,
    pub(super) prober: Prober,
    pub(super) counting: Counting,
    pub(super) traffic: Traffic,
    pub(super) sniffer: Sniffer,
}

/// Ends them, whatever happens.
pub(super) struct StopOnDrop<'c>(pub(super) &'c Crowd);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Crowd {
    /// Nobody has begun.
    pub(super) fn new(guest: &Guest, pace: Pace) -> Crowd {
        Crowd {
            stop: AtomicBool::new(false),
            is_listening: AtomicBool::new(false),
            prober: Prober::new(guest.probe(), &pace),
            counting: Counting::new(guest.clone(), pace),
            traffic: Traffic::new(guest.clone(), pace),
            sniffer: Sniffer::default(),
        }
    }

    /// Tells everybody to end.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether the sniffer misses nothing any more.
    pub(super) fn is_listening(&self) -> bool {
        self.is_listening.load(Ordering::Relaxed)
    }
}

/// Their threads.
pub(super) struct Threads<'scope, 'c> {
    scope: &'scope Scope<'scope, 'c>,
    network: &'c Network,
    crowd: &'c Crowd,
    /// Where it is said that one cannot go on.
    trouble: Sender<Message>,
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope, 'c: 'scope> Threads<'scope, 'c> {
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'c>,
        network: &'c Network,
        crowd: &'c Crowd,
        trouble: Sender<Message>,
    ) -> Threads<'scope, 'c> {
        Threads { scope, network, crowd, trouble, threads: Vec::new() }
    }

    /// Listens on the switch.
    pub(super) fn start_sniffer(&mut self) -> Result<(), DemoError> {
        let crowd = self.crowd;
        self.start("sniffer", self.network.switch(), move || {
            let ready = || crowd.is_listening.store(true, Ordering::Relaxed);
            crowd.sniffer.run(DEFAULT_MAC, &crowd.stop, ready)
        })
    }

    /// Starts to knock.
    pub(super) fn start_prober(&mut self) -> Result<(), DemoError> {
        let crowd = self.crowd;
        self.start("prober", self.network.client(), move || crowd.prober.run(&crowd.stop))
    }

    /// Starts one of redis's programs.
    pub(super) fn start_redis_tool(&mut self, tool: Tool) -> Result<(), DemoError> {
        let crowd = self.crowd;
        self.start(tool.name(), self.network.client(), move || {
            crowd.traffic.redis(tool, &crowd.stop);
            Ok(())
        })
    }

    /// Starts everybody else.
    pub(super) fn start_rest(&mut self) -> Result<(), DemoError> {
        let (crowd, client) = (self.crowd, self.network.client());
        self.start("counter", client, move || crowd.counting.run(&crowd.stop))?;
        self.start("echo", client, move || {
            crowd.traffic.echo(&crowd.stop);
            Ok(())
        })?;
        self.start("pages", client, move || {
            crowd.traffic.pages(&crowd.stop);
            Ok(())
        })
    }

    /// Whether all of them have ended.
    pub(super) fn have_ended(&self) -> bool {
        self.threads.iter().all(ScopedJoinHandle::is_finished)
    }

    fn start(
        &mut self,
        name: &str,
        namespace: &'c Namespace,
        work: impl FnOnce() -> Result<(), DemoError> + Send + 'c,
    ) -> Result<(), DemoError> {
        let trouble = self.trouble.clone();
        let body = move || {
            if let Err(error) = namespace.join().and_then(|()| work()) {
                // Nobody listens any more: the demonstration is over.
                let _ = trouble.send(Message::Client(error));
            }
        };
        let thread = Builder::new().name(name.into()).spawn_scoped(self.scope, body);
        self.threads.push(thread.map_err(DemoError::client("starting a thread"))?);
        Ok(())
    }
}
