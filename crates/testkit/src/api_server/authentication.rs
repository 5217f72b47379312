//! Identifies the user of a request by a bearer token or a client certificate, and by impersonation headers.

use hyper::header::{AUTHORIZATION, HeaderMap};

use super::super::users::User;
use super::super::{credentials, users};
use super::rbac;
use super::request::{Access, Target};
use super::status::{self, Result};
use super::store::Store;

/// The user name and the groups on which RBAC bases its decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub groups: Vec<String>,
}

impl Identity {
    /// Adds the group of all authenticated users. For a service account without groups, also adds the group of all
    /// service accounts and the group of the service accounts in its namespace.
    fn with_implied_groups(mut self) -> Identity {
        if let Some((namespace, _)) = service_account(&self.name)
            && self.groups.is_empty()
        {
            self.groups = vec!["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")];
        }
        self.groups.push("system:authenticated".to_owned());
        self
    }
}

/// Returns the user who sent a request with these headers, or the user whom the sender impersonates. The headers
/// include the fingerprint of the client's certificate, which the server has added.
pub fn identify(store: &Store, headers: &HeaderMap, target: &Target) -> Result<Identity> {
    let token = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
    let identity_of_certificate = || credentials::user_of_certificate(headers).map(Identity::from);
    let Some(user) = token.and_then(|token| identity_of_token(token.trim())).or_else(identity_of_certificate) else {
        return Err(status::unauthorized());
    };
    impersonate(store, user.with_implied_groups(), headers, target)
}

fn identity_of_token(token: &str) -> Option<Identity> {
    if let Some(name) = token.strip_prefix(TOKEN_PREFIX).filter(|name| service_account(name).is_some()) {
        return Some(Identity { name: name.to_owned(), groups: Vec::new() });
    }
    users::by_token(token).or_else(|| credentials::user_of_token(token)).map(Identity::from)
}

impl From<User> for Identity {
    fn from(user: User) -> Identity {
        Identity { name: user.name.to_owned(), groups: user.groups.iter().copied().map(str::to_owned).collect() }
    }
}

/// A service account's token is this prefix, followed by the account's user name.
const TOKEN_PREFIX: &str = "token-of-";

/// Returns the token of a service account.
pub fn service_account_token(namespace: &str, name: &str) -> String {
    format!("{TOKEN_PREFIX}system:serviceaccount:{namespace}:{name}")
}

fn impersonate(store: &Store, user: Identity, headers: &HeaderMap, target: &Target) -> Result<Identity> {
    let header_values = |name: &str| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values.filter_map(|value| value.to_str().ok()).map(str::to_owned).collect()
    };
    let groups = header_values("impersonate-group");
    let Some(name) = header_values("impersonate-user").into_iter().next() else {
        if groups.is_empty() {
            return Ok(user);
        }
        let why = format!("requested groups {groups:?} without impersonating a user name");
        return Err(status::bad_request(why));
    };
    let wanted = Identity { name, groups };
    check_impersonation(store, &user, &wanted, target)?;
    Ok(wanted.with_implied_groups())
}

/// Checks whether `user` may impersonate `wanted`. Either of two permissions is enough: constrained impersonation,
/// which is granted for each verb separately, or the classic verb `impersonate`, which covers all requests. If `user`
/// has neither, the client gets the error for constrained impersonation.
///
/// A service account together with groups can only be impersonated with the classic verb.
fn check_impersonation(store: &Store, user: &Identity, wanted: &Identity, target: &Target) -> Result<()> {
    let account = service_account(&wanted.name);
    let mode = if account.is_some() { "serviceaccount" } else { "user-info" };
    let check = |verb: &str, api_group: &str| {
        let impersonated_groups = wanted.groups.iter().map(|name| ("groups", "", name.as_str()));
        let user_or_account = match account {
            Some((namespace, name)) => ("serviceaccounts", namespace, name),
            None => ("users", "", wanted.name.as_str()),
        };
        [user_or_account].into_iter().chain(impersonated_groups).try_for_each(|(resource, namespace, name)| {
            let [verb, group, resource, namespace, name] =
                [verb, api_group, resource, namespace, name].map(str::to_owned);
            let access = Access { verb, group, resource, namespace, name, ..Access::default() };
            rbac::authorize(store, user, &Target::Resource(access))
        })
    };
    let classic = || check("impersonate", "");
    if account.is_some() && !wanted.groups.is_empty() {
        return classic();
    }
    let constrained = rbac::authorize(store, user, &target.with_verb(|verb| format!("impersonate-on:{mode}:{verb}")))
        .and_then(|()| check(&format!("impersonate:{mode}"), "authentication.k8s.io"));
    constrained.or_else(|refusal| classic().map_err(|_| refusal))
}

/// Returns the namespace and the name of the service account with this user name.
fn service_account(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("system:serviceaccount:")?.split_once(':')
}
