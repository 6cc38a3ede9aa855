//! What these tests show: sessions, groups of processes, users and permissions.

use asyncio::ErrorKind;

use crate::{Place, output, shell};

on_each_watcher! {
    a_new_session_has_its_own_group
    a_process_group_can_be_new_or_given
    a_umask_is_the_child_s_alone
    users_and_groups_are_set_or_refused
}

/// The fields of /proc/self/stat after the name: state, ppid, pgrp, session.
const STAT: &str = "pid=$$; set -- $(cut -d')' -f2 /proc/$$/stat); echo $pid $3 $4";

fn numbers(text: &str) -> Vec<u32> {
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

/// PRC-018
fn a_new_session_has_its_own_group(place: Place) {
    let event_loop = place.event_loop();
    let (_, returncode) = output(&event_loop, "exit 7", |builder| builder.start_new_session(true));
    assert_eq!(returncode, Some(7));
    let (text, _) = output(&event_loop, STAT, |builder| builder.start_new_session(true));
    let [pid, group, session] = numbers(&text)[..] else { panic!("{text}") };
    assert_eq!((group, session), (pid, pid));
    let (text, _) = output(&event_loop, STAT, |builder| builder.start_new_session(false));
    let [pid, group, session] = numbers(&text)[..] else { panic!("{text}") };
    assert!(group != pid && session != pid);
}

/// asyncio's `process_group`.
fn a_process_group_can_be_new_or_given(place: Place) {
    let event_loop = place.event_loop();
    let (text, _) = output(&event_loop, STAT, |builder| builder.process_group(0));
    let [pid, group, session] = numbers(&text)[..] else { panic!("{text}") };
    assert!(group == pid && session != pid);
    let (builder, log) = shell(&event_loop, "cat");
    let (leader, _) = event_loop.run(builder.process_group(0));
    let number = leader.get_pid();
    let (text, _) = output(&event_loop, STAT, |builder| builder.process_group(number as i32));
    assert_eq!(numbers(&text)[1], number);
    leader.close();
    event_loop.until(|| log.lost());
    let (text, _) = output(&event_loop, STAT, |builder| builder);
    assert_eq!(numbers(&text)[1], rustix::process::getpgrp().as_raw_nonzero().get() as u32);
}

/// asyncio's `umask`.
fn a_umask_is_the_child_s_alone(place: Place) {
    let event_loop = place.event_loop();
    let before = output(&event_loop, "umask", |builder| builder).0;
    let (text, _) = output(&event_loop, "umask", |builder| builder.umask(0o51));
    assert_eq!(text.trim().trim_start_matches('0'), "51");
    assert_eq!(output(&event_loop, "umask", |builder| builder).0, before);
}

/// asyncio's `user`, `group` and `extra_groups`: for the superuser, the others are refused.
fn users_and_groups_are_set_or_refused(place: Place) {
    let event_loop = place.event_loop();
    if !rustix::process::geteuid().is_root() {
        for builder in [shell(&event_loop, "id").0.user(0), shell(&event_loop, "id").0.group(0)] {
            let error = event_loop.fails(builder);
            assert_eq!((error.kind(), error.raw_os_error()), (ErrorKind::Io, Some(libc::EPERM)));
        }
        return;
    }
    let all = "id -u; id -g; id -G";
    let (text, _) = output(&event_loop, all, |builder| builder.user(65_534).group(65_533));
    assert_eq!(text, "65534\n65533\n65533\n");
    let (text, _) = output(&event_loop, all, |builder| builder.user(1234).group(2345).extra_groups([10, 20]));
    assert_eq!(text, "1234\n2345\n2345 10 20\n");
    let (text, _) = output(&event_loop, "id -u; id -G", |builder| builder.extra_groups([7]));
    assert_eq!(text, "0\n0 7\n");
}
