//! Plots as inline SVG. Legends are HTML text of the page, so that no label can cover a curve.

use crate::series::Series;
use plotters::coord::ranged1d::{KeyPointHint, Ranged};
use plotters::prelude::*;
use std::ops::Range;

/// Size of every plot in SVG user units; the page scales it.
const SIZE: (u32, u32) = (880, 360);

/// Eight colours that are distinguishable with any kind of colour vision (Okabe and Ito, 2008), black
/// last.
pub(super) const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(120, 120, 120),
    RGBColor(0, 0, 0),
];

/// An axis for percentiles: the logarithm of the distance to 100 %, with a tick for each nine.
struct Nines(f64);

impl Ranged for Nines {
    type FormatOption = plotters::coord::ranged1d::NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        limit.0 + (f64::from(limit.1 - limit.0) * value / self.0) as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        let nines = (1..=self.0.floor() as u32).map(f64::from);
        [0.0, std::f64::consts::LOG10_2].into_iter().chain(nines).collect()
    }

    fn range(&self) -> Range<f64> {
        0.0..self.0
    }
}

impl plotters::coord::ranged1d::ValueFormatter<f64> for Nines {
    fn format(value: &f64) -> String {
        // A percentage with as many digits as it has nines.
        let digits = (value.round() as usize).saturating_sub(2);
        format!("{:.digits$} %", 100.0 * (1.0 - 10f64.powf(-value)))
    }
}

/// Plots latency by percentile: the horizontal axis is the fraction of values, the vertical axis the
/// latency that the fraction did not exceed. Both axes are logarithmic.
pub(super) fn percentiles(curves: &[(&str, &Series)]) -> String {
    let curves: Vec<Vec<(f64, f64)>> = curves
        .iter()
        .map(|(_, series)| {
            let point = |(quantile, ns): (f64, u64)| (-(1.0 - quantile).log10(), ns as f64 / 1e3);
            series.curve().into_iter().map(point).filter(|(_, us)| *us > 0.0).collect()
        })
        .collect();
    let points = || curves.iter().flatten();
    let nines = points().map(|(nines, _)| *nines).fold(1.0, f64::max);
    let low = points().map(|(_, us)| *us).fold(f64::INFINITY, f64::min);
    let high = points().map(|(_, us)| *us).fold(0.0, f64::max);
    if !low.is_finite() {
        return String::from("<p>No values.</p>");
    }
    draw(SIZE, |root| {
        let mut chart = ChartBuilder::on(root)
            .margin(10)
            .margin_right(30)
            .x_label_area_size(44)
            .y_label_area_size(74)
            .build_cartesian_2d(Nines(nines), (low / 1.2..high * 1.2).log_scale())?;
        chart
            .configure_mesh()
            .x_desc("fraction of all values that took no longer")
            .y_desc("microseconds")
            .y_label_formatter(&|us| short(*us))
            .light_line_style(RGBColor(238, 238, 238))
            .bold_line_style(RGBColor(205, 205, 205))
            .label_style(("sans-serif", 13))
            .axis_desc_style(("sans-serif", 14))
            .draw()?;
        for (index, curve) in curves.iter().enumerate() {
            let style = COLOURS[index % COLOURS.len()].stroke_width(2);
            chart.draw_series(LineSeries::new(curve.iter().copied(), style))?;
        }
        Ok(())
    })
}

/// A row of a waterfall chart: its name and the length of each part, in microseconds.
pub(super) struct Row {
    pub(super) name: String,
    pub(super) parts_us: Vec<f64>,
}

/// Draws rows of consecutive parts on one scale; part `n` has colour `n`.
pub(super) fn waterfall(rows: &[Row]) -> String {
    const ROW: i32 = 26;
    const LEFT: i32 = 210;
    const RIGHT: i32 = 80;
    let longest = rows.iter().map(|row| row.parts_us.iter().sum::<f64>()).fold(1.0, f64::max);
    let height = ROW * rows.len() as i32 + 16;
    let scale = f64::from(SIZE.0 as i32 - LEFT - RIGHT) / longest;
    draw((SIZE.0, height as u32), |root| {
        for (number, row) in rows.iter().enumerate() {
            let top = 8 + ROW * number as i32;
            let text = |size: i32| ("sans-serif", size).into_font().color(&BLACK);
            root.draw(&Text::new(row.name.clone(), (4, top + 5), text(13)))?;
            let mut at = 0.0;
            for (index, part) in row.parts_us.iter().enumerate() {
                let x = |us: f64| LEFT + (us * scale) as i32;
                let (from, to) = (x(at), x(at + part));
                at += part;
                if to > from {
                    let style = COLOURS[index % COLOURS.len()].filled();
                    root.draw(&Rectangle::new([(from, top), (to, top + ROW - 8)], style))?;
                }
            }
            let end = LEFT + (at * scale) as i32 + 6;
            root.draw(&Text::new(format!("{at:.0} us"), (end, top + 5), text(13)))?;
        }
        Ok(())
    })
}

type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;
type Root<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// Draws an SVG into memory, which cannot fail for an external reason.
fn draw(size: (u32, u32), paint: impl FnOnce(&Root<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let painted = paint(&root).and_then(|()| root.present());
        painted.expect("drawing into memory does not fail");
    }
    // The page decides the width.
    svg.replacen("<svg ", "<svg role=\"img\" style=\"width:100%;height:auto\" ", 1)
}

/// Formats a time for an axis label.
fn short(us: f64) -> String {
    match us {
        0.0..1.0 => format!("{us:.2}"),
        1.0..1000.0 => format!("{us:.0}"),
        _ => format!("{:.0} 000", us / 1000.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plotters::coord::ranged1d::ValueFormatter;

    #[test]
    fn percentile_labels_have_as_many_nines_as_the_percentile() {
        let texts = [0.0, std::f64::consts::LOG10_2, 1.0, 2.0, 3.0, 4.0].map(|x| Nines::format(&x));
        assert_eq!(texts, ["0 %", "50 %", "90 %", "99 %", "99.9 %", "99.99 %"]);
    }

    #[test]
    fn plot_draws_one_line_per_series_and_none_for_an_empty_one() {
        let mut series = Series::new();
        (1..=10_000).for_each(|n| series.record(n * 100));
        let svg = percentiles(&[("a", &series), ("b", &series)]);
        assert_eq!(svg.matches("stroke=\"#0072B2\"").count(), 1, "{svg}");
        assert_eq!(svg.matches("stroke=\"#D55E00\"").count(), 1, "{svg}");
        assert!(svg.contains("99.9 %") && !svg.contains("99.999 %"), "{svg}");
        assert!(percentiles(&[("a", &Series::new())]).contains("No values"));
    }

    #[test]
    fn waterfall_bar_length_is_the_sum_of_its_parts() {
        let row = |name: &str, parts: &[f64]| Row { name: name.into(), parts_us: parts.to_vec() };
        let svg = waterfall(&[row("one", &[10.0, 20.0]), row("two", &[60.0])]);
        assert_eq!(svg.matches("<rect").count(), 3, "{svg}");
        assert!(svg.contains("30 us") && svg.contains("60 us"), "{svg}");
    }
}
