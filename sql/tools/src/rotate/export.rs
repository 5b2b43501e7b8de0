//! Files of rows that are about to be dropped.
//!
//! A file has its name only when it is whole, on the disk, and has been read again; no file is ever written over.

use super::config::{Export, Format};
use anyhow::Context as _;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use nulog::rotate::{Kept, Record};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

/// Files of one name: a day that was begun again, and rows that came after.
const MOST_OF_A_NAME: u32 = 10_000;

/// A file being written.
pub(super) struct Writer<'a> {
    export: &'a Export,
    stem: String,
    temporary: PathBuf,
    rows: csv::Writer<Sink>,
    written: u64,
}

enum Sink {
    Plain(BufWriter<File>),
    Gzip(Box<GzEncoder<BufWriter<File>>>),
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(file) => file.write(bytes),
            Self::Gzip(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(file) => file.flush(),
            Self::Gzip(file) => file.flush(),
        }
    }
}

impl Sink {
    fn finish(self) -> io::Result<File> {
        let buffered = match self {
            Self::Plain(file) => file,
            Self::Gzip(file) => file.finish()?,
        };
        buffered.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

impl<'a> Writer<'a> {
    /// Begins the file of `kept` for the times of `label`.
    pub(super) fn begin(export: &'a Export, kept: Kept, label: &str) -> anyhow::Result<Self> {
        let stem = format!("{}-{label}", kept.table());
        let name = format!(".{stem}.{}.partial", export.format.extension());
        let temporary = export.directory.join(name);
        let context = || format!("cannot write {}", temporary.display());
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o640)
            .open(&temporary)
            .with_context(context)?;
        let file = BufWriter::new(file);
        let sink = match export.format {
            Format::Csv => Sink::Plain(file),
            Format::CsvGz => Sink::Gzip(Box::new(GzEncoder::new(file, Compression::default()))),
        };
        // RFC 4180 ends lines with both.
        let mut rows = csv::WriterBuilder::new()
            .terminator(csv::Terminator::CRLF)
            .from_writer(sink);
        rows.write_record(kept.columns()).with_context(context)?;
        Ok(Self {
            export,
            stem,
            temporary,
            rows,
            written: 0,
        })
    }

    pub(super) fn write(&mut self, record: &Record) -> anyhow::Result<()> {
        let values = record.0.iter().map(|value| value.as_deref().unwrap_or_default());
        self.rows
            .write_record(values)
            .with_context(|| format!("cannot write {}", self.temporary.display()))?;
        self.written += 1;
        Ok(())
    }

    /// Makes the file durable, reads it again, and gives it its name; its rows, and where it is.
    pub(super) fn finish(self) -> anyhow::Result<(u64, PathBuf)> {
        let Self {
            export,
            stem,
            temporary,
            rows,
            written,
        } = self;
        let context = || format!("cannot write {}", temporary.display());
        let sink = rows.into_inner().map_err(csv::IntoInnerError::into_error);
        let file = sink.and_then(Sink::finish).with_context(context)?;
        file.sync_all().with_context(context)?;
        let read = count(&temporary, export.format)
            .with_context(|| format!("cannot read {} again", temporary.display()))?;
        anyhow::ensure!(
            read == written,
            "{} has {read} rows of the {written} that were written to it",
            temporary.display()
        );
        let mut named = None;
        for n in 1..=MOST_OF_A_NAME {
            let extension = export.format.extension();
            let name = match n {
                1 => format!("{stem}.{extension}"),
                n => format!("{stem}.{n}.{extension}"),
            };
            let path = export.directory.join(name);
            match renameat_with(CWD, &temporary, CWD, &path, RenameFlags::NOREPLACE) {
                Ok(()) => {
                    named = Some(path);
                    break;
                }
                Err(rustix::io::Errno::EXIST) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot name {}", path.display()));
                }
            }
        }
        let path = named.with_context(|| format!("{stem} has {MOST_OF_A_NAME} files: move them away"))?;
        // The name is to last as long as the rows.
        File::open(&export.directory)
            .and_then(|directory| directory.sync_all())
            .with_context(|| format!("cannot sync {}", export.directory.display()))?;
        Ok((written, path))
    }
}

/// The rows of a file, read from its beginning to its end.
fn count(path: &PathBuf, format: Format) -> anyhow::Result<u64> {
    let file = BufReader::new(File::open(path)?);
    let reader: Box<dyn Read> = match format {
        Format::Csv => Box::new(file),
        Format::CsvGz => Box::new(MultiGzDecoder::new(file)),
    };
    let mut rows = csv::Reader::from_reader(reader);
    let mut record = csv::ByteRecord::new();
    let mut count = 0;
    while rows.read_byte_record(&mut record)? {
        count += 1;
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(id: &str) -> Record {
        let mut values = vec![None; Kept::Gaps.columns().len()];
        values[0] = Some(id.to_owned());
        values[1] = Some("gw \"1\",\r\nhall".to_owned());
        Record(values)
    }

    #[test]
    fn a_file_comes_whole_and_none_is_written_over() {
        let directory = tempfile::tempdir().unwrap();
        for format in [Format::Csv, Format::CsvGz] {
            let export = Export {
                directory: directory.path().to_path_buf(),
                format,
            };
            for (rows, name) in [(3, "log_gap-2026-11-21"), (0, "log_gap-2026-11-21.2")] {
                let mut writer = Writer::begin(&export, Kept::Gaps, "2026-11-21").unwrap();
                for id in 0..rows {
                    writer.write(&record(&id.to_string())).unwrap();
                }
                let (written, path) = writer.finish().unwrap();
                assert_eq!(written, rows);
                let name = format!("{name}.{}", format.extension());
                assert_eq!(path, directory.path().join(name));
                assert_eq!(count(&path, format).unwrap(), rows);
            }
        }
        let text = std::fs::read_to_string(directory.path().join("log_gap-2026-11-21.csv")).unwrap();
        assert!(
            text.starts_with(
                "id,gateway,from_timestamp,to_timestamp,cause,count\r\n0,\"gw \"\"1\"\",\r\nhall\",,,,\r\n"
            ),
            "{text}"
        );
        let left = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(left, 4, "nothing temporary is left");
    }

    #[test]
    fn a_directory_that_is_missing_is_said() {
        let export = Export {
            directory: PathBuf::from("/nonexistent/archive"),
            format: Format::Csv,
        };
        let error = Writer::begin(&export, Kept::Archive, "2026-11").err().unwrap();
        assert!(format!("{error:#}").contains("/nonexistent/archive"), "{error:#}");
    }
}
