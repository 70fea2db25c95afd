//! `wasi:config/store`: what `workers.toml` gives a handler to read. In the order of names, so that two runs read the same.

use std::collections::BTreeMap;

use crate::{
    bindings::imports::wasi::config::store::{self, Error},
    grants::Grants,
    host::Host,
};

/// Every name a handler may ask for, with its value.
#[derive(Default)]
pub(crate) struct Settings(BTreeMap<String, String>);

impl Settings {
    /// Of a name that is both configuration and secret, the secret is read.
    pub(crate) fn of(grants: &Grants) -> Self {
        let secrets = grants.secrets.iter().map(|(name, secret)| (name.clone(), secret.reveal().to_owned()));
        Self(grants.config.iter().cloned().chain(secrets).collect())
    }
}

impl store::Host for Host {
    fn get(&mut self, key: String) -> wasmtime::Result<Result<Option<String>, Error>> {
        Ok(Ok(self.shared.settings.0.get(&key).cloned()))
    }

    fn get_all(&mut self) -> wasmtime::Result<Result<Vec<(String, String)>, Error>> {
        Ok(Ok(self.shared.settings.0.iter().map(|(name, value)| (name.clone(), value.clone())).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grants::Secret;

    #[test]
    fn a_secret_goes_before_configuration_of_the_same_name() {
        let settings = Settings::of(&Grants {
            config: vec![("key".into(), "open".into()), ("currency".into(), "EUR".into())],
            secrets: vec![("key".into(), Secret::new("hidden".into()))],
            ..Grants::nothing("invoice")
        });
        let read: Vec<_> = settings.0.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(read, [("currency", "EUR"), ("key", "hidden")]);
    }
}
