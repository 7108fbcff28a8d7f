//! Prints objects as `kubectl get` prints them: the columns are those of the definitions, cells, ages and spacing are
//! kubectl's. For `ringwire get`, which has no API server to ask.

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::generate::Kind;

/// How to print.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// `-o wide`: the columns of priority 1 too.
    pub wide: bool,
    /// `-A`: a column with the namespace.
    pub namespaces: bool,
    /// Names as `kind.group/name`, as kubectl does when several kinds are listed.
    pub with_kind: bool,
    /// The first line with the columns' names.
    pub headers: bool,
    /// Ages are counted up to here.
    pub now: Timestamp,
}

impl Options {
    /// A plain `kubectl get` at `now`.
    pub fn new(now: Timestamp) -> Self {
        Self {
            wide: false,
            namespaces: false,
            with_kind: false,
            headers: true,
            now,
        }
    }
}

/// The table of `objects`, all of them of `kind`, in the order given; each line ends with a line feed.
pub fn print(kind: Kind, objects: &[Value], options: &Options) -> String {
    let columns: Vec<Column> = columns(kind)
        .filter(|column| options.wide || column.priority == 0)
        .collect();
    let mut rows = Vec::with_capacity(objects.len() + 1);
    if options.headers {
        let mut header: Vec<String> = options
            .namespaces
            .then(|| "NAMESPACE".to_owned())
            .into_iter()
            .collect();
        header.push("NAME".to_owned());
        header.extend(columns.iter().map(|column| column.name.to_uppercase()));
        rows.push(header);
    }
    for object in objects {
        let metadata = &object["metadata"];
        let mut row = Vec::with_capacity(columns.len() + 2);
        if options.namespaces {
            row.push(text(&metadata["namespace"]));
        }
        let name = text(&metadata["name"]);
        row.push(if options.with_kind {
            format!("{}.{}/{name}", kind.name().to_lowercase(), crate::GROUP)
        } else {
            name
        });
        row.extend(
            columns
                .iter()
                .map(|column| column.cell(object, options.now)),
        );
        rows.push(row);
    }
    layout(&rows)
}

struct Column {
    name: &'static str,
    type_: &'static str,
    path: &'static str,
    priority: i64,
}

fn columns(kind: Kind) -> impl Iterator<Item = Column> {
    let columns = kind.crd_json()["spec"]["versions"][0]["additionalPrinterColumns"].as_array();
    columns.into_iter().flatten().map(|column| Column {
        name: column["name"].as_str().unwrap_or_default(),
        type_: column["type"].as_str().unwrap_or_default(),
        path: column["jsonPath"].as_str().unwrap_or_default(),
        priority: column["priority"].as_i64().unwrap_or_default(),
    })
}

impl Column {
    /// What isn't there, or isn't of the column's type, is an empty cell.
    fn cell(&self, object: &Value, now: Timestamp) -> String {
        let Some(value) = find(object, self.path) else {
            return String::new();
        };
        match self.type_ {
            "integer" => value
                .as_i64()
                .map(|number| number.to_string())
                .unwrap_or_default(),
            "date" => match value.as_str() {
                Some(time) => time
                    .parse()
                    .map_or_else(|_| "<invalid>".to_owned(), |time| age(time, now)),
                None => String::new(),
            },
            _ => text(value),
        }
    }
}

/// One line of text: lists and maps as JSON, and only the first line of what has several.
fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => match text.find(['\n', '\r', '\u{c}']) {
            Some(end) => format!("{}...", &text[..end]),
            None => text.clone(),
        },
        other => other.to_string(),
    }
}

/// The first value at a path of names, `[?(@.name=="value")]`, `[*]` and `[index]`: as much of `JSONPath` as columns use.
fn find<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    let path = path.strip_prefix('.').unwrap_or(path);
    if path.is_empty() {
        return Some(value);
    }
    if let Some(rest) = path.strip_prefix('[') {
        let (selector, rest) = rest.split_once(']')?;
        let items = value.as_array()?;
        let item = match selector
            .strip_prefix("?(@.")
            .and_then(|filter| filter.strip_suffix(')'))
        {
            Some(filter) => {
                let (name, wanted) = filter.split_once("==")?;
                let wanted = wanted.trim().trim_matches(['"', '\'']);
                items
                    .iter()
                    .find(|item| item[name.trim()].as_str() == Some(wanted))?
            }
            None if selector == "*" => items.first()?,
            None => items.get(selector.parse::<usize>().ok()?)?,
        };
        return find(item, rest);
    }
    let end = path.find(['.', '[']).unwrap_or(path.len());
    find(value.get(&path[..end])?, &path[end..])
}

