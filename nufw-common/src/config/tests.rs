use super::*;
use serde::Deserialize;
use std::time::Duration;

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Sample {
    mark_mask: HexOrInt,
    #[serde(default)]
    queue: Queue,
    server: Option<Server>,
    #[serde(default)]
    rule: Vec<Rule>,
}

#[derive(Debug, Deserialize, PartialEq, Default)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Queue {
    number: u16,
    max_pending: u32,
    fail_open: bool,
    timeout: Option<HumanDuration>,
    buffer: Option<ByteSize>,
    hooks: Vec<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case")]
struct Server {
    address: String,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Rule {
    name: String,
    decision: Decision,
    #[serde(default)]
    ports: Vec<u16>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Decision {
    Accept,
    Drop,
}

struct Dir(tempfile::TempDir);

impl Dir {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("sample.toml"), text).unwrap();
        Self(dir)
    }

    fn loader(&self) -> Loader {
        Loader::new("sample").file(self.0.path().join("sample.toml"), true)
    }

    /// The error's text, the directory taken out.
    fn error(&self, loader: Loader) -> String {
        let error = loader.load::<Sample>().unwrap_err().to_string();
        error.replace(&format!("{}/", self.0.path().display()), "")
    }
}

fn error_of(text: &str) -> String {
    let dir = Dir::new(text);
    let loader = dir.loader();
    dir.error(loader)
}

const GOOD: &str = r#"
mark-mask = "0x00ffffff"

[queue]
number = 7
timeout = "15s"
buffer = "64MiB"
hooks = ["forward",
         "input"]

[[rule]]
name = "web"
decision = "accept"
ports = [80, 443]

[[rule]]
name = "rest"
decision = "drop"
"#;

#[test]
fn a_good_file_is_read_and_every_key_knows_its_line() {
    let dir = Dir::new(GOOD);
    let loaded: Loaded<Sample> = dir.loader().load().unwrap();
    let queue = &loaded.value.queue;
    assert_eq!(loaded.value.mark_mask, HexOrInt(0x00ff_ffff));
    assert_eq!(queue.timeout, Some(HumanDuration(Duration::from_secs(15))));
    assert_eq!(queue.buffer, Some(ByteSize(64 << 20)));
    assert_eq!(loaded.value.rule[1].decision, Decision::Drop);
    let line = |key: &str| {
        let origin = loaded.origins.of(key);
        origin.rsplit(':').next().unwrap().to_owned()
    };
    for (key, expected) in [
        ("mark-mask", "2"),
        ("queue", "4"),
        ("queue.number", "5"),
        ("queue.max-pending", "4"),
        ("queue.hooks[1]", "9"),
        ("rule[0]", "11"),
        ("rule[0].ports[1]", "14"),
        ("rule[1]", "16"),
        ("rule[1].ports", "16"),
    ] {
        assert_eq!(line(key), expected, "{key}");
    }
    let error = loaded
        .reject("rule[0].ports", "no ports", "at least one")
        .to_string();
    assert!(
        error.ends_with("sample.toml:14: key rule[0].ports: found no ports, expected at least one"),
        "{error}"
    );
    assert!(loaded.origins.is_set("queue.number") && !loaded.origins.is_set("queue.fail-open"));
}

#[test]
fn a_wrong_value_is_named_with_file_line_key_found_and_expected() {
    for (text, expected) in [
        (
            "mark-mask = 1\n[queue]\nnumber = \"abc\"\n",
            "sample.toml:3: key queue.number: found string \"abc\", expected an integer from 0 to 65535",
        ),
        (
            "mark-mask = 1\n[queue]\nnumber = 65536\n",
            "sample.toml:3: key queue.number: found integer 65536, expected an integer from 0 to 65535",
        ),
        (
            "mark-mask = 1\n[queue]\nnumber = 1.7\n",
            "sample.toml:3: key queue.number: found number 1.7, expected an integer from 0 to 65535",
        ),
        (
            "mark-mask = 1\n[queue]\nnumber = \"7\"\n",
            "sample.toml:3: key queue.number: found string \"7\", expected an integer from 0 to 65535",
        ),
        (
            "mark-mask = 1\n[queue]\nfail-open = \"yes\"\n",
            "sample.toml:3: key queue.fail-open: found string \"yes\", expected true or false",
        ),
        (
            "mark-mask = \"0xfffffffff\"\n",
            "sample.toml:1: key mark-mask: found string \"0xfffffffff\", expected an integer from 0 to 4294967295, \
             or a string such as \"0x00ffffff\"",
        ),
        (
            "mark-mask = 1\n[queue]\ntimeout = 15\n",
            "sample.toml:3: key queue.timeout: found integer `15`, expected a duration such as \"15s\", \"500ms\", \
             \"2m\", \"1h\" or \"30d\"",
        ),
        (
            "mark-mask = 1\n[queue]\nbuffer = \"64MB\"\n",
            "sample.toml:3: key queue.buffer: found string \"64MB\", expected a size such as \"64MiB\", \"8KiB\", \
             \"1GiB\" or a number of bytes",
        ),
        (
            "mark-mask = 1\nqueue = 5\n",
            "sample.toml:2: key queue: found integer 5, expected a table",
        ),
        (
            "mark-mask = 1\n[queue]\nhooks = \"forward\"\n",
            "sample.toml:3: key queue.hooks: found string \"forward\", expected a list",
        ),
        (
            "mark-mask = 1\n[[rule]]\nname = \"a\"\ndecision = \"drop\"\nports = [\n 80,\n 99999]\n",
            "sample.toml:7: key rule[0].ports[1]: found integer 99999, expected an integer from 0 to 65535",
        ),
        (
            "mark-mask = 1\n[[rule]]\nname = \"a\"\ndecision = \"maybe\"\n",
            "sample.toml:4: key rule[0].decision: found string \"maybe\", expected one of \"accept\", \"drop\"",
        ),
    ] {
        assert_eq!(error_of(text), expected);
    }
}

