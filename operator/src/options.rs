//! The command line, read into what the operator runs with.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use clap::ValueEnum;
use ringwire_config::{ObjectRef, Settings};
use ringwire_crds::ImagePullPolicy;

/// When nodes pull the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "PascalCase")]
pub enum PullPolicy {
    /// Each time a container starts.
    Always,
    /// If the node doesn't have it.
    IfNotPresent,
    /// The node must have it.
    Never,
}

impl From<PullPolicy> for ImagePullPolicy {
    fn from(policy: PullPolicy) -> Self {
        match policy {
            PullPolicy::Always => Self::Always,
            PullPolicy::IfNotPresent => Self::IfNotPresent,
            PullPolicy::Never => Self::Never,
        }
    }
}

/// The Lease that a working operator holds, if its Deployment is not known.
const LEASE: &str = "ringwire-operator";

/// The operator of a cluster, in a pod that the chart makes.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The namespace that the operator runs in.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub namespace: String,

    /// The gateway of providers that name none, as NAMESPACE/NAME. Default: `default` in the operator's namespace.
    #[arg(long, env = "RINGWIRE_DEFAULT_GATEWAY", value_name = "NAMESPACE/NAME")]
    pub default_gateway: Option<ObjectRef>,

    /// A `ConfigMap` in the operator's namespace whose key spec.yaml is the spec of the default gateway. The operator makes
    /// that gateway and keeps it so. Default: the operator makes none.
    #[arg(
        long,
        env = "RINGWIRE_DEFAULT_GATEWAY_CONFIG",
        value_name = "CONFIGMAP"
    )]
    pub default_gateway_config: Option<String>,

    /// The operator's own Deployment: it owns the default gateway, so that removing the one removes the other. Of its pods one works
    /// at a time, the one that holds the Lease of the same name (default: ringwire-operator).
    #[arg(long, env = "RINGWIRE_DEPLOYMENT_NAME", value_name = "DEPLOYMENT")]
    pub deployment_name: Option<String>,

    /// Namespaces whose gateways providers of other namespaces may name, separated by commas.
    #[arg(
        long,
        env = "RINGWIRE_SHARED_GATEWAY_NAMESPACES",
        value_name = "NAMESPACES",
        value_delimiter = ','
    )]
    pub shared_gateway_namespaces: Vec<String>,

    /// The name of this operator among those of its Deployment; no other may have it. Default: a random one.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub identity: Option<String>,

    /// The namespaces to work in, separated by commas; the default gateway's is always one of them. Default: all.
    #[arg(
        long,
        env = "RINGWIRE_WATCH_NAMESPACES",
        value_name = "NAMESPACES",
        value_delimiter = ','
    )]
    pub watch_namespaces: Vec<String>,

    /// The image of gateways' pods, where spec.podTemplate.image names none.
    #[arg(long, env = "RINGWIRE_IMAGE", default_value = concat!("ringwire:", env!("CARGO_PKG_VERSION")))]
    pub image: String,

    /// When nodes pull that image. Default: as Kubernetes does.
    #[arg(long, env = "RINGWIRE_IMAGE_PULL_POLICY", value_enum)]
    pub image_pull_policy: Option<PullPolicy>,

    /// Where /metrics, /healthz and /readyz are served.
    #[arg(long, env = "RINGWIRE_METRICS_ADDRESS", default_value = "0.0.0.0:8080")]
    pub metrics_address: SocketAddr,
}

/// Which namespaces are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Cluster,
    /// These alone.
    Namespaces(BTreeSet<String>),
}

/// What the operator makes the default gateway from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DefaultGatewaySource {
    /// The gateway to make.
    pub gateway: ObjectRef,
    /// The `ConfigMap` with its spec.
    pub config_map: ObjectRef,
    /// The Deployment that owns it, if that is in the same namespace.
    pub owner: Option<String>,
}

/// Who this operator is among several, of which one works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidacy {
    /// The Lease that the working one holds, in the operator's namespace.
    pub lease: String,
    /// Our name in it.
    pub identity: String,
}

/// What every gateway's pods have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodDefaults {
    /// The image.
    pub image: String,
    /// When it is pulled.
    pub image_pull_policy: Option<ImagePullPolicy>,
}

