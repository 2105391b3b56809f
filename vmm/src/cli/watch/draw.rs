//! Draws a [`View`]. What does not fit is left out, the events first.

use super::view::{Answer, Prompt, View, VmView};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, LineGauge, Paragraph, Row, Sparkline, Table};
use serde_json::{Map, Value};
use std::collections::VecDeque;

/// Most VMs of which the list shows a row at a time.
const ROWS_MAX: usize = 12;

/// Rows of the stages: a header, and a row for each stage.
const STAGES_HEIGHT: u16 = 9;

/// Rows of the facts about a VM: a title, and three lines.
const FACTS_HEIGHT: u16 = 4;

/// Rows of the charts on a small terminal: a title, and one row.
const CHARTS_HEIGHT_MIN: u16 = 2;

/// Rows of the charts on a large terminal.
const CHARTS_HEIGHT_MAX: u16 = 10;

/// Rows of the events that are shown whatever the height is: a title and two events.
const EVENTS_HEIGHT_MIN: u16 = 3;

/// Names of the stages of a frame, in its order, as in the status.
const STAGES: [&str; 8] = ["inject", "handler", "guest", "send", "ack", "leave", "hold", "whole"];

const GOOD: Style = Style::new().fg(Color::Green);
const BAD: Style = Style::new().fg(Color::Red).add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().fg(Color::DarkGray);
const TITLE: Style = Style::new().add_modifier(Modifier::BOLD);
const SELECTED: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws `view`.
pub(super) fn draw(frame: &mut Frame<'_>, view: &View) {
    let copies = view.selected().map_or(0, |vm| copies(vm).len() as u16);
    // The header of the list, and the keys; below the list, the selected VM.
    let others = 2 + FACTS_HEIGHT + STAGES_HEIGHT + copies + CHARTS_HEIGHT_MIN + EVENTS_HEIGHT_MIN;
    let room = usize::from(frame.area().height.saturating_sub(others)).clamp(1, ROWS_MAX);
    let rows = view.vms.len().clamp(1, room);
    let [list, detail, keys] = Layout::vertical([
        Constraint::Length(1 + rows as u16),
        Constraint::Fill(1),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    draw_list(frame, view, (list, rows));
    if let Some(vm) = view.selected() {
        draw_vm(frame, vm, detail);
    }
    draw_keys(frame, view, keys);
}

fn draw_list(frame: &mut Frame<'_>, view: &View, (area, rows): (Rect, usize)) {
    if view.vms.is_empty() {
        let text = "no process of a pair answers here";
        return frame.render_widget(Paragraph::new(text).style(DIM), area);
    }
    let selected = view.index().unwrap_or_default();
    // The selected one is always in the picture.
    let first = (selected + 1).saturating_sub(rows);
    let shown = view.vms.iter().enumerate().skip(first).take(rows);
    let rows = shown.map(|(index, vm)| {
        let style = if index == selected { SELECTED } else { Style::new() };
        Row::new(list_cells(vm)).style(style)
    });
    let widths = [
        Constraint::Length(10),
        Constraint::Length(12),
        Constraint::Length(5),
        Constraint::Fill(1),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(10),
    ];
    let header = Row::new(["VM", "role", "term", "protected", "lag", "hold p99", "log link"]);
    frame.render_widget(Table::new(rows, widths).header(header.style(DIM)), area);
}

fn list_cells(vm: &VmView) -> Vec<Span<'_>> {
    let name = Span::raw(vm.name());
    match &vm.answer {
        None => vec![name, Span::raw("...")],
        Some(Answer::Silence(why)) => {
            let why = Span::styled(format!("no answer: {why}"), BAD);
            vec![name, Span::raw("-"), Span::raw("-"), why]
        }
        Some(Answer::Status(_)) => vec![
            name,
            Span::raw(vm.text("/role")),
            Span::raw(whole(vm.number("/term"))),
            Span::styled(vm.text("/protected"), good_if(vm.text("/protected") == "yes")),
            Span::raw(vm.number("/lag_bytes").map_or("-".into(), bytes)),
            Span::raw(vm.number("/hold/p99_us").map_or("-".into(), time)),
            Span::raw(vm.number("/log/wire_mbit_per_s").map_or("-".into(), rate)),
        ],
    }
}

/// Draws the selected VM.
fn draw_vm(frame: &mut Frame<'_>, vm: &VmView, area: Rect) {
    let copies = copies(vm);
    let [facts, tables, copying, charts, events] = Layout::vertical([
        Constraint::Length(FACTS_HEIGHT),
        Constraint::Length(STAGES_HEIGHT),
        Constraint::Length(copies.len() as u16),
        Constraint::Length(if area.height >= 40 { CHARTS_HEIGHT_MAX } else { CHARTS_HEIGHT_MIN }),
        Constraint::Min(EVENTS_HEIGHT_MIN),
    ])
    .areas(area);
    draw_facts(frame, vm, facts);
    let [left, right] =
        Layout::horizontal([Constraint::Length(44), Constraint::Fill(1)]).spacing(1).areas(tables);
    draw_stages(frame, vm, left);
    draw_log(frame, vm, right);
    for (line, copy) in copies.into_iter().enumerate() {
        let area = Rect { y: copying.y + line as u16, height: 1, ..copying };
        if area.bottom() <= copying.bottom() {
            let gauge = LineGauge::default().filled_symbol("#").ratio(copy.ratio);
            let gauge = gauge.label(copy.label);
            frame.render_widget(gauge.filled_style(GOOD), area);
        }
    }
    let [left, right] =
        Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).spacing(1).areas(charts);
    let held = vm.number("/hold/waiting").unwrap_or_default();
    draw_chart(frame, (&format!("outputs held: {held}"), &vm.held), left);
    let lag = bytes(vm.number("/lag_bytes").unwrap_or_default());
    draw_chart(frame, (&format!("backup lags behind: {lag}"), &vm.lag_bytes), right);
    draw_events(frame, vm, events);
}

