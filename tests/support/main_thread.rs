//! A harness for tests that need the process's main thread: each runs in a process of its own, on that thread.
//!
//! It understands what cargo and nextest say to the usual harness: filters, `--exact`, `--skip`, `--list`. Tests run one
//! after the other; options that would change that, or what is printed, are accepted and ignored.

use std::{
    env,
    fs::File,
    io::{self, Read, Seek},
    process::{Child, Command, ExitCode, ExitStatus},
    thread,
    time::{Duration, Instant},
};

/// A test by its name; made by `tests!`.
pub(crate) struct Test {
    pub(crate) name: &'static str,
    pub(crate) body: fn(),
}

/// The tests of a module, for `main_thread::main`. One that is not listed is dead code, which the compiler tells.
macro_rules! tests {
    ($($name:ident),* $(,)?) => {
        pub(crate) const TESTS: &[$crate::main_thread::Test] = &[$($crate::main_thread::Test {
            name: concat!(module_path!(), "::", stringify!($name)),
            body: $name,
        }),*];
    };
}
pub(crate) use tests;

/// The first argument of a child, before the name of its test.
const ALONE: &str = "--alone-on-the-main-thread";

/// How long one test may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs the tests that the command line asks for, or the one test that this process is the child for.
pub(crate) fn main(modules: &[&[Test]]) -> ExitCode {
    let mut arguments = env::args().skip(1);
    let tests: Vec<&Test> = modules.iter().copied().flatten().collect();
    if env::args().nth(1).as_deref() == Some(ALONE) {
        let name = arguments.nth(1).expect("a child is told its test");
        let test = tests.into_iter().find(|test| test.short_name() == name).expect("the child has the parent's tests");
        (test.body)();
        return ExitCode::SUCCESS;
    }
    let options = Options::parse(arguments);
    let all = tests.len();
    let chosen: Vec<&Test> = tests.into_iter().filter(|test| options.choose(test.short_name())).collect();
    if options.list {
        chosen.iter().for_each(|test| println!("{}: test", test.short_name()));
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} tests", chosen.len());
    let mut failures = Vec::new();
    for test in &chosen {
        let failure = test.run(options.capture);
        println!("test {} ... {}", test.short_name(), if failure.is_none() { "ok" } else { "FAILED" });
        failures.extend(failure.map(|text| (test.short_name(), text)));
    }
    for (name, text) in &failures {
        println!("\n---- {name} ----\n{text}");
    }
    let (word, failed) = (if failures.is_empty() { "ok" } else { "FAILED" }, failures.len());
    let (passed, filtered) = (chosen.len() - failed, all - chosen.len());
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; {filtered} filtered out\n"
    );
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(101) }
}

impl Test {
    /// The name without that of the binary, as the usual harness gives it.
    fn short_name(&self) -> &'static str {
        self.name.split_once("::").map_or(self.name, |(_, name)| name)
    }

    /// Runs the test in a child, and gives what went wrong.
    fn run(&self, capture: bool) -> Option<String> {
        let run = || {
            let mut output = tempfile::tempfile()?;
            let mut command = Command::new(env::current_exe()?);
            command.args([ALONE, self.short_name()]);
            if capture {
                command.stdout(output.try_clone()?).stderr(output.try_clone()?);
            }
            let ended = wait(&mut command.spawn()?)?;
            let how = match ended {
                Some(status) if status.success() => return Ok(None),
                Some(status) => status.to_string(),
                None => format!("did not end within {DEADLINE:?}"),
            };
            Ok(Some(format!("{}{how}", read_all(&mut output)?)))
        };
        run().unwrap_or_else(|error: io::Error| Some(format!("the child could not be run: {error}")))
    }
}

/// Waits for the child's end; kills it and gives `None` if it takes too long.
fn wait(child: &mut Child) -> io::Result<Option<ExitStatus>> {
    let begin = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() > DEADLINE {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    }
}

fn read_all(output: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// What the command line asks for.
struct Options {
    filters: Vec<String>,
    skipped: Vec<String>,
    exact: bool,
    list: bool,
    capture: bool,
    /// Only those that are ignored by default, of which there are none.
    ignored: bool,
}

impl Options {
    fn parse(mut arguments: impl Iterator<Item = String>) -> Self {
        let mut options = Options {
            filters: Vec::new(),
            skipped: Vec::new(),
            exact: false,
            list: false,
            capture: true,
            ignored: false,
        };
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--exact" => options.exact = true,
                "--list" => options.list = true,
                "--nocapture" | "--no-capture" => options.capture = false,
                "--ignored" => options.ignored = true,
                "--skip" => options.skipped.extend(arguments.next()),
                "--test-threads" | "--format" | "--color" | "--logfile" | "--shuffle-seed" | "-Z" => {
                    arguments.next();
                }
                other => match other.strip_prefix("--skip=") {
                    Some(skipped) => options.skipped.push(skipped.to_owned()),
                    None if other.starts_with('-') => {}
                    None => options.filters.push(argument),
                },
            }
        }
        options
    }

    fn choose(&self, name: &str) -> bool {
        let matches = |filter: &String| if self.exact { name == filter } else { name.contains(filter.as_str()) };
        let wanted = self.filters.is_empty() || self.filters.iter().any(matches);
        wanted && !self.ignored && !self.skipped.iter().any(matches)
    }
}
