use super::*;
use std::fs;
use std::path::PathBuf;

struct Folder(PathBuf);

impl Folder {
    fn with(name: &str, files: &[&str]) -> Folder {
        let path = std::env::temp_dir().join(format!("rasker-io-{}-{name}", std::process::id()));
        for file in files {
            let file = path.join(file);
            fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            fs::write(file, "x").expect("a file");
        }
        Folder(path)
    }

    fn list(&self, pattern: &str) -> Result<Vec<String>, IoError> {
        let at = Location::parse(&format!("{}/{pattern}", self.0.display()))?;
        let store = open(&at, &StoreOptions::new())?;
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let found = runtime.block_on(list(store.as_ref(), &at))?;
        let name = |file: FoundFile| match file.below.as_str() {
            "" => file.meta.location.filename().expect("a name").to_owned(),
            below => below.to_owned(),
        };
        Ok(found.into_iter().map(name).collect())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_star_stays_within_its_folder() {
    let folder = Folder::with("star", &["a.csv", "b.csv", "c.txt", "deep/d.csv"]);
    assert_eq!(folder.list("*.csv").expect("files"), ["a.csv", "b.csv"]);
    assert_eq!(folder.list("**/*.csv").expect("files"), ["a.csv", "b.csv", "deep/d.csv"]);
    assert_eq!(folder.list("[ab].csv").expect("files"), ["a.csv", "b.csv"]);
}

#[test]
fn hidden_files_are_not_data() {
    let files = ["_SUCCESS", ".part.crc", "_k=1/x.csv", "k=1/x.csv", "_temporary/0.csv"];
    let folder = Folder::with("hidden", &files);
    assert_eq!(folder.list("").expect("files"), ["_k=1/x.csv", "k=1/x.csv"]);
}

#[test]
fn a_pattern_may_name_folders() {
    let folder = Folder::with("folders", &["year=1/a.csv", "year=2/b.csv", "other/c.csv"]);
    assert_eq!(folder.list("year=*").expect("files"), ["year=1/a.csv", "year=2/b.csv"]);
}

#[test]
fn what_is_missing_is_said() {
    let folder = Folder::with("missing", &["a.csv", "empty/_x"]);
    let text = |pattern: &str| folder.list(pattern).expect_err("nothing").to_string();
    assert!(text("b.csv").starts_with("no file is at"), "{}", text("b.csv"));
    assert!(text("*.parquet").starts_with("no file matches"), "{}", text("*.parquet"));
    assert!(text("none/*.csv").starts_with("no file matches"), "{}", text("none/*.csv"));
    assert!(text("empty/").contains("holds no data files"), "{}", text("empty/"));
    assert_eq!(folder.list("a.csv").expect("it is there"), ["a.csv"]);
}

#[test]
fn errors_hold_no_secret() {
    let at = Location::parse("s3://bucket/key").expect("a location");
    let options = [("secret", "hunter2"), ("nonsense", "hunter2")];
    let options = options.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let error = open(&at, &options).expect_err("an option that is not known");
    assert!(error.to_string().contains("nonsense"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
}

#[test]
fn schemes_that_are_not_supported_say_so() {
    let at = Location::parse("ftp://host/file").expect("a location");
    let error = open(&at, &StoreOptions::new()).expect_err("no such scheme").to_string();
    assert!(error.starts_with("ftp:// is not supported"), "{error}");
}
