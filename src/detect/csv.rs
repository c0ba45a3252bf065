//! Series in CSV (RFC 4180, without line ends inside of fields; also with tabs or semicolons).
//!
//! With a header, columns go by name: `time` (or `timestamp`); `value` (with `variance`, if it was measured with an error) or `samples`,
//! of `total`; `series`, where there are several. Without one they are time, value[, total]: with a total, value is a share of so many
//! samples.

use std::io::{BufRead, Read};
use std::path::{Path, PathBuf};

use profiler_detectors::{Observation, Unusable};
use profiler_model::rfc3339;

use crate::shown;

/// The longest line, bytes.
const MAX_LINE: u64 = 64 << 10;
/// More columns are none that a person made.
const MAX_COLUMNS: usize = 1_000;

/// A row.
#[derive(Debug)]
pub struct Row {
    pub series: Option<String>,
    pub observation: Observation,
}

/// Where the columns are.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Columns {
    time: usize,
    value: Option<usize>,
    variance: Option<usize>,
    samples: Option<usize>,
    total: Option<usize>,
    series: Option<usize>,
}

/// The rows of a file.
pub struct Rows<R> {
    input: R,
    path: PathBuf,
    line: u64,
    separator: char,
    columns: Columns,
    /// The first line, where it was no header.
    first: Option<Vec<String>>,
    /// Rows without a value: gaps.
    empty: u64,
}

impl<R: BufRead> Rows<R> {
    /// Reads the header.
    pub fn new(input: R, path: &Path) -> anyhow::Result<Self> {
        let mut rows = Self {
            input,
            path: path.to_owned(),
            line: 0,
            separator: ',',
            columns: Columns::default(),
            first: None,
            empty: 0,
        };
        let Some(line) = rows.next_line()? else { return Ok(rows) };
        let line = line.trim_start_matches('\u{feff}');
        if let Some(separator) = ['\t', ';'].into_iter().find(|c| !line.contains(',') && line.contains(*c)) {
            rows.separator = separator;
        }
        let fields = rows.fields(line)?;
        if fields.first().is_some_and(|field| time(field).is_some()) {
            rows.columns = match fields.len() {
                2 => Columns { value: Some(1), ..Columns::default() },
                3 => Columns { value: Some(1), total: Some(2), ..Columns::default() },
                _ => {
                    return Err(rows
                        .wrong("without a header the columns are time,value[,total]; name others in the first line"));
                }
            };
            rows.first = Some(fields);
        } else {
            rows.columns = rows.header(&fields)?;
        }
        Ok(rows)
    }

    fn header(&self, fields: &[String]) -> anyhow::Result<Columns> {
        let at = |names: &[&str]| {
            fields.iter().position(|field| names.iter().any(|name| field.trim().eq_ignore_ascii_case(name)))
        };
        let columns = Columns {
            time: at(&["time", "timestamp"]).unwrap_or(usize::MAX),
            value: at(&["value"]),
            variance: at(&["variance"]),
            samples: at(&["samples"]),
            total: at(&["total"]),
            series: at(&["series"]),
        };
        let wrong = match columns {
            Columns { time: usize::MAX, .. } => {
                "no column is called time, and the first line does not begin with one either"
            }
            Columns { value: None, samples: None, .. } => "no column is called value, or samples",
            Columns { samples: Some(_), total: None, .. } => "samples is of how many? No column is called total",
            _ => return Ok(columns),
        };
        let right = "the columns are time, value (with variance, or total) or samples and total, and series if there are several";
        Err(self.wrong(&format!("{wrong}; {right}")))
    }

    /// The next row that has a value.
    pub fn next(&mut self) -> anyhow::Result<Option<Row>> {
        loop {
            let fields = match self.first.take() {
                Some(fields) => fields,
                None => {
                    let Some(line) = self.next_line()? else { return Ok(None) };
                    if line.trim().is_empty() {
                        continue;
                    }
                    self.fields(&line)?
                }
            };
            match self.row(&fields)? {
                Some(row) => return Ok(Some(row)),
                None => self.empty += 1,
            }
        }
    }

