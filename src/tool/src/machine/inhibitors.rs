//! Programs that block a shutdown (systemd's "Inhibitor Locks").

use std::process::Command;

use serde::Deserialize;

/// A program that blocks a shutdown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inhibitor {
    /// The name that it gives itself.
    pub who: String,
    /// Its reason.
    pub why: String,
    /// Its process ID.
    pub pid: u32,
}

/// logind's answer: `a(ssssuu)`, that is what, who, why, mode, uid and pid (org.freedesktop.login1(5)).
#[derive(Deserialize)]
struct Answer {
    data: (Vec<Lock>,),
}

type Lock = (String, String, String, String, u32, u32);

/// Asks logind. The error says why it could not be asked.
pub fn find() -> Result<Vec<Inhibitor>, String> {
    let asked = Command::new("busctl")
        .args(["--system", "--json=short", "call", "org.freedesktop.login1", "/org/freedesktop/login1"])
        .args(["org.freedesktop.login1.Manager", "ListInhibitors"])
        .output()
        .map_err(|error| format!("busctl cannot be run: {error}"))?;
    if asked.status.success() {
        parse(&asked.stdout)
    } else {
        Err(String::from_utf8_lossy(&asked.stderr).trim().replace('\n', "; "))
    }
}

/// Returns the locks that block a shutdown for root, too. logind itself waits for a `delay`, and `block-weak`
/// binds only other users (`logind_check_inhibitors`, src/systemctl/systemctl-logind.c).
fn parse(answer: &[u8]) -> Result<Vec<Inhibitor>, String> {
    let answer: Answer = serde_json::from_slice(answer)
        .map_err(|error| format!("logind's answer is not understood: {error}"))?;
    let blocks = |what: &str, mode: &str| mode == "block" && what.split(':').any(|what| what == "shutdown");
    let all = answer.data.0.into_iter().filter(|(what, _, _, mode, ..)| blocks(what, mode));
    Ok(all.map(|(_, who, why, _, _, pid)| Inhibitor { who, why, pid }).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn whoever_blocks_a_shutdown_is_told_from_who_delays_it_or_blocks_something_else() {
        let answer = br#"{"type":"a(ssssuu)","data":[[
            ["sleep","ModemManager","ModemManager needs to reset devices","delay",0,612],
            ["handle-power-key:sleep","GNOME","GNOME handles it","block",1000,1533],
            ["shutdown","Weak","weak","block-weak",1000,7],
            ["shutdown:sleep","apt \"upgrade\"","dpkg, is running","block",0,4711]]]}"#;
        let found = parse(answer).unwrap();
        let apt = Inhibitor { who: "apt \"upgrade\"".into(), why: "dpkg, is running".into(), pid: 4711 };
        assert_eq!(found, [apt]);
        assert_eq!(parse(br#"{"type":"a(ssssuu)","data":[[]]}"#).unwrap(), []);
    }

    #[test]
    fn what_is_not_understood_is_no_silence() {
        for answer in ["", "{}", "a(ssssuu) 0", r#"{"data":[[["shutdown"]]]}"#] {
            assert!(parse(answer.as_bytes()).is_err(), "{answer}");
        }
    }
}
