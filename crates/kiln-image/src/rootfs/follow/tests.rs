//! Scripts as maintainers write them, and what they leave in a tree.

use super::*;
use crate::tree::{Inode, Metadata};

/// What is left when a script was followed.
struct After {
    tree: Tree,
    accounts: Accounts,
    missed: Vec<String>,
}

impl After {
    fn text(&self, path: &str) -> String {
        let content = self.tree.resolve(path).unwrap().content().unwrap().read().unwrap();
        String::from_utf8(content).unwrap()
    }

    fn owner(&self, path: &str) -> (u16, u32, u32) {
        let metadata = self.tree.get(path).unwrap().metadata();
        (metadata.mode, metadata.uid, metadata.gid)
    }
}

fn followed(text: &str) -> After {
    let (mut tree, mut accounts) = (Tree::new(), Accounts::debian());
    let (mut alternatives, mut diversions) = (Alternatives::default(), Diversions::default());
    for directory in ["etc", "usr/bin", "usr/share/app", "var/lib", "var/log", "tmp", "run"] {
        tree.make_directories(directory, &Metadata::new(0o755)).unwrap();
    }
    let file = |text: &str| Inode::file(Metadata::new(0o644), text.as_bytes().to_vec());
    tree.insert("usr/share/app/app.conf", file("ssl = off\nport = 1\n")).unwrap();
    tree.insert("usr/share/app/helpers", file("helped() { touch /var/lib/helped; }\n")).unwrap();
    tree.insert("usr/bin/app", file("")).unwrap();
    let scene = Scene {
        tree: &mut tree,
        accounts: &mut accounts,
        alternatives: &mut alternatives,
        diversions: &mut diversions,
        architecture: "amd64",
    };
    let script = Followed {
        package: "app-15",
        architecture: "amd64",
        name: "postinst",
        text: &format!("#!/bin/sh\nset -e\n{text}"),
        arguments: &["configure".to_owned(), String::new()],
        templates: "Template: app/ssl\nType: boolean\nDefault: true\n",
    };
    let missed = follow(scene, script).into_iter().collect();
    alternatives.link(&mut tree).unwrap();
    After { tree, accounts, missed }
}

#[test]
fn a_usual_script_is_done() {
    let after = followed(
        r#"
. /usr/share/debconf/confmodule
USER="app"
VERSION=${DPKG_MAINTSCRIPT_PACKAGE##*-}
case "$1" in
    configure)
        if ! getent passwd $USER > /dev/null 2>&1; then
            adduser --system --group --quiet --home /var/lib/$USER "$USER" || true
        fi
        [ -d /var/log/app ] || install -d -m 2750 -o app -g adm /var/log/app
        for log in access error; do
            if [ ! -e "/var/log/app/$log.log" ]; then
                touch /var/log/app/$log.log
                chown app:adm /var/log/app/$log.log
                chmod 640 "/var/log/app/$log.log"
            fi
        done
        ln -s /usr/share/app/app.conf /etc/app.link
        ucf --debconf-ok /usr/share/app/app.conf /etc/app.conf
        update-alternatives --install /usr/bin/editor editor /usr/bin/app $VERSION
        if [ -n "$2" ] && dpkg --compare-versions "$2" lt 1.2; then frobnicate; fi
        if [ -d /run/systemd/system ]; then systemctl daemon-reload >/dev/null || :; fi
        . /usr/share/app/helpers && helped
    ;;
    abort-upgrade|abort-remove) ;;
    *) echo "unknown argument $1" >&2; exit 1 ;;
esac
db_get app/ssl
if [ "$RET" = true ]; then
    TMP=`mktemp`
    sed -e 's/^ssl =.*/ssl = on/' /usr/share/app/app.conf > $TMP
    ucf $TMP /etc/app-ssl.conf
    rm -f $TMP
