//! What the audience of a scene sees.

use super::Scene;
use serde_json::{Map, Value};
use std::fmt::Display;
use testbed::TestbedError;
use vmm::{outln, stdio};

/// Where the text of a scene goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// To standard output.
    Results,
    /// To standard error, because standard output is for JSON.
    Messages,
}

/// Prints a scene, and keeps its figures.
#[derive(Debug)]
pub struct Screen {
    text: Text,
    figures: Map<String, Value>,
}

impl Screen {
    /// Creates an empty screen.
    pub fn new(text: Text) -> Screen {
        Screen { text, figures: Map::new() }
    }

    /// Returns the figures of the scene.
    pub fn figures(self) -> Map<String, Value> {
        self.figures
    }

    fn line(&self, text: impl Display) {
        match self.text {
            Text::Results => outln!("{text}"),
            Text::Messages => stdio::message(text),
        }
    }

    /// Prints the title of `scene`.
    pub(super) fn heading(&self, scene: Scene) {
        let (name, title, section) = (scene.name(), scene.title(), scene.section());
        self.line(format_args!("== {name}: {title}"));
        self.line(format_args!("   Scales et al. 2010, {section}"));
    }

    /// Prints what happens now, and why, as a paragraph.
    pub(super) fn say(&self, text: impl Display) {
        self.line(format_args!("\n{text}"));
    }

    /// Prints a line that was seen: of a log, a capture, a process.
    pub(super) fn show(&self, text: impl Display) {
        self.line(format_args!("    {text}"));
    }

    /// Keeps a figure for the JSON result.
    pub(super) fn figure(&mut self, name: &str, value: impl Into<Value>) {
        self.figures.insert(name.into(), value.into());
    }

    /// Prints what was checked: `holds`. It is an error if it does not hold.
    pub(super) fn check(&self, holds: bool, what: impl Display) -> Result<(), TestbedError> {
        if !holds {
            return Err(TestbedError::Wrong(format!("not so: {what}")));
        }
        self.line(format_args!("  checked: {what}"));
        Ok(())
    }
}
