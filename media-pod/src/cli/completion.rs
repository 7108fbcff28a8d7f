//! `ringwire completion`: scripts that complete our commands in a shell.

use std::process::ExitCode;

use clap_complete::Shell;

use super::say;

/// Print a script that completes this command line in a shell.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  source <(ringwire completion bash)\n  ringwire completion zsh > \"${fpath[1]}/_ringwire\"\n  \
                  ringwire completion fish > ~/.config/fish/completions/ringwire.fish"
)]
pub struct Args {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for `command`, the whole command line.
pub fn run(args: &Args, mut command: clap::Command) -> ExitCode {
    say(&script(args.shell, &mut command));
    ExitCode::SUCCESS
}

fn script(shell: Shell, command: &mut clap::Command) -> String {
    let name = command.get_name().to_owned();
    let mut bytes = Vec::new();
    clap_complete::generate(shell, command, name, &mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in Shell::value_variants() {
            let mut command =
                clap::Command::new("ringwire").subcommand(clap::Command::new("explain"));
            assert!(script(*shell, &mut command).contains("explain"), "{shell}");
        }
    }
}