#[test]
fn unknown_and_missing_keys_are_errors() {
    for (text, expected) in [
        (
            "mark-mask = 1\n[queue]\nnumbr = 1\n",
            "sample.toml:3: unknown key queue.numbr; did you mean number?",
        ),
        (
            "mark-mask = 1\n\n[qeue]\n",
            "sample.toml:3: unknown key qeue; did you mean queue?",
        ),
        (
            "mark-mask = 1\ncolour = \"red\"\n",
            "sample.toml:2: unknown key colour, expected one of mark-mask, queue, server, rule",
        ),
        // A struct that would ignore it.
        (
            "mark-mask = 1\n[server]\naddress = \"x\"\nadress = \"y\"\n",
            "sample.toml:4: unknown key server.adress",
        ),
        ("[queue]\n", "sample.toml: key mark-mask is missing"),
        (
            "mark-mask = 1\n\n[server]\n",
            "sample.toml:3: key server.address is missing",
        ),
        (
            "mark-mask = 1\n[[rule]]\nname = \"a\"\ndecision = \"drop\"\n[[rule]]\nname = \"b\"\n",
            "sample.toml:5: key rule[1].decision is missing",
        ),
    ] {
        assert_eq!(error_of(text), expected);
    }
}

#[test]
fn syntax_errors_are_all_named() {
    let error = error_of("mark-mask = \n[queue\nnumber = 1\nnumber = 2\n");
    let lines: Vec<&str> = error.lines().collect();
    assert!(lines.len() >= 2, "{error}");
    assert!(lines[0].starts_with("sample.toml:1: not valid TOML: "), "{error}");
    assert_eq!(
        error_of("mark-mask = 1\nmark-mask = 2\n"),
        "sample.toml:2: not valid TOML: duplicate key"
    );
    assert_eq!(
        error_of("mark-mask = 99999999999999999999\n"),
        "sample.toml:1: key mark-mask: found 99999999999999999999, expected an integer of at most 64 bits"
    );
}

#[test]
fn files_that_cannot_be_read_are_named() {
    let dir = Dir::new("");
    let missing = Loader::new("sample").file(dir.0.path().join("no.toml"), true);
    assert_eq!(
        dir.error(missing),
        "cannot read no.toml: No such file or directory (os error 2)"
    );
    let optional = Loader::new("sample").file(dir.0.path().join("no.toml"), false);
    assert_eq!(dir.error(optional), "no.toml: key mark-mask is missing");
    std::fs::write(dir.0.path().join("sample.toml"), b"mark-mask = 1\nx = \"\xff\"\n").unwrap();
    let loader = dir.loader();
    assert_eq!(dir.error(loader), "sample.toml:2: the file is not UTF-8 text");
}

