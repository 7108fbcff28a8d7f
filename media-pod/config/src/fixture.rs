//! What tests configure a gateway with; they change what they are about.

use std::collections::BTreeMap;

use ringwire_crds::{CallerAudio, Codec, MediaEncryption};

use crate::gateway::{
    Agent, Backend, Exposure, GatewaySettings, Host, Limits, MediaConfig, Provider, ProviderTls,
    RegistrarConfig,
};
use crate::not_understood::NotUnderstood;
use crate::object::ObjectRef;
use crate::token::TokenKey;

/// The settings of the gateway `voice/default`, with one token key.
pub fn settings() -> GatewaySettings {
    GatewaySettings {
        gateway: ObjectRef::new("voice", "default"),
        sip: Exposure::default(),
        sip_udp_port: 5060,
        sip_tcp_port: 5060,
        sip_fronts: BTreeMap::new(),
        rtp: Exposure::default(),
        rtp_ports: (20_000, 20_999),
        drain_seconds: 300,
        allowed_agent_addresses: Vec::new(),
        restrict_agent_addresses: true,
        nodes: BTreeMap::new(),
        token_keys: vec![TokenKey::from_bytes(1, [7; 32])],
    }
}

/// The trunk `voice/NAME` to carrier.test: it does not register, and has neither sources nor numbers.
pub fn provider(name: &str) -> Provider {
    Provider {
        id: ObjectRef::new("voice", name),
        server: Host::Name("carrier.test".to_owned()),
        port: None,
        transport: None,
        tls: ProviderTls::default(),
        outbound_proxy: None,
        registration: None,
        contact_user: "token".to_owned(),
        contact_user_is_secret: true,
        allowed_sources: Vec::new(),
        incoming: None,
        codecs: vec![Codec::PCMA],
        media_encryption: MediaEncryption::None,
        media_timeout_seconds: None,
        called_number_from: None,
        country_code: None,
        limits: Limits::default(),
        numbers: BTreeMap::new(),
    }
}

/// The agent `voice/NAME`, which gives back what it hears.
pub fn agent(name: &str) -> Agent {
    Agent {
        id: ObjectRef::new("voice", name),
        backend: Backend::Echo,
        connect_timeout_seconds: 5,
        cushion_millis: 20,
        caller_audio: CallerAudio::Paced,
        max_call_seconds: 60,
    }
}

/// A registrar with these trunks.
pub fn registrar(providers: impl IntoIterator<Item = Provider>) -> RegistrarConfig {
    let providers = providers.into_iter();
    RegistrarConfig {
        settings: settings(),
        tls: None,
        hep: None,
        providers: providers.map(|it| (it.id.clone(), it)).collect(),
        not_understood: NotUnderstood::default(),
        shards: Vec::new(),
    }
}

/// A media pod with these agents.
pub fn media(agents: impl IntoIterator<Item = Agent>) -> MediaConfig {
    let agents = agents.into_iter();
    MediaConfig {
        settings: settings(),
        agents: agents.map(|it| (it.id.clone(), it)).collect(),
        not_understood: NotUnderstood::default(),
        shards: Vec::new(),
    }
}
