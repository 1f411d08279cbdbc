//! Whether a process of this host is still there: a client that is gone for good need not be
//! waited for.

use rasker_protocol::Process;

/// What no other host has, and no other space of process numbers on this one.
fn host() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let space = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{} {}", boot.trim(), space.display()))
}

/// State and time of start of a process, as the kernel counts it; none if there is no such process.
fn look_at(pid: u32) -> Option<(char, u64)> {
    let line = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in brackets and may hold anything.
    let (_, fields) = line.rsplit_once(") ")?;
    let mut fields = fields.split(' ');
    let state = fields.next()?.chars().next()?;
    Some((state, fields.nth(18)?.parse().ok()?))
}

/// This process, for others of its host; none where that cannot be told.
pub(crate) fn own() -> Option<Process> {
    let pid = std::process::id();
    Some(Process { host: host()?, pid, started: look_at(pid)?.1 })
}

/// Whether a process is known to have ended. Of one on another host nothing is known.
pub(crate) fn has_ended(process: &Process) -> bool {
    if host().as_ref() != Some(&process.host) {
        return false;
    }
    match look_at(process.pid) {
        // Another one may have its number by now, and one that nobody has asked about is dead too.
        Some((state, started)) => started != process.started || matches!(state, 'Z' | 'X'),
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_known_to_have_ended_and_not_sooner() {
        let me = own().expect("this system tells of its processes");
        assert!(!has_ended(&me));
        assert!(has_ended(&Process { started: me.started + 1, ..me.clone() }));
        assert!(!has_ended(&Process { host: "elsewhere".into(), pid: 0, ..me.clone() }));
        let mut child = std::process::Command::new("sleep").arg("60").spawn().expect("a child");
        let started = look_at(child.id()).expect("it runs").1;
        let other = Process { pid: child.id(), started, ..me };
        assert!(!has_ended(&other));
        child.kill().expect("it can be ended");
        // It is dead from then on, though nobody has asked what became of it.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !has_ended(&other) {
            assert!(std::time::Instant::now() < until, "it was killed");
            std::thread::yield_now();
        }
        child.wait().expect("it was killed");
        assert!(has_ended(&other));
    }
}
