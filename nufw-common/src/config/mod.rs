//! Configuration in layers: built-in defaults, a TOML file, its `conf.d`, the environment, the command line.
//!
//! The `config` crate merges the layers; a format of our own keeps the file and line of every value, so that each
//! error names them. What the values mean is checked by the caller, through [`Origins::reject`].

mod de;
mod error;
mod fault;
mod origins;
mod parse;
mod types;

pub use error::{ConfigError, Problems};
pub use origins::Origins;
pub use parse::TomlWithOrigins;
pub use types::{ByteSize, HexOrInt, HumanDuration, Tried};

use ::config::{Config, Map, Source, Value};
use parse::Layer;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

/// A configuration and where each of its values came from.
#[derive(Debug, Clone)]
pub struct Loaded<T> {
    /// The configuration.
    pub value: T,
    /// Where its values came from.
    pub origins: Origins,
}

impl<T> Loaded<T> {
    /// An error at a key: where it was set, what was found and what was expected.
    pub fn reject(
        &self,
        key: &str,
        found: impl std::fmt::Display,
        expected: impl std::fmt::Display,
    ) -> ConfigError {
        self.origins.reject(key, found, expected)
    }
}

/// Gathers the layers of one configuration, lowest first, and loads them.
#[derive(Debug)]
pub struct Loader {
    name: String,
    defaults: Option<String>,
    files: Vec<(PathBuf, bool)>,
    conf_d: Option<PathBuf>,
    env: Vec<(String, String, String)>,
    overrides: Vec<(String, String, String)>,
}

impl Loader {
    /// A configuration without layers; `name` is what errors call it where no file is to blame.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            defaults: None,
            files: Vec::new(),
            conf_d: None,
            env: Vec::new(),
            overrides: Vec::new(),
        }
    }

    /// Built-in defaults, as TOML.
    #[must_use]
    pub fn defaults(mut self, toml: impl Into<String>) -> Self {
        self.defaults = Some(toml.into());
        self
    }

    /// The file; one that is not `required` may be absent, but not unreadable. Of several, the later wins.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>, required: bool) -> Self {
        self.files.push((path.into(), required));
        self
    }

    /// A directory whose `*.toml` files count in the order of their names, over the file. It may be absent.
    #[must_use]
    pub fn conf_d(mut self, dir: impl Into<PathBuf>) -> Self {
        self.conf_d = Some(dir.into());
        self
    }

    /// Environment variables of this process: `PREFIX_MARK_MASK` sets `mark-mask`, `PREFIX_QUEUE_MAX_PENDING` sets
    /// `queue.max-pending`; the items of a list are parted by commas.
    #[must_use]
    pub fn env(self, prefix: &str) -> Self {
        let variables = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        self.env_from(prefix, variables)
    }

    /// The same from variables given here.
    #[must_use]
    pub fn env_from(mut self, prefix: &str, variables: impl IntoIterator<Item = (String, String)>) -> Self {
        for (name, value) in variables {
            if let Some(rest) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('_')) {
                let rest = rest.to_ascii_lowercase().replace('_', "-");
                self.env.push((rest, value, name));
            }
        }
        self.env.sort();
        self
    }

    /// A value from the command line; `option` is what errors call it (`-q`).
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "callers pass numbers and strings as they are"
    )]
    pub fn override_key(mut self, key: &str, value: impl ToString, option: &str) -> Self {
        self.overrides
            .push((key.to_owned(), value.to_string(), option.to_owned()));
        self
    }

    /// Merges the layers and reads them as `T`; a key that `T` does not have is an error.
    pub fn load<T: DeserializeOwned>(self) -> Result<Loaded<T>, ConfigError> {
        let fields = de::fields_of::<T>();
        let mut origins = Origins::new(self.fallback());
        let mut layers = Vec::new();
        let mut problems = Problems::default();
        if let Some(defaults) = &self.defaults {
            layers.extend(problems.take(parse::layer("built-in default", defaults)));
        }
        for (path, required) in self.files()? {
            match std::fs::read(&path) {
                Ok(bytes) => layers.extend(problems.take(parse::file_layer(&path, bytes))),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && !required => {}
                Err(e) => problems.push(ConfigError::new(format!("cannot read {}: {e}", path.display()))),
            }
        }
        layers.push(Layer::from_environment(&self.env, fields));
        layers.push(Layer::from_options(&self.overrides));
        problems.finish(())?;

        let mut builder = Config::builder();
        for layer in layers {
            origins.add_tables(&layer);
            builder = builder.add_source(layer);
        }
        let merged = builder
            .build()
            .map_err(|e| ConfigError::new(format!("{}: {e}", self.name)))?;
        origins.add_values("", &merged.cache);
        let value = de::read::<T>(&merged.cache, &origins)?;
        Ok(Loaded { value, origins })
    }

    fn fallback(&self) -> String {
        self.files
            .last()
            .map_or_else(|| self.name.clone(), |(path, _)| path.display().to_string())
    }

    fn files(&self) -> Result<Vec<(PathBuf, bool)>, ConfigError> {
        let mut files = self.files.clone();
        if let Some(dir) = &self.conf_d {
            files.extend(toml_files(dir)?.into_iter().map(|path| (path, true)));
        }
        Ok(files)
    }
}

fn toml_files(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let unreadable =
        |e: std::io::Error| ConfigError::new(format!("cannot read directory {}: {e}", dir.display()));
    let entries = match std::fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(unreadable(e)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

impl Source for Layer {
    fn clone_into_box(&self) -> Box<dyn Source + Send + Sync> {
        Box::new(self.clone())
    }

    fn collect(&self) -> Result<Map<String, Value>, ::config::ConfigError> {
        Ok(self.values.clone())
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