fn titled(title: &str) -> Block<'static> {
    let title = Span::styled(format!("{title} "), TITLE);
    Block::new().borders(Borders::TOP).border_style(DIM).title(title)
}

fn draw_facts(frame: &mut Frame<'_>, vm: &VmView, area: Rect) {
    let name = format!("{} ({})", vm.name(), vm.socket.display());
    let block = titled(&name);
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let protected = match &vm.answer {
        None => return,
        Some(Answer::Silence(why)) => {
            let line = Line::styled(format!("no answer: {why}"), BAD);
            return frame.render_widget(Paragraph::new(line), inner);
        }
        Some(Answer::Status(_)) => vm.text("/protected"),
    };
    let mut first = vec![
        Span::raw("protected "),
        Span::styled(format!("{protected}  "), good_if(protected == "yes")),
    ];
    let counts = [
        ("takeovers", "/takeovers"),
        ("handovers", "/handovers"),
        ("syncs", "/checkpoints/syncs"),
        ("divergences", "/divergences"),
    ];
    for (name, pointer) in counts {
        first.push(Span::raw(format!("{name} {}  ", whole(vm.number(pointer)))));
    }
    let up = vm.number("/uptime_s").unwrap_or_default();
    let mut second = vec![Span::raw(format!("up {}  ", uptime(up)))];
    match vm.number("/peer/heard_ms_ago") {
        None => second.push(Span::raw("no other host")),
        Some(heard) => {
            let (role, mac) = (vm.text("/peer/role"), vm.text("/peer/mac"));
            let round_trip = vm.number("/peer/round_trip_us").map_or("-".into(), time);
            second.push(Span::raw(format!(
                "{role} {mac} heard {heard:.0} ms ago  round trip {round_trip}"
            )));
        }
    }
    let mut third = Vec::new();
    for (name, good) in [("lan", "up"), ("witness", "reachable"), ("supervisor", "watching")] {
        let text = vm.text(&format!("/{name}"));
        third.push(Span::raw(format!("{name} ")));
        third.push(Span::styled(format!("{text}  "), good_if(text == good)));
    }
    let lines = [first, second, third].map(Line::from);
    frame.render_widget(Paragraph::new(lines.to_vec()), inner);
}

/// Draws how long frames take through each stage. The numbers of the status are those since the start of the process.
fn draw_stages(frame: &mut Frame<'_>, vm: &VmView, area: Rect) {
    let rows = STAGES.map(|stage| {
        let cell = |name| vm.number(&format!("/stages/{stage}/{name}")).map_or("-".into(), time);
        Row::new([stage.to_string(), cell("p50_us"), cell("p99_us"), cell("max_us")])
    });
    let widths = [
        Constraint::Length(9),
        Constraint::Length(10),
        Constraint::Length(10),
        Constraint::Length(10),
    ];
    let header = Row::new(["stage", "p50", "p99", "max"]).style(TITLE);
    frame.render_widget(Table::new(rows, widths).header(header), area);
}

/// Draws the log by kind of entry, the largest first.
fn draw_log(frame: &mut Frame<'_>, vm: &VmView, area: Rect) {
    let none = Map::new();
    let kinds = vm.value("/log/mbit_per_s_by_kind").and_then(Value::as_object).unwrap_or(&none);
    let mut kinds: Vec<_> =
        kinds.iter().map(|(kind, mbit)| (kind, mbit.as_f64().unwrap_or_default())).collect();
    kinds.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let most = kinds.first().map_or(1.0, |(_, mbit)| mbit.max(f64::MIN_POSITIVE));
    let room = usize::from(area.width).saturating_sub(30);
    let lines = kinds.iter().map(|(kind, mbit)| {
        let bar = "#".repeat((room as f64 * mbit / most) as usize);
        let text = format!("{kind:17} {:>10} ", rate(*mbit));
        Line::from(vec![Span::raw(text), Span::styled(bar, GOOD)])
    });
    let total = rate(vm.number("/log/mbit_per_s").unwrap_or_default());
    let title = format!("log by kind: {total}");
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(titled(&title)), area);
}

