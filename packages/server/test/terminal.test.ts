import { spawn } from 'node:child_process';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { findPython } from '../../../test/programs.ts';
import { bin, fakeServer, temporaryFolder } from './cli-fixture.ts';

/* The command line on terminals of every width, those included that do not state one. */

const python = findPython();

/**
 * Starts a program on a terminal of its own; `resize`: columns that it gets once it has written something; TYPED: what is typed at
 * its first question.
 */
const script = `import fcntl, os, pty, struct, sys, termios
columns, resize, arguments = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:]
def set_columns(terminal, columns):
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24 if columns else 0, columns, 0, 0))
leader, follower = pty.openpty()
set_columns(leader, columns)
pid = os.fork()
if pid == 0:
    os.close(leader)
    os.setsid()
    fcntl.ioctl(follower, termios.TIOCSCTTY, 0)
    for descriptor in range(3): os.dup2(follower, descriptor)
    os.execv(arguments[0], arguments)
os.close(follower)
typed, seen = os.environ.get('TYPED', '').encode(), b''
while True:
    try:
        more = os.read(leader, 65536)
    except OSError:
        break
    if not more:
        break
    sys.stdout.buffer.write(more)
    seen += more
    if typed and b'? ' in seen:
        os.write(leader, typed)
        typed = b''
    if resize >= 0:
        set_columns(leader, resize)
        os.kill(pid, 28)
        resize = -1
_, status = os.waitpid(pid, 0)
sys.exit(os.waitstatus_to_exitcode(status))`;

let folder: { path: string; remove(): void };
let url: string;
let close: () => Promise<void>;
beforeEach(async () => {
  folder = temporaryFolder();
  const server = await fakeServer();
  url = server.url;
  close = () => server.close();
  writeFileSync(join(folder.path, 'scan.nii'), 'x');
});
afterEach(async () => {
  await close();
  folder.remove();
});

// CI has no moving lines.
const { CI: _, ...environment } = process.env;

function onTerminal(columns: number, args: readonly string[], resize = -1, env = {}) {
  return new Promise<{ code: number | null; text: string }>((resolve, reject) => {
    const child = spawn(
      python!,
      ['-c', script, String(columns), String(resize), process.execPath, bin, ...args],
      {
        cwd: folder.path,
        env: { ...environment, XDG_DATA_HOME: folder.path, NODE_OPTIONS: '', TERM: 'xterm', ...env },
        stdio: ['ignore', 'pipe', 'inherit'],
      },
    );
    let text = '';
    child.stdout.setEncoding('utf8').on('data', (more: string) => {
      text += more;
    });
    const timer = setTimeout(() => child.kill('SIGKILL'), 60_000);
    child.on('error', reject);
    child.on('close', (code) => {
      clearTimeout(timer);
      resolve({ code, text });
    });
  });
}

describe.skipIf(!python)('tomaat on a terminal', () => {
  it.each([
    ['Ctrl-C', '\x03', 130, 'Which anatomy'],
    ['the end of the input', '\x04', 2, 'The questions were not answered.'],
  ])('ends a question of import with %s', async (_, typed, expected, words) => {
    mkdirSync(join(folder.path, 'bundle', 'configs'), { recursive: true });
    for (const name of ['metadata.json', 'inference.json'])
      writeFileSync(join(folder.path, 'bundle', 'configs', name), '{}');
    const args = ['import', 'bundle', '--case', 'scan.nii', '--python', 'no-such-python'];
    const { code, text } = await onTerminal(80, args, -1, { TYPED: typed });
    expect(text).toContain(words);
    expect(text).not.toContain('Aborted with');
    expect(code).toBe(expected);
  });

  const predict = () => [
    'predict',
    url,
    '--volume',
    'scan.nii',
    '-o',
    'out.nii.gz',
    '--force',
    '--keep-text',
  ];

  it.each([0, 1, 2, 19, 20, 80, 300])('predicts at a width of %i columns', async (columns) => {
    const { code, text } = await onTerminal(columns, predict());
    expect(text).toContain('out.nii.gz');
    expect(code).toBe(0);
    // Lines where a moving line has no room, and a moving line elsewhere.
    expect(text.includes('\u001b[1G')).toBe(columns >= 20);
  });

  it.each([0, 5, 300])('predicts while the width changes from 80 to %i columns', async (columns) => {
    const { code, text } = await onTerminal(80, predict(), columns);
    expect(text).toContain('out.nii.gz');
    expect(code).toBe(0);
  });

  it.each(['0', '-1', '1e9', 'wide', ''])('ignores COLUMNS=%s', async (COLUMNS) => {
    expect(await onTerminal(0, predict(), -1, { COLUMNS })).toMatchObject({ code: 0 });
  });

  it.each([0, 1, 300])(
    'prints tables at a width of %i columns, without colours where NO_COLOR asks',
    async (columns) => {
      expect((await onTerminal(80, predict())).code).toBe(0);
      const { code, text } = await onTerminal(columns, ['jobs'], -1, { NO_COLOR: '1' });
      expect(text).toMatch(/^SENT +STATE +SERVICE +INPUT +JOB\r?$/m);
      expect(text).toMatch(/succeeded +\S+ +scan\.nii/);
      expect(text).not.toContain('\u001b[3');
      expect(code).toBe(0);
    },
  );

  it.each([0, 1, 40, 300])('prints help at a width of %i columns', async (columns) => {
    const { code, text } = await onTerminal(columns, ['help', 'predict']);
    expect(text).toContain('--volume');
    expect(code).toBe(0);
  });
});
