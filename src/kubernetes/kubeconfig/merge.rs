//! Merges kubeconfigs. Each entry is taken from the first file that contains it, and the current context from the first
//! file that sets it.

use std::path::{Path, PathBuf};

use super::file::{Cluster, Context, KubeconfigFile, User};

/// Several kubeconfigs that are used as one.
pub struct MergedKubeconfig {
    files: Vec<KubeconfigFile>,
}

/// An entry, and the directory that its relative paths start from.
pub struct Entry<'a, T> {
    pub value: &'a T,
    pub directory: &'a Path,
}

impl MergedKubeconfig {
    /// Merges files. Earlier files take precedence.
    pub fn new(files: Vec<KubeconfigFile>) -> Self {
        Self { files }
    }

    /// Returns the paths of the files, in the order of their precedence, highest first.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.files.iter().map(|file| file.path.clone()).collect()
    }

    pub fn current_context(&self) -> Option<&str> {
        self.files.iter().filter_map(|file| file.current_context.as_deref()).find(|name| !name.is_empty())
    }

    pub fn context(&self, name: &str) -> Option<Entry<'_, Context>> {
        self.find(|file| {
            let found = file.contexts.iter().flatten().find(|named| is_called(&named.name, name));
            Some(&found?.context)
        })
    }

    pub fn cluster(&self, name: &str) -> Option<Entry<'_, Cluster>> {
        self.find(|file| {
            let found = file.clusters.iter().flatten().find(|named| is_called(&named.name, name));
            Some(&found?.cluster)
        })
    }

    pub fn user(&self, name: &str) -> Option<Entry<'_, User>> {
        self.find(|file| {
            let found = file.users.iter().flatten().find(|named| is_called(&named.name, name));
            Some(&found?.user)
        })
    }

    /// Returns the names of all contexts.
    pub fn context_names(&self) -> impl Iterator<Item = &str> {
        self.files.iter().flat_map(|file| file.contexts.iter().flatten()).filter_map(|named| named.name.as_deref())
    }

    fn find<'a, T>(&'a self, value: impl Fn(&'a KubeconfigFile) -> Option<&'a T>) -> Option<Entry<'a, T>> {
        self.files.iter().find_map(|file| Some(Entry { value: value(file)?, directory: file.path.parent()? }))
    }
}

fn is_called(name: &Option<String>, expected: &str) -> bool {
    name.as_deref().unwrap_or_default() == expected
}
