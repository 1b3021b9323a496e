//! Volumes that are unlocked without a person, by the tokens in a LUKS2 header (LUKS2 On-Disk Format
//! Specification) that systemd-cryptenroll(1) and clevis-luks-bind(1) write. /etc/crypttab need not mention
//! them.

use std::path::Path;

use serde_json::Value;

use crate::machine::carriers;
use crate::machine::mounts::Mount;
use crate::machine::root::Root;

/// The magic of the binary header, and the version of the format that has tokens.
const MAGIC: &[u8] = b"LUKS\xba\xbe";
const VERSION: u16 = 2;

/// The length of the binary header, and the longest whole header that is read. The JSON text follows the
/// binary header and ends at the size given in it.
const HEADER: usize = 4096;
const SIZE_MAX: usize = 4 << 20;

/// Returns the tokens that let the TPM unlock a volume below `/` and `/usr`, each with its device. A header
/// that cannot be read is left out; reading it takes root.
#[must_use]
pub fn unlocked_by_tpm(root: &Root) -> Vec<String> {
    let mounts = Mount::all(root);
    let mut found: Vec<String> = Vec::new();
    for mount in ["/", "/usr"].iter().filter_map(|point| Mount::at(&mounts, Path::new(point))) {
        for device in carriers::below(root, &mounts, mount).0 {
            let Some(name) = device.file_name().and_then(|name| name.to_str()) else { continue };
            let node = Path::new("/dev").join(name.replace('!', "/"));
            let Ok(head) = root.read_up_to(&node, HEADER - 1) else { continue };
            let Some(size) = size(&head) else { continue };
            let header = root.read_up_to(&node, size - 1).unwrap_or_default();
            for token in tokens(&header) {
                let said = format!("{token} in the header of {}", node.display());
                if !found.contains(&said) {
                    found.push(said);
                }
            }
        }
    }
    found
}

/// Returns the size of the whole header, with its text; `None` if it is not LUKS2.
fn size(head: &[u8]) -> Option<usize> {
    let version = u16::from_be_bytes(*head.get(MAGIC.len()..)?.first_chunk()?);
    let size = u64::from_be_bytes(*head.get(8..)?.first_chunk()?);
    let size = usize::try_from(size).ok().filter(|size| (HEADER + 1..=SIZE_MAX).contains(size))?;
    (head.starts_with(MAGIC) && version == VERSION).then_some(size)
}

/// Describes each token that is bound to a TPM. Never fails: any bytes hold some tokens, or none.
#[must_use]
pub fn tokens(header: &[u8]) -> Vec<String> {
    let text = size(header).and_then(|size| header.get(HEADER..size.min(header.len()))).unwrap_or_default();
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let json: Value = serde_json::from_slice(text).unwrap_or_default();
    let tokens = json.get("tokens").and_then(Value::as_object);
    tokens.into_iter().flat_map(|tokens| tokens.values()).filter_map(bound).collect()
}

fn bound(token: &Value) -> Option<String> {
    let numbers = |key: &str| {
        let values = token.get(key).and_then(Value::as_array).into_iter().flatten();
        values.filter_map(Value::as_u64).map(|number| number.to_string()).collect::<Vec<_>>().join("+")
    };
    match token.get("type")?.as_str()? {
        "systemd-tpm2" => {
            let (bound, signed) = (numbers("tpm2-pcrs"), numbers("tpm2_pubkey_pcrs"));
            let signed = if signed.is_empty() {
                String::new()
            } else {
                format!(", a signed policy over PCRs {signed}")
            };
            let bound = if bound.is_empty() { "no PCRs".to_owned() } else { format!("PCRs {bound}") };
            let locked = token.get("tpm2_pcrlock").and_then(Value::as_bool) == Some(true);
            let locked = if locked { ", a policy of systemd-pcrlock's" } else { "" };
            Some(format!("systemd-tpm2, {bound}{signed}{locked}"))
        }
        "clevis" => {
            // The protected header of a JWE names the pin (clevis(1)), in URL-safe base64.
            let pins = pins(token.get("jwe")?.get("protected")?.as_str()?, SHARES_MAX);
            pins.contains(&"tpm2".to_owned()).then(|| format!("clevis, by the pin {}", pins.join(" of ")))
        }
        _ => None,
    }
}

/// How many levels of nested shares are examined.
const SHARES_MAX: usize = 3;

/// Returns the pin that the protected header of a JWE names (clevis(1)). The header of a pin for shares holds
/// a JWE for each share (clevis-encrypt-sss(1)). If one of these leads to the TPM, the result is the chain of
/// pins down to it, the innermost first.
fn pins(header: &str, deeper: usize) -> Vec<String> {
    let header: Value = serde_json::from_slice(&decoded(header)).unwrap_or_default();
    let clevis = header.get("clevis");
    let Some(pin) = clevis.and_then(|clevis| clevis.get("pin")).and_then(Value::as_str) else {
        return Vec::new();
    };
    let shares = clevis.and_then(|clevis| clevis.get(pin)?.get("jwe")?.as_array());
    let shares = shares.into_iter().flatten().filter_map(Value::as_str).filter(|_| deeper > 0);
    let mut of_shares = shares.map(|jwe| pins(jwe.split('.').next().unwrap_or_default(), deeper - 1));
    let mut found = of_shares.find(|pins| pins.contains(&"tpm2".to_owned())).unwrap_or_default();
    found.push(pin.to_owned());
    found
}

