//! What only this codec has. The rest is in the tests of all codecs.

use super::*;

#[test]
fn frames_of_30_ms_leave_as_they_fill_and_say_when_they_began() {
    let mut encoder = IlbcEncoder::new(IlbcMode::Millis30);
    let mut payload = [0; 100];
    let mut made = |encoder: &mut IlbcEncoder| {
        let length = encoder.encode(&[100; 160], &mut payload);
        (length, encoder.lead())
    };
    let lengths: Vec<_> = (0..6).map(|_| made(&mut encoder)).collect();
    assert_eq!(
        lengths,
        [(0, 0), (50, 160), (50, 80), (0, 0), (50, 160), (50, 80)]
    );
    made(&mut encoder);
    // A key was sent: what waits would be heard behind it.
    encoder.skip();
    assert_eq!(made(&mut encoder).0, 0);
    assert_eq!(made(&mut encoder), (50, 160));
}

#[test]
fn only_whole_frames_of_the_agreed_length_are_taken() {
    let mut payload = [0; 100];
    for (mode, other, bytes, samples) in [
        (IlbcMode::Millis20, IlbcMode::Millis30, 38, 160),
        (IlbcMode::Millis30, IlbcMode::Millis20, 50, 240),
    ] {
        let mut encoder = IlbcEncoder::new(mode);
        encoder.encode(&[0; 160], &mut payload);
        encoder.encode(&[0; 160], &mut payload);
        let decoder = IlbcDecoder::new(mode);
        assert_eq!(decoder.ticks(&payload[..bytes]), Some(samples));
        assert_eq!(decoder.ticks(&payload[..bytes - 1]), None);
        assert_eq!(IlbcDecoder::new(other).ticks(&payload[..bytes]), None);
        let twice = payload[..bytes].repeat(2);
        assert_eq!(decoder.ticks(&twice), Some(2 * samples));
        // The last bit: nothing was coded.
        payload[bytes - 1] |= 1;
        assert_eq!(decoder.ticks(&payload[..bytes]), None);
    }
}
