//! Kubernetes' quantities: `250m`, `1.5`, `512Mi`, `2G`, `1e3`.

/// Suffixes and what they multiply with, the longer ones first.
const SUFFIXES: [(&str, f64); 16] = [
    ("Ki", 1024.0),
    ("Mi", 1_048_576.0),
    ("Gi", 1_073_741_824.0),
    ("Ti", 1_099_511_627_776.0),
    ("Pi", 1_125_899_906_842_624.0),
    ("Ei", 1_152_921_504_606_846_976.0),
    ("n", 1e-9),
    ("u", 1e-6),
    ("m", 1e-3),
    ("k", 1e3),
    ("M", 1e6),
    ("G", 1e9),
    ("T", 1e12),
    ("P", 1e15),
    ("E", 1e18),
    ("", 1.0),
];

/// Cores or bytes; nothing where it cannot be read.
pub(super) fn parse(text: &str) -> Option<f64> {
    let text = text.trim();
    SUFFIXES.iter().find_map(|(suffix, factor)| {
        let number: f64 = text.strip_suffix(suffix)?.parse().ok()?;
        number.is_finite().then_some(number * factor)
    })
}

/// Cores as whole thousandths, bytes as whole bytes; rounded up, so that nothing gets less than was decided.
pub(super) fn write(resource: &str, amount: f64) -> String {
    if resource == "cpu" {
        return format!("{:.0}m", (amount * 1000.0 - 1e-6).ceil().max(0.0));
    }
    format!("{:.0}", (amount - 1e-6).ceil().max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_an_api_server_writes() {
        for (text, wanted) in [
            ("250m", Some(0.25)),
            ("2", Some(2.0)),
            ("1.5", Some(1.5)),
            ("1e3", Some(1000.0)),
            ("512Mi", Some(536_870_912.0)),
            ("1Gi", Some(1_073_741_824.0)),
            ("2G", Some(2e9)),
            ("128974848", Some(128_974_848.0)),
            ("1E", Some(1e18)),
            ("100n", Some(1e-7)),
            ("", None),
            ("many", None),
            ("inf", None),
        ] {
            let read = parse(text);
            let same = match (read, wanted) {
                (Some(read), Some(wanted)) => (read - wanted).abs() <= wanted * 1e-12,
                (read, wanted) => read == wanted,
            };
            assert!(same, "{text}: {read:?}");
        }
    }

    #[test]
    fn writes_whole_millicores_and_bytes_rounded_up() {
        for (resource, amount, wanted) in [
            ("cpu", 0.25, "250m"),
            ("cpu", 0.3, "300m"),
            ("cpu", 0.2501, "251m"),
            ("memory", 1_000_000.2, "1000001"),
            ("memory", 536_870_912.0, "536870912"),
        ] {
            assert_eq!(write(resource, amount), wanted);
        }
    }
}
