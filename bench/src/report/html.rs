//! Builds the HTML page from text, tables and plots. The page is self-contained: it fetches nothing.

use super::plot::{self, COLOURS, Row};
use super::{Topic, sections};
use crate::outcome::Outcome;
use crate::series::Series;
use serde_json::Value;
use std::fmt::Write as _;

const STYLE: &str = "
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
       color: #1a1a1a; background: #fff; }
h1 { font-size: 1.7rem; margin-bottom: .2rem; }
h2 { font-size: 1.3rem; margin-top: 2.6rem; border-top: 1px solid #ccc; padding-top: 1rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .3rem; }
table { border-collapse: collapse; margin: .6rem 0 1rem; font-variant-numeric: tabular-nums;
        font-size: .9rem; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #e4e4e4; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
th { border-bottom: 2px solid #999; font-weight: 600; }
.legend { list-style: none; padding: 0; margin: .2rem 0 1rem; font-size: .9rem; }
.legend li { display: inline-block; margin-right: 1.4rem; white-space: nowrap; }
.legend span { display: inline-block; width: .9rem; height: .9rem; margin-right: .35rem;
               vertical-align: -.1rem; border-radius: .15rem; }
.note { color: #444; } code { font-size: .88em; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; } .words td { text-align: left; }
";

const METHOD: &str = "Every figure was measured on one machine that ran client, primary and backup at \
once. Subjects that are compared were measured in interleaved rounds, so that a disturbance affected all \
of them alike. <strong>Compare ratios, not absolute times.</strong> Where the KVM module below is \
<code>kvm_pvm</code>, the host is itself a virtual machine, its exits cost tens of microseconds, and absolute \
times say little about other hosts. Latencies are HDR histograms; a curve ends where a percentile would \
rest on less than one value. Coordinated omission: closed-loop figures (one request after the other) are \
latencies of single requests, not of a service under an open load; where requests are paced, \
<em>response</em> is measured from when a request was due, <em>service</em> from when it was sent.";

/// Returns the page for all `outcomes`.
pub(super) fn page(machine: &Value, setting: &str, outcomes: &[(Topic, Outcome)]) -> String {
    let mut page = Page { text: String::new() };
    page.raw("<!doctype html>\n<html lang=\"en\"><meta charset=\"utf-8\">");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    page.raw(&format!("<title>understudy: measurements</title><style>{STYLE}</style>"));
    page.raw("<h1>understudy: measurements</h1>");
    page.note(setting);
    page.raw(&format!("<p>{METHOD}</p>"));
    let text = |value: &Value| match value {
        Value::String(text) => text.clone(),
        Value::Null => "-".into(),
        other => other.to_string(),
    };
    let names = ["cpu", "cores", "kernel", "kvm_module", "loadavg", "commit", "command"];
    let rows = names.map(|name| vec![name.replace('_', " "), text(&machine[name])]);
    page.table_of("words", &["machine", ""], &rows);
    for (topic, outcome) in outcomes {
        sections::write(&mut page, *topic, outcome);
    }
    page.raw("</html>");
    page.text
}

/// A page under construction.
pub(super) struct Page {
    text: String,
}

impl Page {
    fn raw(&mut self, html: &str) {
        self.text.push_str(html);
        self.text.push('\n');
    }

    /// Adds the heading of a benchmark.
    pub(super) fn title(&mut self, title: &str) {
        self.raw(&format!("<h2>{}</h2>", escaped(title)));
    }

    /// Adds the heading of a part of a benchmark.
    pub(super) fn part(&mut self, title: &str) {
        self.raw(&format!("<h3>{}</h3>", escaped(title)));
    }

    /// Adds a paragraph.
    pub(super) fn note(&mut self, text: &str) {
        self.raw(&format!("<p class=\"note\">{}</p>", escaped(text)));
    }

    /// Adds a table of numbers, which the caller has formatted. The first column holds names.
    pub(super) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        self.table_of("numbers", head, rows);
    }

    fn table_of(&mut self, class: &str, head: &[&str], rows: &[Vec<String>]) {
        self.raw(&format!("<div class=\"scroll\"><table class=\"{class}\"><tr>"));
        for cell in head {
            let _ = write!(self.text, "<th>{}</th>", escaped(cell));
        }
        self.raw("</tr>");
        for row in rows {
            self.text.push_str("<tr>");
            for cell in row {
                let _ = write!(self.text, "<td>{}</td>", escaped(cell));
            }
            self.raw("</tr>");
        }
        self.raw("</table></div>");
    }

    /// Adds a plot of latency by percentile.
    pub(super) fn percentiles(&mut self, curves: &[(&str, &Series)]) {
        self.raw(&plot::percentiles(curves));
        self.legend(curves.iter().map(|(name, _)| *name));
    }

    /// Adds a waterfall chart: bars made of consecutive parts.
    pub(super) fn waterfall(&mut self, parts: &[&str], rows: &[Row]) {
        self.raw(&plot::waterfall(rows));
        self.legend(parts.iter().copied());
    }

    fn legend<'n>(&mut self, names: impl Iterator<Item = &'n str>) {
        self.raw("<ul class=\"legend\">");
        for (index, name) in names.enumerate() {
            let plotters::style::RGBColor(red, green, blue) = COLOURS[index % COLOURS.len()];
            let colour = format!("#{red:02x}{green:02x}{blue:02x}");
            let name = escaped(name);
            self.raw(&format!("<li><span style=\"background:{colour}\"></span>{name}</li>"));
        }
        self.raw("</ul>");
    }
}

/// Escapes text for HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_external_text_is_escaped() {
        let machine = serde_json::json!({ "command": "bench <script>&\"", "cores": 2 });
        let page = page(&machine, "a & b", &[]);
        assert!(page.contains("bench &lt;script&gt;&amp;&quot;") && page.contains("a &amp; b"));
        assert!(!page.contains("<script>"));
    }

    #[test]
    fn page_references_no_external_resource() {
        let page = page(&Value::Null, "", &[]);
        for reference in ["src=", "href=", "@import", "url("] {
            assert!(!page.contains(reference), "{reference}");
        }
    }
}
