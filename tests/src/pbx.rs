//! Others' proxies: a PBX that logs in to place calls, and an outbound proxy that asks for credentials of its own.

use std::net::{IpAddr, SocketAddr};

use crate::kamailio::Kamailio;

/// A PBX that logs in to place calls: Kamailio, which answers challenges with its module uac. What calls it is sent on to the gateway.
pub struct Pbx(Kamailio);

impl Pbx {
    /// One with an account at this gateway.
    pub fn start(gateway: SocketAddr, username: &str, password: &str) -> Self {
        let routes = format!(
            r#"
modparam("uac", "credential", "{username}:ringwire:{password}")
route[REQUEST] {{
    if (has_totag()) {{
        loose_route();
        t_relay();
        exit;
    }}
    if (is_method("CANCEL")) {{
        if (t_check_trans()) t_relay();
        exit;
    }}
    record_route();
    t_on_failure("ASKED");
    $du = "sip:{gateway}";
    t_relay();
}}
failure_route[ASKED] {{
    if (t_check_status("401|407") && uac_auth()) {{
        $du = "sip:{gateway}";
        t_relay();
    }}
}}
"#
        );
        Self(Kamailio::start(&["uac"], &routes))
    }

    /// Where it is called.
    pub fn sip(&self) -> SocketAddr {
        self.0.sip()
    }
}

/// A proxy in front of a carrier: every request, those within a call as well, has to prove who sends it, in a realm of the proxy's own.
/// A nonce's count has to rise.
pub struct OutboundProxy(Kamailio);

/// The proxy's realm.
pub const PROXY_REALM: &str = "proxy.test";

impl OutboundProxy {
    /// One that knows an account by this password, and sends what passes on to the carrier.
    pub fn start(carrier: SocketAddr, password: &str) -> Self {
        let routes = format!(
            r#"
modparam("auth", "nonce_count", 1)
modparam("auth", "qop", "auth")
route[REQUEST] {{
    force_rport();
    if (is_method("CANCEL")) {{
        if (t_check_trans()) t_relay();
        exit;
    }}
    if (has_totag() && is_method("ACK")) {{
        if (loose_route()) t_relay();
        exit;
    }}
    # The carrier's own requests, such as the BYE of who was called, need no proof.
    if ($si != "{carrier_ip}") {{
        if (!pv_proxy_authenticate("{PROXY_REALM}", "{password}", "0")) {{
            xlog("L_NOTICE", "asks for $rm\n");
            proxy_challenge("{PROXY_REALM}", "1");
            exit;
        }}
        xlog("L_NOTICE", "lets $rm pass\n");
        consume_credentials();
    }}
    if (has_totag()) {{
        if (!loose_route()) {{
            sl_send_reply("404", "Not here");
            exit;
        }}
        t_relay();
        exit;
    }}
    if (is_method("INVITE")) record_route();
    $du = "sip:{carrier}";
    t_relay();
}}
"#,
            carrier_ip = carrier.ip(),
        );
        Self(Kamailio::start(&["auth"], &routes))
    }

    /// Where it is reached.
    pub fn ip(&self) -> IpAddr {
        self.0.ip()
    }

    /// How often it asked a request of that method for credentials, and let one pass.
    pub fn seen(&self, method: &str) -> (usize, usize) {
        let log = self.0.log();
        let count = |what: String| log.lines().filter(|line| line.ends_with(&what)).count();
        (
            count(format!("asks for {method}")),
            count(format!("lets {method} pass")),
        )
    }
}