/// What the operator runs with.
#[derive(Clone, Debug)]
pub struct Options {
    /// What concerns compiling.
    pub settings: Settings,
    /// Which namespaces are watched.
    pub scope: Scope,
    /// Whence the default gateway comes.
    pub default_gateway: Option<DefaultGatewaySource>,
    /// For gateways that do not say otherwise.
    pub pods: PodDefaults,
    /// Our part in the election.
    pub candidacy: Candidacy,
}

impl From<&Args> for Options {
    fn from(args: &Args) -> Self {
        let set = |names: &[String]| -> BTreeSet<String> {
            names
                .iter()
                .map(|name| name.trim().to_owned())
                .filter(|name| !name.is_empty())
                .collect()
        };
        let gateway = args
            .default_gateway
            .clone()
            .unwrap_or_else(|| ObjectRef::new(&args.namespace, "default"));
        let mut watched = set(&args.watch_namespaces);
        let scope = if watched.is_empty() {
            Scope::Cluster
        } else {
            watched.insert(gateway.namespace.clone());
            Scope::Namespaces(watched)
        };
        let name = |name: &Option<String>| name.clone().filter(|name| !name.is_empty());
        let default_gateway =
            name(&args.default_gateway_config).map(|config_map| DefaultGatewaySource {
                config_map: ObjectRef::new(&args.namespace, config_map),
                // An owner in another namespace would count as gone, and the gateway with it.
                owner: name(&args.deployment_name).filter(|_| gateway.namespace == args.namespace),
                gateway: gateway.clone(),
            });
        Self {
            settings: Settings {
                default_gateway: gateway,
                shared_gateway_namespaces: set(&args.shared_gateway_namespaces),
                restrict_agent_addresses: true,
                services: true,
            },
            scope,
            default_gateway,
            pods: PodDefaults {
                image: args.image.clone(),
                image_pull_policy: args.image_pull_policy.map(Into::into),
            },
            candidacy: Candidacy {
                lease: name(&args.deployment_name).unwrap_or_else(|| LEASE.to_owned()),
                identity: name(&args.identity)
                    .unwrap_or_else(|| format!("{:016x}", rand::random::<u64>())),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        args: Args,
    }

    fn options(args: &[&str]) -> Options {
        let args = ["operator", "--namespace=system"].iter().chain(args);
        Options::from(&CommandLine::parse_from(args).args)
    }

    #[test]
    fn the_default_gateway_is_in_the_operators_namespace() {
        assert_eq!(
            options(&[]).settings.default_gateway,
            ObjectRef::new("system", "default")
        );
    }

    #[test]
    fn the_default_gateways_namespace_is_always_watched() {
        let options = options(&["--watch-namespaces=a,b", "--default-gateway=voice/main"]);
        let expected = ["a", "b", "voice"].map(ToOwned::to_owned).into();
        assert_eq!(options.scope, Scope::Namespaces(expected));
    }

    #[test]
    fn operators_of_one_deployment_stand_for_one_lease() {
        let Candidacy { lease, identity } =
            options(&["--deployment-name=blue-operator", "--identity=blue-1"]).candidacy;
        assert_eq!(
            (lease.as_str(), identity.as_str()),
            ("blue-operator", "blue-1")
        );
        let alone = options(&["--identity="]).candidacy;
        assert_eq!(alone.lease, LEASE);
        assert!(!alone.identity.is_empty(), "an empty name would mean free");
        assert_ne!(alone, options(&["--identity="]).candidacy);
    }

    #[test]
    fn an_empty_list_of_namespaces_means_all() {
        assert_eq!(options(&["--watch-namespaces="]).scope, Scope::Cluster);
    }

    #[test]
    fn no_owner_is_named_across_namespaces() {
        let config = [
            "--default-gateway-config=gateway",
            "--deployment-name=operator",
        ];
        let here = options(&config).default_gateway.unwrap();
        assert_eq!(here.owner.as_deref(), Some("operator"));
        let elsewhere = options(&[config[0], config[1], "--default-gateway=voice/main"])
            .default_gateway
            .unwrap();
        assert_eq!(elsewhere.owner, None);
    }
}
