//! What Prometheus sees of the ports for media.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use ringwire_media::ports::Ports;
use ringwire_media::ports::demux::Why;

/// See the module. Read at each scrape.
pub struct PortMetrics(pub Ports);

impl fmt::Debug for PortMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PortMetrics")
    }
}

fn name(why: Why) -> &'static str {
    match why {
        Why::Stranger => "Stranger",
        Why::Ambiguous => "Ambiguous",
        Why::Former => "CallOver",
        Why::BadCheck => "BadCheck",
    }
}

impl Collector for PortMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let stats = self.0.stats();
        let gauges = [
            (
                "ringwire_rtp_port_pairs",
                "Pairs of UDP ports that are open for media; calls share them",
                stats.pairs,
            ),
            (
                "ringwire_rtp_calls_per_port",
                "How many calls a port has at most, as its receive buffer allows; 0 before one is open",
                stats.calls_per_port,
            ),
            (
                "ringwire_rtp_receive_buffer_bytes",
                "The kernel's buffer of a port for media, its own overhead included; 0 before one is open",
                stats.receive_buffer,
            ),
        ];
        for (name, help, value) in gauges {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            let metric = ConstGauge::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Gauge)?)?;
        }
        let busy = ConstGauge::new(stats.busy);
        busy.encode(encoder.encode_descriptor(
            "ringwire_rtp_busy_ratio",
            "How much of the last second the busiest thread for media was busy",
            None,
            MetricType::Gauge,
        )?)?;
        let slow = ConstGauge::new(i64::from(self.0.are_full()));
        slow.encode(encoder.encode_descriptor(
            "ringwire_rtp_too_slow",
            "1 while all threads for media have been too slow for two seconds, and no calls are taken",
            None,
            MetricType::Gauge,
        )?)?;
        let counters = [
            (
                "ringwire_rtp_dropped_by_kernel",
                "RTP packets for which the kernel's buffer had no room",
                stats.dropped_by_kernel,
            ),
            (
                "ringwire_rtp_source_moves",
                "How often a call's RTP came from another address than before",
                stats.moves,
            ),
        ];
        for (name, help, value) in counters {
            let metric = ConstCounter::new(value);
            metric.encode(encoder.encode_descriptor(name, help, None, MetricType::Counter)?)?;
        }
        let mut family = encoder.encode_descriptor(
            "ringwire_rtp_dropped",
            "Packets on ports for media that were no call's, by why",
            None,
            MetricType::Counter,
        )?;
        for why in Why::ALL {
            let count = ConstCounter::new(stats.nobody[why as usize]);
            count.encode(family.encode_family(&[("reason", name(why))])?)?;
        }
        Ok(())
    }
}