fi
cat > /etc/app.here <<EOF
version $VERSION
EOF
invoke-rc.d app start || exit $?
exit 0
frobnicate
"#,
    );
    assert!(after.missed.is_empty(), "{:?}", after.missed);
    let (uid, gid) = after.accounts.resolve("app").unwrap();
    assert_eq!(after.owner("var/lib/app"), (0o755, uid, gid));
    assert_eq!(after.owner("var/log/app"), (0o2750, uid, 4));
    assert_eq!(after.owner("var/log/app/error.log"), (0o640, uid, 4));
    assert_eq!(after.text("etc/app.conf"), "ssl = off\nport = 1\n");
    assert_eq!(after.text("etc/app.link"), "ssl = off\nport = 1\n");
    assert_eq!(after.text("etc/app-ssl.conf"), "ssl = on\nport = 1\n");
    assert_eq!(after.text("etc/app.here"), "version 15\n");
    assert!(after.tree.resolve("usr/bin/editor").is_ok());
    assert!(after.tree.get("var/lib/helped").is_some());
    assert!(after.tree.resolve("tmp").is_ok_and(|tmp| match tmp.kind() {
        crate::tree::Kind::Directory(children) => children.is_empty(),
        _ => false,
    }));
}

#[test]
fn what_is_not_known_is_named() {
    for (script, missed) in [
        ("frobnicate --all", vec!["frobnicate"]),
        ("/usr/lib/app/setup", vec!["setup"]),
        ("if [ \"$(date +%s)\" -gt 5 ]; then mkdir /etc/x; fi", vec!["mkdir"]),
        ("chown $(stat -c %U /etc) /etc", vec!["chown"]),
        ("mkdir -m $(stat -L -c %a /etc) /etc/x && sh -c 'touch /etc/x/y'", vec![]),
        ("for p in a:b; do touch /etc/$(echo $p | cut -d: -f2 | tr b c); done", vec![]),
        ("date > /etc/stamp", vec!["what writes /etc/stamp"]),
        (". /usr/share/nothing", vec!["/usr/share/nothing"]),
        ("while true; do true; done", vec!["a loop that does not end"]),
        ("f() { f; }\nf", vec!["functions that call each other without end"]),
        ("case x in y) true", vec!["a form of the shell that is not understood"]),
        ("frobnicate || true", vec!["frobnicate"]),
        ("[ \"$1\" = triggered ] && frobnicate", vec![]),
        ("pgrep app && kill 1\nlogger -t x y | cat", vec![]),
    ] {
        assert_eq!(followed(script).missed, missed, "{script}");
    }
}

#[test]
fn words_are_expanded() {
    let after = followed(
        r#"
a="x y"; b='$a'; c=${a#x }; d=${unset:-default}; e=${a:+instead}
f=$(echo "$a" | sed 's/x/z/'); g=$(basename /usr/lib/q.so .so); h=`expr 2 + 3`
set -- one "two three"
for word in $a "$a" /usr/share/app/*; do echo "<$word>" >> /etc/out; done
printf '%s-%s\n' "$b" "$c" >> /etc/out
echo $d $e $f $g $h ${#c} >> /etc/out
echo "a\"b" | while read line; do echo "read $line" >> /etc/out; done
if echo "$a" | grep -q '^x'; then echo yes >> /etc/out; fi
[ "$a" = "x y" -a ! -e /nothing ] && echo both >> /etc/out
"#,
    );
    assert!(after.missed.is_empty(), "{:?}", after.missed);
    assert_eq!(
        after.text("etc/out"),
        "<x>\n<y>\n<x y>\n</usr/share/app/app.conf>\n</usr/share/app/helpers>\n$a-y\n\
         default instead z y q 5 1\nread a\"b\nyes\nboth\n"
    );
}

#[test]
fn what_an_instance_brings_is_left_to_it() {
    let after = followed(
        "mkdir -p /run/app /var/run/app\ninstall -d /tmp/x\ntouch /run/y\necho z > /run/z\n\
         chown app /run/app\nrm -rf /usr",
    );
    assert!(after.missed.is_empty(), "{:?}", after.missed);
    for path in ["run/app", "tmp/x", "run/y", "run/z"] {
        assert!(after.tree.get(path).is_none(), "{path}");
    }
    assert!(after.tree.get("usr/bin").is_some(), "a top directory stays");
}

#[test]
fn a_script_of_any_usual_shell_is_followed() {
    for first in ["#!/bin/sh", "#! /bin/bash -e", "#!/bin/dash", "#!/usr/bin/dash -e"] {
        assert!(is_shell(first), "{first}");
    }
    for first in ["#!/usr/bin/perl", "#!/usr/bin/python3", "#!/bin/csh", "/bin/sh", ""] {
        assert!(!is_shell(first), "{first}");
    }
}
