//! What Prometheus sees of the sound of calls. Each is counted when it is over.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use ringwire_media::stream::StreamStats;

/// Mean opinion scores; from 3.6 on most people are satisfied (ITU-T G.107 annex B).
const SCORES: [f64; 8] = [1.5, 2.0, 2.6, 3.1, 3.6, 4.0, 4.2, 4.3];
const JITTERS: [f64; 7] = [0.001, 0.003, 0.01, 0.02, 0.04, 0.08, 0.16];
const ROUND_TRIPS: [f64; 8] = [0.005, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Direction {
    direction: &'static str,
}

/// From the caller.
const IN: Direction = Direction { direction: "in" };
/// To the caller.
const OUT: Direction = Direction { direction: "out" };

/// See the module. Copies count together.
#[derive(Clone, Debug)]
pub struct CallMetrics {
    packets: Family<Direction, Counter>,
    lost: Family<Direction, Counter>,
    late: Counter,
    concealed: Counter,
    one_way: Family<Direction, Counter>,
    scores: Family<Direction, Histogram>,
    jitter: Histogram,
    round_trip: Histogram,
}

impl Default for CallMetrics {
    fn default() -> Self {
        Self {
            packets: Family::default(),
            lost: Family::default(),
            late: Counter::default(),
            concealed: Counter::default(),
            one_way: Family::default(),
            scores: Family::new_with_constructor(|| Histogram::new(SCORES)),
            jitter: Histogram::new(JITTERS),
            round_trip: Histogram::new(ROUND_TRIPS),
        }
    }
}

impl CallMetrics {
    /// Shows them there.
    pub fn register(&self, registry: &mut Registry) {
        let packets = "RTP packets of calls that are over; in: from the caller, out: to the caller";
        registry.register("ringwire_rtp_packets", packets, self.packets.clone());
        let lost = "Those that never came; out: as the callers' reports tell";
        registry.register("ringwire_rtp_packets_lost", lost, self.lost.clone());
        let late = "Packets of callers that came too late to be played";
        registry.register("ringwire_rtp_packets_late", late, self.late.clone());
        let concealed = "Frames of 20 ms that were made up because no packet was there";
        registry.register(
            "ringwire_rtp_frames_concealed",
            concealed,
            self.concealed.clone(),
        );
        let one_way = "Calls in which sound went one way only; in: nothing from the caller, out: nothing reached him";
        registry.register("ringwire_one_way_calls", one_way, self.one_way.clone());
        let scores = "Estimated mean opinion score of each call (ITU-T G.107); in: how well the agent hears, out: how well the caller does";
        registry.register("ringwire_call_mos", scores, self.scores.clone());
        let jitter = "Interarrival jitter of each call's packets (RFC 3550)";
        registry.register_with_unit(
            "ringwire_call_jitter",
            jitter,
            Unit::Seconds,
            self.jitter.clone(),
        );
        let round_trip = "Time to the caller and back, as his reports tell";
        let name = "ringwire_call_round_trip";
        registry.register_with_unit(name, round_trip, Unit::Seconds, self.round_trip.clone());
    }

    /// Counts a call that is over.
    pub fn over(&self, stats: &StreamStats) {
        let count = |family: &Family<Direction, Counter>, direction: &Direction, number: u64| {
            family.get_or_create(direction).inc_by(number);
        };
        count(&self.packets, &IN, stats.packets_received);
        count(&self.packets, &OUT, stats.packets_sent);
        count(&self.lost, &IN, stats.packets_lost);
        count(&self.lost, &OUT, stats.packets_lost_remote.unwrap_or(0));
        self.late.inc_by(stats.late);
        self.concealed.inc_by(stats.concealed);
        for (direction, score) in [(&IN, stats.mos), (&OUT, stats.mos_remote)] {
            if let Some(score) = score {
                self.scores.get_or_create(direction).observe(score);
            }
        }
        if stats.packets_received > 0 {
            self.jitter.observe(stats.jitter_millis / 1000.0);
        }
        if let Some(millis) = stats.round_trip_millis {
            self.round_trip.observe(millis / 1000.0);
        }
    }

    /// Sound goes one way only in a call; `from_caller`: nothing comes.
    pub fn one_way(&self, from_caller: bool) {
        let direction = if from_caller { &IN } else { &OUT };
        self.one_way.get_or_create(direction).inc();
    }
}
