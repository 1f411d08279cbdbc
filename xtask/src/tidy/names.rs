//! File and folder names that say nothing are refused.

use super::finding::Finding;
use super::tree::File;

const FORBIDDEN: &[&str] = &[
    "util", "utils", "helper", "helpers", "common", "misc", "manager", "managers", "core", "base",
    "tool", "tools",
];

/// Modules that carry Dask's public names, so that changing the import finds them.
const PUBLIC_NAMES: &[&str] =
    &["python/rasker/base.py", "python/rasker/core.py", "python/rasker/utils.py"];

pub fn check(file: &File, findings: &mut Vec<Finding>) {
    let path = file.path.as_str();
    if !(path.ends_with(".rs") || path.ends_with(".py") || path.ends_with(".pyi")) {
        return;
    }
    if path.ends_with("/mod.rs") {
        let message = "name the file after its module, beside the folder: `foo.rs` and `foo/`";
        findings.push(Finding::error(path, 1, "file-name", message));
    }
    if PUBLIC_NAMES.contains(&path.trim_end_matches('i')) {
        return;
    }
    let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
    for part in folders.split('/').chain([file.stem()]) {
        if FORBIDDEN.contains(&part.trim_matches('_')) {
            let message = format!("\"{part}\" says nothing; name the concept it holds");
            findings.push(Finding::error(path, 1, "file-name", message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n_findings(path: &str) -> usize {
        let mut findings = Vec::new();
        check(&File::new(path, ""), &mut findings);
        findings.len()
    }

    #[test]
    fn names_that_say_nothing_are_refused() {
        for path in ["crates/graph/src/utils.rs", "python/rasker/_core.py", "bench/helpers/a.py"] {
            assert_eq!(n_findings(path), 1, "{path}");
        }
        assert_eq!(n_findings("crates/graph/src/order/mod.rs"), 1);
        assert_eq!(n_findings("crates/graph/src/order.rs"), 0);
    }

    #[test]
    fn public_names_of_dask_are_allowed_where_they_are_public() {
        assert_eq!(n_findings("python/rasker/base.py"), 0);
        assert_eq!(n_findings("python/rasker/base.pyi"), 0);
        assert_eq!(n_findings("python/rasker/array/base.py"), 1);
    }
}