    fn row(&self, fields: &[String]) -> anyhow::Result<Option<Row>> {
        let at = |column: usize| fields.get(column).map_or("", |field| field.trim());
        let Columns { time: time_column, value, variance, samples, total, series } = self.columns;
        let text = at(time_column);
        let time = time(text).ok_or_else(|| {
            self.wrong(&format!(
                "{text:?} is no time; write seconds (or ms, us, ns) since 1970, or 2026-11-26T21:05:00Z"
            ))
        })?;
        let number = |column: Option<usize>| -> anyhow::Result<Option<f64>> {
            match column.map(at) {
                // What measures nothing writes one of these.
                None => Ok(None),
                Some(text)
                    if ["", "nan", "na", "n/a", "null", "none", "-"].iter().any(|no| text.eq_ignore_ascii_case(no)) =>
                {
                    Ok(None)
                }
                Some(text) => match text.parse::<f64>() {
                    Ok(number) => Ok(Some(number)),
                    Err(_) => Err(self.wrong(&format!("{text:?} is no number; leave it empty where there is none"))),
                },
            }
        };
        let count = |number: f64, name: &str| -> anyhow::Result<u64> {
            // Beyond 2^53 numbers are not whole any more.
            let is_count = number >= 0.0 && number.fract() == 0.0 && number <= 9e15;
            is_count
                .then_some(number as u64)
                .ok_or_else(|| self.wrong(&format!("{name} {number} is no number of samples")))
        };
        let observation = match (number(value)?, number(samples)?, number(total)?) {
            _ if total.is_some() && number(total)?.is_none() => return Ok(None),
            (_, Some(samples), Some(total)) => {
                Observation::share(time, count(samples, "samples")?, count(total, "total")?)
            }
            (Some(value), None, Some(total)) if samples.is_none() => {
                let of = count(total, "total")?;
                if !(0.0..=1.0).contains(&value) {
                    return Err(self.wrong(&format!("{value} is no share of {total} samples; write one from 0 to 1")));
                }
                Observation::share(time, (value * total).round() as u64, of)
            }
            (Some(value), None, None) => Observation::measured(time, value, number(variance)?.unwrap_or(0.0)),
            _ => return Ok(None),
        };
        match observation {
            Ok(observation) => Ok(Some(Row { series: series.map(at).map(str::to_owned), observation })),
            Err(Unusable::NoSamples | Unusable::NotFinite) => Ok(None),
            Err(error) => Err(self.wrong(&error.to_string())),
        }
    }

