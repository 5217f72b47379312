//! Loads a [`ConnectionConfig`] from kubeconfigs or a pod's service account, following the rules of client-go.
//!
//! Files in `KUBECONFIG` that do not exist are skipped if at least one exists. If a configuration that the user has
//! named cannot be used, loading fails: unlike client-go, leaderrun never falls back to another cluster.

mod file;
mod in_cluster;
mod merge;
mod merge_keys;
mod resolve;
mod server;

use std::env;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use self::file::KubeconfigFile;
pub use self::file::first_document;
use self::merge::MergedKubeconfig;
use super::connection::{ClusterOptions, ConfigError, ConnectionConfig, Given, Impersonation};

/// Loads the configuration of the connection to the API server.
///
/// It comes from `--kubeconfig`, or else from the files in `KUBECONFIG`, or else from `~/.kube/config` if that file is
/// not empty, or else from the pod's service account.
///
/// # Errors
/// Fails if the chosen configuration cannot be used, or if there is none.
pub fn load(options: &ClusterOptions) -> Result<ConnectionConfig, ConfigError> {
    let context = options.context.as_ref().filter(|context| !context.value.is_empty());
    let mut config = match read(options)? {
        Some(kubeconfig) => kubeconfig.connection(context)?,
        None => without_kubeconfig(context)?,
    };
    if let Some(user) = &options.impersonate {
        config.user.impersonation = Some(Impersonation { user: user.clone(), ..Impersonation::default() });
    }
    Ok(config)
}

fn without_kubeconfig(context: Option<&Given<String>>) -> Result<ConnectionConfig, ConfigError> {
    if let Some(context) = context {
        let subject = context.spelled_with(format_args!("{:?}", context.value));
        return Err(ConfigError::new(subject, "there is no kubeconfig; name one with --kubeconfig or KUBECONFIG"));
    }
    in_cluster::load()
}

/// Reads the kubeconfigs that `--kubeconfig` or `KUBECONFIG` names, or else `~/.kube/config`. Returns `None` if
/// neither names one, and `~/.kube/config` is missing or empty.
fn read(options: &ClusterOptions) -> Result<Option<MergedKubeconfig>, ConfigError> {
    if let Some(kubeconfig) = &options.kubeconfig {
        let path = &kubeconfig.value;
        let Some(file) = read_file(path)? else {
            let subject = kubeconfig.spelled_with(path.display());
            return Err(ConfigError::new(subject, "no such file; give the path of a kubeconfig"));
        };
        return Ok(Some(MergedKubeconfig::new(vec![file])));
    }
    match env::var_os("KUBECONFIG").filter(|list| !list.is_empty()) {
        Some(list) => {
            let mut files = Vec::new();
            for path in env::split_paths(&list).filter(|path| !path.as_os_str().is_empty()) {
                files.extend(read_file(&path)?);
            }
            if files.is_empty() {
                let subject = format!("KUBECONFIG={}", list.display());
                let reason = "it names no existing file; unset it, or set it to the path of a kubeconfig";
                return Err(ConfigError::new(subject, reason));
            }
            Ok(Some(MergedKubeconfig::new(files)))
        }
        None => {
            let Some(home) = env::var_os("HOME").filter(|home| !home.is_empty()) else { return Ok(None) };
            let file = read_file(&PathBuf::from(home).join(".kube/config"))?;
            // Some tools leave an empty file behind.
            Ok(file.filter(|file| !file.is_empty()).map(|file| MergedKubeconfig::new(vec![file])))
        }
    }
}

/// Reads a kubeconfig. Returns `None` if there is no such file.
fn read_file(path: &Path) -> Result<Option<KubeconfigFile>, ConfigError> {
    match KubeconfigFile::read(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => {
            let subject = format!("kubeconfig {}", path.display());
            Err(match error.kind() {
                ErrorKind::IsADirectory => ConfigError::new(subject, "it is a directory; give the path of a file"),
                _ => ConfigError::new(subject, error),
            })
        }
    }
}
