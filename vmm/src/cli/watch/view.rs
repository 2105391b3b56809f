//! [`View`]: what is known about each VM, which one is selected, and what keys do.

use super::source::News;
use crate::cli::control::{Part, part_of_role};
use crate::cli::events::ShownEvent;
use crate::limits::{WATCH_EVENTS_MAX, WATCH_SAMPLES_MAX};
use ratatui::termion::event::Key;
use serde_json::Value;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;

/// An answer to the question for the status.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// The status.
    Status(Box<Value>),
    /// No answer, and why.
    Silence(String),
}

/// What is known about a VM.
#[derive(Clone, Debug)]
pub(super) struct VmView {
    pub(super) socket: Arc<Path>,
    /// `None` until the first question is over.
    pub(super) answer: Option<Answer>,
    /// Outputs that were held, one number a second.
    pub(super) held: VecDeque<u64>,
    /// Log that the backup had not executed, bytes, one number a second.
    pub(super) lag_bytes: VecDeque<u64>,
    /// The last events.
    pub(super) events: VecDeque<ShownEvent>,
    /// Most pages that the current pass of a copy had left: all of its pages.
    pub(super) pass_pages: u64,
    pass: u64,
}

impl VmView {
    fn new(socket: Arc<Path>) -> VmView {
        VmView {
            socket,
            answer: None,
            held: VecDeque::new(),
            lag_bytes: VecDeque::new(),
            events: VecDeque::new(),
            pass_pages: 0,
            pass: 0,
        }
    }

    /// Returns the name of the VM's socket: `vm-3`.
    pub(super) fn name(&self) -> String {
        self.socket.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// Returns a value of the status, for example that of `/hold/waiting`.
    pub(super) fn value(&self, pointer: &str) -> Option<&Value> {
        match &self.answer {
            Some(Answer::Status(status)) => status.pointer(pointer),
            Some(Answer::Silence(_)) | None => None,
        }
    }

    /// Returns a text of the status; an empty one if it is not there.
    pub(super) fn text(&self, pointer: &str) -> &str {
        self.value(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// Returns a number of the status.
    pub(super) fn number(&self, pointer: &str) -> Option<f64> {
        self.value(pointer).and_then(Value::as_f64)
    }

    /// Returns whether the VM runs on this host.
    fn is_primary(&self) -> bool {
        let role = self.text("/role");
        !role.is_empty() && role != "halted" && part_of_role(role) == Part::Primary
    }

    fn count(&self, pointer: &str) -> u64 {
        self.value(pointer).and_then(Value::as_u64).unwrap_or_default()
    }

    fn update(&mut self, news: News) {
        match news {
            News::Answer(answer) => {
                self.answer = Some(answer);
                let (held, lag) = (self.count("/hold/waiting"), self.count("/lag_bytes"));
                push(&mut self.held, held, WATCH_SAMPLES_MAX);
                push(&mut self.lag_bytes, lag, WATCH_SAMPLES_MAX);
                let pass = self.count("/copy/pass");
                if pass != self.pass {
                    (self.pass, self.pass_pages) = (pass, 0);
                }
                self.pass_pages = self.pass_pages.max(self.count("/copy/pages_left"));
            }
            News::EventsBegin => self.events.clear(),
            News::Event(event) => push(&mut self.events, event, WATCH_EVENTS_MAX),
            News::Outcome(_) => {}
        }
    }
}

/// Appends `item`; the oldest one gives way.
fn push<T>(items: &mut VecDeque<T>, item: T, most: usize) {
    if items.len() == most {
        items.pop_front();
    }
    items.push_back(item);
}

/// What the last line shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Prompt {
    /// The keys.
    #[default]
    Keys,
    /// The question whether this VM shall be handed over.
    HandOver(Arc<Path>),
    /// A message about an order.
    Message(String),
}

/// What the program has to do after a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    None,
    Quit,
    HandOver(Arc<Path>),
}

/// What is shown.
#[derive(Debug, Default)]
pub(super) struct View {
    /// In the order of their sockets.
    pub(super) vms: Vec<VmView>,
    /// The selected VM, if there is any.
    selected: Option<Arc<Path>>,
    pub(super) prompt: Prompt,
}

impl View {
    /// Returns the index of the selected VM. Without a choice of the user, that is one that runs on this host, or at
    /// least one that answers.
    pub(super) fn index(&self) -> Option<usize> {
        let first = |is_meant: &dyn Fn(&VmView) -> bool| self.vms.iter().position(is_meant);
        first(&|vm| Some(&vm.socket) == self.selected.as_ref())
            .or_else(|| first(&VmView::is_primary))
            .or_else(|| first(&|vm| vm.value("/role").is_some()))
            .or_else(|| first(&|_| true))
    }

