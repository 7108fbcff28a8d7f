//! The media pod: the product's switch and the dialogs of its calls, answered at once; no agents, no sound.

use std::collections::HashMap;
use std::time::Instant;

use ringwire_config::token::{Incarnation, TokenKey};
use ringwire_media::dtls;
use ringwire_sip::dialog::{CallEvent, EndedBy};
use ringwire_sip::sdp::LocalMedia;

use crate::media::call::Leg;
use crate::media::exchange::{CallKey, FromCall, ToCall};
use crate::media::switch::{Incoming, Output, Switch};

/// See the module.
pub struct Pod {
    pub switch: Switch,
    legs: HashMap<CallKey, Leg>,
    certificate: dtls::Identity,
    /// How the calls ended.
    pub ended: Vec<EndedBy>,
}

impl Pod {
    pub fn new(incarnation: Incarnation, key: TokenKey) -> Self {
        let mut switch = Switch::new(incarnation, 5);
        switch.set_token_key(Some(key));
        Self {
            switch,
            legs: HashMap::new(),
            certificate: dtls::Identity::generate().unwrap(),
            ended: Vec::new(),
        }
    }

    pub fn calls(&self) -> usize {
        self.legs.len()
    }

    pub fn poll_timeout(&self) -> Option<Instant> {
        let legs = self.legs.values().filter_map(|leg| leg.uas.poll_timeout());
        legs.chain(self.switch.poll_timeout()).min()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        self.switch.handle_timeout(now);
        for leg in self.legs.values_mut() {
            leg.uas.handle_timeout(now);
        }
    }

    /// Moves everything between switch and calls; whether there was anything.
    pub fn settle(&mut self, now: Instant) -> bool {
        let mut moved = false;
        while let Some(output) = self.switch.poll_output() {
            moved = true;
            match output {
                Output::New(incoming) => self.begin(*incoming, now),
                Output::To(key, ToCall::Dialog(message)) => {
                    if let Some(leg) = self.legs.get_mut(&key) {
                        leg.take(message, now);
                    }
                }
                // Answered calls stay when a link breaks.
                Output::To(..) => {}
            }
        }
        let mut over = Vec::new();
        for (key, leg) in &mut self.legs {
            while let Some(message) = leg.poll() {
                moved = true;
                self.switch.take(message, now);
            }
            while let Some(event) = leg.uas.poll_event() {
                if let CallEvent::Ended { by, .. } = event {
                    self.ended.push(by);
                    over.push(key.clone());
                }
            }
        }
        for key in over {
            moved = true;
            self.legs.remove(&key);
            self.switch.take(FromCall::Ended(key), now);
        }
        moved
    }

    fn begin(&mut self, incoming: Incoming, now: Instant) {
        let Incoming {
            key,
            invite,
            server,
            decision,
            ..
        } = incoming;
        let local = LocalMedia {
            address: "203.0.113.9".parse().unwrap(),
            rtp_port: 6000,
            session_id: 9,
            version: 1,
        };
        let certificate = &self.certificate;
        let leg = Leg::new(
            key.clone(),
            invite,
            server,
            &decision,
            local,
            certificate,
            now,
        );
        let mut leg = leg.unwrap_or_else(|refused| panic!("{}", refused.status));
        leg.uas.ring(now);
        leg.uas.accept(now);
        self.legs.insert(key, leg);
    }
}
