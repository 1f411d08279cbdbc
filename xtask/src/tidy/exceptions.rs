//! The breaches we accept, each with its reason. The list may only shrink: an exception that
//! nothing needs any more is itself a finding.

use super::finding::Finding;

/// One rule that one file may break.
pub struct Exception {
    pub path: &'static str,
    pub rule: &'static str,
    pub reason: &'static str,
}

pub const EXCEPTIONS: &[Exception] = &[];

/// Removes the excepted findings and reports the exceptions that excepted nothing.
pub fn apply(exceptions: &[Exception], findings: Vec<Finding>) -> Vec<Finding> {
    let matches = |e: &Exception, f: &Finding| e.path == f.path && e.rule == f.rule;
    let mut kept: Vec<Finding> = exceptions
        .iter()
        .filter(|e| !findings.iter().any(|f| matches(e, f)))
        .map(|e| {
            let message =
                format!("`{}` is no longer broken here ({}); remove it", e.rule, e.reason);
            Finding::error(e.path, 1, "exception", message)
        })
        .collect();
    kept.extend(findings.into_iter().filter(|f| !exceptions.iter().any(|e| matches(e, f))));
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCEPTED: &[Exception] =
        &[Exception { path: "a.rs", rule: "line-length", reason: "a table of constants" }];

    #[test]
    fn an_exception_silences_its_rule_in_its_file_only() {
        let here = Finding::error("a.rs", 3, "line-length", "long");
        let there = Finding::error("b.rs", 3, "line-length", "long");
        assert_eq!(apply(ACCEPTED, vec![here, there.clone()]), [there]);
    }

    #[test]
    fn an_exception_that_nothing_needs_is_a_finding() {
        let findings = apply(ACCEPTED, Vec::new());
        assert_eq!(findings[0].rule, "exception");
    }
}
