//! Kubeconfig files for the users of a server.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::users::User;
use crate::{scratch, tls};

/// The kubeconfigs for one server: a file for each user.
pub struct Kubeconfigs {
    server: SocketAddr,
    directory: PathBuf,
}

impl Kubeconfigs {
    /// Returns the kubeconfigs for the server at this address.
    pub fn new(server: SocketAddr) -> Kubeconfigs {
        let directory = scratch::directory("kubeconfigs");
        Kubeconfigs { server, directory }
    }

    /// Writes the file for a user and returns its path.
    pub fn file_for(&self, user: User) -> PathBuf {
        let file = self.directory.join(format!("{}.kubeconfig", user.name));
        write(&file, self.server, user);
        file
    }
}

/// Writes a kubeconfig for `user` and `server`, with the namespace `default`.
pub fn write(file: &Path, server: SocketAddr, user: User) {
    write_with(file, server, user.name, &json!({ "token": user.token }));
}

/// Writes a kubeconfig for `server`, with the namespace `default` and a user with this name and these credentials.
pub fn write_with(file: &Path, server: SocketAddr, user: &str, credentials: &Value) {
    // A ByteString is serialized as base64. The file is JSON, which is valid YAML.
    let authority = ByteString(tls::authority().into_bytes());
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{
            "name": "test",
            "cluster": {
                "server": format!("https://{server}"),
                "certificate-authority-data": authority,
            },
        }],
        "users": [{ "name": user, "user": credentials }],
        "contexts": [{
            "name": "test",
            "context": { "cluster": "test", "user": user, "namespace": "default" },
        }],
        "current-context": "test",
    });
    // The file is replaced by renaming a temporary one over it, because other threads may read or write it at the same
    // time.
    let draft = tempfile::NamedTempFile::new_in(file.parent().expect("the file is in a directory"))
        .expect("a file can be created");
    fs::write(&draft, format!("{config:#}\n")).expect("the kubeconfig can be written");
    draft.persist(file).expect("the new kubeconfig replaces the old one");
}
