//! The users of the API server, each with a bearer token.

use std::fmt::Write;

/// A user of the API server.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub name: &'static str,
    pub token: &'static str,
    pub groups: &'static [&'static str],
}

/// The administrator, who may do everything: RBAC does not apply to `system:masters`.
pub const ADMIN: User = User { name: "admin", token: "token-of-admin", groups: &["system:masters"] };

/// All users. Initially, all except the administrator have only the permissions that every authenticated user has.
pub const USERS: [User; 6] = [
    ADMIN,
    without_groups("candidate", "token-of-candidate"),
    without_groups("standby", "token-of-standby"),
    without_groups("stranger", "token-of-stranger"),
    without_groups("operator", "token-of-operator"),
    without_groups("deputy", "token-of-deputy"),
];

const fn without_groups(name: &'static str, token: &'static str) -> User {
    User { name, token, groups: &[] }
}

/// Returns the user with this name. Panics if there is none.
pub fn named(name: &str) -> User {
    USERS
        .into_iter()
        .find(|user| user.name == name)
        .unwrap_or_else(|| panic!("there is no user {name:?}; the users are {:?}", USERS.map(|user| user.name)))
}

/// Returns the user with this token.
pub fn by_token(token: &str) -> Option<User> {
    USERS.into_iter().find(|user| user.token == token)
}

/// Returns the users in the format of `--token-auth-file` of kube-apiserver.
pub fn token_file() -> String {
    USERS.iter().fold(String::new(), |mut file, user| {
        let User { name, token, groups } = user;
        let groups = groups.join(",");
        writeln!(file, "{token},{name},{name},\"{groups}\"").expect("writing to a String succeeds");
        file
    })
}
