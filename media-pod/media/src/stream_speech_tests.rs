//! What the agent says: when it leaves, its marks, and what becomes of it on hold.

use super::*;

fn marks(events: &[StreamEvent]) -> Vec<&str> {
    events
        .iter()
        .filter_map(|event| match event {
            StreamEvent::MarkPlayed(name) => Some(name.as_str()),
            _ => None,
        })
        .collect()
}

#[test]
fn agent_audio_is_paced_and_marks_come_back_when_played() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.stream.mark("at once".into());
    bench.play(&[1; 160]);
    bench.play(&[2; 200]);
    bench.stream.mark("end".into());
    let (packets, events) = bench.tick();
    assert_eq!(packets[0].4, [1; 160]);
    assert_eq!(marks(&events), ["at once"]);
    let (packets, events) = bench.tick();
    assert_eq!(packets[0].4, [2; 160]);
    assert!(marks(&events).is_empty());
    let (packets, events) = bench.tick();
    assert_eq!(packets[0].4[..40], [2; 40]);
    assert_eq!(packets[0].4[40..], [ULAW_SILENCE; 120]);
    assert_eq!(marks(&events), ["end"]);
    assert_eq!(bench.payload(), [ULAW_SILENCE; 160]);
}

#[test]
fn an_agent_in_real_time_gets_a_cushion_of_one_frame() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.tick();
    bench.play(&[1; 160]);
    assert_eq!(bench.payload(), [ULAW_SILENCE; 160]);
    bench.play(&[2; 160]);
    assert_eq!(bench.payload(), [1; 160]);
    // This frame is late by up to a tick and nobody hears it.
    assert_eq!(bench.payload(), [2; 160]);
    bench.play(&[3; 160]);
    bench.play(&[4; 160]);
    assert_eq!(bench.payload(), [3; 160]);
}

/// Runs to that time, a millisecond at a time. When packets left since `begin`, their timestamps in packets, and whether they spoke.
fn run(bench: &mut Bench, begin: Instant, until_millis: u64) -> Vec<(u64, u32, bool)> {
    let mut sent = Vec::new();
    let mut out = [0; PACKET_BYTES];
    while bench.now <= begin + Duration::from_millis(until_millis) {
        bench.stream.handle_timeout(bench.now);
        while let Some((length, _)) = bench.stream.poll_transmit(&mut out) {
            let packet = Packet::parse(&out[..length]).unwrap();
            let number = packet.timestamp.wrapping_sub(u32::MAX - 100) / 160;
            let at = bench.now.duration_since(begin).as_millis() as u64;
            sent.push((at, number, packet.payload[0] != ULAW_SILENCE));
        }
        while bench.stream.poll_event().is_some() {}
        bench.now += Duration::from_millis(1);
    }
    sent
}

#[test]
fn a_talk_spurt_leaves_when_it_is_due_and_silence_goes_back_to_the_grid() {
    for (cushion, speaks_at) in [(0, 7), (5, 12), (20, 27), (50, 57)] {
        let mut bench = Bench::with_cushion(Codec::Pcmu, cushion);
        let begin = bench.now;
        let mut sent = run(&mut bench, begin, 6);
        // Three frames in real time.
        for at in [7, 27, 47] {
            sent.extend(run(&mut bench, begin, at - 1));
            bench.play(&[1; 160]);
        }
        sent.extend(run(&mut bench, begin, 200));
        let speaking: Vec<u64> = sent
            .iter()
            .filter_map(|(at, _, speaks)| speaks.then_some(*at))
            .collect();
        assert_eq!(
            speaking,
            [speaks_at, speaks_at + 20, speaks_at + 40],
            "cushion {cushion}"
        );
        let numbers: Vec<u32> = sent.iter().map(|(_, number, _)| *number).collect();
        assert!(numbers.iter().copied().eq(0..numbers.len() as u32));
        for (at, number, speaks) in &sent {
            let clock = u64::from(*number) * 20;
            assert!(*at <= clock && clock - at <= 20, "{number} at {at} ms");
            let in_spurt = (speaks_at..=speaks_at + 60).contains(at);
            assert!(*speaks || in_spurt || *at == clock, "{number} at {at} ms");
        }
    }
}