/// How long ago `then` was: two units while small, one when large.
pub fn age(then: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let (days, years) = (hours / 24, hours / (24 * 365));
    let two = |large: i64, unit: char, small: i64, small_unit: char| {
        if small == 0 {
            format!("{large}{unit}")
        } else {
            format!("{large}{unit}{small}{small_unit}")
        }
    };
    match seconds {
        // Clocks differ a little: only what is clearly in the future is wrong.
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        _ if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        _ if minutes < 180 => format!("{minutes}m"),
        _ if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        _ if hours < 48 => format!("{hours}h"),
        _ if days < 8 => two(days, 'd', hours % 24, 'h'),
        _ if years < 2 => format!("{days}d"),
        _ if years < 8 => two(years, 'y', days % 365, 'd'),
        _ => format!("{years}y"),
    }
}

/// Each column as wide as its widest cell and three more, at least six; the last one isn't padded.
fn layout(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let widest = rows
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max();
        (widest.unwrap_or_default() + 3).max(6)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            out.push_str(cell);
            if column + 1 < row.len() {
                let padding = widths[column].saturating_sub(cell.chars().count());
                out.extend(std::iter::repeat_n(' ', padding));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{Options, age, print};
    use crate::generate::Kind;

    fn at(text: &str) -> k8s_openapi::jiff::Timestamp {
        text.parse().unwrap()
    }

    fn provider() -> serde_json::Value {
        json!({
            "metadata": {"name": "netelip", "namespace": "voice", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"type": "Netelip"},
            "status": {
                "server": "sip.netelip.com:5060", "transport": "UDP", "activeCalls": 3,
                "registration": {"state": "Registered", "contact": "sip:x@192.0.2.1:5060"},
                "conditions": [
                    {"type": "Registered", "status": "True"}, {"type": "Ready", "status": "True"},
                ],
            },
        })
    }

    #[test]
    fn prints_the_columns_of_the_definition() {
        let fresh = json!({"metadata": {"name": "zadarma"}, "spec": {"type": "Zadarma"}});
        let table = print(
            Kind::SipProvider,
            &[provider(), fresh],
            &Options::new(at("2026-01-05T00:00:00Z")),
        );
        assert_eq!(
            table,
            "NAME      TYPE      SERVER                 TRANSPORT   REGISTRATION   CALLS   READY   AGE\n\
             netelip   Netelip   sip.netelip.com:5060   UDP         Registered     3       True    4d\n\
             zadarma   Zadarma                                                                     \n"
        );
    }

    #[test]
    fn prints_wide_columns_namespaces_and_kinds_when_asked() {
        let options = Options {
            wide: true,
            namespaces: true,
            with_kind: true,
            ..Options::new(at("2026-01-01T00:00:05Z"))
        };
        let table = print(Kind::SipProvider, &[provider()], &options);
        let mut lines = table.lines();
        let header = lines.next().unwrap();
        assert!(header.starts_with("NAMESPACE   NAME "), "{header}");
        assert!(
            header.ends_with("AGE   REASON   MESSAGE   CONTACT"),
            "{header}"
        );
        let row = lines.next().unwrap();
        assert!(
            row.starts_with("voice       sipprovider.ringwire.dev/netelip   Netelip   "),
            "{row}"
        );
        assert!(
            row.ends_with("5s                       sip:x@192.0.2.1:5060"),
            "{row}"
        );
    }

    #[test]
    fn shows_ages_as_kubectl_does() {
        for (seconds, shown) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_071_999, "729d"),
            (63_072_000, "2y"),
            (63_158_400, "2y1d"),
            (252_288_000, "8y"),
        ] {
            let then = at("2026-01-01T00:00:00Z");
            let now =
                k8s_openapi::jiff::Timestamp::from_second(then.as_second() + seconds).unwrap();
            assert_eq!(age(then, now), shown);
        }
    }

    #[test]
    fn prints_a_list_as_json_and_the_first_line_of_a_text() {
        let gateway = json!({
            "metadata": {"name": "default"},
            "status": {
                "addresses": ["udp:192.0.2.1:5060", "tcp:192.0.2.1:5060"],
                "conditions": [{"type": "Ready", "status": "True", "message": "one\ntwo"}],
            },
        });
        let options = Options {
            wide: true,
            ..Options::new(at("2026-01-01T00:00:00Z"))
        };
        let table = print(Kind::MediaGateway, &[gateway], &options);
        assert!(
            table.contains(r#"["udp:192.0.2.1:5060","tcp:192.0.2.1:5060"]"#),
            "{table}"
        );
        assert!(table.ends_with("one...\n"), "{table}");
    }
}
