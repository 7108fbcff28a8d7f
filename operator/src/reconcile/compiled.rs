//! Dereference, validate, compile: what follows from the objects, kept until one of them changes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use jiff::Timestamp;
use ringwire_config::compile::{Compiled, compile};
use ringwire_config::{ObjectRef, Objects};

use super::{Done, Reconciler, Work};
use crate::failure::chain;
use crate::media_gateway::build::{ca_name, control_name};
use crate::media_gateway::certificates::{self, Control, Write};
use crate::media_gateway::validate::ValidGateway;
use crate::media_gateway::{apply, build};
use crate::retry::Fingerprint;
use crate::secrets::{self, Lookup};
use crate::world::{self, Malformed};

/// What follows from the objects.
pub(super) struct Known {
    pub objects: Objects,
    pub malformed: Vec<Malformed>,
    pub compiled: Compiled,
    pub controls: BTreeMap<ObjectRef, Control>,
}

impl Known {
    /// The gateways for which something can be built.
    pub fn valid_gateways(&self) -> impl Iterator<Item = ValidGateway<'_>> {
        self.objects
            .gateways
            .iter()
            .filter_map(|gateway| ValidGateway::new(gateway).ok())
    }
}

impl Reconciler {
    /// Compiles everything anew. What was known stays while a Secret is still being read.
    pub(super) fn compile(&mut self, now: Instant, time: Timestamp) {
        let (mut objects, malformed) = world::objects(&self.views);
        self.written.overlay(&mut objects);

        let mut wanted: BTreeSet<ObjectRef> = objects.referenced_secrets();
        for gateway in &objects.gateways {
            let ObjectRef { namespace, name } = ObjectRef::of(gateway);
            wanted.insert(ObjectRef::new(&namespace, ca_name(&name)));
            wanted.insert(ObjectRef::new(&namespace, control_name(&name)));
        }
        let view = &self.views.secrets;
        self.secrets.update(&wanted, |id| {
            view.get(id).map(|secret| secrets::version(&secret))
        });
        self.fetch_secrets(now);

        let (controls, complete) = self.check_controls(&mut objects, now, time);
        if !world::fill_secrets(&mut objects, &self.secrets) || !complete {
            return;
        }
        let compiled = compile(&objects, &self.options.settings);
        self.known = Some(Known {
            objects,
            malformed,
            compiled,
            controls,
        });
    }

    fn fetch_secrets(&mut self, now: Instant) {
        for (id, version) in self.secrets.outdated() {
            if self.slots.start(&Work::Fetch(id.clone()), version, now) {
                let client = self.client.clone();
                self.tasks.spawn(async move {
                    let result = secrets::fetch(client, id.clone()).await;
                    Done::Fetched {
                        id,
                        version,
                        result,
                    }
                });
            }
        }
        let outdated: BTreeMap<ObjectRef, Fingerprint> =
            self.secrets.outdated().into_iter().collect();
        self.slots
            .retain(|work| !matches!(work, Work::Fetch(id) if !outdated.contains_key(id)));
    }

    /// Looks at the certificates of each gateway and fills in its keys. False while they are still being read.
    fn check_controls(
        &mut self,
        objects: &mut Objects,
        now: Instant,
        time: Timestamp,
    ) -> (BTreeMap<ObjectRef, Control>, bool) {
        let mut controls = BTreeMap::new();
        let mut complete = true;
        let mut writes = Vec::new();
        for gateway in objects
            .gateways
            .iter()
            .filter_map(|gateway| ValidGateway::new(gateway).ok())
        {
            let id = gateway.id();
            let ca = self
                .secrets
                .get(&ObjectRef::new(&id.namespace, build::ca_name(&id.name)));
            let control = self.secrets.get(&ObjectRef::new(
                &id.namespace,
                build::control_name(&id.name),
            ));
            complete &= !matches!(ca, Lookup::Pending) && !matches!(control, Lookup::Pending);
            match certificates::check(&gateway, &ca, &control, &mut self.clients, time) {
                Ok(mut checked) => {
                    writes.extend(checked.write.take());
                    if let Some(keys) = &checked.keys {
                        objects.keys.insert(id.clone(), keys.clone());
                    }
                    controls.insert(id, checked);
                }
                Err(error) => {
                    tracing::error!(object = %id, kind = "MediaGateway", error = chain(&error), "cannot make certificates");
                    self.metrics.error("MediaGateway");
                }
            }
        }
        self.clients.retain(|id| controls.contains_key(id));
        if self.leads {
            for write in writes {
                self.write_keys(write, now);
            }
        }
        (controls, complete)
    }

    fn write_keys(&mut self, write: Write, now: Instant) {
        let key = write.key().clone();
        if self.slots.start(&Work::Keys(key.clone()), 0, now) {
            let client = self.client.clone();
            self.tasks.spawn(async move {
                let result = apply::write_keys(client, write).await;
                Done::Keys { key, result }
            });
        }
    }
}