#[test]
fn a_talk_spurt_of_one_frame_leaves_when_it_is_due() {
    let mut bench = Bench::new(Codec::Pcmu);
    let begin = bench.now;
    run(&mut bench, begin, 6);
    bench.play(&[1; 160]);
    let sent = run(&mut bench, begin, 80);
    let expected = [
        (20, 1, false),
        (27, 2, true),
        (47, 3, false),
        (80, 4, false),
    ];
    assert_eq!(sent, expected);
}

#[test]
fn an_agent_that_is_ahead_needs_no_cushion() {
    let mut bench = Bench::with_cushion(Codec::Pcmu, 60);
    let begin = bench.now;
    run(&mut bench, begin, 6);
    bench.play(&[1; 4 * 160]);
    let sent = run(&mut bench, begin, 40);
    assert_eq!(sent[0], (7, 1, true));
}

#[test]
fn without_a_cushion_what_an_agent_says_in_real_time_leaves_when_it_comes() {
    let mut bench = Bench::with_cushion(Codec::Pcmu, 0);
    let begin = bench.now;
    let mut sent = run(&mut bench, begin, 6);
    // The fifth is later than silence can wait, and what follows has time again.
    for at in [7, 32, 44, 77, 105, 119, 141] {
        sent.extend(run(&mut bench, begin, at - 1));
        bench.play(&[1; 160]);
    }
    sent.extend(run(&mut bench, begin, 185));
    let speaking: Vec<u64> = sent
        .iter()
        .filter_map(|(at, _, speaks)| speaks.then_some(*at))
        .collect();
    assert_eq!(speaking, [7, 32, 44, 77, 105, 119, 141]);
    let silent: Vec<u64> = sent
        .iter()
        .filter_map(|(at, _, speaks)| (!speaks).then_some(*at))
        .collect();
    assert_eq!(silent, [0, 100, 180]);
    let numbers: Vec<u32> = sent.iter().map(|(_, number, _)| *number).collect();
    assert!(numbers.iter().copied().eq(0..numbers.len() as u32));
}

#[test]
fn without_a_cushion_an_agent_that_is_ahead_is_paced() {
    let mut bench = Bench::with_cushion(Codec::Pcmu, 0);
    let begin = bench.now;
    run(&mut bench, begin, 6);
    let mut sent = Vec::new();
    for at in 7..10 {
        bench.play(&[1; 160]);
        sent.extend(run(&mut bench, begin, at));
    }
    sent.extend(run(&mut bench, begin, 90));
    let times: Vec<u64> = sent.iter().map(|(at, ..)| *at).collect();
    // The second comes as one in real time would, the third does not.
    assert_eq!(times, [7, 10, 30, 80], "{times:?}");
}

#[test]
fn what_is_less_than_a_frame_leaves_with_the_grid() {
    let mut bench = Bench::with_cushion(Codec::Pcmu, 0);
    let begin = bench.now;
    run(&mut bench, begin, 6);
    bench.play(&[1; 80]);
    let sent = run(&mut bench, begin, 45);
    assert_eq!(sent, [(20, 1, true), (40, 2, false)]);
}

#[test]
fn spurts_one_upon_another_stay_within_20_ms_of_the_clock() {
    let mut bench = Bench::with_cushion(Codec::Pcmu, 0);
    let begin = bench.now;
    let mut sent = Vec::new();
    let mut at = 3;
    for step in 0..500 {
        sent.extend(run(&mut bench, begin, at));
        bench.play(&[1; 160]);
        // Sometimes before the last one has been played, sometimes long after.
        at += [21, 33, 40, 57, 79, 22, 150][step % 7];
    }
    for pair in sent.windows(2) {
        let spacing = pair[1].0 - pair[0].0;
        assert!((1..=40).contains(&spacing), "{pair:?}");
    }
    for (at, number, _) in &sent {
        let clock = u64::from(*number) * 20;
        assert!(*at <= clock && clock - at <= 20, "{number} at {at} ms");
    }
    assert_eq!(sent.iter().filter(|(_, _, speaks)| *speaks).count(), 499);
}

