//! The thread that reads the files of the credentials and runs the credential plugin.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use rustls::ClientConfig;

use super::super::connection::{ConfigError, ConnectionConfig, ExecPlugin};
use super::super::proxy::ProxyProtocol;
use super::super::{kubeconfig, log_events, tls};
use super::access::{Access, Lifetime};
use super::exec_credential::IssuedCredentials;
use super::files::{self, Stamp};
use super::material::{self, CertificateAndKey, Material, TlsMaterial};
use super::{CheckRequest, CredentialsError, PendingWait, Shared, State, plugin};

/// How often files are read again even if they seem unchanged.
const REREAD_INTERVAL: Duration = Duration::from_secs(60);

/// The first pause between runs of a plugin that fails, or whose credentials are unusable, seem to have expired, or are
/// rejected. It doubles with each such run.
const MIN_PAUSE: Duration = Duration::from_secs(1);

/// The longest pause between runs of a plugin, which is reached by doubling [`MIN_PAUSE`].
const MAX_PAUSE: Duration = Duration::from_secs(30);

/// Keeps the credentials up to date.
pub struct Worker {
    shared: Arc<Shared>,
    loaded: Option<Loaded>,
    issued: Option<Issued>,
    /// The pause after the last run of the plugin. It is zero unless that run failed, issued credentials that are
    /// unusable or seem to have expired, or replaced rejected ones.
    pause: Duration,
    /// The instant before which the plugin is not run again.
    plugin_may_run_at: Option<Instant>,
    /// The reason why the last run of the plugin issued no usable credentials.
    plugin_failure: Option<String>,
    /// The last reason that was logged for a file that could not be re-read; `None` once all files have been read.
    read_failure: Option<String>,
    access: Option<Arc<Access>>,
    /// Whether it has been logged that the kubeconfig now names another server.
    is_server_change_logged: bool,
}

/// The configuration and credentials that were read.
struct Loaded {
    config: Arc<ConnectionConfig>,
    material: Material,
    files: Vec<PathBuf>,
    stamps: Vec<Stamp>,
    read_at: Instant,
}

/// The credentials that a plugin has issued.
struct Issued {
    plugin: ExecPlugin,
    credentials: IssuedCredentials,
    lifetime: Option<Lifetime>,
}

