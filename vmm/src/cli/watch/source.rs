//! [`Sources`]: finds the control sockets, asks each for its status once a second, and follows its events.

use super::view::{Answer, View};
use crate::cli::control::{self, default_socket};
use crate::cli::events::{EventLines, ShownEvent};
use crate::limits::{WATCH_UPDATES_MAX, WATCHED_VMS_MAX};
use crate::pair::Request;
use crossbeam::channel::{self, Receiver, Sender};
use serde_json::Value;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Interval of the questions to a VM, and pause before its events are followed again.
const ASK_INTERVAL: Duration = Duration::from_secs(1);

/// Interval at which folders are searched for sockets.
const SEARCH_INTERVAL: Duration = Duration::from_secs(2);

/// A VM of a folder is not shown any more when it has not answered for so long.
const FORGET_AFTER: Duration = Duration::from_secs(5);

/// Longest time to wait for the outcome of a handover.
const HANDOVER_MAX: Duration = Duration::from_secs(30);

/// What a thread has learned of a VM.
pub(super) enum News {
    Answer(Answer),
    /// The events come again from the first one.
    EventsBegin,
    Event(ShownEvent),
    /// The outcome of an order.
    Outcome(String),
}

type Update = (Arc<Path>, News);

/// Why a VM is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Origin {
    /// The user has named it.
    Named,
    /// It was found in a folder, and goes when it does not answer.
    Found,
}

/// A VM that is asked.
struct Source {
    socket: Arc<Path>,
    origin: Origin,
    heard_at: Instant,
    /// Ends its threads.
    is_wanted: Arc<AtomicBool>,
}

/// The VMs that are asked.
pub(super) struct Sources {
    folders: Vec<PathBuf>,
    sources: Vec<Source>,
    search_at: Instant,
    sender: Sender<Update>,
    updates: Receiver<Update>,
}

impl Sources {
    /// Creates the sources that `names` name: numbers of VMs, sockets, and folders with sockets.
    pub(super) fn new(names: &[String]) -> Sources {
        let (sender, updates) = channel::bounded(WATCH_UPDATES_MAX);
        let (folders, search_at) = (Vec::new(), Instant::now());
        let mut sources = Sources { folders, sources: Vec::new(), search_at, sender, updates };
        for name in names {
            match name.parse() {
                Ok(vm) => sources.add(&default_socket(vm), Origin::Named),
                Err(_) if Path::new(name).is_dir() => sources.folders.push(name.into()),
                Err(_) => sources.add(Path::new(name), Origin::Named),
            }
        }
        sources
    }

    /// Searches the folders if that is due, and passes what the threads have learned to `view`.
    pub(super) fn look(&mut self, view: &mut View) {
        let now = Instant::now();
        if now >= self.search_at {
            self.search_at = now + SEARCH_INTERVAL;
            self.search();
        }
        for (socket, news) in self.updates.try_iter() {
            if let Some(source) = self.sources.iter_mut().find(|source| source.socket == socket) {
                if let News::Answer(Answer::Status(_)) = &news {
                    source.heard_at = now;
                }
                view.update(&socket, news);
            }
        }
        self.sources.retain(|source| {
            let stays = match source.origin {
                Origin::Named => true,
                Origin::Found => now - source.heard_at < FORGET_AFTER,
            };
            if !stays {
                source.is_wanted.store(false, Ordering::Relaxed);
                view.forget(&source.socket);
            }
            stays
        });
    }

    /// Adds each socket in the folders at which a process listens.
    fn search(&mut self) {
        let mut found = Vec::new();
        for entry in self.folders.iter().filter_map(|folder| folder.read_dir().ok()).flatten() {
            found.extend(entry.map(|entry| entry.path()).ok());
        }
        found.retain(|path| path.extension().is_some_and(|extension| extension == "sock"));
        found.sort();
        for path in found {
            if UnixStream::connect(&path).is_ok() {
                self.add(&path, Origin::Found);
            }
        }
    }

    fn add(&mut self, socket: &Path, origin: Origin) {
        let is_known = self.sources.iter().any(|source| *source.socket == *socket);
        if is_known || self.sources.len() == WATCHED_VMS_MAX {
            return;
        }
        let socket: Arc<Path> = Arc::from(socket);
        let is_wanted = Arc::new(AtomicBool::new(true));
        for work in [ask, follow] {
            let (socket, sender, is_wanted) =
                (Arc::clone(&socket), self.sender.clone(), Arc::clone(&is_wanted));
            std::thread::spawn(move || {
                while is_wanted.load(Ordering::Relaxed) && work(&socket, &sender).is_ok() {
                    std::thread::sleep(ASK_INTERVAL);
                }
            });
        }
        self.sources.push(Source { socket, origin, heard_at: Instant::now(), is_wanted });
    }

    /// Hands the VM of `socket` over, on a thread.
    pub(super) fn hand_over(&self, socket: Arc<Path>) {
        let sender = self.sender.clone();
        std::thread::spawn(move || {
            let outcome = match control::hand_over_at(&socket, HANDOVER_MAX) {
                Ok(()) => "handed over: this host is the backup now".into(),
                Err(failure) => failure.to_string(),
            };
            let _ = sender.send((socket, News::Outcome(outcome)));
        });
    }
}

/// The program ends, and nobody takes news any more.
struct Ends;

/// Asks for the status once.
fn ask(socket: &Arc<Path>, sender: &Sender<Update>) -> Result<(), Ends> {
    let answer = match control::ask(socket, Request::Status) {
        Ok(status) => Answer::Status(Box::new(Value::Object(status))),
        Err(error) => Answer::Silence(error.to_string()),
    };
    sender.send((Arc::clone(socket), News::Answer(answer))).map_err(|_| Ends)
}

/// Follows the events until the connection ends.
fn follow(socket: &Arc<Path>, sender: &Sender<Update>) -> Result<(), Ends> {
    let Ok(stream) = control::open(socket, Request::Follow) else { return Ok(()) };
    let send = |news| sender.send((Arc::clone(socket), news)).map_err(|_| Ends);
    send(News::EventsBegin)?;
    let mut lines = EventLines::new(stream);
    while let Some(line) = lines.next_line() {
        if let Some(event) = ShownEvent::of_line(&line) {
            send(News::Event(event))?;
        }
    }
    Ok(())
}
