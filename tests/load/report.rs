//! Figures as people and programs read them.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::caller::Heard;
use crate::histogram::Histogram;
use crate::protocol::Protocol;

/// Who was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// The same packets without processing.
    Floor,
    /// The program.
    Ringwire,
}

/// One measurement.
#[derive(Clone)]
pub struct Row {
    pub what: What,
    pub protocol: Protocol,
    /// Calls at the same time.
    pub calls: usize,
    /// New calls in a second, of one second each; `None`: all calls stay.
    pub rate: Option<f64>,
    /// Of one core for each call: the subject, the agent, the callers.
    pub percent: [f64; 3],
    /// Processor time of the subject for each call of one second.
    pub millis_per_call: Option<f64>,
    /// The part of that which its threads for packets had no part in.
    pub signalling_millis_per_call: Option<f64>,
    /// Bytes.
    pub memory_per_call: f64,
    /// Part of a search: failures are its aim.
    pub searching: bool,
    pub heard: Heard,
}

impl Row {
    fn key(&self) -> (bool, bool, Protocol, usize, bool) {
        (
            self.searching,
            self.rate.is_some(),
            self.protocol,
            self.calls,
            self.what == What::Ringwire,
        )
    }

    fn cost(&self) -> f64 {
        self.millis_per_call.unwrap_or(self.percent[0])
    }
}

/// Of several measurements of the same the one in the middle.
pub fn medians(rows: &[Row]) -> Vec<Row> {
    let mut kept: Vec<Row> = Vec::new();
    for row in rows {
        if kept.iter().any(|other| other.key() == row.key()) {
            continue;
        }
        let mut same: Vec<&Row> = rows
            .iter()
            .filter(|other| other.key() == row.key())
            .collect();
        same.sort_by(|one, other| one.cost().total_cmp(&other.cost()));
        kept.push(same[same.len() / 2].clone());
    }
    kept
}

fn name(row: &Row) -> String {
    let what = match row.what {
        What::Floor => "floor",
        What::Ringwire => "ringwire",
    };
    format!("{what} {:?}", row.protocol)
}

fn times(times: &Histogram) -> String {
    if times.count() == 0 {
        return "-".to_owned();
    }
    format!(
        "{:.2} / {:.2} / {:.1}",
        times.millis(0.5),
        times.millis(0.99),
        times.max_millis()
    )
}

/// One measurement as one line.
pub fn line(row: &Row) -> String {
    let cost = match (row.millis_per_call, row.rate) {
        (Some(millis), Some(rate)) => format!("{rate:.0}/s, {millis:.2} ms of CPU per call of 1 s"),
        _ => format!(
            "{} calls, {:.4} % of a core per call",
            row.calls, row.percent[0]
        ),
    };
    let heard = &row.heard;
    let failed: u64 = heard.failed.values().sum();
    format!(
        "{}: {cost}, set-up {}, round trip {} ms; {} answered, {failed} failed {:?}, {} lost, {} missing, {} silent, {} late",
        name(row),
        times(&heard.setup),
        times(&heard.round_trip),
        heard.answered,
        heard.failed,
        heard.lost,
        heard.missing,
        heard.silent,
        heard.late,
    )
}

/// A table in Markdown. Times are median / 99th percentile / longest, in milliseconds.
pub fn table(rows: &[Row]) -> String {
    let mut text = String::from(
        "| | calls | % of a core per call | × floor | agent, callers | KB per call | set-up | in → agent | agent → out | round trip | spacing ± | lost, missing, late |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows.iter().filter(|row| row.rate.is_none()) {
        let floor = rows.iter().find(|other| {
            (other.what, other.protocol, other.calls) == (What::Floor, row.protocol, row.calls)
        });
        let against = floor.filter(|_| row.what == What::Ringwire).map_or_else(
            || "-".to_owned(),
            |floor| format!("{:.2}", row.percent[0] / floor.percent[0]),
        );
        let heard = &row.heard;
        let _ = writeln!(
            text,
            "| {} | {} | {:.4} | {against} | {:.3}, {:.3} | {:.0} | {} | {} | {} | {} | {} | {}, {}, {} |",
            name(row),
            row.calls,
            row.percent[0],
            row.percent[1],
            row.percent[2],
            row.memory_per_call / 1000.0,
            times(&heard.setup),
            times(&heard.to_agent),
            times(&heard.from_agent),
            times(&heard.round_trip),
            times(&heard.spacing),
            heard.lost,
            heard.missing,
            heard.late,
        );
    }
    let churns: Vec<&Row> = rows.iter().filter(|row| row.rate.is_some()).collect();
    if !churns.is_empty() {
        text.push_str(
            "\n| calls of one second | new in a second | CPU per call, ms | of which signalling | set-up | ending | lost | failed |\n| --- | --- | --- | --- | --- | --- | --- | --- |\n",
        );
    }
    for row in churns {
        let heard = &row.heard;
        let _ = writeln!(
            text,
            "| {} | {:.0} | {:.2} | {:.2} | {} | {} | {} | {:?} |",
            name(row),
            row.rate.unwrap_or_default(),
            row.millis_per_call.unwrap_or_default(),
            row.signalling_millis_per_call.unwrap_or_default(),
            times(&heard.setup),
            times(&heard.ending),
            heard.lost,
            heard.failed,
        );
    }
    text
}

fn shares(times: &Histogram) -> Value {
    json!({
        "count": times.count(),
        "p50": times.millis(0.5),
        "p95": times.millis(0.95),
        "p99": times.millis(0.99),
        "max": times.max_millis(),
    })
}

/// Everything, for programs. Times in milliseconds, memory in bytes.
pub fn json(rows: &[Row]) -> String {
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            let heard = &row.heard;
            json!({
                "subject": name(row),
                "calls": row.calls,
                "newCallsPerSecond": row.rate,
                "cpuPercentPerCall": {"subject": row.percent[0], "agent": row.percent[1], "callers": row.percent[2]},
                "cpuMillisPerCall": row.millis_per_call,
                "signallingMillisPerCall": row.signalling_millis_per_call,
                "memoryPerCall": row.memory_per_call,
                "setup": shares(&heard.setup),
                "ending": shares(&heard.ending),
                "toAgent": shares(&heard.to_agent),
                "fromAgent": shares(&heard.from_agent),
                "roundTrip": shares(&heard.round_trip),
                "spacing": shares(&heard.spacing),
                "answered": heard.answered,
                "failed": heard.failed,
                "sent": heard.sent,
                "unsent": heard.unsent,
                "sentLate": heard.sent_late,
                "received": heard.received,
                "lost": heard.lost,
                "outOfOrder": heard.out_of_order,
                "malformed": heard.malformed,
                "strange": heard.strange,
                "foreign": heard.foreign,
                "silent": heard.silent,
                "missing": heard.missing,
                "repeated": heard.repeated,
                "late": heard.late,
                "clean": heard.is_clean(),
            })
        })
        .collect();
    serde_json::to_string_pretty(&rows).unwrap()
}
