//! What the jitter buffer costs for each packet: `cargo bench -p ringwire-media --bench jitter`. 400 calls in turns, so that their memory is
//! not in the nearest cache, as in a pod.

use std::time::{Duration, Instant};

use ringwire_media::FRAME_SAMPLES;
use ringwire_media::jitter::{Delay, JitterBuffer, Position, Ulaw};

const CALLS: usize = 400;
const TICKS: u32 = 2000;

fn main() {
    for (name, delay) in [
        ("adaptive", Delay::Adaptive),
        ("fixed 40 ms", Delay::Fixed(40)),
    ] {
        let mut buffers: Vec<_> = (0..CALLS).map(|_| JitterBuffer::ulaw(delay)).collect();
        let mut now = Instant::now();
        let payload = [0x23; FRAME_SAMPLES];
        let mut frame = [0; FRAME_SAMPLES];
        let begun = Instant::now();
        for tick in 0..TICKS {
            now += Duration::from_millis(20);
            for buffer in &mut buffers {
                let at = Position {
                    ssrc: 1,
                    sequence: tick as u16,
                    timestamp: tick * 160,
                    marker: false,
                };
                buffer.insert(at, 160, payload.iter().copied(), now);
                buffer.pop(&mut Ulaw, &mut frame, now);
                std::hint::black_box(&frame);
            }
        }
        let each = begun.elapsed() / (TICKS * CALLS as u32);
        println!(
            "{name}: {} ns for a packet in and a frame out",
            each.as_nanos()
        );
    }
}
