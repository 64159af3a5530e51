//! The branch in good and bad times.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::repository::Repository;
use super::{follow, followed, following, result_of, served, stack, unhealthy, wait};
use crate::site::{eventually, site_or_skip, told};

#[test]
fn good_commits_serve_and_bad_ones_are_given_up() {
    let site = site_or_skip!("good_commits_serve_and_bad_ones_are_given_up");
    let repository = followed(&site, &[]);
    let first = repository.head();
    assert_eq!(result_of(&site, &first, "deployed")["generation"], 1);
    let second = repository.commit(&stack(&site, "v2"), "Two");
    served(&site, "v2");
    result_of(&site, &second, "deployed");
    let status = site.status();
    assert_eq!(
        (status["commit"].as_str(), status["generation"].as_u64()),
        (Some(&*second), Some(2))
    );
    assert_eq!(status["follow"]["branch"], "main");

    let broken = repository.commit("server \"web\" {", "Broken");
    let reason = result_of(&site, &broken, "given_up")["reason"].as_str().unwrap().to_owned();
    assert!(reason.contains("main.kiln.hcl"), "it names the place: {reason}");
    let sick = repository.commit(&unhealthy(&site, "2s"), "Sick");
    let result = result_of(&site, &sick, "given_up");
    assert!(result["reason"].as_str().unwrap().contains("/healthz"), "{result}");
    assert_eq!(result["generation"], 3);
    let unbuilt = stack(&site, "v3").replace("copy \"kiln-probe\"", "copy \"nothing\"");
    let unbuilt = repository.commit(&unbuilt, "Lacks a file");
    result_of(&site, &unbuilt, "given_up");
    assert_eq!(site.get("/"), (200, "v2".to_owned()));
    let status = site.status();
    assert_eq!(
        (status["commit"].as_str(), status["generation"].as_u64()),
        (Some(&*second), Some(2))
    );

    let good = repository.commit(&stack(&site, "v4"), "Four");
    served(&site, "v4");
    result_of(&site, &good, "deployed");
    let results = following(&site)["results"].as_array().unwrap().len();
    assert_eq!(results, 6, "each commit once");
    let history: serde_json::Value =
        serde_json::from_str(&site.must(&["history", "--json"])).unwrap();
    let newest = &history["generations"][0];
    assert_eq!(
        (newest["commit"].as_str(), newest["origin"].as_str()),
        (Some(&*good), Some("follow"))
    );

    // Nothing of the stack changes: no generation, and the commit is what serves.
    fs::write(repository.work().join("README"), "words").unwrap();
    let words = repository.commit(&stack(&site, "v4"), "Words");
    result_of(&site, &words, "unchanged");
    eventually("the status names it", || site.status()["commit"] == words.as_str());
    let told = site.must(&["follow"]);
    assert!(told.contains("Words") && told.contains("given up"), "{told}");
}

#[test]
fn a_forced_push_is_deployed_and_said_and_a_vanished_branch_is_waited_for() {
    let site = site_or_skip!("a_forced_push_is_deployed_and_said");
    let repository = followed(&site, &[]);
    repository.commit(&stack(&site, "v2"), "Two");
    served(&site, "v2");
    repository.git(&["reset", "--quiet", "--hard", "HEAD~1"]);
    let forced = repository.commit(&stack(&site, "v3"), "Another two");
    served(&site, "v3");
    let result = result_of(&site, &forced, "deployed");
    assert!(result["notes"][0].as_str().unwrap().contains("forced"), "{result}");

    repository.bare_git(&["update-ref", "-d", "refs/heads/main"]);
    wait("it is said", &site, || {
        following(&site)["trouble"].as_str().is_some_and(|text| text.contains("no branch main"))
    });
    assert_eq!(site.get("/"), (200, "v3".to_owned()));
    repository.commit(&stack(&site, "v4"), "Back");
    served(&site, "v4");
    assert_eq!(following(&site)["trouble"], serde_json::Value::Null);

    // Gone as a whole, and back.
    let elsewhere = repository.bare().with_extension("away");
    fs::rename(repository.bare(), &elsewhere).unwrap();
    wait("it is said", &site, || following(&site)["phase"] == "troubled");
    fs::rename(&elsewhere, repository.bare()).unwrap();
    site.must(&["follow", "--now"]);
    repository.commit(&stack(&site, "v5"), "Five");
    served(&site, "v5");
}

#[test]
fn a_rollback_holds_until_it_is_resumed() {
    let site = site_or_skip!("a_rollback_holds_until_it_is_resumed");
    let repository = followed(&site, &[]);
    repository.commit(&stack(&site, "v2"), "Two");
    served(&site, "v2");
    site.must(&["rollback", "--yes"]);
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
    let third = repository.commit(&stack(&site, "v3"), "Three");
    wait("it is seen and left alone", &site, || {
        let following = following(&site);
        following["commit"] == third.as_str() && following["phase"] == "pinned"
    });
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(site.get("/"), (200, "v1".to_owned()));
    site.must(&["resume"]);
    served(&site, "v3");
    result_of(&site, &third, "deployed");

    // Without a new commit, resuming brings the newest one back.
    site.must(&["rollback", "--yes"]);
    assert_ne!(site.get("/"), (200, "v3".to_owned()));
    site.must(&["resume"]);
    served(&site, "v3");
}

