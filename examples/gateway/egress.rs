//! Which servers `http_webhook` may reach, and which certificates it trusts.

use std::path::PathBuf;

use tower_webhook::Registry;
use tower_webhook::module::{Egress, EgressPolicy};

use crate::Error;
use crate::reload::{NamedFile, Watch};
use crate::settings::values::{Problems, shown, var, wrong};

pub(crate) struct Targets {
    egress: Egress,
    /// The file of certificates that `egress` trusts besides the system's authorities.
    authorities: Option<PathBuf>,
}

impl Targets {
    pub(crate) fn from_env(problems: &mut Problems) -> Self {
        let policy = problems.collect(allowed());
        let policy = problems.collect(with_nat64(policy));
        Self { egress: Egress::new(policy), authorities: problems.collect(var("EGRESS_CA_CERT")).map(PathBuf::from) }
    }

    /// Trusts the certificates in the file of `EGRESS_CA_CERT`, and reads them again whenever it changes.
    pub(crate) fn watch(&self) -> Option<Result<Watch, String>> {
        let (egress, file) = (self.egress.clone(), NamedFile::new("EGRESS_CA_CERT", self.authorities.clone()?));
        Some(Watch::begin([file.clone()], move |contents| {
            contents.iter().try_for_each(|pem| egress.trust_instead(pem)).map_err(|error| file.wrong(error))
        }))
    }

    pub(crate) fn register(&self, registry: Registry) -> Registry {
        registry.egress(&self.egress)
    }
}

fn allowed() -> Result<EgressPolicy, Error> {
    let Some(text) = var("EGRESS_ALLOW")? else { return Ok(EgressPolicy::default()) };
    text.parse().map_err(|error| wrong("EGRESS_ALLOW", format!("found `{}`: {error}", shown(&text))))
}

/// Adds the NAT64 prefixes that the operator names.
fn with_nat64(policy: EgressPolicy) -> Result<EgressPolicy, Error> {
    let text = var("EGRESS_NAT64")?.unwrap_or_default();
    policy.nat64(&text).map_err(|error| wrong("EGRESS_NAT64", format!("found `{}`: {error}", shown(&text))))
}
