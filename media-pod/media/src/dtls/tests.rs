use super::*;

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn pair(
    client_expects: &Fingerprint,
    server_expects: &Fingerprint,
    identities: &[Arc<Identity>; 2],
) -> [Handshake; 2] {
    let now = Instant::now();
    let terms = |index: usize, expects: &Fingerprint| Terms {
        identity: Arc::clone(&identities[index]),
        active: index == 0,
        fingerprints: vec![expects.clone()],
    };
    [
        Handshake::new(&terms(0, client_expects), now),
        Handshake::new(&terms(1, server_expects), now),
    ]
}

fn identities() -> [Arc<Identity>; 2] {
    [(), ()].map(|()| Arc::new(Identity::generate().unwrap()))
}

/// Numbers that look random (Marsaglia's xorshift).
fn numbers(seed: u64) -> impl Iterator<Item = u64> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 8
    })
}

/// Carries datagrams to and fro; so many of a hundred are lost.
fn shake(pair: &mut [Handshake; 2], lost: u64) {
    let mut now = Instant::now();
    let mut numbers = numbers(0x5eed);
    for _ in 0..200 {
        for at in 0..2 {
            while let Some((datagram, _)) = pair[at].poll_transmit() {
                assert!(Handshake::is_meant(&datagram));
                if numbers.next().unwrap() % 100 >= lost {
                    pair[1 - at].take(&datagram, address(at as u16), now);
                }
            }
        }
        now += Duration::from_millis(100);
        for one in pair.iter_mut() {
            if one.poll_timeout().is_some_and(|due| due <= now) {
                one.handle_timeout(now);
            }
        }
    }
}

#[test]
fn both_sides_get_the_same_keys_though_datagrams_are_lost() {
    for lost in [0, 10, 25] {
        let identities = identities();
        let [client, server] = [0, 1].map(|at| identities[at].fingerprint());
        let mut pair = pair(&server, &client, &identities);
        shake(&mut pair, lost);
        let [(client_send, client_receive), (server_send, server_receive)] =
            pair.each_mut().map(|one| one.take_keys().unwrap());
        assert!(client_send == server_receive && client_receive == server_send);
        assert!(client_send != client_receive);
        assert!(pair.iter().all(|one| one.poll_timeout().is_none()));
    }
}

#[test]
fn another_certificate_than_the_one_told_gives_no_keys() {
    let identities = identities();
    let [client, server] = [0, 1].map(|at| identities[at].fingerprint());
    for (client_expects, server_expects, who) in [(&client, &client, 0), (&server, &server, 1)] {
        let mut pair = pair(client_expects, server_expects, &identities);
        shake(&mut pair, 0);
        assert!(pair[who].take_keys().is_none());
        assert!(pair[who].take_failure().unwrap().contains("fingerprint"));
        assert!(pair[1 - who].take_keys().is_none() || who == 1);
    }
}

#[test]
fn nobody_there_is_a_failure_after_a_while() {
    let identities = identities();
    let nobody = identities[1].fingerprint();
    for active in [true, false] {
        let mut now = Instant::now();
        let terms = Terms {
            identity: Arc::clone(&identities[0]),
            active,
            fingerprints: vec![nobody.clone()],
        };
        let mut handshake = Handshake::new(&terms, now);
        let (start, mut sent) = (now, 0);
        while let Some(due) = handshake.poll_timeout() {
            now = due;
            handshake.handle_timeout(now);
            sent += std::iter::from_fn(|| handshake.poll_transmit()).count();
            assert!(now - start < Duration::from_secs(20));
        }
        assert!(handshake.take_failure().is_some());
        assert_eq!(active, sent > 1, "{sent}");
    }
}

#[test]
fn junk_does_not_end_a_handshake() {
    let identities = identities();
    let [client, server] = [0, 1].map(|at| identities[at].fingerprint());
    let mut pair = pair(&server, &client, &identities);
    let now = Instant::now();
    for length in [1, 12, 13, 25, 60, 1400] {
        for first in [20, 21, 22, 23, 25, 63] {
            let mut junk = vec![0xff; length];
            junk[0] = first;
            for one in &mut pair {
                one.take(&junk, address(9), now);
            }
        }
    }
    shake(&mut pair, 0);
    assert!(pair.iter_mut().all(|one| one.take_keys().is_some()));
}

/// What each side sends in a handshake, in order.
fn flights(identities: &[Arc<Identity>; 2]) -> Vec<(usize, Vec<u8>)> {
    let [client, server] = [0, 1].map(|at| identities[at].fingerprint());
    let mut pair = pair(&server, &client, identities);
    let (mut sent, now) = (Vec::new(), Instant::now());
    for at in [0, 1].repeat(4) {
        while let Some((datagram, _)) = pair[at].poll_transmit() {
            pair[1 - at].take(&datagram, address(1), now);
            sent.push((at, datagram));
        }
    }
    assert!(pair.iter_mut().all(|one| one.take_keys().is_some()));
    sent
}