#[test]
fn a_talk_spurt_starts_with_the_marker_bit() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.tick();
    bench.play(&[1; 480]);
    let markers: Vec<_> = (0..4).map(|_| bench.tick().0[0].0).collect();
    assert_eq!(markers, [true, false, false, false]);
}

#[test]
fn clear_holds_from_the_next_packet_and_returns_the_marks() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.play(&[1; 8000]);
    bench.stream.mark("a".into());
    bench.play(&[1; 8000]);
    bench.stream.mark("b".into());
    assert_eq!(bench.payload(), [1; 160]);
    bench.stream.clear();
    let (packets, events) = bench.tick();
    assert_eq!(packets[0].4, [ULAW_SILENCE; 160]);
    assert_eq!(marks(&events), ["a", "b"]);
    assert_eq!(bench.stream.queued_millis(), 0);
}

#[test]
fn audio_beyond_120_s_is_dropped_and_said_once() {
    let mut bench = Bench::new(Codec::Pcmu);
    for _ in 0..125 {
        bench.play(&[1; 8000]);
    }
    let (_, events) = bench.tick();
    assert_eq!(
        events
            .iter()
            .filter(|event| **event == StreamEvent::AgentAudioOverflow)
            .count(),
        1
    );
    assert_eq!(bench.stream.queued_millis(), 119_980);
    bench.play(&[1; 8000]);
    assert!(!bench.tick().1.contains(&StreamEvent::AgentAudioOverflow));
}

#[test]
fn marks_without_audio_stay_bounded_and_are_never_lost() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.play(&[1; 320]);
    for number in 0..1000 {
        bench.stream.mark(number.to_string());
    }
    let mut heard = 0;
    for _ in 0..3 {
        heard += marks(&bench.tick().1).len();
    }
    assert_eq!(heard, 1000);
}

#[test]
fn on_hold_nothing_is_sent_the_agents_audio_passes_unheard_and_timestamps_run_on() {
    let mut bench = Bench::new(Codec::Pcmu);
    let (packets, _) = bench.tick();
    let first = packets[0].3;
    let held = Session {
        send: false,
        receive: false,
        ..session(Codec::Pcmu)
    };
    bench.stream.update(held, bench.now);
    // The last 320 samples are still to be said when the hold ends.
    bench.play(&[7; 47 * 160]);
    bench.stream.mark("during hold".into());
    bench.play(&[9; 5 * 160]);
    let mut marks = 0;
    for _ in 0..50 {
        let (packets, events) = bench.tick();
        assert!(packets.is_empty());
        assert_eq!(bench.frames.len(), 1);
        marks += events
            .iter()
            .filter(|event| matches!(event, StreamEvent::MarkPlayed(_)))
            .count();
    }
    assert_eq!(marks, 1);
    assert!(bench.stream.on_hold());
    bench.stream.update(session(Codec::Pcmu), bench.now);
    assert_eq!(bench.stream.idle_for(bench.now), Duration::ZERO);
    let (packets, _) = bench.tick();
    assert_eq!(packets[0].3, first.wrapping_add(51 * 160));
    assert_eq!(
        (packets[0].0, packets[0].2, packets[0].4[0]),
        (true, 65_535, 9)
    );
}

#[test]
fn paused_playback_sends_silence_until_released() {
    let mut bench = Bench::new(Codec::Pcmu);
    bench.stream.pause_playback(true, bench.now);
    bench.play(&[3; 320]);
    assert_eq!(bench.payload(), [ULAW_SILENCE; 160]);
    bench.stream.pause_playback(false, bench.now);
    assert_eq!(bench.payload(), [3; 160]);
}
