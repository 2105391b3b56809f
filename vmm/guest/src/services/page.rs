//! What the HTTP service says: the page, its JSON twin, and the text they are built in.

use core::fmt::{self, Write};

use crate::burn::{Burned, Task};
use crate::clock::WallClock;

pub(super) const HTML: &str = "text/html; charset=utf-8";
pub(super) const JSON: &str = "application/json";
pub(super) const TEXT: &str = "text/plain; charset=utf-8";

/// The state of the guest at one request. Each source of non-determinism has a value in it.
pub(super) struct Status {
    pub(super) uptime_ms: u64,
    pub(super) requests: u64,
    pub(super) wall_clock: WallClock,
    pub(super) random: Option<u64>,
    pub(super) tsc: u64,
    pub(super) ticks: u64,
    pub(super) counter: u64,
}

/// Text of bounded length. Writing past the bound is an error, and then part of it is missing.
pub(super) struct Text<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Text<N> {
    pub(super) const fn new() -> Self {
        Self { bytes: [0; N], len: 0 }
    }

    /// Empties it.
    pub(super) fn start(&mut self) -> &mut Self {
        self.len = 0;
        self
    }

    pub(super) fn push(&mut self, text: &str) {
        self.write_str(text).expect("pages are bounded");
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl<const N: usize> Write for Text<N> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.get_mut(self.len..self.len + text.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(text.as_bytes());
        self.len += text.len();
        Ok(())
    }
}

pub(super) fn json(out: &mut impl Write, status: &Status) {
    let Status { uptime_ms, requests, wall_clock, random, tsc, ticks, counter } = status;
    write!(
        out,
        "{{\"uptime_ms\":{uptime_ms},\"requests\":{requests},\"wall_clock\":\"{wall_clock}\",\"random\":"
    )
    .and_then(|()| match random {
        Some(random) => write!(out, "\"{random:016x}\""),
        None => out.write_str("null"),
    })
    .and_then(|()| writeln!(out, ",\"tsc\":{tsc},\"ticks\":{ticks},\"counter\":{counter}}}"))
    .expect("pages are bounded");
}

pub(super) fn burned(out: &mut impl Write, task: Task, burned: &Burned) {
    let Task { ms, kib } = task;
    let Burned { rounds, result } = burned;
    writeln!(out, "{{\"ms\":{ms},\"kib\":{kib},\"rounds\":{rounds},\"result\":\"{result:016x}\"}}")
        .expect("pages are bounded");
}

pub(super) fn html(out: &mut impl Write, status: &Status) {
    html_parts(out, status).expect("pages are bounded");
}

fn html_parts(out: &mut impl Write, status: &Status) -> fmt::Result {
    out.write_str(concat!(
        "<!doctype html><html lang=en><meta charset=utf-8>",
        "<meta name=viewport content=\"width=device-width\"><title>understudy reference guest</title>",
        "<style>body{font:16px/1.5 system-ui,sans-serif;color:#1d2330;background:#fbfbfd;",
        "max-width:38em;margin:3em auto;padding:0 1em}h1{font-size:1.4em;font-weight:600}",
        "table{border-collapse:collapse;width:100%}td{padding:.4em 0;border-top:1px solid #dfe3ec}",
        "td+td{text-align:right;font-variant-numeric:tabular-nums;font-family:ui-monospace,monospace}",
        "p,a{color:#5a6478}</style>",
        "<h1>understudy reference guest</h1><table>",
    ))?;
    let Status { uptime_ms, requests, wall_clock, random, tsc, ticks, counter } = status;
    let (s, ms) = (uptime_ms / 1000, uptime_ms % 1000);
    let (h, m, s) = (s / 3600, s / 60 % 60, s % 60);
    write!(out, "<tr><td>Uptime<td>{h}:{m:02}:{s:02}.{ms:03}")?;
    write!(out, "<tr><td>HTTP requests<td>{requests}")?;
    write!(out, "<tr><td>Counter service<td>{counter}")?;
    write!(out, "<tr><td>Wall clock<td>{wall_clock}")?;
    match random {
        Some(random) => write!(out, "<tr><td>Random number<td>{random:016x}")?,
        None => out.write_str("<tr><td>Random number<td>none")?,
    }
    write!(out, "<tr><td>Time stamp counter<td>{tsc}")?;
    write!(out, "<tr><td>Timer ticks<td>{ticks}")?;
    out.write_str(concat!(
        "</table><p>The values come from the timer, the clock, the entropy device and the network, ",
        "and a backup that follows this machine computes the same ones. ",
        "As JSON: <a href=/status>/status</a>.</p></html>\n",
    ))
}