#[test]
fn later_layers_win_and_say_who_they_are() {
    let dir = Dir::new(GOOD);
    let conf_d = dir.0.path().join("conf.d");
    std::fs::create_dir(&conf_d).unwrap();
    std::fs::write(conf_d.join("20-b.toml"), "[queue]\nnumber = 21\n").unwrap();
    std::fs::write(
        conf_d.join("10-a.toml"),
        "[queue]\nnumber = 20\nfail-open = true\n",
    )
    .unwrap();
    std::fs::write(conf_d.join("ignored.txt"), "not toml").unwrap();
    let variables = |value: &str| vec![("NUFW_AGENT_QUEUE_MAX_PENDING".to_owned(), value.to_owned())];
    let layered = |pending: &str, number: &str| {
        dir.loader()
            .defaults("[queue]\nmax-pending = 10000\n")
            .conf_d(&conf_d)
            .env_from("NUFW_AGENT", variables(pending))
            .override_key("queue.number", number, "-q")
    };
    let loaded: Loaded<Sample> = layered("77", "9").load().unwrap();
    let queue = &loaded.value.queue;
    assert_eq!((queue.number, queue.max_pending, queue.fail_open), (9, 77, true));
    assert_eq!(loaded.value.rule.len(), 2);
    assert_eq!(loaded.origins.of("queue.number"), "option -q");
    assert!(
        loaded
            .origins
            .of("queue.fail-open")
            .ends_with("conf.d/10-a.toml:3")
    );
    assert_eq!(
        dir.error(layered("many", "9")),
        "environment NUFW_AGENT_QUEUE_MAX_PENDING: key queue.max-pending: found string \"many\", expected an \
         integer from 0 to 4294967295"
    );
    assert_eq!(
        dir.error(layered("1", "-1")),
        "option -q: key queue.number: found string \"-1\", expected an integer from 0 to 65535"
    );
    let defaults: Loaded<Sample> = dir
        .loader()
        .defaults("[queue]\nmax-pending = 5\n")
        .load()
        .unwrap();
    assert_eq!(defaults.value.queue.max_pending, 5);
    assert_eq!(defaults.origins.of("queue.max-pending"), "built-in default");
    assert!(!defaults.origins.is_set("queue.max-pending"));
}

#[test]
fn the_environment_sets_top_level_keys_lists_and_booleans() {
    let dir = Dir::new("");
    let set = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        dir.loader().env_from("N", pairs)
    };
    let loaded: Loaded<Sample> = set(&[
        ("N_MARK_MASK", "0xff"),
        ("N_QUEUE_FAIL_OPEN", "yes"),
        ("N_QUEUE_HOOKS", "forward, input"),
        ("OTHER_QUEUE_HOOKS", "x"),
        ("NX_QUEUE_HOOKS", "x"),
    ])
    .load()
    .unwrap();
    assert_eq!(loaded.value.mark_mask, HexOrInt(0xff));
    assert!(loaded.value.queue.fail_open);
    assert_eq!(loaded.value.queue.hooks, ["forward", "input"]);
    let wrong = set(&[("N_MARK_MASK", "1"), ("N_QUEUE_NUMBR", "1")]);
    assert_eq!(
        dir.error(wrong),
        "environment N_QUEUE_NUMBR: unknown key queue.numbr; did you mean number?"
    );
}

#[test]
fn tried_parts_report_all_their_errors() {
    #[derive(Deserialize)]
    struct Many {
        rule: Vec<Tried<Rule>>,
    }
    let dir =
        Dir::new("[[rule]]\nname = 1\n[[rule]]\nname = \"b\"\ndecision = \"drop\"\n[[rule]]\nnam = \"c\"\n");
    let loaded: Loaded<Many> = dir.loader().load().unwrap();
    let mut problems = Problems::default();
    let good: Vec<Rule> = loaded
        .value
        .rule
        .into_iter()
        .filter_map(|rule| problems.take(rule.0))
        .collect();
    assert_eq!(good.len(), 1);
    assert!(!problems.is_empty());
    let error = problems.finish(()).unwrap_err();
    let lines: Vec<_> = error
        .lines()
        .iter()
        .map(|l| l.rsplit('/').next().unwrap())
        .collect();
    assert_eq!(
        lines,
        [
            "sample.toml:2: key rule[0].name: found integer 1, expected a string",
            "sample.toml:7: unknown key rule[2].nam; did you mean name?"
        ]
    );
}

#[test]
fn units_are_read_exactly() {
    let ms = |text| HumanDuration::parse(text).map(|d| d.0.as_millis());
    assert_eq!(ms("500ms"), Some(500));
    assert_eq!(ms("2m"), Some(120_000));
    assert_eq!(ms("1h"), Some(3_600_000));
    assert_eq!(ms("30d"), Some(2_592_000_000));
    for bad in [
        "",
        "s",
        "5",
        "5 s",
        "-5s",
        "5.5s",
        "5S",
        "99999999999999999999s",
        "18446744073709551615d",
    ] {
        assert_eq!(ms(bad), None, "{bad}");
    }
    for text in ["0s", "500ms", "15s", "2m", "1h", "30d", "90s"] {
        assert_eq!(HumanDuration::parse(text).unwrap().to_string(), text);
    }
    assert_eq!(ByteSize::parse("1GiB"), Some(ByteSize(1 << 30)));
    assert_eq!(ByteSize::parse("512"), Some(ByteSize(512)));
    assert_eq!(ByteSize::parse("99999999999GiB"), None);
    assert_eq!(HexOrInt::parse("0x+1"), None);
    assert_eq!(HexOrInt::parse("16777215").unwrap().to_string(), "0x00ffffff");
}
