import { chmodSync, chownSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import {
  addPin,
  findPins,
  knownHostsFile,
  parseFingerprint,
  readPins,
  removePins,
  updatePin,
} from './known-hosts.ts';

const headerLine =
  '# Servers and services that this user trusts; shown by tomaat trust list. Lines may be removed.';
const pairs = (digits: string) => Array<string>(32).fill(digits).join(':');
const certificate = pairs('0A');
const other = pairs('F9');
/** 43 characters: 32 bytes in base64url. */
const thumbprint = `-_${'aZ09'.repeat(10)}x`;
const keyPrint = 'K'.repeat(43);

let folder: string;
let file: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-known-hosts-'));
  file = knownHostsFile(folder);
});
afterEach(async () => {
  vi.restoreAllMocks();
  await rm(folder, { recursive: true, force: true });
});

const text = () => readFileSync(file, 'utf8');
const modeOf = (path: string) => statSync(path).mode & 0o777;

/** Runs under umask 0, so that a mode that was asked for is the mode that is made. */
async function withoutMask(work: () => Promise<unknown>): Promise<void> {
  const before = process.umask(0);
  try {
    await work();
  } finally {
    process.umask(before);
  }
}

/** Calls `look` at every turn of the event loop until it gives something. */
async function watchFor<T>(look: () => T | undefined, isOver: () => boolean): Promise<T | undefined> {
  while (!isOver()) {
    const found = look();
    if (found !== undefined) return found;
    await new Promise((resolve) => setImmediate(resolve));
  }
  return undefined;
}

describe('readPins()', () => {
  it('gives name, value, time, key and line; none without a file', async () => {
    expect(knownHostsFile('/data')).toBe(join('/data', 'known_hosts'));
    expect(await readPins(file)).toEqual([]);
    const lines = [
      '# a comment',
      '',
      `a.example:1 ${certificate} 2026-01-02T03:04:05Z # key ${keyPrint}  `,
      `\tb.example:2/x   ${thumbprint}`,
      `c.example:3 ${thumbprint} 2026-01-02T03:04:05Z # a note`,
      '   ',
      `# d.example:4 ${certificate}`,
      `e.example:5 ${other}# key ${keyPrint}x`,
    ];
    writeFileSync(file, lines.join('\n'));
    expect(await readPins(file)).toStrictEqual([
      {
        name: 'a.example:1',
        value: certificate,
        firstSeen: '2026-01-02T03:04:05Z',
        keyFingerprint: keyPrint,
        line: 3,
      },
      { name: 'b.example:2/x', value: thumbprint, firstSeen: undefined, line: 4 },
      { name: 'c.example:3', value: thumbprint, firstSeen: '2026-01-02T03:04:05Z', line: 5 },
      { name: 'e.example:5', value: other, firstSeen: undefined, line: 8 },
    ]);
  });

  it.each([
    ['no value', 'a.example:1'],
    ['31 pairs', `a.example:1 ${certificate.slice(3)}`],
    ['33 pairs', `a.example:1 ${certificate}:0A`],
    ['lower case', `a.example:1 ${certificate.toLowerCase()}`],
    ['42 characters', `a.example:1 ${thumbprint.slice(1)}`],
    ['44 characters', `a.example:1 ${thumbprint}x`],
    ['a fourth word', `a.example:1 ${certificate} 2026-01-02T03:04:05Z more`],
    ['a value in a comment', `a.example:1 # ${certificate}`],
  ])('refuses a line with %s and says which', async (_, line) => {
    writeFileSync(file, `# first\n${line}\n`);
    await expect(readPins(file)).rejects.toMatchObject({
      code: 'BAD_REQUEST',
      message: expect.stringContaining(`Line 2 of ${file}`),
    });
  });

  it('reports a file that cannot be read', async () => {
    await expect(readPins(folder)).rejects.toMatchObject({ code: 'EISDIR' });
  });
});

describe('findPins()', () => {
  it('gives all lines of exactly this name', async () => {
    writeFileSync(
      file,
      `a.example:1 ${certificate}\na.example:12 ${certificate}\nA.example:1 ${other}\na.example:1 ${other}\n`,
    );
    expect((await findPins(file, 'a.example:1')).map(({ line }) => line)).toEqual([1, 4]);
    expect(await findPins(file, 'a.example')).toEqual([]);
  });
});