    /// Returns the selected VM.
    pub(super) fn selected(&self) -> Option<&VmView> {
        self.index().map(|index| &self.vms[index])
    }

    /// Takes news of the VM at `socket`.
    pub(super) fn update(&mut self, socket: &Arc<Path>, news: News) {
        if let News::Outcome(text) = &news {
            self.prompt = Prompt::Message(text.clone());
        }
        let index = match self.vms.binary_search_by(|vm| vm.socket.cmp(socket)) {
            Ok(index) => index,
            Err(index) => {
                self.vms.insert(index, VmView::new(Arc::clone(socket)));
                index
            }
        };
        self.vms[index].update(news);
    }

    /// Forgets the VM at `socket`.
    pub(super) fn forget(&mut self, socket: &Arc<Path>) {
        self.vms.retain(|vm| vm.socket != *socket);
    }

    /// Handles a key.
    pub(super) fn handle_key(&mut self, key: Key) -> Action {
        let before = std::mem::replace(&mut self.prompt, Prompt::Keys);
        match (key, before) {
            (Key::Ctrl('c'), _) => Action::Quit,
            (Key::Char('y'), Prompt::HandOver(socket)) => {
                self.prompt = Prompt::Message("handing over ...".into());
                Action::HandOver(socket)
            }
            // Another key takes the question back.
            (_, Prompt::HandOver(_)) => Action::None,
            (Key::Char('q'), Prompt::Keys | Prompt::Message(_)) => Action::Quit,
            (Key::Char('h'), Prompt::Keys | Prompt::Message(_)) => {
                self.prompt = self.hand_over_prompt();
                Action::None
            }
            (Key::Down | Key::Right | Key::Char('\t'), _) => self.select(1),
            (Key::Up | Key::Left | Key::BackTab, _) => {
                self.select(self.vms.len().saturating_sub(1))
            }
            _other => Action::None,
        }
    }

    /// Selects the VM that is `steps` below the selected one. The first one is below the last one.
    fn select(&mut self, steps: usize) -> Action {
        if let Some(index) = self.index() {
            let index = (index + steps) % self.vms.len();
            self.selected = Some(Arc::clone(&self.vms[index].socket));
        }
        Action::None
    }

