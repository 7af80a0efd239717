import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { loadConfig } from '../config.ts';
import { databaseFor, databaseOf, requireOwnDatabase } from './shared-database.ts';

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tomaat-shared-database-'));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const secret = 'postgres://tomaat:hidden@db.internal/tomaat';
const of = (flags: Record<string, unknown>, env: NodeJS.ProcessEnv = {}) =>
  databaseOf(loadConfig({ flags: { data: folder, ...flags }, env }));

describe('databaseOf()', () => {
  it('takes an address, or that in a file', async () => {
    const file = join(folder, 'address');
    await writeFile(file, `${secret}\n`);
    expect(of({})).toBeUndefined();
    expect(of({ database: file })).toBe(secret);
    expect(of({ database: 'postgresql://tomaat@db.internal/tomaat' })).toBe(
      'postgresql://tomaat@db.internal/tomaat',
    );
    expect(of({}, { TOMAAT_DATABASE: secret })).toBe(secret);
  });

  it('refuses a password on the command line, and files without an address', async () => {
    expect(() => of({ database: secret })).toThrow('TOMAAT_DATABASE');
    expect(() => of({ database: secret })).not.toThrow('hidden');
    expect(() => of({ database: join(folder, 'missing') })).toThrow('ENOENT');
    for (const [name, text] of [
      ['words', 'mysql://db/tomaat'],
      ['two', `${secret}\n${secret}`],
      ['empty', ''],
    ]) {
      await writeFile(join(folder, name), text);
      expect(() => of({ database: join(folder, name) })).toThrow('and nothing else');
    }
  });
});

describe('databaseFor()', () => {
  it('reads the settings of the data folder, so that commands find the server’s', async () => {
    await writeFile(join(folder, 'tomaat.config.yaml'), `database: ${secret}\n`);
    expect(databaseFor({ data: folder })).toBe(secret);
    expect(() => requireOwnDatabase({ data: folder }, 'Do that.')).toThrow(/PostgreSQL.* Do that\./);
    await rm(join(folder, 'tomaat.config.yaml'));
    requireOwnDatabase({ data: folder }, 'Do that.');
  });
});
