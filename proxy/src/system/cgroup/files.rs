//! The few formats in which the kernel writes limits. Text in, numbers out.

/// v2 `cpu.max`: `50000 100000` is half a CPU, `max 100000` is no limit.
pub(super) fn cpu_max(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    cpu_quota(quota, period)
}

/// v1 `cpu.cfs_quota_us` and `cpu.cfs_period_us`; a quota of -1 is no limit.
pub(super) fn cpu_quota(quota: &str, period: &str) -> Option<f64> {
    let (quota, period) = (amount(quota)?, amount(period)?);
    (quota > 0 && period > 0).then(|| quota as f64 / period as f64)
}

/// A number alone in its file. `max`, which is no limit, and `-1` are none.
pub(super) fn amount(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// The value of `name` in a list of lines `name value`.
pub(super) fn stat(text: &str, name: &str) -> Option<u64> {
    text.lines()
        .find_map(|line| line.split_once(' ').filter(|(key, _)| *key == name))
        .and_then(|(_, value)| amount(value))
}

/// A limit is a number that can be reckoned with.
pub fn fuzz_files(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    assert!(cpu_max(text).is_none_or(|limit| limit.is_finite() && limit > 0.0));
    assert!(amount(text).is_none() || text.trim().len() <= text.len());
    stat(text, "inactive_file");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_of_both_versions() {
        assert_eq!(cpu_max("50000 100000\n"), Some(0.5));
        assert_eq!(cpu_max("max 100000\n"), None);
        assert_eq!(cpu_quota("-1\n", "100000\n"), None);
        assert_eq!(cpu_quota("300000\n", "100000\n"), Some(3.0));
        for wrong in ["", "max", "1", "0 100000", "1 0", "a b", "1 2 3", "18446744073709551616 1"] {
            assert_eq!(cpu_max(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn amounts_and_lists() {
        assert_eq!(amount("123\n"), Some(123));
        assert_eq!(amount("max\n"), None);
        assert_eq!(amount(""), None);
        let text = "inactive_anon 1\ninactive_file 2\ntotal_inactive_file 3\nbroken\n";
        assert_eq!(stat(text, "inactive_file"), Some(2));
        assert_eq!(stat(text, "total_inactive_file"), Some(3));
        assert_eq!(stat(text, "broken"), None);
    }

    #[test]
    fn any_text_is_read_or_refused() {
        for text in ["", " ", "\n", "1 1", "inactive_file", "inactive_file x", "9999999999999999999999"] {
            fuzz_files(text.as_bytes());
        }
        fuzz_files(b"\xff");
    }
}
