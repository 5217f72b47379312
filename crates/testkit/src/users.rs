//! Who may knock at the API server: a fixed handful of users, each known by a bearer token.

use std::fmt::Write;

/// A user as the API server's token file lists it.
#[derive(Clone, Copy, Debug)]
pub struct User {
    pub name: &'static str,
    pub token: &'static str,
    pub groups: &'static [&'static str],
}

/// May do everything: `system:masters` is above RBAC.
pub const ADMIN: User = User { name: "admin", token: "token-of-admin", groups: &["system:masters"] };

/// Everyone but the admin starts without any rights.
pub const USERS: [User; 6] = [
    ADMIN,
    without_rights("candidate", "token-of-candidate"),
    without_rights("standby", "token-of-standby"),
    without_rights("stranger", "token-of-stranger"),
    without_rights("operator", "token-of-operator"),
    without_rights("deputy", "token-of-deputy"),
];

const fn without_rights(name: &'static str, token: &'static str) -> User {
    User { name, token, groups: &[] }
}

/// The user of that name; panics where there is none, as that is a slip in the test.
pub fn named(name: &str) -> User {
    USERS
        .into_iter()
        .find(|user| user.name == name)
        .unwrap_or_else(|| panic!("no user {name:?}; there are {:?}", USERS.map(|user| user.name)))
}

/// The user whom a token belongs to.
pub fn by_token(token: &str) -> Option<User> {
    USERS.into_iter().find(|user| user.token == token)
}

/// The users in the format of kube-apiserver's `--token-auth-file`.
pub fn token_file() -> String {
    USERS.iter().fold(String::new(), |mut file, user| {
        let User { name, token, groups } = user;
        let groups = groups.join(",");
        writeln!(file, "{token},{name},{name},\"{groups}\"").expect("writing to a String");
        file
    })
}