impl Worker {
    pub fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            loaded: None,
            issued: None,
            pause: Duration::ZERO,
            plugin_may_run_at: None,
            plugin_failure: None,
            read_failure: None,
            access: None,
            is_server_change_logged: false,
        }
    }

    /// Handles check requests until all clients are dropped.
    pub fn run(mut self, requests: &Receiver<CheckRequest>) {
        while let Ok(mut request) = requests.recv() {
            for later in requests.try_iter() {
                request = CheckRequest { number: later.number, rejected: request.rejected.max(later.rejected) };
            }
            let result = self.recheck(request.rejected);
            self.publish(request.number, result);
        }
    }

    /// Checks the files and the plugin's credentials, and renews those that have changed, expire soon or were rejected.
    fn recheck(&mut self, rejected: Option<u64>) -> Result<(), CredentialsError> {
        let generation = self.access.as_ref().map(|access| access.generation);
        let is_rejected = generation.is_some() && rejected >= generation;
        if self.loaded.is_none() || is_rejected || self.is_reload_due() {
            self.reload()?;
        }
        let is_newer = self.access.as_ref().map(|access| access.generation) > generation;
        let Some(plugin) = self.plugin() else { return Ok(()) };
        let must_replace = is_rejected && !is_newer;
        if must_replace {
            self.end_pause_if_accepted();
        }
        if self.is_plugin_due(&plugin, must_replace) {
            self.run_plugin(&plugin, is_rejected)
        } else {
            self.plugin_failure.clone().map_or(Ok(()), |message| Err(CredentialsError(message)))
        }
    }

    fn is_reload_due(&self) -> bool {
        self.loaded.as_ref().is_none_or(|loaded| {
            loaded.read_at.elapsed() >= REREAD_INTERVAL || files::stamps(&loaded.files) != loaded.stamps
        })
    }

    /// Reads the configuration and the files that it names. If the configuration or a file cannot be read, its earlier
    /// contents are used, and everything else is still renewed.
    fn reload(&mut self) -> Result<(), CredentialsError> {
        let unusable = |error: ConfigError| CredentialsError(error.to_string());
        let read = self.read_configuration().and_then(|config| self.load(config));
        let failure = match (read, &self.loaded) {
            (Ok(failure), _) => failure,
            (Err(error), None) => return Err(unusable(error)),
            (Err(error), Some(loaded)) => {
                let config = ConnectionConfig::clone(&loaded.config);
                self.load(config).map_err(unusable)?;
                Some(error)
            }
        };
        self.note_read_failure(failure);
        Ok(())
    }

    /// Reads the new configuration. If it names another server, logs that once, and returns the current configuration.
    fn read_configuration(&mut self) -> Result<ConnectionConfig, ConfigError> {
        let config = kubeconfig::load(&self.shared.options)?;
        let Some(Loaded { config: current, .. }) = &self.loaded else { return Ok(config) };
        config.check_complete(current)?;
        if !config.has_same_server(current) {
            // The lock is on the previous server. A lock with the same name on another server would be another lock.
            if !std::mem::replace(&mut self.is_server_change_logged, true) {
                log_events::server_changed(&current.address(), &config.address());
            }
            return Ok(ConnectionConfig::clone(current));
        }
        self.is_server_change_logged = false;
        Ok(config)
    }

    /// Logs why a file could not be re-read, unless the same reason was logged last.
    fn note_read_failure(&mut self, error: Option<ConfigError>) {
        let reason = error.map(|error| error.to_string());
        if let Some(reason) = reason.as_ref().filter(|reason| self.read_failure.as_ref() != Some(*reason)) {
            log_events::credentials_not_renewed(reason);
        }
        self.read_failure = reason;
    }

    /// Builds the credentials from the files that a configuration names and from what the plugin has issued. If a file
    /// cannot be read, its earlier contents are used and the reason is returned.
    fn load(&mut self, config: ConnectionConfig) -> Result<Option<ConfigError>, ConfigError> {
        let files = material::files_of(&config);
        let stamps = files::stamps(&files);
        // Credentials from another plugin are not used.
        let issued = self.issued.as_ref().filter(|issued| Some(&issued.plugin) == config.user.exec.as_ref());
        let issued_material = issued.map(|issued| &issued.credentials);
        let (has_issued, lifetime) = (issued.is_some(), issued.and_then(|issued| issued.lifetime));
        let previous = self.loaded.as_ref().map(|loaded| (&*loaded.config, &loaded.material));
        let origin = config.origin.clone();
        let within = |error: ConfigError| error.within(&origin);
        let (material, read_failure) = Material::read(&config, issued_material, previous).map_err(within)?;
        let tls = self.tls(&config, &material).map_err(within)?;
        let config = match &self.loaded {
            Some(loaded) if *loaded.config == config => Arc::clone(&loaded.config),
            _ => Arc::new(config),
        };
        let has_changed = self
            .loaded
            .as_ref()
            .is_none_or(|loaded| !Arc::ptr_eq(&loaded.config, &config) || loaded.material != material);
        let authorization = material.authorization.clone();
        let proxy_tls = self.proxy_tls(&config, &material).map_err(within)?;
        let authority = material.tls.authority.clone();
        let identity = material.tls.certificate.as_ref().map(|(certificate, _)| certificate.clone());
        self.loaded = Some(Loaded { config: Arc::clone(&config), material, files, stamps, read_at: Instant::now() });
        if !has_issued {
            self.issued = None;
        }
        if self.plugin().is_some() && !has_issued {
            // This plugin has not issued credentials yet.
            return Ok(read_failure);
        }
        let current = self.access.as_ref();
        if !has_changed && current.is_some_and(|current| current.lifetime == lifetime) {
            return Ok(read_failure);
        }
        let generation = current.map_or(1, |current| current.generation + u64::from(has_changed));
        if current.is_some() && has_changed {
            log_events::credentials_renewed(&config.origin.to_string());
        }
        let access = Access { generation, config, tls, authority, identity, proxy_tls, authorization, lifetime };
        self.access = Some(Arc::new(access));
        Ok(read_failure)
    }

    /// Returns the current credentials if they were built from the same TLS options and certificates. The caller reuses
    /// their TLS configurations: when a TLS configuration changes, connections that are being opened are abandoned.
    fn access_with_same_tls(&self, config: &ConnectionConfig, material: &Material) -> Option<&Access> {
        let is_same = |loaded: &&Loaded| loaded.config.tls == config.tls && loaded.material.tls == material.tls;
        self.loaded.as_ref().filter(is_same).and(self.access.as_deref())
    }

    /// Returns the TLS configuration for connections to the server.
    fn tls(&self, config: &ConnectionConfig, material: &Material) -> Result<Option<Arc<ClientConfig>>, ConfigError> {
        if !config.has_tls() {
            return Ok(None);
        }
        if let Some(tls) = self.access_with_same_tls(config, material).and_then(|access| access.tls.clone()) {
            return Ok(Some(tls));
        }
        let TlsMaterial { authority, certificate } = &material.tls;
        tls::client_config(&config.tls, authority.as_deref(), as_slices(certificate)).map(|tls| Some(Arc::new(tls)))
    }

    /// Returns the TLS configuration for connections to the proxy.
    fn proxy_tls(
        &self,
        config: &ConnectionConfig,
        material: &Material,
    ) -> Result<Option<Arc<ClientConfig>>, ConfigError> {
        if config.proxy.as_ref().is_none_or(|proxy| proxy.protocol != ProxyProtocol::Https) {
            return Ok(None);
        }
        if let Some(proxy_tls) = self.access_with_same_tls(config, material).and_then(|access| access.proxy_tls.clone())
        {
            return Ok(Some(proxy_tls));
        }
        let TlsMaterial { authority, certificate } = &material.tls;
        tls::proxy_config(&config.tls, authority.as_deref(), as_slices(certificate)).map(|tls| Some(Arc::new(tls)))
    }

    /// Returns the configured plugin, unless the configuration has other credentials, which take precedence.
    fn plugin(&self) -> Option<ExecPlugin> {
        let user = &self.loaded.as_ref()?.config.user;
        user.exec.clone().filter(|_| user.token.is_none() && user.basic.is_none() && user.certificate.is_none())
    }

    /// Ends the pause between runs of the plugin if the server has accepted credentials since it last rejected some:
    /// in that case, the plugin has not failed repeatedly.
    fn end_pause_if_accepted(&mut self) {
        if self.shared.was_accepted.swap(false, Ordering::Relaxed) {
            (self.pause, self.plugin_may_run_at) = (Duration::ZERO, None);
        }
    }

    /// Returns whether the plugin must be run now. `must_replace` states whether the server has rejected the
    /// credentials and the files have not replaced them.
    fn is_plugin_due(&self, plugin: &ExecPlugin, must_replace: bool) -> bool {
        let issued = self.issued.as_ref().filter(|issued| issued.plugin == *plugin);
        let is_needed = must_replace
            || issued
                .is_none_or(|issued| issued.lifetime.is_some_and(|lifetime| lifetime.renew_at <= Timestamp::now()));
        is_needed && self.plugin_may_run_at.is_none_or(|at| Instant::now() >= at)
    }

    /// Runs the plugin, and builds the credentials from its output. `is_rejected` states whether the server has
    /// rejected the previous credentials.
    fn run_plugin(&mut self, plugin: &ExecPlugin, is_rejected: bool) -> Result<(), CredentialsError> {
        let Some(loaded) = &self.loaded else { return Ok(()) };
        let config = ConnectionConfig::clone(&loaded.config);
        let awaited = format!("the credential plugin {}", plugin.command.display());
        self.set_pending_wait(Some(PendingWait { awaited, since: Instant::now() }));
        let issued = plugin::run(plugin, &config, loaded.material.tls.authority.as_deref());
        self.set_pending_wait(None);
        let result = issued.and_then(|credentials| {
            let lifetime = credentials.expires.and_then(|expires| Lifetime::until(expires, Timestamp::now()));
            let is_unexpired = lifetime.is_some() || credentials.expires.is_none();
            let previous = self.issued.replace(Issued { plugin: plugin.clone(), credentials, lifetime });
            match self.load(config) {
                Ok(failure) => {
                    self.note_read_failure(failure);
                    Ok(is_unexpired)
                }
                Err(error) => {
                    self.issued = previous;
                    Err(plugin::unusable(plugin, &error.reason))
                }
            }
        });
        self.plugin_failure = result.as_ref().err().cloned();
        if matches!(result, Ok(true)) && !is_rejected {
            (self.pause, self.plugin_may_run_at) = (Duration::ZERO, None);
        } else {
            self.pause = (self.pause * 2).clamp(MIN_PAUSE, MAX_PAUSE);
            self.plugin_may_run_at = Some(Instant::now() + self.pause);
        }
        result.map(drop).map_err(CredentialsError)
    }

    fn set_pending_wait(&self, wait: Option<PendingWait>) {
        *self.shared.pending_wait.lock().expect("no thread panics while it holds this lock") = wait;
    }

    /// Makes the result of a check available to the clients. If it is a new failure, and there are credentials to use
    /// in the meantime, logs it.
    fn publish(&self, handled: u64, result: Result<(), CredentialsError>) {
        let failure = result.err();
        let access = self.access.clone();
        self.shared.state.send_modify(|state| {
            let is_new = failure.as_ref().is_some_and(|failure| state.failure.as_ref() != Some(failure));
            if let (Some(failure), true, Some(_)) = (&failure, is_new, &access) {
                log_events::credentials_not_renewed(&failure.to_string());
            }
            let config = self.loaded.as_ref().map(|loaded| Arc::clone(&loaded.config));
            *state = State { config, access, failure, handled };
        });
    }
}

fn as_slices(certificate: &Option<CertificateAndKey>) -> Option<(&[u8], &[u8])> {
    certificate.as_ref().map(|(certificate, key)| (certificate.as_slice(), key.as_slice()))
}