    /// The next line without its end; none at the end of the file.
    fn next_line(&mut self) -> anyhow::Result<Option<String>> {
        let mut bytes = Vec::new();
        self.line += 1;
        let read = self.input.by_ref().take(MAX_LINE + 1).read_until(b'\n', &mut bytes);
        let cannot = |error: std::io::Error| {
            anyhow::Error::new(error).context(format!("cannot read {}", shown::path(&self.path)))
        };
        if read.map_err(cannot)? == 0 {
            return Ok(None);
        }
        if bytes.len() as u64 > MAX_LINE {
            return Err(self.wrong("the line is longer than 64 KiB: is this CSV?"));
        }
        let text = String::from_utf8(bytes).map_err(|_| self.wrong("the line is no UTF-8: is this CSV?"))?;
        if text.contains('\0') {
            return Err(self.wrong("the line has a byte 0: is this CSV?"));
        }
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// The fields of a line: those that begin with a quote end with one, and two of them are one.
    fn fields(&self, line: &str) -> anyhow::Result<Vec<String>> {
        let mut fields = Vec::new();
        let mut rest = line;
        loop {
            if fields.len() >= MAX_COLUMNS {
                return Err(self.wrong("the line has more than 1,000 columns: is this CSV?"));
            }
            let mut field = String::new();
            if let Some(mut quoted) = rest.strip_prefix('"') {
                loop {
                    let Some((part, after)) = quoted.split_once('"') else {
                        return Err(self.wrong("a quote is not closed on its line"));
                    };
                    field.push_str(part);
                    match after.strip_prefix('"') {
                        Some(more) => {
                            field.push('"');
                            quoted = more;
                        }
                        None => {
                            rest = after;
                            break;
                        }
                    }
                }
                if !rest.is_empty() && !rest.starts_with(self.separator) {
                    return Err(self.wrong("there is text after a closing quote"));
                }
            } else {
                let end = rest.find(self.separator).unwrap_or(rest.len());
                field.push_str(rest.get(..end).unwrap_or_default());
                rest = rest.get(end..).unwrap_or_default();
            }
            fields.push(field);
            match rest.strip_prefix(self.separator) {
                Some(more) => rest = more,
                None => return Ok(fields),
            }
        }
    }

    /// Says what was left out.
    pub fn tell(&self) {
        if self.empty > 0 {
            eprintln!("{}: {} rows have no value, and are gaps", shown::path(&self.path), self.empty);
        }
    }

    fn wrong(&self, what: &str) -> anyhow::Error {
        anyhow::anyhow!("{}:{}: {what}", shown::path(&self.path), self.line)
    }
}

/// A time as people write it, ns since the Unix epoch. A number is in s, ms, us or ns, whichever makes it a time before the year 5000.
fn time(text: &str) -> Option<u64> {
    let text = text.trim();
    if let Ok(number) = text.parse::<f64>() {
        if !number.is_finite() || number < 0.0 {
            return None;
        }
        if let Ok(whole) = text.parse::<u64>() {
            let scale =
                [(100_000_000_000, 1_000_000_000), (100_000_000_000_000, 1_000_000), (100_000_000_000_000_000, 1_000)];
            let scale = scale.iter().find(|(most, _)| whole < *most).map_or(1, |(_, scale)| *scale);
            return whole.checked_mul(scale);
        }
        let scale = [(1e11, 1e9), (1e14, 1e6), (1e17, 1e3)];
        let scale = scale.iter().find(|(most, _)| number < *most).map_or(1.0, |(_, scale)| *scale);
        let nanos = number * scale;
        return (nanos < 1.8e19).then_some(nanos as u64);
    }
    // Without a zone it is UTC.
    rfc3339::parse(text).or_else(|| rfc3339::parse(&format!("{text}Z")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> anyhow::Result<Vec<Row>> {
        let mut rows = Rows::new(text, Path::new("x.csv"))?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(row);
        }
        Ok(all)
    }

    #[test]
    fn columns_go_by_name_or_by_place() {
        let rows = read(b"time,value\n1,2.5\n2,-3\n").unwrap();
        assert_eq!(rows.iter().map(|row| row.observation.value()).collect::<Vec<_>>(), [2.5, -3.0]);
        let rows = read(b"1,0.25,100\r\n2,0.5,100\r\n").unwrap();
        assert_eq!(rows[0].observation.counts().map(|counts| counts.of), Some(25));
        let rows =
            read("\u{feff}Series;total;Samples;timestamp\n\"a;\"\"b\";10;3;2026-11-26 21:05:00\n".as_bytes()).unwrap();
        assert_eq!(rows[0].series.as_deref(), Some("a;\"b"));
        assert_eq!(rows[0].observation.counts().map(|counts| (counts.of, counts.total)), Some((3, 10)));
        assert_eq!(rows[0].observation.time(), 1_795_727_100_000_000_000);
        let rows = read(b"time,value,variance,other\n1,2,0.5,x\n\n2,NaN,,\n3,,1,\n4,inf,,\n5,1,,\n").unwrap();
        assert_eq!(rows.iter().map(|row| row.observation.variance()).collect::<Vec<_>>(), [0.5, 0.0]);
    }

    #[test]
    fn times_are_in_any_unit() {
        let nanos = 1_795_727_100_000_000_000;
        for text in [
            "1795727100",
            "1795727100.0",
            "1795727100000",
            "1795727100000000",
            "1795727100000000000",
            "2026-11-26T22:05:00+01:00",
        ] {
            assert_eq!(time(text), Some(nanos), "{text}");
        }
        assert_eq!(time("0"), Some(0));
        for text in ["", "-1", "NaN", "inf", "x", "1e300", "2026-13-01T00:00:00Z"] {
            assert_eq!(time(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line, word) in [
            (&b"a,b\n1,2\n"[..], 1, "called time"),
            (b"time,x\n1,2\n", 1, "called value"),
            (b"time,samples\n1,2\n", 1, "called total"),
            (b"1,2,3,4\n", 1, "name others"),
            (b"time,value\n1,2\nx,2\n", 3, "is no time"),
            (b"time,value\n1,2\n2,two\n", 3, "is no number"),
            (b"time,value\n1,1e200\n", 2, "beyond 1e100"),
            (b"time,value,variance\n1,1,-1\n", 2, "negative"),
            (b"time,samples,total\n1,5,4\n", 2, "more samples"),
            (b"time,samples,total\n1,0.5,4\n", 2, "no number of samples"),
            (b"1,7,100\n", 1, "no share"),
            (b"time,value\n1,\"2\n", 2, "not closed"),
            (b"time,value\n1,\"2\"3\n", 2, "after a closing quote"),
            (b"time,value\n1,\xff\n", 2, "UTF-8"),
            (b"time,value\n1,\0\n", 2, "byte 0"),
        ] {
            let error = read(text).map(|_| ()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("x.csv:{line}: ")) && error.contains(word), "{error}");
        }
        let long = [b"time,value\n1,".as_slice(), &[b'1'; 70_000]].concat();
        assert!(read(&long).unwrap_err().to_string().contains("64 KiB"));
        let wide = ",".repeat(2_000);
        assert!(read(wide.as_bytes()).map(|_| ()).unwrap_err().to_string().contains("1,000 columns"));
        assert!(read(b"").unwrap().is_empty());
    }

    proptest::proptest! {
        #[test]
        fn whatever_the_bytes_it_ends(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..400), text in "[0-9,\";\t\r\n.eE+:TZ-]{0,200}") {
            let _ = read(&bytes);
            let _ = read(text.as_bytes());
        }
    }
}