/// The progress of a copy.
struct Copy {
    ratio: f64,
    label: String,
}

/// Returns the copies to a new backup that are going on.
fn copies(vm: &VmView) -> Vec<Copy> {
    let mut copies = Vec::new();
    if let (Some(left), Some(pass)) = (vm.number("/copy/pages_left"), vm.number("/copy/pass")) {
        let all = vm.pass_pages.max(1) as f64;
        let share = 100.0 * vm.number("/copy/guest_share").unwrap_or(1.0);
        let label =
            format!("copy of the memory, pass {pass}: {left} pages left, guest {share:.0} % ");
        copies.push(Copy { ratio: ratio(all - left, all), label });
    }
    let disks = ["/disks/copy/blocks", "/disks/copy/left"].map(|pointer| vm.number(pointer));
    if let [Some(blocks), Some(left)] = disks {
        let label = format!("copy of the disks: {} left ", bytes(left * 65536.0));
        copies.push(Copy { ratio: ratio(blocks - left, blocks), label });
    }
    copies
}

fn ratio(part: f64, of: f64) -> f64 {
    if of > 0.0 { (part / of).clamp(0.0, 1.0) } else { 0.0 }
}

fn draw_chart(frame: &mut Frame<'_>, (title, samples): (&str, &VecDeque<u64>), area: Rect) {
    let block = titled(title);
    // The newest ones.
    let skipped = samples.len().saturating_sub(usize::from(area.width));
    let samples: Vec<u64> = samples.iter().skip(skipped).copied().collect();
    frame.render_widget(Sparkline::default().data(&samples).style(GOOD).block(block), area);
}

fn draw_events(frame: &mut Frame<'_>, vm: &VmView, area: Rect) {
    let block = titled("events");
    let room = usize::from(block.inner(area).height);
    let skipped = vm.events.len().saturating_sub(room);
    let lines = vm.events.iter().skip(skipped).map(|event| {
        let style = if event.is_warning() { BAD } else { Style::new() };
        Line::styled(event.short_line(), style)
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()).block(block), area);
}

fn draw_keys(frame: &mut Frame<'_>, view: &View, area: Rect) {
    let line = match &view.prompt {
        Prompt::Keys => {
            let count = view.vms.len();
            let title =
                format!("understudy watch, {count} {}", if count == 1 { "VM" } else { "VMs" });
            frame.render_widget(Paragraph::new(title).right_aligned(), area);
            Line::styled("q quit   up/down/tab select   h hand over", DIM)
        }
        Prompt::HandOver(socket) => {
            let name = socket.file_stem().unwrap_or_default().to_string_lossy();
            Line::styled(format!("hand {name} over to its backup? y: yes, any other key: no"), BAD)
        }
        Prompt::Message(text) => Line::styled(text.as_str(), TITLE),
    };
    frame.render_widget(Paragraph::new(line), area);
}

fn good_if(is_good: bool) -> Style {
    if is_good { GOOD } else { BAD }
}

fn whole(number: Option<f64>) -> String {
    number.map_or("-".into(), |number| format!("{number:.0}"))
}

