//! `understudy watch`: the VMs of this host on a terminal.
//!
//! - `terminal`: the terminal, which is restored however the program ends
//! - `source`: which sockets there are, and what is asked of them
//! - `view`: what is known about each VM, and what keys do
//! - `draw`: the picture of it
//!
//! It is a process of its own and reads control sockets only. It asks each VM for its status once a second and follows
//! its events, which the VM's loop does not wait for.

mod draw;
mod source;
mod terminal;
mod view;

use self::source::Sources;
use self::terminal::Screen;
use self::view::{Action, View};
use super::exit_code::CliError;
use clap::Args;
use std::time::Duration;

/// Interval at which the picture is drawn if no key is pressed. A new size of the terminal is seen then, too.
const DRAW_INTERVAL: Duration = Duration::from_millis(250);

/// Options of `watch`.
#[derive(Args, Debug)]
#[command(after_help = "\
Shows roles, terms and protection of the VMs of this host, and of the selected one the time that frames take through
each stage, the log by kind of entry, the outputs that are held, how far the backup lags behind, the progress of a
copy, and its events.

Keys:
  up, down, tab  select a VM
  h, then y      hand the selected VM over to its backup
  q              quit

Needs a terminal; 'understudy status' and 'understudy events --follow' need none. Asks each VM for its status once
a second.

Examples:
  understudy watch
  understudy watch 0 3
  understudy watch /tmp/a.sock /tmp/b.sock")]
pub struct WatchArgs {
    /// VMs to show: a number, a control socket, or a folder with control sockets
    #[arg(value_name = "VM", default_value = "/run/understudy")]
    vms: Vec<String>,
}

/// Runs `understudy watch`, until the user quits or the terminal is gone.
///
/// # Errors
///
/// If there is no terminal.
pub fn main(args: &WatchArgs) -> Result<(), CliError> {
    let mut screen = Screen::open()?;
    let mut sources = Sources::new(&args.vms);
    let mut view = View::default();
    loop {
        sources.look(&mut view);
        // A terminal that can't be written or read is gone.
        if screen.draw(|frame| draw::draw(frame, &view)).is_err() {
            return Ok(());
        }
        let Ok(keys) = screen.keys(DRAW_INTERVAL) else { return Ok(()) };
        for key in keys {
            match view.handle_key(key) {
                Action::None => {}
                Action::Quit => return Ok(()),
                Action::HandOver(socket) => sources.hand_over(socket),
            }
        }
    }
}
