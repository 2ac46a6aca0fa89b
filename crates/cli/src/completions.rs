//! `kapell completions`

use clap::CommandFactory;

use crate::args::{Arguments, Completions, Shell};
use crate::printer::Printer;
use crate::{Ended, Exit};

pub(crate) fn completions(completions: &Completions, printer: &mut Printer) -> Ended {
    let shell = match completions.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "kapell", &mut script);
    printer.text(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Success)
}