describe('addPin()', () => {
  it('makes file and folder for the owner alone, with a heading', async () => {
    const nested = join(folder, 'one', 'two');
    file = knownHostsFile(nested);
    const before = Date.now();
    await withoutMask(() => addPin(file, 'a.example:1', certificate, { keyFingerprint: keyPrint }));
    expect(modeOf(file)).toBe(0o600);
    expect(modeOf(nested)).toBe(0o700);
    expect(modeOf(join(folder, 'one'))).toBe(0o700);
    expect(await readdir(nested)).toEqual(['known_hosts']);
    const [heading, line, ...rest] = text().split('\n');
    expect(heading).toBe(headerLine);
    const [, time] = /^a\.example:1 \S+ (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ) # key K{43}$/.exec(line)!;
    expect(line).toContain(` ${certificate} `);
    expect(Date.parse(time)).toBeGreaterThan(before - 1000);
    expect(Date.parse(time)).toBeLessThanOrEqual(Date.now());
    expect(rest).toEqual(['']);
  });

  it('appends to existing lines, and keeps comments and empty lines', async () => {
    writeFileSync(file, `# mine\n\na.example:1 ${certificate} then # why\n\n\n`);
    await addPin(file, 'a.example:1', other);
    await addPin(file, 'b.example:2', certificate);
    expect(text().replaceAll(/\d{4}-\S+Z/g, 'NOW')).toBe(
      `# mine\n\na.example:1 ${certificate} then # why\na.example:1 ${other} NOW\nb.example:2 ${certificate} NOW\n`,
    );
  });

  it('does not write existing entries again', async () => {
    writeFileSync(file, `a.example:1 ${certificate}\nb.example:2 ${other}`);
    const { ino } = statSync(file);
    await addPin(file, 'a.example:1', certificate, { replace: true });
    await addPin(file, 'b.example:2', other);
    expect(text()).toBe(`a.example:1 ${certificate}\nb.example:2 ${other}`);
    expect(statSync(file).ino).toBe(ino);
    expect(await readdir(folder)).toEqual(['known_hosts']);
  });

  it('replaces the lines of this name alone', async () => {
    writeFileSync(
      file,
      `# mine\na.example:1 ${certificate}\nb.example:2 ${certificate}\na.example:1 ${thumbprint}\n`,
    );
    await addPin(file, 'a.example:1', other, { replace: true });
    expect(text().replace(/\d{4}-\S+Z/, 'NOW')).toBe(
      `# mine\nb.example:2 ${certificate}\na.example:1 ${other} NOW\n`,
    );
    rmSync(file);
    await addPin(file, 'a.example:1', other);
    await addPin(file, 'a.example:1', certificate, { replace: true });
    expect((await readPins(file)).map(({ value, line }) => [value, line])).toEqual([[certificate, 2]]);
  });

  it.each(['a b', 'a#b', 'a\tb', 'a\nb'])('refuses the name %j, which would break a line', async (name) => {
    await expect(addPin(file, name, certificate)).rejects.toThrow(TypeError);
    expect(await readdir(folder)).toEqual([]);
  });

  it('changes nothing in a file with a fault, and frees it', async () => {
    writeFileSync(file, 'no-pin\n');
    await expect(addPin(file, 'a.example:1', certificate)).rejects.toMatchObject({ code: 'BAD_REQUEST' });
    expect(text()).toBe('no-pin\n');
    expect(await readdir(folder)).toEqual(['known_hosts']);
  });
});

describe('updatePin()', () => {
  it('changes value and key of one line, and keeps its time and place', async () => {
    const lines = [
      `a.example:1 ${other} 2026-01-02T03:04:05Z`,
      `a.example:1 ${certificate} 2026-02-03T04:05:06Z # key ${keyPrint}`,
      `b.example:2 ${certificate} 2026-03-04T05:06:07Z`,
      `c.example:3 ${thumbprint}`,
      '',
    ];
    writeFileSync(file, lines.join('\n'));
    const now = { value: pairs('BB'), keyFingerprint: thumbprint };
    const stale = { name: 'a.example:1', value: certificate, line: 99 };
    await updatePin(file, stale, now);
    lines[1] = `a.example:1 ${pairs('BB')} 2026-02-03T04:05:06Z # key ${thumbprint}`;
    expect(text()).toBe(lines.join('\n'));
    await updatePin(file, (await findPins(file, 'c.example:3'))[0], now);
    lines[3] = `c.example:3 ${pairs('BB')}  # key ${thumbprint}`;
    expect(text()).toBe(lines.join('\n'));
    // Gone meanwhile: nothing is added.
    await updatePin(file, stale, now);
    expect(text()).toBe(lines.join('\n'));
  });
});

describe('removePins()', () => {
  it('takes out all lines of a name and says how many', async () => {
    const rest = `# mine\nb.example:2 ${certificate}\n`;
    writeFileSync(file, `a.example:1 ${certificate}\n${rest}a.example:1 ${other}\n`);
    expect(await removePins(file, 'a.example')).toBe(0);
    expect(await removePins(file, 'a.example:1')).toBe(2);
    expect(text()).toBe(rest);
    expect(await removePins(file, 'a.example:1')).toBe(0);
  });
});