#[test]
fn following_outlives_the_daemon_and_ends_when_it_is_told_to() {
    let site = site_or_skip!("following_outlives_the_daemon");
    let repository = followed(&site, &[]);
    let before = site.processes("follower");
    assert_eq!(before.len(), 1);
    site.signal("serve", Signal::KILL);
    eventually("its process ends with it", || site.processes("follower").is_empty());
    repository.commit(&stack(&site, "v2"), "Two");
    // Any verb that needs a daemon starts one.
    eventually("another daemon answers", || site.run(&["status"]).status.success());
    served(&site, "v2");
    assert_eq!(site.processes("serve").len(), 1);

    // Killed while a commit is on its way.
    for release in ["v3", "v4", "v5"] {
        repository.commit(&stack(&site, release), release);
        std::thread::sleep(Duration::from_millis(300));
        site.signal("serve", Signal::KILL);
        // One that asks while it dies is told that the connection broke.
        eventually("another daemon answers", || site.run(&["status"]).status.success());
        served(&site, release);
    }
    let pids = site.processes("follower");
    crate::site::send(pids[0], Signal::KILL);
    repository.commit(&stack(&site, "v6"), "After its process was killed");
    served(&site, "v6");

    site.must(&["follow", "--stop"]);
    assert!(site.processes("follower").is_empty());
    repository.commit(&stack(&site, "v7"), "Nobody looks");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(site.get("/"), (200, "v6".to_owned()));
    assert!(site.must(&["follow"]).contains("Nothing is followed"));
    follow(&site, &repository, &[]);
    served(&site, "v7");
    site.must(&["destroy", "--yes"]);
    assert!(site.processes("follower").is_empty(), "nothing brings it back");
    assert!(site.must(&["follow"]).contains("Nothing is followed"));
}

#[test]
fn only_the_newest_of_several_commits_matters_and_a_stuck_one_gives_way() {
    let site = site_or_skip!("only_the_newest_of_several_commits_matters");
    let repository = followed(&site, &[]);
    for number in 2..7 {
        repository.commit_only(&stack(&site, &format!("v{number}")), "One of several");
    }
    repository.push();
    result_of(&site, &repository.head(), "deployed");
    served(&site, "v6");
    assert_eq!(following(&site)["results"].as_array().unwrap().len(), 2);

    // It would be given up after a minute only.
    let stuck = repository.commit(&unhealthy(&site, "60s"), "Stuck");
    wait("it is on its way", &site, || following(&site)["phase"] == "rolling_out");
    let begun = Instant::now();
    repository.commit(&stack(&site, "v8"), "Better");
    served(&site, "v8");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    result_of(&site, &stuck, "superseded");
}

#[test]
fn what_cannot_be_followed_is_refused_with_the_way_out() {
    let site = site_or_skip!("what_cannot_be_followed_is_refused");
    let repository = Repository::new(&site);
    repository.commit(&stack(&site, "v1"), "One");
    let url = repository.url();
    let nowhere = format!("{url}.not");
    for (arguments, status, part) in [
        (&["follow", "ext::touch /tmp/x"][..], 2, "ext::"),
        (&["follow", &nowhere], 1, "does not appear to be a git repository"),
        (&["follow", &url, "--branch", "other"], 1, "no branch other"),
        (&["follow", &url, "--branch", "a..b"], 2, "no name of a branch"),
        (&["follow", &url, "--path", "../x"], 2, "no path of a directory"),
        (&["follow", &url, "--require-signed"], 2, "--signers"),
        (&["follow", &url, "--webhook", "0.0.0.0:9000"], 2, "loopback"),
        (&["follow", &url, "--webhook", "127.0.0.1:9000"], 2, "secret"),
        (&["follow", "https://a:b@example.org/x"], 2, "password"),
        (&["follow", "--stop", "nothing"], 2, "no such branch is followed"),
    ] {
        let output = site.run(arguments);
        let text = told(&output);
        assert_eq!(output.status.code(), Some(status), "{arguments:?}: {text}");
        assert!(text.contains(part), "{arguments:?}: {text}");
    }
    // Another directory has the name already.
    site.write(
        &stack(&site, "by-hand").replace("\nvariable", "\nstack { name = \"shop\" }\nvariable"),
    );
    site.must(&["apply", "--yes"]);
    follow(&site, &repository, &[]);
    let result = result_of(&site, &repository.head(), "given_up");
    assert!(result["reason"].as_str().unwrap().contains("--adopt"), "{result}");
    assert_eq!(site.get("/"), (200, "by-hand".to_owned()));
    follow(&site, &repository, &["--adopt"]);
    site.must(&["follow", "--retry"]);
    served(&site, "v1");
}
