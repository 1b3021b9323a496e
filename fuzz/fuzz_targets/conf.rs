//! Parses any bytes as a configuration, or reports the line that is wrong, in words that cannot steer a
//! terminal. The result fits into a plan, never unbinds an NVIDIA GPU, and names no path; comments change
//! nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nextkernel::request::conf::{Conf, UnbindTarget};
use nextkernel_plan::{GpuPolicy, Policy, is_module, is_nvidia, is_pci_address, limits};

fuzz_target!(|bytes: &[u8]| {
    let read = Conf::parse(bytes);
    let commented = Conf::parse(&[b"# gpu = x\n\n", bytes, b"\n# the end"].concat());
    match read {
        Ok(conf) => {
            assert_eq!(commented.as_ref(), Ok(&conf));
            fits(&conf);
        }
        Err(invalid) => {
            let lines = bytes.split(|byte| *byte == b'\n').count();
            assert!((1..=lines).contains(&invalid.line), "{invalid}");
            assert!(!invalid.to_string().contains(char::is_control), "{invalid:?}");
            let commented = commented.map_err(|invalid| (invalid.line - 2, invalid.error));
            assert_eq!(commented, Err((invalid.line, invalid.error)));
        }
    }
});

fn fits(conf: &Conf) {
    assert!(conf.gpu.len() <= limits::GPU_POLICIES_MAX);
    for (driver, policy) in &conf.gpu {
        assert!(driver == GpuPolicy::EVERY || is_module(driver), "{driver:?}");
        assert!(*policy != Policy::Unbind || !is_nvidia(driver), "{driver:?}");
    }
    assert!(conf.modules.len() <= limits::MODULES_MAX && conf.unbind.len() <= limits::UNBIND_MAX);
    assert!(conf.modules.iter().all(|module| is_module(module)), "{:?}", conf.modules);
    for target in &conf.unbind {
        match target {
            UnbindTarget::Address(address) => assert!(is_pci_address(address), "{address:?}"),
            UnbindTarget::Driver(name) => {
                let is_name = !name.is_empty() && !name.contains(['/', '\0']) && name != "." && name != "..";
                assert!(is_name && !is_nvidia(&name.replace('-', "_")), "{name:?}");
            }
        }
    }
    assert!(conf.guard.is_none_or(|seconds| seconds >= limits::GUARD_MIN) && conf.panic != Some(0));
}