    fn hand_over_prompt(&self) -> Prompt {
        let Some(vm) = self.selected() else { return Prompt::Message("there is no VM".into()) };
        let protected = vm.text("/protected");
        match (&vm.answer, part_of_role(vm.text("/role"))) {
            (None | Some(Answer::Silence(_)), _) => {
                Prompt::Message(format!("{} does not answer", vm.name()))
            }
            (Some(Answer::Status(_)), Part::Backup) => Prompt::Message(format!(
                "{} is the backup on this host: hand over on the primary's host",
                vm.name()
            )),
            (Some(Answer::Status(_)), Part::Primary) if protected != "yes" => Prompt::Message(
                format!("{} can't be handed over: protected: {protected}", vm.name()),
            ),
            (Some(Answer::Status(_)), Part::Primary) => Prompt::HandOver(Arc::clone(&vm.socket)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn socket(name: &str) -> Arc<Path> {
        Arc::from(Path::new(name))
    }

    fn status(role: &str, protected: &str) -> News {
        News::Answer(Answer::Status(Box::new(json!({
            "role": role, "protected": protected, "lag_bytes": 7, "hold": { "waiting": 3 },
        }))))
    }

    #[test]
    fn arrows_and_tab_select_around_and_a_forgotten_vm_is_not_selected() {
        let mut view = View::default();
        assert_eq!(view.handle_key(Key::Down), Action::None);
        for name in ["b.sock", "a.sock", "c.sock"] {
            view.update(&socket(name), status("alone", "no: there is no synced backup"));
        }
        assert_eq!(view.selected().unwrap().name(), "a");
        for (key, name) in [
            (Key::Down, "b"),
            (Key::Char('\t'), "c"),
            (Key::Down, "a"),
            (Key::Up, "c"),
            (Key::BackTab, "b"),
        ] {
            view.handle_key(key);
            assert_eq!(view.selected().unwrap().name(), name);
        }
        view.forget(&socket("b.sock"));
        assert_eq!(view.selected().unwrap().name(), "a");
        assert_eq!(view.vms[0].lag_bytes, [7]);
        assert_eq!(view.vms[0].held, [3]);
    }

    #[test]
    fn without_a_choice_the_vm_that_runs_here_is_selected() {
        let mut view = View::default();
        view.update(&socket("a.sock"), News::Answer(Answer::Silence("gone".into())));
        assert_eq!(view.selected().unwrap().name(), "a");
        view.update(&socket("b.sock"), status("following", "yes"));
        assert_eq!(view.selected().unwrap().name(), "b");
        view.update(&socket("c.sock"), status("protected", "yes"));
        assert_eq!(view.selected().unwrap().name(), "c");
        // The user's choice stays.
        view.handle_key(Key::Down);
        view.update(&socket("d.sock"), status("alone", "no: there is no synced backup"));
        assert_eq!(view.selected().unwrap().name(), "a");
    }

    #[test]
    fn handover_needs_a_protected_primary_and_a_second_key() {
        let mut view = View::default();
        view.update(&socket("a.sock"), status("following", "yes"));
        let message = |view: &View, text: &str| match &view.prompt {
            Prompt::Message(message) => assert!(message.contains(text), "{message}"),
            prompt @ (Prompt::Keys | Prompt::HandOver(_)) => panic!("{prompt:?}"),
        };
        view.handle_key(Key::Char('h'));
        message(&view, "is the backup");
        view.update(&socket("a.sock"), status("alone", "no: there is no synced backup"));
        view.handle_key(Key::Char('h'));
        message(&view, "no synced backup");
        view.update(&socket("a.sock"), status("protected", "yes"));
        view.handle_key(Key::Char('h'));
        assert_eq!(view.prompt, Prompt::HandOver(socket("a.sock")));
        // Another key, even the one that quits, takes it back.
        assert_eq!(view.handle_key(Key::Char('q')), Action::None);
        assert_eq!(view.handle_key(Key::Char('y')), Action::None);
        view.handle_key(Key::Char('h'));
        assert_eq!(view.handle_key(Key::Char('y')), Action::HandOver(socket("a.sock")));
        view.update(&socket("a.sock"), News::Outcome("done".into()));
        message(&view, "done");
        view.update(&socket("a.sock"), News::Answer(Answer::Silence("refused".into())));
        view.handle_key(Key::Char('h'));
        message(&view, "does not answer");
        assert_eq!(view.handle_key(Key::Char('q')), Action::Quit);
        assert_eq!(view.handle_key(Key::Ctrl('c')), Action::Quit);
    }

    #[test]
    fn lists_keep_the_newest() {
        let mut view = View::default();
        for number in 0..WATCH_EVENTS_MAX as u64 + 3 {
            let event = ShownEvent { count: number, ..ShownEvent::default() };
            view.update(&socket("a.sock"), News::Event(event));
        }
        let vm = &view.vms[0];
        assert_eq!(vm.events.len(), WATCH_EVENTS_MAX);
        assert_eq!(vm.events[0].count, 3);
        view.update(&socket("a.sock"), News::EventsBegin);
        assert!(view.vms[0].events.is_empty());
    }
}
