//! Agents that left the configuration a moment ago.
//!
//! Registrars and media pods take an edit at slightly different times: a call that a registrar has routed by the old configuration
//! must still find its agent at a media pod that has the new one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringwire_config::ObjectRef;
use ringwire_config::gateway::{Agent, MediaConfig};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Agents are kept so long; edits take milliseconds to arrive, unless a pod lags behind.
const KEPT_FOR: Duration = Duration::from_secs(10);

type Config = Option<Arc<MediaConfig>>;

/// The same configuration, with the agents that left it less than 10 s ago. Ends with `config`, or when nobody listens any more.
pub fn keep(mut config: watch::Receiver<Config>) -> watch::Receiver<Config> {
    let (sender, receiver) = watch::channel(config.borrow_and_update().clone());
    tokio::spawn(async move {
        let mut retired: BTreeMap<ObjectRef, (Agent, Instant)> = BTreeMap::new();
        let mut current = sender.borrow().clone();
        loop {
            let forget = retired.values().map(|(_, until)| *until).min();
            tokio::select! {
                () = sender.closed() => return,
                changed = config.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let next = config.borrow_and_update().clone();
                    let until = Instant::now() + KEPT_FOR;
                    let agents = current.iter().flat_map(|config| &config.agents);
                    retired.extend(agents.map(|(id, agent)| (id.clone(), (agent.clone(), until))));
                    current = next;
                }
                () = sleep_until(forget.unwrap_or_else(Instant::now)), if forget.is_some() => {}
            }
            let now = Instant::now();
            let present = |id: &ObjectRef| {
                current
                    .as_ref()
                    .is_some_and(|config| config.agents.contains_key(id))
            };
            retired.retain(|id, (_, until)| *until > now && !present(id));
            sender.send_replace(with(current.as_ref(), &retired));
        }
    });
    receiver
}

fn with(
    config: Option<&Arc<MediaConfig>>,
    retired: &BTreeMap<ObjectRef, (Agent, Instant)>,
) -> Config {
    let config = config?;
    if retired.is_empty() {
        return Some(Arc::clone(config));
    }
    let mut config = MediaConfig::clone(config);
    let agents = retired
        .iter()
        .map(|(id, (agent, _))| (id.clone(), agent.clone()));
    config.agents.extend(agents);
    Some(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use ringwire_config::fixture;

    use super::*;

    fn config(names: &[&str], max_call_seconds: u32) -> Arc<MediaConfig> {
        let agents = names.iter().map(|name| Agent {
            max_call_seconds,
            ..fixture::agent(name)
        });
        Arc::new(fixture::media(agents))
    }

    async fn names(kept: &mut watch::Receiver<Config>) -> Vec<(String, u32)> {
        kept.changed().await.unwrap();
        let config = kept.borrow_and_update().clone().unwrap();
        let agents = config.agents.values();
        agents
            .map(|agent| (agent.id.name.clone(), agent.max_call_seconds))
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_that_leaves_can_be_found_a_while_longer() {
        let (sender, receiver) = watch::channel(Some(config(&["first"], 60)));
        let mut kept = keep(receiver);
        sender.send_replace(Some(config(&["second"], 60)));
        assert_eq!(
            names(&mut kept).await,
            [("first".into(), 60), ("second".into(), 60)]
        );
        let since = Instant::now();
        assert_eq!(names(&mut kept).await, [("second".into(), 60)]);
        assert_eq!(since.elapsed(), KEPT_FOR);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_configured_outranks_what_was() {
        let (sender, receiver) = watch::channel(Some(config(&["first"], 60)));
        let mut kept = keep(receiver);
        sender.send_replace(Some(config(&["first"], 30)));
        assert_eq!(names(&mut kept).await, [("first".into(), 30)]);
    }
}
