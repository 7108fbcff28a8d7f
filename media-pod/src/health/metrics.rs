//! What Prometheus sees of a pod: its own report, and what the kernel says of the process.
//!
//! Read at each scrape, so nothing has to be kept in step.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;
use ringwire_config::state::{PodState, RegistrationState};
use ringwire_control::Reporter;

/// A registry that shows the pod's report and the process.
pub fn registry(reporter: Reporter) -> Registry {
    of_report(move || reporter.snapshot())
}

/// The same for both roles in one process: the media role's report, with what only registrars tell.
pub fn embedded(registrar: Reporter, media: Reporter) -> Registry {
    of_report(move || {
        let edge = registrar.snapshot();
        let mut state = media.snapshot();
        state.registrations = edge.registrations;
        state.udp = edge.udp;
        for (reason, count) in edge.refusals {
            *state.refusals.entry(reason).or_default() += count;
        }
        state.cut_off = edge.cut_off;
        state
    })
}

fn of_report(read: impl Fn() -> PodState + Send + Sync + 'static) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Report(Box::new(read))));
    registry.register_collector(Box::new(Process));
    registry
}

/// The pod's report.
struct Report(Box<dyn Fn() -> PodState + Send + Sync>);

impl fmt::Debug for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Report")
    }
}

impl Collector for Report {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        encode(&(self.0)(), &mut encoder)
    }
}

fn encode(state: &PodState, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let role = state.role.as_str();
    let build = [("version", env!("CARGO_PKG_VERSION")), ("role", role)];
    gauges(
        encoder,
        "ringwire_build_info",
        "Version and role of this pod",
        [(build, 1)],
    )?;
    let flags = [
        ("ringwire_ready", "Whether the pod takes calls", state.ready),
        (
            "ringwire_draining",
            "Whether the pod is stopping",
            state.draining,
        ),
    ];
    for (name, help, value) in flags {
        gauges(encoder, name, help, [([("role", role)], i64::from(value))])?;
    }
    gauges(
        encoder,
        "ringwire_calls_active",
        "Running calls",
        [([("role", role)], i64::from(state.calls.total))],
    )?;

    let mut registrations =
        BTreeMap::from([("Registered", 0), ("Unregistered", 0), ("Unknown", 0)]);
    for report in state.registrations.values() {
        let name = match report.state {
            RegistrationState::Registered => "Registered",
            RegistrationState::Unregistered => "Unregistered",
            RegistrationState::Unknown => "Unknown",
        };
        *registrations.entry(name).or_default() += 1;
    }
    let registrations = registrations
        .into_iter()
        .map(|(name, count)| ([("state", name)], count));
    gauges(
        encoder,
        "ringwire_registrations",
        "Registrations that this pod holds or tries to get",
        registrations,
    )?;

    let agents = [("true", true), ("false", false)].map(|(name, reachable)| {
        let count = state
            .agents
            .values()
            .filter(|agent| agent.reachable == reachable)
            .count();
        ([("reachable", name)], signed(count))
    });
    gauges(
        encoder,
        "ringwire_agents",
        "Agents by whether the last attempt to reach them succeeded",
        agents,
    )?;

    let mut counters = vec![(
        "ringwire_calls",
        "Calls that the pod has taken, those that are over included",
        state.calls.begun,
    )];
    if let Some(udp) = &state.udp {
        let bytes = [(
            [("role", role)],
            i64::try_from(udp.receive_buffer).unwrap_or(i64::MAX),
        )];
        gauges(
            encoder,
            "ringwire_sip_receive_buffer_bytes",
            "The kernel's buffer of the SIP socket, its own overhead included",
            bytes,
        )?;
        counters.extend([
            (
                "ringwire_sip_dropped_by_kernel",
                "SIP datagrams that the kernel dropped: of sources that are shut out, or without room",
                udp.dropped_by_kernel,
            ),
            (
                "ringwire_sip_overflow",
                "SIP datagrams that the registrar was too busy to take",
                udp.overflow,
            ),
        ]);
    }
    for (name, help, value) in counters {
        let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
        ConstCounter::new(value).encode(family.encode_family(&[("role", role)])?)?;
    }

    let mut family = encoder.encode_descriptor(
        "ringwire_refusals",
        "Refused calls and ignored messages by reason",
        None,
        MetricType::Counter,
    )?;
    for (reason, count) in &state.refusals {
        let labels = [("reason", reason.as_str())];
        ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
    }
    let mut family = encoder.encode_descriptor(
        "ringwire_connections_cut_off",
        "Carriers' connections that were cut off or refused, by reason",
        None,
        MetricType::Counter,
    )?;
    for (reason, count) in &state.cut_off {
        let labels = [("reason", reason.as_str())];
        ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn gauges<const N: usize>(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    values: impl IntoIterator<Item = ([(&'static str, &'static str); N], i64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in values {
        ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
    }
    Ok(())
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// The process as `/proc` shows it.
#[derive(Debug)]
struct Process;

/// Ticks per second of the times in `/proc`: the same on every Linux (`USER_HZ`).
const TICKS: f64 = 100.0;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let metric = ConstGauge::new(signed(runtime.metrics().num_alive_tasks()));
            metric.encode(encoder.encode_descriptor(
                "ringwire_tasks",
                "Asynchronous tasks, those of running calls left out",
                None,
                MetricType::Gauge,
            )?)?;
        }
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            let number = |key: &str| -> Option<i64> {
                let line = status.lines().find_map(|line| line.strip_prefix(key))?;
                line.split_whitespace().next()?.parse().ok()
            };
            let gauges = [
                (
                    "process_resident_memory_bytes",
                    "Resident memory",
                    number("VmRSS:").map(|kib| kib * 1024),
                ),
                ("process_threads", "Threads", number("Threads:")),
            ];
            for (name, help, value) in gauges {
                if let Some(value) = value {
                    let metric = ConstGauge::new(value);
                    metric.encode(encoder.encode_descriptor(
                        name,
                        help,
                        None,
                        MetricType::Gauge,
                    )?)?;
                }
            }
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            // Reading the directory opens one more.
            let metric = ConstGauge::new(signed(open.count().saturating_sub(1)));
            metric.encode(encoder.encode_descriptor(
                "process_open_fds",
                "Open files and sockets",
                None,
                MetricType::Gauge,
            )?)?;
        }
        if let Some(seconds) = std::fs::read_to_string("/proc/self/stat")
            .ok()
            .as_deref()
            .and_then(cpu_seconds)
        {
            let metric = ConstCounter::new(seconds);
            metric.encode(encoder.encode_descriptor(
                "process_cpu_seconds",
                "User and system time",
                None,
                MetricType::Counter,
            )?)?;
        }
        Ok(())
    }
}

