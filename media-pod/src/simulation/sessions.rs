//! Calls that last: session timers (RFC 4028) while registrars come and go.

use ringwire_sip::dialog::EndedBy;
use ringwire_sip::transaction::Transport;

use super::World;
use super::carrier::session_expires;

const MINUTE: u64 = 60;

/// A call that stands; `refresher` is who keeps it alive: the carrier (`uac`), or we (`uas`).
#[track_caller]
fn call(transport: Transport, refresher: &str) -> World {
    let mut world = World::new(transport, vec![session_expires(refresher)]);
    world.run_until(1);
    assert!(world.carrier.answered, "{transport} {refresher}: no answer");
    world
}

#[track_caller]
fn assert_alive(world: &World, refreshes: u32) {
    assert_eq!(world.carrier.ended, None);
    assert_eq!((world.pod.calls(), world.carrier.refreshes), (1, refreshes));
}

#[test]
fn a_call_of_35_minutes_outlives_each_registrar_that_carried_it() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        for refresher in ["uas", "uac"] {
            let mut world = call(transport, refresher);
            // A first refresh after 15 minutes, by another registrar than the one that brought the call.
            world.run_until(10 * MINUTE);
            world.kill_registrars();
            world.run_until(10 * MINUTE + 3);
            world.start_registrar();
            world.run_until(16 * MINUTE);
            assert_alive(&world, 1);
            // And once more: nobody is left who has seen the call begin.
            world.run_until(20 * MINUTE);
            world.kill_registrars();
            world.start_registrar();
            world.run_until(35 * MINUTE);
            assert_alive(&world, 2);
            world.carrier.hang_up(world.now);
            world.run_until(36 * MINUTE);
            assert_eq!(
                world.carrier.ended,
                Some(EndedBy::Us),
                "{transport} {refresher}"
            );
            assert_eq!(world.pod.ended, [EndedBy::Peer], "{transport} {refresher}");
        }
    }
}

#[test]
fn a_refresh_that_finds_no_registrar_goes_when_there_is_one_again() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let mut world = call(transport, "uas");
        world.run_until(14 * MINUTE);
        world.kill_registrars();
        // Due after 15 minutes; the next tries after 22, 26, 28.
        world.run_until(21 * MINUTE);
        assert_alive(&world, 0);
        world.start_registrar();
        world.run_until(24 * MINUTE);
        assert_alive(&world, 1);
        world.run_until(40 * MINUTE);
        assert_alive(&world, 2);
    }
}

#[test]
fn a_refresh_whose_registrar_dies_on_the_way_goes_again() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let mut world = call(transport, "uas");
        world.start_registrar();
        world.run_until(15 * MINUTE - 5);
        // The carrier is silent for a moment, so the refresh is still under way when the registrar dies.
        world.carrier.mute = true;
        world.run_until(15 * MINUTE + 10);
        let survivor = world.registrars.pop().unwrap();
        world.kill_registrars();
        world.registrars.push(survivor);
        world.carrier.mute = false;
        world.run_until(35 * MINUTE);
        assert_eq!(world.carrier.ended, None, "{transport}");
        assert!(world.carrier.refreshes >= 1, "{transport}");
        assert_eq!(world.pod.calls(), 1, "{transport}");
    }
}

#[test]
fn a_call_ends_when_no_refresh_can_be_delivered_until_its_expiry() {
    for transport in [Transport::Udp, Transport::Tcp, Transport::Tls] {
        let mut world = call(transport, "uas");
        world.run_until(10 * MINUTE);
        world.kill_registrars();
        world.run_until(29 * MINUTE);
        assert_eq!(world.pod.calls(), 1, "{transport}: it has half an hour");
        world.run_until(31 * MINUTE);
        assert_eq!(world.pod.calls(), 0, "{transport}");
        assert_eq!(world.pod.ended, [EndedBy::SessionExpired], "{transport}");
    }
}

#[test]
fn a_carrier_that_takes_no_connection_for_a_while_keeps_its_call() {
    let mut world = call(Transport::Tcp, "uas");
    world.run_until(14 * MINUTE);
    world.kill_registrars();
    world.start_registrar();
    world.listens = false;
    world.run_until(20 * MINUTE);
    assert_alive(&world, 0);
    world.listens = true;
    world.run_until(24 * MINUTE);
    assert_alive(&world, 1);
}

#[test]
fn a_carrier_that_answers_no_refresh_has_lost_the_call() {
    let mut world = call(Transport::Udp, "uas");
    world.carrier.mute = true;
    world.run_until(15 * MINUTE + 20);
    assert_eq!(world.pod.calls(), 1);
    world.run_until(16 * MINUTE);
    assert_eq!(world.pod.ended, [EndedBy::SessionExpired]);
}

#[test]
fn a_carrier_that_stops_refreshing_has_lost_the_call() {
    let mut world = call(Transport::Udp, "uac");
    world.carrier.mute = true;
    world.run_until(29 * MINUTE);
    assert_eq!(world.pod.calls(), 1);
    world.run_until(30 * MINUTE);
    assert_eq!(world.pod.ended, [EndedBy::SessionExpired]);
}
