import {
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { actAsOwner, becomeOwner, giveToOwner, ownerOf, requireOwner, userName } from './folder-owner.ts';

const isRoot = process.getuid?.() === 0;
/** A user who is not root, of those that the system has by name: the one who runs this, or any. */
const other = isRoot
  ? readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .map((line) => line.split(':'))
      .filter(([, , uid]) => Number(uid) > 0)
      .map(([name, , uid]) => ({ name, uid: Number(uid), gid: 54_321 }))[0]
  : { name: userInfo().username, uid: userInfo().uid, gid: userInfo().gid };

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'tomaat-owner-'));
});
afterEach(() => {
  vi.restoreAllMocks();
  rmSync(folder, { recursive: true, force: true });
});

/** A path that belongs to the other user. */
function owned(path: string): string {
  if (isRoot) chownSync(path, other.uid, other.gid);
  return path;
}
function ownedFile(name: string): void {
  writeFileSync(join(folder, name), '');
  owned(join(folder, name));
}
const asUser = (uid: number) => vi.spyOn(process as { geteuid(): number }, 'geteuid').mockReturnValue(uid);

/** What the process is told to become, without becoming it. */
function recorded(): unknown[] {
  const calls: unknown[] = [];
  for (const name of ['setegid', 'seteuid', 'setgroups', 'initgroups', 'setgid', 'setuid'] as const)
    vi.spyOn(process as unknown as Record<string, () => void>, name).mockImplementation(
      (...args: unknown[]) => void calls.push([name, ...args]),
    );
  return calls;
}

describe.skipIf(process.platform === 'win32')('ownerOf()', () => {
  it('goes by the files that the server makes, then by the folder', () => {
    expect(ownerOf(join(folder, 'none'))).toBeUndefined();
    const { uid, gid } = statSync(folder);
    expect(ownerOf(folder)).toEqual({ uid, gid });
    ownedFile('else.txt');
    expect(ownerOf(folder)).toEqual({ uid, gid });
    for (const name of ['server.db', 'registry.db', 'identity.key', 'audit.jsonl', 'known_hosts']) {
      ownedFile(name);
      expect(ownerOf(folder), name).toEqual({ uid: other.uid, gid: other.gid });
      rmSync(join(folder, name));
    }
  });

  it('finds none where the path is not a folder, and reports other errors', () => {
    writeFileSync(join(folder, 'file'), '');
    expect(ownerOf(join(folder, 'file', 'data'))).toBeUndefined();
    symlinkSync('loop', join(folder, 'loop'));
    expect(() => ownerOf(join(folder, 'loop'))).toThrow('ELOOP');
  });
});

describe.skipIf(process.platform === 'win32')('requireOwner()', () => {
  it('lets the owner go on, and root act as the owner', () => {
    owned(folder);
    asUser(other.uid);
    expect(requireOwner(folder)).toBeUndefined();
    asUser(0);
    expect(requireOwner(folder)).toEqual({ uid: other.uid, gid: other.gid });
    expect(requireOwner(join(folder, 'none'))).toBeUndefined();
  });

  it('refuses any other user of a used folder, with the command', () => {
    owned(folder);
    asUser(other.uid + 1_000_000);
    // An empty folder: the system decides.
    expect(requireOwner(folder)).toBeUndefined();
    ownedFile('audit.jsonl');
    expect(() => requireOwner(folder)).toThrow(
      expect.objectContaining({
        code: 'FORBIDDEN',
        message: expect.stringMatching(
          new RegExp(
            `belongs to the user ${other.name}, and you are #${other.uid + 1_000_000}\\..* -u '${other.name}'`,
          ),
        ),
      }),
    );
  });
});

describe.skipIf(process.platform === 'win32')('actAsOwner()', () => {
  it('changes the user and then changes back, in the order that the system allows', () => {
    owned(folder);
    asUser(0);
    vi.spyOn(process as { getegid(): number }, 'getegid').mockReturnValue(7);
    const calls = recorded();
    {
      using _owner = actAsOwner(folder);
      expect(calls).toEqual([
        ['setegid', other.gid],
        ['seteuid', other.uid],
      ]);
    }
    expect(calls.slice(2)).toEqual([
      ['seteuid', 0],
      ['setegid', 7],
    ]);
  });

  it('changes nothing for the owner', () => {
    const calls = recorded();
    owned(folder);
    asUser(other.uid);
    {
      using _owner = actAsOwner(folder);
    }
    expect(becomeOwner(folder)).toBeUndefined();
    expect(calls).toEqual([]);
  });
});

describe.skipIf(process.platform === 'win32')('becomeOwner()', () => {
  it('takes the groups of the owner before the user', () => {
    owned(folder);
    asUser(0);
    const calls = recorded();
    expect(becomeOwner(folder)).toEqual({ uid: other.uid, gid: other.gid });
    expect(calls).toEqual([
      ['initgroups', other.name, other.gid],
      ['setgid', other.gid],
      ['setuid', other.uid],
    ]);
  });

  it.skipIf(!isRoot)('takes the group of the folder alone for a user without a name', () => {
    chownSync(folder, 4_000_001, 4_000_002);
    const calls = recorded();
    expect(becomeOwner(folder)).toEqual({ uid: 4_000_001, gid: 4_000_002 });
    expect(calls).toEqual([
      ['setgroups', [4_000_002]],
      ['setgid', 4_000_002],
      ['setuid', 4_000_001],
    ]);
  });
});

describe.skipIf(!isRoot)('giveToOwner()', () => {
  it('gives a file to the owner of its folder, or of another one', () => {
    owned(folder);
    const file = join(folder, 'file');
    writeFileSync(file, '');
    giveToOwner(file);
    expect(statSync(file)).toMatchObject({ uid: other.uid, gid: other.gid });
    const deep = join(folder, 'deep');
    mkdirSync(deep);
    writeFileSync(join(deep, 'file'), '');
    giveToOwner(join(deep, 'file'));
    expect(statSync(join(deep, 'file')).uid).toBe(0);
    giveToOwner(join(deep, 'file'), folder);
    expect(statSync(join(deep, 'file')).uid).toBe(other.uid);
  });
});

describe.skipIf(process.platform === 'win32')('userName()', () => {
  it('knows the names of the system', () => {
    expect(userName(0)).toBe('root');
    expect(userName(other.uid)).toBe(other.name);
    expect(userName(4_000_001)).toBeUndefined();
  });
});
