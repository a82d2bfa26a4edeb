//! The guest's processor: PVE's names to QEMU's `-cpu`.

use super::Accel;
use super::property::{Config, parts};

/// PVE's own models, which are QEMU's `qemu64` with flags.
///
/// # Source
/// `$builtin_models` of PVE::QemuServer::CPUConfig; the levels are those of the x86-64 psABI.
const LEVELS: [(&str, &str); 4] = [
    ("x86-64-v2", "+pni,+popcnt,+sse4.1,+sse4.2,+ssse3"),
    ("x86-64-v2-AES", "+aes,+pni,+popcnt,+sse4.1,+sse4.2,+ssse3"),
    (
        "x86-64-v3",
        "+abm,+aes,+avx,+avx2,+bmi1,+bmi2,+f16c,+fma,+movbe,+pni,+popcnt,+sse4.1,+sse4.2,+ssse3,+xsave",
    ),
    (
        "x86-64-v4",
        "+abm,+aes,+avx,+avx2,+avx512bw,+avx512cd,+avx512dq,+avx512f,+avx512vl,+bmi1,+bmi2,+f16c,+fma,+movbe,+pni,\
         +popcnt,+sse4.1,+sse4.2,+ssse3,+xsave",
    ),
];

/// The value of `-cpu`.
///
/// # Errors
/// The option's text cannot be read, or asks for a model that only a cluster's own file defines.
///
/// # Source
/// `get_cpu_options` of PVE::QemuServer::CPUConfig: `kvm64` is the default under KVM and `qemu64` without; `enforce` and the
/// paravirtual flags go with KVM only. `host` needs KVM; without it, `max` is what comes nearest.
pub(super) fn cpu(config: &Config, accel: Accel) -> Result<String, String> {
    let option = parts(config, "cpu")?;
    let kvm = accel == Accel::Kvm;
    let asked = option.get("cputype").unwrap_or(if kvm { "kvm64" } else { "qemu64" });
    if let Some(custom) = asked.strip_prefix("custom-") {
        return Err(format!(
            "option 'cpu': the model '{custom}' is one that a cluster defines for itself: name one that QEMU knows"
        ));
    }
    let level = LEVELS.iter().find(|(name, _)| *name == asked);
    let mut text = match (asked, level) {
        ("host", _) if !kvm => "max".to_owned(),
        (_, Some((_, flags))) => format!("qemu64,{flags}"),
        (name, None) => name.to_owned(),
    };
    let mut add = |part: &str| {
        text.push(',');
        text.push_str(part);
    };
    if kvm {
        if asked != "host" {
            add("enforce");
        }
        add("+kvm_pv_eoi");
        add("+kvm_pv_unhalt");
        if asked == "kvm64" {
            add("+lahf_lm");
            add("+sep");
        }
        if option.get("hidden") == Some("1") {
            add("kvm=off");
        }
    }
    for given in option
        .get("flags")
        .unwrap_or_default()
        .split(';')
        .filter(|f| !f.is_empty())
    {
        add(given);
    }
    match option.get("phys-bits") {
        Some("host") if kvm => add("host-phys-bits=on"),
        Some("host") | None => {}
        Some(bits) => add(&format!("phys-bits={bits}")),
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_models() {
        for (option, accel, expected) in [
            (
                None,
                Accel::Kvm,
                "kvm64,enforce,+kvm_pv_eoi,+kvm_pv_unhalt,+lahf_lm,+sep",
            ),
            (None, Accel::Tcg, "qemu64"),
            (Some("host"), Accel::Tcg, "max"),
            (Some("host"), Accel::Kvm, "host,+kvm_pv_eoi,+kvm_pv_unhalt"),
            (
                Some("x86-64-v2-AES"),
                Accel::Tcg,
                "qemu64,+aes,+pni,+popcnt,+sse4.1,+sse4.2,+ssse3",
            ),
            (
                Some("x86-64-v2-AES"),
                Accel::Kvm,
                "qemu64,+aes,+pni,+popcnt,+sse4.1,+sse4.2,+ssse3,enforce,+kvm_pv_eoi,+kvm_pv_unhalt",
            ),
            (
                Some("cputype=Nehalem,flags=+pcid;-vme"),
                Accel::Tcg,
                "Nehalem,+pcid,-vme",
            ),
            (Some("max,phys-bits=40"), Accel::Tcg, "max,phys-bits=40"),
        ] {
            let config = option.iter().map(|c| ("cpu".to_owned(), (*c).to_owned())).collect();
            assert_eq!(cpu(&config, accel).unwrap(), expected, "{option:?} {accel}");
        }
        let custom = Config::from([("cpu".into(), "custom-fast".into())]);
        assert!(cpu(&custom, Accel::Tcg).unwrap_err().contains("'fast'"));
    }
}
