import type { Command } from 'commander';

/** Shells that a script can be written for. */
export const shells = ['bash', 'zsh', 'fish'] as const;
export type Shell = (typeof shells)[number];

/** A script that completes commands and options in a shell; arguments are completed as files. */
export function completionScript(shell: Shell, program: Command): string {
  const words = wordsOf(program);
  if (shell === 'fish') return fish(words);
  const script = bash(words);
  return shell === 'zsh' ? `autoload -U +X bashcompinit && bashcompinit\n${script}` : script;
}

interface Words {
  /** The command and its subcommand, empty for the program. */
  readonly path: string;
  readonly commands: readonly { readonly name: string; readonly about: string }[];
  readonly options: readonly { readonly flag: string; readonly about: string }[];
}

/** What may follow each command. Names and flags are ours: letters, digits and dashes. */
function wordsOf(command: Command, path: readonly string[] = []): Words[] {
  const help = command.createHelp();
  const own: Words = {
    path: path.join(' '),
    commands: help
      .visibleCommands(command)
      .map((child) => ({ name: child.name(), about: child.description() })),
    options: help
      .visibleOptions(command)
      .flatMap(({ long, description }) => (long ? [{ flag: long, about: description }] : [])),
  };
  return [own, ...command.commands.flatMap((child) => wordsOf(child, [...path, child.name()]))];
}

function bash(words: readonly Words[]): string {
  const cases = words.map(({ path, commands, options }) => {
    const [names, flags] = [commands.map(({ name }) => name), options.map(({ flag }) => flag)];
    return `    "${path}") names="${names.join(' ')}" flags="${flags.join(' ')}" ;;`;
  });
  return `# Completion of tomaat for bash. In ~/.bashrc: eval "$(tomaat completion bash)"
_tomaat() {
  local current="\${COMP_WORDS[COMP_CWORD]}" path="" word names="" flags="" i
  for ((i = 1; i < COMP_CWORD && i < 3; i++)); do
    word="\${COMP_WORDS[i]}"
    case " ${words
      .filter(({ path }) => path !== '')
      .map(({ path }) => path.replaceAll(' ', '/'))
      .join(' ')} " in
      *" \${path:+$path/}$word "*) path="\${path:+$path/}$word" ;;
      *) break ;;
    esac
  done
  case "\${path//\\// }" in
${cases.join('\n')}
  esac
  [ "\${current:0:1}" = - ] && names="$flags"
  # Where nothing fits, the shell itself offers files: their names may have spaces.
  COMPREPLY=($(compgen -W "$names" -- "$current"))
}
complete -o default -F _tomaat tomaat
`;
}

function fish(words: readonly Words[]): string {
  const quoted = (text: string) => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
  const first = (text: string) => quoted(text.split('\n')[0]);
  const lines = words.flatMap(({ path, commands, options }) => {
    const where =
      path === ''
        ? '__fish_use_subcommand'
        : path
            .split(' ')
            .map((name) => `__fish_seen_subcommand_from ${name}`)
            .join('; and ');
    return [
      ...commands.map(
        ({ name, about }) => `complete -c tomaat -n ${quoted(where)} -f -a ${name} -d ${first(about)}`,
      ),
      ...options.map(
        ({ flag, about }) => `complete -c tomaat -n ${quoted(where)} -l ${flag.slice(2)} -d ${first(about)}`,
      ),
    ];
  });
  return `# Completion of tomaat for fish. In ~/.config/fish/config.fish: tomaat completion fish | source\n${lines.join('\n')}\n`;
}
