//! Tests of `leaderrun status`.

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use testkit::exit_status::FAILED;
use testkit::{Candidate, Cluster, Proxy, TestLock, eventually, scratch};

/// Returns the exit status and the JSON document of `leaderrun status`.
fn status(lock: &TestLock) -> (i32, Value) {
    let mut status_command = Candidate::subcommand("status", lock).args(["-o", "json"]).start();
    let status = status_command.wait().code().expect("the subcommand exits");
    (
        status,
        serde_json::from_str(&status_command.output())
            .unwrap_or_else(|_| panic!("{}{}", status_command.output(), status_command.log())),
    )
}

#[testkit::test]
fn a_lock_of_every_kind_is_shown_as_held_and_then_as_free() {
    let kinds = ["endpoints", "configmap", "endpoints+lease", "configmap+lease"].map(TestLock::of_kind);
    for lock in [TestLock::file(), TestLock::lease()].into_iter().chain(kinds) {
        let (code, initial) = status(&lock);
        assert_eq!((code, &initial["state"], &initial["holder"]), (1, &json!("free"), &json!(null)), "{}", lock.name);
        let mut a = Candidate::new("a", &lock).run_script("echo $LEADERRUN_RUN_ID; exec sleep 1000");
        eventually("a leads", || a.output().ends_with('\n'));
        let (code, held) = status(&lock);
        assert_eq!((code, &held["state"], &held["holder"]), (0, &json!("held"), &json!("a")), "{held}");
        assert_eq!((&held["lock"], &held["run"]), (&json!(lock.name), &json!(a.output().trim())));
        assert_eq!((&held["transitions"], &held["leaseDurationSeconds"]), (&json!(0), &json!(6)));
        for time in ["acquired", "renewed"] {
            assert!(held[time].as_str().is_some_and(|time| time.ends_with('Z')), "{time}: {held}");
        }
        let mut status_command = Candidate::subcommand("status", &lock).start();
        status_command.wait_for_exit(0);
        for line in [
            &format!("lock          {}\n", lock.name),
            "state         held\n",
            "holder        a\n",
            "held for ",
            "expires in",
        ] {
            assert!(status_command.output().contains(line), "{line:?}: {}", status_command.output());
        }
        a.stop();
        let (code, free) = status(&lock);
        assert_eq!((code, &free["state"], &free["expiresInSeconds"]), (1, &json!("free"), &json!(null)), "{free}");
    }
}

#[testkit::test]
fn a_lock_that_is_not_renewed_is_shown_as_expired() {
    let lock = TestLock::file();
    let a = Candidate::new("a", &lock).run_script("echo started; exec sleep 1000");
    eventually("a leads", || !a.output().is_empty());
    a.signal(Signal::SIGSTOP);
    eventually("the lock expires", || status(&lock).0 == 2);
    let (_, expired) = status(&lock);
    assert_eq!((&expired["state"], &expired["holder"]), (&json!("expired"), &json!("a")));
    a.signal(Signal::SIGCONT);
}

#[testkit::test]
fn status_shows_the_record_of_another_program() {
    let lock = TestLock::lease();
    let spec = json!({ "holderIdentity": "\u{1b}[2Jx", "leaseDurationSeconds": 15 });
    let lease = json!({ "metadata": { "name": "job" }, "spec": spec });
    Cluster::shared().admin().replace(&lock.lease_path(), &lease).expect("the lease can be written");
    let mut status_command = Candidate::subcommand("status", &lock).start();
    status_command.wait_for_exit(0);
    for expected in ["\\u{1b}[2Jx\n", "not written by leaderrun", "the record does not say"] {
        assert!(status_command.output().contains(expected), "{expected}: {}", status_command.output());
    }
    assert_eq!(status(&lock).1["holder"], "\u{1b}[2Jx");
}

#[testkit::test]
fn status_fails_if_the_lock_cannot_be_read() {
    let lock = TestLock::lease_through(Cluster::shared().kubeconfig_for("stranger"));
    let mut forbidden = Candidate::subcommand("status", &lock).start();
    forbidden.wait_for_exit(FAILED);
    assert!(forbidden.log().contains("not allowed to get leases"), "{}", forbidden.log());

    let not_a_record = scratch::directory("lock").join("text");
    std::fs::write(&not_a_record, "text").expect("the file can be written");
    let mut unreadable = Candidate::without_default_options("status")
        .args(["status", "--lock", &format!("file:{}", not_a_record.display())])
        .start();
    unreadable.wait_for_exit(FAILED);
    assert!(unreadable.log().contains("it is not a leaderrun record"), "{}", unreadable.log());

    let proxy = Proxy::start(Cluster::shared());
    let lock = lock.through(proxy.kubeconfig());
    proxy.partition();
    let mut timed_out = Candidate::subcommand("status", &lock).start();
    timed_out.wait_for_exit(FAILED);
    let expected = format!("cannot access {}: timed out after 10s", lock.name);
    assert!(timed_out.log().contains(&expected), "{}", timed_out.log());
    assert_eq!(timed_out.output(), "");
}