/// Decodes URL-safe base64 without padding (RFC 4648, 5), up to the first character that does not belong to
/// it.
fn decoded(text: &str) -> Vec<u8> {
    let digits = text.bytes().map_while(|letter| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    });
    let digits: Vec<u8> = digits.collect();
    let parts = digits.chunks(4).flat_map(|part| {
        let bits =
            part.iter().fold(0_u32, |bits, digit| (bits << 6) | u32::from(*digit)) << (6 * (4 - part.len()));
        let [_, bytes @ ..] = bits.to_be_bytes();
        bytes.into_iter().take(part.len().saturating_sub(1))
    });
    parts.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::machine::scratch::Scratch;

    /// Builds a header of 16 KiB.
    fn header(json: &str) -> Vec<u8> {
        let mut header = [MAGIC, &2_u16.to_be_bytes(), &0x4000_u64.to_be_bytes()].concat();
        header.resize(HEADER, 0);
        header.extend(json.as_bytes());
        header.resize(0x4000, 0);
        header
    }

    const TOKENS: &str = r#"{"keyslots":{},"tokens":{
        "0":{"type":"systemd-tpm2","keyslots":["1"],"tpm2-pcrs":[7,11],"tpm2_pubkey_pcrs":[11]},
        "1":{"type":"clevis","jwe":{"protected":"eyJjbGV2aXMiOnsicGluIjoidHBtMiJ9fQ"}},
        "2":{"type":"clevis","jwe":{"protected":"eyJjbGV2aXMiOnsicGluIjoidGFuZyJ9fQ"}},
        "3":{"type":"systemd-recovery","keyslots":["2"]},
        "4":{"type":"systemd-tpm2","tpm2-pcrs":[],"tpm2_pcrlock":true},
        "5":{"type":"clevis","jwe":{"protected":"eyJjbGV2aXMiOnsicGluIjoic3NzIiwic3NzIjp7InQiOjEsImp3ZSI6WyJleUpqYkdWMmFYTWlPbnNpY0dsdUlqb2lkR0Z1WnlKOWZRLmEuYiIsImV5SmpiR1YyYVhNaU9uc2ljR2x1SWpvaWRIQnRNaUo5ZlEuYy5kIl19fX0"}},
        "6":{"type":"clevis","jwe":{"protected":"eyJjbGV2aXMiOnsicGluIjoic3NzIiwic3NzIjp7InQiOjEsImp3ZSI6WyJleUpqYkdWMmFYTWlPbnNpY0dsdUlqb2lkR0Z1WnlKOWZRLmEuYiJdfX19"}}}}"#;

    #[test]
    fn what_is_bound_to_a_tpm_is_told_from_what_is_not() {
        assert_eq!(
            tokens(&header(TOKENS)),
            [
                "systemd-tpm2, PCRs 7+11, a signed policy over PCRs 11",
                "clevis, by the pin tpm2",
                "systemd-tpm2, no PCRs, a policy of systemd-pcrlock's",
                "clevis, by the pin tpm2 of sss",
            ]
        );
        assert!(
            tokens(&header("{}")).is_empty() && tokens(b"LUKS").is_empty() && tokens(&[0; 5000]).is_empty()
        );
        let whole = header(TOKENS);
        for length in (0..whole.len()).step_by(97) {
            let _ = tokens(whole.get(..length).unwrap());
        }
        let mut old = header(TOKENS);
        *old.get_mut(7).unwrap() = 1;
        assert!(tokens(&old).is_empty());
    }

    #[test]
    fn every_volume_below_the_root_is_asked() {
        let scratch = Scratch::new();
        scratch.put("/proc/self/mountinfo", "22 1 253:0 / / ro - ext4 /dev/dm-0 ro\n");
        scratch.link("/sys/dev/block/253:0", "/sys/devices/virtual/block/dm-0");
        scratch.put("/sys/devices/virtual/block/dm-0/dm/uuid", "CRYPT-LUKS2-abc\n");
        scratch.link("/sys/devices/virtual/block/dm-0/slaves/sda2", "/sys/devices/pci/sda/sda2");
        scratch.directory("/sys/devices/pci/sda/sda2");
        assert!(unlocked_by_tpm(&scratch.root).is_empty());
        scratch.put("/dev/sda2", "");
        std::fs::write(scratch.root.path("/dev/sda2"), header(TOKENS)).unwrap();
        let found = unlocked_by_tpm(&scratch.root);
        assert!(
            found.iter().any(|found| found == "clevis, by the pin tpm2 in the header of /dev/sda2"),
            "{found:?}"
        );
    }
}
