//! A crate depends only on the crates above it, and what only one room may link stays there.

use super::finding::Finding;
use super::tree::File;

/// The crates in the order in which they may depend on each other: each only on earlier ones.
const LAYERS: &[&str] = &[
    "graph",
    "protocol",
    "scheduler",
    "worker",
    "client",
    "simulation",
    "store",
    "transport",
    "exchange",
    "kernels",
    "io",
    "array",
    "dataframe",
    "engine",
    "runtime",
    "dashboard",
    "python",
];

/// Packages from outside that stand behind one crate of ours.
const ROOMS: &[(&str, &str)] = &[("datafusion", "engine"), ("pyo3", "python")];

pub fn check(file: &File, findings: &mut Vec<Finding>) {
    let Some((folder, "Cargo.toml")) = file.in_crate() else {
        return;
    };
    let Some(layer) = LAYERS.iter().position(|name| *name == folder) else {
        let message = format!("crate \"{folder}\" has no place in the list of layers");
        findings.push(Finding::error(&file.path, 1, "layers", message));
        return;
    };
    let mut section = String::new();
    for (number, line) in file.text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_matches(['[', ']']).to_owned();
        }
        let name = if section == "package" {
            check_package(line, folder)
        } else {
            dependency(&section, line).and_then(|name| check_dependency(folder, layer, &name))
        };
        if let Some(message) = name {
            findings.push(Finding::error(&file.path, number + 1, "layers", message));
        }
    }
}

fn check_package(line: &str, folder: &str) -> Option<String> {
    let (field, value) = line.split_once('=')?;
    let value = value.trim().trim_matches('"');
    let expected = format!("rasker-{folder}");
    (field.trim() == "name" && value != expected)
        .then(|| format!("package \"{value}\" should be named \"{expected}\" after its folder"))
}

/// The dependency that a line names; tests may reach anywhere, so theirs are not asked for.
fn dependency(section: &str, line: &str) -> Option<String> {
    let (head, table) = match section.rsplit_once("dependencies.") {
        Some((head, name)) if line.starts_with('[') => (head, Some(name)),
        _ => (section.strip_suffix("dependencies")?, None),
    };
    if head.ends_with("dev-") {
        return None;
    }
    let name = match table {
        Some(name) => name,
        None => line.split_once('=')?.0.split('.').next()?,
    };
    Some(name.trim().trim_matches('"').to_owned())
}

fn check_dependency(folder: &str, layer: usize, name: &str) -> Option<String> {
    for (package, room) in ROOMS {
        if folder != *room && (name == *package || name.starts_with(&format!("{package}-"))) {
            return Some(format!("only crate \"{room}\" links {package}"));
        }
    }
    let other = name.strip_prefix("rasker-")?;
    match LAYERS.iter().position(|known| *known == other) {
        None => Some(format!("crate \"{other}\" has no place in the list of layers")),
        Some(_) if other == "simulation" => Some("the simulation is only for tests".to_owned()),
        Some(below) if below >= layer => {
            Some(format!("crate \"{folder}\" stands above \"{other}\" and may not depend on it"))
        }
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: &str) -> Vec<(usize, String)> {
        let mut findings = Vec::new();
        check(&File::new(path, text), &mut findings);
        findings.into_iter().map(|f| (f.line, f.message)).collect()
    }

    #[test]
    fn a_crate_may_not_depend_on_one_below_it() {
        let text = "[package]\nname = \"rasker-worker\"\n[dependencies]\nrasker-graph.workspace = true\n\
                    rasker-store = { path = \"../store\" }\n[dev-dependencies]\nrasker-simulation = \"1\"\n";
        let found = messages("crates/worker/Cargo.toml", text);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, 5);
    }

    #[test]
    fn dependencies_in_tables_and_for_targets_count() {
        let text = "[dependencies.rasker-runtime]\nworkspace = true\n\
                    [target.'cfg(unix)'.dependencies]\nrasker-python = \"1\"\n";
        assert_eq!(messages("crates/graph/Cargo.toml", text).len(), 2);
    }

    #[test]
    fn only_one_room_links_the_engine_and_one_python() {
        let text = "[dependencies]\npyo3.workspace = true\ndatafusion-expr = \"55\"\n";
        assert_eq!(messages("crates/runtime/Cargo.toml", text).len(), 2);
        assert_eq!(messages("crates/python/Cargo.toml", "[dependencies]\npyo3 = \"0.30\"\n"), []);
    }

    #[test]
    fn a_package_is_named_after_its_folder() {
        let found = messages("crates/io/Cargo.toml", "[package]\nname = \"io\"\n");
        assert_eq!(found[0].1, "package \"io\" should be named \"rasker-io\" after its folder");
        assert_eq!(messages("crates/spare/Cargo.toml", "").len(), 1);
    }
}
