//! A chart of cost and latency against the number of calls.

use std::fmt::Write as _;

use crate::protocol::Protocol;
use crate::report::{Row, What};

const WIDTH: f64 = 420.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 60.0;
const TOP: f64 = 40.0;

/// A line of a panel: its name, colour, and points.
type Line = (String, &'static str, Vec<(f64, f64)>);

/// Two panels beside each other, as SVG.
pub fn draw(rows: &[Row]) -> String {
    let mut cost: Vec<Line> = Vec::new();
    let mut latency: Vec<Line> = Vec::new();
    for (protocol, colours) in [
        (Protocol::Twilio, ["#999999", "#1b6ca8", "#7fb2d6"]),
        (Protocol::AudioSocket, ["#c9c9c9", "#c0562f", "#e0a58c"]),
    ] {
        let of = |what: What, value: &dyn Fn(&Row) -> f64| {
            let rows = rows
                .iter()
                .filter(|row| row.rate.is_none() && row.what == what && row.protocol == protocol);
            let mut points: Vec<(f64, f64)> =
                rows.map(|row| (row.calls as f64, value(row))).collect();
            points.sort_by(|one, other| one.0.total_cmp(&other.0));
            points
        };
        cost.push((
            format!("floor {protocol:?}"),
            colours[0],
            of(What::Floor, &|row| row.percent[0]),
        ));
        cost.push((
            format!("Ringwire {protocol:?}"),
            colours[1],
            of(What::Ringwire, &|row| row.percent[0]),
        ));
        let trip = |share: f64| move |row: &Row| row.heard.round_trip.millis(share);
        latency.push((
            format!("{protocol:?} p50"),
            colours[1],
            of(What::Ringwire, &trip(0.5)),
        ));
        latency.push((
            format!("{protocol:?} p99"),
            colours[2],
            of(What::Ringwire, &trip(0.99)),
        ));
    }
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        2.0 * (WIDTH + LEFT + 30.0),
        HEIGHT + TOP + 60.0
    );
    panel(
        &mut svg,
        0.0,
        "Processor time of a call, % of a core",
        &cost,
    );
    panel(
        &mut svg,
        WIDTH + LEFT + 30.0,
        "Round trip through gateway and agent, ms",
        &latency,
    );
    svg.push_str("</svg>\n");
    svg
}

fn panel(svg: &mut String, offset: f64, title: &str, lines: &[Line]) {
    let lines: Vec<&Line> = lines.iter().filter(|line| !line.2.is_empty()).collect();
    let points = || lines.iter().flat_map(|line| &line.2);
    let right = points().map(|point| point.0).fold(1.0, f64::max);
    let top = points().map(|point| point.1).fold(1e-6, f64::max) * 1.1;
    let x = |value: f64| offset + LEFT + value / right * WIDTH;
    let y = |value: f64| TOP + HEIGHT - value / top * HEIGHT;
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"20\" font-weight=\"bold\">{title}</text>",
        offset + LEFT
    );
    for step in 0..=4 {
        let value = top * f64::from(step) / 4.0;
        let at = y(value);
        let _ = writeln!(
            svg,
            "<line x1=\"{}\" x2=\"{}\" y1=\"{at}\" y2=\"{at}\" stroke=\"#e5e5e5\"/><text x=\"{}\" y=\"{}\" text-anchor=\"end\">{value:.3}</text>",
            x(0.0),
            x(right),
            x(0.0) - 6.0,
            at + 4.0
        );
        let calls = right * f64::from(step) / 4.0;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{calls:.0}</text>",
            x(calls),
            TOP + HEIGHT + 18.0
        );
    }
    let _ = writeln!(
        svg,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">calls</text>",
        x(right / 2.0),
        TOP + HEIGHT + 36.0
    );
    for (at, (name, colour, points)) in lines.iter().enumerate() {
        let path: Vec<String> = points
            .iter()
            .map(|(calls, value)| format!("{:.1},{:.1}", x(*calls), y(*value)))
            .collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (calls, value) in points {
            let _ = writeln!(
                svg,
                "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>",
                x(*calls),
                y(*value)
            );
        }
        let height = TOP + 14.0 + 16.0 * at as f64;
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{height}\" fill=\"{colour}\">{name}</text>",
            x(0.0) + 10.0
        );
    }
}