/// Formats microseconds.
fn time(us: f64) -> String {
    match us {
        us if us < 1000.0 => format!("{us:.1} us"),
        us if us < 1e6 => format!("{:.2} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

fn bytes(bytes: f64) -> String {
    match bytes {
        bytes if bytes < 1e3 => format!("{bytes:.0} B"),
        bytes if bytes < 1e6 => format!("{:.1} kB", bytes / 1e3),
        bytes if bytes < 1e9 => format!("{:.1} MB", bytes / 1e6),
        bytes => format!("{:.1} GB", bytes / 1e9),
    }
}

/// Formats a rate, which the status has in Mbit/s, in bytes.
fn rate(mbit_per_s: f64) -> String {
    format!("{}/s", bytes(mbit_per_s * 1e6 / 8.0))
}

fn uptime(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match days {
        0 => format!("{hours}:{minutes:02}:{:02}", seconds % 60),
        _ => format!("{days} d {hours}:{minutes:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::source::News;
    use super::*;
    use crate::cli::events::ShownEvent;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::termion::event::Key;
    use serde_json::json;
    use std::path::Path;
    use std::sync::Arc;

    fn socket(number: usize) -> Arc<Path> {
        Arc::from(Path::new(&format!("/run/understudy/vm-{number:02}.sock")))
    }

    fn protected() -> Value {
        let times = json!({ "count": 9, "p50_us": 12.34, "p99_us": 2345.0, "max_us": 3_400_000.0 });
        let stages: Map<_, _> =
            STAGES.iter().map(|name| (name.to_string(), times.clone())).collect();
        json!({
            "role": "protected", "protected": "yes", "term": 3, "uptime_s": 90_061.0, "lag_bytes": 1234,
            "lan": "up", "witness": "unreachable: no answer", "supervisor": "watching",
            "peer": { "role": "backup", "mac": "02:00:00:00:00:0b", "heard_ms_ago": 3.4, "round_trip_us": 80.0 },
            "hold": { "waiting": 4, "p99_us": 150.0 }, "stages": stages, "takeovers": 1, "handovers": 2,
            "log": { "mbit_per_s": 9.0, "wire_mbit_per_s": 10.0,
                     "mbit_per_s_by_kind": { "exit": 1.0, "page": 8.0 } },
            "checkpoints": { "syncs": 5 }, "divergences": 0,
            "copy": { "pass": 2, "pages_left": 50, "guest_share": 0.5 },
            "disks": { "copy": { "blocks": 100, "left": 25 } },
        })
    }

    fn view(vms: usize) -> View {
        let mut view = View::default();
        for number in 0..vms {
            let answer = match number % 2 {
                0 => Answer::Status(Box::new(protected())),
                _ => Answer::Silence("Connection refused".into()),
            };
            view.update(&socket(number), News::Answer(answer));
        }
        for count in 0..30 {
            let (text, level) = (format!("event {count}"), "warning".into());
            let event = ShownEvent { text, level, term: 3, ..ShownEvent::default() };
            view.update(&socket(0), News::Event(event));
        }
        view
    }

    /// Returns the lines of the picture.
    fn lines(view: &View, (width, height): (u16, u16)) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, view)).unwrap();
        let cells = terminal.backend().buffer().content();
        let symbols = cells.iter().map(|cell| cell.symbol());
        let symbols: Vec<_> = symbols.collect();
        symbols.chunks(width.into()).map(|line| line.concat().trim_end().to_owned()).collect()
    }

    fn has(lines: &[String], text: &str) {
        assert!(lines.iter().any(|line| line.contains(text)), "{text}:\n{}", lines.join("\n"));
    }

    #[test]
    fn both_sizes_show_everything_of_a_vm_and_the_newest_events() {
        for size in [(80, 24), (200, 60)] {
            let lines = lines(&view(2), size);
            for text in [
                "understudy watch, 2 VMs",
                "vm-00      protected    3     yes",
                "vm-01      -            -     no answer: Conn",
                "protected yes  takeovers 1  handovers 2  syncs 5  divergences 0",
                "up 1 d 1:01",
                "witness unreachable: no answer",
                "inject    12.3 us    2.35 ms    3.40 s",
                "whole ",
                "log by kind: 1.1 MB/s",
                "page                1.0 MB/s #",
                "exit              125.0 kB/s",
                "pass 2: 50 pages left, guest 50 %",
                "copy of the disks: 1.6 MB left  #####",
                "copy of the disks: 1.6 MB left",
                "outputs held: 4",
                "backup lags behind: 1.2 kB",
                "event 29",
                "q quit",
            ] {
                has(&lines, text);
            }
            let page = lines.iter().position(|line| line.contains("page  ")).unwrap();
            let exit = lines.iter().position(|line| line.contains("exit  ")).unwrap();
            assert!(page < exit, "the largest kind comes first");
        }
        has(&lines(&view(2), (200, 60)), "event 10");
    }

    #[test]
    fn silent_vm_says_why() {
        let mut view = view(2);
        view.handle_key(Key::Down);
        has(&lines(&view, (80, 24)), "no answer: Connection refused");
    }

    #[test]
    fn selected_vm_stays_in_a_list_that_is_too_long() {
        let mut view = view(40);
        for _ in 0..38 {
            view.handle_key(Key::Down);
        }
        let lines = lines(&view, (80, 24));
        has(&lines, "vm-38      protected");
        assert!(!lines.iter().any(|line| line.starts_with("vm-00")));
        has(&lines, "whole ");
        has(&lines, "outputs held: 4");
    }

    #[test]
    fn tiny_and_empty_pictures_are_drawn() {
        for size in [(1, 1), (3, 2), (10, 5), (79, 12), (500, 200)] {
            lines(&view(3), size);
        }
        has(&lines(&View::default(), (80, 24)), "no process of a pair answers here");
    }

    #[test]
    fn handover_is_asked_for_by_name() {
        let mut view = view(1);
        view.handle_key(Key::Char('h'));
        has(&lines(&view, (80, 24)), "hand vm-00 over to its backup? y: yes");
    }
}