describe('the lock', () => {
  it('is readable by its owner alone, and removed at the end by any process', async () => {
    const lock = `${file}.lock`;
    let mode: number | undefined;
    await withoutMask(async () => {
      let done = false;
      const adding = addPin(file, 'a.example:1', certificate).finally(() => {
        done = true;
      });
      mode = await watchFor(
        () => {
          const stat = statSync(lock, { throwIfNoEntry: false });
          if (stat) rmSync(lock);
          return stat && stat.mode & 0o777;
        },
        () => done,
      );
      await adding;
    });
    expect(mode).toBe(0o600);
    expect(await readdir(folder)).toEqual(['known_hosts']);
  });

  it('of a process that is gone is removed after ten seconds, no sooner', async () => {
    const lock = `${file}.lock`;
    writeFileSync(lock, '');
    const clock = { ms: Date.parse('2026-01-02T03:04:05Z') };
    utimesSync(lock, new Date(clock.ms - 10_000), new Date(clock.ms - 10_000));
    const asked = vi.spyOn(Date, 'now').mockImplementation(() => clock.ms);
    let done = false;
    const adding = addPin(file, 'a.example:1', certificate).then(() => {
      done = true;
    });
    // It has looked several times.
    await watchFor(
      () => (asked.mock.calls.length > 9 ? true : undefined),
      () => done,
    );
    expect(done).toBe(false);
    clock.ms += 1;
    await expect.poll(() => done, { timeout: 20_000 }).toBe(true);
    await adding;
    expect(await readPins(file)).toHaveLength(1);
  });

  it('of another process is waited for five seconds, then named', async () => {
    const lock = `${file}.lock`;
    writeFileSync(lock, '');
    const clock = { ms: Date.parse('2026-01-02T03:04:05Z') };
    utimesSync(lock, new Date(clock.ms), new Date(clock.ms));
    const asked = vi.spyOn(Date, 'now').mockImplementation(() => clock.ms);
    let fault: unknown;
    const adding = addPin(file, 'a.example:1', certificate).catch((error: unknown) => {
      fault = error;
    });
    const looks = async (count: number) => {
      const until = asked.mock.calls.length + count;
      await watchFor(
        () => (asked.mock.calls.length > until ? true : undefined),
        () => fault !== undefined,
      );
    };
    await looks(5);
    clock.ms += 5_000;
    await looks(9);
    expect(fault).toBeUndefined();
    clock.ms += 1;
    await expect.poll(() => fault, { timeout: 20_000 }).toBeDefined();
    await adding;
    expect(fault).toMatchObject({ code: 'CONFLICT', message: expect.stringContaining(lock) });
    expect(await readdir(folder)).toEqual(['known_hosts.lock']);
  });

  it('that cannot be made is reported as what it is', async () => {
    // With `.lock` it is longer than a name may be.
    const long = join(folder, 'x'.repeat(252));
    await expect(addPin(long, 'a.example:1', certificate)).rejects.toMatchObject({ code: 'ENAMETOOLONG' });
    expect(await readdir(folder)).toEqual([]);
  });
});

describe('a folder of another user', () => {
  const isRoot = process.geteuid?.() === 0;

  it.skipIf(!isRoot)('gets files of its owner from root', async () => {
    chownSync(folder, 12_345, 12_346);
    await addPin(file, 'a.example:1', certificate);
    expect(statSync(file)).toMatchObject({ uid: 12_345, gid: 12_346 });
  });

  it.skipIf(!isRoot)('is left alone by everyone else', async () => {
    await addPin(file, 'a.example:1', certificate);
    // Readable and writable: it is not the system that refuses.
    chmodSync(folder, 0o777);
    chmodSync(file, 0o666);
    const before = text();
    process.seteuid!(12_345);
    try {
      await expect(removePins(file, 'b.example:2')).rejects.toMatchObject({ code: 'FORBIDDEN' });
      await expect(addPin(file, 'b.example:2', other)).rejects.toMatchObject({ code: 'FORBIDDEN' });
    } finally {
      process.seteuid!(0);
    }
    expect(text()).toBe(before);
    expect(await readdir(folder)).toEqual(['known_hosts']);
  });
});

describe('parseFingerprint()', () => {
  const digits = '0123456789ABCDEF'.repeat(4);
  const shown = digits.match(/../g)!.join(':');

  it.each([
    shown,
    digits,
    digits.toLowerCase(),
    `SHA256:${shown}`,
    `sha-256 ${digits}`,
    `sha256 Fingerprint=${shown}`,
    ` ${shown}\n`,
    // 1000 characters in all are read.
    ':'.repeat(1000 - 64) + digits,
  ])('takes %j', (given) => {
    expect(parseFingerprint(given)).toBe(shown);
  });

  it.each([
    '',
    digits.slice(1),
    `${digits}0`,
    digits.replace('A', 'G'),
    `MD5:${digits}`,
    ':'.repeat(1001 - 64) + digits,
  ])('refuses %j', (given) => {
    expect(() => parseFingerprint(given)).toThrow(
      expect.objectContaining({ code: 'BAD_REQUEST', message: expect.stringContaining('32 pairs') }),
    );
  });
});
