//! kubeconfig files for the users of a server.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use k8s_openapi::ByteString;
use serde_json::json;

use super::users::User;
use super::{scratch, tls};

/// Writes kubeconfigs that lead to one server; a file for each user.
pub struct Kubeconfigs {
    server: SocketAddr,
    folder: PathBuf,
}

impl Kubeconfigs {
    /// For the server at that address.
    pub fn new(server: SocketAddr) -> Kubeconfigs {
        let folder = scratch::folder("kubeconfigs");
        Kubeconfigs { server, folder }
    }

    /// The file for that user.
    pub fn file_for(&self, user: User) -> PathBuf {
        let file = self.folder.join(format!("{}.kubeconfig", user.name));
        write(&file, self.server, user);
        file
    }
}

/// Writes a kubeconfig by which `user` talks to `server`, in the namespace `default`.
pub fn write(file: &Path, server: SocketAddr, user: User) {
    // JSON is YAML too. A ByteString is what Kubernetes writes as base64.
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
        "users": [{ "name": user.name, "user": { "token": user.token } }],
        "contexts": [{
            "name": "test",
            "context": { "cluster": "test", "user": user.name, "namespace": "default" },
        }],
        "current-context": "test",
    });
    // Renamed into place: another thread may be handing out the same file right now.
    let draft = tempfile::NamedTempFile::new_in(file.parent().expect("a file in a folder")).expect("a new kubeconfig");
    fs::write(&draft, format!("{config:#}\n")).expect("the text of a kubeconfig");
    draft.persist(file).expect("a kubeconfig at its place");
}
