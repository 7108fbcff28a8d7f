//! SIP over TLS, with carriers that prove who they are and ones that do not, and with a certificate of our own that is renewed.

use std::io::{Read, Write};
use std::process::Stdio;

use ringwire_tests::address::{Address, Loopback6};
use ringwire_tests::baresip::Baresip;
use ringwire_tests::carrier::Carrier;
use ringwire_tests::certificates::{Authority, Issued, secret};
use ringwire_tests::gateway::{self, Gateway};
use ringwire_tests::manifests::{
    NUMBER, account, echo, media_gateway, number, registering_trunk, static_trunk,
};
use ringwire_tests::process;
use ringwire_tests::scratch::Scratch;
use ringwire_tests::wait::{self, seconds};

use crate::ECHO_EXPECTED;

pub const TLS: [&str; 2] = ["--tls-port", "5061"];

/// A server with a trunk at this carrier over TLS, that trusts this authority.
pub fn start(carrier: &Carrier, tls: &str, authority: &str) -> Gateway {
    let spec = format!("transport: TLS, tls: {{caSecretRef: {{name: authority}}, {tls}}}");
    let trunk = registering_trunk("trunk", carrier.ip(), &spec);
    let set = [
        trunk,
        account("trunk1", "secret1"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
    ];
    Gateway::start(&[
        ("all.yaml", &set.join("---\n")),
        (
            "authority.yaml",
            &secret("authority", &[("ca.crt", authority)]),
        ),
    ])
}

#[test]
fn registers_over_tls_and_is_called_over_the_same_connection() {
    let carrier = Carrier::start(&TLS);
    let gateway = start(&carrier, "", &carrier.authority());
    let registration = gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
    let contact = registration["contact"].as_str().unwrap();
    let ours = format!("{}:5061;transport=tls", gateway.ip());
    assert!(contact.contains(&ours), "{contact}");
    let status = gateway.object("SipProvider", "trunk")["status"].clone();
    assert_eq!(status["transport"], "TLS", "{status}");
    assert_eq!(status["server"], format!("{}:5061", carrier.ip()));

    // Nothing listens for TLS at ours: the call can only come over the connection that registered.
    let caller = Address::claim();
    let target = format!("sip:{NUMBER}@{}", carrier.sip());
    let arguments = [&["--header", "X-Provider: network"], &ECHO_EXPECTED[..]].concat();
    let call = gateway::call(&target, caller.ip(), &arguments);
    assert!(call.success, "{}", call.result);
    assert_eq!(gateway.record()["provider"], "default/trunk");
}

#[test]
fn ringwire_call_speaks_tls_with_those_whom_it_trusts() {
    let carrier = Carrier::start(&TLS);
    let gateway = start(&carrier, "", &carrier.authority());
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
    let (caller, scratch) = (Address::claim(), Scratch::new("authority"));
    let authority = scratch.path().join("ca.crt");
    std::fs::write(&authority, carrier.authority()).unwrap();
    let authority = authority.to_str().unwrap();
    let network = ["--header", "X-Provider: network"];
    for target in [
        format!("sips:{NUMBER}@{}", carrier.ip()),
        format!("sip:{NUMBER}@{}:5061;transport=tls", carrier.ip()),
    ] {
        let trusting = [&network[..], &["--ca", authority], &ECHO_EXPECTED].concat();
        let call = gateway::call(&target, caller.ip(), &trusting);
        assert!(call.success, "{}", call.result);
        assert_eq!(call.result["transport"], "TLS", "{}", call.result);
        let call = gateway::call(&target, caller.ip(), &network);
        let failure = call.result["failure"].to_string();
        assert!(failure.contains("not trusted"), "{}", call.result);
        assert!(failure.contains("--ca"), "{}", call.result);
    }
}

#[test]
fn a_carrier_that_nobody_vouches_for_is_told_and_its_authority_heals() {
    let carrier = Carrier::start(&TLS);
    let other = Authority::new("somebody else");
    let gateway = start(&carrier, "", &other.certificate());
    let registration =
        gateway.wait_registration("trunk", "Unregistered", "TlsUntrusted", seconds(5));
    let message = registration["message"].as_str().unwrap();
    assert!(message.contains("spec.tls.caSecretRef"), "{message}");
    assert_eq!(carrier.contacts(), Vec::<String>::new());
    let right = secret("authority", &[("ca.crt", &carrier.authority())]);
    gateway.write("authority.yaml", &right);
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
}

#[test]
fn a_certificate_for_another_name_is_not_trusted() {
    let carrier = Carrier::start(&TLS);
    let gateway = start(
        &carrier,
        "serverName: sip.example.com",
        &carrier.authority(),
    );
    let registration =
        gateway.wait_registration("trunk", "Unregistered", "TlsUntrusted", seconds(5));
    let message = registration["message"].as_str().unwrap();
    assert!(message.contains("sip.example.com"), "{message}");
    // The carrier's certificate is good for this one.
    let gateway = start(
        &carrier,
        "serverName: sip.carrier.test",
        &carrier.authority(),
    );
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
}

#[test]
fn a_port_that_speaks_no_tls_is_told() {
    let carrier = Carrier::start(&TLS);
    let spec = "transport: TLS, port: 5060, tls: {caSecretRef: {name: authority}}";
    let set = [
        registering_trunk("trunk", carrier.ip(), spec),
        account("trunk1", "secret1"),
        secret("authority", &[("ca.crt", &carrier.authority())]),
    ];
    let gateway = Gateway::start(&[("all.yaml", &set.join("---\n"))]);
    let limit = seconds(10);
    let registration = wait::until_ok(limit, "the trunk says why", || {
        let seen = gateway.registration("trunk");
        match seen["reason"].as_str() {
            Some("TlsFailed" | "NoAnswer") => Ok(seen),
            _ => Err(seen.to_string()),
        }
    });
    let message = registration["message"].as_str().unwrap();
    assert!(message.contains("over TLS"), "{message}");
}

#[test]
fn a_carrier_that_asks_for_a_certificate_gets_ours() {
    let authority = Authority::new("the carrier's customers");
    let scratch = Scratch::new("authority");
    let file = scratch.path().join("ca.crt");
    std::fs::write(&file, authority.certificate()).unwrap();
    let carrier = Carrier::start(&[&TLS[..], &["--client-ca", file.to_str().unwrap()]].concat());
    let without = start(&carrier, "", &carrier.authority());
    wait::until_ok(seconds(10), "the trunk without certificate fails", || {
        let seen = without.registration("trunk");
        if seen["state"] == "Unregistered" {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
    drop(without);

    let tls = "clientCertificateSecretRef: {name: ours}";
    let gateway = start(&carrier, tls, &carrier.authority());
    let resolved = |gateway: &Gateway| {
        let object = gateway.object("SipProvider", "trunk");
        let conditions = object["status"]["conditions"].as_array().unwrap().clone();
        let mut conditions = conditions.into_iter();
        conditions
            .find(|condition| condition["type"] == "CredentialsResolved")
            .unwrap()
    };
    let condition = resolved(&gateway);
    assert_eq!(condition["reason"], "SecretNotFound", "{condition}");
    let message = condition["message"].as_str().unwrap();
    assert!(
        message.contains("spec.tls.clientCertificateSecretRef"),
        "{message}"
    );
    let Issued { certificate, key } = authority.issue("ringwire.test");
    let ours = secret("ours", &[("tls.crt", &certificate), ("tls.key", &key)]);
    gateway.write("ours.yaml", &ours);
    gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
}

/// The certificate that a server shows, as openssl sees it: whether it trusts it, and whose it is.
fn shown(at: std::net::SocketAddr, authority: &std::path::Path) -> String {
    let output = process::command("openssl")
        .args(["s_client", "-connect", &at.to_string(), "-CAfile"])
        .arg(authority)
        .args(["-verify_return_error", "-brief"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn our_certificate_is_shown_renewed_and_missed() {
    let authority = Authority::new("ours");
    let scratch = Scratch::new("authority");
    let file = scratch.path().join("ca.crt");
    std::fs::write(&file, authority.certificate()).unwrap();
    let server = media_gateway("{sip: {tls: {secretRef: {name: server}}}}");
    let gateway = Gateway::start(&[("gateway.yaml", &server)]);
    let ready = || {
        let object = gateway.object("MediaGateway", "default");
        let conditions = object["status"]["conditions"].as_array().unwrap().clone();
        let mut conditions = conditions.into_iter();
        conditions
            .find(|condition| condition["type"] == "Ready")
            .unwrap()
    };
    wait::until_ok(seconds(5), "the gateway misses its certificate", || {
        let seen = ready();
        if seen["reason"] == "SecretNotFound" {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
    let tls = std::net::SocketAddr::new(gateway.ip(), 5061);
    for name in ["first.test", "second.test"] {
        let Issued { certificate, key } = authority.issue(name);
        let text = secret("server", &[("tls.crt", &certificate), ("tls.key", &key)]);
        gateway.write("server.yaml", &text);
        wait::until_ok(seconds(5), &format!("{name} is shown"), || {
            let seen = shown(tls, &file);
            if seen.contains(name) && seen.contains("Verification: OK") {
                Ok(())
            } else {
                Err(seen)
            }
        });
    }
    wait::until_ok(seconds(5), "the gateway is content", || {
        let seen = ready();
        if seen["status"] == "True" {
            Ok(())
        } else {
            Err(seen.to_string())
        }
    });
    let addresses = gateway.object("MediaGateway", "default")["status"]["addresses"].clone();
    assert!(
        addresses.to_string().contains(&format!("tls:{tls}")),
        "{addresses}"
    );
    // A certificate that does not belong to its key changes nothing.
    let (one, other) = (authority.issue("third.test"), authority.issue("third.test"));
    let text = secret(
        "server",
        &[("tls.crt", &one.certificate), ("tls.key", &other.key)],
    );
    gateway.write("server.yaml", &text);
    std::thread::sleep(seconds(1));
    assert!(shown(tls, &file).contains("second.test"));
}

#[test]
fn openssl_asks_whether_we_are_still_there() {
    let authority = Authority::new("ours");
    let Issued { certificate, key } = authority.issue("first.test");
    let set = [
        media_gateway("{sip: {tls: {secretRef: {name: server}}}}"),
        secret("server", &[("tls.crt", &certificate), ("tls.key", &key)]),
    ];
    let gateway = Gateway::start(&[("all.yaml", &set.join("---\n"))]);
    let mut client = process::command("openssl")
        .args(["s_client", "-quiet", "-connect"])
        .arg(format!("{}:5061", gateway.ip()))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut there, mut back) = (client.stdin.take().unwrap(), client.stdout.take().unwrap());
    // RFC 5626 section 3.5.1. Without an answer the connection is closed in the end, and there is nothing more to read.
    for _ in 0..3 {
        there.write_all(b"\r\n\r\n").unwrap();
        let mut answer = [0; 2];
        back.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"\r\n");
    }
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn a_phone_calls_over_tls() {
    let authority = Authority::new("ours");
    let samples = ringwire_media::tone::speech_like(3_000, 7);
    let mut phone = Baresip::over_tls(&samples, "PCMU/8000/1", &authority.certificate());
    let Issued { certificate, key } = authority.issue(&phone.here().to_string());
    let set = [
        static_trunk("10.0.0.0", "allowedSources: [0.0.0.0/0]"),
        number("main", NUMBER, "trunk", "bot"),
        echo("bot", ""),
        media_gateway("{sip: {tls: {secretRef: {name: server}}}}"),
        secret("server", &[("tls.crt", &certificate), ("tls.key", &key)]),
    ];
    let gateway = Gateway::start_on(phone.here(), &[("all.yaml", &set.join("---\n"))]);
    phone.command(
        "dial",
        &format!("sip:{NUMBER}@{}:5061;transport=tls", phone.here()),
    );
    phone.wait_event("CALL_ESTABLISHED", seconds(10));
    // Ended by us: our BYE takes the way that the call came.
    phone.command("hangup", "");
    let record = wait::until(seconds(10), "a record", || gateway.records().pop());
    assert_eq!(record["reason"], "CallerHungUp", "{record}");
}

#[test]
fn tls_works_over_ipv6_whoever_connects() {
    let loopback = Loopback6::claim();
    let authority = Authority::new("ours");
    let Issued { certificate, key } = authority.issue("::1");
    let network = [&["--header", "X-Provider: network"], &ECHO_EXPECTED[..]].concat();
    // Over the connection that registered, or over one that the carrier makes to our listener.
    for follow in ["contact", "listener"] {
        let options = ["--tls-port", "5071", "--follow", follow];
        let carrier = Carrier::start_on(loopback.ip(), &options);
        let spec = "transport: TLS, port: 5071, tls: {caSecretRef: {name: authority}}";
        let set = [
            registering_trunk("trunk", "\"::1\"", spec),
            account("trunk1", "secret1"),
            number("main", NUMBER, "trunk", "bot"),
            echo("bot", ""),
            media_gateway("{sip: {tls: {secretRef: {name: server}}}}"),
            secret("server", &[("tls.crt", &certificate), ("tls.key", &key)]),
            secret("authority", &[("ca.crt", &carrier.authority())]),
        ];
        let gateway = Gateway::start_on(loopback.ip(), &[("all.yaml", &set.join("---\n"))]);
        let registration =
            gateway.wait_registration("trunk", "Registered", "Registered", seconds(5));
        let contact = registration["contact"].as_str().unwrap();
        assert!(contact.contains("@[::1]:5061;transport=tls"), "{contact}");
        let target = format!("sip:{NUMBER}@{}", carrier.sip());
        let call = gateway::call(&target, loopback.ip(), &network);
        assert!(call.success, "{follow}: {}", call.result);
        let record = gateway.record();
        assert_eq!(record["provider"], "default/trunk");
        let source: std::net::SocketAddr = record["source"].as_str().unwrap().parse().unwrap();
        assert_eq!(source.ip(), loopback.ip());
        assert_eq!(source.port() == 5071, follow == "contact", "{source}");
    }
}
