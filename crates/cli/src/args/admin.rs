//! Looking after a Kapell: secrets, backups, the configuration, health; and what it says of itself

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

/// `secret`
#[derive(Subcommand)]
pub(crate) enum Secret {
    /// Set a secret: its value is asked for, or read from standard input
    ///
    /// Steps use it as `${{ secrets.NAME }}`. A variable KAPELL_SECRET_NAME of a worker goes before it.
    Set(SetSecret),
    /// List secrets, without their values
    List(ListSecrets),
    /// Delete a secret
    Delete(DeleteSecret),
    /// Seal all secrets with a new key and forget the old one
    Rotate,
}

/// `secret set`
#[derive(Args)]
pub(crate) struct SetSecret {
    /// Its name: letters, digits and `_`
    pub(crate) name: String,
}

/// `secret list`
#[derive(Args)]
pub(crate) struct ListSecrets {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `secret delete`
#[derive(Args)]
pub(crate) struct DeleteSecret {
    /// Its name
    pub(crate) name: String,
}

/// `backup`
#[derive(Args)]
pub(crate) struct Backup {
    /// The file, a tar
    pub(crate) file: PathBuf,
    /// Leave out what steps printed
    #[arg(long)]
    pub(crate) without_logs: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `restore`
#[derive(Args)]
pub(crate) struct Restore {
    /// The file; the data directory must not be there yet
    pub(crate) file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `config`
#[derive(Args)]
pub(crate) struct ShowConfig {
    /// Print a file that names every key with its default
    #[arg(long, conflicts_with = "json")]
    pub(crate) example: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `health`
#[derive(Args)]
pub(crate) struct Health {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `doctor`
#[derive(Args)]
pub(crate) struct Doctor {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `explain`
#[derive(Args)]
pub(crate) struct Explain {
    /// The code, as in `error[bad-params]` [default: list them all]
    pub(crate) code: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// `completions`
#[derive(Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: Shell,
}

/// Shells that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Shell {
    /// `kapell completions bash > /etc/bash_completion.d/kapell`
    Bash,
    /// `kapell completions zsh > ~/.zfunc/_kapell`
    Zsh,
    /// `kapell completions fish > ~/.config/fish/completions/kapell.fish`
    Fish,
}