#[testkit::test]
fn status_explains_why_a_lock_has_no_record() {
    let nowhere = TestLock { name: "nowhere/job".into(), ..TestLock::lease() };
    let warning = "leaderrun: warning: there is no namespace \"nowhere\"; try kubectl create namespace nowhere\n";
    for (lock, warning) in [(TestLock::lease(), ""), (TestLock::file(), ""), (nowhere, warning)] {
        let mut status_command = Candidate::subcommand("status", &lock).start();
        status_command.wait_for_exit(1);
        let expected = "state         free: it has no record, so it was never held, or its record was deleted\n";
        assert!(status_command.output().contains(expected), "{}", status_command.output());
        assert_eq!(status_command.log(), warning);
    }
}

/// Returns the lines that have been printed so far, without their times.
fn lines(watch_command: &testkit::Running) -> Vec<String> {
    watch_command
        .output()
        .lines()
        .map(|line| line.split_once("Z ").expect("each line begins with a time").1.to_owned())
        .collect()
}

#[testkit::test]
fn status_watch_prints_one_line_for_each_change() {
    for lock in [TestLock::lease(), TestLock::file(), TestLock::of_kind("configmap+lease")] {
        let name = &lock.name;
        let mut watch_command = Candidate::subcommand("status", &lock).args(["--watch"]).start();
        eventually("the state at the start is printed", || {
            lines(&watch_command) == [format!("{name} is free: it has no record")]
        });
        let a = Candidate::new("a", &lock).run_script("echo held; exec sleep 1000");
        eventually("the acquisition by a is printed", || {
            lines(&watch_command).get(1) == Some(&format!("{name} is held by a, transitions 0"))
        });
        a.signal(Signal::SIGSTOP);
        let expired = format!("{name} has expired, by this machine's clock: a has not renewed it in time");
        eventually("the expiry is printed", || lines(&watch_command).get(2) == Some(&expired));
        a.signal(Signal::SIGCONT);
        eventually("the renewal after the expiry is printed", || lines(&watch_command).len() > 3);
        drop(a);
        watch_command.signal(Signal::SIGINT);
        watch_command.wait_until_killed_by(Signal::SIGINT);
    }
}

#[testkit::test]
fn status_watch_reads_a_lock_repeatedly_without_permission_to_watch_it() {
    let lock = TestLock::lease_through(Cluster::shared().kubeconfig_for("stranger"));
    Cluster::shared().set_permissions(
        lock.namespace(),
        "stranger",
        json!([testkit::rbac_rule("leases", &["job"], &["get"])]),
    );
    let watch_command = Candidate::subcommand("status", &lock).args(["--watch"]).start();
    watch_command.wait_for_log("not allowed to watch leases");
    let _a = Candidate::new("a", &lock.through(Cluster::shared().kubeconfig())).run_script("exec sleep 1000");
    eventually("the acquisition by a is printed", || watch_command.output().contains("held by a"));
}

#[testkit::test]
fn all_slots_are_shown_together() {
    for lock in [TestLock::file(), TestLock::lease()] {
        let show = |options: &[&str]| {
            let mut status_command = Candidate::subcommand("status", &lock).args(options).start();
            let code = status_command.wait().code().expect("the subcommand exits");
            (code, status_command.output(), status_command.log())
        };
        let slots = ["--slots", "2"];
        let (code, initial, _) = show(&slots);
        assert!(code == 1 && initial.ends_with("0 of 2 slots are held\n"), "{initial}");
        let mut watch_command = Candidate::subcommand("status", &lock).args(["--watch", "--slots", "2"]).start();
        eventually("the state at the start is printed", || lines(&watch_command).len() == 2);
        let mut leaders = ["a", "b"].map(|name| {
            let leader = Candidate::new(name, &lock).args(slots).run_script("echo $LEADERRUN_SLOT; exec sleep 1000");
            eventually("the candidate leads", || leader.output().ends_with('\n'));
            leader
        });
        let slot = leaders[0].output().trim().to_owned();
        let (code, all, _) = show(&slots);
        let held = format!("{}-{slot} is held by a, transitions 0\n", lock.name);
        assert!(code == 0 && all.contains(&held) && all.ends_with("2 of 2 slots are held\n"), "{all}");
        let (_, json, _) = show(&[&slots[..], &["-o", "json"]].concat());
        let json: Value = serde_json::from_str(&json).expect("the output is a JSON array");
        assert_eq!((&json[1]["slot"], &json[1]["slots"], &json[1]["state"]), (&json!(1), &json!(2), &json!("held")));
        // Without --slots, the name refers to a single lock, which has no record: only the locks of the slots have
        // records.
        let hint = format!("{0} has 2 slots; try leaderrun status --lock {0} --slots 2\n", lock.name);
        for (subcommand, options) in [("status", &[][..]), ("step-down", &[]), ("release", &["--force"])] {
            let mut without_slots = Candidate::subcommand(subcommand, &lock).args(options).start();
            without_slots.wait_for_exit(1);
            assert!(without_slots.log().ends_with(&hint), "{}", without_slots.log());
        }
        leaders[0].stop();
        let (code, one, _) = show(&slots);
        assert!(code == 1 && one.ends_with("1 of 2 slots are held\n"), "{one}");
        let has_line = |sentence: String| lines(&watch_command).iter().any(|line| line.starts_with(&sentence));
        eventually("the changes of the slots are printed", || {
            has_line(held.trim().to_owned()) && has_line(format!("{}-{slot} is free, ", lock.name))
        });
        watch_command.signal(Signal::SIGINT);
        watch_command.wait_until_killed_by(Signal::SIGINT);
    }
}
