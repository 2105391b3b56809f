//! A man page (man(7)) for each command.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// What the help of a command calls the list of its exit codes.
const EXIT_CODES: &str = "Exit codes:";

/// Writes the pages of `program`, which is [built](Command::build), and of its commands to `folder`.
pub(crate) fn write_all(program: &Command, folder: &Path) -> io::Result<()> {
    write_with_commands(program, program, folder)
}

fn write_with_commands(command: &Command, program: &Command, folder: &Path) -> io::Result<()> {
    for command in shown_commands(command) {
        write_with_commands(command, program, folder)?;
    }
    let source = format!("understudy {}", program.get_version().unwrap_or_default());
    let man = Man::new(command.clone()).source(source).manual("understudy");
    let mut file = io::BufWriter::new(File::create(folder.join(man.get_filename()))?);
    write(&man, command, &mut file)?;
    file.flush()
}

fn shown_commands(command: &Command) -> impl Iterator<Item = &Command> {
    command.get_subcommands().filter(|command| !command.is_hide_set())
}

fn write(man: &Man, command: &Command, page: &mut impl Write) -> io::Result<()> {
    man.render_title(page)?;
    man.render_name_section(page)?;
    man.render_synopsis_section(page)?;
    man.render_description_section(page)?;
    man.render_options_section(page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(page)?;
    }
    let mut rest = Roff::new();
    if let Some(text) = command.get_after_help().map(ToString::to_string) {
        let (notes, codes) = text.split_once(EXIT_CODES).unwrap_or((&text, ""));
        add_as_typed(&mut rest, "NOTES", notes);
        add_as_typed(&mut rest, "EXIT STATUS", codes);
    }
    rest.control("SH", ["SEE ALSO"]);
    let name = page_of(command);
    let others: Vec<String> = match name.as_str() {
        "understudy" => shown_commands(command).map(page_of).collect(),
        _ => vec![String::from("understudy")],
    };
    for (index, other) in others.iter().enumerate() {
        let end = if index + 1 < others.len() { "(1)," } else { "(1)" };
        rest.text([bold(other.as_str()), roman(end)]);
    }
    rest.to_writer(page)
}

fn page_of(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned()
}

/// Adds a section with the lines of `text` as they are: they are examples and tables. Without text, adds nothing.
fn add_as_typed(page: &mut Roff, heading: &str, text: &str) {
    let text = text.trim_matches('\n');
    if text.is_empty() {
        return;
    }
    page.control("SH", [heading]);
    page.control("nf", []);
    for line in text.lines() {
        page.text([roman(line)]);
    }
    page.control("fi", []);
}