/// User and system time of a `/proc/PID/stat` line (proc(5): fields 14 and 15).
fn cpu_seconds(stat: &str) -> Option<f64> {
    // The name may hold anything but ends at the last bracket.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    Some(ticks / TICKS)
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text;
    use ringwire_config::Reason;
    use ringwire_config::shard::Role;
    use ringwire_config::token::Incarnation;

    use super::*;

    #[test]
    fn shows_the_report_and_the_process() {
        let mut state = PodState::new("media-0", Role::Media, Incarnation(1));
        state.calls.total = 7;
        state.refusals.insert(Reason::AtCapacity, 3);
        let mut page = String::new();
        text::encode(&mut page, &registry(Reporter::new(state))).unwrap();
        for line in [
            "ringwire_calls_active{role=\"media\"} 7",
            "ringwire_ready{role=\"media\"} 0",
            "ringwire_registrations{state=\"Registered\"} 0",
            "ringwire_refusals_total{reason=\"AtCapacity\"} 3",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} in\n{page}");
        }
        for name in [
            "process_resident_memory_bytes ",
            "process_threads ",
            "process_open_fds ",
            "process_cpu_seconds_total ",
        ] {
            assert!(
                page.lines().any(|line| line.starts_with(name)),
                "{name} in\n{page}"
            );
        }
        assert!(page.ends_with("# EOF\n"));
    }

    #[test]
    fn a_process_name_with_brackets_does_not_shift_the_times() {
        let stat = "1 (a) b) S 0 1 1 0 -1 4194560 1 0 0 0 250 150 0 0 20 0 1 0 5 1 1";
        assert_eq!(cpu_seconds(stat), Some(4.0));
    }
}
