//! What encryption costs a packet of G.711: `cargo bench -p ringwire-media --bench srtp`. The times are only printed, since they depend on
//! the machine; it fails when a packet asks for memory.
#![expect(clippy::unwrap_used, reason = "a bench fails by panicking")]

use std::hint::black_box;
use std::time::Instant;

use ringwire_media::srtp::{MasterKey, OVERHEAD, Profile, Protect, Unprotect};
use ringwire_sip_allocations as allocations;

/// RTP header and 20 ms.
const PLAIN: usize = 172;
const PACKETS: usize = 20_000;
const ROUNDS: usize = 10;
/// What a G.711 call costs in the clear, both ways: 0.08 % of a core.
const CALL_NANOS: f64 = 16_000.0;

fn main() {
    println!("20 ms of a call in the clear, both ways: {CALL_NANOS} ns");
    let mut packets = vec![[0; PLAIN + OVERHEAD]; PACKETS];
    for profile in Profile::ALL {
        let key = vec![7; profile.key_bytes() + profile.salt_bytes()];
        let key = MasterKey::new(profile, &key).unwrap();
        let (mut protecting, mut unprotecting, mut length) = (f64::MAX, f64::MAX, 0);
        for _ in 0..ROUNDS {
            for (number, packet) in packets.iter_mut().enumerate() {
                packet[..2].copy_from_slice(&[0x80, 0]);
                packet[2..4].copy_from_slice(&(number as u16).to_be_bytes());
            }
            let mut protect = Protect::new(&key).unwrap();
            let mut unprotect = Unprotect::new(&key).unwrap();
            let before = allocations::count();
            let start = Instant::now();
            for packet in &mut packets {
                length = protect.rtp(black_box(packet), PLAIN).unwrap();
            }
            let middle = Instant::now();
            for packet in &mut packets {
                unprotect.rtp(black_box(&mut packet[..length])).unwrap();
            }
            let end = Instant::now();
            assert_eq!(allocations::count(), before, "packets asked for memory");
            let each = |from: Instant, to: Instant| (to - from).as_nanos() as f64 / PACKETS as f64;
            protecting = protecting.min(each(start, middle));
            unprotecting = unprotecting.min(each(middle, end));
        }
        let share = (protecting + unprotecting) / CALL_NANOS * 100.0;
        println!(
            "{profile:?}: protect {protecting:.0} ns, unprotect {unprotecting:.0} ns, together {share:.1} % of the call"
        );
    }
}
