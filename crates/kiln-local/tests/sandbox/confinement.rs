//! What a program in a sandbox sees, and what it may do.

use std::time::Duration;

use crate::support::{Ground, small};

#[test]
fn the_clock_of_the_wall_stands_still_for_every_process() {
    let Some(mut ground) = Ground::new("the_clock_of_the_wall_stands_still_for_every_process")
    else {
        return;
    };
    if !cfg!(target_arch = "x86_64") {
        println!("skipped: the_clock_of_the_wall_stands_still: not fixed on this architecture");
        return;
    }
    let done = ground.script(
        "date +%s.%N; sleep 0.3; sh -c 'date -u +%F; (date +%s) & wait'; touch -d now /srv/now",
    );
    let expected = "315532800.000000000\n1980-01-01\n315532800";
    assert_eq!(done.text(), expected);
    assert!(done.took >= Duration::from_millis(300), "time runs on all the same");
}

#[test]
fn nothing_of_the_machine_is_seen() {
    let Some(mut ground) = Ground::new("nothing_of_the_machine_is_seen") else { return };
    let done = ground.script(
        "id -u; echo $$; pwd; umask; cat /proc/sys/kernel/hostname /etc/hosts; \
         ls /proc | while read p; do case $p in [0-9]*) [ $p -le 9 ] || echo stranger $p;; esac; \
         done; ls /dev; env; cat /proc/net/route; ls /tmp/a; ls -d /sys 2>&1 || :",
    );
    let text = done.text();
    let (head, rest) = text.split_at(text.find("127.0.0.1").unwrap());
    assert_eq!(head, "0\n2\n/srv\n0022\nbuild\n");
    assert!(!rest.contains("stranger") && !rest.contains("sda"), "{rest}");
    let env: Vec<&str> = rest.lines().filter(|line| line.contains('=')).collect();
    assert_eq!(env, ["PATH=/usr/bin:/bin", "PWD=/srv"], "{rest}");
    // The table of routes has a heading and nothing else.
    assert!(rest.contains("Iface") && !rest.contains("eth"), "{rest}");
    assert!(rest.contains("tool"), "{rest}");
}

#[test]
fn what_reaches_further_than_files_is_refused() {
    let Some(mut ground) = Ground::new("what_reaches_further_than_files_is_refused") else {
        return;
    };
    let done = ground.script(
        "mknod /srv/disk b 8 0 2>&1; echo $?; echo x 2>/dev/null >/proc/sys/kernel/hostname; \
         echo $?; echo x 2>/dev/null >/proc/sys/vm/drop_caches; echo $?; \
         while read name value; do case $name in CapEff:|CapBnd:|NoNewPrivs:|Seccomp:) \
         echo $name $value;; esac; done </proc/self/status",
    );
    let text = done.text();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("Operation not permitted") || lines[0].contains("denied"), "{text}");
    assert_eq!(lines[1..4], ["1", "2", "2"], "{text}");
    // chown, dac_override, fowner, fsetid, kill, setgid, setuid, net_bind_service, sys_chroot,
    // setfcap.
    let wanted =
        1_u64 | 1 << 1 | 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 18 | 1 << 31;
    let wanted = format!("{wanted:016x}");
    assert!(text.contains(&format!("CapEff: {wanted}")), "{text}");
    assert!(text.contains(&format!("CapBnd: {wanted}")), "{text}");
    assert!(text.contains("NoNewPrivs: 1") && text.contains("Seccomp: 2"), "{text}");
}

#[test]
fn files_come_out_with_the_owners_that_they_were_given() {
    let Some(mut ground) = Ground::new("files_come_out_with_the_owners_that_they_were_given")
    else {
        return;
    };
    let done = ground.script(
        "echo one >/srv/one; chown 33:34 /srv/one; chmod 640 /srv/one; mkdir /srv/d; \
         chown 1000 /srv/d; cat /etc/secret; rm /etc/secret; echo left >/tmp/left; \
         echo left >/dev/shm/left; id -u",
    );
    assert_eq!(done.text(), "of root\n0");
    let tree = &done.gathered.tree;
    let one = tree.get("srv/one").unwrap();
    let metadata = one.metadata();
    assert_eq!((metadata.uid, metadata.gid, metadata.mode), (33, 34, 0o640));
    assert_eq!(metadata.mtime, kiln_image::sandbox::NO_DATE);
    assert_eq!(one.content().unwrap().read().unwrap(), b"one\n");
    assert_eq!(tree.get("srv/d").unwrap().metadata().uid, 1000);
    assert!(tree.get("etc/secret").is_none());
    assert!(tree.get("tmp/left").is_none() && tree.get("tmp/a").is_none());
    assert!(tree.get("etc/hosts").unwrap().content().unwrap().is_empty());
    // What was not touched keeps its time.
    assert_eq!(tree.get("usr/bin/date").unwrap().metadata().mtime, 100_000);
}

#[test]
fn a_user_is_no_more_than_a_user() {
    let Some(mut ground) = Ground::new("a_user_is_no_more_than_a_user") else { return };
    let text = "id -u; id -g; cat /etc/secret 2>&1; echo y 2>&1 >/srv/y; echo z >/dev/stdout; \
                 echo t >/tmp/t; cat /tmp/t";
    let done = ground.run(text, (1000, 50), false, small());
    let text = done.lines.join("\n");
    assert!(text.starts_with("1000\n50\n"), "{text}");
    assert!(text.contains("secret: Permission denied"), "{text}");
    assert!(text.contains("cannot create /srv/y: Permission denied"), "{text}");
    assert!(text.ends_with("z\nt"), "{text}");
    assert!(done.gathered.tree.get("srv/y").is_none());
}

#[test]
fn the_network_is_there_only_where_it_is_asked_for() {
    let Some(mut ground) = Ground::new("the_network_is_there_only_where_it_is_asked_for") else {
        return;
    };
    let links = |done: &crate::support::Done| -> Vec<String> {
        let text = done.text();
        let lines = text.lines().skip(2);
        lines.filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned())).collect()
    };
    let without = ground.run("cat /proc/net/dev", (0, 0), false, small());
    assert_eq!(links(&without), ["lo"]);
    let with = ground.run("cat /proc/net/dev", (0, 0), true, small());
    let own = std::fs::read_to_string("/proc/net/dev").unwrap();
    assert_eq!(links(&with).len(), own.lines().count() - 2, "{own}");
}