/// Changes a datagram: bytes, its length, or its parts' order.
fn spoil(datagram: &mut Vec<u8>, numbers: &mut impl Iterator<Item = u64>) {
    let mut below = |end: usize| (numbers.next().unwrap() % end.max(1) as u64) as usize;
    for _ in 0..=below(4) {
        let (at, length) = (below(datagram.len()), datagram.len());
        match below(5) {
            0 => datagram[at] ^= 1 << below(8),
            1 => datagram[at] = below(256) as u8,
            2 => datagram.truncate(at.max(1)),
            3 => datagram.rotate_left(at % 32),
            _ => datagram.extend_from_within(at..length.min(at + 40)),
        }
    }
}

#[test]
fn spoilt_datagrams_cost_a_handshake_at_most() {
    let identities = identities();
    let [client, server] = [0, 1].map(|at| identities[at].fingerprint());
    let genuine = flights(&identities);
    let mut numbers = numbers(0x5eed);
    let mut connected = 0;
    for _ in 0..300 {
        let mut pair = pair(&server, &client, &identities);
        let now = Instant::now();
        for at in [0, 1].repeat(5) {
            // Before each side's turn the other hears something that was never said like that.
            for _ in 0..2 {
                let (_, like) = &genuine[numbers.next().unwrap() as usize % genuine.len()];
                let mut spoilt = like.clone();
                spoil(&mut spoilt, &mut numbers);
                pair[1 - at].take(&spoilt, address(9), now);
            }
            while let Some((datagram, _)) = pair[at].poll_transmit() {
                pair[1 - at].take(&datagram, address(1), now);
            }
        }
        let [ours, theirs] = pair.each_mut().map(Handshake::take_keys);
        if let (Some((send, receive)), Some((theirs, back))) = (&ours, &theirs) {
            assert!(send == back && receive == theirs);
            connected += 1;
        }
    }
    println!("{connected} of 300 connected");
    assert!(connected > 20, "{connected}");
}

#[test]
fn a_handshake_in_the_smallest_pieces_ends_somewhere() {
    let identities = identities();
    let terms = Terms {
        identity: Arc::clone(&identities[0]),
        active: false,
        fingerprints: vec![identities[1].fingerprint()],
    };
    let (now, began) = (Instant::now(), Instant::now());
    let mut handshake = Handshake::new(&terms, now);
    for piece in 0..20_000_u32 {
        let mut datagram = vec![22, 0xfe, 0xfd, 0, 0, 0, 0];
        datagram.extend_from_slice(&piece.to_be_bytes());
        datagram.extend_from_slice(&[0, 12 + 1, 1, 0, 0x40, 0, 0, 0, 0]);
        datagram.extend_from_slice(&(piece % 0x4000).to_be_bytes()[1..]);
        datagram.extend_from_slice(&[0, 0, 1, 7]);
        handshake.take(&datagram, address(1), now);
    }
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(handshake.poll_timeout().is_some(), "it waits on");
}

#[test]
fn an_alert_in_the_clear_is_told() {
    let identities = identities();
    let [client, server] = [0, 1].map(|at| identities[at].fingerprint());
    for at in [0, 1] {
        let mut pair = pair(&server, &client, &identities);
        let alert = |level: u8| {
            let mut record = vec![21, 0xfe, 0xfd];
            record.extend_from_slice(&[0; 8]);
            record.extend_from_slice(&[0, 2, level, 40]);
            record
        };
        let now = Instant::now();
        pair[at].take(&alert(1), address(1), now);
        assert!(pair[at].take_failure().is_none(), "a warning");
        pair[at].take(&alert(2), address(1), now);
        assert!(pair[at].take_failure().unwrap().contains("alert 40"));
        assert!(pair[at].poll_transmit().is_none());
    }
}

#[test]
fn a_server_takes_a_client_that_begins_anew() {
    let identities = identities();
    let [client, server] = [0, 1].map(|at| identities[at].fingerprint());
    let [mut stray, mut answering] = pair(&server, &client, &identities);
    let now = Instant::now();
    let (lost, _) = stray.poll_transmit().unwrap();
    answering.take(&lost, address(1), now);
    while answering.poll_transmit().is_some() {}
    let [beginning, _] = pair(&server, &client, &identities);
    let mut both = [beginning, answering];
    shake(&mut both, 0);
    assert!(both.iter_mut().all(|one| one.take_keys().is_some()));
}

/// The end of the handshake is lost, and said again for as long as the peer asks.
#[test]
fn a_lost_end_is_said_again() {
    let identities = identities();
    let [client, server] = [0, 1].map(|at| identities[at].fingerprint());
    let mut both = pair(&server, &client, &identities);
    let mut now = Instant::now();
    let mut lost = 0;
    while both[0].poll_timeout().is_some() {
        for at in [0, 1] {
            while let Some((datagram, _)) = both[at].poll_transmit() {
                // What the server says at its end, five times.
                if at == 1 && both[1].stage == Stage::Connected && lost < 5 {
                    lost += 1;
                } else {
                    both[1 - at].take(&datagram, address(1), now);
                }
            }
        }
        now += Duration::from_millis(100);
        both[0].handle_timeout(now);
        both[1].handle_timeout(now);
    }
    assert_eq!((both[0].stage, lost), (Stage::Connected, 5));
    assert!(both.iter_mut().all(|one| one.take_keys().is_some()));
}
